//! Real data against answers that other engines gave. Reads the folder `SHOPSTREAM_DATA`; without it the checks are
//! skipped, and say so.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{RecordBatch, StringArray, UInt32Array};
use arrow::compute::take_record_batch;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use connectors::format::csv::{CsvDecoder, CsvOptions};
use connectors::format::parquet::{ParquetColumns, batches};
use dataflow::DecodedRows;
use engine::{Database, IngestMeta, Options, Outcome};
use futures::StreamExt;

/// The folder of real data.
pub fn data() -> Option<PathBuf> {
    match std::env::var_os("SHOPSTREAM_DATA") {
        Some(folder) => Some(PathBuf::from(folder)),
        None => {
            println!("skipped: SHOPSTREAM_DATA is not set");
            None
        }
    }
}

struct Db {
    folder: tempfile::TempDir,
    workers: usize,
    database: Option<Arc<Database>>,
    runtime: tokio::runtime::Runtime,
}

impl Db {
    fn new(workers: usize) -> Db {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let mut db = Db { folder: tempfile::tempdir().unwrap(), workers, database: None, runtime };
        db.restart();
        db
    }

    fn restart(&mut self) {
        self.database = None;
        let data_dir = self.folder.path().to_path_buf();
        self.database = Some(
            Database::open(Options {
                workers: self.workers,
                memory_bytes: 2 << 30,
                ..Options::new(data_dir)
            })
            .unwrap(),
        );
    }

    fn database(&self) -> &Arc<Database> {
        self.database.as_ref().unwrap()
    }

    /// Rows of the last statement, cells as text.
    fn run(&self, sql: &str) -> Vec<Vec<String>> {
        let session = self.database().session();
        self.runtime.block_on(async {
            let mut rows = Vec::new();
            for statement in session.parse(sql).unwrap() {
                rows.clear();
                let outcome =
                    session.run(&statement, vec![]).await.unwrap_or_else(|e| panic!("{sql}: {e:?}"));
                if let Outcome::Rows { mut stream, .. } = outcome {
                    while let Some(batch) = stream.next().await {
                        rows.extend(cells(&batch.unwrap()));
                    }
                }
            }
            rows
        })
    }

    fn ingest(&self, table: &str, batch: RecordBatch) -> engine::Receipt {
        let count = batch.num_rows() as u32;
        let rows = DecodedRows {
            absent: vec![None; batch.num_columns()],
            batch,
            row_numbers: (0..count).collect(),
            raw_ranges: vec![],
            rejected: vec![],
        };
        self.runtime.block_on(self.database().ingest(table, rows, IngestMeta::default())).unwrap()
    }

    fn flush(&self) {
        self.runtime.block_on(self.database().flush()).unwrap();
    }
}

fn cells(batch: &RecordBatch) -> Vec<Vec<String>> {
    let options = FormatOptions::default();
    let formatters: Vec<_> =
        batch.columns().iter().map(|c| ArrayFormatter::try_new(c.as_ref(), &options).unwrap()).collect();
    (0..batch.num_rows()).map(|r| formatters.iter().map(|f| f.value(r).to_string()).collect()).collect()
}

fn gunzip(path: &Path) -> Vec<u8> {
    let mut text = Vec::new();
    let file = std::fs::File::open(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    flate2::read::MultiGzDecoder::new(file).read_to_end(&mut text).unwrap();
    text
}

pub const PACK_TABLE: &str = include_str!("../../../../packs/commerce/tables/user_behavior.sql");
pub const W1: &str = "CREATE MATERIALIZED VIEW w1 AS SELECT window_start, behavior, count(*) AS cnt FROM TUMBLE(user_behavior, ts, INTERVAL '1 minute') GROUP BY window_start, window_end, behavior";
pub const W3: &str = "CREATE MATERIALIZED VIEW w3 AS SELECT window_start, count(DISTINCT user_id) AS uv FROM TABLE(TUMBLE(TABLE user_behavior, DESCRIPTOR(ts), INTERVAL '1' HOUR)) WHERE behavior = 'pv' GROUP BY window_start, window_end";
const W2_FINAL: &str = include_str!("../../../../packs/commerce/views/hot_items.sql");

/// The pack's view gives final windows only; without the clause it shows the open ones too.
pub fn w2() -> String {
    W2_FINAL.replace("EMIT ON WINDOW CLOSE", "").replace("VIEW hot_items", "VIEW w2")
}

/// Queries of the views whose answers are known, each with the file of its answer, lines in any order.
pub fn taobao_answers() -> [(String, &'static str); 3] {
    let epoch = |column: &str| format!("CAST(EXTRACT(EPOCH FROM {column}) AS BIGINT)");
    let (start, end) = (epoch("window_start"), epoch("window_end"));
    [
        (format!("SELECT {start}, behavior, cnt FROM w1"), "expected_w1_behaviour_per_minute.csv"),
        (format!("SELECT {end}, rank, item_id, cnt FROM w2"), "expected_w2_hot_items.csv"),
        (format!("SELECT {start}, uv FROM w3"), "expected_w3_uv_per_hour.csv"),
    ]
}

/// The lines of an answer's file, sorted.
pub fn expected_lines(folder: &Path, name: &str) -> Vec<String> {
    let text = std::fs::read_to_string(folder.join("taobao").join(name)).unwrap();
    let mut lines: Vec<String> = text.lines().map(|l| l.trim().to_string()).collect();
    lines.sort();
    lines
}

/// The Taobao file as rows of `user_behavior`, with an event id per row.
fn taobao(db: &Db, folder: &Path) -> RecordBatch {
    let text = gunzip(&folder.join("taobao/UserBehavior.csv.gz"));
    let schema = db.database().table("user_behavior").unwrap().input_schema();
    let decoded = CsvDecoder::new(&schema, &[0, 1, 2, 3, 4], CsvOptions::default()).decode(&text);
    assert!(decoded.rejected.is_empty());
    let mut columns = decoded.batch.columns().to_vec();
    let ids = (0..decoded.batch.num_rows()).map(|i| Some(format!("row-{i}")));
    columns[5] = Arc::new(StringArray::from_iter(ids));
    RecordBatch::try_new(decoded.batch.schema(), columns).unwrap()
}

fn create_taobao(db: &Db) {
    for statement in [PACK_TABLE, W1, &w2(), W2_FINAL, W3] {
        db.run(statement);
    }
}

fn check_taobao(db: &Db, folder: &Path, how: &str) {
    db.flush();
    let lines = |sql: &str| {
        let mut lines: Vec<String> = db.run(sql).into_iter().map(|r| r.join(",")).collect();
        lines.sort();
        lines
    };
    for (query, answer) in taobao_answers() {
        assert_eq!(lines(&query), expected_lines(folder, answer), "{query} {how}");
    }
    let end = "CAST(EXTRACT(EPOCH FROM window_end) AS BIGINT)";
    let closed = format!(
        "SELECT {end}, rank, item_id, cnt FROM w2 WHERE window_end <= (SELECT max(window_end) FROM hot_items)"
    );
    let final_rows = lines(&format!("SELECT {end}, rank, item_id, cnt FROM hot_items"));
    assert!(final_rows.len() >= 100, "two hours close some windows");
    assert_eq!(final_rows, lines(&closed), "final W2 {how}");
    assert_eq!(db.run("SELECT count(*) FROM late_rows"), [["0"]], "nothing is late {how}");
}

#[test]
fn taobao_in_one_go_at_1_2_and_4_workers() {
    let Some(folder) = data() else { return };
    for workers in [1, 2, 4] {
        let db = Db::new(workers);
        create_taobao(&db);
        db.ingest("user_behavior", taobao(&db, &folder));
        check_taobao(&db, &folder, &format!("in one go, {workers} workers"));
    }
}

#[test]
fn taobao_in_random_batches_with_a_restart_in_the_middle() {
    let Some(folder) = data() else { return };
    let mut rng = fastrand::Rng::with_seed(5);
    let mut db = Db::new(2);
    create_taobao(&db);
    let rows = taobao(&db, &folder);
    let mut at = 0;
    let mut restarted = false;
    while at < rows.num_rows() {
        let length = rng.usize(1..3000).min(rows.num_rows() - at);
        db.ingest("user_behavior", rows.slice(at, length));
        at += length;
        if at > rows.num_rows() / 2 && !restarted {
            db.restart();
            restarted = true;
        }
    }
    check_taobao(&db, &folder, "in random batches");
    db.restart();
    check_taobao(&db, &folder, "after a restart");
}

#[test]
fn taobao_shuffled_within_five_seconds_and_sent_twice() {
    let Some(folder) = data() else { return };
    let mut rng = fastrand::Rng::with_seed(6);
    let db = Db::new(2);
    create_taobao(&db);
    let rows = taobao(&db, &folder);
    let times = engine::operators::microseconds(rows.column(4)).unwrap();
    // Each row arrives up to five seconds late: none is behind the watermark when it comes.
    let mut order: Vec<(i64, u32)> =
        (0..rows.num_rows()).map(|i| (times.value(i) + rng.i64(0..5_000_000), i as u32)).collect();
    order.sort();
    let order = UInt32Array::from_iter_values(order.into_iter().map(|(_, i)| i));
    let shuffled = take_record_batch(&rows, &order).unwrap();
    let mut at = 0;
    let mut duplicates = 0;
    while at < shuffled.num_rows() {
        let length = rng.usize(1..5000).min(shuffled.num_rows() - at);
        let part = shuffled.slice(at, length);
        db.ingest("user_behavior", part.clone());
        duplicates += db.ingest("user_behavior", part).duplicates;
        at += length;
    }
    assert_eq!(duplicates, rows.num_rows() as u64, "every second sending is recognized");
    check_taobao(&db, &folder, "shuffled and sent twice");
}

fn load_parquet(db: &Db, table: &str, path: &Path) -> usize {
    let schema = db.database().table(table).unwrap().input_schema();
    let file = std::fs::File::open(path).unwrap();
    let columns = ParquetColumns::ByName { ignore_unknown: true };
    let mut count = 0;
    for rows in batches(file, &schema, &columns).unwrap() {
        let rows = rows.unwrap();
        assert!(rows.rejected.is_empty(), "{:?}", rows.rejected[0]);
        count += rows.batch.num_rows();
        db.ingest(table, rows.batch);
    }
    db.flush();
    count
}

/// Compares as golden answers are meant: numbers to the cent, everything else as text.
fn check_golden(db: &Db, folder: &Path, name: &str, sql: &str) {
    let text = String::from_utf8(gunzip(&folder.join("golden").join(format!("{name}.csv.gz")))).unwrap();
    let cell = |text: &str| {
        let text = text.trim().trim_matches('"').replace('T', " ").trim_end_matches('Z').to_string();
        text.parse::<f64>().map_or(text, |n| format!("{:.2}", n + 0.0))
    };
    let mut expected: BTreeMap<Vec<String>, usize> = BTreeMap::new();
    for line in text.lines().skip(1) {
        *expected.entry(split_csv(line).iter().map(|c| cell(c)).collect()).or_default() += 1;
    }
    let mut actual: BTreeMap<Vec<String>, usize> = BTreeMap::new();
    for row in db.run(sql) {
        *actual.entry(row.iter().map(|c| cell(c)).collect()).or_default() += 1;
    }
    let missing: Vec<_> = expected.iter().filter(|(r, n)| actual.get(*r) != Some(n)).take(3).collect();
    let extra: Vec<_> = actual.iter().filter(|(r, n)| expected.get(*r) != Some(n)).take(3).collect();
    assert!(missing.is_empty() && extra.is_empty(), "{name}: missing {missing:?}, extra {extra:?}");
    assert!(!expected.is_empty());
}

fn split_csv(line: &str) -> Vec<String> {
    let mut cells = vec![String::new()];
    let mut quoted = false;
    for c in line.chars() {
        match c {
            '"' => quoted = !quoted,
            ',' if !quoted => cells.push(String::new()),
            c => cells.last_mut().unwrap().push(c),
        }
    }
    cells
}

#[test]
fn online_retail_to_the_cent() {
    let Some(folder) = data() else { return };
    let db = Db::new(2);
    db.run("CREATE TABLE tx (invoiceno TEXT, stockcode TEXT, quantity BIGINT, invoicedate TIMESTAMP, unitprice DECIMAL(18,4), customerid TEXT, country TEXT) APPEND ONLY");
    db.run("CREATE MATERIALIZED VIEW hourly AS SELECT date_trunc('hour', invoicedate) AS w, country, count(*) AS n_lines, count(DISTINCT invoiceno) AS n_inv, sum(quantity) AS qty, round(sum(quantity * unitprice), 2) AS rev FROM tx GROUP BY date_trunc('hour', invoicedate), country");
    db.run("CREATE MATERIALIZED VIEW daily AS SELECT CAST(invoicedate AS DATE) AS d, count(*) AS n_lines, count(DISTINCT invoiceno) AS invoices, count(DISTINCT customerid) AS customers, round(sum(quantity * unitprice), 2) AS net_revenue, round(sum(CASE WHEN invoiceno LIKE 'C%' THEN quantity * unitprice ELSE 0 END), 2) AS cancelled FROM tx GROUP BY CAST(invoicedate AS DATE)");
    db.run("CREATE MATERIALIZED VIEW top10 AS SELECT d, stockcode, qty, rk FROM (SELECT d, stockcode, qty, ROW_NUMBER() OVER (PARTITION BY d ORDER BY qty DESC, stockcode) AS rk FROM (SELECT CAST(invoicedate AS DATE) AS d, stockcode, sum(quantity) AS qty FROM tx WHERE invoiceno NOT LIKE 'C%' AND quantity > 0 AND unitprice > 0 GROUP BY CAST(invoicedate AS DATE), stockcode) AS q) AS r WHERE rk <= 10");
    assert_eq!(load_parquet(&db, "tx", &folder.join("online_retail.parquet")), 541_909);
    // This one is created on existing data.
    db.run("CREATE MATERIALIZED VIEW customers AS SELECT customerid, count(DISTINCT invoiceno) AS f, round(sum(quantity * unitprice), 2) AS m, max(invoicedate) AS last FROM tx WHERE customerid IS NOT NULL AND invoiceno NOT LIKE 'C%' AND quantity > 0 AND unitprice > 0 GROUP BY customerid");
    check_golden(&db, &folder, "or_hourly_country", "SELECT * FROM hourly");
    check_golden(&db, &folder, "or_daily_revenue", "SELECT * FROM daily");
    check_golden(&db, &folder, "or_top10_items_per_day", "SELECT * FROM top10");
    check_golden(&db, &folder, "or_customer_totals", "SELECT * FROM customers");
}

#[test]
fn card_payments_to_the_cent() {
    let Some(folder) = data() else { return };
    let db = Db::new(2);
    db.run("CREATE TABLE fr (tx_datetime TIMESTAMP, tx_amount DECIMAL(18,2), tx_fraud BIGINT, WATERMARK FOR tx_datetime AS tx_datetime - INTERVAL '5 seconds') APPEND ONLY");
    db.run("CREATE MATERIALIZED VIEW hourly AS SELECT window_start AS w, count(*) AS n, sum(tx_fraud) AS fraud, round(sum(tx_amount), 2) AS amt FROM TUMBLE(fr, tx_datetime, INTERVAL '1 hour') GROUP BY window_start, window_end");
    db.run("CREATE MATERIALIZED VIEW big AS SELECT count(*) AS alerts, sum(tx_fraud) AS fraud FROM fr WHERE tx_amount > 220");
    assert_eq!(load_parquet(&db, "fr", &folder.join("fraud_tx_2018-04_05.parquet")), 585_177);
    check_golden(&db, &folder, "fr_hourly", "SELECT * FROM hourly");
    check_golden(&db, &folder, "fr_amount_rule", "SELECT * FROM big");
}

/// The 14 features of the Fraud Detection Handbook, as one view. Its windows are half-open, (t - w, t], and times are
/// whole seconds, so each begins a second later. What happened at a terminal is known seven days after. Its averages
/// are 32-bit floats, so they are compared within a millionth of their value.
const FRAUD_FEATURES: &str = "SELECT transaction_id, tx_datetime,
  CASE WHEN EXTRACT(ISODOW FROM tx_datetime) >= 6 THEN 1 ELSE 0 END AS during_weekend,
  CASE WHEN EXTRACT(HOUR FROM tx_datetime) <= 6 THEN 1 ELSE 0 END AS during_night,
  count(*) OVER c1 AS customer_nb_1, avg(tx_amount) OVER c1 AS customer_avg_1,
  count(*) OVER c7 AS customer_nb_7, avg(tx_amount) OVER c7 AS customer_avg_7,
  count(*) OVER c30 AS customer_nb_30, avg(tx_amount) OVER c30 AS customer_avg_30,
  count(*) OVER t1 AS terminal_nb_1, COALESCE(avg(tx_fraud) OVER t1, 0) AS terminal_risk_1,
  count(*) OVER t7 AS terminal_nb_7, COALESCE(avg(tx_fraud) OVER t7, 0) AS terminal_risk_7,
  count(*) OVER t30 AS terminal_nb_30, COALESCE(avg(tx_fraud) OVER t30, 0) AS terminal_risk_30
FROM fr
WINDOW
  c1 AS (PARTITION BY customer_id ORDER BY tx_datetime RANGE BETWEEN INTERVAL '86399 seconds' PRECEDING AND CURRENT ROW),
  c7 AS (PARTITION BY customer_id ORDER BY tx_datetime RANGE BETWEEN INTERVAL '604799 seconds' PRECEDING AND CURRENT ROW),
  c30 AS (PARTITION BY customer_id ORDER BY tx_datetime RANGE BETWEEN INTERVAL '2591999 seconds' PRECEDING AND CURRENT ROW),
  t1 AS (PARTITION BY terminal_id ORDER BY tx_datetime RANGE BETWEEN INTERVAL '691199 seconds' PRECEDING AND INTERVAL '7 days' PRECEDING),
  t7 AS (PARTITION BY terminal_id ORDER BY tx_datetime RANGE BETWEEN INTERVAL '1209599 seconds' PRECEDING AND INTERVAL '7 days' PRECEDING),
  t30 AS (PARTITION BY terminal_id ORDER BY tx_datetime RANGE BETWEEN INTERVAL '3196799 seconds' PRECEDING AND INTERVAL '7 days' PRECEDING)";

#[test]
fn fraud_features_equal_the_handbook() {
    let Some(folder) = data() else { return };
    for (workers, emit) in [(1, ""), (3, " EMIT ON WINDOW CLOSE")] {
        let db = Db::new(workers);
        db.run("CREATE TABLE fr (transaction_id BIGINT, tx_datetime TIMESTAMP, customer_id BIGINT, terminal_id BIGINT, tx_amount DOUBLE PRECISION, tx_fraud BIGINT, WATERMARK FOR tx_datetime AS tx_datetime - INTERVAL '5 seconds') APPEND ONLY");
        db.run("CREATE TABLE oracle (transaction_id BIGINT PRIMARY KEY, tx_during_weekend BIGINT, tx_during_night BIGINT, customer_id_nb_tx_1day_window DOUBLE PRECISION, customer_id_avg_amount_1day_window DOUBLE PRECISION, customer_id_nb_tx_7day_window DOUBLE PRECISION, customer_id_avg_amount_7day_window DOUBLE PRECISION, customer_id_nb_tx_30day_window DOUBLE PRECISION, customer_id_avg_amount_30day_window DOUBLE PRECISION, terminal_id_nb_tx_1day_window DOUBLE PRECISION, terminal_id_risk_1day_window DOUBLE PRECISION, terminal_id_nb_tx_7day_window DOUBLE PRECISION, terminal_id_risk_7day_window DOUBLE PRECISION, terminal_id_nb_tx_30day_window DOUBLE PRECISION, terminal_id_risk_30day_window DOUBLE PRECISION)");
        db.run(&format!("CREATE MATERIALIZED VIEW features AS {FRAUD_FEATURES}{emit}"));
        let started = std::time::Instant::now();
        assert_eq!(load_parquet(&db, "fr", &folder.join("fraud_tx_2018-04_05.parquet")), 585_177);
        println!("fraud features, {workers} workers{emit}: loaded in {:?}", started.elapsed());
        // The watermark passes the last payment.
        db.run("INSERT INTO fr (transaction_id, tx_datetime) VALUES (-1, '2018-06-01')");
        let oracle = folder.join("fraud_features_oracle_2018-04_05.parquet");
        assert_eq!(load_parquet(&db, "oracle", &oracle), 8_277);
        let mut wrong = vec![
            "o.tx_during_weekend <> f.during_weekend".to_string(),
            "o.tx_during_night <> f.during_night".to_string(),
        ];
        for days in ["1", "7", "30"] {
            for (theirs, ours) in [("customer_id_nb_tx", "customer_nb"), ("terminal_id_nb_tx", "terminal_nb")]
            {
                wrong.push(format!("o.{theirs}_{days}day_window <> f.{ours}_{days}"));
            }
            for (theirs, ours) in
                [("customer_id_avg_amount", "customer_avg"), ("terminal_id_risk", "terminal_risk")]
            {
                let (theirs, ours) = (format!("o.{theirs}_{days}day_window"), format!("f.{ours}_{days}"));
                wrong.push(format!("NOT abs({theirs} - {ours}) <= 1e-6 * greatest(1, abs({ours}))"));
            }
        }
        let joined = "FROM oracle AS o JOIN features AS f ON o.transaction_id = f.transaction_id";
        assert_eq!(db.run(&format!("SELECT count(*) {joined}")), [["8277"]], "{workers} workers{emit}");
        for wrong in wrong {
            let count = db.run(&format!("SELECT count(*) {joined} WHERE {wrong}"));
            assert_eq!(count, [["0"]], "{wrong}, {workers} workers{emit}");
        }
        assert_eq!(db.run("SELECT count(*) FROM late_rows"), [["0"]]);
    }
}

#[test]
fn sessions_and_velocity_equal_the_golden_answers() {
    let Some(folder) = data() else { return };
    let db = Db::new(2);
    db.run("CREATE TABLE fr (tx_datetime TIMESTAMP, customer_id BIGINT, tx_fraud BIGINT) APPEND ONLY");
    db.run("CREATE MATERIALIZED VIEW velocity AS SELECT count(*) AS alerts, sum(tx_fraud) AS fraud FROM (SELECT tx_fraud, count(*) OVER (PARTITION BY customer_id ORDER BY tx_datetime RANGE BETWEEN INTERVAL '1 hour' PRECEDING AND CURRENT ROW) AS n1h FROM fr) AS q WHERE n1h >= 4");
    load_parquet(&db, "fr", &folder.join("fraud_tx_2018-04_05.parquet"));
    check_golden(&db, &folder, "fr_velocity_alerts", "SELECT * FROM velocity");
    db.run("CREATE TABLE tx (invoiceno TEXT, invoicedate TIMESTAMP, customerid TEXT) APPEND ONLY");
    db.run("CREATE MATERIALIZED VIEW sessions AS SELECT customerid, window_start, count(*) AS n FROM SESSION((SELECT DISTINCT customerid, invoicedate, invoiceno FROM tx WHERE customerid IS NOT NULL) PARTITION BY customerid, invoicedate, INTERVAL '30 minutes') GROUP BY customerid, window_start, window_end");
    load_parquet(&db, "tx", &folder.join("online_retail.parquet"));
    check_golden(
        &db,
        &folder,
        "or_sessions_30min_gap",
        "SELECT count(*) AS sessions, sum(n) AS invoices, max(n) AS max_invoices FROM sessions",
    );
}

#[test]
fn every_batch_of_a_parquet_file_is_read() {
    // Guards the loader above against reading the first batches only: the columns' sums are of another reader.
    let Some(folder) = data() else { return };
    let db = Db::new(1);
    db.run("CREATE TABLE fr (tx_datetime TIMESTAMP, tx_amount DECIMAL(18,2), tx_fraud BIGINT) APPEND ONLY");
    let path = folder.join("fraud_tx_2018-04_05.parquet");
    let schema = db.database().table("fr").unwrap().input_schema();
    let columns = ParquetColumns::ByName { ignore_unknown: true };
    let parts = batches(std::fs::File::open(&path).unwrap(), &schema, &columns).unwrap().count();
    assert!(parts > 1, "the file has several batches, read was {parts}");
    assert_eq!(load_parquet(&db, "fr", &path), 585_177);
    let reader = parquet::file::serialized_reader::SerializedFileReader::try_from(path.as_path()).unwrap();
    let (mut cents, mut frauds, mut rows) = (0i64, 0i64, 0i64);
    for row in parquet::file::reader::FileReader::get_row_iter(&reader, None).unwrap() {
        rows += 1;
        for (name, field) in row.unwrap().get_column_iter() {
            match (name.to_lowercase().as_str(), field) {
                ("tx_amount", parquet::record::Field::Double(amount)) => {
                    cents += (amount * 100.0).round() as i64
                }
                ("tx_fraud", field) => frauds += field.to_string().parse::<i64>().unwrap(),
                _ => {}
            }
        }
    }
    let sums = db
        .run("SELECT count(*), CAST(sum(tx_amount) * 100 AS BIGINT), CAST(sum(tx_fraud) AS BIGINT) FROM fr");
    assert_eq!(sums, [[rows.to_string(), cents.to_string(), frauds.to_string()]]);
}

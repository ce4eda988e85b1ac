//! packs/tutorial over the files of the well-known tutorial, against answers computed from the files.
//!
//! The inputs end, so all windows close and all waiting is over. Without `SHOPSTREAM_DATA` the checks are skipped.

use std::io::Read;
use std::path::{Path, PathBuf};

use arrow::array::RecordBatch;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use connectors::format::csv::{CsvDecoder, CsvOptions};
use engine::Transient;

fn data() -> Option<PathBuf> {
    match std::env::var_os("SHOPSTREAM_DATA") {
        Some(folder) => Some(PathBuf::from(folder)),
        None => {
            println!("skipped: SHOPSTREAM_DATA is not set");
            None
        }
    }
}

fn pack() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../packs/tutorial")
}

fn sql_files(folder: &str) -> Vec<(String, String)> {
    let mut files: Vec<(String, String)> = std::fs::read_dir(pack().join(folder))
        .unwrap()
        .map(|file| file.unwrap().path())
        .map(|path| {
            let name = path.file_stem().unwrap().to_string_lossy().into_owned();
            (name, std::fs::read_to_string(path).unwrap())
        })
        .collect();
    files.sort();
    files
}

/// The pack's tables and views, without rows.
fn engine(workers: usize) -> Transient {
    let mut engine = Transient::new(workers);
    for (name, sql) in sql_files("tables").into_iter().chain(sql_files("views")) {
        engine.define(&sql).unwrap_or_else(|error| panic!("{name}: {error:?}"));
    }
    engine
}

fn feed(engine: &mut Transient, table: &str, csv: &[u8], rows_at_once: usize) {
    let schema = engine.table(table).unwrap().input_schema();
    let columns: Vec<usize> = (0..schema.fields().len()).collect();
    let decoded = CsvDecoder::new(&schema, &columns, CsvOptions::default()).decode(csv);
    assert!(decoded.rejected.is_empty(), "{table}: {:?}", decoded.rejected.first());
    let mut start = 0;
    while start < decoded.batch.num_rows() {
        let count = rows_at_once.min(decoded.batch.num_rows() - start);
        engine.feed(table, decoded.batch.slice(start, count)).unwrap();
        start += count;
    }
}

/// The rows of a view as sorted lines.
fn lines(engine: &Transient, view: &str) -> Vec<String> {
    let mut lines: Vec<String> = engine.rows(view).unwrap().iter().flat_map(texts).collect();
    lines.sort();
    lines
}

fn texts(batch: &RecordBatch) -> Vec<String> {
    let options = FormatOptions::default().with_timestamp_tz_format(Some("%s"));
    let formatters: Vec<_> = batch
        .columns()
        .iter()
        .map(|column| ArrayFormatter::try_new(column.as_ref(), &options).unwrap())
        .collect();
    (0..batch.num_rows())
        .map(|row| formatters.iter().map(|f| f.value(row).to_string()).collect::<Vec<_>>().join(","))
        .collect()
}

fn gunzip(path: &Path) -> Vec<u8> {
    let mut bytes = Vec::new();
    flate2::read::MultiGzDecoder::new(std::fs::File::open(path).unwrap()).read_to_end(&mut bytes).unwrap();
    bytes
}

#[test]
fn every_file_is_named_like_its_relation_and_all_are_short() {
    let readme = std::fs::read_to_string(pack().join("README.md")).unwrap();
    let mut lines = 0;
    for folder in ["tables", "views"] {
        for (name, sql) in sql_files(folder) {
            assert!(sql.contains(&format!(" {name} ")), "{folder}/{name}.sql creates {name}");
            assert!(readme.contains(&format!("[{name}]")), "packs/tutorial/README.md lists {name}");
            lines += sql.lines().filter(|line| !line.starts_with("--") && !line.trim().is_empty()).count();
        }
    }
    assert!(lines <= 120, "{lines} lines of SQL");
}

#[test]
fn the_answers_are_those_of_the_files() {
    let Some(folder) = data() else { return };
    for (workers, rows_at_once) in [(1, 5000), (3, 97)] {
        let taobao = folder.join("taobao");
        let mut engine = engine(workers);
        let behavior = gunzip(&taobao.join("UserBehavior.csv.gz"));
        feed(&mut engine, "user_behavior", &behavior, rows_at_once * 10);
        for (table, file) in [
            ("ad_clicks", "AdClickLog.csv"),
            ("logins", "LoginLog.csv"),
            ("order_events", "OrderLog.csv"),
            ("receipts", "ReceiptLog.csv"),
        ] {
            feed(&mut engine, table, &std::fs::read(taobao.join(file)).unwrap(), rows_at_once);
        }
        feed(&mut engine, "page_requests", access_log(&folder).as_bytes(), rows_at_once);
        let channels = "1,download,appstore,1000\n2,install,appstore,1003\n3,install,huawei,1001\n2,uninstall,appstore,1004\n";
        feed(&mut engine, "channel_events", channels.as_bytes(), rows_at_once);
        engine.finish().unwrap();

        let expected = |name: &str| {
            let text = std::fs::read_to_string(taobao.join(name)).unwrap();
            let mut lines: Vec<String> = text.lines().map(str::to_string).collect();
            lines.sort();
            lines
        };
        assert_eq!(lines(&engine, "hot_items"), expected("expected_w2_hot_items.csv"));
        assert_eq!(lines(&engine, "unique_visitors"), expected("expected_w3_uv_per_hour.csv"));
        assert_eq!(page_views(&behavior), lines(&engine, "page_views"));
        hot_pages(&lines(&engine, "hot_pages"));
        assert_eq!(lines(&engine, "ad_click_blacklist"), ["1511654400,937166,1715"]);
        assert_eq!(lines(&engine, "login_failures"), ["1035,1558430842,1558430844"]);
        assert_eq!(lines(&engine, "unpaid_orders"), ["34756,1558430913", "34767,1558430949"]);
        let unmatched = lines(&engine, "unmatched_payments");
        let keys: Vec<&str> = unmatched.iter().map(|line| line.rsplit_once(',').unwrap().0).collect();
        assert_eq!(
            keys,
            ["35jue34we,payment", "88snrn932,payment", "8fdsfae83,receipt", "ewr342as4,receipt"]
        );
        let channels = lines(&engine, "channel_marketing");
        assert_eq!(channels.len(), 3 * 360, "each event is in 360 windows");
        assert!(channels.contains(&"1010,appstore,install,1".to_string()), "{:?}", &channels[..5]);
    }
}

/// The log as CSV.
fn access_log(folder: &Path) -> String {
    let log = gunzip(&folder.join("apache_access_log.gz"));
    let log = String::from_utf8_lossy(&log);
    let mut csv = String::new();
    for line in log.lines() {
        let (ip, rest) = line.split_once(' ').unwrap();
        let (_, rest) = rest.split_once('[').unwrap();
        let (time, rest) = rest.split_once("] \"").unwrap();
        let mut request = rest.split(' ');
        let (method, url) = (request.next().unwrap(), request.next().unwrap());
        // 17/May/2015:10:05:03 +0000
        let time = format!("2015-05-{} {}{}", &time[..2], &time[12..20], time[20..].replace(" +0000", "+00"));
        csv.push_str(&format!("{ip},{time},{method},\"{}\"\n", url.replace('"', "\"\"")));
    }
    csv
}

/// The first and the last window and sums over all, computed from the log by a script of a few lines.
fn hot_pages(found: &[String]) {
    assert_eq!(found.len(), 4200);
    let first: Vec<&str> = found.iter().take(5).map(String::as_str).collect();
    assert_eq!(
        first,
        [
            "1431857160,1,/favicon.ico,6",
            "1431857160,2,/images/jordan-80.png,5",
            "1431857160,3,/images/web/2009/banner.png,4",
            "1431857160,4,/blog/tags/puppet?flav=rss20,3",
            "1431857160,5,/,2"
        ]
    );
    let mut requests = 0;
    let mut weighted = 0;
    for line in found {
        let mut cells = line.splitn(3, ',');
        let end: i64 = cells.next().unwrap().parse().unwrap();
        let rank: i64 = cells.next().unwrap().parse().unwrap();
        let count: i64 = line.rsplit_once(',').unwrap().1.parse().unwrap();
        requests += count;
        weighted += end * rank * count;
    }
    assert_eq!((requests, weighted % 1_000_000_007), (27_860, 565_131_278));
}

/// Views per hour, counted from the file.
fn page_views(csv: &[u8]) -> Vec<String> {
    let mut hours: std::collections::BTreeMap<i64, u64> = std::collections::BTreeMap::new();
    for line in std::str::from_utf8(csv).unwrap().lines().filter(|line| line.contains(",pv,")) {
        let time: i64 = line.rsplit_once(',').unwrap().1.trim().parse().unwrap();
        *hours.entry(time - time % 3600).or_default() += 1;
    }
    hours.into_iter().map(|(hour, count)| format!("{hour},{count}")).collect()
}

//! TPC-H 1 to 22 (bench/tpch) equal their batch answers over tables that are inserted into, updated and deleted from.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringArray};
use arrow::compute::cast;
use arrow::datatypes::SchemaRef;
use engine::IngestMeta;
use fastrand::Rng;
use tpchgen::generators as dbgen;

use super::harness::Harness;
use super::queries::{Pending, Queries, file};

/// What the engine can't maintain: nothing.
const PENDING: &[Pending] = &[];

/// 50 suppliers, 1,000 parts, 750 customers, 7,500 orders, some 30,000 line items.
const SCALE: f64 = 0.005;

const TABLES: [&str; 8] =
    ["region", "nation", "supplier", "part", "partsupp", "customer", "orders", "lineitem"];

/// A table's rows as dbgen writes them: fields with a bar behind each.
fn lines(table: &str) -> Vec<String> {
    macro_rules! lines {
        ($generator:ident) => {
            dbgen::$generator::new(SCALE, 1, 1).iter().map(|row| row.to_string()).collect()
        };
    }
    match table {
        "region" => lines!(RegionGenerator),
        "nation" => lines!(NationGenerator),
        "supplier" => lines!(SupplierGenerator),
        "part" => lines!(PartGenerator),
        "partsupp" => lines!(PartSuppGenerator),
        "customer" => lines!(CustomerGenerator),
        "orders" => lines!(OrderGenerator),
        _ => lines!(LineItemGenerator),
    }
}

fn rows(schema: &SchemaRef, lines: &[String]) -> RecordBatch {
    let fields: Vec<Vec<&str>> = lines.iter().map(|line| line.split('|').collect()).collect();
    let columns = schema.fields().iter().enumerate().map(|(c, field)| {
        let texts: ArrayRef = Arc::new(StringArray::from_iter_values(fields.iter().map(|row| row[c])));
        cast(&texts, field.data_type()).unwrap()
    });
    RecordBatch::try_new(Arc::clone(schema), columns.collect()).unwrap()
}

/// Rows that are still to come, per table, in random order.
struct Feed {
    tables: Vec<(SchemaRef, Vec<String>)>,
}

impl Feed {
    fn new(db: &Harness, rng: &mut Rng) -> Feed {
        let tables = TABLES.map(|table| {
            let mut lines = lines(table);
            rng.shuffle(&mut lines);
            (db.database().table(table).unwrap().input_schema(), lines)
        });
        Feed { tables: tables.into() }
    }

    /// About `share` of what is left, table by table in random pieces, so that rows come before and after what they
    /// join with.
    fn ingest(&mut self, db: &Harness, share: f64, rng: &mut Rng) {
        let mut quotas: Vec<usize> =
            self.tables.iter().map(|(_, lines)| (lines.len() as f64 * share).ceil() as usize).collect();
        while quotas.iter().any(|quota| *quota > 0) {
            let table = rng.usize(..TABLES.len());
            let (schema, lines) = &mut self.tables[table];
            let count = quotas[table].min(1 + rng.usize(..4000));
            if count == 0 {
                continue;
            }
            quotas[table] -= count;
            let taken = lines.split_off(lines.len() - count);
            let receipt = db.ingest(TABLES[table], rows(schema, &taken), IngestMeta::default()).unwrap();
            assert_eq!((receipt.accepted as usize, receipt.rejected), (count, vec![]));
        }
    }
}

/// Updates and deletes of about a tenth of the rows, spread by their keys.
fn change(db: &Harness, rng: &mut Rng) {
    // A pseudo-random twentieth of the keys.
    let mut some = |key: &str| format!("({key} * 7919 + {}) % 20 = {}", rng.u32(..1000), rng.u32(..20));
    let statements = [
        format!("DELETE FROM lineitem WHERE {}", some("(l_orderkey * 7 + l_linenumber)")),
        format!(
            "UPDATE lineitem SET l_quantity = l_quantity + 1, l_discount = 0.07 WHERE {}",
            some("(l_orderkey * 7 + l_linenumber)")
        ),
        format!(
            "UPDATE lineitem SET l_receiptdate = l_commitdate WHERE {}",
            some("(l_orderkey + l_linenumber)")
        ),
        format!(
            "UPDATE lineitem SET l_suppkey = l_suppkey % 50 + 1 WHERE {}",
            some("(l_orderkey * 3 + l_linenumber)")
        ),
        format!("DELETE FROM orders WHERE {}", some("o_orderkey")),
        format!(
            "UPDATE orders SET o_custkey = o_custkey % 750 + 1, o_orderpriority = '1-URGENT' WHERE {}",
            some("o_orderkey")
        ),
        format!("DELETE FROM customer WHERE {}", some("c_custkey")),
        format!(
            "UPDATE customer SET c_acctbal = c_acctbal - 500, c_mktsegment = 'BUILDING' WHERE {}",
            some("c_custkey")
        ),
        format!("DELETE FROM part WHERE {}", some("p_partkey")),
        format!("UPDATE part SET p_size = 15, p_brand = 'Brand#23' WHERE {}", some("p_partkey")),
        format!("DELETE FROM partsupp WHERE {}", some("(ps_partkey * 5 + ps_suppkey)")),
        format!(
            "UPDATE partsupp SET ps_supplycost = 1.00, ps_availqty = ps_availqty + 100 WHERE {}",
            some("(ps_partkey * 5 + ps_suppkey)")
        ),
        format!(
            "UPDATE supplier SET s_nationkey = (s_nationkey + 1) % 25, s_comment = 'Customer Complaints' WHERE {}",
            some("s_suppkey")
        ),
        format!("DELETE FROM supplier WHERE {}", some("s_suppkey")),
        "UPDATE nation SET n_regionkey = 3 WHERE n_name = 'MOROCCO'".to_string(),
    ];
    let mut order: Vec<usize> = (0..statements.len()).collect();
    rng.shuffle(&mut order);
    for statement in order {
        db.run(&statements[statement]);
    }
}

fn run(workers: usize, seed: u64) {
    let mut rng = Rng::with_seed(seed);
    let mut queries = Queries::read("tpch", 1..23, PENDING);
    let mut db = Harness::new(workers);
    db.run(&file("tpch", "tables.sql"));
    let mut feed = Feed::new(&db, &mut rng);
    queries.create(&db, "before");
    feed.ingest(&db, 0.5, &mut rng);
    queries.create(&db, "amid");
    queries.check(&db, "in the middle", str::to_string);
    feed.ingest(&db, 0.5, &mut rng);
    db.restart();
    feed.ingest(&db, 1.0, &mut rng);
    queries.create(&db, "after");
    let empty = queries.check(&db, "with all rows", str::to_string);
    assert_eq!(empty, Vec::<String>::new(), "each query has something to answer");
    change(&db, &mut rng);
    queries.check(&db, "after updates and deletes", str::to_string);
    db.restart();
    queries.check(&db, "after a restart", str::to_string);
    println!("TPC-H: {} of 22 queries at {workers} workers, seed {seed}", queries.supported());
}

#[test]
fn queries_equal_their_batch_answers() {
    run(1, fastrand::u64(..));
}

#[test]
fn queries_equal_their_batch_answers_at_three_workers() {
    run(3, fastrand::u64(..));
}

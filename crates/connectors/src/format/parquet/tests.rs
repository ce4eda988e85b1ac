//! Parquet: every conversion, what is refused, and real files' habits.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, Decimal128Array, DictionaryArray, Float64Array, Int32Array, Int64Array, ListArray, StringArray,
    StructArray, TimestampMillisecondArray, TimestampNanosecondArray, UInt64Array,
};
use arrow::datatypes::Int32Type;
use parquet::arrow::ArrowWriter;

use super::*;
use crate::format::picture::{check, schema};

fn file(columns: Vec<(&str, ArrayRef)>) -> File {
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    let mut file = tempfile::tempfile().unwrap();
    let mut writer = ArrowWriter::try_new(&mut file, batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    file
}

const BY_NAME: ParquetColumns = ParquetColumns::ByName { ignore_unknown: false };

fn one(array: ArrayRef, to: &str, expected: &str) {
    let mut read = batches(file(vec![("v", array)]), &schema(&format!("v {to}")), &BY_NAME).unwrap();
    check(&read.next().unwrap().unwrap(), expected);
    assert!(read.next().is_none());
}

#[test]
fn numbers() {
    let floats = || Arc::new(Float64Array::from(vec![2.55, 2.675, -0.125, 1e20, f64::NAN, 3.0])) as ArrayRef;
    one(
        floats(),
        "numeric(10,2)",
        "0 v=2.55
         1 v=2.68
         2 v=-0.13
         3 ! out_of_range column \"v\": 1e20 is out of range for numeric(10,2)
         4 ! out_of_range column \"v\": NaN is out of range for numeric(10,2)
         5 v=3.00",
    );
    one(
        floats(),
        "integer",
        "0 ! wrong_type column \"v\": 2.55 is not a whole number, as integer needs
         1 ! wrong_type column \"v\": 2.675 is not a whole number, as integer needs
         2 ! wrong_type column \"v\": -0.125 is not a whole number, as integer needs
         3 ! out_of_range column \"v\": 1e20 is out of range for integer
         4 ! out_of_range column \"v\": NaN is out of range for integer
         5 v=3",
    );
    let integers = || Arc::new(Int64Array::from(vec![Some(7), None, Some(1 << 40)])) as ArrayRef;
    one(integers(), "bigint", "0 v=7\n1 v=NULL\n2 v=1099511627776");
    one(integers(), "text", "0 v=7\n1 v=NULL\n2 v=1099511627776");
    one(
        integers(),
        "integer",
        "0 v=7\n1 v=NULL\n2 ! out_of_range column \"v\": 1099511627776 is out of range for integer",
    );
    one(
        integers(),
        "numeric(10,2)",
        "0 v=7.00\n1 v=NULL\n2 ! out_of_range column \"v\": 1099511627776 is out of range for numeric(10,2)",
    );
    one(integers(), "double", "0 v=7.0\n1 v=NULL\n2 v=1099511627776.0");
    let unsigned = Arc::new(UInt64Array::from(vec![1, u64::MAX]));
    one(
        unsigned,
        "bigint",
        "0 v=1\n1 ! out_of_range column \"v\": 18446744073709551615 is out of range for bigint",
    );
    let decimals =
        Arc::new(Decimal128Array::from(vec![12_340, 12_345]).with_precision_and_scale(20, 3).unwrap());
    one(
        decimals,
        "numeric(10,2)",
        "0 v=12.34\n1 ! out_of_range column \"v\": 12.345 has more fraction digits than numeric(10,2) keeps",
    );
}

#[test]
fn times() {
    let millis = Arc::new(TimestampMillisecondArray::from(vec![Some(1_511_658_000_123), None]));
    one(millis, "timestamptz", "0 v=2017-11-26T01:00:00.123Z\n1 v=NULL");
    let nanos = TimestampNanosecondArray::from(vec![1_511_658_000_123_456_789]).with_timezone("+08:00");
    one(Arc::new(nanos), "timestamptz", "0 v=2017-11-26T01:00:00.123456Z");
    let seconds = Arc::new(Int32Array::from(vec![1_511_658_000]));
    one(seconds, "timestamptz", "0 v=2017-11-26T01:00:00Z");
    let texts = Arc::new(StringArray::from(vec![Some("2021-01-01"), Some("soon"), None]));
    one(texts, "timestamptz", "0 v=2021-01-01T00:00:00Z\n1 ! wrong_type column \"v\": soon is not a valid timestamp with time zone\n2 v=NULL".replace("timestamp with time zone", "timestamptz").as_str());
}

#[test]
fn texts_dictionaries_and_lists() {
    let dictionary: DictionaryArray<Int32Type> = vec![Some("a"), None, Some("a")].into_iter().collect();
    one(Arc::new(dictionary), "text", "0 v=a\n1 v=NULL\n2 v=a");
    let json = Arc::new(StringArray::from(vec!["{\"a\":1}", "{"]));
    one(json, "jsonb", "0 v={\"a\":1}\n1 ! wrong_type column \"v\": { is not a valid jsonb");
    let lists = ListArray::from_iter_primitive::<arrow::datatypes::Int64Type, _, _>(vec![
        Some(vec![Some(1), None]),
        None,
        Some(vec![]),
        Some(vec![Some(1 << 20)]),
    ]);
    one(
        Arc::new(lists),
        "smallint[]",
        "0 v=[1, NULL]\n1 v=NULL\n2 v=[]\n3 ! out_of_range column \"v\": [1048576] is out of range for smallint[]",
    );
}

#[test]
fn columns_are_matched() {
    let two = || {
        file(vec![
            ("Invoice", Arc::new(Int64Array::from(vec![1])) as ArrayRef),
            ("Price", Arc::new(Float64Array::from(vec![2.5])) as ArrayRef),
        ])
    };
    let target = schema("price numeric(10,2), invoice bigint, note text");
    let mut read = batches(two(), &target, &BY_NAME).unwrap();
    check(&read.next().unwrap().unwrap(), "0 price=2.50 invoice=1 note=-");
    let mut read = batches(two(), &target, &ParquetColumns::InOrder(vec![2, 0])).unwrap();
    check(&read.next().unwrap().unwrap(), "0 price=2.50 invoice=- note=1");

    let refused = |file, target: &str, columns: &ParquetColumns| {
        batches(file, &schema(target), columns).err().unwrap().to_string()
    };
    assert_eq!(
        refused(two(), "prices double, invoice bigint", &BY_NAME),
        "the table has no column \"Price\" as the file has; did you mean \"prices\"?"
    );
    assert!(
        refused(two(), "a bigint", &ParquetColumns::InOrder(vec![0])).contains("2 columns, 1 were named")
    );
    let fields = vec![(
        Arc::new(arrow::datatypes::Field::new("x", arrow::datatypes::DataType::Int64, true)),
        Arc::new(Int64Array::from(vec![1])) as ArrayRef,
    )];
    let nested = file(vec![("v", Arc::new(StructArray::from(fields)) as ArrayRef)]);
    assert!(refused(nested, "v jsonb", &BY_NAME).contains("can't become"));
    let mut read =
        batches(two(), &schema("invoice bigint"), &ParquetColumns::ByName { ignore_unknown: true }).unwrap();
    check(&read.next().unwrap().unwrap(), "0 invoice=1");
}

//! Tests only: schemas from text, and decoded rows as text.
//!
//! ```text
//! 0 a=1 b=- c=NULL            row 0: b was absent, c was null
//! 1 ! wrong_type a: "x" ...   row 1 was rejected because of column a
//! ```

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, IntervalUnit, Schema, SchemaRef, TimeUnit};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use dataflow::DecodedRows;

/// `a bigint, b numeric(10,2), c text[]` as the schema that a table of these columns has.
pub(crate) fn schema(columns: &str) -> SchemaRef {
    let mut fields = Vec::new();
    for column in columns.split(", ") {
        let (name, sql_type) = column.trim().split_once(' ').unwrap();
        fields.push(
            Field::new(name, data_type(sql_type), true)
                .with_metadata([("sql_type".to_string(), sql_type.to_string())].into_iter().collect()),
        );
    }
    Arc::new(Schema::new(fields))
}

fn data_type(sql_type: &str) -> DataType {
    if let Some(item) = sql_type.strip_suffix("[]") {
        return DataType::List(Arc::new(Field::new_list_field(data_type(item), true)));
    }
    match sql_type {
        "boolean" => DataType::Boolean,
        "smallint" => DataType::Int16,
        "integer" => DataType::Int32,
        "bigint" => DataType::Int64,
        "real" => DataType::Float32,
        "double" => DataType::Float64,
        "text" | "jsonb" => DataType::Utf8,
        "bytea" => DataType::Binary,
        "date" => DataType::Date32,
        "time" => DataType::Time64(TimeUnit::Microsecond),
        "timestamp" => DataType::Timestamp(TimeUnit::Microsecond, None),
        "timestamptz" => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        "interval" => DataType::Interval(IntervalUnit::MonthDayNano),
        numeric => {
            let (precision, scale) =
                numeric.strip_prefix("numeric(").unwrap().strip_suffix(')').unwrap().split_once(',').unwrap();
            DataType::Decimal128(precision.parse().unwrap(), scale.parse().unwrap())
        }
    }
}

/// The rows in their order in the body, one line each; checks the lengths on the way.
pub(crate) fn picture(rows: &DecodedRows) -> String {
    let count = rows.batch.num_rows();
    assert_eq!(rows.row_numbers.len(), count);
    assert!(rows.raw_ranges.is_empty() || rows.raw_ranges.len() == count);
    assert_eq!(rows.absent.len(), rows.batch.num_columns());
    let options = FormatOptions::default().with_null("NULL");
    let schema = rows.batch.schema();
    let formatters: Vec<_> = rows
        .batch
        .columns()
        .iter()
        .map(|column| ArrayFormatter::try_new(column, &options).unwrap())
        .collect();
    let mut lines = BTreeMap::new();
    for row in 0..count {
        let mut line = String::new();
        for (column, formatter) in formatters.iter().enumerate() {
            let absent = rows.absent[column].as_ref().is_some_and(|bits| {
                assert_eq!(bits.len(), count);
                bits.value(row)
            });
            assert!(!absent || rows.batch.column(column).is_null(row), "an absent value is null");
            let value = if absent { "-".to_string() } else { formatter.value(row).to_string() };
            line.push_str(&format!(" {}={value}", schema.field(column).name()));
        }
        let number = rows.row_numbers[row];
        assert_eq!(lines.insert(number, format!("{number}{line}")), None, "row numbers are unique");
    }
    for row in &rows.rejected {
        let line = format!("{} ! {} {}", row.row_number, row.reason.code(), row.message);
        assert_eq!(lines.insert(row.row_number, line), None, "row numbers are unique");
    }
    assert!(lines.keys().copied().eq(0..lines.len() as u32), "no row is missing: {lines:?}");
    lines.into_values().map(|line| line + "\n").collect()
}

/// Compares with a text whose lines are indented.
pub(crate) fn check(rows: &DecodedRows, expected: &str) {
    let expected: String = expected.trim().lines().map(|line| format!("{}\n", line.trim())).collect();
    assert_eq!(picture(rows), expected);
}

//! Relations that the product keeps itself: rows that could not be used, findable and counted.

use std::sync::Arc;

use arrow::array::{ArrayRef, BinaryArray, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::DataType;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use dataflow::{RejectReason, RejectedRow};
use sql::{Column, OnConflict, RelationId, SqlError, TableDef, TableOptions};

use crate::record::{Part, RowsEntry, encode_part};
use crate::writer::RowsRequest;

pub const REJECTED_ROWS: RelationId = RelationId(1);
pub const LATE_ROWS: RelationId = RelationId(2);
/// Identities below are the product's own.
pub const FIRST_USER_ID: u32 = 100;

fn column(name: &str, data_type: DataType, sql_type: &str) -> Column {
    Column {
        name: name.into(),
        data_type,
        sql_type: sql_type.into(),
        not_null: false,
        default: None,
        generated: None,
    }
}

fn table(id: RelationId, name: &str, columns: Vec<Column>) -> Arc<TableDef> {
    Arc::new(TableDef {
        id,
        name: name.into(),
        columns,
        primary_key: vec![],
        append_only: true,
        on_conflict: OnConflict::Overwrite,
        watermark: None,
        checks: vec![],
        options: TableOptions::default(),
        connector: None,
        added: Vec::new(),
        sql: String::new(),
    })
}

/// Rows that could not be read, or broke a constraint, with the reason and their raw bytes.
pub fn rejected_rows_table() -> Arc<TableDef> {
    let text = || DataType::Utf8;
    table(
        REJECTED_ROWS,
        "rejected_rows",
        vec![
            column("relation", text(), "text"),
            column("rejected_at", sql::catalog::timestamptz(), "timestamp with time zone"),
            column("reason", text(), "text"),
            column("column_name", text(), "text"),
            column("message", text(), "text"),
            column("row_number", DataType::Int64, "bigint"),
            column("origin", text(), "text"),
            column("raw", DataType::Binary, "bytea"),
        ],
    )
}

/// Rows that came after their window's state was freed: the table's row, and the views that ignored it.
pub fn late_rows_table() -> Arc<TableDef> {
    table(
        LATE_ROWS,
        "late_rows",
        vec![
            column("relation", DataType::Utf8, "text"),
            column("views", DataType::Utf8, "text"),
            column("watermark", sql::catalog::timestamptz(), "timestamp with time zone"),
            column("row", DataType::Utf8, "jsonb"),
        ],
    )
}

pub fn is_system(id: RelationId) -> bool {
    id.0 < FIRST_USER_ID
}

/// Rejected rows as rows of `rejected_rows`.
pub fn rejected_part(
    relation: &str,
    origin: &str,
    arrival_us: i64,
    rejected: &[RejectedRow],
) -> Result<Part, SqlError> {
    let count = rejected.len();
    let text = |f: &dyn Fn(&RejectedRow) -> Option<String>| -> ArrayRef {
        Arc::new(StringArray::from_iter(rejected.iter().map(f)))
    };
    let columns: Vec<ArrayRef> = vec![
        text(&|_| Some(relation.to_string())),
        Arc::new(TimestampMicrosecondArray::from(vec![arrival_us; count]).with_timezone("UTC")),
        text(&|r| Some(r.reason.code().to_string())),
        text(&|r| r.column.clone()),
        text(&|r| Some(r.message.clone())),
        Arc::new(Int64Array::from_iter_values(rejected.iter().map(|r| i64::from(r.row_number)))),
        text(&|_| Some(origin.to_string())),
        Arc::new(BinaryArray::from_iter_values(rejected.iter().map(|r| r.raw.as_slice()))),
    ];
    let rows = RecordBatch::try_new(rejected_rows_table().schema(), columns)
        .map_err(|e| SqlError::internal(e.to_string()))?;
    Ok(Part { relation: REJECTED_ROWS, rows, weights: None })
}

/// A request that records results which became NULL because their expression failed.
pub fn expression_errors(views: &str, samples: &[String], total: u64) -> Result<RowsRequest, SqlError> {
    let rejected: Vec<RejectedRow> = samples
        .iter()
        .map(|message| RejectedRow {
            row_number: 0,
            column: None,
            reason: RejectReason::Expression,
            message: format!("{message}; the result is NULL ({total} such results in this step)"),
            raw: Vec::new(),
        })
        .collect();
    let arrival_us = crate::database::now_us();
    let part = rejected_part(views, "engine", arrival_us, &rejected)?;
    let encoded = vec![encode_part(&part)];
    let entry = RowsEntry {
        table: REJECTED_ROWS,
        arrival_us,
        request: None,
        accepted: rejected.len() as u64,
        duplicates: 0,
        position: None,
        parts: vec![part],
    };
    Ok(RowsRequest { entry, encoded, reply: None })
}

/// A row as a JSON object: numbers and booleans as they are, everything else as text.
pub fn row_json(batch: &RecordBatch, row: usize) -> String {
    let options = FormatOptions::default();
    let mut object = serde_json::Map::new();
    for (field, column) in batch.schema().fields().iter().zip(batch.columns()) {
        let value = if column.is_null(row) {
            serde_json::Value::Null
        } else {
            let text = match ArrayFormatter::try_new(column.as_ref(), &options) {
                Ok(formatter) => formatter.value(row).to_string(),
                Err(_) => continue,
            };
            match field.data_type() {
                DataType::Boolean => serde_json::Value::Bool(text == "true"),
                t if t.is_integer() => {
                    text.parse::<i64>().map_or(serde_json::Value::String(text), Into::into)
                }
                _ => serde_json::Value::String(text),
            }
        };
        object.insert(field.name().clone(), value);
    }
    serde_json::Value::Object(object).to_string()
}

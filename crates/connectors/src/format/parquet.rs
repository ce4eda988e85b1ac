//! Parquet files, batch by batch, in the target's types.
//!
//! Columns are found by name (exactly, else in another case) or taken in order. Values that the
//! target type can't hold reject their row. What is converted how: see [`cast`].

mod cast;

use std::fs::File;
use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::buffer::BooleanBuffer;
use arrow::datatypes::SchemaRef;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use dataflow::{DecodedRows, RejectedRow};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};

use super::json::did_you_mean;
use super::rows::{nullable, without_rows};
use crate::{Error, Result};

/// Which column of the file goes where.
#[derive(Clone, Debug, PartialEq)]
pub enum ParquetColumns {
    /// By name.
    ByName {
        /// Columns of the file that the table does not have are skipped instead of refusing the file.
        ignore_unknown: bool,
    },
    /// The file's first column goes to the first of these columns of the schema, and so on.
    InOrder(Vec<usize>),
}

/// Rows per batch.
const BATCH_ROWS: usize = 65_536;

/// The rows of one file.
pub struct ParquetBatches {
    reader: ParquetRecordBatchReader,
    schema: SchemaRef,
    /// Per column of the schema: the column of the read batches that fills it.
    sources: Vec<Option<usize>>,
    rows_read: u64,
}

/// Opens a file for reading.
///
/// # Errors
/// When the file is no Parquet, names a column that the table does not have, or has a column whose
/// type can't become that of its target.
pub fn batches(file: File, schema: &SchemaRef, columns: &ParquetColumns) -> Result<ParquetBatches> {
    let builder = ParquetRecordBatchReaderBuilder::try_new(file)?;
    let file_schema = Arc::clone(builder.schema());
    let targets = match columns {
        ParquetColumns::ByName { ignore_unknown } => by_name(&file_schema, schema, *ignore_unknown)?,
        ParquetColumns::InOrder(columns) => in_order(&file_schema, schema, columns)?,
    };
    let mut sources = vec![None; schema.fields().len()];
    let mut read = Vec::new();
    for (source, target) in targets.into_iter().enumerate() {
        let Some(target) = target else { continue };
        let from = file_schema.field(source);
        if !cast::is_readable(from.data_type(), schema.field(target).data_type()) {
            return Err(Error::Mismatch(format!(
                "column \"{}\" of the file has type {}, which can't become {} of column \"{}\"",
                from.name(),
                from.data_type(),
                schema.field(target).data_type(),
                schema.field(target).name()
            )));
        }
        if sources[target].replace(read.len()).is_some() {
            return Err(Error::Mismatch(format!(
                "two columns of the file go to column \"{}\"; say which by --columns",
                schema.field(target).name()
            )));
        }
        read.push(source);
    }
    let mask = ProjectionMask::roots(builder.parquet_schema(), read);
    let reader = builder.with_projection(mask).with_batch_size(BATCH_ROWS).build()?;
    Ok(ParquetBatches { reader, schema: nullable(schema), sources, rows_read: 0 })
}

fn by_name(file: &SchemaRef, schema: &SchemaRef, ignore_unknown: bool) -> Result<Vec<Option<usize>>> {
    let find = |name: &str| {
        let fields = schema.fields();
        fields
            .iter()
            .position(|field| field.name() == name)
            .or_else(|| fields.iter().position(|field| field.name().to_lowercase() == name.to_lowercase()))
    };
    let mut targets = Vec::new();
    for field in file.fields() {
        let target = find(field.name());
        if target.is_none() && !ignore_unknown {
            let names = schema.fields().iter().map(|field| field.name().as_str());
            let hint = match did_you_mean(field.name(), names) {
                Some(near) => format!("; did you mean \"{near}\"?"),
                None => "; name the table's columns in the file's order, or skip unknown ones".to_string(),
            };
            let name = field.name();
            return Err(Error::Mismatch(format!("the table has no column \"{name}\" as the file has{hint}")));
        }
        targets.push(target);
    }
    Ok(targets)
}

fn in_order(file: &SchemaRef, schema: &SchemaRef, columns: &[usize]) -> Result<Vec<Option<usize>>> {
    if columns.len() != file.fields().len() {
        return Err(Error::Mismatch(format!(
            "the file has {} columns, {} were named",
            file.fields().len(),
            columns.len()
        )));
    }
    if let Some(column) = columns.iter().find(|column| **column >= schema.fields().len()) {
        return Err(Error::Mismatch(format!("the table has no column number {column}")));
    }
    Ok(columns.iter().map(|column| Some(*column)).collect())
}

impl Iterator for ParquetBatches {
    type Item = Result<DecodedRows>;

    fn next(&mut self) -> Option<Self::Item> {
        let batch = self.reader.next()?;
        Some(batch.map_err(Error::from).and_then(|batch| self.convert(&batch)))
    }
}

impl ParquetBatches {
    fn convert(&mut self, read: &RecordBatch) -> Result<DecodedRows> {
        let rows = read.num_rows();
        let first_row = self.rows_read;
        self.rows_read += rows as u64;
        let row_number = |row: usize| u32::try_from(first_row + row as u64).unwrap_or(u32::MAX);
        let mut arrays = Vec::with_capacity(self.sources.len());
        let mut absent = Vec::with_capacity(self.sources.len());
        let mut faults = Vec::new();
        for (column, source) in self.sources.iter().enumerate() {
            let field = self.schema.field(column);
            let Some(source) = source else {
                arrays.push(arrow::array::new_null_array(field.data_type(), rows));
                absent.push(Some(BooleanBuffer::new_set(rows)));
                continue;
            };
            let converted = cast::convert(read.column(*source), field)?;
            faults.extend(converted.faults.into_iter().map(|(row, fault)| (row, column, *source, fault)));
            arrays.push(converted.array);
            absent.push(None);
        }
        faults.sort_by_key(|(row, column, ..)| (*row, *column));
        faults.dedup_by_key(|(row, ..)| *row);
        let mut rejected = Vec::with_capacity(faults.len());
        for (row, column, source, fault) in &faults {
            let field = self.schema.field(*column);
            let value = value_text(read, *source, *row)?;
            let reason = fault.describe(value.as_bytes(), &super::column::Column::new(field).sql_type);
            let mut raw = row_text(read, *row)?.into_bytes();
            raw.truncate(RejectedRow::RAW_BYTES_MAX);
            rejected.push(RejectedRow {
                row_number: row_number(*row),
                column: Some(field.name().clone()),
                reason: fault.reason(),
                message: format!("column \"{}\": {reason}", field.name()),
                raw,
            });
        }
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        let batch = RecordBatch::try_new_with_options(Arc::clone(&self.schema), arrays, &options)?;
        let decoded = DecodedRows {
            batch,
            absent,
            row_numbers: (0..rows).map(row_number).collect(),
            raw_ranges: Vec::new(),
            rejected,
        };
        let discarded: Vec<usize> = faults.iter().map(|(row, ..)| *row).collect();
        Ok(if discarded.is_empty() { decoded } else { without_rows(decoded, &discarded) })
    }
}

fn value_text(batch: &RecordBatch, column: usize, row: usize) -> Result<String> {
    let options = FormatOptions::default().with_null("null");
    Ok(ArrayFormatter::try_new(batch.column(column), &options)?.value(row).try_to_string()?)
}

/// A row for people: `name=value, name=value`.
fn row_text(batch: &RecordBatch, row: usize) -> Result<String> {
    let schema = batch.schema();
    let mut text = String::new();
    for column in 0..batch.num_columns() {
        let separator = if column == 0 { "" } else { ", " };
        let value = value_text(batch, column, row)?;
        text.push_str(&format!("{separator}{}={value}", schema.field(column).name()));
    }
    Ok(text)
}

#[cfg(test)]
mod tests;

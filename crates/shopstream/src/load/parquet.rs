//! Parquet files sent as NDJSON.
//!
//! Values keep their digits: decimals and integers are printed exactly, times as RFC 3339. The server reads them
//! into the table's types, so that a file and the same rows by hand are the same. A null is sent as null.

use std::fs::File;
use std::path::Path;

use ::parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};
use arrow::array::{Array, RecordBatch};
use arrow::datatypes::DataType;
use arrow::util::display::{ArrayFormatter, FormatOptions};

use super::{Chunk, Chunks};
use crate::failure::{Failure, Result};

pub(crate) struct ParquetChunks {
    batches: ParquetRecordBatchReader,
    name: String,
}

impl ParquetChunks {
    pub(crate) fn open(path: &Path, batch_rows: u32) -> Result<ParquetChunks> {
        let name = path.display().to_string();
        let file = File::open(path).map_err(|error| Failure::io("open", &name, &error))?;
        let batches = ParquetRecordBatchReaderBuilder::try_new(file)
            .and_then(|builder| builder.with_batch_size(batch_rows as usize).build())
            .map_err(|error| Failure::failed(format!("read {name} as Parquet: {error}")))?;
        Ok(ParquetChunks { batches, name })
    }
}

impl Chunks for ParquetChunks {
    fn next_chunk(&mut self) -> Result<Option<Chunk>> {
        let Some(batch) = self.batches.next() else { return Ok(None) };
        let chunk = batch.and_then(|batch| {
            let mut body = Vec::with_capacity(batch.num_rows() * 64);
            write_ndjson(&batch, &mut body)?;
            Ok(Chunk { body, rows: batch.num_rows() as u64, due: None })
        });
        chunk.map(Some).map_err(|error| Failure::failed(format!("read {}: {error}", self.name)))
    }

    fn content_type(&self) -> &'static str {
        "application/x-ndjson"
    }
}

/// One column on its way to JSON.
struct Printer<'a> {
    /// `"name":`
    key: String,
    values: ArrayFormatter<'a>,
    array: &'a dyn Array,
    /// Printed as it is; what is no number after all (NaN) goes as text and is judged by the server.
    bare: bool,
}

fn write_ndjson(batch: &RecordBatch, body: &mut Vec<u8>) -> Result<(), arrow::error::ArrowError> {
    use std::fmt::Write;

    let options = FormatOptions::new();
    let mut printers = Vec::with_capacity(batch.num_columns());
    for (field, array) in batch.schema_ref().fields().iter().zip(batch.columns()) {
        let values = ArrayFormatter::try_new(array, &options)?;
        let bare = match array.data_type() {
            DataType::Dictionary(_, value) => is_bare(value),
            other => is_bare(other),
        };
        let key = format!("{}:", serde_json::Value::from(field.name().as_str()));
        printers.push(Printer { key, values, array, bare });
    }
    let mut text = String::new();
    for row in 0..batch.num_rows() {
        for (index, printer) in printers.iter().enumerate() {
            body.push(if index == 0 { b'{' } else { b',' });
            body.extend_from_slice(printer.key.as_bytes());
            if printer.array.is_null(row) {
                body.extend_from_slice(b"null");
                continue;
            }
            text.clear();
            write!(text, "{}", printer.values.value(row)).map_err(|_| {
                arrow::error::ArrowError::CastError(format!("print row {row} of {}", printer.key))
            })?;
            if printer.bare && !text.contains(['N', 'i']) {
                body.extend_from_slice(text.as_bytes());
            } else {
                body.extend_from_slice(serde_json::Value::from(text.as_str()).to_string().as_bytes());
            }
        }
        if printers.is_empty() {
            body.push(b'{');
        }
        body.extend_from_slice(b"}\n");
    }
    Ok(())
}

fn is_bare(data_type: &DataType) -> bool {
    data_type.is_numeric() || *data_type == DataType::Boolean
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{
        BooleanArray, Decimal128Array, Float64Array, Int64Array, StringArray, TimestampMicrosecondArray,
    };
    use arrow::datatypes::{Field, Schema};

    use super::*;

    #[test]
    fn values_keep_their_digits() {
        let columns: Vec<(&str, Arc<dyn Array>)> = vec![
            ("i", Arc::new(Int64Array::from(vec![Some(i64::MAX), None]))),
            ("f", Arc::new(Float64Array::from(vec![0.1, f64::NAN]))),
            ("d", Arc::new(Decimal128Array::from(vec![-5, 12345]).with_precision_and_scale(18, 2).unwrap())),
            ("s", Arc::new(StringArray::from(vec!["a\"\n", "é"]))),
            (
                "t",
                Arc::new(
                    TimestampMicrosecondArray::from(vec![1_511_658_000_000_001, 0]).with_timezone("UTC"),
                ),
            ),
            ("b", Arc::new(BooleanArray::from(vec![true, false]))),
        ];
        let schema = Schema::new(
            columns
                .iter()
                .map(|(name, a)| Field::new(*name, a.data_type().clone(), true))
                .collect::<Vec<_>>(),
        );
        let arrays = columns.into_iter().map(|(_, array)| array).collect();
        let batch = RecordBatch::try_new(Arc::new(schema), arrays).unwrap();
        let mut body = vec![];
        write_ndjson(&batch, &mut body).unwrap();
        assert_eq!(
            String::from_utf8(body).unwrap(),
            "{\"i\":9223372036854775807,\"f\":0.1,\"d\":-0.05,\"s\":\"a\\\"\\n\",\"t\":\"2017-11-26T01:00:00.000001Z\",\"b\":true}\n\
             {\"i\":null,\"f\":\"NaN\",\"d\":123.45,\"s\":\"é\",\"t\":\"1970-01-01T00:00:00Z\",\"b\":false}\n"
        );
    }
}

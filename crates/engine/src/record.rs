//! What the log holds, on top of its opaque frames. Byte tables: docs/format.md.
//!
//! A rows record is one acknowledged write: the rows of a table and, in the same record, the rows of it that were
//! rejected, so that both are durable together or not at all.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::{Schema, SchemaRef};
use datafusion::scalar::ScalarValue;
use serde::{Deserialize, Serialize};
use sql::{RelationId, SqlError};

/// `kind` of the log frame.
pub const KIND_ROWS: u8 = 1;
pub const KIND_DEFINITION: u8 = 2;
pub const KIND_CLOCK: u8 = 3;

/// Without a source's position, and with one.
const ROWS_VERSION: u8 = 1;
const ROWS_VERSION_POSITION: u8 = 2;

/// One table's share of a rows record.
#[derive(Clone, Debug)]
pub struct Part {
    pub relation: RelationId,
    pub rows: RecordBatch,
    /// `None`: rows as a sender gave them, to be resolved by the table's key. `Some`: an exact change, made by
    /// UPDATE or DELETE.
    pub weights: Option<Vec<i64>>,
}

/// A durable change of the world, in log order.
#[derive(Clone, Debug)]
pub enum Entry {
    Rows(RowsEntry),
    Definition(Definition),
    /// Time passed while sources were quiet: microseconds since 1970.
    Clock(i64),
}

#[derive(Clone, Debug)]
pub struct RowsEntry {
    /// The table that was written to; the `stream` of the log frame.
    pub table: RelationId,
    pub arrival_us: i64,
    pub request: Option<RequestKey>,
    /// Answer given to the sender.
    pub accepted: u64,
    pub duplicates: u64,
    /// Rows of a connector: where it is to go on behind them.
    pub position: Option<String>,
    pub parts: Vec<Part>,
}

/// Identity of a request, for its retries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestKey {
    pub key: String,
    /// CRC of the body: the same key with another body is a mistake of the sender.
    pub body_crc: u32,
}

/// A DDL statement that was carried out.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct Definition {
    pub sql: String,
    /// Identity given to what it creates; 0 for DROP.
    pub id: u32,
}

/// A part, encoded; done by the thread that brings the rows, not by the one that writes the log.
#[derive(Clone)]
pub struct EncodedPart(Vec<u8>);

pub fn encode_part(part: &Part) -> EncodedPart {
    let block = storage::columns::encode_batch(&part.rows);
    let weights = part.weights.as_deref().unwrap_or(&[]);
    let mut out = Vec::with_capacity(block.len() + weights.len() * 8 + 17);
    out.extend_from_slice(&part.relation.0.to_le_bytes());
    out.push(u8::from(part.weights.is_some()));
    out.extend_from_slice(
        &u32::try_from(weights.len()).expect("fewer than 2^32 rows in a part").to_le_bytes(),
    );
    for weight in weights {
        out.extend_from_slice(&weight.to_le_bytes());
    }
    out.extend_from_slice(&u32::try_from(block.len()).expect("a part is shorter than 4 GiB").to_le_bytes());
    out.extend_from_slice(&block);
    EncodedPart(out)
}

/// The payload of a rows record.
pub fn encode_rows(entry: &RowsEntry, parts: &[EncodedPart]) -> Vec<u8> {
    let key = entry.request.as_ref().map_or("", |r| r.key.as_str()).as_bytes();
    let mut out = Vec::with_capacity(48 + key.len() + parts.iter().map(|p| p.0.len()).sum::<usize>());
    out.push(if entry.position.is_some() { ROWS_VERSION_POSITION } else { ROWS_VERSION });
    out.extend_from_slice(&entry.arrival_us.to_le_bytes());
    out.extend_from_slice(&u16::try_from(key.len()).expect("keys are checked to be short").to_le_bytes());
    out.extend_from_slice(key);
    out.extend_from_slice(&entry.request.as_ref().map_or(0, |r| r.body_crc).to_le_bytes());
    out.extend_from_slice(&entry.accepted.to_le_bytes());
    out.extend_from_slice(&entry.duplicates.to_le_bytes());
    if let Some(position) = &entry.position {
        let length = u32::try_from(position.len()).expect("positions are checked to be short");
        out.extend_from_slice(&length.to_le_bytes());
        out.extend_from_slice(position.as_bytes());
    }
    out.extend_from_slice(&u16::try_from(parts.len()).expect("a few parts").to_le_bytes());
    for part in parts {
        out.extend_from_slice(&part.0);
    }
    out
}

/// Schemas by relation; parts of relations that are not in it (dropped since) are skipped.
pub type Schemas = HashMap<RelationId, RowsSchema>;

/// How a relation's rows are read, those included that were written before its last columns were added.
#[derive(Clone, Debug)]
pub struct RowsSchema {
    pub schema: SchemaRef,
    /// Of the last columns: what rows have there that were written without.
    pub added: Arc<[ScalarValue]>,
}

impl From<SchemaRef> for RowsSchema {
    fn from(schema: SchemaRef) -> RowsSchema {
        RowsSchema { schema, added: Arc::from([]) }
    }
}

impl RowsSchema {
    pub fn of(table: &sql::TableDef) -> RowsSchema {
        RowsSchema { schema: table.schema(), added: table.added.clone().into() }
    }

    /// The schema of rows that were written with this many columns.
    fn written(&self, columns: usize) -> SchemaRef {
        let all = self.schema.fields().len();
        match (all - self.added.len()..all).contains(&columns) {
            true => Arc::new(Schema::new(self.schema.fields()[..columns].to_vec())),
            false => Arc::clone(&self.schema),
        }
    }

    /// The rows with the columns that they were written without.
    ///
    /// # Errors
    /// When they are not rows of the relation.
    pub fn widen(&self, rows: RecordBatch) -> Result<RecordBatch, SqlError> {
        if rows.schema_ref() == &self.schema {
            return Ok(rows);
        }
        let missing = self.schema.fields().len().saturating_sub(rows.num_columns());
        let values = &self.added[self.added.len().saturating_sub(missing)..];
        let mut columns = rows.columns().to_vec();
        for value in values {
            columns.push(
                value.to_array_of_size(rows.num_rows()).map_err(|e| SqlError::internal(e.to_string()))?,
            );
        }
        let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
        RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &options)
            .map_err(|e| SqlError::internal(e.to_string()))
    }
}

/// # Errors
/// When the payload is not what [`encode_rows`] writes: the checksum was right, so another version wrote it or
/// memory failed.
pub fn decode(kind: u8, stream: u32, payload: &[u8], schemas: &Schemas) -> Result<Entry, SqlError> {
    match kind {
        KIND_ROWS => decode_rows(RelationId(stream), payload, schemas).map(Entry::Rows),
        KIND_DEFINITION => serde_json::from_slice(payload)
            .map(Entry::Definition)
            .map_err(|e| damaged(&format!("definition record: {e}"))),
        KIND_CLOCK => Reader(payload).i64().map(Entry::Clock),
        other => Err(damaged(&format!("record of unknown kind {other}"))),
    }
}

fn decode_rows(table: RelationId, payload: &[u8], schemas: &Schemas) -> Result<RowsEntry, SqlError> {
    let mut reader = Reader(payload);
    let version = reader.bytes(1)?[0];
    if ![ROWS_VERSION, ROWS_VERSION_POSITION].contains(&version) {
        return Err(damaged(&format!("rows record of version {version}")));
    }
    let arrival_us = reader.i64()?;
    let key_length = reader.u16()?;
    let key = std::str::from_utf8(reader.bytes(usize::from(key_length))?)
        .map_err(|_| damaged("an idempotency key is not UTF-8"))?
        .to_string();
    let body_crc = reader.u32()?;
    let accepted = reader.i64()? as u64;
    let duplicates = reader.i64()? as u64;
    let position = match version {
        ROWS_VERSION_POSITION => {
            let length = reader.u32()? as usize;
            let text = std::str::from_utf8(reader.bytes(length)?);
            Some(text.map_err(|_| damaged("a source's position is not UTF-8"))?.to_string())
        }
        _ => None,
    };
    let count = reader.u16()?;
    let mut parts = Vec::with_capacity(usize::from(count));
    for _ in 0..count {
        let relation = RelationId(reader.u32()?);
        let weighted = reader.bytes(1)?[0] != 0;
        let weights_len = reader.u32()? as usize;
        let weights = reader.bytes(weights_len.saturating_mul(8))?;
        let block_len = reader.u32()? as usize;
        let block = reader.bytes(block_len)?;
        let Some(known) = schemas.get(&relation) else { continue };
        let wrong =
            |e: storage::columns::DecodeError| damaged(&format!("rows of relation {}: {e}", relation.0));
        let schema = match known.added.is_empty() {
            true => Arc::clone(&known.schema),
            false => known.written(storage::columns::column_count(block).map_err(wrong)?),
        };
        let rows = known.widen(storage::columns::decode_batch(&schema, block).map_err(wrong)?)?;
        let weights = weighted.then(|| {
            weights
                .chunks_exact(8)
                .map(|w| i64::from_le_bytes(w.try_into().expect("8 bytes")))
                .collect::<Vec<_>>()
        });
        if weights.as_ref().is_some_and(|w| w.len() != rows.num_rows()) {
            return Err(damaged("a part has another number of weights than rows"));
        }
        parts.push(Part { relation, rows, weights });
    }
    let request = (!key.is_empty()).then_some(RequestKey { key, body_crc });
    Ok(RowsEntry { table, arrival_us, request, accepted, duplicates, position, parts })
}

fn damaged(what: &str) -> SqlError {
    SqlError::new(sql::SqlState::DataCorrupted, format!("the log holds a record that can't be read: {what}"))
        .with_hint("run the version that wrote it, or restore the data directory from a backup")
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn bytes(&mut self, length: usize) -> Result<&'a [u8], SqlError> {
        let (head, tail) = self.0.split_at_checked(length).ok_or_else(|| damaged("it ends too early"))?;
        self.0 = tail;
        Ok(head)
    }
    fn u16(&mut self) -> Result<u16, SqlError> {
        Ok(u16::from_le_bytes(self.bytes(2)?.try_into().expect("2 bytes")))
    }
    fn u32(&mut self) -> Result<u32, SqlError> {
        Ok(u32::from_le_bytes(self.bytes(4)?.try_into().expect("4 bytes")))
    }
    fn i64(&mut self) -> Result<i64, SqlError> {
        Ok(i64::from_le_bytes(self.bytes(8)?.try_into().expect("8 bytes")))
    }
}

/// The schemas of all tables of a catalog, with the system relations.
pub fn schemas(tables: impl Iterator<Item = Arc<sql::TableDef>>) -> Schemas {
    tables.map(|t| (t.id, RowsSchema::of(&t))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{Int64Array, StringArray};
    use arrow::datatypes::{DataType, Field};

    #[test]
    fn a_rows_record_reads_back() {
        let schema = Arc::new(Schema::new(vec![
            Field::new("a", DataType::Int64, false),
            Field::new("b", DataType::Utf8, true),
        ]));
        let rows = RecordBatch::try_new(
            Arc::clone(&schema),
            vec![Arc::new(Int64Array::from(vec![1, 2])), Arc::new(StringArray::from(vec![Some("x"), None]))],
        )
        .unwrap();
        let parts = vec![
            Part { relation: RelationId(7), rows: rows.clone(), weights: None },
            Part { relation: RelationId(8), rows: rows.clone(), weights: Some(vec![-1, 2]) },
            Part { relation: RelationId(9), rows: rows.clone(), weights: None },
        ];
        let entry = RowsEntry {
            table: RelationId(7),
            arrival_us: 5,
            request: Some(RequestKey { key: "k".into(), body_crc: 3 }),
            accepted: 2,
            duplicates: 1,
            position: None,
            parts,
        };
        let encoded: Vec<EncodedPart> = entry.parts.iter().map(encode_part).collect();
        let payload = encode_rows(&entry, &encoded);
        let known =
            Schemas::from([(RelationId(7), Arc::clone(&schema).into()), (RelationId(8), schema.into())]);
        let Entry::Rows(read) = decode(KIND_ROWS, 7, &payload, &known).unwrap() else { panic!("rows") };
        assert_eq!((read.arrival_us, read.request, read.accepted, read.duplicates), (5, entry.request, 2, 1));
        assert_eq!(read.parts.len(), 2, "the dropped relation 9 is skipped");
        assert_eq!(read.parts[0].rows, rows);
        assert_eq!(read.parts[1].weights, Some(vec![-1, 2]));
        for length in 0..payload.len() {
            assert!(decode(KIND_ROWS, 7, &payload[..length], &known).is_err(), "cut at {length}");
        }
        assert_eq!((payload[0], read.position), (1, None), "records of senders stay as they were");
        let entry = RowsEntry { position: Some("event 7".into()), request: None, ..entry };
        let payload = encode_rows(&entry, &encoded);
        let Entry::Rows(read) = decode(KIND_ROWS, 7, &payload, &known).unwrap() else { panic!("rows") };
        assert_eq!((read.position.as_deref(), read.duplicates, read.parts.len()), (Some("event 7"), 1, 2));
        for length in 0..payload.len() {
            assert!(decode(KIND_ROWS, 7, &payload[..length], &known).is_err(), "cut at {length}");
        }
    }

    #[test]
    fn rows_written_before_a_column_was_added_have_its_value() {
        let field = |name: &str, data_type| Field::new(name, data_type, true);
        let narrow = Arc::new(Schema::new(vec![field("a", DataType::Int64)]));
        let rows = RecordBatch::try_new(narrow, vec![Arc::new(Int64Array::from(vec![1, 2]))]).unwrap();
        let part = Part { relation: RelationId(7), rows, weights: None };
        let entry = RowsEntry {
            table: RelationId(7),
            arrival_us: 5,
            request: None,
            accepted: 2,
            duplicates: 0,
            position: None,
            parts: vec![part],
        };
        let payload = encode_rows(&entry, &[encode_part(&entry.parts[0])]);
        let fields =
            vec![field("renamed", DataType::Int64), field("b", DataType::Utf8), field("c", DataType::Int64)];
        let known = RowsSchema {
            schema: Arc::new(Schema::new(fields)),
            added: Arc::from([ScalarValue::from("x"), ScalarValue::Int64(None)]),
        };
        let Entry::Rows(read) =
            decode(KIND_ROWS, 7, &payload, &Schemas::from([(RelationId(7), known.clone())])).unwrap()
        else {
            panic!("rows")
        };
        let wide = &read.parts[0].rows;
        assert_eq!(wide.schema(), known.schema);
        assert_eq!(wide.column(1).as_ref(), &StringArray::from(vec!["x", "x"]) as &dyn arrow::array::Array);
        assert_eq!(wide.column(2).null_count(), 2);
        // One of the columns was there already.
        let known = RowsSchema { added: Arc::from([ScalarValue::from("x")]), ..known };
        assert!(decode(KIND_ROWS, 7, &payload, &Schemas::from([(RelationId(7), known)])).is_err());
    }
}

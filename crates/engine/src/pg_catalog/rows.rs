//! Tables written row by row; small ones, so clarity comes before speed.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanBuilder, Float32Builder, Int16Builder, Int32Builder, Int64Builder, ListBuilder,
    RecordBatch, RecordBatchOptions, StringBuilder,
};
use arrow::datatypes::{DataType, Field, Schema};
use datafusion::error::Result;

/// A value of a system table.
#[derive(Clone, Debug, PartialEq)]
pub enum Cell {
    Null,
    Bool(bool),
    /// Of any integer type, as the column says.
    Int(i64),
    Text(String),
    Ints(Vec<i64>),
}

impl From<bool> for Cell {
    fn from(value: bool) -> Cell {
        Cell::Bool(value)
    }
}

impl From<i64> for Cell {
    fn from(value: i64) -> Cell {
        Cell::Int(value)
    }
}

impl From<&str> for Cell {
    fn from(value: &str) -> Cell {
        Cell::Text(value.to_string())
    }
}

impl From<String> for Cell {
    fn from(value: String) -> Cell {
        Cell::Text(value)
    }
}

impl From<Vec<i64>> for Cell {
    fn from(value: Vec<i64>) -> Cell {
        Cell::Ints(value)
    }
}

impl<T: Into<Cell>> From<Option<T>> for Cell {
    fn from(value: Option<T>) -> Cell {
        value.map_or(Cell::Null, Into::into)
    }
}

/// The values of a row, each of what a [`Cell`] can be made from.
macro_rules! row {
    ($($value:expr),* $(,)?) => { vec![$($crate::pg_catalog::rows::Cell::from($value)),*] };
}
pub(super) use row;

/// A column's type.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    Bool,
    Int2,
    Int4,
    /// Also oids, which are no type of their own here.
    Int8,
    Float4,
    Text,
    Int2s,
    Texts,
}

pub struct SystemTable {
    columns: Vec<(&'static str, Kind)>,
    rows: Vec<Vec<Cell>>,
}

impl SystemTable {
    /// Columns as `name kind`, separated by commas; the kind is left out for text.
    pub fn new(columns: &'static str, rows: Vec<Vec<Cell>>) -> SystemTable {
        let columns: Vec<(&str, Kind)> =
            columns.split(',').map(|column| read_column(column.trim())).collect();
        for row in &rows {
            assert_eq!(row.len(), columns.len(), "a value per column of {columns:?}");
        }
        SystemTable { columns, rows }
    }

    pub fn empty(columns: &'static str) -> SystemTable {
        SystemTable::new(columns, Vec::new())
    }

    pub fn into_batch(self) -> Result<RecordBatch> {
        let fields: Vec<Field> =
            self.columns.iter().map(|(name, kind)| Field::new(*name, data_type(*kind), true)).collect();
        let arrays = self
            .columns
            .iter()
            .enumerate()
            .map(|(number, (_, kind))| array(*kind, self.rows.iter().map(|row| &row[number])))
            .collect();
        let options = RecordBatchOptions::new().with_row_count(Some(self.rows.len()));
        Ok(RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), arrays, &options)?)
    }
}

fn read_column(text: &'static str) -> (&'static str, Kind) {
    match text.split_once(' ') {
        None => (text, Kind::Text),
        Some((name, kind)) => {
            let kind = match kind {
                "bool" => Kind::Bool,
                "int2" => Kind::Int2,
                "int4" => Kind::Int4,
                "int8" | "oid" => Kind::Int8,
                "float4" => Kind::Float4,
                "int2[]" => Kind::Int2s,
                "text[]" => Kind::Texts,
                other => panic!("{other} is no type of a system table"),
            };
            (name, kind)
        }
    }
}

fn data_type(kind: Kind) -> DataType {
    let list = |item| DataType::List(Arc::new(Field::new_list_field(item, true)));
    match kind {
        Kind::Bool => DataType::Boolean,
        Kind::Int2 => DataType::Int16,
        Kind::Int4 => DataType::Int32,
        Kind::Int8 => DataType::Int64,
        Kind::Float4 => DataType::Float32,
        Kind::Text => DataType::Utf8,
        Kind::Int2s => list(DataType::Int16),
        Kind::Texts => list(DataType::Utf8),
    }
}

fn array<'a>(kind: Kind, cells: impl Iterator<Item = &'a Cell>) -> ArrayRef {
    let int = |cell: &Cell| match cell {
        Cell::Int(value) => Some(*value),
        _ => None,
    };
    match kind {
        Kind::Bool => {
            let mut builder = BooleanBuilder::new();
            cells.for_each(|cell| {
                builder.append_option(if let Cell::Bool(b) = cell { Some(*b) } else { None })
            });
            Arc::new(builder.finish())
        }
        Kind::Int2 => {
            let mut builder = Int16Builder::new();
            cells.for_each(|cell| builder.append_option(int(cell).and_then(|v| i16::try_from(v).ok())));
            Arc::new(builder.finish())
        }
        Kind::Int4 => {
            let mut builder = Int32Builder::new();
            cells.for_each(|cell| builder.append_option(int(cell).and_then(|v| i32::try_from(v).ok())));
            Arc::new(builder.finish())
        }
        Kind::Int8 => {
            let mut builder = Int64Builder::new();
            cells.for_each(|cell| builder.append_option(int(cell)));
            Arc::new(builder.finish())
        }
        Kind::Float4 => {
            let mut builder = Float32Builder::new();
            cells.for_each(|cell| builder.append_option(int(cell).map(|v| v as f32)));
            Arc::new(builder.finish())
        }
        Kind::Text => {
            let mut builder = StringBuilder::new();
            cells.for_each(|cell| {
                builder.append_option(if let Cell::Text(t) = cell { Some(t) } else { None })
            });
            Arc::new(builder.finish())
        }
        Kind::Int2s => {
            let mut builder = ListBuilder::new(Int16Builder::new());
            for cell in cells {
                if let Cell::Ints(values) = cell {
                    values.iter().for_each(|v| builder.values().append_option(i16::try_from(*v).ok()));
                }
                builder.append(matches!(cell, Cell::Ints(_)));
            }
            Arc::new(builder.finish())
        }
        Kind::Texts => {
            let mut builder = ListBuilder::new(StringBuilder::new());
            cells.for_each(|_| builder.append(false));
            Arc::new(builder.finish())
        }
    }
}

//! What exists: tables, views and indexes, with everything that their definitions say.

mod changes;

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};

pub use self::changes::Object;
use crate::functions_sql::FunctionDef;
use crate::types;

/// Identity of a relation in the log and in state; never reused, not even after DROP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RelationId(pub u32);

/// The type of every `TIMESTAMPTZ`: microseconds since 1970-01-01 UTC.
pub fn timestamptz() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
}

#[derive(Clone, Debug, PartialEq)]
pub struct Column {
    pub name: String,
    pub data_type: DataType,
    /// The type as PostgreSQL prints it: `numeric(18,2)`, `timestamp with time zone`, `jsonb`.
    pub sql_type: String,
    pub not_null: bool,
    /// SQL text of the DEFAULT expression; it may call `now()`, the time of arrival.
    pub default: Option<String>,
    /// SQL text of a `GENERATED ALWAYS AS (...)` or `AS ...` expression over the other columns.
    pub generated: Option<String>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct WatermarkDef {
    pub column: usize,
    /// How far the watermark stays behind the newest event, in microseconds; not negative.
    pub delay_us: i64,
}

/// What an insert does when the primary key is there already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnConflict {
    Overwrite,
    DoNothing,
    /// New values replace old ones where they are not null.
    DoUpdateIfNotNull,
}

/// `WITH (...)` of a table. Durations in microseconds.
#[derive(Clone, Debug, PartialEq)]
pub struct TableOptions {
    /// Rows whose value of this column was seen within `dedup_window_us` are counted once.
    pub dedup_key: Option<usize>,
    pub dedup_window_us: i64,
    /// After this long without rows the source stops holding windows back; `None`: never.
    pub idle_timeout_us: Option<i64>,
    /// A row stamped further than this ahead of its arrival is rejected.
    pub max_ahead_us: i64,
}

impl Default for TableOptions {
    fn default() -> Self {
        TableOptions {
            dedup_key: None,
            dedup_window_us: 24 * 3_600_000_000,
            idle_timeout_us: Some(30_000_000),
            max_ahead_us: 3_600_000_000,
        }
    }
}

/// `WITH (connector = '...', ...)`: rows come by themselves.
#[derive(Clone, Debug, PartialEq)]
pub struct ConnectorDef {
    /// In lower case.
    pub name: String,
    /// What `WITH` says besides the options of [`TableOptions`]; the connector knows what they mean.
    pub options: BTreeMap<String, String>,
    /// `FORMAT x ENCODE y`, in upper case.
    pub format: Option<(String, String)>,
    /// Made by CREATE SOURCE: nobody else may write.
    pub source: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub struct CheckDef {
    pub name: String,
    /// SQL text of the condition; a row passes unless it is false.
    pub condition: String,
}

#[derive(Clone, Debug, PartialEq)]
pub struct TableDef {
    pub id: RelationId,
    pub name: String,
    pub columns: Vec<Column>,
    /// Column numbers; empty when there is no key.
    pub primary_key: Vec<usize>,
    pub append_only: bool,
    pub on_conflict: OnConflict,
    pub watermark: Option<WatermarkDef>,
    pub checks: Vec<CheckDef>,
    pub options: TableOptions,
    pub connector: Option<ConnectorDef>,
    /// The statement as it was written.
    pub sql: String,
}

impl TableDef {
    /// Made by CREATE SOURCE: only its connector writes to it.
    pub fn is_source(&self) -> bool {
        self.connector.as_ref().is_some_and(|connector| connector.source)
    }

    /// Stored columns, generated ones included. NOT NULL columns are not nullable.
    pub fn schema(&self) -> SchemaRef {
        Arc::new(Schema::new(
            self.columns
                .iter()
                .map(|c| Field::new(&c.name, c.data_type.clone(), !c.not_null))
                .collect::<Vec<_>>(),
        ))
    }

    /// [`TableDef::schema`] with the SQL names of types that Arrow does not tell apart from text, for clients.
    pub fn announced_schema(&self) -> SchemaRef {
        let fields = self.columns.iter().map(|c| {
            let field = Field::new(&c.name, c.data_type.clone(), !c.not_null);
            match types::name_of(&c.data_type) == c.sql_type {
                true => field,
                false => types::with_sql_type(field, &c.sql_type),
            }
        });
        Arc::new(Schema::new(fields.collect::<Vec<_>>()))
    }

    /// Columns a sender may give: all but the generated ones. Nullable, because a missing value
    /// is judged by ingest, not by the format.
    pub fn input_schema(&self) -> SchemaRef {
        Arc::new(Schema::new(
            self.columns
                .iter()
                .filter(|c| c.generated.is_none())
                .map(|c| types::with_sql_type(Field::new(&c.name, c.data_type.clone(), true), &c.sql_type))
                .collect::<Vec<_>>(),
        ))
    }

    pub fn column_index(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|c| c.name == name)
    }
}

/// How a view answers late rows: `WITH (late = 'side' | 'amend', allowed_lateness = '...')`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Lateness {
    /// Keep the state of closed windows this long (microseconds) and correct them; 0 = `side`.
    pub allowed_us: i64,
}

#[derive(Clone, Debug, PartialEq)]
pub struct ViewDef {
    pub id: RelationId,
    pub name: String,
    pub materialized: bool,
    /// The SELECT, as written.
    pub query: String,
    pub emit_on_window_close: bool,
    pub lateness: Lateness,
    pub schema: SchemaRef,
    /// Names of tables and views that it reads, those behind plain views included.
    pub depends_on: Vec<String>,
    /// Names of the SQL functions that it calls, those within others included.
    pub calls: Vec<String>,
    /// The statement as it was written.
    pub sql: String,
}

#[derive(Clone, Debug, PartialEq)]
pub struct IndexDef {
    pub id: RelationId,
    pub name: String,
    pub relation: String,
    pub columns: Vec<String>,
    pub sql: String,
}

/// All definitions. Names are unique over tables, views and indexes, as in PostgreSQL.
#[derive(Clone, Debug, Default)]
pub struct Catalog {
    pub tables: BTreeMap<String, Arc<TableDef>>,
    pub views: BTreeMap<String, Arc<ViewDef>>,
    pub indexes: BTreeMap<String, Arc<IndexDef>>,
    /// Functions have names of their own: one may be called like a table.
    pub functions: BTreeMap<String, Arc<FunctionDef>>,
    /// What COMMENT ON said of a thing or, with its number, of a column.
    pub comments: BTreeMap<(RelationId, Option<usize>), String>,
    pub next_id: u32,
}

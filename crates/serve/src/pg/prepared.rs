//! Prepared statements and portals (a statement with its parameters, on the way to its last row).
//!
//! ```text
//! Parse -> Prepared --Bind--> Portal --Execute--> rows ... (suspended) ... --Execute--> rows, done
//! ```
//!
//! A client may keep both as long as it likes, hence the limits on their number and size.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, SchemaRef};
use datafusion::scalar::ScalarValue;
use engine::{BatchStream, RowsTag};
use futures::StreamExt as _;
use pgwire::api::Type;
use pgwire::messages::data::{FieldDescription, RowDescription};
use sql::ParsedStatement;

use super::connection::Failure;
use super::encode::{Format, ResultColumn, RowEncoder};
use super::errors::{PgError, code};
use super::wire::{Guard, Wire};

/// Prepared statements of one connection; drivers' caches hold hundreds.
const STATEMENTS_MAX: usize = 5_000;

/// Open portals of one connection; drivers hold as many as they have open cursors.
const PORTALS_MAX: usize = 1_000;

/// Texts of statements and values of parameters that one connection may keep.
const HELD_BYTES_MAX: usize = 128 * 1024 * 1024;

/// A statement that was parsed and bound; no statement at all for an empty text.
pub struct Prepared {
    pub statement: Option<ParsedStatement>,
    /// What the client was told of `$1`, `$2`, ...
    pub parameter_types: Vec<Type>,
    /// What the statement needs of them; `Null` where it does not matter.
    pub needed: Vec<DataType>,
    pub columns: Option<SchemaRef>,
    pub bytes: usize,
}

pub struct Portal {
    pub prepared: Arc<Prepared>,
    pub parameters: Vec<ScalarValue>,
    pub result_formats: Vec<Format>,
    pub progress: Progress,
    pub bytes: usize,
}

pub enum Progress {
    New,
    Rows(ResultRows),
    /// All rows were sent; their kind, for a further Execute, which finds none.
    Exhausted(RowsTag),
    /// A command ran; it cannot be run again.
    Done,
}

/// Statements and portals by name; the empty name is the unnamed one, replaced without a word.
#[derive(Default)]
pub struct Store {
    statements: HashMap<String, Arc<Prepared>>,
    portals: HashMap<String, Portal>,
    held_bytes: usize,
}

impl Store {
    pub fn statement(&self, name: &str) -> Result<&Arc<Prepared>, PgError> {
        self.statements.get(name).ok_or_else(|| {
            let shown = if name.is_empty() {
                "unnamed prepared statement".to_string()
            } else {
                format!("prepared statement \"{name}\"")
            };
            PgError::error(code::UNKNOWN_STATEMENT, format!("{shown} does not exist"))
        })
    }

    pub fn portal(&mut self, name: &str) -> Result<&mut Portal, PgError> {
        self.portals
            .get_mut(name)
            .ok_or_else(|| PgError::error(code::UNKNOWN_PORTAL, format!("portal \"{name}\" does not exist")))
    }

    /// Fails if the name is taken; before the costly work of binding.
    pub fn check_statement_name(&self, name: &str) -> Result<(), PgError> {
        if !name.is_empty() && self.statements.contains_key(name) {
            return Err(PgError::error(
                code::DUPLICATE_STATEMENT,
                format!("prepared statement \"{name}\" already exists"),
            ));
        }
        Ok(())
    }

    pub fn add_statement(&mut self, name: String, prepared: Prepared) -> Result<(), PgError> {
        self.close_statement(&name);
        if self.statements.len() >= STATEMENTS_MAX {
            return Err(limit(format!("{STATEMENTS_MAX} prepared statements are open")));
        }
        self.hold(prepared.bytes)?;
        self.statements.insert(name, Arc::new(prepared));
        Ok(())
    }

    pub fn add_portal(&mut self, name: String, portal: Portal) -> Result<(), PgError> {
        if name.is_empty() {
            self.close_portal(&name);
        } else if self.portals.contains_key(&name) {
            return Err(PgError::error(code::DUPLICATE_PORTAL, format!("cursor \"{name}\" already exists")));
        }
        if self.portals.len() >= PORTALS_MAX {
            return Err(limit(format!("{PORTALS_MAX} portals are open")));
        }
        self.hold(portal.bytes)?;
        self.portals.insert(name, portal);
        Ok(())
    }

    fn hold(&mut self, bytes: usize) -> Result<(), PgError> {
        if self.held_bytes + bytes > HELD_BYTES_MAX {
            return Err(limit(format!(
                "statements and parameters of this connection take {HELD_BYTES_MAX} bytes"
            )));
        }
        self.held_bytes += bytes;
        Ok(())
    }

    /// True when there was one. Portals on it stay open.
    pub fn close_statement(&mut self, name: &str) -> bool {
        let closed = self.statements.remove(name);
        self.held_bytes -= closed.as_ref().map_or(0, |prepared| prepared.bytes);
        closed.is_some()
    }

    pub fn close_all_statements(&mut self) {
        self.held_bytes -= self.statements.drain().map(|(_, prepared)| prepared.bytes).sum::<usize>();
    }

    /// Dropping a portal stops its query.
    pub fn close_portal(&mut self, name: &str) {
        self.held_bytes -= self.portals.remove(name).map_or(0, |portal| portal.bytes);
    }

    /// At the end of a transaction.
    pub fn close_all_portals(&mut self) {
        self.held_bytes -= self.portals.drain().map(|(_, portal)| portal.bytes).sum::<usize>();
    }
}

fn limit(what: String) -> PgError {
    PgError::error(code::LIMIT_EXCEEDED, what).with_hint("close those that are no longer needed")
}

/// Rows of a running query, sent as far as the client asked for.
pub struct ResultRows {
    pub columns: Vec<ResultColumn>,
    pub tag: RowsTag,
    stream: BatchStream,
    batch: Option<RowEncoder>,
    next_row: usize,
}

/// Rows written between two looks at the deadline and the buffer.
const ROWS_BETWEEN_CHECKS: usize = 64;

impl ResultRows {
    pub fn new(columns: Vec<ResultColumn>, tag: RowsTag, stream: BatchStream) -> ResultRows {
        ResultRows { columns, tag, stream, batch: None, next_row: 0 }
    }

    /// Sends up to `rows_max` rows; returns how many, and whether the client's limit ended it.
    pub async fn send(
        &mut self,
        wire: &mut Wire,
        guard: &Guard,
        rows_max: usize,
    ) -> Result<(u64, bool), Failure> {
        let mut sent = 0;
        loop {
            if let Some(batch) = &self.batch {
                while self.next_row < batch.rows() && sent < rows_max {
                    batch.write_row(self.next_row, wire.output())?;
                    self.next_row += 1;
                    sent += 1;
                    if wire.output_is_full() {
                        wire.flush_guarded(guard).await?;
                    } else if sent % ROWS_BETWEEN_CHECKS == 0 {
                        guard.check()?;
                    }
                }
                if sent == rows_max {
                    return Ok((sent as u64, true));
                }
            }
            match wire.guarded(guard, self.stream.next()).await? {
                Some(batch) => {
                    self.batch = Some(RowEncoder::new(&batch?, &self.columns)?);
                    self.next_row = 0;
                }
                None => return Ok((sent as u64, false)),
            }
        }
    }
}

/// The tag behind the last row.
pub fn rows_tag(tag: RowsTag, rows: u64) -> String {
    match tag {
        RowsTag::Select => format!("SELECT {rows}"),
        RowsTag::Insert => format!("INSERT 0 {rows}"),
        RowsTag::Update => format!("UPDATE {rows}"),
        RowsTag::Delete => format!("DELETE {rows}"),
        RowsTag::Show => "SHOW".to_string(),
        RowsTag::Explain => "EXPLAIN".to_string(),
    }
}

pub fn row_description(columns: &[ResultColumn]) -> RowDescription {
    let field = |column: &ResultColumn| {
        let format = match column.format {
            Format::Text => 0,
            Format::Binary => 1,
        };
        let pg_type = &column.pg_type;
        FieldDescription::new(
            column.name.clone(),
            0,
            0,
            pg_type.oid_type.oid(),
            pg_type.size(),
            pg_type.modifier,
            format,
        )
    };
    RowDescription::new(columns.iter().map(field).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prepared(bytes: usize) -> Prepared {
        Prepared { statement: None, parameter_types: vec![], needed: vec![], columns: None, bytes }
    }

    fn portal(bytes: usize) -> Portal {
        Portal {
            prepared: Arc::new(prepared(0)),
            parameters: vec![],
            result_formats: vec![],
            progress: Progress::New,
            bytes,
        }
    }

    #[test]
    fn the_unnamed_ones_are_replaced_and_named_ones_are_not() {
        let mut store = Store::default();
        store.add_statement(String::new(), prepared(1)).unwrap();
        store.add_statement(String::new(), prepared(2)).unwrap();
        store.add_statement("s".to_string(), prepared(3)).unwrap();
        assert_eq!(store.check_statement_name("s").unwrap_err().code, code::DUPLICATE_STATEMENT);
        assert_eq!(store.held_bytes, 5);
        store.add_portal(String::new(), portal(10)).unwrap();
        store.add_portal(String::new(), portal(20)).unwrap();
        store.add_portal("c".to_string(), portal(30)).unwrap();
        assert_eq!(store.add_portal("c".to_string(), portal(1)).unwrap_err().code, code::DUPLICATE_PORTAL);
        assert_eq!(store.held_bytes, 55);
        assert!(store.close_statement("s"));
        assert!(!store.close_statement("s"));
        store.close_all_portals();
        store.close_all_statements();
        assert_eq!(store.held_bytes, 0);
        assert_eq!(store.statement("s").err().unwrap().code, code::UNKNOWN_STATEMENT);
        assert_eq!(store.portal("c").err().unwrap().code, code::UNKNOWN_PORTAL);
    }

    #[test]
    fn a_connection_cannot_hold_without_limit() {
        let mut store = Store::default();
        store.add_statement("a".to_string(), prepared(HELD_BYTES_MAX)).unwrap();
        assert_eq!(store.add_statement("b".to_string(), prepared(1)).unwrap_err().code, code::LIMIT_EXCEEDED);
        store.close_statement("a");
        for i in 0..PORTALS_MAX {
            store.add_portal(format!("p{i}"), portal(1)).unwrap();
        }
        assert_eq!(store.add_portal("more".to_string(), portal(1)).unwrap_err().code, code::LIMIT_EXCEEDED);
    }

    #[test]
    fn tags_are_those_of_postgresql() {
        assert_eq!(rows_tag(RowsTag::Select, 3), "SELECT 3");
        assert_eq!(rows_tag(RowsTag::Insert, 1), "INSERT 0 1");
        assert_eq!(rows_tag(RowsTag::Show, 1), "SHOW");
    }
}

//! The contract between the engine and the connectors that rows come from.
//!
//! ```text
//!   connector:  open(spec, position) -> Source     poll() -> rows + the position behind them
//!   engine:     constraints -> one log record { rows, position } -> durable -> next poll is handed in
//! ```
//!
//! The position is opaque to the engine: it is kept in the log record of the rows that it follows, and given back to
//! [`Connectors::open`] after a restart. So the rule that makes a source exactly-once is the connector's:
//!
//! **A source that is opened at a position gives exactly the rows after it**, none twice and none left out.

use std::collections::BTreeMap;
use std::time::Duration;

use arrow::datatypes::SchemaRef;

use crate::DecodedRows;

/// What `CREATE SOURCE` or `CREATE TABLE ... WITH (connector = ...)` says.
#[derive(Clone, Debug)]
pub struct SourceSpec {
    /// The table or source that the rows are for.
    pub relation: String,
    /// `connector = '...'`, in lower case.
    pub connector: String,
    /// The other options that are not the table's own.
    pub options: BTreeMap<String, String>,
    /// `FORMAT x ENCODE y`, in upper case.
    pub format: Option<(String, String)>,
    /// The columns that a sender may give, as in `TableDef::input_schema`.
    pub schema: SchemaRef,
    /// Per column: it has a DEFAULT, so that a source may leave it out.
    pub optional: Vec<bool>,
}

/// Rows of a source and the place behind them.
#[derive(Debug)]
pub struct SourceRows {
    pub rows: DecodedRows,
    /// The bytes that `rows.raw_ranges` point into.
    pub body: Vec<u8>,
    /// Where to go on when these rows are durable.
    pub position: String,
}

/// What a source has at the moment.
#[derive(Debug)]
pub enum Poll {
    Rows(SourceRows),
    /// Nothing before this much time has passed.
    Wait(Duration),
    /// Nothing any more: the source is bounded and was read to its end.
    End,
}

/// Why a source can't be opened or read.
#[derive(Clone, Debug, PartialEq)]
pub struct SourceError {
    /// Lower case, names the thing.
    pub message: String,
    pub hint: Option<String>,
    /// The option at fault, where one is.
    pub option: Option<String>,
    /// True when trying again later may help (a broker is away); false when a person must act.
    pub retry: bool,
}

impl SourceError {
    /// A mistake in the definition.
    pub fn option(name: &str, message: impl Into<String>) -> SourceError {
        SourceError { message: message.into(), hint: None, option: Some(name.to_string()), retry: false }
    }

    pub fn permanent(message: impl Into<String>) -> SourceError {
        SourceError { message: message.into(), hint: None, option: None, retry: false }
    }

    pub fn transient(message: impl Into<String>) -> SourceError {
        SourceError { message: message.into(), hint: None, option: None, retry: true }
    }

    pub fn with_hint(mut self, hint: impl Into<String>) -> SourceError {
        self.hint = Some(hint.into());
        self
    }
}

impl std::fmt::Display for SourceError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.hint {
            Some(hint) => write!(f, "{} (hint: {hint})", self.message),
            None => f.write_str(&self.message),
        }
    }
}

impl std::error::Error for SourceError {}

/// An open source; polled by one thread of its own, so it may block for a while, but not for long: a DROP waits for it.
pub trait Source: Send {
    /// # Errors
    /// The source is opened again at the last durable position when the error may be retried.
    fn poll(&mut self) -> Result<Poll, SourceError>;
}

/// The connectors that a program has.
pub trait Connectors: Send + Sync {
    /// Checks a definition without going to the network, when it is made.
    ///
    /// # Errors
    /// Unknown connector, options or columns that don't fit.
    fn check(&self, spec: &SourceSpec) -> Result<(), SourceError>;

    /// Opens a source behind `position`, or at its start.
    ///
    /// # Errors
    /// As [`Connectors::check`], and whatever the transport says.
    fn open(&self, spec: &SourceSpec, position: Option<&str>) -> Result<Box<dyn Source>, SourceError>;
}

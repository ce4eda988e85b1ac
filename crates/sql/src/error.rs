//! Errors as SQL users expect them: SQLSTATE, position, the name of the thing, a hint.

use std::fmt;

/// An error that is answered to the user of a statement or request.
///
/// Message style: lower case, no full stop, names the object and its kind:
/// `column "price" of view "hot_items" has type text`. What to do goes into the hint.
#[derive(Clone, Debug, PartialEq)]
pub struct SqlError {
    pub state: SqlState,
    pub message: String,
    pub detail: Option<String>,
    pub hint: Option<String>,
    /// 1-based character position in the text of the whole request.
    pub position: Option<usize>,
}

/// Five-character SQLSTATE codes of PostgreSQL.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SqlState {
    SyntaxError,
    UndefinedTable,
    UndefinedColumn,
    AmbiguousColumn,
    GroupingError,
    UndefinedFunction,
    UndefinedObject,
    DuplicateTable,
    DuplicateObject,
    DuplicateColumn,
    DatatypeMismatch,
    InvalidTextRepresentation,
    NumericValueOutOfRange,
    DivisionByZero,
    NotNullViolation,
    CheckViolation,
    UniqueViolation,
    InvalidParameterValue,
    WrongObjectType,
    DependentObjectsStillExist,
    ObjectNotInPrerequisiteState,
    FeatureNotSupported,
    InsufficientPrivilege,
    InvalidPassword,
    QueryCanceled,
    OutOfMemory,
    DiskFull,
    IoError,
    DataCorrupted,
    TooManyConnections,
    AdminShutdown,
    CannotConnectNow,
    ProtocolViolation,
    InvalidDefinition,
    ConfigurationLimitExceeded,
    ProgramLimitExceeded,
    InternalError,
}

impl SqlState {
    pub fn code(self) -> &'static str {
        match self {
            SqlState::SyntaxError => "42601",
            SqlState::UndefinedTable => "42P01",
            SqlState::UndefinedColumn => "42703",
            SqlState::AmbiguousColumn => "42702",
            SqlState::GroupingError => "42803",
            SqlState::UndefinedFunction => "42883",
            SqlState::UndefinedObject => "42704",
            SqlState::DuplicateTable => "42P07",
            SqlState::DuplicateObject => "42710",
            SqlState::DuplicateColumn => "42701",
            SqlState::DatatypeMismatch => "42804",
            SqlState::InvalidTextRepresentation => "22P02",
            SqlState::NumericValueOutOfRange => "22003",
            SqlState::DivisionByZero => "22012",
            SqlState::NotNullViolation => "23502",
            SqlState::CheckViolation => "23514",
            SqlState::UniqueViolation => "23505",
            SqlState::InvalidParameterValue => "22023",
            SqlState::WrongObjectType => "42809",
            SqlState::DependentObjectsStillExist => "2BP01",
            SqlState::ObjectNotInPrerequisiteState => "55000",
            SqlState::FeatureNotSupported => "0A000",
            SqlState::InsufficientPrivilege => "42501",
            SqlState::InvalidPassword => "28P01",
            SqlState::QueryCanceled => "57014",
            SqlState::OutOfMemory => "53200",
            SqlState::DiskFull => "53100",
            SqlState::IoError => "58030",
            SqlState::DataCorrupted => "XX001",
            SqlState::TooManyConnections => "53300",
            SqlState::AdminShutdown => "57P01",
            SqlState::CannotConnectNow => "57P03",
            SqlState::ProtocolViolation => "08P01",
            SqlState::InvalidDefinition => "42P17",
            SqlState::ConfigurationLimitExceeded => "53400",
            SqlState::ProgramLimitExceeded => "54000",
            SqlState::InternalError => "XX000",
        }
    }
}

impl SqlError {
    pub fn new(state: SqlState, message: impl Into<String>) -> SqlError {
        SqlError { state, message: message.into(), detail: None, hint: None, position: None }
    }

    pub fn unsupported(message: impl Into<String>) -> SqlError {
        SqlError::new(SqlState::FeatureNotSupported, message)
    }

    /// A broken rule of ours, not the user's fault.
    pub fn internal(message: impl Into<String>) -> SqlError {
        SqlError::new(SqlState::InternalError, message)
    }

    pub fn with_hint(mut self, hint: impl Into<String>) -> SqlError {
        self.hint = Some(hint.into());
        self
    }

    pub fn with_detail(mut self, detail: impl Into<String>) -> SqlError {
        self.detail = Some(detail.into());
        self
    }

    pub fn at(mut self, position: usize) -> SqlError {
        self.position = Some(position);
        self
    }

    /// Moves the position by `offset` characters: a statement is part of a longer text.
    pub fn shifted(mut self, offset: usize) -> SqlError {
        self.position = self.position.map(|p| p + offset);
        self
    }
}

impl fmt::Display for SqlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        if let Some(hint) = &self.hint {
            write!(f, " (hint: {hint})")?;
        }
        Ok(())
    }
}

impl std::error::Error for SqlError {}

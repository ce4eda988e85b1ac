//! Errors and warnings as PostgreSQL clients read them.
//!
//! Statements fail with [`SqlError`]; the protocol has failures of its own (unknown portal, wrong
//! password) whose codes SQL never uses. Both become a [`PgError`], and that an `ErrorResponse`.

use bytes::BytesMut;
use pgwire::messages::Message;
use pgwire::messages::response::{ErrorResponse, NoticeResponse};
use sql::{SqlError, SqlState};

/// Codes that only the protocol needs.
pub mod code {
    pub const SUCCESSFUL: &str = "00000";
    pub const WARNING: &str = "01000";
    pub const PROTOCOL_VIOLATION: &str = "08P01";
    pub const FEATURE_NOT_SUPPORTED: &str = "0A000";
    pub const NUMERIC_OUT_OF_RANGE: &str = "22003";
    pub const DATETIME_OUT_OF_RANGE: &str = "22008";
    pub const INVALID_DATETIME: &str = "22007";
    pub const INVALID_ENCODING: &str = "22021";
    pub const INVALID_PARAMETER_VALUE: &str = "22023";
    pub const INVALID_TEXT: &str = "22P02";
    pub const INVALID_BINARY: &str = "22P03";
    pub const ACTIVE_TRANSACTION: &str = "25001";
    pub const NO_TRANSACTION: &str = "25P01";
    pub const FAILED_TRANSACTION: &str = "25P02";
    pub const UNKNOWN_STATEMENT: &str = "26000";
    pub const INVALID_AUTHORIZATION: &str = "28000";
    pub const INVALID_PASSWORD: &str = "28P01";
    pub const UNKNOWN_PORTAL: &str = "34000";
    pub const UNKNOWN_DATABASE: &str = "3D000";
    pub const SYNTAX_ERROR: &str = "42601";
    pub const DUPLICATE_PORTAL: &str = "42P03";
    pub const DUPLICATE_STATEMENT: &str = "42P05";
    pub const TOO_MANY_CONNECTIONS: &str = "53300";
    pub const LIMIT_EXCEEDED: &str = "53400";
    pub const PROGRAM_LIMIT_EXCEEDED: &str = "54000";
    pub const PORTAL_DONE: &str = "55000";
    pub const QUERY_CANCELED: &str = "57014";
    pub const ADMIN_SHUTDOWN: &str = "57P01";
    pub const INTERNAL: &str = "XX000";
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    Notice,
    Warning,
    Error,
    /// The connection ends after it.
    Fatal,
}

#[derive(Clone, Debug, PartialEq)]
pub struct PgError {
    pub severity: Severity,
    pub code: &'static str,
    pub message: String,
    pub detail: Option<String>,
    pub hint: Option<String>,
    /// 1-based character position in the request.
    pub position: Option<usize>,
}

impl PgError {
    pub fn error(code: &'static str, message: impl Into<String>) -> PgError {
        PgError {
            severity: Severity::Error,
            code,
            message: message.into(),
            detail: None,
            hint: None,
            position: None,
        }
    }

    pub fn fatal(code: &'static str, message: impl Into<String>) -> PgError {
        PgError { severity: Severity::Fatal, ..PgError::error(code, message) }
    }

    pub fn warning(code: &'static str, message: impl Into<String>) -> PgError {
        PgError { severity: Severity::Warning, ..PgError::error(code, message) }
    }

    pub fn notice(notice: engine::Notice) -> PgError {
        let message =
            PgError { severity: Severity::Notice, ..PgError::error(code::SUCCESSFUL, notice.message) };
        PgError { hint: notice.hint, ..message }
    }

    pub fn with_hint(mut self, hint: impl Into<String>) -> PgError {
        self.hint = Some(hint.into());
        self
    }

    pub fn with_detail(mut self, detail: impl Into<String>) -> PgError {
        self.detail = Some(detail.into());
        self
    }

    /// Appends the message to `out`: a notice for a warning, an error otherwise.
    pub fn write(self, out: &mut BytesMut) {
        let severity = match self.severity {
            Severity::Notice => "NOTICE",
            Severity::Warning => "WARNING",
            Severity::Error => "ERROR",
            Severity::Fatal => "FATAL",
        };
        let mut fields = vec![
            (b'S', severity.to_string()),
            (b'V', severity.to_string()),
            (b'C', self.code.to_string()),
            (b'M', cut(&self.message)),
        ];
        fields.extend(self.detail.map(|detail| (b'D', cut(&detail))));
        fields.extend(self.hint.map(|hint| (b'H', cut(&hint))));
        fields.extend(self.position.map(|position| (b'P', position.to_string())));
        let written = match self.severity {
            Severity::Notice | Severity::Warning => NoticeResponse::new(fields).encode(out),
            Severity::Error | Severity::Fatal => ErrorResponse::new(fields).encode(out),
        };
        written.expect("every field was cut below the limit of the message");
    }
}

/// Longest text of one field; a user's value may be part of it, and clients limit the message to 30,000 bytes.
const FIELD_BYTES_MAX: usize = 8_000;

/// The text without NUL bytes, which would end the field early, and cut at [`FIELD_BYTES_MAX`].
fn cut(text: &str) -> String {
    let mut clean = text.replace('\0', "\\0");
    if clean.len() > FIELD_BYTES_MAX {
        let mut end = FIELD_BYTES_MAX;
        while !clean.is_char_boundary(end) {
            end -= 1;
        }
        clean.truncate(end);
        clean.push_str("...");
    }
    clean
}

impl From<SqlError> for PgError {
    fn from(error: SqlError) -> PgError {
        // After an fsync failure or during shutdown the statement fails, the connection stays:
        // reads go on, and it is the connection loop that ends connections.
        PgError {
            severity: Severity::Error,
            code: SqlState::code(error.state),
            message: error.message,
            detail: error.detail,
            hint: error.hint,
            position: error.position,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_carries_all_fields_in_the_order_of_postgresql() {
        let mut out = BytesMut::new();
        PgError {
            position: Some(8),
            ..PgError::error("42703", "column \"a\" does not exist").with_detail("d").with_hint("h")
        }
        .write(&mut out);
        assert_eq!(&out[5..], b"SERROR\0VERROR\0C42703\0Mcolumn \"a\" does not exist\0Dd\0Hh\0P8\0\0");
        assert_eq!(out[0], b'E');
        assert_eq!(u32::from_be_bytes(out[1..5].try_into().unwrap()) as usize, out.len() - 1);
    }

    #[test]
    fn long_texts_and_nul_bytes_do_not_break_the_message() {
        let mut out = BytesMut::new();
        PgError::warning(code::WARNING, "é".repeat(100_000)).with_detail("a\0b").write(&mut out);
        assert_eq!(out[0], b'N');
        assert!(out.len() < 30_000);
        assert_eq!(out[5..].iter().filter(|b| **b == 0).count(), 6, "five fields and the end");
    }
}

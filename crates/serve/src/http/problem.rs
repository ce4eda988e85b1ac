//! Error answers: `application/problem+json` (RFC 9457).
//!
//! Every kind has a stable `type` URI, `urn:shopstream:problem:<code>`, a title and a status. The
//! list is part of the API: docs/reference/http.md names each one, and a test compares.

use axum::http::header::{CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};
use sql::{SqlError, SqlState};

pub const PROBLEM_JSON: &str = "application/problem+json";

/// What went wrong, by what the caller can do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProblemKind {
    BadRequest,
    InvalidParameter,
    InvalidCursor,
    SqlError,
    Unauthorized,
    Forbidden,
    UnknownHost,
    NotFound,
    UnknownTable,
    UnknownView,
    MethodNotAllowed,
    NotAcceptable,
    RequestTimeout,
    Conflict,
    BodyTooLarge,
    UnsupportedMediaType,
    UnsupportedEncoding,
    IdempotencyConflict,
    RowsRejected,
    TooManyRequests,
    Internal,
    WritesRefused,
    Unavailable,
    QueryTimeout,
    DiskFull,
}

impl ProblemKind {
    pub const ALL: [ProblemKind; 25] = [
        ProblemKind::BadRequest,
        ProblemKind::InvalidParameter,
        ProblemKind::InvalidCursor,
        ProblemKind::SqlError,
        ProblemKind::Unauthorized,
        ProblemKind::Forbidden,
        ProblemKind::UnknownHost,
        ProblemKind::NotFound,
        ProblemKind::UnknownTable,
        ProblemKind::UnknownView,
        ProblemKind::MethodNotAllowed,
        ProblemKind::NotAcceptable,
        ProblemKind::RequestTimeout,
        ProblemKind::Conflict,
        ProblemKind::BodyTooLarge,
        ProblemKind::UnsupportedMediaType,
        ProblemKind::UnsupportedEncoding,
        ProblemKind::IdempotencyConflict,
        ProblemKind::RowsRejected,
        ProblemKind::TooManyRequests,
        ProblemKind::Internal,
        ProblemKind::WritesRefused,
        ProblemKind::Unavailable,
        ProblemKind::QueryTimeout,
        ProblemKind::DiskFull,
    ];

    fn describe(self) -> (u16, &'static str, &'static str) {
        match self {
            ProblemKind::BadRequest => (400, "bad-request", "The request can't be understood"),
            ProblemKind::InvalidParameter => (400, "invalid-parameter", "A query parameter is wrong"),
            ProblemKind::InvalidCursor => {
                (400, "invalid-cursor", "The cursor does not belong to this request")
            }
            ProblemKind::SqlError => (400, "sql-error", "The statement was refused"),
            ProblemKind::Unauthorized => (401, "unauthorized", "A valid token is needed"),
            ProblemKind::Forbidden => (403, "forbidden", "This is not allowed"),
            ProblemKind::UnknownHost => (421, "unknown-host", "The Host header names another server"),
            ProblemKind::NotFound => (404, "not-found", "There is nothing at this address"),
            ProblemKind::UnknownTable => (404, "unknown-table", "There is no such table"),
            ProblemKind::UnknownView => (404, "unknown-view", "There is no such view or table"),
            ProblemKind::MethodNotAllowed => {
                (405, "method-not-allowed", "The method does not fit the address")
            }
            ProblemKind::NotAcceptable => {
                (406, "not-acceptable", "None of the accepted formats can be given")
            }
            ProblemKind::RequestTimeout => (408, "request-timeout", "The request body came too slowly"),
            ProblemKind::Conflict => (409, "conflict", "The request contradicts what is stored"),
            ProblemKind::BodyTooLarge => (413, "body-too-large", "The request body is too large"),
            ProblemKind::UnsupportedMediaType => {
                (415, "unsupported-media-type", "The content type can't be read")
            }
            ProblemKind::UnsupportedEncoding => {
                (415, "unsupported-encoding", "The content encoding can't be read")
            }
            ProblemKind::IdempotencyConflict => {
                (422, "idempotency-conflict", "The Idempotency-Key was used for another body")
            }
            ProblemKind::RowsRejected => (422, "rows-rejected", "No row could be accepted"),
            ProblemKind::TooManyRequests => (429, "too-many-requests", "Too much is in progress already"),
            ProblemKind::Internal => (500, "internal", "The server broke a rule of its own"),
            ProblemKind::WritesRefused => (503, "writes-refused", "Writes are refused at the moment"),
            ProblemKind::Unavailable => (503, "unavailable", "The server can't answer at the moment"),
            ProblemKind::QueryTimeout => (504, "query-timeout", "The query took too long and was stopped"),
            ProblemKind::DiskFull => (507, "disk-full", "The disk is full"),
        }
    }

    /// The last part of the `type` URI.
    pub fn code(self) -> &'static str {
        self.describe().1
    }

    pub fn status(self) -> StatusCode {
        StatusCode::from_u16(self.describe().0).expect("the table holds valid status codes")
    }

    pub fn title(self) -> &'static str {
        self.describe().2
    }

    /// Seconds after which trying again makes sense.
    fn retry_after_seconds(self) -> Option<u32> {
        match self {
            ProblemKind::TooManyRequests => Some(1),
            ProblemKind::Unavailable => Some(2),
            ProblemKind::DiskFull => Some(5),
            ProblemKind::WritesRefused => Some(10),
            _ => None,
        }
    }

    /// For an answer that a library produced with this status.
    pub fn of_status(status: StatusCode) -> ProblemKind {
        match status.as_u16() {
            404 => ProblemKind::NotFound,
            405 => ProblemKind::MethodNotAllowed,
            408 => ProblemKind::RequestTimeout,
            413 => ProblemKind::BodyTooLarge,
            415 => ProblemKind::UnsupportedMediaType,
            400..500 => ProblemKind::BadRequest,
            _ => ProblemKind::Internal,
        }
    }
}

/// One error answer.
#[derive(Clone, Debug)]
pub struct Problem {
    pub kind: ProblemKind,
    /// What happened this time: lower case, names the thing.
    pub detail: String,
    /// Further members: `hint`, `sqlstate`, `position`, `rejections`, ...
    pub members: Map<String, Value>,
}

impl Problem {
    pub fn new(kind: ProblemKind, detail: impl Into<String>) -> Problem {
        Problem { kind, detail: detail.into(), members: Map::new() }
    }

    pub fn hint(self, hint: impl Into<String>) -> Problem {
        let hint: String = hint.into();
        self.with("hint", hint)
    }

    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Problem {
        self.members.insert(name.to_string(), value.into());
        self
    }

    pub fn to_json(&self) -> Value {
        let mut body = json!({
            "type": format!("urn:shopstream:problem:{}", self.kind.code()),
            "title": self.kind.title(),
            "status": self.kind.status().as_u16(),
            "code": self.kind.code(),
            "detail": self.detail,
        });
        let object = body.as_object_mut().expect("built as an object above");
        for (name, value) in &self.members {
            object.insert(name.clone(), value.clone());
        }
        body
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        if self.kind == ProblemKind::Internal {
            tracing::error!(detail = self.detail, "answered with an internal error");
        }
        let mut response = (self.kind.status(), self.to_json().to_string()).into_response();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
        if let Some(seconds) = self.kind.retry_after_seconds() {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.kind == ProblemKind::Unauthorized {
            // Basic as well, so that a browser asks its user for the token (as the password).
            headers.append(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"shopstream\""));
            headers.append(
                WWW_AUTHENTICATE,
                HeaderValue::from_static("Basic realm=\"shopstream: the password is the token\""),
            );
        }
        response
    }
}

impl From<SqlError> for Problem {
    fn from(error: SqlError) -> Problem {
        let kind = match error.state {
            SqlState::DiskFull => ProblemKind::DiskFull,
            SqlState::IoError | SqlState::DataCorrupted => ProblemKind::WritesRefused,
            SqlState::AdminShutdown
            | SqlState::CannotConnectNow
            | SqlState::OutOfMemory
            | SqlState::ObjectNotInPrerequisiteState => ProblemKind::Unavailable,
            SqlState::TooManyConnections | SqlState::ConfigurationLimitExceeded => {
                ProblemKind::TooManyRequests
            }
            SqlState::QueryCanceled => ProblemKind::QueryTimeout,
            SqlState::InsufficientPrivilege => ProblemKind::Forbidden,
            SqlState::InvalidPassword => ProblemKind::Unauthorized,
            SqlState::InternalError => ProblemKind::Internal,
            SqlState::UniqueViolation
            | SqlState::DuplicateTable
            | SqlState::DuplicateObject
            | SqlState::DependentObjectsStillExist => ProblemKind::Conflict,
            _ => ProblemKind::SqlError,
        };
        let mut problem = Problem::new(kind, error.message).with("sqlstate", error.state.code());
        if let Some(detail) = error.detail {
            problem = problem.with("explanation", detail);
        }
        if let Some(hint) = error.hint {
            problem = problem.hint(hint);
        }
        if let Some(position) = error.position {
            problem = problem.with("position", position);
        }
        problem
    }
}

/// The candidate that `name` was most likely meant to be.
pub fn closest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // The cost grows with the length, and an address may be long.
    const NAME_BYTES_MAX: usize = 128;
    if name.len() > NAME_BYTES_MAX {
        return None;
    }
    sql::suggest::closest(name, candidates)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_has_the_members_of_rfc_9457() {
        let problem = Problem::new(ProblemKind::UnknownTable, "there is no table \"stok\"")
            .hint("did you mean \"stock\"?")
            .to_json();
        assert_eq!(
            problem,
            json!({
                "type": "urn:shopstream:problem:unknown-table",
                "title": "There is no such table",
                "status": 404,
                "code": "unknown-table",
                "detail": "there is no table \"stok\"",
                "hint": "did you mean \"stock\"?",
            })
        );
    }

    #[test]
    fn retry_advice_stands_where_trying_again_helps() {
        let response = Problem::new(ProblemKind::DiskFull, "x").into_response();
        assert_eq!(response.status().as_u16(), 507);
        assert_eq!(response.headers()[RETRY_AFTER], "5");
        assert_eq!(response.headers()[CONTENT_TYPE], PROBLEM_JSON);
        let response = Problem::new(ProblemKind::RowsRejected, "x").into_response();
        assert!(!response.headers().contains_key(RETRY_AFTER));
    }

    #[test]
    fn sql_errors_keep_their_state_position_and_hint() {
        let error = SqlError::new(SqlState::UndefinedColumn, "column \"prise\" does not exist")
            .with_hint("did you mean \"price\"?")
            .at(8);
        let problem = Problem::from(error).to_json();
        assert_eq!(problem["code"], "sql-error");
        assert_eq!(problem["sqlstate"], "42703");
        assert_eq!(problem["position"], 8);
        assert_eq!(problem["hint"], "did you mean \"price\"?");
        let full = Problem::from(SqlError::new(SqlState::DiskFull, "no space left"));
        assert_eq!(full.kind.status().as_u16(), 507);
    }

    #[test]
    fn codes_are_unique_and_all_is_complete() {
        let mut codes: Vec<_> = ProblemKind::ALL.iter().map(|kind| kind.code()).collect();
        codes.sort_unstable();
        codes.dedup();
        assert_eq!(codes.len(), ProblemKind::ALL.len());
        assert_eq!(ProblemKind::ALL.last().map(|kind| *kind as usize), Some(ProblemKind::ALL.len() - 1));
    }

    #[test]
    fn suggests_near_names_only() {
        let names = ["stock", "behavior", "daily_sales"];
        assert_eq!(closest("stok", names), Some("stock"));
        assert_eq!(closest("behaviour", names), Some("behavior"));
        assert_eq!(closest("customers", names), None);
        assert_eq!(closest(&"stock".repeat(1000), names), None);
    }
}

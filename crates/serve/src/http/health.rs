//! What operators ask: health, status, metrics.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::json;

use super::App;
use super::problem::{Problem, ProblemKind};

/// `GET /health/live`: the process answers.
pub async fn live() -> Response {
    axum::Json(json!({"status": "live"})).into_response()
}

/// `GET /health/ready`: answers are current and rows are accepted.
pub async fn ready(State(app): State<Arc<App>>) -> Result<Response, Problem> {
    let status = app.db.status();
    if let Some(reason) = status.writes_refused {
        return Err(Problem::new(ProblemKind::WritesRefused, reason));
    }
    if !status.ready {
        return Err(Problem::new(ProblemKind::Unavailable, "the log is still being replayed")
            .with("backlog_records", status.backlog_records));
    }
    Ok(axum::Json(json!({"status": "ready", "tick": status.tick.0})).into_response())
}

/// `GET /v1/status`
pub async fn status(State(app): State<Arc<App>>) -> Response {
    let status = app.monitor.to_json(&app.db.status());
    (StatusCode::OK, [("cache-control", "no-store")], axum::Json(status)).into_response()
}

/// `GET /metrics`
pub async fn metrics(State(app): State<Arc<App>>) -> Response {
    let text = app.metrics.render(&app.db.status(), app.budget.bytes_in_flight());
    ([("content-type", "text/plain; version=0.0.4; charset=utf-8")], text).into_response()
}

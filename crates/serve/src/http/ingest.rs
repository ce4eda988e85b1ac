//! `POST /v1/tables/{table}/rows`: bytes in, a receipt out.
//!
//! The answer is 202 once the rows are on stable storage. Rows that can't be used don't stop the
//! others: they are listed in the answer and kept in `rejected_rows`. Only when no row was usable
//! the answer is 422.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use dataflow::{DecodedRows, RejectedRow};
use engine::{IngestMeta, Receipt};
use serde_json::{Value, json};
use sql::{SqlError, SqlState, TableDef};

use super::App;
use super::body::{BLOCKING_BYTES_MIN, Received, receive};
use super::decode::BodyFormat;
use super::problem::{Problem, ProblemKind, closest};
use super::views::query_pairs;

/// Rejected rows listed in an answer; `rejected_rows` has all of them.
const REJECTIONS_MAX: usize = 100;
const IDEMPOTENCY_KEY_BYTES_MAX: usize = 255;

pub async fn post_rows(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
    headers: HeaderMap,
    uri: Uri,
    body: Body,
) -> Result<Response, Problem> {
    let table = find_table(&app, &name)?;
    let format = BodyFormat::of_request(&headers, &query_pairs(&uri)?, &table)?;
    let idempotency_key = idempotency_key_of(&headers)?;
    let Received { bytes, share } = receive(&app, &headers, body).await?;
    let (bytes, rows) = decode(bytes, format, Arc::clone(&table)).await?;
    let meta = IngestMeta { idempotency_key, origin: "http".to_string(), body: bytes };
    let has_key = meta.idempotency_key.is_some();
    let receipt =
        app.db.ingest(&table.name, rows, meta).await.map_err(|error| ingest_problem(error, has_key))?;
    drop(share);
    Ok(answer(&table.name, &receipt))
}

async fn decode(
    bytes: Vec<u8>,
    format: BodyFormat,
    table: Arc<TableDef>,
) -> Result<(Vec<u8>, DecodedRows), Problem> {
    if bytes.len() < BLOCKING_BYTES_MIN {
        let rows = format.decode(&table, &bytes)?;
        return Ok((bytes, rows));
    }
    let work = tokio::task::spawn_blocking(move || format.decode(&table, &bytes).map(|rows| (bytes, rows)));
    work.await.map_err(|_| Problem::new(ProblemKind::Internal, "decoding the body failed"))?
}

fn ingest_problem(error: SqlError, has_key: bool) -> Problem {
    let is_conflict = has_key && error.state == SqlState::InvalidParameterValue;
    let mut problem = Problem::from(error);
    if is_conflict {
        problem.kind = ProblemKind::IdempotencyConflict;
    }
    problem
}

fn find_table(app: &App, name: &str) -> Result<Arc<TableDef>, Problem> {
    if let Some(table) = app.db.table(name) {
        return Ok(table);
    }
    if app.db.relation(name).is_some() {
        return Err(Problem::new(
            ProblemKind::UnknownTable,
            format!("\"{name}\" is a view; rows are posted to tables"),
        )
        .hint("GET /v1/tables lists the tables"));
    }
    let problem = Problem::new(ProblemKind::UnknownTable, format!("there is no table \"{name}\""));
    let relations = app.db.relations();
    let tables = relations.iter().filter(|relation| relation.kind == engine::RelationKind::Table);
    Err(match closest(name, tables.map(|relation| relation.name.as_str())) {
        Some(near) => problem.hint(format!("did you mean \"{near}\"?")),
        None => problem.hint("GET /v1/tables lists the tables; CREATE TABLE makes one"),
    })
}

fn idempotency_key_of(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let Some(value) = headers.get("idempotency-key") else {
        return Ok(None);
    };
    match value.to_str() {
        Ok(key) if !key.is_empty() && key.len() <= IDEMPOTENCY_KEY_BYTES_MAX => Ok(Some(key.to_string())),
        _ => Err(Problem::new(
            ProblemKind::BadRequest,
            format!(
                "the Idempotency-Key must have 1 to {IDEMPOTENCY_KEY_BYTES_MAX} visible ASCII characters"
            ),
        )),
    }
}

fn answer(table: &str, receipt: &Receipt) -> Response {
    let rejections: Value = receipt.rejected.iter().take(REJECTIONS_MAX).map(rejection_json).collect();
    let rejected = receipt.rejected.len();
    let mut response = if receipt.accepted == 0 && receipt.duplicates == 0 && rejected > 0 {
        Problem::new(ProblemKind::RowsRejected, format!("none of {rejected} rows fits table \"{table}\""))
            .with("accepted", 0)
            .with("duplicates", 0)
            .with("rejected", rejected)
            .with("tick", receipt.tick.0)
            .with("rejections", rejections)
            .hint("the rows are kept in rejected_rows with their reasons")
            .into_response()
    } else {
        let body = json!({
            "accepted": receipt.accepted,
            "duplicates": receipt.duplicates,
            "rejected": rejected,
            "tick": receipt.tick.0,
            "rejections": rejections,
        });
        (StatusCode::ACCEPTED, [(CONTENT_TYPE, "application/json")], body.to_string()).into_response()
    };
    if receipt.replayed {
        response.headers_mut().insert("idempotency-replayed", axum::http::HeaderValue::from_static("true"));
    }
    response
}

fn rejection_json(row: &RejectedRow) -> Value {
    json!({
        "row": row.row_number,
        "column": row.column,
        "reason": row.reason.code(),
        "message": row.message,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::to_bytes;
    use dataflow::{RejectReason, Tick};

    fn receipt(accepted: u64, rejected: u32) -> Receipt {
        let row = |row_number| RejectedRow {
            row_number,
            column: Some("price".to_string()),
            reason: RejectReason::WrongType,
            message: "\"x\" is not a number".to_string(),
            raw: b"{}".to_vec(),
        };
        Receipt {
            accepted,
            duplicates: 0,
            rejected: (0..rejected).map(row).collect(),
            tick: Tick(9),
            replayed: false,
        }
    }

    async fn body_of(response: Response) -> Value {
        serde_json::from_slice(&to_bytes(response.into_body(), 1 << 20).await.unwrap()).unwrap()
    }

    #[tokio::test]
    async fn some_rows_rejected_is_still_202() {
        let response = answer("stock", &receipt(5, 150));
        assert_eq!(response.status(), StatusCode::ACCEPTED);
        let body = body_of(response).await;
        assert_eq!(
            (&body["accepted"], &body["rejected"], &body["tick"]),
            (&json!(5), &json!(150), &json!(9))
        );
        assert_eq!(body["rejections"].as_array().unwrap().len(), REJECTIONS_MAX);
        assert_eq!(
            body["rejections"][1],
            json!({"row": 1, "column": "price", "reason": "wrong_type", "message": "\"x\" is not a number"})
        );
    }

    #[tokio::test]
    async fn no_usable_row_is_422_with_the_same_list() {
        let response = answer("stock", &receipt(0, 2));
        assert_eq!(response.status(), StatusCode::UNPROCESSABLE_ENTITY);
        assert_eq!(response.headers()[CONTENT_TYPE], "application/problem+json");
        let body = body_of(response).await;
        assert_eq!(body["code"], "rows-rejected");
        assert_eq!(body["rejections"][1]["row"], 1);
        // An empty batch is no mistake.
        assert_eq!(answer("stock", &receipt(0, 0)).status(), StatusCode::ACCEPTED);
    }

    #[test]
    fn a_replay_says_so() {
        let replayed = Receipt { replayed: true, ..receipt(1, 0) };
        assert_eq!(answer("stock", &replayed).headers()["idempotency-replayed"], "true");
        assert!(!answer("stock", &receipt(1, 0)).headers().contains_key("idempotency-replayed"));
    }

    #[test]
    fn idempotency_keys_are_bounded() {
        let of = |key: &str| {
            idempotency_key_of(&HeaderMap::from_iter([(
                "idempotency-key".parse().unwrap(),
                key.parse().unwrap(),
            )]))
        };
        assert_eq!(of("order-17").unwrap().as_deref(), Some("order-17"));
        assert!(of("").is_err());
        assert!(of(&"k".repeat(256)).is_err());
        assert_eq!(idempotency_key_of(&HeaderMap::new()).unwrap(), None);
    }
}

//! `POST /v1/sql`: runs statements, answers with the last one's result.
//!
//! Only JSON is taken: a form on a foreign page can't send that without asking first (CORS), and
//! is never allowed to. What statements there are is decided by the session, as everywhere.

use std::sync::Arc;

use arrow::datatypes::DataType;
use axum::body::Body;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use datafusion::scalar::ScalarValue;
use engine::{Notice, Outcome, RowsTag, Session};
use serde::Deserialize;
use serde_json::{Value, json};
use sql::{SqlError, SqlState};

use super::App;
use super::body::receive;
use super::decode::media_type;
use super::problem::{Problem, ProblemKind};
use super::values::{JsonRows, columns_json};
use super::views::{collect, within};

/// Rows of an answer; the rest is cut, and the answer says so.
const ROWS_MAX: usize = 10_000;
const SQL_BYTES_MAX: usize = 1024 * 1024;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct SqlRequest {
    sql: String,
    #[serde(default)]
    params: Vec<Value>,
}

pub async fn run(State(app): State<Arc<App>>, headers: HeaderMap, body: Body) -> Result<Response, Problem> {
    if media_type(&headers).as_deref() != Some("application/json") {
        return Err(Problem::new(
            ProblemKind::UnsupportedMediaType,
            "a statement is sent as application/json",
        )
        .hint("curl --json '{\"sql\": \"SHOW TABLES\"}' .../v1/sql"));
    }
    let received = receive(&app, &headers, body).await?;
    if received.bytes.len() > SQL_BYTES_MAX {
        return Err(Problem::new(
            ProblemKind::BodyTooLarge,
            format!("a statement may have at most {SQL_BYTES_MAX} bytes"),
        ));
    }
    let request: SqlRequest = serde_json::from_slice(&received.bytes).map_err(|error| {
        Problem::new(ProblemKind::BadRequest, format!("the body is not a statement: {error}"))
            .hint("send {\"sql\": \"SELECT ...\", \"params\": []}")
    })?;
    let session = app.db.session();
    let body = within(app.config.query_timeout, run_all(&session, &request)).await?;
    Ok(([("content-type", "application/json"), ("cache-control", "no-store")], body).into_response())
}

async fn run_all(session: &Session, request: &SqlRequest) -> Result<Vec<u8>, SqlError> {
    let statements = session.parse(&request.sql)?;
    if statements.len() != 1 && !request.params.is_empty() {
        return Err(SqlError::new(
            SqlState::SyntaxError,
            format!("params go with one statement, not with {}", statements.len()),
        ));
    }
    let mut last = answer_of_command("", &[]);
    for statement in &statements {
        let parameters = if request.params.is_empty() {
            Vec::new()
        } else {
            let parameters = session.describe(statement, &[]).await?.parameters;
            let types: Vec<DataType> = parameters.iter().map(|field| field.data_type().clone()).collect();
            bind(&request.params, &types)?
        };
        last = match session.run(statement, parameters).await? {
            Outcome::Rows { schema, stream, tag } => {
                let (rows, complete) = collect(stream, ROWS_MAX).await?;
                answer_of_rows(&schema, &rows, complete, tag)
            }
            Outcome::Command { tag, notices } => answer_of_command(&tag, &notices),
            Outcome::CopyIn { copy } => {
                return Err(SqlError::unsupported("COPY FROM STDIN can't be used over HTTP")
                    .with_hint(format!("post the rows to /v1/tables/{}/rows", copy.table)));
            }
        };
    }
    Ok(last)
}

fn answer_of_command(tag: &str, notices: &[Notice]) -> Vec<u8> {
    let mut answer = json!({"tag": tag, "columns": [], "rows": [], "truncated": false});
    if !notices.is_empty() {
        let shown = notices.iter().map(|n| json!({"message": n.message, "hint": n.hint}));
        answer["notices"] = shown.collect::<Vec<_>>().into();
    }
    let mut out = answer.to_string().into_bytes();
    out.push(b'\n');
    out
}

/// Rows are arrays, because a result may have several columns of one name.
fn answer_of_rows(
    schema: &arrow::datatypes::SchemaRef,
    rows: &[arrow::array::RecordBatch],
    complete: bool,
    tag: RowsTag,
) -> Vec<u8> {
    let count: usize = rows.iter().map(|batch| batch.num_rows()).sum();
    let tag = match tag {
        RowsTag::Select => format!("SELECT {count}"),
        RowsTag::Insert => format!("INSERT 0 {count}"),
        RowsTag::Update => format!("UPDATE {count}"),
        RowsTag::Delete => format!("DELETE {count}"),
        RowsTag::Show => "SHOW".to_string(),
        RowsTag::Explain => "EXPLAIN".to_string(),
    };
    let head = json!({"tag": tag, "columns": columns_json(schema), "truncated": !complete});
    let mut out = head.to_string().into_bytes();
    let closing = out.pop();
    debug_assert_eq!(closing, Some(b'}'));
    out.extend_from_slice(b",\"rows\":[");
    let encoder = JsonRows::new(schema);
    let mut first = true;
    for batch in rows {
        for row in 0..batch.num_rows() {
            if !std::mem::take(&mut first) {
                out.push(b',');
            }
            encoder.write_array(&mut out, batch, row);
        }
    }
    out.extend_from_slice(b"]}\n");
    out
}

/// JSON values as the types of `$1`, `$2`, ...
fn bind(params: &[Value], types: &[DataType]) -> Result<Vec<ScalarValue>, SqlError> {
    if params.len() != types.len() {
        return Err(SqlError::new(
            SqlState::InvalidParameterValue,
            format!("the statement has {} parameters, params has {}", types.len(), params.len()),
        ));
    }
    let mut values = Vec::new();
    for (index, (param, data_type)) in params.iter().zip(types).enumerate() {
        let text = match param {
            Value::Null => None,
            Value::String(text) => Some(text.clone()),
            other => Some(other.to_string()),
        };
        let value = match text {
            None => ScalarValue::try_new_null(data_type),
            Some(text) => ScalarValue::try_from_string(text, data_type),
        };
        values.push(value.map_err(|_| {
            SqlError::new(
                SqlState::InvalidTextRepresentation,
                format!("parameter ${} is not a value of type {data_type}", index + 1),
            )
        })?);
    }
    Ok(values)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_take_the_statement_s_types() {
        let types = [DataType::Int64, DataType::Utf8, DataType::Decimal128(18, 2), DataType::Boolean];
        let params = [json!(5), json!("5"), json!("1.25"), json!(null)];
        assert_eq!(
            bind(&params, &types).unwrap(),
            [
                ScalarValue::Int64(Some(5)),
                ScalarValue::from("5"),
                ScalarValue::Decimal128(Some(125), 18, 2),
                ScalarValue::Boolean(None),
            ]
        );
    }

    #[test]
    fn wrong_parameters_are_named() {
        let error = bind(&[json!("x")], &[DataType::Int64]).unwrap_err();
        assert!(error.message.contains("$1"));
        assert!(bind(&[], &[DataType::Int64]).is_err());
    }

    #[test]
    fn rows_are_arrays_under_a_tag() {
        use std::sync::Arc;
        let array: arrow::array::ArrayRef = Arc::new(arrow::array::Int64Array::from(vec![1, 2]));
        let batch = arrow::array::RecordBatch::try_from_iter([("a", array)]).unwrap();
        let schema = batch.schema();
        let answer: Value =
            serde_json::from_slice(&answer_of_rows(&schema, &[batch], false, RowsTag::Select)).unwrap();
        assert_eq!(answer["tag"], "SELECT 2");
        assert_eq!(answer["rows"], json!([[1], [2]]));
        assert_eq!(answer["truncated"], true);
        let none: Value = serde_json::from_slice(&answer_of_command("CREATE TABLE", &[])).unwrap();
        assert_eq!(none["tag"], "CREATE TABLE");
    }
}

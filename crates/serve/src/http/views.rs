//! Reading relations: `GET /v1/views`, `GET /v1/views/{view}`, `GET /v1/tables`.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use axum::extract::{Path, Query, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_TYPE, ETAG, IF_NONE_MATCH, LINK, VARY};
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use dataflow::Tick;
use datafusion::scalar::ScalarValue;
use engine::{Outcome, RelationInfo, RelationKind, Session};
use futures::StreamExt;
use serde_json::{Value, json};
use sql::{SqlError, SqlState};

use super::App;
use super::negotiation::{Format, negotiate};
use super::problem::{Problem, ProblemKind, closest};
use super::select::{RowsRequest, hex};
use super::values::{JsonRows, columns_json, write_csv_header, write_csv_row};

/// Longest `wait_tick`; then the client asks again.
const WAIT_MAX: Duration = Duration::from_secs(30);

/// Relation by name, or the 404 with a suggestion.
pub fn find_relation(app: &App, name: &str) -> Result<RelationInfo, Problem> {
    if let Some(relation) = app.db.relation(name) {
        return Ok(relation);
    }
    let problem = Problem::new(ProblemKind::UnknownView, format!("there is no view or table \"{name}\""));
    let relations = app.db.relations();
    Err(match closest(name, relations.iter().map(|relation| relation.name.as_str())) {
        Some(near) => problem.hint(format!("did you mean \"{near}\"?")),
        None => problem.hint("GET /v1/views lists what there is"),
    })
}

pub fn query_pairs(uri: &Uri) -> Result<Vec<(String, String)>, Problem> {
    Query::<Vec<(String, String)>>::try_from_uri(uri)
        .map(|Query(pairs)| pairs)
        .map_err(|error| Problem::new(ProblemKind::BadRequest, error.body_text()))
}

/// `GET /v1/views/{view}`
pub async fn read(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
    headers: HeaderMap,
    uri: Uri,
) -> Result<Response, Problem> {
    let query = query_pairs(&uri)?;
    let relation = find_relation(&app, &name)?;
    let format = negotiate(&headers, &query)?;
    let request = RowsRequest::parse(&relation, &query)?;
    // The rows are read after the tick, so they are at least as new as the tick in the answer.
    let tick = wait_for(&app, &query).await?;
    let etag = (relation.kind != RelationKind::View).then(|| entity_tag(&app, &relation, tick, format));
    if let Some(etag) = etag.as_ref().filter(|etag| matches_etag(&headers, etag)) {
        return Ok((StatusCode::NOT_MODIFIED, [(ETAG, etag.clone())]).into_response());
    }
    let work = run_one(app.db.session(), &request.sql, request.parameters.clone(), request.limit + 1);
    let (schema, rows) = within(app.config.query_timeout, work).await?;
    let next_cursor = request.next_cursor(&rows);
    let shown: Vec<usize> = (0..request.columns_shown).collect();
    let schema = Arc::new(project(&relation, &schema, &shown));
    let body = match format {
        Format::Json => {
            let head = json!({"view": relation.name, "tick": tick.0, "columns": columns_json(&schema)});
            rows_as_json(head, &schema, &rows, request.limit, next_cursor.as_deref())
        }
        Format::Ndjson => rows_as_lines(&schema, &rows, request.limit),
        Format::Csv => rows_as_csv(&schema, &rows, request.limit),
    };
    let mut response = body.into_response();
    let answer = response.headers_mut();
    answer.insert(CONTENT_TYPE, HeaderValue::from_static(format.content_type()));
    answer.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    answer.insert(VARY, HeaderValue::from_static("accept"));
    if let Some(etag) = etag {
        answer.insert(ETAG, etag);
    }
    if format == Format::Csv {
        let file = file_name(&relation.name);
        if let Ok(value) = HeaderValue::try_from(format!("attachment; filename=\"{file}.csv\"")) {
            answer.insert(CONTENT_DISPOSITION, value);
        }
    }
    if let Some(link) = next_cursor.as_deref().and_then(|cursor| next_link(&uri, cursor)) {
        answer.insert(LINK, link);
    }
    Ok(response)
}

/// Names and types of the shown columns: what the relation says (it knows `jsonb`), as far as it agrees.
fn project(relation: &RelationInfo, result: &SchemaRef, shown: &[usize]) -> arrow::datatypes::Schema {
    let fields = shown.iter().map(|index| {
        let field = result.field(*index);
        match relation.schema.field_with_name(field.name()) {
            Ok(known) if known.data_type() == field.data_type() => known.clone(),
            _ => field.clone(),
        }
    });
    arrow::datatypes::Schema::new(fields.collect::<Vec<_>>())
}

async fn wait_for(app: &App, query: &[(String, String)]) -> Result<Tick, Problem> {
    let Some((_, text)) = query.iter().rfind(|(name, _)| name == "wait_tick") else {
        // Tick 0 is visible from the start: this answers at once with the current one.
        return Ok(app.db.wait_tick(Tick(0), WAIT_MAX).await?);
    };
    let tick = text.parse().map(Tick).map_err(|_| {
        Problem::new(ProblemKind::InvalidParameter, format!("wait_tick must be a number, not \"{text}\""))
            .with("parameter", "wait_tick")
    })?;
    let timeout = app.config.query_timeout.min(WAIT_MAX);
    Ok(app.db.wait_tick(tick, timeout).await?)
}

/// Differs whenever the answer may: by tick, definition, format, and run of the server (ticks start
/// again in a new data directory).
fn entity_tag(app: &App, relation: &RelationInfo, tick: Tick, format: Format) -> HeaderValue {
    use sha2::{Digest, Sha256};
    let definition = hex(&Sha256::digest(relation.sql.as_bytes())[..4]);
    let text = format!("W/\"{}-{}-{}-{}\"", app.run_id, definition, format.name(), tick.0);
    HeaderValue::try_from(text).expect("built of hexadecimal digits, names and numbers")
}

fn matches_etag(headers: &HeaderMap, etag: &HeaderValue) -> bool {
    let wanted = headers.get(IF_NONE_MATCH).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let strip = |tag: &str| tag.trim().trim_start_matches("W/").to_string();
    let own = strip(etag.to_str().unwrap_or_default());
    wanted.split(',').any(|tag| strip(tag) == own)
}

fn file_name(relation: &str) -> String {
    relation
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || c == '_' || c == '-' { c } else { '_' })
        .collect()
}

fn next_link(uri: &Uri, cursor: &str) -> Option<HeaderValue> {
    let kept =
        uri.query().unwrap_or_default().split('&').filter(|pair| {
            !pair.is_empty() && !pair.starts_with("cursor=") && !pair.starts_with("wait_tick=")
        });
    let cursor = format!("cursor={cursor}");
    let query: Vec<&str> = kept.chain([cursor.as_str()]).collect();
    HeaderValue::try_from(format!("<{}?{}>; rel=\"next\"", uri.path(), query.join("&"))).ok()
}

/// Gives up after `timeout`; dropping the future stops the work.
pub async fn within<T>(
    timeout: Duration,
    work: impl Future<Output = Result<T, SqlError>>,
) -> Result<T, SqlError> {
    match tokio::time::timeout(timeout, work).await {
        Ok(done) => done,
        Err(_) => {
            let text = format!("canceling statement after {} seconds", timeout.as_secs_f64());
            Err(SqlError::new(SqlState::QueryCanceled, text)
                .with_hint("filter more, or read a materialized view that has the answer ready"))
        }
    }
}

async fn run_one(
    session: Session,
    sql: &str,
    parameters: Vec<ScalarValue>,
    rows_max: usize,
) -> Result<(SchemaRef, Vec<RecordBatch>), SqlError> {
    let statements = session.parse(sql)?;
    let statement =
        statements.first().ok_or_else(|| SqlError::internal("a built statement was parsed as nothing"))?;
    match session.run(statement, parameters).await? {
        Outcome::Rows { schema, stream, .. } => Ok((schema, collect(stream, rows_max).await?.0)),
        _ => Err(SqlError::internal("a SELECT gave no rows")),
    }
}

/// At most `rows_max` rows, and whether that was all.
pub async fn collect(
    mut stream: engine::BatchStream,
    rows_max: usize,
) -> Result<(Vec<RecordBatch>, bool), SqlError> {
    let mut rows = Vec::new();
    let mut left = rows_max;
    while let Some(batch) = stream.next().await {
        let batch = batch?;
        if batch.num_rows() > left {
            rows.push(batch.slice(0, left));
            return Ok((rows, false));
        }
        left -= batch.num_rows();
        rows.push(batch);
    }
    Ok((rows, true))
}

fn each_row(rows: &[RecordBatch], limit: usize) -> impl Iterator<Item = (&RecordBatch, usize)> {
    rows.iter().flat_map(|batch| (0..batch.num_rows()).map(move |row| (batch, row))).take(limit)
}

/// `head` with `"rows": [...]` and `"next_cursor"` added.
fn rows_as_json(
    head: Value,
    schema: &SchemaRef,
    rows: &[RecordBatch],
    limit: usize,
    next_cursor: Option<&str>,
) -> Vec<u8> {
    let mut out = head.to_string().into_bytes();
    let closing = out.pop();
    debug_assert_eq!(closing, Some(b'}'));
    out.extend_from_slice(b",\"rows\":[");
    let encoder = JsonRows::new(schema);
    for (index, (batch, row)) in each_row(rows, limit).enumerate() {
        if index > 0 {
            out.push(b',');
        }
        encoder.write_object(&mut out, batch, row);
    }
    out.extend_from_slice(b"],\"next_cursor\":");
    out.extend_from_slice(json!(next_cursor).to_string().as_bytes());
    out.extend_from_slice(b"}\n");
    out
}

fn rows_as_lines(schema: &SchemaRef, rows: &[RecordBatch], limit: usize) -> Vec<u8> {
    let mut out = Vec::new();
    let encoder = JsonRows::new(schema);
    for (batch, row) in each_row(rows, limit) {
        encoder.write_object(&mut out, batch, row);
        out.push(b'\n');
    }
    out
}

fn rows_as_csv(schema: &SchemaRef, rows: &[RecordBatch], limit: usize) -> Vec<u8> {
    let mut out = Vec::new();
    write_csv_header(&mut out, schema);
    for (batch, row) in each_row(rows, limit) {
        write_csv_row(&mut out, batch, schema.fields().len(), row);
    }
    out
}

fn describe(relation: &RelationInfo) -> Value {
    let key: Vec<&str> =
        relation.key.iter().map(|index| relation.schema.field(*index).name().as_str()).collect();
    json!({
        "name": relation.name,
        "kind": kind_name(relation.kind),
        "columns": columns_json(&relation.schema),
        "key": key,
        "sql": relation.sql,
    })
}

fn kind_name(kind: RelationKind) -> &'static str {
    match kind {
        RelationKind::Table => "table",
        RelationKind::View => "view",
        RelationKind::MaterializedView => "materialized view",
        RelationKind::System => "system",
    }
}

/// `GET /v1/views`
pub async fn list_views(State(app): State<Arc<App>>) -> Response {
    let views: Value = app.db.relations().iter().map(describe).collect();
    axum::Json(json!({"views": views})).into_response()
}

/// `GET /v1/tables`
pub async fn list_tables(State(app): State<Arc<App>>) -> Response {
    let mut tables = Vec::new();
    for relation in app.db.relations() {
        let Some(table) = app.db.table(&relation.name).filter(|_| relation.kind == RelationKind::Table)
        else {
            continue;
        };
        let mut described = describe(&relation);
        described["columns"] = table
            .columns
            .iter()
            .map(|column| {
                json!({
                    "name": column.name,
                    "type": column.sql_type,
                    "nullable": !column.not_null,
                    "default": column.default,
                    "generated": column.generated,
                })
            })
            .collect();
        described["append_only"] = json!(table.append_only);
        described["watermark"] = json!(table.watermark.as_ref().map(|watermark| json!({
            "column": table.columns[watermark.column].name,
            "delay_seconds": watermark.delay_us as f64 / 1e6,
        })));
        tables.push(described);
    }
    axum::Json(json!({"tables": tables})).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_link_keeps_filters_and_replaces_the_cursor() {
        let uri: Uri = "/v1/views/stock?a.gt=1&cursor=old&wait_tick=7&limit=2".parse().unwrap();
        assert_eq!(
            next_link(&uri, "new").unwrap(),
            "</v1/views/stock?a.gt=1&limit=2&cursor=new>; rel=\"next\""
        );
    }

    #[test]
    fn etags_compare_weakly_and_in_lists() {
        let etag = HeaderValue::from_static("W/\"1-2\"");
        let with =
            |value: &'static str| HeaderMap::from_iter([(IF_NONE_MATCH, HeaderValue::from_static(value))]);
        assert!(matches_etag(&with("W/\"1-2\""), &etag));
        assert!(matches_etag(&with("\"x\", \"1-2\""), &etag));
        assert!(!matches_etag(&with("\"1-3\""), &etag));
        assert!(!matches_etag(&HeaderMap::new(), &etag));
    }

    #[test]
    fn names_become_safe_file_names() {
        assert_eq!(file_name("../a\"b\r\n商"), "___a_b___");
    }
}

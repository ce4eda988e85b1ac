//! `GET /openapi.json`: the OpenAPI 3.1 document, made of the table of routes.

use std::sync::LazyLock;

use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};

use super::problem::{PROBLEM_JSON, ProblemKind};
use super::routes::{Access, ROUTES, Route};
use super::select::{LIMIT_DEFAULT, LIMIT_MAX};

static DOCUMENT: LazyLock<String> = LazyLock::new(|| build().to_string());

pub async fn document() -> Response {
    ([("content-type", "application/json")], DOCUMENT.clone()).into_response()
}

fn build() -> Value {
    let mut paths = Map::new();
    for route in &ROUTES {
        let path = paths.entry(route.path).or_insert_with(|| json!({}));
        path[route.method] = operation(route);
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Shopstream",
            "version": env!("CARGO_PKG_VERSION"),
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
            "description": "Rows in, SQL views kept up to date, results out.",
        },
        "paths": paths,
        "components": {
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer"},
                "password": {"type": "http", "scheme": "basic", "description": "The password is the token."},
            },
            "schemas": schemas(),
        },
    })
}

fn operation(route: &Route) -> Value {
    let mut operation = describe(route);
    let security = match route.access {
        Access::Open => json!([]),
        // The empty alternative: no token is asked for on loopback.
        Access::Token => json!([{"token": []}, {"password": []}, {}]),
    };
    operation["security"] = security;
    let mut parameters: Vec<Value> = path_parameters(route.path)
        .map(|name| json!({"name": name, "in": "path", "required": true, "schema": {"type": "string"}}))
        .collect();
    if let Some(more) = operation.get("parameters").and_then(Value::as_array) {
        parameters.extend(more.iter().cloned());
    }
    operation["parameters"] = Value::Array(parameters);
    operation["responses"]["default"] = json!({
        "description": "An error",
        "content": {PROBLEM_JSON: {"schema": {"$ref": "#/components/schemas/Problem"}}},
    });
    operation
}

fn path_parameters(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'))
}

/// Summary, parameters beyond those of the path, body and answers of a route.
fn describe(route: &Route) -> Value {
    match (route.method, route.path) {
        ("post", "/v1/tables/{table}/rows") => json!({
            "operationId": "postRows",
            "summary": "Adds rows to a table; 202 means they are on stable storage.",
            "parameters": [
                header("Idempotency-Key", "A repeated request with the same key is not counted again."),
                header("Content-Encoding", "gzip, zstd or none."),
                query("columns", "CSV without a header: the columns in their order, separated by commas."),
                query("header", "true: the CSV has a header that is to be skipped (with columns)."),
                query("ignore_unknown", "true: fields that are no columns are skipped."),
            ],
            "requestBody": {"required": true, "content": {
                "application/json": {"schema": {"oneOf": [
                    {"type": "object"}, {"type": "array", "items": {"type": "object"}},
                ]}},
                "application/x-ndjson": {"schema": {"type": "string"}},
                "text/csv": {"schema": {"type": "string"}},
            }},
            "responses": {
                "202": answer("Durable", "application/json", "Receipt"),
                "422": answer("No row could be accepted", PROBLEM_JSON, "Problem"),
            },
        }),
        ("get", "/v1/tables") => json!({
            "operationId": "listTables", "summary": "Tables with their columns, keys and SQL.",
            "responses": {"200": any_json("Tables")},
        }),
        ("get", "/v1/views") => json!({
            "operationId": "listViews", "summary": "All relations with their columns, keys and SQL.",
            "responses": {"200": any_json("Relations")},
        }),
        ("get", "/v1/views/{view}") => json!({
            "operationId": "readView",
            "summary": "Rows of a view or table.",
            "description": "Every other parameter is a filter: column=value, or column.op=value with op one of \
                            eq, ne, gt, gte, lt, lte, in (a,b), is (null or notnull).",
            "parameters": [
                query("order", "Columns separated by commas, each with .desc where wanted."),
                {"name": "limit", "in": "query", "schema":
                    {"type": "integer", "minimum": 1, "maximum": LIMIT_MAX, "default": LIMIT_DEFAULT}},
                query("cursor", "next_cursor of the page before."),
                query("select", "Columns separated by commas."),
                {"name": "wait_tick", "in": "query", "description": "Waits until this tick is visible.",
                    "schema": {"type": "integer"}},
                {"name": "format", "in": "query", "schema": {"enum": ["json", "ndjson", "csv"]}},
                {"name": "filters", "in": "query", "style": "form", "explode": true,
                    "schema": {"type": "object", "additionalProperties": {"type": "string"}}},
            ],
            "responses": {
                "200": {"description": "Rows", "content": {
                    "application/json": {"schema": {"$ref": "#/components/schemas/Rows"}},
                    "application/x-ndjson": {"schema": {"type": "string"}},
                    "text/csv": {"schema": {"type": "string"}},
                }},
                "304": {"description": "Not changed since the given ETag"},
            },
        }),
        ("get", "/v1/views/{view}/changes") => json!({
            "operationId": "followView",
            "summary": "The rows of a view, then each change of it, as server-sent events.",
            "parameters": [header("Last-Event-ID", "Goes on behind this event.")],
            "responses": {"200": events()},
        }),
        ("get", "/v1/changes") => json!({
            "operationId": "followViews",
            "summary": "Several views on one stream of server-sent events.",
            "parameters": [
                query("views", "Names separated by commas."),
                query("recent", "Only the newest rows of a view: view.column:seconds, separated by commas."),
                query("status", "true: with the server's status each second."),
                header("Last-Event-ID", "Goes on behind this event."),
            ],
            "responses": {"200": events()},
        }),
        ("post", "/v1/sql") => json!({
            "operationId": "runSql",
            "summary": "Runs SQL statements and answers with the result of the last.",
            "requestBody": {"required": true, "content": {"application/json": {"schema": {
                "type": "object", "required": ["sql"], "additionalProperties": false,
                "properties": {"sql": {"type": "string"}, "params": {"type": "array", "items": {}}},
            }}}},
            "responses": {"200": answer("The result", "application/json", "SqlResult")},
        }),
        ("get", "/v1/status") => json!({
            "operationId": "status", "summary": "Counters, watermarks and sizes.",
            "responses": {"200": any_json("Status")},
        }),
        ("get", "/metrics") => json!({
            "operationId": "metrics", "summary": "The same for Prometheus.",
            "responses": {"200": text("Metrics", "text/plain")},
        }),
        ("get", "/health/live") => json!({
            "operationId": "live", "summary": "The process answers.",
            "responses": {"200": any_json("Live")},
        }),
        ("get", "/health/ready") => json!({
            "operationId": "ready", "summary": "Answers are current and rows are accepted.",
            "responses": {"200": any_json("Ready"), "503": answer("Not ready", PROBLEM_JSON, "Problem")},
        }),
        ("get", "/openapi.json") => json!({
            "operationId": "openapi", "summary": "This document.",
            "responses": {"200": any_json("OpenAPI 3.1")},
        }),
        ("get", "/") => json!({
            "operationId": "livePage", "summary": "The live page.",
            "responses": {"200": text("Page", "text/html")},
        }),
        ("get", "/assets/{build}/{file}") => json!({
            "operationId": "pageFile", "summary": "A file of the live page.",
            "responses": {"200": text("File", "*/*")},
        }),
        // A test fails for a route that has no description.
        _ => json!({"responses": {}}),
    }
}

fn query(name: &str, description: &str) -> Value {
    json!({"name": name, "in": "query", "description": description, "schema": {"type": "string"}})
}

fn header(name: &str, description: &str) -> Value {
    json!({"name": name, "in": "header", "description": description, "schema": {"type": "string"}})
}

fn answer(description: &str, content_type: &str, schema: &str) -> Value {
    let schema = json!({"$ref": format!("#/components/schemas/{schema}")});
    json!({"description": description, "content": {content_type: {"schema": schema}}})
}

fn any_json(description: &str) -> Value {
    json!({"description": description, "content": {"application/json": {"schema": {"type": "object"}}}})
}

fn text(description: &str, content_type: &str) -> Value {
    json!({"description": description, "content": {content_type: {"schema": {"type": "string"}}}})
}

fn events() -> Value {
    text("Events: snapshot, change, status, unavailable, lagged", "text/event-stream")
}

fn schemas() -> Value {
    let codes: Vec<String> =
        ProblemKind::ALL.iter().map(|kind| format!("urn:shopstream:problem:{}", kind.code())).collect();
    let column = json!({"type": "object", "properties": {
        "name": {"type": "string"}, "type": {"type": "string"}, "nullable": {"type": "boolean"},
    }});
    let rejection = json!({"type": "object", "properties": {
        "row": {"type": "integer"}, "column": {"type": ["string", "null"]},
        "reason": {"type": "string"}, "message": {"type": "string"},
    }});
    json!({
        "Problem": {"type": "object", "required": ["type", "title", "status", "detail", "code"], "properties": {
            "type": {"enum": codes}, "title": {"type": "string"}, "status": {"type": "integer"},
            "detail": {"type": "string"}, "code": {"type": "string"}, "hint": {"type": "string"},
            "sqlstate": {"type": "string"}, "position": {"type": "integer"}, "parameter": {"type": "string"},
        }},
        "Receipt": {"type": "object", "required": ["accepted", "duplicates", "rejected", "tick", "rejections"],
            "properties": {
                "accepted": {"type": "integer"}, "duplicates": {"type": "integer"},
                "rejected": {"type": "integer"}, "tick": {"type": "integer"},
                "rejections": {"type": "array", "maxItems": 100, "items": rejection},
            }},
        "Rows": {"type": "object", "required": ["view", "tick", "columns", "rows", "next_cursor"], "properties": {
            "view": {"type": "string"}, "tick": {"type": "integer"},
            "columns": {"type": "array", "items": column},
            "rows": {"type": "array", "items": {"type": "object"}},
            "next_cursor": {"type": ["string", "null"]},
        }},
        "SqlResult": {"type": "object", "required": ["tag", "columns", "rows", "truncated"], "properties": {
            "tag": {"type": "string"}, "columns": {"type": "array", "items": column},
            "rows": {"type": "array", "items": {"type": "array"}}, "truncated": {"type": "boolean"},
        }},
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_route_is_described_and_has_an_access_rule() {
        let document = build();
        let mut ids = Vec::new();
        for route in &ROUTES {
            let operation = &document["paths"][route.path][route.method];
            let id = operation["operationId"].as_str();
            assert!(id.is_some(), "{} {} has no operationId", route.method, route.path);
            assert!(operation["summary"].is_string(), "{} {}", route.method, route.path);
            assert!(operation["security"].is_array(), "{} {}", route.method, route.path);
            assert!(operation["responses"].as_object().unwrap().len() >= 2, "{}", route.path);
            ids.extend(id);
        }
        let count: usize =
            document["paths"].as_object().unwrap().values().map(|p| p.as_object().unwrap().len()).sum();
        assert_eq!(count, ROUTES.len());
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), ROUTES.len());
    }

    #[test]
    fn references_lead_somewhere() {
        let document = build();
        let text = document.to_string();
        for reference in text.split("\"$ref\":\"#").skip(1) {
            let pointer = reference.split('"').next().unwrap();
            assert!(document.pointer(pointer).is_some(), "{pointer}");
        }
    }

    #[test]
    fn the_manual_names_every_route_and_every_problem() {
        let manual = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/reference/http.md"));
        for route in ROUTES.iter().filter(|route| !route.path.starts_with("/assets")) {
            let line = format!("`{} {}`", route.method.to_uppercase(), route.path);
            assert!(manual.contains(&line), "docs/reference/http.md lacks {line}");
        }
        for kind in ProblemKind::ALL {
            let line = format!("| `{}` | {} |", kind.code(), kind.status().as_u16());
            assert!(manual.contains(&line), "docs/reference/http.md lacks {line}");
        }
    }
}

//! Which format a body of rows has, and the decoding of it.

use axum::http::HeaderMap;
use axum::http::header::CONTENT_TYPE;
use connectors::format::csv::{CsvDecoder, CsvOptions, Header};
use connectors::format::json::{JsonDecoder, JsonFraming, JsonOptions};
use dataflow::DecodedRows;
use sql::TableDef;

use super::problem::{Problem, ProblemKind, closest};

/// How to read a body.
#[derive(Clone, Debug, PartialEq)]
pub enum BodyFormat {
    Json {
        framing: JsonFraming,
        ignore_unknown: bool,
    },
    Csv {
        /// Positions in the table's input columns; `None`: the header names them.
        columns: Option<Vec<usize>>,
        skip_header: bool,
        ignore_unknown: bool,
    },
}

/// The media type without its parameters, in lower case.
pub fn media_type(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(CONTENT_TYPE)?.to_str().ok()?;
    Some(value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase())
}

impl BodyFormat {
    /// # Errors
    /// The 415 or 400 to answer with.
    pub fn of_request(
        headers: &HeaderMap,
        query: &[(String, String)],
        table: &TableDef,
    ) -> Result<BodyFormat, Problem> {
        let mut columns = None;
        let mut skip_header = false;
        let mut ignore_unknown = false;
        for (name, value) in query {
            match name.as_str() {
                "columns" => columns = Some(column_numbers(table, value)?),
                "header" => skip_header = flag(name, value)?,
                "ignore_unknown" => ignore_unknown = flag(name, value)?,
                _ => {
                    return Err(invalid(name, format!("there is no parameter \"{name}\""))
                        .hint("parameters are columns, header and ignore_unknown"));
                }
            }
        }
        let media_type = media_type(headers);
        match media_type.as_deref() {
            Some("application/json") => Ok(BodyFormat::Json { framing: JsonFraming::Auto, ignore_unknown }),
            Some("application/x-ndjson" | "application/ndjson" | "application/jsonl") => {
                Ok(BodyFormat::Json { framing: JsonFraming::Lines, ignore_unknown })
            }
            Some("text/csv") => Ok(BodyFormat::Csv { columns, skip_header, ignore_unknown }),
            other => {
                let detail = match other {
                    Some(other) => format!("rows can't be read from {other}"),
                    None => "the request has no Content-Type".to_string(),
                };
                Err(Problem::new(ProblemKind::UnsupportedMediaType, detail)
                    .hint("send application/json, application/x-ndjson or text/csv"))
            }
        }
    }

    /// Reads all rows; those that can't be read are in the result with their reasons.
    ///
    /// # Errors
    /// 413 for a body that no decoder takes.
    pub fn decode(&self, table: &TableDef, body: &[u8]) -> Result<DecodedRows, Problem> {
        if body.len() > connectors::format::BODY_BYTES_MAX {
            return Err(Problem::new(ProblemKind::BodyTooLarge, "a body of rows must be shorter than 2 GiB"));
        }
        let schema = table.input_schema();
        Ok(match self {
            BodyFormat::Json { framing, ignore_unknown } => {
                let options = JsonOptions {
                    framing: *framing,
                    ignore_unknown: *ignore_unknown,
                    ..JsonOptions::default()
                };
                JsonDecoder::new(&schema, options).decode(body)
            }
            BodyFormat::Csv { columns, skip_header, ignore_unknown } => {
                let header = match (columns, skip_header) {
                    (None, _) => Header::Names,
                    (Some(_), true) => Header::Skipped,
                    (Some(_), false) => Header::Absent,
                };
                let options = CsvOptions { header, ignore_unknown: *ignore_unknown, ..CsvOptions::default() };
                let all: Vec<usize> = (0..schema.fields().len()).collect();
                CsvDecoder::new(&schema, columns.as_ref().unwrap_or(&all), options).decode(body)
            }
        })
    }
}

fn invalid(parameter: &str, detail: impl Into<String>) -> Problem {
    Problem::new(ProblemKind::InvalidParameter, detail).with("parameter", parameter)
}

fn flag(name: &str, value: &str) -> Result<bool, Problem> {
    match value {
        "true" | "1" => Ok(true),
        "false" | "0" => Ok(false),
        _ => Err(invalid(name, format!("{name} must be true or false, not \"{value}\""))),
    }
}

fn column_numbers(table: &TableDef, list: &str) -> Result<Vec<usize>, Problem> {
    let schema = table.input_schema();
    let mut columns = Vec::new();
    for name in list.split(',').map(str::trim) {
        let Ok(column) = schema.index_of(name) else {
            let detail = match table.column_index(name) {
                Some(_) => {
                    format!("column \"{name}\" of table \"{}\" is generated and can't be sent", table.name)
                }
                None => format!("table \"{}\" has no column \"{name}\"", table.name),
            };
            let problem = invalid("columns", detail);
            let names = schema.fields().iter().map(|field| field.name().as_str());
            return Err(match closest(name, names).filter(|near| *near != name) {
                Some(near) => problem.hint(format!("did you mean \"{near}\"?")),
                None => problem,
            });
        };
        if columns.contains(&column) {
            return Err(invalid("columns", format!("column \"{name}\" is named twice")));
        }
        columns.push(column);
    }
    Ok(columns)
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::datatypes::DataType;
    use sql::{Column, OnConflict, RelationId, TableOptions};

    fn column(name: &str, data_type: DataType, sql_type: &str) -> Column {
        Column {
            name: name.to_string(),
            data_type,
            sql_type: sql_type.to_string(),
            not_null: false,
            default: None,
            generated: (name == "made").then(|| "quantity + 1".to_string()),
        }
    }

    fn stock() -> TableDef {
        TableDef {
            id: RelationId(1),
            name: "stock".to_string(),
            columns: vec![
                column("product_id", DataType::Int64, "bigint"),
                column("quantity", DataType::Int32, "integer"),
                column("made", DataType::Int32, "integer"),
            ],
            primary_key: vec![0],
            append_only: false,
            on_conflict: OnConflict::Overwrite,
            watermark: None,
            checks: Vec::new(),
            options: TableOptions::default(),
            connector: None,
            added: Vec::new(),
            sql: String::new(),
        }
    }

    fn of(content_type: &str, query: &[(&str, &str)]) -> Result<BodyFormat, Problem> {
        let headers = HeaderMap::from_iter([(CONTENT_TYPE, content_type.parse().unwrap())]);
        let query: Vec<_> = query.iter().map(|(n, v)| (n.to_string(), v.to_string())).collect();
        BodyFormat::of_request(&headers, &query, &stock())
    }

    fn rows(content_type: &str, query: &[(&str, &str)], body: &str) -> (usize, Vec<String>) {
        let decoded = of(content_type, query).unwrap().decode(&stock(), body.as_bytes()).unwrap();
        (decoded.batch.num_rows(), decoded.rejected.into_iter().map(|row| row.message).collect())
    }

    #[test]
    fn formats_follow_the_content_type() {
        assert_eq!(rows("application/json; charset=utf-8", &[], r#"{"product_id": 1, "quantity": 0}"#).0, 1);
        assert_eq!(rows("application/json", &[], r#"[{"product_id": 1}, {"product_id": 2}]"#).0, 2);
        assert_eq!(rows("Application/X-NDJSON", &[], "{\"product_id\": 1}\n{\"product_id\": 2}\n").0, 2);
        assert_eq!(rows("text/csv", &[], "quantity,product_id\n5,1\n").0, 1);
        assert_eq!(rows("text/csv", &[("columns", "product_id,quantity")], "1,5\n2,6\n").0, 2);
        let headed = [("columns", "product_id,quantity"), ("header", "true")];
        assert_eq!(rows("text/csv", &headed, "id,amount\n1,5\n").0, 1);
    }

    #[test]
    fn one_bad_row_leaves_the_others() {
        let (count, rejected) =
            rows("application/x-ndjson", &[], "{\"product_id\": 1}\n{oops\n{\"product_id\": 3}\n");
        assert_eq!((count, rejected.len()), (2, 1));
        let (count, rejected) = rows("application/json", &[], r#"{"product_id": 1, "colour": "red"}"#);
        assert_eq!((count, rejected.len()), (0, 1));
        assert_eq!(
            rows("application/json", &[("ignore_unknown", "true")], r#"{"product_id": 1, "colour": 2}"#).0,
            1
        );
    }

    #[test]
    fn other_types_and_parameters_are_refused() {
        for other in ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "json"] {
            assert_eq!(of(other, &[]).unwrap_err().kind, ProblemKind::UnsupportedMediaType, "{other}");
        }
        let none = BodyFormat::of_request(&HeaderMap::new(), &[], &stock());
        assert_eq!(none.unwrap_err().kind, ProblemKind::UnsupportedMediaType);
        let wrong = of("text/csv", &[("columns", "product_id,quantty")]).unwrap_err();
        assert_eq!(wrong.members["hint"], "did you mean \"quantity\"?");
        assert!(of("text/csv", &[("columns", "made")]).unwrap_err().detail.contains("generated"));
        assert!(of("text/csv", &[("columns", "quantity,quantity")]).is_err());
        assert!(of("text/csv", &[("colums", "quantity")]).is_err());
        assert!(of("text/csv", &[("header", "maybe")]).is_err());
    }
}

//! SHOW and EXPLAIN.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use chrono::{DateTime, SecondsFormat};
use datafusion::physical_plan::displayable;
use sql::{ParsedStatement, SqlError, SqlState, Statement};

use crate::api::{Outcome, RowsTag};
use crate::definition::Install;
use crate::session::Session;

fn text_schema(names: &[&str]) -> SchemaRef {
    Arc::new(Schema::new(names.iter().map(|n| Field::new(*n, DataType::Utf8, true)).collect::<Vec<_>>()))
}

pub fn plan_schema() -> SchemaRef {
    text_schema(&["QUERY PLAN"])
}

/// Columns of `SHOW words`.
pub fn schema(session: &Session, words: &[String]) -> Result<SchemaRef, SqlError> {
    Ok(table(session, words)?.0)
}

pub fn show(session: &Session, words: &[String]) -> Result<Outcome, SqlError> {
    let (schema, rows) = table(session, words)?;
    text_rows(schema, rows, RowsTag::Show)
}

fn text_rows(schema: SchemaRef, rows: Vec<Vec<Option<String>>>, tag: RowsTag) -> Result<Outcome, SqlError> {
    let columns = (0..schema.fields().len())
        .map(|c| Arc::new(StringArray::from_iter(rows.iter().map(|r| r[c].clone()))) as ArrayRef)
        .collect();
    let batch =
        RecordBatch::try_new(Arc::clone(&schema), columns).map_err(|e| SqlError::internal(e.to_string()))?;
    Ok(Outcome::Rows { schema, stream: Box::pin(futures::stream::iter([Ok(batch)])), tag })
}

type TextTable = (SchemaRef, Vec<Vec<Option<String>>>);

fn table(session: &Session, words: &[String]) -> Result<TextTable, SqlError> {
    let catalog = session.database.catalog();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let some = |s: &str| Some(s.to_string());
    let names = |names: Vec<&String>| {
        (text_schema(&["Name"]), names.into_iter().map(|n| vec![Some(n.clone())]).collect::<Vec<_>>())
    };
    Ok(match words.as_slice() {
        ["tables"] => names(catalog.tables.keys().collect()),
        ["views"] => names(catalog.views.values().filter(|v| !v.materialized).map(|v| &v.name).collect()),
        ["materialized", "views"] => {
            names(catalog.views.values().filter(|v| v.materialized).map(|v| &v.name).collect())
        }
        ["functions"] => {
            let rows = catalog.functions.values().map(|function| {
                let types = function.arguments.iter().map(|a| format!("{} {}", a.name, a.sql_type));
                let types = types.map(|text| text.trim().to_string()).collect::<Vec<_>>().join(", ");
                vec![some(&function.name), Some(types), some(&function.returns.sql_type)]
            });
            (text_schema(&["Name", "Arguments", "Returns"]), rows.collect())
        }
        ["indexes"] | ["indexes", "from", _] => {
            let wanted = words.get(2);
            let rows = catalog
                .indexes
                .values()
                .filter(|i| wanted.is_none_or(|w| *w == i.relation))
                .map(|i| vec![some(&i.name), some(&i.relation), Some(i.columns.join(", "))])
                .collect();
            (text_schema(&["Name", "On", "Columns"]), rows)
        }
        ["watermarks"] => watermarks(session),
        ["sources"] => sources(session),
        ["jobs"] => jobs(session),
        ["columns", "from", name] => {
            let relation =
                session.database.relation(name).ok_or_else(|| session.database.no_relation(name))?;
            let declared = catalog.tables.get(*name);
            let rows = relation
                .schema
                .fields()
                .iter()
                .map(|f| {
                    let sql_type = declared
                        .and_then(|t| t.columns.iter().find(|c| c.name == *f.name()))
                        .map_or_else(|| sql::types::field_type_name(f), |c| c.sql_type.clone());
                    vec![some(f.name()), Some(sql_type), Some(f.is_nullable().to_string())]
                })
                .collect();
            (text_schema(&["Name", "Type", "Nullable"]), rows)
        }
        ["create", "function", name] => {
            let function = catalog.functions.get(*name).ok_or_else(|| {
                SqlError::new(SqlState::UndefinedFunction, format!("function \"{name}\" does not exist"))
            })?;
            (text_schema(&["Name", "Create Sql"]), vec![vec![some(name), some(&function.sql)]])
        }
        ["create", "index", name] => {
            let index = catalog.indexes.get(*name).ok_or_else(|| {
                SqlError::new(SqlState::UndefinedObject, format!("index \"{name}\" does not exist"))
            })?;
            (text_schema(&["Name", "Create Sql"]), vec![vec![some(name), some(&index.sql)]])
        }
        ["create", "table" | "view" | "source", name] | ["create", "materialized", "view", name] => {
            let relation =
                session.database.relation(name).ok_or_else(|| session.database.no_relation(name))?;
            (text_schema(&["Name", "Create Sql"]), vec![vec![some(name), Some(relation.sql)]])
        }
        ["all"] => (text_schema(&["name", "setting", "description"]), all_settings(session)),
        name => {
            let name = name.join(" ");
            let value = setting(session, &name).ok_or_else(|| {
                SqlError::new(SqlState::UndefinedObject, format!("unrecognized configuration parameter \"{name}\""))
                    .with_hint("SHOW takes TABLES, SOURCES, VIEWS, MATERIALIZED VIEWS, INDEXES, FUNCTIONS, WATERMARKS, JOBS, COLUMNS FROM t, CREATE TABLE t or a setting")
            })?;
            let name =
                if name == "transaction isolation level" { "transaction_isolation".into() } else { name };
            (text_schema(&[name.as_str()]), vec![vec![Some(value)]])
        }
    })
}

/// Views that are being built, and those that could not be.
fn jobs(session: &Session) -> TextTable {
    let catalog = session.database.catalog();
    let rows = session.database.jobs().into_iter().map(|(id, job)| {
        let progress = job.progress();
        let name = catalog.views.values().find(|v| v.id == id).map_or(&job.view, |v| &v.name);
        vec![
            Some(id.0.to_string()),
            Some(format!("CREATE {}MATERIALIZED VIEW {name}", if job.replaces { "OR REPLACE " } else { "" })),
            Some(format!("{:.1}%", progress.share * 100.0)),
            Some(progress.rows.to_string()),
            Some(format!("{:.0}", progress.rows_per_second)),
            progress.left.map(|left| format!("{:.0} s", left.as_secs_f64())),
            progress.failed,
        ]
    });
    let columns = ["Id", "Statement", "Progress", "Rows", "Rows per Second", "Time Left", "Error"];
    (text_schema(&columns), rows.collect())
}

fn sources(session: &Session) -> TextTable {
    let rows = session
        .database
        .source_statuses()
        .into_iter()
        .map(|(name, source)| {
            let (state, rows) = (source.state.word().to_string(), source.rows.to_string());
            vec![Some(name), Some(source.connector), Some(state), Some(rows), source.position, source.error]
        })
        .collect();
    (text_schema(&["Name", "Connector", "State", "Rows", "Position", "Error"]), rows)
}

/// Settings that every session has: name as PostgreSQL writes it, meaning, and the value where it can't be changed.
const SETTINGS: [(&str, &str, Option<&str>); 15] = [
    ("application_name", "Name that the client gave itself.", None),
    ("background_ddl", "CREATE MATERIALIZED VIEW does not wait until the view is built.", None),
    ("client_encoding", "Encoding of texts from and to the client.", Some("UTF8")),
    ("DateStyle", "How dates and times are printed.", Some("ISO, MDY")),
    ("integer_datetimes", "Times are whole numbers of microseconds.", Some("on")),
    ("IntervalStyle", "How intervals are printed.", Some("postgres")),
    ("max_identifier_length", "Longest name that clients may expect.", Some("63")),
    ("search_path", "Schemas in which names are looked up.", Some("\"$user\", public")),
    ("server_encoding", "Encoding of texts in the database.", Some("UTF8")),
    ("server_version", "PostgreSQL version whose protocol and dialect are spoken.", Some("16.6")),
    ("standard_conforming_strings", "A backslash in '...' is a backslash.", Some("on")),
    ("statement_timeout", "Longest time a statement may take, in milliseconds; 0 is no limit.", None),
    ("TimeZone", "Zone in which times are printed and read.", None),
    ("transaction_isolation", "Each statement sees one tick.", Some("read committed")),
    ("transaction_read_only", "Statements may change data.", Some("off")),
];

fn setting(session: &Session, name: &str) -> Option<String> {
    let name = match name {
        "transaction isolation level" => "transaction_isolation",
        "time zone" => "timezone",
        name => name,
    };
    let fixed = SETTINGS.iter().find(|(known, ..)| known.eq_ignore_ascii_case(name)).and_then(|(_, _, v)| *v);
    session.setting(name).or_else(|| fixed.map(str::to_string))
}

/// All settings in the order of their names, those that only this client knows among them.
fn all_settings(session: &Session) -> Vec<Vec<Option<String>>> {
    let is_known = |name: &str| SETTINGS.iter().any(|(known, ..)| known.eq_ignore_ascii_case(name));
    let own = "Set by this client; nothing depends on it.";
    let others = session.setting_names().into_iter().filter(|name| !is_known(name));
    let mut rows: Vec<(String, &str)> = others.map(|name| (name, own)).collect();
    rows.extend(SETTINGS.iter().map(|(name, description, _)| (name.to_string(), *description)));
    rows.sort_by_key(|(name, _)| name.to_lowercase());
    rows.into_iter()
        .map(|(name, description)| {
            let value = setting(session, &name.to_lowercase());
            vec![Some(name), Some(value.unwrap_or_default()), Some(description.to_string())]
        })
        .collect()
}

fn watermarks(session: &Session) -> TextTable {
    let status = session.database.status();
    let catalog = session.database.catalog();
    let time = |us: Option<i64>| {
        us.and_then(DateTime::from_timestamp_micros).map(|t| t.to_rfc3339_opts(SecondsFormat::AutoSi, true))
    };
    let rows = catalog
        .tables
        .values()
        .filter_map(|t| t.watermark.as_ref().map(|w| (t, w)))
        .map(|(t, watermark)| {
            let progress = status.tables.get(&t.name).cloned().unwrap_or_default();
            let readers: Vec<&str> = catalog
                .views
                .values()
                .filter(|v| v.depends_on.contains(&t.name))
                .map(|v| v.name.as_str())
                .collect();
            vec![
                Some(t.name.clone()),
                Some(t.columns[watermark.column].name.clone()),
                time(progress.watermark_us),
                time(progress.max_event_us),
                Some(progress.idle.to_string()),
                Some(readers.join(", ")),
            ]
        })
        .collect();
    (text_schema(&["Table", "Column", "Watermark", "Newest event", "Idle", "Views"]), rows)
}

/// EXPLAIN: the circuit of a materialized view (also one that is about to be created), or DataFusion's plan of a query.
pub async fn explain(
    session: &Session,
    statement: &ParsedStatement,
    analyze: bool,
) -> Result<Outcome, SqlError> {
    let text = match &statement.statement {
        Statement::Show(words) => {
            explain_view(session, words.last().map_or("", String::as_str), analyze).await?
        }
        // The statement that created the view stands for it.
        Statement::CreateView { view, .. } if analyze => explain_view(session, &view.name, analyze).await?,
        Statement::CreateView { .. } => match session.database.plan_definition(statement).await? {
            Install::View { plan: Some(plan), .. } => crate::plan::explain(&plan),
            Install::Replace(views) => match views.first() {
                Some((_, plan)) => crate::plan::explain(plan),
                None => String::new(),
            },
            Install::View { plan: None, .. } => "computed when it is read".to_string(),
            _ => "nothing to do: it exists".to_string(),
        },
        Statement::Query(query) => {
            let bound = session.bind(query, &statement.sql).await?;
            if analyze {
                let started = std::time::Instant::now();
                let (_, mut stream) = session.stream(bound, vec![]).await?;
                let mut rows = 0;
                while let Some(batch) = futures::StreamExt::next(&mut stream).await {
                    rows += batch?.num_rows();
                }
                format!("rows: {rows}\ntime: {:.3} ms", started.elapsed().as_secs_f64() * 1e3)
            } else {
                session.explain_query(bound).await?
            }
        }
        _ => return Err(SqlError::unsupported("EXPLAIN takes a query or a CREATE MATERIALIZED VIEW")),
    };
    let rows = text.lines().map(|line| vec![Some(line.to_string())]).collect();
    text_rows(plan_schema(), rows, RowsTag::Explain)
}

/// The circuit of a materialized view; with figures if it is `measured`.
async fn explain_view(session: &Session, name: &str, measured: bool) -> Result<String, SqlError> {
    let database = &session.database;
    let catalog = database.catalog();
    let view = catalog.view(name)?;
    let Some(plan) = database.view_plan(view.id) else {
        return Ok("computed when it is read".to_string());
    };
    if !measured {
        return Ok(crate::plan::explain(&plan));
    }
    let measurements = database.measurements().await?;
    let figures = measurements.get(&view.id).map(Vec::as_slice).unwrap_or_default();
    Ok(crate::plan::explain_measured(&plan, figures))
}

pub fn display(plan: &dyn datafusion::physical_plan::ExecutionPlan) -> String {
    displayable(plan).indent(false).to_string()
}

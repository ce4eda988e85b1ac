//! One client's statements.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use datafusion::common::metadata::{FieldMetadata, ScalarAndMetadata};
use datafusion::common::{DFSchema, ParamValues};
use datafusion::execution::SessionState;
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::execute_stream;
use datafusion::scalar::ScalarValue;
use datafusion::sql::sqlparser::ast;
use futures::StreamExt;
use parking_lot::Mutex;
use sql::planner::QueryStop;
use sql::{ParsedStatement, SqlError, SqlState, Statement};

use crate::api::{BatchStream, CopyTarget, Description, Notice, Outcome, RowsTag};
use crate::database::{Database, Defined};
use crate::point_read::PointRead;
use crate::provider::QueryScope;

/// One client's settings; statements of one session run one after another.
pub struct Session {
    pub(crate) database: Arc<Database>,
    settings: Mutex<BTreeMap<String, String>>,
}

/// A query that is bound and knows what it will read.
pub(crate) struct BoundQuery {
    pub plan: LogicalPlan,
    pub state: SessionState,
    scope: Arc<QueryScope>,
    /// Names of the result's columns, where they are not the plan's: some are equal.
    names: Option<Vec<String>>,
}

/// The columns of a result under their names, where those are not the plan's.
fn named(names: Option<&[String]>, schema: SchemaRef) -> SchemaRef {
    let Some(names) = names else { return schema };
    let fields = schema.fields().iter().zip(names).map(|(field, name)| Field::clone(field).with_name(name));
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

impl Session {
    pub(crate) fn new(database: Arc<Database>) -> Session {
        let settings = [("statement_timeout", "0"), ("application_name", ""), ("timezone", "UTC")];
        let settings = settings.map(|(name, value)| (name.to_string(), value.to_string())).into();
        Session { database, settings: Mutex::new(settings) }
    }

    /// Splits and parses a request of one or more statements.
    ///
    /// # Errors
    /// Syntax errors, with the position in `sql`; statements that are not on the allow-list, by name.
    pub fn parse(&self, sql: &str) -> Result<Vec<ParsedStatement>, SqlError> {
        sql::parse(sql)
    }

    /// A setting's value as text, e.g. `statement_timeout` in milliseconds ("0": none).
    pub fn setting(&self, name: &str) -> Option<String> {
        self.settings.lock().get(&name.to_lowercase()).cloned()
    }

    /// Settings that have a value in this session, in lower case.
    pub(crate) fn setting_names(&self) -> Vec<String> {
        self.settings.lock().keys().cloned().collect()
    }

    /// Binds without running. `given` are the types that the client announced for `$1`, `$2`, ..., where it did.
    pub async fn describe(
        &self,
        statement: &ParsedStatement,
        given: &[Option<DataType>],
    ) -> Result<Description, SqlError> {
        let at = |e: SqlError| e.shifted(statement.offset);
        match &statement.statement {
            Statement::Query(query) => {
                let bound = self.bind(query, &statement.sql).await.map_err(at)?;
                let parameters = parameter_fields(&bound.plan)?;
                let columns = described_columns(bound.plan, &parameters, given);
                Ok(Description { parameters, columns: Some(named(bound.names.as_deref(), columns)) })
            }
            Statement::Insert { .. } | Statement::Update { .. } | Statement::Delete { .. } => {
                crate::dml::describe(self, statement).await.map_err(at)
            }
            Statement::Explain { .. } => {
                Ok(Description { parameters: vec![], columns: Some(crate::show::plan_schema()) })
            }
            Statement::Show(words) => {
                Ok(Description { parameters: vec![], columns: Some(crate::show::schema(self, words)?) })
            }
            _ => Ok(Description { parameters: vec![], columns: None }),
        }
    }

    /// Runs one statement. Dropping the future or the returned stream stops the work.
    pub async fn run(
        &self,
        statement: &ParsedStatement,
        parameters: Vec<ScalarValue>,
    ) -> Result<Outcome, SqlError> {
        self.execute(statement, parameters).await.map_err(|e| e.shifted(statement.offset))
    }

    async fn execute(
        &self,
        statement: &ParsedStatement,
        parameters: Vec<ScalarValue>,
    ) -> Result<Outcome, SqlError> {
        let command = |tag: &str| Ok(Outcome::Command { tag: tag.to_string(), notices: vec![] });
        match &statement.statement {
            Statement::Query(query) => {
                let catalog = self.database.catalog();
                if let Some(read) = self.database.point_reads.get(&statement.sql, &catalog)
                    && let Some(rows) = self.point(&read, &parameters)?
                {
                    return Ok(rows);
                }
                let bound = self.bind(query, &statement.sql).await?;
                let schema = named(bound.names.as_deref(), plain_schema(bound.plan.schema()));
                if let Some(read) = PointRead::of_plan(&bound.plan, schema)
                    && let Some(rows) = self.point(&read, &parameters)?
                {
                    if read.has_parameters() {
                        let reads = &self.database.point_reads;
                        reads.remember(&statement.sql, bound.scope.catalog(), Arc::new(read));
                    }
                    return Ok(rows);
                }
                self.rows(bound, parameters, RowsTag::Select).await
            }
            Statement::Insert { .. } | Statement::Update { .. } | Statement::Delete { .. } => {
                crate::dml::run(self, statement, parameters).await
            }
            Statement::CreateTable { table, .. } => {
                let tag = if table.is_source() { "CREATE SOURCE" } else { "CREATE TABLE" };
                self.define(statement, tag).await
            }
            Statement::CreateView { view, .. } => {
                let tag = if view.materialized { "CREATE MATERIALIZED VIEW" } else { "CREATE VIEW" };
                self.define(statement, tag).await
            }
            Statement::CreateFunction { .. } => self.define(statement, "CREATE FUNCTION").await,
            Statement::Comment { .. } => self.define(statement, "COMMENT").await,
            Statement::Alter { kind, .. } => {
                let tag = format!("ALTER {}", kind.word().to_uppercase());
                self.define(statement, &tag).await
            }
            Statement::CreateIndex { .. } => self.define(statement, "CREATE INDEX").await,
            Statement::Drop { kind, .. } => {
                use sql::statement::ObjectKind::*;
                let tag = match kind {
                    Table => "DROP TABLE",
                    View => "DROP VIEW",
                    MaterializedView => "DROP MATERIALIZED VIEW",
                    Index => "DROP INDEX",
                    Function => "DROP FUNCTION",
                    Source => "DROP SOURCE",
                };
                self.define(statement, tag).await
            }
            Statement::CopyFrom { table, columns, format, header, delimiter, null } => {
                let definition = self.database.writable(table)?;
                let columns = copy_columns(&definition, columns)?;
                Ok(Outcome::CopyIn {
                    copy: CopyTarget {
                        table: table.clone(),
                        columns,
                        format: *format,
                        header: *header,
                        delimiter: *delimiter,
                        null: null.clone(),
                    },
                })
            }
            Statement::Explain { analyze, statement } => {
                crate::show::explain(self, statement, *analyze).await
            }
            Statement::Show(words) => crate::show::show(self, words),
            Statement::Set { name, value } => {
                self.set(name, value)?;
                command("SET")
            }
            Statement::Reset { name } => {
                if name == "all" {
                    *self.settings.lock() = Session::new(Arc::clone(&self.database)).settings.into_inner();
                } else {
                    let default = if name == "statement_timeout" { "0" } else { "" };
                    self.settings.lock().insert(name.to_lowercase(), default.to_string());
                }
                command("RESET")
            }
            Statement::CancelJob(id) => {
                self.database.cancel_job(*id)?;
                command("CANCEL JOB")
            }
            Statement::Checkpoint => {
                self.database.checkpoint().await?;
                command("CHECKPOINT")
            }
            Statement::Flush => {
                self.database.flush().await?;
                command("FLUSH")
            }
            Statement::Transaction { tag } | Statement::Session { tag } => command(tag),
        }
    }

    /// Runs a read by key; `None` when it can't be run as one.
    fn point(&self, read: &PointRead, parameters: &[ScalarValue]) -> Result<Option<Outcome>, SqlError> {
        let rows = read.run(self.database.published(), parameters)?;
        Ok(rows.map(|rows| Outcome::Rows {
            schema: Arc::clone(read.schema()),
            stream: Box::pin(futures::stream::iter(rows.into_iter().map(Ok))),
            tag: RowsTag::Select,
        }))
    }

    fn set(&self, name: &str, value: &str) -> Result<(), SqlError> {
        let name = name.to_lowercase();
        let value = match name.as_str() {
            "statement_timeout" => timeout_ms(value)?.to_string(),
            "background_ddl" => on_off(&name, value)?.to_string(),
            _ => value.to_string(),
        };
        self.settings.lock().insert(name, value);
        Ok(())
    }

    async fn define(&self, statement: &ParsedStatement, tag: &str) -> Result<Outcome, SqlError> {
        let Defined { mut notices, building, replaced } = self.database.define(statement).await?;
        let waits = self.setting("background_ddl").is_none_or(|value| value != "on");
        if !waits && (building.is_some() || replaced.is_some()) {
            notices.push(Notice {
                message: "the view is being built".into(),
                hint: Some("SHOW JOBS says how far it is".into()),
            });
        }
        if let Some(mut replaced) = replaced {
            notices.append(&mut replaced.notices);
            if waits {
                self.database.wait_replaced(replaced).await?;
            }
        }
        if let Some(view) = building.filter(|_| waits) {
            self.database.wait_built(view).await?;
        }
        Ok(Outcome::Command { tag: tag.to_string(), notices })
    }

    pub(crate) fn scope(&self) -> Arc<QueryScope> {
        let database = &self.database;
        QueryScope::reading(database.catalog(), database.planner(), database.view_properties())
    }

    pub(crate) async fn bind(&self, query: &ast::Query, sql: &str) -> Result<BoundQuery, SqlError> {
        let scope = self.scope();
        let state = scope.state_for(sql);
        let sql::planner::BoundOutput { plan, names } = sql::planner::bind_output(&state, query, sql).await?;
        Ok(BoundQuery { plan, state, scope, names })
    }

    pub(crate) async fn rows(
        &self,
        bound: BoundQuery,
        parameters: Vec<ScalarValue>,
        tag: RowsTag,
    ) -> Result<Outcome, SqlError> {
        let (schema, stream) = self.stream(bound, parameters).await?;
        Ok(Outcome::Rows { schema, stream, tag })
    }

    /// Runs a bound query over a snapshot taken now.
    pub(crate) async fn stream(
        &self,
        bound: BoundQuery,
        parameters: Vec<ScalarValue>,
    ) -> Result<(SchemaRef, BatchStream), SqlError> {
        let convert = |e| sql::planner::from_datafusion(e, "");
        let BoundQuery { plan, mut state, scope, names } = bound;
        let stop = QueryStop::default();
        state.config_mut().set_extension(Arc::new(stop.clone()));
        let expected = parameter_fields(&plan)?.len();
        if parameters.len() < expected {
            return Err(SqlError::new(
                SqlState::ProtocolViolation,
                format!("the statement has {expected} parameters, {} were given", parameters.len()),
            ));
        }
        let plan = if expected == 0 {
            plan
        } else {
            let values = cast_parameters(&plan, parameters)?;
            plan.with_param_values(values).map_err(convert)?
        };
        let schema = named(names.as_deref(), plain_schema(plan.schema()));
        let plan = state.optimize(&plan).map_err(convert)?;
        scope.set_snapshot(self.database.snapshot(&scope.wanted(&plan).map_err(convert)?)?);
        let planner = Arc::clone(state.query_planner());
        let physical = planner.create_physical_plan(&plan, &state).await.map_err(convert)?;
        let out = Arc::clone(&schema);
        let start = move || execute_stream(physical, state.task_ctx());
        let stream = self.database.on_query_threads(start, stop);
        let stream = stream.map(move |batch| {
            let batch = batch.map_err(|e| sql::planner::from_datafusion(e, ""))?;
            // The optimizer may widen a decimal on the way (sums of sums); what was announced holds.
            let columns = batch.columns().iter().zip(out.fields()).map(|(column, field)| {
                if column.data_type() == field.data_type() {
                    Ok(Arc::clone(column))
                } else {
                    cast(column, field.data_type())
                }
            });
            let columns =
                columns.collect::<Result<Vec<_>, _>>().map_err(|e| SqlError::internal(e.to_string()))?;
            arrow::array::RecordBatch::try_new_with_options(
                Arc::clone(&out),
                columns,
                &arrow::array::RecordBatchOptions::new().with_row_count(Some(batch.num_rows())),
            )
            .map_err(|e| SqlError::internal(e.to_string()))
        });
        Ok((schema, Box::pin(stream)))
    }
}

/// Types of `$1`, `$2`, ...; text where the statement says nothing.
pub(crate) fn parameter_fields(plan: &LogicalPlan) -> Result<Vec<FieldRef>, SqlError> {
    let found = plan.get_parameter_fields().map_err(|e| sql::planner::from_datafusion(e, ""))?;
    let number = |name: &String| name.trim_start_matches('$').parse::<usize>().ok();
    let count = found.keys().filter_map(number).max().unwrap_or(0);
    let text = |name: &str| Arc::new(Field::new(name, DataType::Utf8, true));
    let field = |name: String| found.get(&name).cloned().flatten().unwrap_or_else(|| text(&name));
    Ok((1..=count).map(|n| field(format!("${n}"))).collect())
}

/// Columns of a result whose types may hang on those of the parameters.
fn described_columns(plan: LogicalPlan, needed: &[FieldRef], given: &[Option<DataType>]) -> SchemaRef {
    let found = plan.get_parameter_fields().unwrap_or_default();
    let values: Option<Vec<ScalarAndMetadata>> = needed
        .iter()
        .enumerate()
        .map(|(i, needed)| {
            let known = found.get(&format!("${}", i + 1)).cloned().flatten();
            let data_type = match known {
                Some(known) => known.data_type().clone(),
                None => given.get(i).cloned().flatten().unwrap_or_else(|| needed.data_type().clone()),
            };
            let value = ScalarValue::try_from(&data_type).ok()?;
            Some(ScalarAndMetadata::new(value, literal_metadata(needed)))
        })
        .collect();
    let unbound = plain_schema(plan.schema());
    let Some(values) = values.filter(|v| !v.is_empty()) else { return unbound };
    plan.with_param_values(ParamValues::List(values)).map_or(unbound, |plan| plain_schema(plan.schema()))
}

/// What a literal of this field's type says about itself.
fn literal_metadata(field: &Field) -> Option<FieldMetadata> {
    (!field.metadata().is_empty()).then(|| FieldMetadata::from(field.metadata().clone()))
}

/// Values as the types the plan expects; a client may have sent text or another width.
fn cast_parameters(plan: &LogicalPlan, parameters: Vec<ScalarValue>) -> Result<ParamValues, SqlError> {
    let found = plan.get_parameter_fields().map_err(|e| sql::planner::from_datafusion(e, ""))?;
    let values = parameters.into_iter().enumerate().map(|(i, value)| {
        let Some(wanted) = found.get(&format!("${}", i + 1)).cloned().flatten() else {
            return Ok(ScalarAndMetadata::from(value));
        };
        let value = if *wanted.data_type() == value.data_type() {
            value
        } else {
            value.cast_to(wanted.data_type()).map_err(|_| {
                let name = sql::types::field_type_name(&wanted);
                SqlError::new(
                    SqlState::InvalidTextRepresentation,
                    format!("parameter ${} is not a value of type {name}", i + 1),
                )
            })?
        };
        Ok(ScalarAndMetadata::new(value, literal_metadata(&wanted)))
    });
    Ok(ParamValues::List(values.collect::<Result<_, SqlError>>()?))
}

/// Names and types of a result; a type's SQL name, where it differs from the Arrow type's, stays as metadata.
pub(crate) fn plain_schema(schema: &DFSchema) -> SchemaRef {
    Arc::new(Schema::new(
        schema.fields().iter().map(|f| Field::clone(f).with_nullable(true)).collect::<Vec<_>>(),
    ))
}

/// `0`, `1500`, `1500ms`, `2s`, `1min` as PostgreSQL reads them, in milliseconds.
fn on_off(name: &str, value: &str) -> Result<&'static str, SqlError> {
    match value.trim().trim_matches('\'').to_lowercase().as_str() {
        "on" | "true" | "yes" | "1" => Ok("on"),
        "off" | "false" | "no" | "0" | "default" => Ok("off"),
        _ => Err(SqlError::new(
            SqlState::InvalidParameterValue,
            format!("parameter \"{name}\" takes on or off, not {value}"),
        )),
    }
}

fn timeout_ms(value: &str) -> Result<u64, SqlError> {
    let value = value.trim().trim_matches('\'');
    let digits: String = value.chars().take_while(char::is_ascii_digit).collect();
    let factor = match value[digits.len()..].trim() {
        "" | "ms" => 1,
        "s" => 1000,
        "min" => 60_000,
        "h" => 3_600_000,
        _ => 0,
    };
    match digits.parse::<u64>() {
        Ok(number) if factor > 0 => Ok(number.saturating_mul(factor)),
        _ if value.eq_ignore_ascii_case("default") => Ok(0),
        _ => Err(SqlError::new(
            SqlState::InvalidParameterValue,
            format!("invalid value for statement_timeout: \"{value}\""),
        )
        .with_hint("give milliseconds, or a number with ms, s, min or h")),
    }
}

impl Session {
    /// The deadline that `statement_timeout` sets, if any.
    pub fn statement_timeout(&self) -> Option<Duration> {
        let ms: u64 = self.setting("statement_timeout")?.parse().ok()?;
        (ms > 0).then(|| Duration::from_millis(ms))
    }
}

fn copy_columns(table: &sql::TableDef, named: &[String]) -> Result<Vec<String>, SqlError> {
    let inputs: Vec<String> =
        table.columns.iter().filter(|c| c.generated.is_none()).map(|c| c.name.clone()).collect();
    if named.is_empty() {
        return Ok(inputs);
    }
    match named.iter().find(|n| !inputs.contains(n)) {
        None => Ok(named.to_vec()),
        Some(unknown) => Err(SqlError::new(
            SqlState::UndefinedColumn,
            format!("column \"{unknown}\" of table \"{}\" does not exist or is generated", table.name),
        )
        .with_hint(format!("columns that can be given are {}", inputs.join(", ")))),
    }
}

impl Session {
    /// The batch plan of a query, as text.
    pub(crate) async fn explain_query(&self, bound: BoundQuery) -> Result<String, SqlError> {
        let convert = |e| sql::planner::from_datafusion(e, "");
        let BoundQuery { plan, state, scope, .. } = bound;
        let plan = state.optimize(&plan).map_err(convert)?;
        let wanted = scope.wanted(&plan).map_err(convert)?;
        scope.set_snapshot(self.database.snapshot(&wanted)?);
        let planner = Arc::clone(state.query_planner());
        let physical = planner.create_physical_plan(&plan, &state).await.map_err(convert)?;
        let mut text = crate::show::display(physical.as_ref());
        let catalog = scope.catalog();
        let mut reads: Vec<String> = wanted
            .keys
            .iter()
            .filter_map(|read| {
                let name = catalog.name_of(read.relation)?;
                let columns = catalog.columns(name);
                let columns = read.columns.iter().map(|c| columns[*c].as_str()).collect::<Vec<_>>();
                Some(format!("{name} is read by key: {} of ({})\n", read.keys.len(), columns.join(", ")))
            })
            .collect();
        reads.sort();
        text.extend(reads);
        Ok(text)
    }
}

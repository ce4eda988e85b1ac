//! INSERT, UPDATE and DELETE.
//!
//! All three evaluate a query over the newest tick and log its rows as an exact change, one statement at a time.
//! Rows that come in by HTTP, COPY or files don't pass here.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StringArray, new_null_array};
use arrow::buffer::BooleanBuffer;
use arrow::compute::{CastOptions, cast_with_options, concat_batches};
use arrow::datatypes::{DataType, Schema, SchemaRef};
use dataflow::{DecodedRows, RejectReason};
use datafusion::datasource::MemTable;
use datafusion::scalar::ScalarValue;
use datafusion::sql::sqlparser::ast;
use futures::StreamExt;
use sql::{ParsedStatement, SqlError, SqlState, Statement, TableDef};

use crate::api::{Description, Outcome, RowsTag};
use crate::record::{Part, RowsEntry, encode_part};
use crate::session::{Session, parameter_fields, plain_schema};
use crate::writer::RowsRequest;

/// A statement taken apart.
struct Change<'a> {
    kind: Kind,
    table: Arc<TableDef>,
    /// Query whose rows are written (INSERT), or read and replaced (UPDATE, DELETE).
    query: String,
    /// INSERT: columns that the query's columns go to.
    targets: Vec<usize>,
    returning: Option<&'a [ast::SelectItem]>,
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Insert,
    Update,
    Delete,
}

pub async fn describe(session: &Session, statement: &ParsedStatement) -> Result<Description, SqlError> {
    let change = take_apart(session, statement)?;
    let mut parameters = match &statement.statement {
        Statement::Insert { insert } => {
            let scope = session.scope();
            let state = scope.state();
            let statement_ast = ast::Statement::Insert(ast::Insert { returning: None, ..(**insert).clone() });
            match sql::planner::bind_statement(&state, statement_ast, &statement.sql).await {
                Ok(plan) => parameter_fields(&plan)?,
                // The planner is stricter than we are about what may be written where.
                Err(_) => Vec::new(),
            }
        }
        _ => Vec::new(),
    };
    if parameters.is_empty() {
        let query = sql::parse_query(&change.query)?;
        parameters = parameter_fields(&session.bind(&query, &change.query).await?.plan)?;
    }
    let columns = match change.returning {
        None => None,
        Some(items) => {
            let none = RecordBatch::new_empty(change.table.schema());
            Some(returning(session, &change.table, items, none).await?.0)
        }
    };
    Ok(Description { parameters, columns })
}

pub async fn run(
    session: &Session,
    statement: &ParsedStatement,
    parameters: Vec<ScalarValue>,
) -> Result<Outcome, SqlError> {
    let change = take_apart(session, statement)?;
    let database = Arc::clone(&session.database);
    // One after another, each on what the one before left: else two increments could count as one.
    let _turn = database.dml_turn().await;
    if change.kind != Kind::Insert {
        database.flush().await?;
    }
    let query = sql::parse_query(&change.query)?;
    let bound = session.bind(&query, &change.query).await?;
    let (schema, mut stream) = session.stream(bound, parameters).await?;
    let mut batches = Vec::new();
    while let Some(batch) = stream.next().await {
        batches.push(batch?);
    }
    let read = concat_batches(&schema, &batches).map_err(|e| SqlError::internal(e.to_string()))?;
    let count = read.num_rows();
    let arrival_us = crate::database::now_us();
    let (part, shown) = match change.kind {
        Kind::Insert => {
            let rows = stored_rows(session, &change.table, &change.targets, &read, arrival_us)?;
            (Part { relation: change.table.id, rows: rows.clone(), weights: None }, rows)
        }
        Kind::Delete => {
            let old = with_schema(&read, 0, &change.table.schema())?;
            (Part { relation: change.table.id, rows: old.clone(), weights: Some(vec![-1; count]) }, old)
        }
        Kind::Update => {
            let width = change.table.columns.len();
            let old = with_schema(&read, 0, &change.table.schema())?;
            let inputs: Vec<usize> =
                (0..width).filter(|c| change.table.columns[*c].generated.is_none()).collect();
            let new = read.project(&(width..width + inputs.len()).collect::<Vec<_>>());
            let new = new.map_err(|e| SqlError::internal(e.to_string()))?;
            let new = stored_rows(session, &change.table, &inputs, &new, arrival_us)?;
            let rows = concat_batches(&change.table.schema(), [&old, &new])
                .map_err(|e| SqlError::internal(e.to_string()))?;
            let weights = std::iter::repeat_n(-1, count).chain(std::iter::repeat_n(1, count)).collect();
            (Part { relation: change.table.id, rows, weights: Some(weights) }, new)
        }
    };
    if count > 0 {
        let encoded = vec![encode_part(&part)];
        let entry = RowsEntry {
            table: change.table.id,
            arrival_us,
            request: None,
            accepted: if change.kind == Kind::Insert { count as u64 } else { 0 },
            duplicates: 0,
            position: None,
            parts: vec![part],
        };
        let committed = database.submit(RowsRequest { entry, encoded, reply: None }).await?;
        database.wait_visible(committed.tick).await?;
    }
    let (tag, rows_tag) = match change.kind {
        Kind::Insert => (format!("INSERT 0 {count}"), RowsTag::Insert),
        Kind::Update => (format!("UPDATE {count}"), RowsTag::Update),
        Kind::Delete => (format!("DELETE {count}"), RowsTag::Delete),
    };
    match change.returning {
        None => Ok(Outcome::Command { tag, notices: vec![] }),
        Some(items) => {
            let (schema, batches) = returning(session, &change.table, items, shown).await?;
            let stream = Box::pin(futures::stream::iter(batches.into_iter().map(Ok)));
            Ok(Outcome::Rows { schema, stream, tag: rows_tag })
        }
    }
}

fn take_apart<'a>(session: &Session, statement: &'a ParsedStatement) -> Result<Change<'a>, SqlError> {
    match &statement.statement {
        Statement::Insert { insert } => {
            let ast::TableObject::TableName(name) = &insert.table else {
                return Err(SqlError::unsupported("INSERT goes into a table"));
            };
            if insert.on.is_some() {
                return Err(SqlError::unsupported("ON CONFLICT is declared on the table, not on INSERT")
                    .with_hint(
                        "CREATE TABLE ... ON CONFLICT OVERWRITE | DO NOTHING | DO UPDATE IF NOT NULL",
                    ));
            }
            let table = session.database.writable(&last_name(name))?;
            let source = insert.source.as_ref().ok_or_else(|| {
                SqlError::unsupported("INSERT without rows is not supported")
                    .with_hint("give VALUES or a SELECT")
            })?;
            let inputs = || (0..table.columns.len()).filter(|c| table.columns[*c].generated.is_none());
            let targets = if insert.columns.is_empty() {
                inputs().collect()
            } else {
                insert
                    .columns
                    .iter()
                    .map(|name| input_column(&table, &last_name(name)))
                    .collect::<Result<Vec<_>, _>>()?
            };
            Ok(Change {
                kind: Kind::Insert,
                query: with_typed_literals(&with_defaults(source, &table, &targets), &table, &targets)
                    .to_string(),
                targets,
                returning: insert.returning.as_deref(),
                table,
            })
        }
        Statement::Update { update } => {
            if update.from.is_some() {
                return Err(SqlError::unsupported("UPDATE ... FROM is not supported")
                    .with_hint("use a subquery in SET or WHERE"));
            }
            let (table, from) = changeable(session, &update.table)?;
            let mut values: Vec<Option<String>> = vec![None; table.columns.len()];
            for assignment in &update.assignments {
                let ast::AssignmentTarget::ColumnName(name) = &assignment.target else {
                    return Err(SqlError::unsupported("SET (a, b) = ... is not supported")
                        .with_hint("assign each column"));
                };
                let column = input_column(&table, &last_name(name))?;
                values[column] = Some(match is_default(&assignment.value) {
                    true => default_of(&table.columns[column]),
                    false => assignment.value.to_string(),
                });
            }
            let old =
                table.columns.iter().enumerate().map(|(i, c)| format!("{} AS old_{i}", quoted(&c.name)));
            let new =
                table.columns.iter().zip(&values).enumerate().filter(|(_, (c, _))| c.generated.is_none());
            let new = new.map(|(i, (column, value))| match value {
                // A parameter alone is of the column's type.
                Some(value) if value.starts_with('$') && !value.contains(char::is_whitespace) => {
                    format!("CAST({value} AS {}) AS new_{i}", column.sql_type)
                }
                Some(value) => format!("({value}) AS new_{i}"),
                None => format!("{} AS new_{i}", quoted(&column.name)),
            });
            let columns = old.chain(new).collect::<Vec<_>>().join(", ");
            let query = format!("SELECT {columns} FROM {from}{}", filter(&update.selection));
            Ok(Change {
                kind: Kind::Update,
                query,
                targets: vec![],
                returning: update.returning.as_deref(),
                table,
            })
        }
        Statement::Delete { delete } => {
            let from = match &delete.from {
                ast::FromTable::WithFromKeyword(from) | ast::FromTable::WithoutKeyword(from) => from,
            };
            let [from] = from.as_slice() else {
                return Err(SqlError::unsupported("DELETE is from one table"));
            };
            if delete.using.is_some() {
                return Err(SqlError::unsupported("DELETE ... USING is not supported")
                    .with_hint("use a subquery in WHERE"));
            }
            let (table, from) = changeable(session, from)?;
            let columns = table.columns.iter().map(|c| quoted(&c.name)).collect::<Vec<_>>().join(", ");
            let query = format!("SELECT {columns} FROM {from}{}", filter(&delete.selection));
            Ok(Change {
                kind: Kind::Delete,
                query,
                targets: vec![],
                returning: delete.returning.as_deref(),
                table,
            })
        }
        _ => Err(SqlError::internal("this statement changes no rows")),
    }
}

/// VALUES in which DEFAULT stands for what the table says.
fn with_defaults(source: &ast::Query, table: &TableDef, targets: &[usize]) -> ast::Query {
    let mut query = source.clone();
    let ast::SetExpr::Values(values) = query.body.as_mut() else { return query };
    for row in &mut values.rows {
        for (expr, target) in row.content.iter_mut().zip(targets) {
            if is_default(expr)
                && let Ok(default) = sql::parse_expr(&default_of(&table.columns[*target]))
            {
                *expr = default;
            }
        }
    }
    query
}

fn is_default(expr: &ast::Expr) -> bool {
    matches!(expr, ast::Expr::Identifier(name) if name.quote_style.is_none() && name.value.eq_ignore_ascii_case("default"))
}

fn default_of(column: &sql::Column) -> String {
    format!("CAST({} AS {})", column.default.as_deref().unwrap_or("NULL"), column.sql_type)
}

/// VALUES in which a column has both quoted literals and other expressions, as in `('2021-01-01'), (now())`: the literals
/// are of the column's type, as in PostgreSQL, and not texts, which would not go with the rest.
fn with_typed_literals(source: &ast::Query, table: &TableDef, targets: &[usize]) -> ast::Query {
    let mut query = source.clone();
    let ast::SetExpr::Values(values) = query.body.as_mut() else { return query };
    let quoted = |expr: &ast::Expr| match expr {
        ast::Expr::Value(value) => {
            use ast::Value::*;
            matches!(value.value, SingleQuotedString(_) | DollarQuotedString(_) | EscapedStringLiteral(_))
        }
        _ => false,
    };
    let null =
        |expr: &ast::Expr| matches!(expr, ast::Expr::Value(value) if matches!(value.value, ast::Value::Null));
    for (place, target) in targets.iter().enumerate() {
        let mut exprs = values.rows.iter().filter_map(|row| row.content.get(place));
        if !exprs.any(|expr| !quoted(expr) && !null(expr)) {
            continue;
        }
        let sql_type = &table.columns[*target].sql_type;
        let exprs = values.rows.iter_mut().filter_map(|row| row.content.get_mut(place));
        for expr in exprs.filter(|expr| quoted(expr)) {
            if let Ok(typed) = sql::parse_expr(&format!("CAST({expr} AS {sql_type})")) {
                *expr = typed;
            }
        }
    }
    query
}

fn filter(selection: &Option<ast::Expr>) -> String {
    selection.as_ref().map_or(String::new(), |condition| format!(" WHERE {condition}"))
}

fn changeable(session: &Session, from: &ast::TableWithJoins) -> Result<(Arc<TableDef>, String), SqlError> {
    let ast::TableFactor::Table { name, .. } = &from.relation else {
        return Err(SqlError::unsupported("UPDATE and DELETE work on a table"));
    };
    let table = session.database.writable(&last_name(name))?;
    if table.append_only {
        return Err(SqlError::new(
            SqlState::WrongObjectType,
            format!("table \"{}\" is APPEND ONLY: its rows can't be updated or deleted", table.name),
        )
        .with_hint("leave APPEND ONLY out of CREATE TABLE if rows have to change"));
    }
    Ok((table, from.relation.to_string()))
}

fn last_name(name: &ast::ObjectName) -> String {
    let ident = name.0.last().and_then(|part| part.as_ident());
    ident.map_or_else(
        || name.to_string(),
        |i| if i.quote_style.is_some() { i.value.clone() } else { i.value.to_lowercase() },
    )
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn input_column(table: &TableDef, name: &str) -> Result<usize, SqlError> {
    let index = table.column_index(name).ok_or_else(|| {
        let names = table.columns.iter().map(|c| c.name.as_str()).collect::<Vec<_>>().join(", ");
        SqlError::new(
            SqlState::UndefinedColumn,
            format!("column \"{name}\" of table \"{}\" does not exist", table.name),
        )
        .with_hint(format!("its columns are {names}"))
    })?;
    if table.columns[index].generated.is_some() {
        return Err(SqlError::new(
            SqlState::WrongObjectType,
            format!("column \"{name}\" of table \"{}\" is generated and can't be given", table.name),
        ));
    }
    Ok(index)
}

/// The query's rows as the table stores them.
///
/// # Errors
/// The first row that breaks a constraint fails the statement: nothing of it is written.
fn stored_rows(
    session: &Session,
    table: &Arc<TableDef>,
    targets: &[usize],
    read: &RecordBatch,
    arrival_us: i64,
) -> Result<RecordBatch, SqlError> {
    if read.num_columns() != targets.len() {
        let (more, less) = if read.num_columns() > targets.len() {
            ("expressions", "target columns")
        } else {
            ("target columns", "expressions")
        };
        return Err(SqlError::new(SqlState::SyntaxError, format!("INSERT has more {more} than {less}")));
    }
    let count = read.num_rows();
    let inputs: Vec<usize> =
        (0..table.columns.len()).filter(|c| table.columns[*c].generated.is_none()).collect();
    let mut columns: Vec<ArrayRef> = Vec::with_capacity(inputs.len());
    let mut absent = Vec::with_capacity(inputs.len());
    for input in &inputs {
        let column = &table.columns[*input];
        match targets.iter().position(|t| t == input) {
            Some(position) => {
                columns.push(cast_to(read.column(position), column)?);
                absent.push(None);
            }
            None => {
                columns.push(new_null_array(&column.data_type, count));
                absent.push(Some(BooleanBuffer::new_set(count)));
            }
        }
    }
    let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(count));
    let batch = RecordBatch::try_new_with_options(loose(&table.input_schema()), columns, &options)
        .map_err(|e| SqlError::internal(e.to_string()))?;
    let rows = DecodedRows {
        batch,
        absent,
        row_numbers: (0..count as u32).collect(),
        raw_ranges: vec![],
        rejected: vec![],
    };
    let constraints = session.database.constraints(table)?;
    let (stored, rejected) = constraints.apply(rows, arrival_us, &[])?;
    check_row_lengths(&stored)?;
    let Some(first) = rejected.first() else { return Ok(stored) };
    let state = match first.reason {
        RejectReason::NotNull | RejectReason::MissingColumn => SqlState::NotNullViolation,
        RejectReason::Check => SqlState::CheckViolation,
        _ => SqlState::InvalidParameterValue,
    };
    Err(SqlError::new(state, format!("row {}: {}", first.row_number + 1, first.message))
        .with_detail(String::from_utf8_lossy(&first.raw).into_owned()))
}

/// Longest row that a statement may write, as for rows of files and requests: a value made by an expression could be of
/// any length, and every view would carry it along.
const ROW_BYTES_MAX: usize = 1 << 20;

fn check_row_lengths(rows: &RecordBatch) -> Result<(), SqlError> {
    if rows.get_array_memory_size() <= ROW_BYTES_MAX {
        return Ok(());
    }
    let mut lengths = vec![0; rows.num_rows()];
    for column in rows.columns() {
        for (row, length) in lengths.iter_mut().enumerate() {
            *length += match column.data_type() {
                DataType::Utf8 => column.as_string::<i32>().value_length(row) as usize,
                DataType::Binary => column.as_binary::<i32>().value_length(row) as usize,
                data_type if data_type.is_nested() => {
                    column.slice(row, 1).to_data().get_slice_memory_size().unwrap_or(0)
                }
                // Numbers and times: a handful of bytes.
                _ => 0,
            };
        }
    }
    match lengths.iter().position(|length| *length > ROW_BYTES_MAX) {
        None => Ok(()),
        Some(row) => Err(SqlError::new(
            SqlState::ProgramLimitExceeded,
            format!("row {} is {} bytes long, more than the {ROW_BYTES_MAX} allowed", row + 1, lengths[row]),
        )
        .with_hint("keep large objects elsewhere and store where they are")),
    }
}

fn loose(schema: &SchemaRef) -> SchemaRef {
    let fields = schema.fields().iter().map(|f| arrow::datatypes::Field::clone(f).with_nullable(true));
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

fn cast_to(values: &ArrayRef, column: &sql::Column) -> Result<ArrayRef, SqlError> {
    if values.data_type() == &column.data_type {
        return Ok(Arc::clone(values));
    }
    let options = CastOptions { safe: false, ..Default::default() };
    let texts = matches!(column.data_type, DataType::Timestamp(_, _))
        .then(|| values.as_string_opt::<i32>())
        .flatten();
    let whole: Option<ArrayRef> = texts.map(|texts| {
        let text = |text: &str| sql::types::with_seconds(text).unwrap_or_else(|| text.to_string());
        Arc::new(texts.iter().map(|value| value.map(text)).collect::<StringArray>()) as ArrayRef
    });
    cast_with_options(whole.as_ref().unwrap_or(values), &column.data_type, &options).map_err(|e| {
        let text = e.to_string();
        let state =
            if text.contains("overflow") || text.contains("out of range") || text.contains("precision") {
                SqlState::NumericValueOutOfRange
            } else if values.data_type().is_string() {
                SqlState::InvalidTextRepresentation
            } else {
                SqlState::DatatypeMismatch
            };
        SqlError::new(
            state,
            format!("a value for column \"{}\" is not of type {}", column.name, column.sql_type),
        )
        .with_detail(text)
    })
}

/// `schema.len()` columns from `first` on, as the table's rows.
fn with_schema(batch: &RecordBatch, first: usize, schema: &SchemaRef) -> Result<RecordBatch, SqlError> {
    let columns = batch.columns()[first..first + schema.fields().len()].to_vec();
    RecordBatch::try_new(Arc::clone(schema), columns).map_err(|e| SqlError::internal(e.to_string()))
}

/// The RETURNING list over the rows that were written.
async fn returning(
    session: &Session,
    table: &TableDef,
    items: &[ast::SelectItem],
    rows: RecordBatch,
) -> Result<(SchemaRef, Vec<RecordBatch>), SqlError> {
    let convert = |e| sql::planner::from_datafusion(e, "");
    let items = items.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let query = format!("SELECT {items} FROM {}", quoted(&table.name));
    // A catalog of its own, in which the table's name means the rows that were written.
    let state = crate::provider::empty_state(&session.database.planner());
    let context = datafusion::prelude::SessionContext::new_with_state(state);
    let provider = MemTable::try_new(rows.schema(), vec![vec![rows]]).map_err(convert)?;
    context.register_table(table.name.as_str(), Arc::new(provider)).map_err(convert)?;
    let parsed = sql::parse_query(&query)?;
    let plan = sql::planner::bind_query(&context.state(), &parsed, &query).await?;
    let schema = plain_schema(plan.schema());
    let batches =
        context.execute_logical_plan(plan).await.map_err(convert)?.collect().await.map_err(convert)?;
    let batches = batches
        .into_iter()
        .map(|b| RecordBatch::try_new(Arc::clone(&schema), b.columns().to_vec()))
        .collect::<Result<Vec<_>, _>>()
        .map_err(|e| SqlError::internal(e.to_string()))?;
    Ok((schema, batches))
}

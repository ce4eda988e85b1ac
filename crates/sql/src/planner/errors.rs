//! DataFusion's errors in PostgreSQL's terms: SQLSTATE, plain words, position, hint.
//!
//! The kind of an error is told by its type where there is one, and by its text where DataFusion has
//! only text; the tests hold each of those texts to what DataFusion says today.

use arrow::error::ArrowError;
use datafusion::common::{Column, DataFusionError, SchemaError};

use crate::parser::tokens::Positions;
use crate::{SqlError, SqlState, suggest};

/// The error as a user is to see it. `sql` is the text that was planned; a position counts within it.
pub fn from_datafusion(error: DataFusionError, sql: &str) -> SqlError {
    let span = error.diagnostic().and_then(|diagnostic| diagnostic.span);
    let mut answer = classify(&error);
    if answer.position.is_none()
        && let Some(span) = span
        && !sql.is_empty()
    {
        answer.position = Some(Positions::new(sql).character_at(span.start.line, span.start.column));
    }
    answer
}

fn classify(error: &DataFusionError) -> SqlError {
    match error {
        DataFusionError::Context(_, inner) | DataFusionError::Diagnostic(_, inner) => classify(inner),
        DataFusionError::Shared(inner) => classify(inner),
        DataFusionError::Collection(errors) => match errors.first() {
            Some(first) => classify(first),
            None => SqlError::internal("an empty list of errors"),
        },
        DataFusionError::External(inner) => {
            if let Some(ours) = inner.downcast_ref::<SqlError>() {
                ours.clone()
            } else if let Some(inner) = inner.downcast_ref::<DataFusionError>() {
                classify(inner)
            } else if let Some(inner) = inner.downcast_ref::<ArrowError>() {
                from_arrow(inner)
            } else {
                from_text(&inner.to_string(), SqlState::InternalError)
            }
        }
        DataFusionError::ArrowError(inner, _) => from_arrow(inner),
        DataFusionError::SchemaError(inner, _) => from_schema(inner),
        DataFusionError::NotImplemented(text) => from_text(text, SqlState::FeatureNotSupported),
        DataFusionError::Plan(text) => from_text(text, SqlState::InvalidDefinition),
        DataFusionError::Execution(text) => from_text(text, SqlState::InvalidParameterValue),
        DataFusionError::Configuration(text) => from_text(text, SqlState::InvalidParameterValue),
        DataFusionError::ResourcesExhausted(text) => SqlError::new(SqlState::OutOfMemory, "out of memory")
            .with_detail(tidy(text).0)
            .with_hint("raise --memory, or let the query keep less: fewer groups, a LIMIT, a filter"),
        DataFusionError::SQL(inner, _) => SqlError::new(SqlState::SyntaxError, tidy(&inner.to_string()).0),
        DataFusionError::IoError(inner) => SqlError::new(SqlState::IoError, inner.to_string()),
        DataFusionError::ExecutionJoin(inner) if inner.is_cancelled() => {
            SqlError::new(SqlState::QueryCanceled, "canceling statement due to user request")
        }
        DataFusionError::Internal(text) => from_text(text, SqlState::InternalError),
        other => from_text(&other.strip_backtrace(), SqlState::InternalError),
    }
}

fn from_schema(error: &SchemaError) -> SqlError {
    match error {
        SchemaError::FieldNotFound { field, valid_fields } => {
            let error =
                SqlError::new(SqlState::UndefinedColumn, format!("column {} does not exist", quoted(field)));
            // A column of the same name in another relation helps more than a similar one here.
            let same_name =
                valid_fields.iter().find(|known| field.relation.is_some() && known.name == field.name);
            let near = || suggest::closest(&field.name, valid_fields.iter().map(|known| known.name.as_str()));
            match (same_name, near()) {
                (Some(known), _) => error.with_hint(suggest::did_you_mean(&known.flat_name())),
                (None, Some(near)) => error.with_hint(suggest::did_you_mean(near)),
                (None, None) => error,
            }
        }
        SchemaError::AmbiguousReference { field } => SqlError::new(
            SqlState::AmbiguousColumn,
            format!("column reference {} is ambiguous", quoted(field)),
        )
        .with_hint("put the table's name or alias before it"),
        SchemaError::DuplicateQualifiedField { qualifier, name } => SqlError::new(
            SqlState::DuplicateColumn,
            format!("column \"{name}\" of \"{qualifier}\" appears more than once"),
        )
        .with_hint("give one of the relations or columns another name with AS"),
        SchemaError::DuplicateUnqualifiedField { name } => {
            SqlError::new(SqlState::DuplicateColumn, format!("column \"{name}\" appears more than once"))
                .with_hint("give one of them another name with AS")
        }
    }
}

/// `"t.a"`, without the database and schema.
fn quoted(column: &Column) -> String {
    match &column.relation {
        Some(relation) => format!("\"{}.{}\"", relation.table(), column.name),
        None => format!("\"{}\"", column.name),
    }
}

fn from_arrow(error: &ArrowError) -> SqlError {
    match error {
        ArrowError::DivideByZero => SqlError::new(SqlState::DivisionByZero, "division by zero"),
        ArrowError::ArithmeticOverflow(text) => {
            SqlError::new(SqlState::NumericValueOutOfRange, "value out of range").with_detail(tidy(text).0)
        }
        ArrowError::CastError(text) | ArrowError::ParseError(text) => {
            from_text(text, SqlState::InvalidTextRepresentation)
        }
        ArrowError::InvalidArgumentError(text) | ArrowError::ComputeError(text) => {
            from_text(text, SqlState::InvalidParameterValue)
        }
        ArrowError::NotYetImplemented(text) => from_text(text, SqlState::FeatureNotSupported),
        ArrowError::ExternalError(inner) => match inner.downcast_ref::<DataFusionError>() {
            Some(inner) => classify(inner),
            None => from_text(&inner.to_string(), SqlState::InternalError),
        },
        ArrowError::MemoryError(text) => {
            SqlError::new(SqlState::OutOfMemory, "out of memory").with_detail(tidy(text).0)
        }
        other => from_text(&other.to_string(), SqlState::InternalError),
    }
}

/// Tells the kind of an error from its text, with a fallback.
fn from_text(text: &str, fallback: SqlState) -> SqlError {
    let first_line = text.lines().next().unwrap_or_default();
    if let Some(name) = between(first_line, "table '", "' not found") {
        let name = name.rsplit('.').next().unwrap_or(name);
        return SqlError::new(SqlState::UndefinedTable, format!("relation \"{name}\" does not exist"));
    }
    if let Some(name) = between(first_line, "Invalid function '", "'")
        .or_else(|| between(first_line, "table function '", "' not found"))
        .or_else(|| between(first_line, "Table function '", "' not found"))
    {
        // DataFusion suggests something for every name, however far; the planner adds a hint of ours.
        return SqlError::new(SqlState::UndefinedFunction, format!("function {name} does not exist"));
    }
    if let Some(call) = between(text, "No function matches the given name and argument types '", "'") {
        return SqlError::new(
            SqlState::UndefinedFunction,
            format!("function {} does not exist", sql_types(call)),
        )
        .with_hint("no function of that name takes these types; add a cast");
    }
    if text.contains("to satisfy a call to '") || text.contains("failed to match any signature") {
        let name = between(text, "to satisfy a call to '", "'").or_else(|| between(text, "Function '", "'"));
        let message = match name {
            Some(name) => format!("function {name} does not take arguments of these types"),
            None => "function does not take arguments of these types".to_string(),
        };
        return SqlError::new(SqlState::UndefinedFunction, message).with_detail(tidy(first_line).0);
    }
    let lower = text.to_lowercase();
    let has = |words: &[&str]| words.iter().any(|word| lower.contains(word));
    let state = if has(&["divide by zero", "division by zero"]) {
        return SqlError::new(SqlState::DivisionByZero, "division by zero");
    } else if has(&[
        "must be in group by",
        "must appear in the group by",
        "cannot be referenced in the select",
    ]) {
        SqlState::GroupingError
    } else if has(&["unique expression names"]) {
        return SqlError::new(SqlState::DuplicateColumn, "two columns of the result have the same name")
            .with_detail(tidy(first_line).0)
            .with_hint("give one of them another name with AS");
    } else if has(&[
        "cannot coerce",
        "cannot infer common",
        "type mismatch",
        "not comparable",
        "to common type",
        "cannot automatically convert",
        "unsupported cast",
        "incompatible",
        "is not a boolean",
        "cannot create filter with non-boolean",
        "casting from",
    ]) {
        SqlState::DatatypeMismatch
    } else if has(&["overflow", "out of range", "too large to store", "can't cast value"]) {
        SqlState::NumericValueOutOfRange
    } else if has(&["cannot cast string", "cannot cast value", "error parsing", "invalid input syntax"]) {
        SqlState::InvalidTextRepresentation
    } else if has(&["resources exhausted", "failed to allocate additional"]) {
        SqlState::OutOfMemory
    } else if has(&["not supported", "unsupported", "not implemented", "not yet implemented"]) {
        SqlState::FeatureNotSupported
    } else {
        fallback
    };
    let (message, hint) = tidy(text);
    let error = SqlError::new(state, message);
    match hint {
        Some(hint) => error.with_hint(hint),
        None => error,
    }
}

/// One plain line out of DataFusion's text, and the hint that it may contain.
fn tidy(text: &str) -> (String, Option<String>) {
    let text = text.split("\n\nbacktrace").next().unwrap_or_default();
    let mut hint = None;
    let mut message = String::new();
    for line in text.lines().map(str::trim) {
        if let Some(near) = between(line, "Did you mean '", "'") {
            hint = Some(suggest::did_you_mean(near));
        } else if line.starts_with("This issue was likely caused by a bug") {
            break;
        } else if message.is_empty() {
            message = line.to_string();
        }
    }
    for prefix in PREFIXES {
        while let Some(rest) = message.strip_prefix(prefix) {
            message = rest.trim_start().to_string();
        }
    }
    // A Rust value printed in full helps nobody.
    if let Some(dump) = message.find(" { ") {
        message.truncate(dump);
    }
    let message = message.trim_end_matches(['.', ' ', ':']);
    let lowered = crate::parser::lower_first(&sql_types(message));
    (if lowered.is_empty() { "the query failed".to_string() } else { lowered }, hint)
}

const PREFIXES: [&str; 14] = [
    "Error during planning:",
    "This feature is not implemented:",
    "Execution error:",
    "Arrow error:",
    "Optimizer rule 'simplify_expressions' failed",
    "type_coercion",
    "caused by",
    "External error:",
    "Internal error:",
    "Schema error:",
    "Cast error:",
    "Parser error:",
    "Invalid argument error:",
    "Compute error:",
];

fn between<'a>(text: &'a str, before: &str, after: &str) -> Option<&'a str> {
    let start = text.find(before)? + before.len();
    let length = text[start..].find(after)?;
    Some(&text[start..start + length])
}

/// Arrow's type names as PostgreSQL's.
fn sql_types(text: &str) -> String {
    const NAMES: [(&str, &str); 18] = [
        ("Timestamp(Microsecond, Some(\"UTC\"))", "timestamp with time zone"),
        ("Timestamp(µs, \"UTC\")", "timestamp with time zone"),
        ("Timestamp(ns, \"UTC\")", "timestamp with time zone"),
        ("Timestamp(Microsecond, None)", "timestamp"),
        ("Timestamp(µs)", "timestamp"),
        ("Timestamp(ns)", "timestamp"),
        ("Interval(MonthDayNano)", "interval"),
        ("Decimal128(", "numeric("),
        ("Utf8View", "text"),
        ("LargeUtf8", "text"),
        ("Utf8", "text"),
        ("Int64", "bigint"),
        ("Int32", "integer"),
        ("Int16", "smallint"),
        ("Float64", "double precision"),
        ("Float32", "real"),
        ("Boolean", "boolean"),
        ("Date32", "date"),
    ];
    NAMES.iter().fold(text.to_string(), |text, (arrow, sql)| text.replace(arrow, sql))
}

//! Checks of a table's expressions: generated columns, DEFAULT and CHECK.

use arrow::datatypes::{DataType, Field, Schema};
use datafusion::common::DFSchema;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::execution::SessionState;
use datafusion::logical_expr::{Expr, ExprSchemable};

use super::{bind_expr, from_datafusion};
use crate::catalog::TableDef;
use crate::{Result, SqlError, SqlState, types};

/// Binds the expressions of a parsed table and finds the types of generated columns that were
/// declared without one.
///
/// Positions of its errors count within the expression, not the statement, so they are left out.
///
/// # Errors
///
/// Unknown columns and functions, generated columns built on generated ones, and values that can't
/// become the column's type.
pub fn bind_table(state: &SessionState, table: &TableDef) -> Result<TableDef> {
    let mut table = table.clone();
    let name = table.name.clone();
    let sent = schema_of(&table, |column| table.columns[column].generated.is_none())?;
    for number in 0..table.columns.len() {
        let column = &table.columns[number];
        let label = format!("column \"{}\" of table \"{name}\"", column.name);
        if let Some(text) = &column.generated {
            let expr = bind(state, text, &sent, &format!("generated {label}"))?;
            refuse_subqueries(&expr, &label)?;
            let found = type_of(state, &expr, &sent, &label)?;
            if column.data_type == DataType::Null {
                table.columns[number].sql_type = types::name_of(&found);
                table.columns[number].data_type = normal(&found);
            } else {
                check_cast(&found, &column.data_type, &label)?;
            }
        } else if let Some(text) = &column.default {
            let nothing = DFSchema::empty();
            let expr = bind(state, text, &nothing, &format!("DEFAULT of {label}"))?;
            let found = type_of(state, &expr, &nothing, &label)?;
            check_cast(&found, &column.data_type, &label)?;
        }
    }
    if let Some(watermark) = &table.watermark {
        let column = &table.columns[watermark.column];
        if !matches!(column.data_type, DataType::Timestamp(_, _)) {
            return Err(SqlError::new(
                SqlState::DatatypeMismatch,
                format!("watermark column \"{}\" has type {}", column.name, column.sql_type),
            )
            .with_hint("a watermark needs a TIMESTAMP or TIMESTAMPTZ column"));
        }
    }
    let stored = schema_of(&table, |_| true)?;
    for check in &table.checks {
        let label = format!("CHECK \"{}\" of table \"{name}\"", check.name);
        let expr = bind(state, &check.condition, &stored, &label)?;
        refuse_subqueries(&expr, &label)?;
        let found = type_of(state, &expr, &stored, &label)?;
        if !matches!(found, DataType::Boolean | DataType::Null) {
            return Err(SqlError::new(
                SqlState::DatatypeMismatch,
                format!("{label} has type {}, not boolean", types::name_of(&found)),
            ));
        }
    }
    Ok(table)
}

fn schema_of(table: &TableDef, keep: impl Fn(usize) -> bool) -> Result<DFSchema> {
    let fields: Vec<Field> = table
        .columns
        .iter()
        .enumerate()
        .filter(|(number, _)| keep(*number))
        .map(|(_, column)| Field::new(&column.name, column.data_type.clone(), true))
        .collect();
    DFSchema::try_from_qualified_schema(table.name.as_str(), &Schema::new(fields))
        .map_err(|error| from_datafusion(error, ""))
}

fn bind(state: &SessionState, text: &str, schema: &DFSchema, label: &str) -> Result<Expr> {
    bind_expr(state, text, schema).map_err(|error| without_position(error, label))
}

fn without_position(error: SqlError, label: &str) -> SqlError {
    SqlError { message: format!("{label}: {}", error.message), position: None, ..error }
}

/// The type after coercion, as the expression will be evaluated.
fn type_of(state: &SessionState, expr: &Expr, schema: &DFSchema, label: &str) -> Result<DataType> {
    let found = || -> datafusion::common::Result<DataType> {
        state.create_physical_expr(expr.clone(), schema)?;
        expr.get_type(schema)
    };
    found().map_err(|error| without_position(from_datafusion(error, ""), label))
}

fn check_cast(from: &DataType, to: &DataType, label: &str) -> Result<()> {
    match from == to || arrow::compute::can_cast_types(from, to) {
        true => Ok(()),
        false => Err(SqlError::new(
            SqlState::DatatypeMismatch,
            format!(
                "{label} has type {} but its expression has type {}",
                types::name_of(to),
                types::name_of(from)
            ),
        )),
    }
}

fn refuse_subqueries(expr: &Expr, label: &str) -> Result<()> {
    let mut found = false;
    let visited = expr.apply(|expr| {
        found |= matches!(expr, Expr::ScalarSubquery(_) | Expr::InSubquery(_) | Expr::Exists(_));
        Ok(if found { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    });
    visited.map_err(|error| from_datafusion(error, ""))?;
    match found {
        true => Err(SqlError::unsupported(format!("a subquery in {label} is not supported"))),
        false => Ok(()),
    }
}

/// The stored form of a computed type.
fn normal(data_type: &DataType) -> DataType {
    match data_type {
        DataType::Utf8View | DataType::LargeUtf8 => DataType::Utf8,
        DataType::BinaryView | DataType::LargeBinary => DataType::Binary,
        DataType::Timestamp(_, zone) => {
            DataType::Timestamp(arrow::datatypes::TimeUnit::Microsecond, zone.clone())
        }
        other => other.clone(),
    }
}

//! `SELECT columns FROM relation WHERE key = $1`: answered from the store, without planning and without a scan.
//!
//! The bound plan is recognized once; the next statement with the same text and catalog is a lookup of the text, a
//! lookup of the key, and the decoding of one row.
//!
//! Rule: what is recognized has at most one row, so ORDER BY and LIMIT above it change nothing.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::datasource::source_as_provider;
use datafusion::logical_expr::expr::{BinaryExpr, Placeholder};
use datafusion::logical_expr::utils::split_conjunction;
use datafusion::logical_expr::{Expr, Filter, LogicalPlan, Operator};
use datafusion::scalar::ScalarValue;
use parking_lot::Mutex;
use sql::{Catalog, RelationId, SqlError, SqlState};

use crate::key_read::{key_batch, key_value};
use crate::provider::RelationTable;
use crate::published::Published;
use crate::row_codec::batch_of;

/// A read of at most one row, ready to be run with parameters.
#[derive(Debug)]
pub struct PointRead {
    relation: RelationId,
    key: Vec<usize>,
    /// Of the key's columns.
    key_schema: SchemaRef,
    /// One per column of the key.
    values: Vec<Value>,
    projection: Vec<usize>,
    schema: SchemaRef,
    parameters: usize,
}

#[derive(Debug)]
enum Value {
    Literal(ScalarValue),
    /// Number of the parameter, from 0.
    Parameter(usize),
}

impl PointRead {
    /// The bound plan as a read by key, if it is one. `schema` is what clients were told of its columns.
    pub fn of_plan(plan: &LogicalPlan, schema: SchemaRef) -> Option<PointRead> {
        let (projection, filter) = columns_over_filter(plan)?;
        let provider = scanned(&filter.input)?;
        let table: &RelationTable = (provider.as_ref() as &dyn std::any::Any).downcast_ref()?;
        let key = table.key()?.to_vec();
        let input = filter.input.schema();
        let mut values: Vec<Option<Value>> = key.iter().map(|_| None).collect();
        let mut parameters = 0;
        for condition in split_conjunction(&filter.predicate) {
            let Expr::BinaryExpr(BinaryExpr { left, op: Operator::Eq, right }) = condition else {
                return None;
            };
            let (column, value) = match (left.as_ref(), right.as_ref()) {
                (Expr::Column(column), value) | (value, Expr::Column(column)) => (column, value),
                _ => return None,
            };
            let index = input.index_of_column(column).ok()?;
            let place = key.iter().position(|column| *column == index)?;
            let data_type = input.field(index).data_type();
            let value = match value {
                Expr::Literal(value, _) => Value::Literal(key_value(value, data_type)?),
                Expr::Placeholder(Placeholder { id, field: Some(field) })
                    if field.data_type() == data_type =>
                {
                    let number: usize = id.strip_prefix('$')?.parse().ok()?;
                    parameters = parameters.max(number);
                    // Excludes the types whose equal values may have different bytes.
                    key_value(&ScalarValue::new_default(data_type).ok()?, data_type)?;
                    Value::Parameter(number.checked_sub(1)?)
                }
                _ => return None,
            };
            // A column that is compared twice is not only looked up.
            if values[place].replace(value).is_some() {
                return None;
            }
        }
        let values = values.into_iter().collect::<Option<Vec<_>>>()?;
        let key_schema = table.rows_schema().project(&key).ok()?.into();
        Some(PointRead { relation: table.id(), key, key_schema, values, projection, schema, parameters })
    }

    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    pub fn has_parameters(&self) -> bool {
        self.parameters > 0
    }

    /// The row, or none; `None` when the relation's rows can't be found by this key after all.
    ///
    /// # Errors
    /// Too few parameters, or values that are not of the key's types.
    pub fn run(
        &self,
        published: &Published,
        parameters: &[ScalarValue],
    ) -> Result<Option<Vec<RecordBatch>>, SqlError> {
        if parameters.len() < self.parameters {
            return Err(SqlError::new(
                SqlState::ProtocolViolation,
                format!("the statement has {} parameters, {} were given", self.parameters, parameters.len()),
            ));
        }
        let mut key = Vec::with_capacity(self.values.len());
        for (value, field) in self.values.iter().zip(self.key_schema.fields()) {
            let value = match value {
                Value::Literal(value) => value.clone(),
                Value::Parameter(number) => as_type(&parameters[*number], *number, field)?,
            };
            if value.is_null() {
                return Ok(Some(Vec::new()));
            }
            key.push(value);
        }
        let internal = |e: dataflow::Error| SqlError::internal(e.to_string());
        let key = key_batch(&self.key_schema, &key).map_err(internal)?;
        let Some(found) = published.find(self.relation, &self.key, &key) else { return Ok(None) };
        let Some(row) = found.map_err(internal)? else { return Ok(Some(Vec::new())) };
        let columns = self.projection.iter().map(|column| Arc::clone(row.column(*column))).collect();
        Ok(Some(vec![batch_of(&self.schema, columns, row.num_rows()).map_err(internal)?]))
    }
}

fn as_type(
    value: &ScalarValue,
    number: usize,
    field: &arrow::datatypes::Field,
) -> Result<ScalarValue, SqlError> {
    if value.data_type() == *field.data_type() {
        return Ok(value.clone());
    }
    value.cast_to(field.data_type()).map_err(|_| {
        let name = sql::types::field_type_name(field);
        SqlError::new(
            SqlState::InvalidTextRepresentation,
            format!("parameter ${} is not a value of type {name}", number + 1),
        )
    })
}

/// The filter at the bottom, and which of the relation's columns come out on top.
fn columns_over_filter(plan: &LogicalPlan) -> Option<(Vec<usize>, &Filter)> {
    let constant = |expr: &Expr| match expr {
        Expr::Literal(value, _) => value.to_string().parse::<i64>().ok(),
        _ => None,
    };
    match plan {
        LogicalPlan::Filter(filter) => Some(((0..filter.input.schema().fields().len()).collect(), filter)),
        LogicalPlan::Projection(projection) => {
            let (below, filter) = columns_over_filter(&projection.input)?;
            let input = projection.input.schema();
            let columns = projection.expr.iter().map(|expr| match expr.clone().unalias() {
                Expr::Column(column) => Some(below[input.index_of_column(&column).ok()?]),
                _ => None,
            });
            Some((columns.collect::<Option<_>>()?, filter))
        }
        LogicalPlan::Sort(sort) if sort.fetch.is_none_or(|rows| rows > 0) => columns_over_filter(&sort.input),
        LogicalPlan::Limit(limit)
            if limit.skip.as_deref().is_none_or(|skip| constant(skip) == Some(0))
                && limit.fetch.as_deref().is_none_or(|rows| constant(rows).is_some_and(|n| n > 0)) =>
        {
            columns_over_filter(&limit.input)
        }
        LogicalPlan::SubqueryAlias(alias) => columns_over_filter(&alias.input),
        _ => None,
    }
}

/// What is scanned whole, under any name.
fn scanned(plan: &LogicalPlan) -> Option<Arc<dyn datafusion::catalog::TableProvider>> {
    match plan {
        LogicalPlan::SubqueryAlias(alias) => scanned(&alias.input),
        LogicalPlan::TableScan(scan)
            if scan.filters.is_empty() && scan.fetch.is_none() && scan.projection.is_none() =>
        {
            source_as_provider(&scan.source).ok()
        }
        _ => None,
    }
}

/// Recognized statements by their text, for as long as the catalog stays.
#[derive(Default)]
pub struct PointReads {
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    catalog: Option<Arc<Catalog>>,
    by_text: HashMap<String, Arc<PointRead>>,
}

/// Texts that are remembered; an application has a few hundred at most.
const STATEMENTS_MAX: usize = 1_024;
/// Longer statements are not worth remembering.
const TEXT_BYTES_MAX: usize = 4_096;

impl PointReads {
    pub fn get(&self, text: &str, catalog: &Arc<Catalog>) -> Option<Arc<PointRead>> {
        let known = self.known.lock();
        known.catalog.as_ref().filter(|of| Arc::ptr_eq(of, catalog))?;
        known.by_text.get(text).cloned()
    }

    pub fn remember(&self, text: &str, catalog: &Arc<Catalog>, read: Arc<PointRead>) {
        if text.len() > TEXT_BYTES_MAX {
            return;
        }
        let mut known = self.known.lock();
        let same = known.catalog.as_ref().is_some_and(|of| Arc::ptr_eq(of, catalog));
        if !same || known.by_text.len() >= STATEMENTS_MAX {
            known.by_text.clear();
            known.catalog = Some(Arc::clone(catalog));
        }
        known.by_text.insert(text.to_string(), read);
    }
}

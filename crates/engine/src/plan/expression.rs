//! Filter and projection over batches, with errors that cost one row and not the view.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, RecordBatch, new_null_array};
use arrow::compute::concat;
use arrow::datatypes::{DataType, SchemaRef};
use dataflow::StepContext;
use datafusion::common::DFSchema;
use datafusion::logical_expr::execution_props::ExecutionProps;
use datafusion::logical_expr::{ColumnarValue, Expr};
use datafusion::physical_expr::{PhysicalExpr, create_physical_expr};
use sql::SqlError;

/// Filter, then projection.
pub struct MapSpec {
    pub filter: Option<Arc<dyn PhysicalExpr>>,
    /// `None`: all columns as they are.
    pub projection: Option<Vec<Arc<dyn PhysicalExpr>>>,
    pub output: SchemaRef,
}

/// Binds a logical expression to the columns of `schema`; integer overflow is an error there, not a wrap.
pub fn physical(expression: &Expr, schema: &DFSchema) -> Result<Arc<dyn PhysicalExpr>, SqlError> {
    let bound = create_physical_expr(expression, schema, &ExecutionProps::new(), &Default::default())
        .map_err(|e| sql::planner::from_datafusion(e, ""))?;
    Ok(sql::planner::checked_physical_expr(bound))
}

/// The expression's value for every row. Where it fails for some rows (bad cast, division by zero, overflow)
/// those rows get NULL and are reported; the others keep their values.
pub fn evaluate_or_null(
    expression: &dyn PhysicalExpr,
    data_type: &DataType,
    batch: &RecordBatch,
    ctx: &mut StepContext,
) -> dataflow::Result<ArrayRef> {
    match evaluate(expression, batch) {
        Ok(array) => Ok(array),
        Err(_) if batch.num_rows() > 1 => {
            // Halving finds the failing rows in O(failures * log n) evaluations.
            let half = batch.num_rows() / 2;
            let left = evaluate_or_null(expression, data_type, &batch.slice(0, half), ctx)?;
            let right =
                evaluate_or_null(expression, data_type, &batch.slice(half, batch.num_rows() - half), ctx)?;
            Ok(concat(&[left.as_ref(), right.as_ref()])?)
        }
        Err(error) => {
            ctx.report_error(|| {
                let message = sql::planner::from_datafusion(error, "").message;
                format!("{message} in {expression}")
            });
            Ok(new_null_array(data_type, batch.num_rows()))
        }
    }
}

fn evaluate(expression: &dyn PhysicalExpr, batch: &RecordBatch) -> datafusion::common::Result<ArrayRef> {
    match expression.evaluate(batch)? {
        ColumnarValue::Array(array) => Ok(array),
        ColumnarValue::Scalar(scalar) => scalar.to_array_of_size(batch.num_rows()),
    }
}

impl MapSpec {
    /// Rows that pass the filter, as a mask; `None` without a filter.
    pub fn mask(&self, batch: &RecordBatch, ctx: &mut StepContext) -> dataflow::Result<Option<BooleanArray>> {
        let Some(filter) = &self.filter else { return Ok(None) };
        let values = evaluate_or_null(filter.as_ref(), &DataType::Boolean, batch, ctx)?;
        let mask = values
            .as_any()
            .downcast_ref::<BooleanArray>()
            .ok_or_else(|| dataflow::Error::Operator("a filter is boolean".into()))?;
        Ok(Some(mask.clone()))
    }

    pub fn project(&self, batch: &RecordBatch, ctx: &mut StepContext) -> dataflow::Result<RecordBatch> {
        let Some(projection) = &self.projection else {
            return Ok(batch.clone().with_schema(Arc::clone(&self.output))?);
        };
        let mut columns = Vec::with_capacity(projection.len());
        for (expression, field) in projection.iter().zip(self.output.fields()) {
            columns.push(evaluate_or_null(expression.as_ref(), field.data_type(), batch, ctx)?);
        }
        let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        Ok(RecordBatch::try_new_with_options(Arc::clone(&self.output), columns, &options)?)
    }
}

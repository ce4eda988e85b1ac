//! Batch execution of a window table function.

use std::fmt;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, RecordBatch, TimestampMicrosecondArray, UInt32Array};
use arrow::compute::{cast, take_record_batch};
use arrow::datatypes::{DataType, SchemaRef, TimeUnit, TimestampMicrosecondType};
use async_trait::async_trait;
use datafusion::catalog::Session;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{Result, internal_err};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::{LogicalPlan, UserDefinedLogicalNode};
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties, Partitioning, PlanProperties,
};
use datafusion::physical_planner::{ExtensionPlanner, PhysicalPlanner};
use futures::StreamExt;

use super::{WindowKind, WindowTvf};

/// Plans [`WindowTvf`] for batch execution.
#[derive(Debug)]
pub struct WindowTvfPlanner;

#[async_trait]
impl ExtensionPlanner for WindowTvfPlanner {
    async fn plan_extension(
        &self,
        _planner: &dyn PhysicalPlanner,
        node: &dyn UserDefinedLogicalNode,
        _logical_inputs: &[&LogicalPlan],
        physical_inputs: &[Arc<dyn ExecutionPlan>],
        _session: &dyn Session,
        _planning_ctx: &PhysicalPlanningContext,
    ) -> Result<Option<Arc<dyn ExecutionPlan>>> {
        let Some(window) = node.as_any().downcast_ref::<WindowTvf>() else { return Ok(None) };
        let [input] = physical_inputs else {
            return internal_err!("{} takes one input, got {}", window.kind.name(), physical_inputs.len());
        };
        let schema = Arc::clone(super::UserDefinedLogicalNodeCore::schema(window).inner());
        Ok(Some(Arc::new(WindowTvfExec::new(Arc::clone(input), window.kind, window.time_index(), schema))))
    }
}

/// Gives every input row its windows. Output batches are about as large as the session's batch size,
/// however many windows a row has.
#[derive(Clone, Debug)]
pub struct WindowTvfExec {
    input: Arc<dyn ExecutionPlan>,
    kind: WindowKind,
    time_index: usize,
    schema: SchemaRef,
    properties: Arc<PlanProperties>,
}

impl WindowTvfExec {
    pub fn new(
        input: Arc<dyn ExecutionPlan>,
        kind: WindowKind,
        time_index: usize,
        schema: SchemaRef,
    ) -> WindowTvfExec {
        let properties = PlanProperties::new(
            EquivalenceProperties::new(Arc::clone(&schema)),
            Partitioning::UnknownPartitioning(input.output_partitioning().partition_count()),
            input.pipeline_behavior(),
            input.boundedness(),
        );
        WindowTvfExec { input, kind, time_index, schema, properties: Arc::new(properties) }
    }
}

impl DisplayAs for WindowTvfExec {
    fn fmt_as(&self, _t: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WindowTvfExec: {} time=@{}", self.kind, self.time_index)
    }
}

impl ExecutionPlan for WindowTvfExec {
    fn name(&self) -> &str {
        "WindowTvfExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn apply_expressions(
        &self,
        _f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn with_new_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let [input] = children.as_slice() else {
            return internal_err!("WindowTvfExec takes one input, got {}", children.len());
        };
        let schema = Arc::clone(&self.schema);
        Ok(Arc::new(WindowTvfExec::new(Arc::clone(input), self.kind, self.time_index, schema)))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let rows_max = (context.session_config().batch_size() / self.kind.windows_per_row()).max(1);
        let (kind, time_index, schema) = (self.kind, self.time_index, Arc::clone(&self.schema));
        let input = self.input.execute(partition, context)?;
        let output = input.flat_map(move |batch| {
            let schema = Arc::clone(&schema);
            let (batches, error) = match batch {
                Ok(batch) => (slices(batch, rows_max), None),
                Err(error) => {
                    (slices(RecordBatch::new_empty(Arc::clone(&schema)), rows_max), Some(Err(error)))
                }
            };
            let windowed = batches.map(move |batch| with_windows(&batch, kind, time_index, &schema));
            futures::stream::iter(windowed.chain(error))
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.schema), output)))
    }
}

fn slices(batch: RecordBatch, rows_max: usize) -> impl Iterator<Item = RecordBatch> {
    (0..batch.num_rows())
        .step_by(rows_max)
        .map(move |start| batch.slice(start, rows_max.min(batch.num_rows() - start)))
}

/// The batch with one row for each window of each row.
fn with_windows(
    batch: &RecordBatch,
    kind: WindowKind,
    time_index: usize,
    schema: &SchemaRef,
) -> Result<RecordBatch> {
    let time_type = batch.column(time_index).data_type();
    let zone = match time_type {
        DataType::Timestamp(_, zone) => zone.clone(),
        other => return internal_err!("time column of a window has type {other}"),
    };
    let micros = cast(batch.column(time_index), &DataType::Timestamp(TimeUnit::Microsecond, zone.clone()))?;
    let micros = micros.as_primitive::<TimestampMicrosecondType>();

    let capacity = batch.num_rows() * kind.windows_per_row();
    let mut rows = Vec::with_capacity(capacity);
    let mut starts = Vec::with_capacity(capacity);
    let mut ends = Vec::with_capacity(capacity);
    for (row, time) in micros.iter().enumerate() {
        let Some(time) = time else { continue };
        for (start, end) in kind.windows(time) {
            rows.push(row as u32);
            starts.push(start);
            ends.push(end);
        }
    }
    let taken = match rows.len() == batch.num_rows() && kind.windows_per_row() == 1 {
        true => batch.clone(),
        false => take_record_batch(batch, &UInt32Array::from(rows))?,
    };
    let bound = |values: Vec<i64>| -> Result<ArrayRef> {
        let array = TimestampMicrosecondArray::from(values).with_timezone_opt(zone.clone());
        Ok(cast(&array, time_type)?)
    };
    let mut columns = taken.columns().to_vec();
    columns.push(bound(starts)?);
    columns.push(bound(ends)?);
    Ok(RecordBatch::try_new(Arc::clone(schema), columns)?)
}

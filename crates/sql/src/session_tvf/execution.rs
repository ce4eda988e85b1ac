//! Batch execution of SESSION: over sorted rows, one pass that holds back the rows of the open session.

use std::fmt;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch, TimestampMicrosecondArray};
use arrow::compute::{SortOptions, cast, concat_batches, filter_record_batch};
use arrow::datatypes::{DataType, SchemaRef, TimeUnit, TimestampMicrosecondType};
use arrow::row::{OwnedRow, RowConverter, SortField};
use async_trait::async_trait;
use datafusion::catalog::Session;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{Result, internal_err};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::{LogicalPlan, UserDefinedLogicalNode};
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr::{
    EquivalenceProperties, LexRequirement, OrderingRequirements, PhysicalExpr, PhysicalSortRequirement,
};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, Distribution, ExecutionPlan, ExecutionPlanProperties, Partitioning,
    PlanProperties,
};
use datafusion::physical_planner::{ExtensionPlanner, PhysicalPlanner};
use futures::StreamExt;

use super::SessionTvf;

/// Plans [`SessionTvf`] for batch execution.
#[derive(Debug)]
pub struct SessionTvfPlanner;

#[async_trait]
impl ExtensionPlanner for SessionTvfPlanner {
    async fn plan_extension(
        &self,
        _planner: &dyn PhysicalPlanner,
        node: &dyn UserDefinedLogicalNode,
        _logical_inputs: &[&LogicalPlan],
        physical_inputs: &[Arc<dyn ExecutionPlan>],
        _session: &dyn Session,
        _planning_ctx: &PhysicalPlanningContext,
    ) -> Result<Option<Arc<dyn ExecutionPlan>>> {
        let Some(session) = node.as_any().downcast_ref::<SessionTvf>() else { return Ok(None) };
        let [input] = physical_inputs else {
            return internal_err!("SESSION takes one input, got {}", physical_inputs.len());
        };
        let schema = Arc::clone(super::UserDefinedLogicalNodeCore::schema(session).inner());
        let shape = Shape { keys: session.key_indices(), time: session.time_index(), gap_us: session.gap_us };
        Ok(Some(Arc::new(SessionTvfExec::new(Arc::clone(input), shape, schema))))
    }
}

/// What makes a session, by numbers of input columns.
#[derive(Clone, Debug)]
pub struct Shape {
    keys: Vec<usize>,
    time: usize,
    gap_us: i64,
}

/// Gives every input row the bounds of its session.
#[derive(Clone, Debug)]
pub struct SessionTvfExec {
    input: Arc<dyn ExecutionPlan>,
    shape: Shape,
    schema: SchemaRef,
    properties: Arc<PlanProperties>,
}

impl SessionTvfExec {
    pub fn new(input: Arc<dyn ExecutionPlan>, shape: Shape, schema: SchemaRef) -> SessionTvfExec {
        let properties = PlanProperties::new(
            EquivalenceProperties::new(Arc::clone(&schema)),
            Partitioning::UnknownPartitioning(input.output_partitioning().partition_count()),
            input.pipeline_behavior(),
            input.boundedness(),
        );
        SessionTvfExec { input, shape, schema, properties: Arc::new(properties) }
    }

    fn column(&self, index: usize) -> Arc<dyn PhysicalExpr> {
        Arc::new(Column::new(self.input.schema().field(index).name(), index))
    }
}

impl DisplayAs for SessionTvfExec {
    fn fmt_as(&self, _t: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Shape { keys, time, gap_us } = &self.shape;
        write!(f, "SessionTvfExec: keys={keys:?} time=@{time} gap={gap_us} us")
    }
}

impl ExecutionPlan for SessionTvfExec {
    fn name(&self) -> &str {
        "SessionTvfExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn required_input_distribution(&self) -> Vec<Distribution> {
        let keys: Vec<_> = self.shape.keys.iter().map(|key| self.column(*key)).collect();
        vec![if keys.is_empty() { Distribution::SinglePartition } else { Distribution::KeyPartitioned(keys) }]
    }

    fn required_input_ordering(&self) -> Vec<Option<OrderingRequirements>> {
        let columns = self.shape.keys.iter().chain([&self.shape.time]);
        let requirements = columns
            .map(|column| PhysicalSortRequirement::new(self.column(*column), Some(SortOptions::default())));
        vec![LexRequirement::new(requirements).map(OrderingRequirements::new)]
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
            return internal_err!("SessionTvfExec takes one input, got {}", children.len());
        };
        let schema = Arc::clone(&self.schema);
        Ok(Arc::new(SessionTvfExec::new(Arc::clone(input), self.shape.clone(), schema)))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let input = self.input.execute(partition, context)?;
        let sessions = Sessions::new(self.shape.clone(), &self.input.schema(), Arc::clone(&self.schema))?;
        let output =
            futures::stream::try_unfold((input, Some(sessions)), |(mut input, mut sessions)| async move {
                while let Some(open) = &mut sessions {
                    let output = match input.next().await {
                        Some(batch) => open.push(&batch?)?,
                        None => {
                            let output = open.finish()?;
                            sessions = None;
                            output
                        }
                    };
                    if output.num_rows() > 0 {
                        return Ok(Some((output, (input, sessions))));
                    }
                }
                Ok(None)
            });
        Ok(Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.schema), output)))
    }
}

/// The state between batches: the session that may go on.
struct Sessions {
    shape: Shape,
    schema: SchemaRef,
    input: SchemaRef,
    converter: RowConverter,
    /// Rows of the open session.
    held: Vec<RecordBatch>,
    open: Option<Open>,
}

struct Open {
    /// `None` when there are no key columns.
    key: Option<OwnedRow>,
    first_us: i64,
    last_us: i64,
}

/// Rows of one batch in one session.
struct Segment {
    rows: usize,
    first_us: i64,
    last_us: i64,
}

impl Sessions {
    fn new(shape: Shape, input: &SchemaRef, schema: SchemaRef) -> Result<Sessions> {
        let keys = shape.keys.iter().map(|key| SortField::new(input.field(*key).data_type().clone()));
        let converter = RowConverter::new(keys.collect())?;
        Ok(Sessions { shape, schema, input: Arc::clone(input), converter, held: Vec::new(), open: None })
    }

    /// Takes the next rows in; the rows of the sessions that are complete.
    fn push(&mut self, batch: &RecordBatch) -> Result<RecordBatch> {
        let times = batch.column(self.shape.time);
        let batch = match times.logical_null_count() {
            0 => batch.clone(),
            _ => filter_record_batch(
                batch,
                &BooleanArray::from_iter((0..times.len()).map(|i| Some(times.is_valid(i)))),
            )?,
        };
        let micros = cast(batch.column(self.shape.time), &DataType::Timestamp(TimeUnit::Microsecond, None))?;
        let micros = micros.as_primitive::<TimestampMicrosecondType>();
        let keys: Vec<ArrayRef> = self.shape.keys.iter().map(|key| Arc::clone(batch.column(*key))).collect();
        let keys = if keys.is_empty() { None } else { Some(self.converter.convert_columns(&keys)?) };
        let mut complete: Vec<Segment> = Vec::new();
        let mut current = self.held.iter().map(RecordBatch::num_rows).sum::<usize>();
        // Where the open session's rows begin in this batch.
        let mut begin = 0;
        for (row, time) in micros.values().iter().copied().enumerate() {
            let key = keys.as_ref().map(|keys| keys.row(row));
            if let Some(open) = &mut self.open {
                let same = key == open.key.as_ref().map(OwnedRow::row);
                if same && time.saturating_sub(open.last_us) <= self.shape.gap_us {
                    open.last_us = time;
                    current += 1;
                    continue;
                }
                complete.push(Segment { rows: current, first_us: open.first_us, last_us: open.last_us });
                (begin, current) = (row, 0);
            }
            let key = key.map(|key| key.owned());
            self.open = Some(Open { key, first_us: time, last_us: time });
            current += 1;
        }
        let output = if complete.is_empty() {
            RecordBatch::new_empty(Arc::clone(&self.schema))
        } else {
            let mut parts = std::mem::take(&mut self.held);
            parts.push(batch.slice(0, begin));
            self.with_bounds(&parts, &complete)?
        };
        if batch.num_rows() > begin {
            self.held.push(batch.slice(begin, batch.num_rows() - begin));
        }
        Ok(output)
    }

    /// No more rows come.
    fn finish(&mut self) -> Result<RecordBatch> {
        let Some(open) = self.open.take() else {
            return Ok(RecordBatch::new_empty(Arc::clone(&self.schema)));
        };
        let parts = std::mem::take(&mut self.held);
        let rows = parts.iter().map(RecordBatch::num_rows).sum();
        self.with_bounds(&parts, &[Segment { rows, first_us: open.first_us, last_us: open.last_us }])
    }

    fn with_bounds(&self, parts: &[RecordBatch], segments: &[Segment]) -> Result<RecordBatch> {
        let rows = concat_batches(&self.input, parts)?;
        let repeat = |bound: fn(&Segment, i64) -> i64| -> Result<ArrayRef> {
            let gap_us = self.shape.gap_us;
            let values = segments.iter().flat_map(|s| std::iter::repeat_n(bound(s, gap_us), s.rows));
            let zone = match rows.column(self.shape.time).data_type() {
                DataType::Timestamp(_, zone) => zone.clone(),
                other => return internal_err!("time column of SESSION has type {other}"),
            };
            let array = TimestampMicrosecondArray::from_iter_values(values).with_timezone_opt(zone);
            Ok(cast(&array, rows.column(self.shape.time).data_type())?)
        };
        let mut columns = rows.columns().to_vec();
        columns.push(repeat(|segment, _| segment.first_us)?);
        columns.push(repeat(|segment, gap_us| segment.last_us.saturating_add(gap_us))?);
        Ok(RecordBatch::try_new(Arc::clone(&self.schema), columns)?)
    }
}

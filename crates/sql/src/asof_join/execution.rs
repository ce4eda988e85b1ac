//! Batch execution of ASOF joins: the right side sorted by key, time and the rest, and a search in it per left row.
//!
//! The right side is held in memory and counted in the query's memory; left rows pass in batches, in their order.

use std::fmt;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch, UInt32Array, new_null_array};
use arrow::buffer::NullBuffer;
use arrow::compute::{SortOptions, concat_batches, take, take_record_batch};
use arrow::datatypes::SchemaRef;
use arrow::row::{RowConverter, Rows, SortField};
use async_trait::async_trait;
use datafusion::catalog::Session;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{DataFusionError, Result, internal_err};
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::{LogicalPlan, UserDefinedLogicalNode};
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, Distribution, ExecutionPlan, ExecutionPlanProperties,
    InputDistributionRequirements, Partitioning, PlanProperties,
};
use datafusion::physical_planner::{ExtensionPlanner, PhysicalPlanner};
use futures::StreamExt;

use super::{AsofComparison, AsofJoin};

/// Plans [`AsofJoin`] for batch execution.
#[derive(Debug)]
pub struct AsofJoinPlanner;

#[async_trait]
impl ExtensionPlanner for AsofJoinPlanner {
    async fn plan_extension(
        &self,
        _planner: &dyn PhysicalPlanner,
        node: &dyn UserDefinedLogicalNode,
        _logical_inputs: &[&LogicalPlan],
        physical_inputs: &[Arc<dyn ExecutionPlan>],
        _session: &dyn Session,
        _planning_ctx: &PhysicalPlanningContext,
    ) -> Result<Option<Arc<dyn ExecutionPlan>>> {
        let Some(join) = node.as_any().downcast_ref::<AsofJoin>() else { return Ok(None) };
        let [left, right] = physical_inputs else {
            return internal_err!("ASOF JOIN takes two inputs, got {}", physical_inputs.len());
        };
        let shape = Shape {
            on: join.on_indices(),
            time: join.indices(&join.time),
            comparison: join.comparison,
            outer: join.outer,
        };
        let schema = Arc::clone(super::UserDefinedLogicalNodeCore::schema(join).inner());
        Ok(Some(Arc::new(AsofJoinExec::new([left, right].map(Arc::clone), shape, schema))))
    }
}

/// What is compared, by numbers of left and right columns.
#[derive(Clone, Debug)]
pub struct Shape {
    on: Vec<(usize, usize)>,
    time: (usize, usize),
    comparison: AsofComparison,
    outer: bool,
}

/// Gives every left row its partner.
#[derive(Clone, Debug)]
pub struct AsofJoinExec {
    inputs: [Arc<dyn ExecutionPlan>; 2],
    shape: Shape,
    schema: SchemaRef,
    properties: Arc<PlanProperties>,
}

impl AsofJoinExec {
    pub fn new(inputs: [Arc<dyn ExecutionPlan>; 2], shape: Shape, schema: SchemaRef) -> AsofJoinExec {
        let [left, right] = &inputs;
        let properties = PlanProperties::new(
            EquivalenceProperties::new(Arc::clone(&schema)),
            Partitioning::UnknownPartitioning(left.output_partitioning().partition_count()),
            right.pipeline_behavior(),
            left.boundedness(),
        );
        AsofJoinExec { inputs, shape, schema, properties: Arc::new(properties) }
    }
}

impl DisplayAs for AsofJoinExec {
    fn fmt_as(&self, _t: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Shape { on, time: (left, right), comparison, outer } = &self.shape;
        let kind = if *outer { "left" } else { "inner" };
        write!(f, "AsofJoinExec: {kind} on={on:?} match=[@{left} {comparison} @{right}]")
    }
}

impl ExecutionPlan for AsofJoinExec {
    fn name(&self) -> &str {
        "AsofJoinExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        self.inputs.iter().collect()
    }

    fn input_distribution_requirements(&self) -> InputDistributionRequirements {
        if self.shape.on.is_empty() {
            return InputDistributionRequirements::new(vec![Distribution::SinglePartition; 2]);
        }
        let column = |side: usize, index: usize| -> Arc<dyn PhysicalExpr> {
            Arc::new(Column::new(self.inputs[side].schema().field(index).name(), index))
        };
        let (left, right) = self.shape.on.iter().map(|(l, r)| (column(0, *l), column(1, *r))).unzip();
        InputDistributionRequirements::co_partitioned(vec![
            Distribution::KeyPartitioned(left),
            Distribution::KeyPartitioned(right),
        ])
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
        let Ok(inputs) = <[_; 2]>::try_from(children) else {
            return internal_err!("AsofJoinExec takes two inputs");
        };
        Ok(Arc::new(AsofJoinExec::new(inputs, self.shape.clone(), Arc::clone(&self.schema))))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let [left, right] = &self.inputs;
        let counts = [left, right].map(|input| input.output_partitioning().partition_count());
        if counts[0] != counts[1] {
            return internal_err!("AsofJoinExec has {} left and {} right partitions", counts[0], counts[1]);
        }
        let reservation = MemoryConsumer::new("AsofJoinExec").register(context.memory_pool());
        let left = left.execute(partition, Arc::clone(&context))?;
        let rows = right.execute(partition, context)?;
        let (shape, schema) = (self.shape.clone(), Arc::clone(&self.schema));
        let output = futures::stream::once(async move {
            let right = collect(rows, shape, schema, reservation).await?;
            Ok::<_, DataFusionError>(left.map(move |batch| right.join(&batch?)))
        });
        let output = futures::TryStreamExt::try_flatten(output);
        Ok(Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.schema), output)))
    }
}

/// The right side, in order.
struct Right {
    shape: Shape,
    schema: SchemaRef,
    rows: RecordBatch,
    /// By key and time.
    order: RowConverter,
    /// Of rows in order.
    sorted: Rows,
    /// Where rows in order stand in `rows`.
    places: Vec<u32>,
    /// Bytes at the end of an encoded key and time that are the time.
    time_length: usize,
    _held: MemoryReservation,
}

async fn collect(
    mut input: SendableRecordBatchStream,
    shape: Shape,
    schema: SchemaRef,
    reservation: MemoryReservation,
) -> Result<Right> {
    let mut batches = Vec::new();
    while let Some(batch) = input.next().await {
        let batch = batch?;
        // The rows, their order's bytes and the copy that is made to sort them.
        reservation.try_grow(3 * batch.get_array_memory_size())?;
        batches.push(batch);
    }
    let rows = concat_batches(&input.schema(), &batches)?;
    drop(batches);
    Right::new(rows, shape, schema, reservation)
}

impl Right {
    fn new(
        rows: RecordBatch,
        shape: Shape,
        schema: SchemaRef,
        reservation: MemoryReservation,
    ) -> Result<Right> {
        // Turned round, the nearest row is the last one before, whichever way is looked.
        let options = SortOptions { descending: !shape.comparison.looks_back(), nulls_first: true };
        let types = rows.schema();
        let field = |column: usize| SortField::new(types.field(column).data_type().clone());
        let key = shape.on.iter().map(|(_, column)| field(*column));
        let time_type = types.field(shape.time.1).data_type();
        let time = SortField::new_with_options(time_type.clone(), options);
        let time_length = RowConverter::new(vec![time.clone()])?
            .convert_columns(&[new_null_array(time_type, 1)])?
            .row(0)
            .data()
            .len();
        let order = RowConverter::new(key.chain([time]).collect())?;
        let whole = RowConverter::new((0..rows.num_columns()).map(field).collect())?;
        let compared: Vec<usize> = shape.on.iter().map(|(_, column)| *column).chain([shape.time.1]).collect();
        let valid = valid_rows(&rows, &compared);
        let encoded = order.convert_columns(&columns(&rows, &compared))?;
        let ties = whole.convert_columns(rows.columns())?;
        let is_valid = |row: &u32| valid.as_ref().is_none_or(|valid| valid.is_valid(*row as usize));
        let mut places: Vec<u32> = (0..rows.num_rows() as u32).filter(is_valid).collect();
        places.sort_unstable_by(|a, b| {
            let (a, b) = (*a as usize, *b as usize);
            encoded.row(a).cmp(&encoded.row(b)).then_with(|| ties.row(a).cmp(&ties.row(b)))
        });
        let mut sorted = order.empty_rows(places.len(), encoded.size());
        for place in &places {
            sorted.push(encoded.row(*place as usize));
        }
        Ok(Right { shape, schema, rows, order, sorted, places, time_length, _held: reservation })
    }

    /// The left rows with their partners.
    fn join(&self, left: &RecordBatch) -> Result<RecordBatch> {
        let compared: Vec<usize> =
            self.shape.on.iter().map(|(column, _)| *column).chain([self.shape.time.0]).collect();
        let valid = valid_rows(left, &compared);
        let encoded = self.order.convert_columns(&columns(left, &compared))?;
        let mut kept: Vec<u32> = Vec::with_capacity(left.num_rows());
        let mut partners: Vec<Option<u32>> = Vec::with_capacity(left.num_rows());
        for row in 0..left.num_rows() {
            let is_valid = valid.as_ref().is_none_or(|valid| valid.is_valid(row));
            let partner = if is_valid { self.partner(encoded.row(row).data()) } else { None };
            if partner.is_some() || self.shape.outer {
                kept.push(row as u32);
                partners.push(partner);
            }
        }
        let left = take_record_batch(left, &UInt32Array::from(kept))?;
        let mut output = left.columns().to_vec();
        let indices = UInt32Array::from(partners);
        for column in self.rows.columns() {
            output.push(match self.rows.num_rows() {
                0 => new_null_array(column.data_type(), indices.len()),
                _ => take(column, &indices, None)?,
            });
        }
        Ok(RecordBatch::try_new(Arc::clone(&self.schema), output)?)
    }

    /// Number of the right row beside a left row with this key and time.
    fn partner(&self, wanted: &[u8]) -> Option<u32> {
        let strict = self.shape.comparison.is_strict();
        let is_before = |number: usize| {
            let row = self.sorted.row(number);
            if strict { row.data() < wanted } else { row.data() <= wanted }
        };
        let (mut low, mut high) = (0, self.places.len());
        while low < high {
            let middle = low + (high - low) / 2;
            if is_before(middle) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        let nearest = low.checked_sub(1)?;
        let key = |bytes: &[u8]| bytes.len() - self.time_length;
        let row = self.sorted.row(nearest);
        (row.data()[..key(row.data())] == wanted[..key(wanted)]).then(|| self.places[nearest])
    }
}

fn columns(batch: &RecordBatch, numbers: &[usize]) -> Vec<ArrayRef> {
    numbers.iter().map(|column| Arc::clone(batch.column(*column))).collect()
}

/// Rows without a NULL in these columns; `None` means all.
fn valid_rows(batch: &RecordBatch, numbers: &[usize]) -> Option<NullBuffer> {
    numbers.iter().fold(None, |valid, column| {
        NullBuffer::union(valid.as_ref(), batch.column(*column).logical_nulls().as_ref())
    })
}

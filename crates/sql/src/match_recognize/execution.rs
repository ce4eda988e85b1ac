//! Batch execution of MATCH_RECOGNIZE, and the order of rows that all executions share.

use std::fmt;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, UInt32Array};
use arrow::compute::{SortOptions, concat_batches, take_record_batch};
use arrow::datatypes::SchemaRef;
use arrow::row::{RowConverter, Rows as KeyRows, SortField};
use async_trait::async_trait;
use datafusion::catalog::Session;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{Result, internal_err};
use datafusion::execution::memory_pool::MemoryConsumer;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::{LogicalPlan, UserDefinedLogicalNode};
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, Distribution, ExecutionPlan, ExecutionPlanProperties, Partitioning,
    PlanProperties,
};
use datafusion::physical_planner::{ExtensionPlanner, PhysicalPlanner};
use futures::{StreamExt, TryStreamExt};

use super::output::{Evaluate, Strict};
use super::{Compiled, MatchRecognize, Matcher, Partition, RowPattern};

/// Sorts rows by partition and ORDER BY. Ties are broken by all other columns, so that the order does not depend
/// on how rows arrived: rows that are still equal can be exchanged without anyone noticing.
#[derive(Debug)]
pub struct Sorter {
    partition_by: Vec<usize>,
    rest: Vec<usize>,
    partition: RowConverter,
    order: RowConverter,
}

/// Rows in their order, and where partitions begin.
pub struct Sorted {
    pub rows: RecordBatch,
    /// Per partition: its key, to be compared with other keys of this sorter, and the number of its rows.
    pub partitions: Vec<(Box<[u8]>, usize)>,
}

impl Sorter {
    /// # Errors
    /// When a column's type has no order.
    pub fn new(pattern: &RowPattern, schema: &SchemaRef) -> Result<Sorter> {
        let mut order: Vec<(usize, SortOptions)> = pattern.order_by.clone();
        for column in 0..schema.fields().len() {
            let known = pattern.partition_by.contains(&column) || order.iter().any(|(c, _)| *c == column);
            if !known {
                order.push((column, SortOptions::default()));
            }
        }
        let field = |column: usize, options| {
            SortField::new_with_options(schema.field(column).data_type().clone(), options)
        };
        let partition = pattern.partition_by.iter().map(|c| field(*c, SortOptions::default())).collect();
        Ok(Sorter {
            partition_by: pattern.partition_by.clone(),
            rest: order.iter().map(|(column, _)| *column).collect(),
            partition: RowConverter::new(partition)?,
            order: RowConverter::new(order.iter().map(|(c, options)| field(*c, *options)).collect())?,
        })
    }

    /// Sorts rows, each as often as its weight says.
    pub fn sort(&self, batch: &RecordBatch, weight: impl Fn(usize) -> i64) -> Result<Sorted> {
        let keys = convert(&self.partition, batch, &self.partition_by)?;
        let order = convert(&self.order, batch, &self.rest)?;
        let key = |row: u32| keys.as_ref().map_or(&[] as &[u8], |keys| keys.row(row as usize).data());
        let rest = |row: u32| order.as_ref().map_or(&[] as &[u8], |order| order.row(row as usize).data());
        let mut indices: Vec<u32> = (0..batch.num_rows() as u32)
            .flat_map(|row| std::iter::repeat_n(row, weight(row as usize).max(0) as usize))
            .collect();
        indices.sort_by(|a, b| key(*a).cmp(key(*b)).then_with(|| rest(*a).cmp(rest(*b))));
        let mut partitions: Vec<(Box<[u8]>, usize)> = Vec::new();
        for row in &indices {
            match partitions.last_mut() {
                Some((last, count)) if last.as_ref() == key(*row) => *count += 1,
                _ => partitions.push((key(*row).into(), 1)),
            }
        }
        let sorted = indices.iter().enumerate().all(|(n, row)| n as u32 == *row);
        let rows = match sorted && indices.len() == batch.num_rows() {
            true => batch.clone(),
            false => take_record_batch(batch, &UInt32Array::from(indices))?,
        };
        Ok(Sorted { rows, partitions })
    }
}

fn convert(converter: &RowConverter, batch: &RecordBatch, columns: &[usize]) -> Result<Option<KeyRows>> {
    if columns.is_empty() {
        return Ok(None);
    }
    let columns: Vec<ArrayRef> = columns.iter().map(|column| Arc::clone(batch.column(*column))).collect();
    Ok(Some(converter.convert_columns(&columns)?))
}

/// The result over rows that are all there are. `partitions` gives the number of rows of each.
pub fn match_all(
    compiled: &Arc<Compiled>,
    rows: RecordBatch,
    partitions: impl IntoIterator<Item = usize>,
    evaluator: &mut dyn Evaluate,
) -> Result<RecordBatch> {
    let groups: Vec<(usize, usize)> = partitions.into_iter().enumerate().collect();
    let which: Vec<usize> = (0..groups.len()).collect();
    let mut partitions: Vec<Partition> = which.iter().map(|_| Partition::default()).collect();
    let mut matcher = Matcher::new(Arc::clone(compiled));
    matcher.add(rows, &mut partitions, &groups)?;
    partitions.iter_mut().for_each(Partition::complete);
    matcher.test_rows(&mut partitions, &which, evaluator)?;
    // Matches refer to rows, which therefore stay until the output is built.
    let mut found = Vec::new();
    for partition in &mut partitions {
        matcher.find(partition, i64::MAX, &mut found, evaluator)?;
    }
    matcher.output(&found, evaluator)
}

/// Plans [`MatchRecognize`] for batch execution.
#[derive(Debug)]
pub struct MatchRecognizePlanner;

#[async_trait]
impl ExtensionPlanner for MatchRecognizePlanner {
    async fn plan_extension(
        &self,
        _planner: &dyn PhysicalPlanner,
        node: &dyn UserDefinedLogicalNode,
        _logical_inputs: &[&LogicalPlan],
        physical_inputs: &[Arc<dyn ExecutionPlan>],
        _session: &dyn Session,
        _planning_ctx: &PhysicalPlanningContext,
    ) -> Result<Option<Arc<dyn ExecutionPlan>>> {
        let Some(node) = node.as_any().downcast_ref::<MatchRecognize>() else { return Ok(None) };
        let [input] = physical_inputs else {
            return internal_err!("MATCH_RECOGNIZE takes one input, got {}", physical_inputs.len());
        };
        let output = Arc::clone(super::UserDefinedLogicalNodeCore::schema(node).inner());
        let compiled = Compiled::new(Arc::clone(&node.pattern), input.schema(), output)?;
        Ok(Some(Arc::new(MatchRecognizeExec::new(Arc::clone(input), Arc::new(compiled)))))
    }
}

/// Collects and sorts its input, then matches partition after partition.
#[derive(Clone, Debug)]
pub struct MatchRecognizeExec {
    input: Arc<dyn ExecutionPlan>,
    compiled: Arc<Compiled>,
    properties: Arc<PlanProperties>,
}

impl MatchRecognizeExec {
    /// Rows matched before other tasks get their turn; a partition is not divided.
    const TURN_ROWS: usize = 32_768;

    pub fn new(input: Arc<dyn ExecutionPlan>, compiled: Arc<Compiled>) -> MatchRecognizeExec {
        let properties = PlanProperties::new(
            EquivalenceProperties::new(Arc::clone(&compiled.output)),
            Partitioning::UnknownPartitioning(1),
            datafusion::physical_plan::execution_plan::EmissionType::Final,
            input.boundedness(),
        );
        MatchRecognizeExec { input, compiled, properties: Arc::new(properties) }
    }
}

impl DisplayAs for MatchRecognizeExec {
    fn fmt_as(&self, _t: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MatchRecognizeExec: PATTERN ({})", self.compiled.pattern.pattern)
    }
}

impl ExecutionPlan for MatchRecognizeExec {
    fn name(&self) -> &str {
        "MatchRecognizeExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn required_input_distribution(&self) -> Vec<Distribution> {
        vec![Distribution::SinglePartition]
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
            return internal_err!("MatchRecognizeExec takes one input, got {}", children.len());
        };
        Ok(Arc::new(MatchRecognizeExec::new(Arc::clone(input), Arc::clone(&self.compiled))))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let reservation = MemoryConsumer::new("MatchRecognizeExec").register(context.memory_pool());
        let mut input = self.input.execute(partition, context)?;
        let compiled = Arc::clone(&self.compiled);
        let schema = Arc::clone(&compiled.output);
        let output = async move {
            let mut batches = Vec::new();
            while let Some(batch) = input.next().await {
                let batch = batch?;
                // The rows, and once more in their order.
                reservation.try_grow(2 * batch.get_array_memory_size())?;
                batches.push(batch);
            }
            let rows = concat_batches(&compiled.input, &batches)?;
            drop(batches);
            let Sorted { rows, partitions } =
                Sorter::new(&compiled.pattern, &compiled.input)?.sort(&rows, |_| 1)?;
            let sizes: Vec<usize> = partitions.into_iter().map(|(_, count)| count).collect();
            let turns = turns(&sizes, MatchRecognizeExec::TURN_ROWS);
            let stream = futures::stream::iter(turns).map(move |(offset, sizes)| {
                // Held until the last row has left.
                let _held = &reservation;
                match_all(&compiled, rows.slice(offset, sizes.iter().sum()), sizes, &mut Strict)
            });
            Ok::<_, datafusion::common::DataFusionError>(stream)
        };
        let output = futures::stream::once(output).try_flatten();
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, output)))
    }
}

/// Whole partitions in portions of about `rows` rows: where each begins, and the sizes of its partitions.
fn turns(sizes: &[usize], rows: usize) -> Vec<(usize, Vec<usize>)> {
    let mut turns: Vec<(usize, Vec<usize>)> = Vec::new();
    let mut offset = 0;
    let mut held = usize::MAX;
    for size in sizes {
        if held >= rows {
            turns.push((offset, Vec::new()));
            held = 0;
        }
        if let Some((_, sizes)) = turns.last_mut() {
            sizes.push(*size);
        }
        held += size;
        offset += size;
    }
    turns
}

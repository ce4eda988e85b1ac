//! The running graph of operators. One step takes the change of every table and gives the change of every node.
//!
//! Nodes are evaluated level by level; the nodes of a level, and the shards of a keyed node, run in parallel when the
//! step is large enough to pay for it. Nodes with equal signatures are one node, across views.

mod build;
mod expand;
mod late;
mod order;
mod shard;
mod unnest;

use std::collections::{BTreeSet, HashMap};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::UInt32Array;
use arrow::datatypes::SchemaRef;
use dataflow::{Operator, StateSize, StepContext, Tick, Watermark, ZSet};
use rayon::prelude::*;
use sql::RelationId;

use crate::plan::{ExpandSpec, MapSpec, Measured, PlanNode, StreamPlan, UnnestSpec};
use crate::watermarks::{GroupIndex, Watermarks};
use shard::Sharded;

pub use build::LateProbe;
use late::LateInput;
pub use late::LateRows;
pub use order::{Causes, Order};

/// Number of a node in the circuit.
pub type NodeId = usize;

/// Steps smaller than this run on one thread: handing work over costs more than doing it.
const PARALLEL_ROWS_MIN: usize = 4096;

pub struct Circuit {
    // Inputs come before the nodes that read them; `None` where a dropped view left a hole.
    nodes: Vec<Option<Node>>,
    by_signature: HashMap<String, NodeId>,
    workers: usize,
    pool: Option<Arc<rayon::ThreadPool>>,
}

pub struct Node {
    pub plan: PlanNode,
    inputs: Vec<NodeId>,
    input_schemas: Vec<SchemaRef>,
    /// Per input: the tables whose watermark its rows have.
    input_tables: Vec<Vec<RelationId>>,
    computation: Computation,
    /// Views that stand on this node, directly or not.
    users: BTreeSet<RelationId>,
    group: Option<GroupIndex>,
    watermark: Watermark,
    late: Vec<LateProbe>,
    /// How far its inputs' event times may be behind the watermark of their tables.
    delay_us: i64,
    order: Option<Order>,
    /// Runs whenever the clock moved.
    clocked: bool,
    clock_seen: Option<i64>,
    /// Longest way from a source; nodes of one level don't depend on each other.
    level: usize,
    /// False until the first step: a global aggregate has a row to give before any input.
    started: bool,
    busy: Duration,
    rows_in: u64,
    rows_out: u64,
    /// Why the node stopped; everything above it stands still too.
    failed: Option<String>,
}

enum Computation {
    Source(RelationId),
    Map(Arc<MapSpec>),
    Expand(Arc<ExpandSpec>),
    Unnest(Arc<UnnestSpec>),
    Union,
    Single(Box<dyn Operator>),
    Sharded(Sharded),
}

/// What one step did, besides the output of the nodes.
#[derive(Default)]
pub struct StepResult {
    /// Output of every node that computed something, by node number.
    pub outputs: HashMap<NodeId, ZSet>,
    pub late: Vec<LateRows>,
    pub errors: Vec<StepErrors>,
    /// Views that stopped in this step, and why.
    pub failed: Vec<(RelationId, String)>,
}

/// Expressions that had no value and became NULL.
pub struct StepErrors {
    pub views: Vec<RelationId>,
    pub samples: Vec<String>,
    pub total: u64,
}

/// The columns that a plan knows: those that were added to the table since come last.
fn known_columns(change: &ZSet, columns: usize) -> ZSet {
    let rows = change.rows();
    if rows.num_columns() <= columns {
        return change.clone();
    }
    let known = rows.project(&(0..columns).collect::<Vec<_>>()).expect("columns are only added at the end");
    change.with_rows(known)
}

impl Circuit {
    /// A circuit whose keyed state is split into `workers` shards.
    pub fn new(workers: usize) -> Circuit {
        assert!(workers >= 1, "somebody has to work");
        let pool = (workers > 1).then(|| {
            let threads = std::thread::available_parallelism().map_or(1, usize::from).min(workers);
            let pool =
                rayon::ThreadPoolBuilder::new().num_threads(threads).thread_name(|i| format!("worker-{i}"));
            Arc::new(pool.build().expect("threads can be started"))
        });
        Circuit { nodes: Vec::new(), by_signature: HashMap::new(), workers, pool }
    }

    pub fn node(&self, id: NodeId) -> &Node {
        self.nodes[id].as_ref().expect("the node was not dropped")
    }

    fn live(&self) -> impl Iterator<Item = (NodeId, &Node)> {
        self.nodes.iter().enumerate().filter_map(|(id, n)| n.as_ref().map(|n| (id, n)))
    }

    /// Runs every node that has something to do once.
    pub fn step(
        &mut self,
        tick: Tick,
        inputs: HashMap<RelationId, ZSet>,
        watermarks: &Watermarks,
    ) -> StepResult {
        let mut result = StepResult::default();
        let mut late = Vec::new();
        let rows: usize = inputs.values().map(ZSet::len).sum();
        let levels = self.live().map(|(_, n)| n.level).max().map_or(0, |l| l + 1);
        let pool = self.pool.clone().filter(|_| rows >= PARALLEL_ROWS_MIN);
        for level in 0..levels {
            let mut tasks: Vec<Task<'_>> = Vec::new();
            for (id, slot) in self.nodes.iter_mut().enumerate() {
                let Some(node) = slot.as_mut().filter(|n| n.level == level) else { continue };
                if let Computation::Source(relation) = &node.computation {
                    if let Some(change) = inputs.get(relation) {
                        result.outputs.insert(id, known_columns(change, node.plan.schema.fields().len()));
                    }
                } else if let Some(task) = node.task(id, &result.outputs, watermarks, tick) {
                    tasks.push(task);
                }
            }
            match &pool {
                Some(pool) => pool.install(|| tasks.par_iter_mut().for_each(|t| t.run(true))),
                None => tasks.iter_mut().for_each(|t| t.run(false)),
            }
            let mut failures = Vec::new();
            for task in tasks {
                let views = || task.node.users.iter().copied().collect::<Vec<_>>();
                if task.context.errors_total > 0 {
                    result.errors.push(StepErrors {
                        views: views(),
                        samples: task.context.errors.clone(),
                        total: task.context.errors_total,
                    });
                }
                let watermark = task.context.watermark_before;
                for (port, rows) in task.late {
                    late.push(LateInput {
                        node: task.id,
                        port,
                        change: task.changes[port].clone(),
                        rows,
                        watermark,
                    });
                }
                match task.output {
                    Some(Ok(change)) if change.is_empty() => {}
                    Some(Ok(change)) => {
                        result.outputs.insert(task.id, change);
                    }
                    Some(Err(error)) => failures.push((task.id, error)),
                    None => unreachable!("every task ran"),
                }
            }
            for (id, error) in failures {
                self.fail(id, &error, &mut result);
            }
        }
        result.late = match self.late_rows(late, &result.outputs, &inputs) {
            Ok(late) => late,
            Err(error) => {
                tracing::error!(%error, "late rows can't be recorded");
                Vec::new()
            }
        };
        result
    }

    /// Stops a node and all that reads it.
    fn fail(&mut self, id: NodeId, error: &str, result: &mut StepResult) {
        let mut failed = BTreeSet::from([id]);
        for (id, slot) in self.nodes.iter_mut().enumerate() {
            let Some(node) = slot.as_mut() else { continue };
            if failed.contains(&id) || node.inputs.iter().any(|i| failed.contains(i)) {
                failed.insert(id);
                node.failed = Some(error.to_string());
            }
        }
        let views = self.node(id).users.iter().map(|view| (*view, error.to_string()));
        result.failed.extend(views.collect::<Vec<_>>());
    }

    /// Figures of the nodes that compute `plan`; `None` for those that it only reads.
    pub fn measure(&self, plan: &StreamPlan) -> Vec<Option<Measured>> {
        let measure = |node: &PlanNode| {
            let node = self.nodes.get(*self.by_signature.get(&node.signature)?)?.as_ref()?;
            if matches!(node.computation, Computation::Source(_)) {
                return None;
            }
            let state = node.state_size();
            Some(Measured {
                rows_in: node.rows_in,
                rows_out: node.rows_out,
                busy: node.busy,
                state_rows: state.rows as u64,
                state_bytes: state.bytes as u64,
                views: node.users.len(),
            })
        };
        plan.nodes.iter().map(measure).collect()
    }

    /// When the clock is going to change something, as of this moment; `None` when never.
    pub fn clock_due_us(&mut self, now_us: i64) -> Option<i64> {
        let clocked = self.nodes.iter_mut().flatten().filter(|node| node.clocked && node.failed.is_none());
        let due = clocked.filter_map(|node| match &mut node.computation {
            Computation::Single(operator) => operator.clock_due_us(now_us),
            _ => None,
        });
        due.min()
    }

    /// State and time spent of the nodes that serve `view`, alone or with others.
    pub fn view_state(&self, view: RelationId) -> (StateSize, Duration) {
        self.live()
            .filter(|(_, n)| n.users.contains(&view))
            .fold((StateSize::default(), Duration::ZERO), |(size, busy), (_, node)| {
                (size + node.state_size(), busy + node.busy)
            })
    }
}

impl Node {
    fn task<'n>(
        &'n mut self,
        id: NodeId,
        outputs: &HashMap<NodeId, ZSet>,
        watermarks: &Watermarks,
        tick: Tick,
    ) -> Option<Task<'n>> {
        if self.failed.is_some() {
            return None;
        }
        let watermark_before = self.watermark;
        if let Some(group) = self.group {
            self.watermark = watermarks.of_group(group).behind(self.delay_us);
            assert!(self.watermark >= watermark_before, "a watermark never goes back");
        }
        let closes = !self.late.is_empty() && self.watermark != watermark_before;
        let fed = self.inputs.iter().any(|i| outputs.contains_key(i));
        let first = !self.started && matches!(self.computation, Computation::Single(_));
        let ticks = self.clocked && watermarks.now_us() != self.clock_seen;
        if !fed && !closes && !first && !ticks {
            return None;
        }
        self.clock_seen = watermarks.now_us();
        self.started = true;
        let changes = self
            .inputs
            .iter()
            .zip(&self.input_schemas)
            .map(|(input, schema)| match outputs.get(input) {
                Some(change) => change.clone(),
                None => ZSet::empty(Arc::clone(schema)),
            })
            .collect();
        let context = StepContext {
            tick,
            watermark_before,
            watermark: self.watermark,
            now_us: watermarks.now_us(),
            ..Default::default()
        };
        Some(Task { id, node: self, changes, context, output: None, late: Vec::new() })
    }

    fn state_size(&self) -> StateSize {
        match &self.computation {
            Computation::Single(operator) => operator.state_size(),
            Computation::Sharded(sharded) => sharded.state_size(),
            _ => StateSize::default(),
        }
    }

    fn compute(&mut self, changes: &[ZSet], ctx: &mut StepContext, parallel: bool) -> dataflow::Result<ZSet> {
        match &mut self.computation {
            Computation::Source(_) => unreachable!("sources are fed, not computed"),
            Computation::Map(spec) => map(spec, &changes[0], ctx),
            Computation::Expand(spec) => expand::expand(spec, &changes[0], &self.plan.schema),
            Computation::Unnest(spec) => unnest::unnest(spec, &changes[0], &self.plan.schema),
            Computation::Union => {
                // Inputs agree in types; names and nullability are the union's.
                let parts = changes
                    .iter()
                    .map(|c| Ok(c.with_rows(c.rows().clone().with_schema(Arc::clone(&self.plan.schema))?)))
                    .collect::<dataflow::Result<Vec<_>>>()?;
                ZSet::concat(&self.plan.schema, &parts)
            }
            Computation::Single(operator) => operator.step(changes, ctx),
            Computation::Sharded(sharded) => sharded.step(changes, ctx, parallel),
        }
    }
}

fn map(spec: &MapSpec, change: &ZSet, ctx: &mut StepContext) -> dataflow::Result<ZSet> {
    let filtered = match spec.mask(change.rows(), ctx)? {
        Some(mask) => change.filter(&mask)?,
        None => change.clone(),
    };
    Ok(filtered.with_rows(spec.project(filtered.rows(), ctx)?))
}

struct Task<'n> {
    id: NodeId,
    node: &'n mut Node,
    changes: Vec<ZSet>,
    context: StepContext,
    output: Option<Result<ZSet, String>>,
    /// By input: numbers of the rows that the operator ignores.
    late: Vec<(usize, UInt32Array)>,
}

impl Task<'_> {
    fn run(&mut self, parallel: bool) {
        let started = Instant::now();
        // A panic in an operator is our bug; it must cost the view, not the server.
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            for probe in &self.node.late {
                let change = &self.changes[probe.port];
                let late = probe.late_rows(change, self.context.watermark_before)?;
                self.late.extend(late.map(|rows| (probe.port, rows)));
            }
            self.node.compute(&self.changes, &mut self.context, parallel)
        }));
        self.node.rows_in += self.changes.iter().map(|change| change.len() as u64).sum::<u64>();
        if let Ok(Ok(change)) = &outcome {
            self.node.rows_out += change.len() as u64;
        }
        self.output = Some(match outcome {
            Ok(Ok(change)) => Ok(change),
            Ok(Err(error)) => Err(error.to_string()),
            Err(panic) => {
                let text = panic.downcast_ref::<String>().map(String::as_str);
                let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("unknown cause");
                Err(format!("operator {} failed: {text}", crate::plan::what(&self.node.plan)))
            }
        });
        self.node.busy += started.elapsed();
    }
}

//! The running graph of operators. One step takes the change of every table and gives the change of every node.
//!
//! Nodes are evaluated level by level ([`pass`]); the nodes of a level, and the shards of a keyed node, run in parallel
//! when the step is large enough to pay for it. Nodes with equal signatures are one node, across views.

mod build;
mod expand;
mod late;
mod net_change;
mod order;
mod pass;
mod shard;
mod state;
mod unnest;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::SchemaRef;
use dataflow::{Operator, StateSize, Tick, Watermark, ZSet};
use sql::RelationId;

use crate::plan::{ExpandSpec, MapSpec, Measured, PlanNode, StreamPlan, UnnestSpec};
use crate::watermarks::{GroupIndex, Watermarks};
use pass::{Done, Level, Pass};
use shard::Sharded;

pub use build::LateProbe;
pub use late::LateRows;
pub use order::{Causes, Order};
pub use state::NodeState;

/// Number of a node in the circuit.
pub type NodeId = usize;

/// Steps smaller than this run on one thread: handing work over costs more than doing it.
const PARALLEL_ROWS_MIN: usize = 4096;

pub struct Circuit {
    // Inputs come before the nodes that read them; `None` where a dropped view left a hole.
    nodes: Vec<Option<Node>>,
    by_signature: HashMap<String, NodeId>,
    workers: usize,
    /// Nodes that can give more rows than this in parts.
    part_rows: usize,
    pool: Option<Arc<rayon::ThreadPool>>,
    /// By which keys are divided into shards. Private to the database: senders choose keys, and must not choose which
    /// shard is overloaded.
    seed: u64,
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
    /// Views whose rows this node gives.
    results: BTreeSet<RelationId>,
    group: Option<GroupIndex>,
    watermark: Watermark,
    late: Vec<LateProbe>,
    /// How far its inputs' event times may be behind the watermark of their tables.
    delay_us: i64,
    order: Option<Order>,
    /// Its output may be divided within a step: no node above it depends on the order of changes.
    divisible: bool,
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
    /// As of when its state was opened: steps up to this tick are in it already.
    as_of: Option<Tick>,
    /// When it ran last.
    changed: Tick,
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

/// What one step did.
#[derive(Default)]
pub struct StepResult {
    /// The changes of views, by the number of the node that gives their rows: to be applied one after another.
    pub changes: HashMap<NodeId, Vec<ZSet>>,
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
    /// A circuit whose keyed state is split into `workers` shards, and whose nodes give at most `part_rows` at once where
    /// they can. The same keys are in the same shard with the same `seed`.
    pub fn new(workers: usize, part_rows: usize, seed: u64) -> Circuit {
        assert!(workers >= 1, "somebody has to work");
        let pool = (workers > 1).then(|| {
            let threads = std::thread::available_parallelism().map_or(1, usize::from).min(workers);
            let pool =
                rayon::ThreadPoolBuilder::new().num_threads(threads).thread_name(|i| format!("worker-{i}"));
            Arc::new(pool.build().expect("threads can be started"))
        });
        Circuit { nodes: Vec::new(), by_signature: HashMap::new(), workers, part_rows, pool, seed }
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
        let mut done = Done::default();
        let mut levels: Vec<Level<'_>> = Vec::new();
        for (id, slot) in self.nodes.iter_mut().enumerate() {
            let Some(node) = slot else { continue };
            if let Computation::Source(relation) = &node.computation {
                if let Some(change) = inputs.get(relation) {
                    done.outputs.insert(id, known_columns(change, node.plan.schema.fields().len()));
                }
                continue;
            }
            if levels.len() <= node.level {
                levels.resize_with(node.level + 1, Level::new);
            }
            levels[node.level].push((id, node));
        }
        let rows: usize = inputs.values().map(ZSet::len).sum();
        let pool = self.pool.as_deref().filter(|_| rows >= PARALLEL_ROWS_MIN);
        Pass { tick, watermarks, pool, part_rows: self.part_rows, part: false }.run(&mut levels, &mut done);
        let Done { outputs, mut parts, late, errors, failed } = done;
        let late = match self.late_rows(late, &outputs, &inputs) {
            Ok(late) => late,
            Err(error) => {
                tracing::error!(%error, "late rows can't be recorded");
                Vec::new()
            }
        };
        let mut changes: HashMap<NodeId, Vec<ZSet>> = HashMap::new();
        let mut failed_nodes = Vec::new();
        for (id, _) in self.live().filter(|(_, node)| !node.results.is_empty()) {
            let change = outputs.get(&id).cloned();
            let gathered = match parts.remove(&id) {
                Some(parts) => parts.with(change),
                None => Ok(change.into_iter().collect()),
            };
            match gathered {
                Ok(gathered) if gathered.is_empty() => {}
                Ok(gathered) => drop(changes.insert(id, gathered)),
                Err(error) => failed_nodes.push((id, error.to_string())),
            }
        }
        let mut result = StepResult { changes, late, errors, failed };
        for (id, error) in failed_nodes {
            result.failed.extend(self.node(id).results.iter().map(|view| (*view, error.clone())));
        }
        result
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
    fn state_size(&self) -> StateSize {
        match &self.computation {
            Computation::Single(operator) => operator.state_size(),
            Computation::Sharded(sharded) => sharded.state_size(),
            _ => StateSize::default(),
        }
    }
}

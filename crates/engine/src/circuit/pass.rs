//! One pass over the levels of the circuit.
//!
//! A step is one pass. Where a node gives more rows than one batch should hold (a join whose key is hot), it gives parts
//! while it still works, and each part has a pass of its own over the levels above:
//!
//! ```text
//!   join: part 1 -> levels above     rows only: no watermark moves, no window closes
//!         part 2 -> levels above
//!         rest   -> levels above, with everything else of the step
//! ```
//!
//! That changes no sum of outputs, which is what [`dataflow::Operator`] promises. So the parts of all nodes but those
//! that give a view's rows are gone when the next one comes.
//!
//! Rule: a pass for a part runs on the thread that gives it, and hands no work to others: they may be waiting for it.

use std::collections::{BTreeSet, HashMap};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use arrow::array::UInt32Array;
use dataflow::{PartSink, StepContext, Tick, ZSet};
use parking_lot::Mutex;
use rayon::prelude::*;
use sql::RelationId;

use super::late::LateInput;
use super::net_change::NetChange;
use super::{Computation, Node, NodeId, StepErrors, expand, unnest};
use crate::plan::MapSpec;
use crate::watermarks::Watermarks;

/// Nodes that don't depend on each other.
pub(super) type Level<'n> = Vec<(NodeId, &'n mut Node)>;

/// What is the same for all nodes.
pub(super) struct Pass<'p> {
    pub tick: Tick,
    pub watermarks: &'p Watermarks,
    /// `None`: everything on this thread.
    pub pool: Option<&'p rayon::ThreadPool>,
    /// Rows that a node gives at once.
    pub part_rows: usize,
    /// For a part of a node's output, before the step's own pass.
    pub part: bool,
}

/// What was done so far.
#[derive(Default)]
pub(super) struct Done {
    /// Outputs of nodes, as far as they are not empty.
    pub outputs: HashMap<NodeId, ZSet>,
    /// What nodes that give a view's rows gave in parts.
    pub parts: HashMap<NodeId, NetChange>,
    pub late: Vec<LateInput>,
    pub errors: Vec<StepErrors>,
    pub failed: Vec<(RelationId, String)>,
}

/// The levels above those that run now.
struct Above<'a, 'n> {
    levels: &'a mut [Level<'n>],
    done: Done,
}

struct Task<'t> {
    id: NodeId,
    node: &'t mut Node,
    changes: Vec<ZSet>,
    context: StepContext<'static>,
    output: Option<Result<ZSet, String>>,
    /// By input: numbers of the rows that the operator ignores.
    late: Vec<(usize, UInt32Array)>,
}

impl Pass<'_> {
    /// Runs the nodes of all levels that have something to do. Sources have their outputs in `done` already.
    pub fn run(&self, levels: &mut [Level<'_>], done: &mut Done) {
        let mut rest = levels;
        while let Some((level, levels)) = rest.split_first_mut() {
            let above = Mutex::new(Above { levels, done: Done::default() });
            let tasks = level.iter_mut().filter_map(|(id, node)| node.task(*id, &done.outputs, self));
            let mut tasks: Vec<Task<'_>> = tasks.collect();
            match self.pool {
                Some(pool) => pool.install(|| tasks.par_iter_mut().for_each(|t| t.run(self, &above))),
                None => tasks.iter_mut().for_each(|t| t.run(self, &above)),
            }
            let Above { levels, done: early } = above.into_inner();
            done.absorb(early);
            let failures: Vec<_> = tasks.into_iter().filter_map(|task| done.take(task)).collect();
            for (id, error) in failures {
                fail(id, &error, level, levels, done);
            }
            rest = levels;
        }
    }

    /// Takes a part of a node's output through the levels above.
    fn part(&self, node: NodeId, is_result: bool, part: ZSet, above: &Mutex<Above<'_, '_>>) {
        let mut above = above.lock();
        let Above { levels, done } = &mut *above;
        let mut own = Done { outputs: HashMap::from([(node, part)]), ..Done::default() };
        Pass { pool: None, part: true, ..*self }.run(levels, &mut own);
        let outputs = std::mem::take(&mut own.outputs);
        done.absorb(own);
        let results = levels.iter().flatten().filter(|(_, n)| !n.results.is_empty()).map(|(id, _)| *id);
        for id in results.chain(is_result.then_some(node)) {
            if let Some(change) = outputs.get(&id) {
                done.parts.entry(id).or_default().add(change);
            }
        }
    }
}

/// Stops a node and all that reads it.
fn fail<'n>(id: NodeId, error: &str, level: &mut Level<'n>, above: &mut [Level<'n>], done: &mut Done) {
    let mut failed = BTreeSet::from([id]);
    for (id, node) in level.iter_mut().chain(above.iter_mut().flatten()) {
        if failed.contains(id) || node.inputs.iter().any(|i| failed.contains(i)) {
            if failed.len() == 1 {
                done.failed.extend(node.users.iter().map(|view| (*view, error.to_string())));
            }
            failed.insert(*id);
            node.failed = Some(error.to_string());
        }
    }
}

impl Done {
    /// Takes over what was done next.
    fn absorb(&mut self, other: Done) {
        self.outputs.extend(other.outputs);
        for (id, change) in other.parts {
            self.parts.entry(id).or_default().append(change);
        }
        self.late.extend(other.late);
        self.errors.extend(other.errors);
        self.failed.extend(other.failed);
    }

    /// Takes over what a task did; gives the node and why, if it failed.
    fn take(&mut self, task: Task<'_>) -> Option<(NodeId, String)> {
        let Task { id, node, changes, context, output, late } = task;
        if context.errors_total > 0 {
            self.errors.push(StepErrors {
                views: node.users.iter().copied().collect(),
                samples: context.errors,
                total: context.errors_total,
            });
        }
        let watermark = context.watermark_before;
        self.late.extend(late.into_iter().map(|(port, rows)| LateInput {
            node: id,
            port,
            change: changes[port].clone(),
            rows,
            watermark,
        }));
        match output.expect("every task ran") {
            Ok(change) if change.is_empty() => None,
            Ok(change) => {
                self.outputs.insert(id, change);
                None
            }
            Err(error) => Some((id, error)),
        }
    }
}

impl Node {
    /// What the node has to do in this pass; `None` for nothing.
    fn task<'n>(
        &'n mut self,
        id: NodeId,
        outputs: &HashMap<NodeId, ZSet>,
        pass: &Pass<'_>,
    ) -> Option<Task<'n>> {
        if self.failed.is_some() || self.as_of.is_some_and(|as_of| pass.tick <= as_of) {
            return None;
        }
        let now_us = pass.watermarks.now_us();
        let fed = self.inputs.iter().any(|i| outputs.contains_key(i));
        let watermark_before = self.watermark;
        if pass.part {
            if !fed {
                return None;
            }
        } else {
            if let Some(group) = self.group {
                self.watermark = pass.watermarks.of_group(group).behind(self.delay_us);
                assert!(self.watermark >= watermark_before, "a watermark never goes back");
            }
            let closes = !self.late.is_empty() && self.watermark != watermark_before;
            let first = !self.started && matches!(self.computation, Computation::Single(_));
            let ticks = self.clocked && now_us != self.clock_seen;
            if !fed && !closes && !first && !ticks {
                return None;
            }
            self.clock_seen = now_us;
        }
        self.started = true;
        self.changed = pass.tick;
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
            tick: pass.tick,
            watermark_before,
            watermark: self.watermark,
            now_us,
            received_us: pass.watermarks.told_us(),
            ..Default::default()
        };
        Some(Task { id, node: self, changes, context, output: None, late: Vec::new() })
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

impl Task<'_> {
    fn run(&mut self, pass: &Pass<'_>, above: &Mutex<Above<'_, '_>>) {
        let started = Instant::now();
        // Time that nodes above spent on parts.
        let elsewhere = Mutex::new(Duration::ZERO);
        let given = AtomicU64::new(0);
        let (id, is_result, divisible) = (self.id, !self.node.results.is_empty(), self.node.divisible);
        let give = |part: ZSet| {
            given.fetch_add(part.len() as u64, Ordering::Relaxed);
            let started = Instant::now();
            pass.part(id, is_result, part, above);
            *elsewhere.lock() += started.elapsed();
        };
        let mut context = self.context.fork();
        context.parts = divisible.then_some(PartSink { give: &give, rows: pass.part_rows });
        // A panic in an operator is our bug; it must cost the view, not the server.
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            for probe in &self.node.late {
                let change = &self.changes[probe.port];
                let late = probe.late_rows(change, context.watermark_before)?;
                self.late.extend(late.map(|rows| (probe.port, rows)));
            }
            self.node.compute(&self.changes, &mut context, pass.pool.is_some())
        }));
        self.context.absorb(context);
        self.node.rows_in += self.changes.iter().map(|change| change.len() as u64).sum::<u64>();
        self.node.rows_out += given.into_inner();
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
        // Shards give parts one at a time, but wait for each other.
        self.node.busy += started.elapsed().saturating_sub(elsewhere.into_inner());
    }
}

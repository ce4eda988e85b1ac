//! Views in and out of the circuit.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{Array, UInt32Array};
use arrow::datatypes::Schema;
use dataflow::{Operator, Tick, Watermark, ZSet};
use datafusion::physical_expr::PhysicalExpr;
use sql::RelationId;

use super::shard::Sharded;
use super::{Circuit, Computation, Node, NodeId};
use crate::operators::aggregate::Aggregate;
use crate::operators::asof_join::{AsofJoin, AsofJoinSpec};
use crate::operators::changelog::Changelog;
use crate::operators::constant::Constant;
use crate::operators::hop_aggregate::HopAggregate;
use crate::operators::join::{Join, JoinSpec, Residual};
use crate::operators::match_recognize::MatchRecognize;
use crate::operators::match_recognize::updating::UpdatingMatchRecognize;
use crate::operators::over::{Over, OverSpec};
use crate::operators::temporal_buffer::TemporalBuffer;
use crate::operators::temporal_filter::TemporalFilter;
use crate::operators::top_n::{TopN, TopNSpec};
use crate::operators::{Expiry, microseconds};
use crate::plan::{Grid, MapSpec, PlanKind, PlanNode, StreamPlan};
use crate::watermarks::{Probe, Watermarks};

/// Finds the rows that a windowed operator is going to ignore.
#[derive(Clone, Copy, Debug)]
pub struct LateProbe {
    /// The input that is looked at.
    pub port: usize,
    column: usize,
    /// `None`: the column's value plus the expiry's `add_us` is the end. `Some`: the end is that of the first window
    /// of the grid after the column's value.
    grid: Option<Grid>,
    add_us: i64,
    allowed_lateness_us: i64,
}

impl LateProbe {
    fn expiry(port: usize, expiry: Expiry) -> LateProbe {
        LateProbe {
            port,
            column: expiry.column,
            grid: None,
            add_us: expiry.add_us,
            allowed_lateness_us: expiry.allowed_lateness_us,
        }
    }

    fn end_us(&self, value_us: i64) -> i64 {
        let end = match self.grid {
            Some(grid) => grid.first_close_us(value_us),
            None => value_us.saturating_add(self.add_us),
        };
        end.saturating_add(self.allowed_lateness_us)
    }

    /// Numbers of the late rows; `None` without any.
    pub fn late_rows(&self, change: &ZSet, watermark: Watermark) -> dataflow::Result<Option<UInt32Array>> {
        if watermark == Watermark::MIN || change.is_empty() {
            return Ok(None);
        }
        let times = microseconds(change.rows().column(self.column))?;
        let late = |row: usize| times.is_valid(row) && watermark.closes(self.end_us(times.value(row)));
        let oldest = arrow::compute::min(&times);
        if !oldest.is_some_and(|t| watermark.closes(self.end_us(t))) {
            return Ok(None);
        }
        let rows = (0..times.len()).filter(|row| late(*row)).map(|row| row as u32);
        Ok(Some(UInt32Array::from_iter_values(rows)))
    }
}

impl Circuit {
    /// Adds what `plan` needs and is not there yet; the result is the view's node. `views` gives the nodes of
    /// materialized views that plans may read.
    pub fn add_view(
        &mut self,
        view: RelationId,
        plan: &StreamPlan,
        views: &HashMap<RelationId, NodeId>,
        watermarks: &mut Watermarks,
    ) -> dataflow::Result<NodeId> {
        let mut ids = Vec::with_capacity(plan.nodes.len());
        for node in &plan.nodes {
            if let PlanKind::Source { relation, .. } = &node.kind
                && let Some(id) = views.get(relation)
            {
                self.use_node(*id, view);
                ids.push(*id);
                continue;
            }
            let inputs: Vec<NodeId> = node.inputs.iter().map(|i| ids[*i]).collect();
            let id = match self.by_signature.get(&node.signature) {
                Some(id) => *id,
                None => self.add_node(node, inputs, watermarks)?,
            };
            self.use_node(id, view);
            ids.push(id);
        }
        let root = *ids.last().expect("a plan has nodes");
        self.give_rows(root, view);
        Ok(root)
    }

    /// Records that the node's rows are those of `view`.
    fn give_rows(&mut self, root: NodeId, view: RelationId) {
        self.nodes[root].as_mut().expect("was just added or found").results.insert(view);
        self.find_divisible();
    }

    /// Finds the nodes whose output may be divided.
    fn find_divisible(&mut self) {
        let mut stack: Vec<NodeId> = Vec::new();
        for node in self.nodes.iter_mut().flatten() {
            node.divisible = true;
            if node.order.is_some() {
                stack.extend(node.inputs.iter().copied());
            }
        }
        while let Some(id) = stack.pop() {
            let node = self.nodes[id].as_mut().expect("inputs of live nodes are live");
            if std::mem::replace(&mut node.divisible, false) {
                stack.extend(node.inputs.iter().copied());
            }
        }
    }

    /// Records that `view` stands on the node and all below it.
    fn use_node(&mut self, id: NodeId, view: RelationId) {
        let mut stack = vec![id];
        while let Some(id) = stack.pop() {
            let node = self.nodes[id].as_mut().expect("inputs of live nodes are live");
            if node.users.insert(view) {
                stack.extend(node.inputs.iter().copied());
            }
        }
    }

    fn add_node(
        &mut self,
        plan: &PlanNode,
        inputs: Vec<NodeId>,
        watermarks: &mut Watermarks,
    ) -> dataflow::Result<NodeId> {
        let input_schemas: Vec<_> = inputs.iter().map(|i| Arc::clone(&self.node(*i).plan.schema)).collect();
        let tables = |id: &NodeId| self.node(*id).plan.properties.watermarks.iter().copied().collect();
        let input_tables = inputs.iter().map(tables).collect();
        let computation = self.computation(plan, &input_schemas)?;
        let level = inputs.iter().map(|i| self.node(*i).level + 1).max().unwrap_or(0);
        let failed = inputs.iter().find_map(|i| self.node(*i).failed.clone());
        let late = late_probes(plan);
        let order = self.order_of(&plan.kind, &inputs);
        let delay_us = inputs.iter().map(|i| self.node(*i).plan.properties.delay_us).max().unwrap_or(0);
        // Operators without windows see no watermark: nothing of theirs depends on it.
        let group = (!late.is_empty()).then(|| watermarks.group(&plan.properties.watermarks));
        for late in &late {
            let group = group.expect("there is one with the first probe");
            let grid = late.grid.unwrap_or_else(|| grid_of(plan));
            watermarks.add_probe(Probe { group, grid, allowed_lateness_us: late.allowed_lateness_us });
        }
        let id = self.nodes.len();
        self.nodes.push(Some(Node {
            plan: plan.clone(),
            inputs,
            input_schemas,
            input_tables,
            computation,
            users: BTreeSet::new(),
            results: BTreeSet::new(),
            divisible: true,
            group,
            watermark: Watermark::MIN,
            late,
            delay_us,
            order,
            clocked: matches!(plan.kind, PlanKind::TemporalFilter(_)),
            clock_seen: None,
            level,
            started: false,
            busy: Duration::ZERO,
            rows_in: 0,
            rows_out: 0,
            failed,
            as_of: None,
            changed: Tick::default(),
        }));
        self.by_signature.insert(plan.signature.clone(), id);
        Ok(id)
    }

    fn computation(
        &self,
        plan: &PlanNode,
        inputs: &[arrow::datatypes::SchemaRef],
    ) -> dataflow::Result<Computation> {
        Ok(match &plan.kind {
            PlanKind::Source { relation, .. } => Computation::Source(*relation),
            PlanKind::Map(spec) => Computation::Map(Arc::clone(spec)),
            PlanKind::Unnest(spec) => Computation::Unnest(Arc::clone(spec)),
            PlanKind::Expand(spec) => Computation::Expand(Arc::clone(spec)),
            PlanKind::Union => Computation::Union,
            _ => {
                let keys = keys_of(&plan.kind);
                // One operator per worker when there is a key to divide by, else a single one.
                if self.workers == 1 || keys.iter().any(Vec::is_empty) {
                    return Ok(Computation::Single(operator(plan, inputs)?));
                }
                let operators = (0..self.workers).map(|_| operator(plan, inputs));
                let operators = operators.collect::<dataflow::Result<Vec<_>>>()?;
                Computation::Sharded(Sharded::new(operators, keys, self.seed))
            }
        })
    }

    /// Forgets a view and the nodes that served nobody else.
    pub fn drop_view(&mut self, view: RelationId) {
        for slot in &mut self.nodes {
            let Some(node) = slot else { continue };
            node.users.remove(&view);
            node.results.remove(&view);
            if node.users.is_empty() {
                self.by_signature.remove(&node.plan.signature);
                *slot = None;
            }
        }
        self.find_divisible();
    }

    /// Moves views that were built in a circuit of their own, given with their nodes, into this one. Nodes that exist here
    /// already have the same state, because both saw the same records; the others bring theirs along.
    pub fn adopt(
        &mut self,
        views: &[(RelationId, NodeId)],
        built: Circuit,
        watermarks: &mut Watermarks,
    ) -> Vec<NodeId> {
        let mut ids: HashMap<NodeId, NodeId> = HashMap::new();
        for (old, node) in built.nodes.into_iter().enumerate() {
            let Some(mut node) = node else { continue };
            let id = match self.by_signature.get(&node.plan.signature) {
                Some(id) => *id,
                None => {
                    for input in &mut node.inputs {
                        *input = ids[input];
                    }
                    node.users.clear();
                    node.results.clear();
                    node.level = node.inputs.iter().map(|i| self.node(*i).level + 1).max().unwrap_or(0);
                    for late in &node.late {
                        let group = watermarks.group(&node.plan.properties.watermarks);
                        let grid = late.grid.unwrap_or_else(|| grid_of(&node.plan));
                        watermarks.add_probe(Probe {
                            group,
                            grid,
                            allowed_lateness_us: late.allowed_lateness_us,
                        });
                        watermarks.raise(group, Watermark(node.watermark.0.saturating_add(node.delay_us)));
                        node.group = Some(group);
                    }
                    let id = self.nodes.len();
                    self.by_signature.insert(node.plan.signature.clone(), id);
                    self.nodes.push(Some(node));
                    id
                }
            };
            ids.insert(old, id);
        }
        let adopt = |(view, root): &(RelationId, NodeId)| {
            let root = ids[root];
            self.use_node(root, *view);
            self.give_rows(root, *view);
            root
        };
        views.iter().map(adopt).collect()
    }
}

/// The key columns of each input by which a node's state is divided; none, or of no columns, where it can't be.
fn keys_of(kind: &PlanKind) -> Vec<Vec<usize>> {
    let pairs = |on: &[(usize, usize)]| {
        vec![on.iter().map(|(left, _)| *left).collect(), on.iter().map(|(_, right)| *right).collect()]
    };
    match kind {
        PlanKind::Aggregate(spec) => vec![spec.keys.clone()],
        PlanKind::HopAggregate(spec, _) => vec![spec.keys.clone()],
        PlanKind::TopN(spec) => vec![spec.partition.clone()],
        PlanKind::Over(spec) => vec![spec.partition.clone()],
        PlanKind::Join(spec) => pairs(&spec.on),
        PlanKind::AsofJoin(spec) => pairs(&spec.on),
        PlanKind::MatchRecognize(spec) => vec![spec.compiled.pattern.partition_by.clone()],
        _ => vec![Vec::new()],
    }
}

/// The operator of a node that has one.
pub(super) fn operator(
    plan: &PlanNode,
    inputs: &[arrow::datatypes::SchemaRef],
) -> dataflow::Result<Box<dyn Operator>> {
    Ok(match &plan.kind {
        PlanKind::Constant(rows) => Box::new(Constant::new(rows.clone())),
        PlanKind::Aggregate(spec) => Box::new(Aggregate::new(spec.as_ref().clone())?),
        PlanKind::HopAggregate(spec, hop) => Box::new(HopAggregate::new(spec.as_ref().clone(), hop.clone())?),
        PlanKind::TopN(spec) => Box::new(TopN::new(TopNSpec {
            input: Arc::clone(&inputs[0]),
            partition: spec.partition.clone(),
            order: spec.order.clone(),
            limit: spec.limit,
            offset: spec.offset,
            row_number: spec.row_number.clone(),
            output: Arc::clone(&plan.schema),
            expiry: spec.expiry,
            emit: spec.emit,
            append_only: spec.append_only,
        })?),
        PlanKind::Over(spec) => Box::new(Over::new(OverSpec {
            input: Arc::clone(&inputs[0]),
            partition: spec.partition.clone(),
            order: spec.order.clone(),
            calls: spec.calls.clone(),
            output: Arc::clone(&plan.schema),
            release: spec.release,
            emit: spec.emit,
        })?),
        PlanKind::Join(spec) => Box::new(Join::new(JoinSpec {
            kind: spec.kind,
            left: Arc::clone(&inputs[0]),
            right: Arc::clone(&inputs[1]),
            on: spec.on.clone(),
            null_equals_null: spec.null_equals_null,
            residual: spec.residual.as_ref().map(residual),
            time: spec.time,
            emit: spec.emit,
            lookup: spec.lookup,
            output: Arc::clone(&plan.schema),
        })?),
        PlanKind::AsofJoin(spec) => Box::new(AsofJoin::new(AsofJoinSpec {
            left: Arc::clone(&inputs[0]),
            right: Arc::clone(&inputs[1]),
            on: spec.on.clone(),
            time: spec.time,
            comparison: spec.comparison,
            outer: spec.outer,
            late: spec.late,
            emit: spec.emit,
            output: Arc::clone(&plan.schema),
        })?),
        PlanKind::MatchRecognize(spec) => {
            let compiled = Arc::clone(&spec.compiled);
            match spec.expiry {
                Some(_) => Box::new(MatchRecognize::new(compiled)?),
                None => Box::new(UpdatingMatchRecognize::new(compiled)?),
            }
        }
        PlanKind::TemporalFilter(spec) => Box::new(TemporalFilter::new(spec.as_ref().clone(), &inputs[0])?),
        PlanKind::Changelog { key } => Box::new(Changelog::new(&inputs[0], key.clone(), &plan.schema)?),
        PlanKind::Buffer(expiry) => Box::new(TemporalBuffer::new(Arc::clone(&plan.schema), *expiry)?),
        PlanKind::Source { .. }
        | PlanKind::Map(_)
        | PlanKind::Unnest(_)
        | PlanKind::Expand(_)
        | PlanKind::Union => {
            return Err(dataflow::Error::Operator(format!("{} has no operator", crate::plan::what(plan))));
        }
    })
}

fn late_probes(plan: &PlanNode) -> Vec<LateProbe> {
    let only = |expiry: Option<Expiry>| expiry.map(|e| LateProbe::expiry(0, e)).into_iter().collect();
    match &plan.kind {
        PlanKind::Aggregate(spec) => only(spec.expiry),
        PlanKind::TopN(spec) => only(spec.expiry),
        PlanKind::Over(spec) => only(spec.release.expiry()),
        PlanKind::Buffer(expiry) => only(Some(*expiry)),
        // The buffer below lets no late row through; the watermark is what the operator needs.
        PlanKind::MatchRecognize(spec) => only(spec.expiry),
        PlanKind::HopAggregate(_, hop) if !plan.properties.watermarks.is_empty() => vec![LateProbe {
            port: 0,
            column: hop.time_column,
            grid: Some(Grid { period_us: hop.slide_us, offset_us: hop.offset_us }),
            add_us: 0,
            allowed_lateness_us: hop.allowed_lateness_us,
        }],
        PlanKind::AsofJoin(spec) => {
            let sides = spec.late.iter().flatten().enumerate();
            sides.map(|(port, expiry)| LateProbe::expiry(port, *expiry)).collect()
        }
        PlanKind::Join(spec) => {
            let sides = spec.time.iter().enumerate();
            sides.filter_map(|(port, time)| Some(LateProbe::expiry(port, time.late?))).collect()
        }
        _ => Vec::new(),
    }
}

/// A join's further predicate as the operator takes it; where it fails for a pair, the pair is not joined.
fn residual(predicate: &Arc<dyn PhysicalExpr>) -> Residual {
    let spec =
        MapSpec { filter: Some(Arc::clone(predicate)), projection: None, output: Arc::new(Schema::empty()) };
    Box::new(move |rows, ctx| Ok(spec.mask(rows, ctx)?.expect("there is a filter")))
}

/// Closing times of an operator that is keyed by a window bound.
fn grid_of(plan: &PlanNode) -> Grid {
    use crate::plan::TimeKind;
    let column = match &plan.kind {
        PlanKind::Join(spec) => return spec.grid,
        // As long as a match may take, a source that fell silent has something to wait for.
        PlanKind::MatchRecognize(spec) => {
            let within = spec.compiled.pattern.within_us;
            return within.map_or(Grid::POINT, |period_us| Grid { period_us, offset_us: 0 });
        }
        PlanKind::TopN(spec) => spec.expiry.map(|e| e.column),
        PlanKind::Over(spec) => spec.release.expiry().map(|e| e.column),
        PlanKind::Aggregate(spec) => spec.expiry.and_then(|e| spec.keys.iter().position(|k| *k == e.column)),
        PlanKind::Buffer(expiry) => Some(expiry.column),
        _ => None,
    };
    match column.and_then(|c| plan.properties.time[c]) {
        Some(TimeKind::WindowStart { grid, .. } | TimeKind::WindowEnd { grid }) => grid,
        _ => Grid::POINT,
    }
}

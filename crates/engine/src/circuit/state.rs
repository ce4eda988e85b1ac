//! What the nodes remember, saved and opened again, node by node.
//!
//! Nodes need not be saved at the same tick: each knows as of which it was, and a replay passes over the steps that are in
//! it already. That is right as long as no node is saved before one that it reads: what a node gives while others pass
//! over the step is needed by nobody.

use std::collections::HashMap;
use std::time::Duration;

use dataflow::{Error, KeyPart, Result, StateReader, StateWriter, Tick, Watermark};

use super::shard::load;
use super::{Circuit, Computation, Node, NodeId, build};

/// A node's state but for what its operators remember.
#[derive(Clone, Debug)]
pub struct NodeState {
    pub signature: String,
    pub as_of: Tick,
    watermark: Watermark,
    clock_seen: Option<i64>,
    started: bool,
    busy: Duration,
    rows_in: u64,
    rows_out: u64,
    failed: Option<String>,
}

impl NodeState {
    pub fn save(&self, out: &mut StateWriter) {
        out.text(&self.signature);
        out.u64(self.as_of.0);
        out.i64(self.watermark.0);
        out.option(self.clock_seen, StateWriter::i64);
        out.bool(self.started);
        out.u64(self.busy.as_nanos() as u64);
        out.u64(self.rows_in);
        out.u64(self.rows_out);
        out.option(self.failed.as_deref(), StateWriter::text);
    }

    /// # Errors
    /// When it is not what [`NodeState::save`] wrote.
    pub fn load(saved: &mut StateReader<'_>) -> Result<NodeState> {
        Ok(NodeState {
            signature: saved.text()?.to_string(),
            as_of: Tick(saved.u64()?),
            watermark: Watermark(saved.i64()?),
            clock_seen: saved.option(StateReader::i64)?,
            started: saved.bool()?,
            busy: Duration::from_nanos(saved.u64()?),
            rows_in: saved.u64()?,
            rows_out: saved.u64()?,
            failed: saved.option(StateReader::text)?.map(str::to_string),
        })
    }
}

impl Circuit {
    /// The nodes that remember something, none before one that it reads.
    pub fn stateful(&self) -> Vec<NodeId> {
        let mut nodes: Vec<(usize, NodeId)> =
            self.live().filter(|(_, node)| node.is_stateful()).map(|(id, node)| (node.level, id)).collect();
        nodes.sort_unstable();
        nodes.into_iter().map(|(_, id)| id).collect()
    }

    /// When the node ran last, and its name among all circuits with the same views.
    pub fn changed(&self, id: NodeId) -> (Tick, &str) {
        let node = self.node(id);
        (node.changed, &node.plan.signature)
    }

    /// The node as it is at `tick`, no step being under way, without what its operators remember.
    pub fn node_state(&self, id: NodeId, tick: Tick) -> NodeState {
        let node = self.node(id);
        NodeState {
            signature: node.plan.signature.clone(),
            as_of: tick,
            watermark: node.watermark,
            clock_seen: node.clock_seen,
            started: node.started,
            busy: node.busy,
            rows_in: node.rows_in,
            rows_out: node.rows_out,
            failed: node.failed.clone(),
        }
    }

    /// What the node's operators remember, shard by shard.
    ///
    /// # Errors
    /// When one can't be saved.
    pub fn save_node(&mut self, id: NodeId) -> Result<Vec<Vec<u8>>> {
        let node = self.nodes[id].as_mut().expect("the node was not dropped");
        match &mut node.computation {
            Computation::Single(operator) => {
                let mut out = StateWriter::new();
                operator.save(KeyPart::ALL, &mut out)?;
                Ok(vec![out.into_bytes()])
            }
            Computation::Sharded(sharded) => match &self.pool {
                Some(pool) => pool.install(|| sharded.save(true)),
                None => sharded.save(false),
            },
            _ => Ok(Vec::new()),
        }
    }

    /// Opens the states of all nodes that remember something.
    ///
    /// # Errors
    /// When one is missing or can't be read; the circuit is then not to be used any more.
    pub fn load(
        &mut self,
        states: &[NodeState],
        mut read: impl FnMut(usize) -> Result<Vec<Vec<u8>>>,
    ) -> Result<()> {
        let numbers: HashMap<&str, usize> =
            states.iter().enumerate().map(|(number, state)| (state.signature.as_str(), number)).collect();
        for node in self.nodes.iter_mut().flatten().filter(|node| node.is_stateful()) {
            let number = numbers.get(node.plan.signature.as_str()).ok_or_else(|| {
                Error::State(format!("there is none for {}", crate::plan::what(&node.plan)))
            })?;
            node.load(&states[*number], &read(*number)?)?;
        }
        Ok(())
    }
}

impl Circuit {
    /// No step comes any more that is in some state already.
    pub fn end_restoring(&mut self) {
        self.nodes.iter_mut().flatten().for_each(|node| node.as_of = None);
    }
}

impl Node {
    fn is_stateful(&self) -> bool {
        matches!(self.computation, Computation::Single(_) | Computation::Sharded(_))
    }

    fn load(&mut self, state: &NodeState, saved: &[Vec<u8>]) -> Result<()> {
        match &mut self.computation {
            // Operators that ran already, for what they give without input, are of no use.
            Computation::Single(operator) => {
                *operator = build::operator(&self.plan, &self.input_schemas)?;
                saved.iter().try_for_each(|saved| load(operator, saved))?;
            }
            Computation::Sharded(sharded) => {
                sharded.load(saved, || build::operator(&self.plan, &self.input_schemas))?;
            }
            _ => return Err(Error::State(format!("{} has no state", crate::plan::what(&self.plan)))),
        }
        self.as_of = Some(state.as_of);
        self.changed = state.as_of;
        self.watermark = state.watermark;
        self.clock_seen = state.clock_seen;
        self.started = state.started;
        self.busy = state.busy;
        self.rows_in = state.rows_in;
        self.rows_out = state.rows_out;
        self.failed.clone_from(&state.failed);
        Ok(())
    }
}

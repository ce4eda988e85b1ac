//! A keyed operator split by key: each shard owns the keys that hash to it.

use std::sync::Arc;

use arrow::array::{ArrayRef, UInt32Array};
use arrow::datatypes::SchemaRef;
use dataflow::{Operator, StateSize, StepContext, ZSet};
use datafusion::common::hash_utils::{RandomState, create_hashes};
use rayon::prelude::*;

/// Several instances of one operator, rows exchanged by the hash of their key columns.
pub struct Sharded {
    operators: Vec<Box<dyn Operator>>,
    /// Key columns of each input port.
    keys: Vec<Vec<usize>>,
    /// Private to the process: senders choose keys, and must not choose which shard is overloaded.
    hash_state: RandomState,
    output: SchemaRef,
}

impl Sharded {
    pub fn new(operators: Vec<Box<dyn Operator>>, keys: Vec<Vec<usize>>) -> Sharded {
        assert!(operators.len() > 1, "one shard needs no exchange");
        let output = operators[0].schema();
        let seed = dataflow::random_state().hash_one("shards");
        Sharded { operators, keys, hash_state: RandomState::with_seed(seed), output }
    }

    pub fn step(&mut self, inputs: &[ZSet], ctx: &mut StepContext, parallel: bool) -> dataflow::Result<ZSet> {
        let shards = self.operators.len();
        let mut split: Vec<Vec<ZSet>> = (0..shards).map(|_| Vec::with_capacity(inputs.len())).collect();
        for (input, keys) in inputs.iter().zip(&self.keys) {
            for (shard, part) in self.exchange(input, keys)?.into_iter().enumerate() {
                split[shard].push(part);
            }
        }
        let contexts: Vec<StepContext> = (0..shards).map(|_| ctx.fork()).collect();
        let mut work: Vec<_> = self.operators.iter_mut().zip(split).zip(contexts).collect();
        let run = |((operator, inputs), ctx): &mut ((&mut Box<dyn Operator>, Vec<ZSet>), StepContext)| {
            operator.step(inputs, ctx)
        };
        let outputs: Vec<dataflow::Result<ZSet>> = if parallel {
            work.par_iter_mut().map(run).collect()
        } else {
            work.iter_mut().map(run).collect()
        };
        for (_, reported) in work {
            ctx.absorb(reported);
        }
        ZSet::concat(&self.output, &outputs.into_iter().collect::<dataflow::Result<Vec<_>>>()?)
    }

    fn exchange(&self, input: &ZSet, keys: &[usize]) -> dataflow::Result<Vec<ZSet>> {
        let shards = self.operators.len();
        if input.is_empty() {
            return Ok(vec![input.clone(); shards]);
        }
        let columns: Vec<ArrayRef> = keys.iter().map(|k| Arc::clone(input.rows().column(*k))).collect();
        let mut hashes = vec![0; input.len()];
        create_hashes(&columns, &self.hash_state, &mut hashes)
            .map_err(|e| dataflow::Error::Operator(e.to_string()))?;
        let mut indices: Vec<Vec<u32>> = vec![Vec::with_capacity(input.len() / shards + 16); shards];
        for (row, hash) in hashes.iter().enumerate() {
            // The high bits: hash tables inside use the low ones of their own hash.
            let shard = ((hash >> 32) * shards as u64) >> 32;
            indices[shard as usize].push(row as u32);
        }
        indices.into_iter().map(|rows| input.take(&UInt32Array::from(rows))).collect()
    }

    pub fn state_size(&self) -> StateSize {
        self.operators.iter().map(|o| o.state_size()).fold(StateSize::default(), |a, b| a + b)
    }
}

//! A keyed operator split by key: each shard owns the keys that hash to it.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, UInt32Array};
use arrow::datatypes::SchemaRef;
use dataflow::{KeyPart, Operator, StateReader, StateSize, StateWriter, StepContext, ZSet};
use datafusion::common::hash_utils::{RandomState, create_hashes};
use rayon::prelude::*;

/// Several instances of one operator, rows exchanged by the hash of their key columns.
pub struct Sharded {
    operators: Vec<Box<dyn Operator>>,
    /// Key columns of each input port.
    keys: Vec<Vec<usize>>,
    hash_state: RandomState,
    output: SchemaRef,
}

impl Sharded {
    pub fn new(operators: Vec<Box<dyn Operator>>, keys: Vec<Vec<usize>>, seed: u64) -> Sharded {
        assert!(operators.len() > 1, "one shard needs no exchange");
        let output = operators[0].schema();
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
        let mut indices: Vec<Vec<u32>> = vec![Vec::with_capacity(input.len() / shards + 16); shards];
        for (row, shard) in self.shards_of(&columns)?.into_iter().enumerate() {
            indices[shard].push(row as u32);
        }
        indices.into_iter().map(|rows| input.take(&UInt32Array::from(rows))).collect()
    }

    /// The shard of each key.
    fn shards_of(&self, keys: &[ArrayRef]) -> dataflow::Result<Vec<usize>> {
        let mut hashes = vec![0; keys.first().map_or(0, |column| column.len())];
        create_hashes(keys, &self.hash_state, &mut hashes)
            .map_err(|e| dataflow::Error::Operator(e.to_string()))?;
        // The high bits: hash tables inside use the low ones of their own hash.
        let shard = |hash: u64| ((hash >> 32) * self.operators.len() as u64) >> 32;
        Ok(hashes.into_iter().map(|hash| shard(hash) as usize).collect())
    }

    /// What each shard remembers.
    pub fn save(&mut self, parallel: bool) -> dataflow::Result<Vec<Vec<u8>>> {
        let save = |operator: &mut Box<dyn Operator>| {
            let mut out = StateWriter::new();
            operator.save(KeyPart::ALL, &mut out)?;
            Ok(out.into_bytes())
        };
        if parallel {
            self.operators.par_iter_mut().map(save).collect()
        } else {
            self.operators.iter_mut().map(save).collect()
        }
    }

    /// Begins anew with what shards saved that were divided by the same seed. Where they were not as many, one `operator`
    /// gets the keys of all, and they are divided anew.
    pub fn load(
        &mut self,
        saved: &[Vec<u8>],
        operator: impl Fn() -> dataflow::Result<Box<dyn Operator>>,
    ) -> dataflow::Result<()> {
        for shard in &mut self.operators {
            *shard = operator()?;
        }
        if saved.len() == self.operators.len() {
            return self
                .operators
                .iter_mut()
                .zip(saved)
                .try_for_each(|(operator, saved)| load(operator, saved));
        }
        let mut whole = operator()?;
        saved.iter().try_for_each(|saved| load(&mut whole, saved))?;
        for shard in 0..self.operators.len() {
            let pick = |keys: &[ArrayRef]| {
                let shards = self.shards_of(keys)?;
                Ok(shards.into_iter().map(|of| Some(of == shard)).collect::<BooleanArray>())
            };
            let mut out = StateWriter::new();
            whole.save(KeyPart::of(&pick), &mut out)?;
            load(&mut self.operators[shard], &out.into_bytes())?;
        }
        Ok(())
    }

    pub fn state_size(&self) -> StateSize {
        self.operators.iter().map(|o| o.state_size()).fold(StateSize::default(), |a, b| a + b)
    }
}

/// Takes in what one operator saved, all of it.
pub fn load(operator: &mut Box<dyn Operator>, saved: &[u8]) -> dataflow::Result<()> {
    let mut reader = StateReader::new(saved);
    operator.load(&mut reader)?;
    reader.finish()
}

//! MATCH_RECOGNIZE over rows that change: the partitions that a step touches are matched anew.
//!
//! What a partition gave before is not kept but computed again from its rows before the step, so that the state is
//! the rows alone.
//!
//! State: all rows of a partition, dropped when they are deleted. No row is late.
//! Cost: two matchings of every partition that a step touches, whatever the number of its changed rows.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use dataflow::{Error, KeyPart, Operator, Result, StateReader, StateSize, StateWriter, StepContext, ZSet};
use sql::match_recognize::{Compiled, Sorter, match_all};

use super::{OrNull, operator_error};
use crate::bag::Bag;
use crate::row_codec::{RowCodec, batch_of, consolidate};

pub struct UpdatingMatchRecognize {
    compiled: Arc<Compiled>,
    sorter: Sorter,
    key_codec: RowCodec,
    row_codec: RowCodec,
    output_codec: RowCodec,
    // Whole rows by partition.
    rows: Bag,
}

const STATE_VERSION: u8 = 1;

impl UpdatingMatchRecognize {
    /// # Errors
    /// If a column's type has no order.
    pub fn new(compiled: Arc<Compiled>) -> Result<UpdatingMatchRecognize> {
        let all: Vec<usize> = (0..compiled.input.fields().len()).collect();
        let shown: Vec<usize> = (0..compiled.output.fields().len()).collect();
        Ok(UpdatingMatchRecognize {
            sorter: Sorter::new(&compiled.pattern, &compiled.input).map_err(operator_error)?,
            key_codec: RowCodec::for_columns(&compiled.input, &compiled.pattern.partition_by)?,
            row_codec: RowCodec::for_columns(&compiled.input, &all)?,
            output_codec: RowCodec::for_columns(&compiled.output, &shown)?,
            rows: Bag::new(),
            compiled,
        })
    }

    /// The matches of these partitions as their rows are now.
    fn matches(&self, keys: &[u32], ctx: &mut StepContext) -> Result<RecordBatch> {
        let mut rows: Vec<&[u8]> = Vec::new();
        let mut weights = Vec::new();
        for row in keys.iter().flat_map(|key| self.rows.rows_at(*key)) {
            // A row that is deleted before it came will cancel out; it is not there yet.
            if row.weight > 0 {
                rows.push(row.row);
                weights.push(row.weight);
            }
        }
        if rows.is_empty() {
            return Ok(RecordBatch::new_empty(Arc::clone(&self.compiled.output)));
        }
        let batch = batch_of(&self.compiled.input, self.row_codec.decode(&rows)?, rows.len())?;
        let sorted = self.sorter.sort(&batch, |row| weights[row]).map_err(operator_error)?;
        let sizes = sorted.partitions.iter().map(|(_, count)| *count);
        match_all(&self.compiled, sorted.rows, sizes, &mut OrNull { ctx }).map_err(operator_error)
    }
}

impl Operator for UpdatingMatchRecognize {
    fn name(&self) -> &'static str {
        "match_recognize"
    }

    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.compiled.output)
    }

    fn step(&mut self, inputs: &[ZSet], ctx: &mut StepContext) -> Result<ZSet> {
        let [input] = inputs else {
            return Err(Error::Operator(format!("match_recognize takes one input, not {}", inputs.len())));
        };
        if input.is_empty() {
            return Ok(ZSet::empty(self.schema()));
        }
        let columns: Vec<usize> = (0..input.rows().num_columns()).collect();
        let keys = self.key_codec.encode_columns(input.rows(), &self.compiled.pattern.partition_by)?;
        let rows = self.row_codec.encode_columns(input.rows(), &columns)?;
        let mut touched: Vec<u32> = keys.iter().map(|key| self.rows.insert_key(key).0).collect();
        touched.sort_unstable();
        touched.dedup();
        // What fails in the rows as they were was reported when they came.
        let before = self.matches(&touched, &mut StepContext::default())?;
        for (row, (key, bytes)) in keys.iter().zip(rows.iter()).enumerate() {
            let (key, _) = self.rows.insert_key(key);
            let update = self.rows.update_at(key, bytes, input.weight(row));
            self.rows.release(update.entry);
        }
        let after = self.matches(&touched, ctx)?;
        for key in touched {
            self.rows.remove_key_if_empty(key);
        }
        let change =
            ZSet::concat(&self.compiled.output, &[ZSet::inserts(before).negate(), ZSet::inserts(after)])?;
        consolidate(&change, &self.output_codec)
    }

    fn save(&self, part: KeyPart<'_>, out: &mut StateWriter) -> Result<()> {
        out.u8(STATE_VERSION);
        self.rows.save(&self.rows.slots_of(&self.key_codec, part)?, out, |_, _| {});
        Ok(())
    }

    fn load(&mut self, saved: &mut StateReader<'_>) -> Result<()> {
        saved.version(STATE_VERSION)?;
        self.rows.load(saved, |_, _| Ok(())).map(drop)
    }

    fn state_size(&self) -> StateSize {
        StateSize { rows: self.rows.len(), bytes: self.rows.size_bytes() }
    }
}

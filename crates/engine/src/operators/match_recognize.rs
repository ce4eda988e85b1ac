//! MATCH_RECOGNIZE over rows that are final: matches leave once, when no later row can change them.
//!
//! ```text
//!   buffer (rows behind the watermark, in any order)
//!      | sort by partition and ORDER BY
//!      v
//!   partition: rows of the attempt under way -- next row, or its time is over --> match, or the next attempt
//! ```
//!
//! State: per partition the rows from the beginning of the attempt under way, dropped when it is decided; WITHIN
//! bounds the time that takes. Patterns with PREV, `^` or MATCH_NUMBER() keep an entry per partition for good.
//! Late rows do not come here: the buffer below counts them.
//! Cost per row: a sort, and for each attempt that it belongs to one step of the pattern's threads.

mod saving;
#[cfg(test)]
mod tests;
pub mod updating;

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::{DataType, SchemaRef};
use dataflow::{
    Error, KeyPart, KeyTable, Operator, Result, StateReader, StateSize, StateWriter, StepContext, Watermark,
    ZSet,
};
use datafusion::error::DataFusionError;
use datafusion::physical_expr::PhysicalExpr;
use sql::match_recognize::{Compiled, Evaluate, Matcher, Partition, Sorter};

use crate::packed_rows::PackedCodec;
use crate::plan::evaluate_or_null;
use crate::row_codec::RowCodec;

pub struct MatchRecognize {
    matcher: Matcher,
    sorter: Sorter,
    // Of the sorter's keys, and of whole rows where they are saved.
    key_codec: RowCodec,
    row_codec: PackedCodec,
    keys: KeyTable,
    // By key slot.
    partitions: Vec<Partition>,
    // Attempts under way, by the time at which they are over.
    deadlines: BTreeSet<(i64, u32)>,
    /// Number of matches, or rows before: the partition has to be remembered.
    remembers: bool,
}

impl MatchRecognize {
    /// # Errors
    /// If a column's type has no order.
    pub fn new(compiled: Arc<Compiled>) -> Result<MatchRecognize> {
        let sorter = Sorter::new(&compiled.pattern, &compiled.input).map_err(operator_error)?;
        let all: Vec<usize> = (0..compiled.input.fields().len()).collect();
        Ok(MatchRecognize {
            key_codec: RowCodec::for_columns(&compiled.input, &compiled.pattern.partition_by)?,
            row_codec: PackedCodec::for_columns(&compiled.input, &all)?,
            remembers: compiled.pattern.remembers_partitions(),
            sorter,
            matcher: Matcher::new(compiled),
            keys: KeyTable::new(),
            partitions: Vec::new(),
            deadlines: BTreeSet::new(),
        })
    }

    /// Takes the rows in and gives the partitions that have new ones.
    fn insert(&mut self, input: &ZSet) -> Result<Vec<usize>> {
        if input.is_empty() {
            return Ok(Vec::new());
        }
        if input.weights().is_some_and(|weights| weights.iter().any(|weight| *weight < 0)) {
            return Err(Error::Operator("match_recognize over final rows got a retraction".to_string()));
        }
        let schema = Arc::clone(&self.matcher.compiled().input);
        let rows = input.rows().clone().with_schema(schema)?;
        let sorted = self.sorter.sort(&rows, |row| input.weight(row)).map_err(operator_error)?;
        let mut groups = Vec::with_capacity(sorted.partitions.len());
        for (key, count) in &sorted.partitions {
            groups.push((self.partition(key).0, *count));
        }
        self.matcher.add(sorted.rows, &mut self.partitions, &groups).map_err(operator_error)?;
        Ok(groups.into_iter().map(|(slot, _)| slot).collect())
    }

    /// The number of the partition with this key, and whether it was made by this call.
    fn partition(&mut self, key: &[u8]) -> (usize, bool) {
        let (slot, new) = self.keys.insert(key);
        if self.partitions.len() <= slot as usize {
            self.partitions.resize_with(slot as usize + 1, Partition::default);
        }
        (slot as usize, new)
    }

    /// Adds the partitions whose attempt is over by now.
    fn add_overdue(&mut self, touched: &mut Vec<usize>, passed: i64) {
        let mut overdue = Vec::new();
        for (deadline, slot) in &self.deadlines {
            if *deadline > passed {
                break;
            }
            overdue.push(*slot as usize);
        }
        touched.extend(overdue);
        touched.sort_unstable();
        touched.dedup();
    }
}

impl Operator for MatchRecognize {
    fn name(&self) -> &'static str {
        "match_recognize"
    }

    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.matcher.compiled().output)
    }

    fn step(&mut self, inputs: &[ZSet], ctx: &mut StepContext) -> Result<ZSet> {
        let [input] = inputs else {
            return Err(Error::Operator(format!("match_recognize takes one input, not {}", inputs.len())));
        };
        // All rows before the watermark are here, so a match that had to be over by then will not come any more.
        let passed = ctx.watermark.0;
        let at_end = ctx.watermark == Watermark::MAX;
        let mut touched = self.insert(input)?;
        self.add_overdue(&mut touched, passed);
        if at_end {
            touched = self.keys.iter().map(|(slot, _)| slot as usize).collect();
            touched.iter().for_each(|slot| self.partitions[*slot].complete());
        }
        if touched.is_empty() {
            return Ok(ZSet::empty(self.schema()));
        }
        let mut evaluator = OrNull { ctx };
        self.matcher.test_rows(&mut self.partitions, &touched, &mut evaluator).map_err(operator_error)?;
        let mut found = Vec::new();
        for slot in &touched {
            let partition = &mut self.partitions[*slot];
            if let Some(deadline) = partition.deadline() {
                self.deadlines.remove(&(deadline, *slot as u32));
            }
            self.matcher.find(partition, passed, &mut found, &mut evaluator).map_err(operator_error)?;
            if let Some(deadline) = partition.deadline() {
                self.deadlines.insert((deadline, *slot as u32));
            }
        }
        let output = self.matcher.output(&found, &mut evaluator).map_err(operator_error)?;
        for slot in touched {
            let partition = &mut self.partitions[slot];
            self.matcher.trim(partition);
            if partition.is_empty() && !self.remembers {
                self.keys.remove(slot as u32);
                self.partitions[slot] = Partition::default();
            }
        }
        self.matcher.compact(&mut self.partitions).map_err(operator_error)?;
        Ok(ZSet::inserts(output))
    }

    fn save(&self, part: KeyPart<'_>, out: &mut StateWriter) -> Result<()> {
        self.save_partitions(part, out)
    }

    fn load(&mut self, saved: &mut StateReader<'_>) -> Result<()> {
        self.load_partitions(saved)
    }

    fn state_size(&self) -> StateSize {
        StateSize {
            rows: self.matcher.rows_len(),
            bytes: self.matcher.size_bytes()
                + self.keys.size_bytes()
                + self.partitions.capacity() * size_of::<Partition>(),
        }
    }
}

/// Expressions that fail are NULL and reported; the view goes on.
pub(super) struct OrNull<'a, 'p> {
    pub(super) ctx: &'a mut StepContext<'p>,
}

impl Evaluate for OrNull<'_, '_> {
    fn evaluate(
        &mut self,
        expr: &dyn PhysicalExpr,
        data_type: &DataType,
        batch: &RecordBatch,
    ) -> Result<ArrayRef, DataFusionError> {
        evaluate_or_null(expr, data_type, batch, self.ctx)
            .map_err(|error| DataFusionError::Execution(error.to_string()))
    }

    fn report(&mut self, text: &str) {
        self.ctx.report_error(|| text.to_string());
    }
}

pub(super) fn operator_error(error: DataFusionError) -> Error {
    Error::Operator(sql::planner::from_datafusion(error, "").message)
}

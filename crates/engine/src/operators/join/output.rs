//! What a step of a join gives, in parts where it is too much for one batch.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use dataflow::{PartSink, Result, ZSet};

/// Bytes of the output that wait at most, before they are given as a part.
const OUTPUT_BYTES_MAX: usize = 128 << 20;

pub struct Output<'a> {
    schema: SchemaRef,
    waiting: Vec<ZSet>,
    rows: usize,
    bytes: usize,
    parts: Option<PartSink<'a>>,
    /// The rows that come are in an order in which no first ones take away what is not there.
    pub ordered: bool,
}

impl<'a> Output<'a> {
    pub fn new(schema: &SchemaRef, parts: Option<PartSink<'a>>) -> Output<'a> {
        Output { schema: Arc::clone(schema), waiting: Vec::new(), rows: 0, bytes: 0, parts, ordered: true }
    }

    /// Adds rows; where they are `ordered`, what waits may go on as a part.
    ///
    /// # Errors
    /// When the rows don't fit one batch.
    pub fn push(&mut self, rows: ZSet) -> Result<()> {
        self.rows += rows.len();
        self.bytes += rows.rows().get_array_memory_size();
        self.waiting.push(rows);
        let Some(parts) = self.parts else { return Ok(()) };
        if !self.ordered || (self.rows < parts.rows && self.bytes < OUTPUT_BYTES_MAX) {
            return Ok(());
        }
        (parts.give)(self.take()?);
        Ok(())
    }

    /// What was not given as a part.
    pub fn rest(mut self) -> Result<ZSet> {
        self.take()
    }

    fn take(&mut self) -> Result<ZSet> {
        (self.rows, self.bytes) = (0, 0);
        ZSet::concat(&self.schema, &std::mem::take(&mut self.waiting))
    }
}

//! Rows that a query brings along: VALUES, a SELECT without FROM, a series of constants.
//!
//! They come once, with the first step. State: none after that.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use dataflow::{Operator, Result, StepContext, ZSet};

/// A relation that never changes.
pub struct Constant {
    schema: SchemaRef,
    /// `None` once they were given.
    rows: Option<RecordBatch>,
}

impl Constant {
    pub fn new(rows: RecordBatch) -> Constant {
        Constant { schema: rows.schema(), rows: Some(rows) }
    }
}

impl Operator for Constant {
    fn name(&self) -> &'static str {
        "values"
    }

    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn step(&mut self, _inputs: &[ZSet], _ctx: &mut StepContext) -> Result<ZSet> {
        Ok(match self.rows.take() {
            Some(rows) => ZSet::inserts(rows),
            None => ZSet::empty(Arc::clone(&self.schema)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{ArrayRef, Int64Array};
    use dataflow::picture::picture;

    #[test]
    fn rows_come_once() {
        let column: ArrayRef = Arc::new(Int64Array::from(vec![Some(1), None, Some(1)]));
        let rows = RecordBatch::try_from_iter([("a", column)]).unwrap();
        let mut constant = Constant::new(rows);
        let out = constant.step(&[], &mut StepContext::default()).unwrap();
        assert_eq!(picture(&[out]), "+ 2  1\n+ 1  NULL\n");
        assert!(constant.step(&[], &mut StepContext::default()).unwrap().is_empty());
    }
}

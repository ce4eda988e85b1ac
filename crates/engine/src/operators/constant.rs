//! Rows that a query brings along: VALUES, a SELECT without FROM, a series of constants.
//!
//! They come once, with the first step. State: none after that.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use dataflow::{KeyPart, Operator, Result, StateReader, StateWriter, StepContext, ZSet};

/// Of the saved state.
const FORMAT_VERSION: u8 = 1;

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

    fn save(&self, _part: KeyPart<'_>, out: &mut StateWriter) -> Result<()> {
        out.u8(FORMAT_VERSION);
        out.bool(self.rows.is_none());
        Ok(())
    }

    fn load(&mut self, saved: &mut StateReader<'_>) -> Result<()> {
        saved.version(FORMAT_VERSION)?;
        if saved.bool()? {
            self.rows = None;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operators::saving::reopened;
    use arrow::array::{ArrayRef, Int64Array};
    use dataflow::picture::picture;

    #[test]
    fn rows_come_once() {
        let column: ArrayRef = Arc::new(Int64Array::from(vec![Some(1), None, Some(1)]));
        let rows = RecordBatch::try_from_iter([("a", column)]).unwrap();
        let make = || Constant::new(rows.clone());
        let mut rng = fastrand::Rng::with_seed(1);
        let mut constant = reopened(&make(), make, &mut rng);
        let out = constant.step(&[], &mut StepContext::default()).unwrap();
        assert_eq!(picture(&[out]), "+ 2  1\n+ 1  NULL\n");
        assert!(constant.step(&[], &mut StepContext::default()).unwrap().is_empty());
        let mut constant = reopened(&constant, make, &mut rng);
        assert!(constant.step(&[], &mut StepContext::default()).unwrap().is_empty());
    }
}

//! What happens to rows, as rows that stay.
//!
//! Where the rows have a key, one that goes and one that comes under the same key in one step are an update. Needs the
//! whole change of a step at once, and steps of one record: [`crate::circuit::Order`].
//!
//! State: none. Cost: each row is encoded once.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int16Array, Int64Array, TimestampMicrosecondArray, UInt32Array};
use arrow::datatypes::SchemaRef;
use dataflow::{Error, KeyPart, KeyTable, Operator, Result, StateReader, StateWriter, StepContext, ZSet};
use sql::changelog::{DELETE, INSERT, UPDATE_DELETE, UPDATE_INSERT};

use crate::row_codec::{RowCodec, batch_of, consolidate};

pub struct Changelog {
    /// All columns: the order of changes within a step.
    rows: RowCodec,
    /// What tells rows apart, and its columns.
    key: Option<(RowCodec, Vec<usize>)>,
    output: SchemaRef,
}

/// Of the saved state, which is nothing else.
const FORMAT_VERSION: u8 = 1;

/// Changes of one step that have numbers of their own; steps are so many apart.
const CHANGES_PER_STEP_LOG2: u32 = 26;

impl Changelog {
    /// # Errors
    /// When a column type can't be kept as row bytes.
    pub fn new(input: &SchemaRef, key: Option<Vec<usize>>, output: &SchemaRef) -> Result<Changelog> {
        let columns: Vec<usize> = (0..input.fields().len()).collect();
        // A key of no columns: one row at most, which is updated.
        let key = key.map(|key| Ok::<_, Error>((RowCodec::for_columns(input, &key)?, key))).transpose()?;
        Ok(Changelog { rows: RowCodec::for_columns(input, &columns)?, key, output: Arc::clone(output) })
    }

    /// By row of a net change, another row of the same key, which comes where this one goes or the other way round.
    fn partners(&self, net: &ZSet) -> Result<Vec<Option<u32>>> {
        let mut partners = vec![None; net.len()];
        let Some((codec, columns)) = &self.key else { return Ok(partners) };
        if net.all_inserts() {
            return Ok(partners);
        }
        let keys = codec.encode_columns(net.rows(), columns)?;
        let mut slots = KeyTable::new();
        let mut first: Vec<u32> = Vec::new();
        for (row, key) in keys.iter().enumerate() {
            let (slot, new) = slots.insert(key);
            if new {
                first.push(row as u32);
                continue;
            }
            let other = first[slot as usize];
            partners[row] = Some(other);
            partners[other as usize] = Some(row as u32);
        }
        Ok(partners)
    }
}

impl Operator for Changelog {
    fn name(&self) -> &'static str {
        "changelog"
    }

    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.output)
    }

    fn step(&mut self, inputs: &[ZSet], ctx: &mut StepContext) -> Result<ZSet> {
        let [change] = inputs else {
            return Err(Error::Operator(format!("a changelog takes one input, not {}", inputs.len())));
        };
        let net = consolidate(change, &self.rows)?;
        if net.is_empty() {
            return Ok(ZSet::empty(self.schema()));
        }
        let partners = self.partners(&net)?;
        let encoded = self.rows.encode(net.rows().columns(), net.len())?;
        // What goes comes before what comes, an update's rows one after the other; else by their values.
        let mut order: Vec<u32> = (0..net.len() as u32).collect();
        let comes = |row: u32| net.weight(row as usize) > 0;
        order.sort_unstable_by_key(|row| {
            let updated = partners[*row as usize].filter(|_| comes(*row));
            (comes(*row) && updated.is_none(), encoded.get(updated.unwrap_or(*row) as usize), comes(*row))
        });
        let mut rows = Vec::new();
        let mut operations = Vec::new();
        for row in order {
            let operation = match (comes(row), partners[row as usize].is_some()) {
                (true, false) => INSERT,
                (false, false) => DELETE,
                (true, true) => UPDATE_INSERT,
                (false, true) => UPDATE_DELETE,
            };
            // Equal rows are changes of their own.
            for _ in 0..net.weight(row as usize).unsigned_abs() {
                rows.push(row);
                operations.push(operation);
            }
        }
        let count = rows.len();
        let first = (ctx.tick.0 << CHANGES_PER_STEP_LOG2) as i64;
        let taken = net.take(&UInt32Array::from(rows))?;
        let mut columns: Vec<ArrayRef> = taken.rows().columns().to_vec();
        columns.push(Arc::new(Int16Array::from(operations)));
        columns.push(Arc::new(Int64Array::from_iter_values(first..first + count as i64)));
        columns.push(Arc::new(
            TimestampMicrosecondArray::from(vec![ctx.received_us; count]).with_timezone("UTC"),
        ));
        Ok(ZSet::inserts(batch_of(&self.output, columns, count)?))
    }

    fn save(&self, _part: KeyPart<'_>, out: &mut StateWriter) -> Result<()> {
        out.u8(FORMAT_VERSION);
        Ok(())
    }

    fn load(&mut self, saved: &mut StateReader<'_>) -> Result<()> {
        saved.version(FORMAT_VERSION)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operators::saving::reopened;
    use arrow::datatypes::{DataType, Field, Schema};

    #[test]
    fn nothing_is_remembered() {
        let schema: SchemaRef = Arc::new(Schema::new(vec![Field::new("a", DataType::Int64, true)]));
        let make = || Changelog::new(&schema, Some(vec![0]), &schema).unwrap();
        reopened(&make(), make, &mut fastrand::Rng::with_seed(1));
        let error = make().load(&mut StateReader::new(&[2])).unwrap_err();
        assert!(matches!(error, Error::State(_)), "{error}");
    }
}

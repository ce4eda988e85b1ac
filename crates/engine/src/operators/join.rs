//! Inner equi-join of two changing inputs.
//!
//! Both sides are remembered under their join key. A step computes
//!
//! ```text
//!   Δ(A ⋈ B)  =  ΔA ⋈ B  +  (A + ΔA) ⋈ ΔB
//! ```
//!
//! The changed side of each term is a batch, so its columns (and the key columns of both sides, which are
//! equal) are gathered from it; only the other columns of the remembered side are decoded from row bytes.
//! State: per side and row, its columns outside the key, under the key's bytes; never dropped by itself.
//! A row whose key has a NULL is neither kept nor matched, unless `null_equals_null`.
//! Cost: per changed row one key lookup and one insertion, and per result row a gather and a decode.
//!
//! Rule: no intermediate batch exceeds [`JOINED_ROWS_MAX`] rows, however hot a key is.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, RecordBatch, UInt32Array};
use arrow::buffer::NullBuffer;
use arrow::compute::take;
use arrow::datatypes::SchemaRef;
use dataflow::{Error, Operator, Result, StateSize, StepContext, ZSet};

use crate::bag::Bag;
use crate::row_codec::{EncodedRows, RowCodec, batch_of};

/// The predicate of a join beyond equality of keys: a mask over joined rows.
pub type Residual = Box<dyn Fn(&RecordBatch) -> Result<BooleanArray> + Send>;

/// Joined rows built before the residual is applied: enough to be vectorised, and small in memory.
pub const JOINED_ROWS_MAX: usize = 32 * 1024;

pub struct JoinSpec {
    pub left: SchemaRef,
    pub right: SchemaRef,
    /// Pairs of a left and a right column number that must be equal, of the same type. None: a cross join.
    pub on: Vec<(usize, usize)>,
    /// `IS NOT DISTINCT FROM` instead of `=`.
    pub null_equals_null: bool,
    /// Given columns as in `output`.
    pub residual: Option<Residual>,
    /// Left columns, then right columns.
    pub output: SchemaRef,
}

/// Input ports: 0 is left, 1 is right.
pub struct Join {
    null_equals_null: bool,
    residual: Option<Residual>,
    output: SchemaRef,
    key_codec: RowCodec,
    left: Side,
    right: Side,
}

/// One input and what is remembered of it.
struct Side {
    key: Vec<usize>,
    // Columns outside the key, in ascending order: what a kept row holds.
    rest: Vec<usize>,
    rest_codec: RowCodec,
    // Per column: where its values come from when this is the remembered side.
    origin: Vec<Origin>,
    rows: Bag,
}

#[derive(Clone, Copy)]
enum Origin {
    /// The n-th key column, equal to the other side's.
    Key(usize),
    /// The n-th column of `rest`.
    Rest(usize),
}

/// An input change with its keys encoded.
struct Delta<'a> {
    change: &'a ZSet,
    keys: EncodedRows,
    // Rows that may match; `None` means all.
    matchable: Option<NullBuffer>,
}

impl Delta<'_> {
    /// Row numbers that may match.
    fn rows(&self) -> impl Iterator<Item = usize> {
        (0..self.change.len()).filter(|row| self.matchable.as_ref().is_none_or(|valid| valid.is_valid(*row)))
    }
}

/// Pairs of a changed and a remembered row, not yet turned into columns.
#[derive(Default)]
struct Pairs<'a> {
    changed: Vec<u32>,
    remembered: Vec<&'a [u8]>,
    weights: Vec<i64>,
}

impl Join {
    /// # Errors
    /// If the types of two key columns differ, or a column type can't be kept as row bytes.
    pub fn new(spec: JoinSpec) -> Result<Join> {
        for (left, right) in &spec.on {
            let (left, right) = (spec.left.field(*left), spec.right.field(*right));
            if left.data_type() != right.data_type() {
                return Err(Error::Operator(format!(
                    "join columns \"{}\" of type {} and \"{}\" of type {} need a cast to one type",
                    left.name(),
                    left.data_type(),
                    right.name(),
                    right.data_type()
                )));
            }
        }
        let left_key: Vec<usize> = spec.on.iter().map(|(left, _)| *left).collect();
        let right_key: Vec<usize> = spec.on.iter().map(|(_, right)| *right).collect();
        Ok(Join {
            key_codec: RowCodec::for_columns(&spec.left, &left_key)?,
            left: Side::new(&spec.left, left_key)?,
            right: Side::new(&spec.right, right_key)?,
            null_equals_null: spec.null_equals_null,
            residual: spec.residual,
            output: spec.output,
        })
    }

    fn delta<'a>(&self, change: &'a ZSet, key: &[usize]) -> Result<Delta<'a>> {
        let keys = self.key_codec.encode_columns(change.rows(), key)?;
        let mut matchable = None;
        if !self.null_equals_null {
            for column in key {
                let nulls = change.rows().column(*column).logical_nulls();
                matchable = NullBuffer::union(matchable.as_ref(), nulls.as_ref());
            }
        }
        Ok(Delta { change, keys, matchable })
    }

    /// Appends the join of a change of one side with the rows of the other to `joined`.
    fn probe(&self, delta: &Delta<'_>, changed_is_left: bool, joined: &mut Vec<ZSet>) -> Result<()> {
        let other = if changed_is_left { &self.right } else { &self.left };
        if other.rows.is_empty() {
            return Ok(());
        }
        let mut pairs = Pairs::default();
        for row in delta.rows() {
            let Some(key) = other.rows.find_key(delta.keys.get(row)) else { continue };
            let weight = delta.change.weight(row);
            for kept in other.rows.rows_at(key) {
                pairs.changed.push(row as u32);
                pairs.remembered.push(kept.row);
                pairs.weights.push(weight * kept.weight);
                if pairs.changed.len() == JOINED_ROWS_MAX {
                    self.flush(delta, changed_is_left, &mut pairs, joined)?;
                }
            }
        }
        self.flush(delta, changed_is_left, &mut pairs, joined)
    }

    fn flush(
        &self,
        delta: &Delta<'_>,
        changed_is_left: bool,
        pairs: &mut Pairs<'_>,
        joined: &mut Vec<ZSet>,
    ) -> Result<()> {
        if pairs.changed.is_empty() {
            return Ok(());
        }
        let (changed, other) =
            if changed_is_left { (&self.left, &self.right) } else { (&self.right, &self.left) };
        let indices = UInt32Array::from(std::mem::take(&mut pairs.changed));
        let gathered: Vec<ArrayRef> = delta
            .change
            .rows()
            .columns()
            .iter()
            .map(|column| Ok(take(column, &indices, None)?))
            .collect::<Result<_>>()?;
        let rest = other.rest_codec.decode(&pairs.remembered)?;
        let remembered: Vec<ArrayRef> = other
            .origin
            .iter()
            .map(|origin| match origin {
                Origin::Key(n) => Arc::clone(&gathered[changed.key[*n]]),
                Origin::Rest(n) => Arc::clone(&rest[*n]),
            })
            .collect();
        let columns = if changed_is_left { [gathered, remembered] } else { [remembered, gathered] }.concat();
        let rows = batch_of(&self.output, columns, indices.len())?;
        let mask = self.residual.as_ref().map(|residual| residual(&rows)).transpose()?;
        let mut result = ZSet::new(rows, std::mem::take(&mut pairs.weights));
        pairs.remembered.clear();
        if let Some(mask) = mask {
            result = result.filter(&mask)?;
        }
        if !result.is_empty() {
            joined.push(result);
        }
        Ok(())
    }
}

impl Side {
    fn new(schema: &SchemaRef, key: Vec<usize>) -> Result<Side> {
        let rest: Vec<usize> = (0..schema.fields().len()).filter(|column| !key.contains(column)).collect();
        let origin = (0..schema.fields().len())
            .map(|column| match key.iter().position(|k| *k == column) {
                Some(n) => Origin::Key(n),
                None => {
                    Origin::Rest(rest.iter().position(|r| *r == column).expect("a column is key or rest"))
                }
            })
            .collect();
        Ok(Side { rest_codec: RowCodec::for_columns(schema, &rest)?, key, rest, origin, rows: Bag::new() })
    }

    fn remember(&mut self, delta: &Delta<'_>) -> Result<()> {
        let rest = self.rest_codec.encode_columns(delta.change.rows(), &self.rest)?;
        for row in delta.rows() {
            self.rows.add(delta.keys.get(row), rest.get(row), delta.change.weight(row));
        }
        Ok(())
    }
}

impl Operator for Join {
    fn name(&self) -> &'static str {
        "join"
    }

    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.output)
    }

    fn step(&mut self, inputs: &[ZSet], _ctx: &mut StepContext) -> Result<ZSet> {
        let [left, right] = inputs else {
            return Err(Error::Operator(format!("join takes two inputs, not {}", inputs.len())));
        };
        let mut joined = Vec::new();
        if !left.is_empty() {
            let delta = self.delta(left, &self.left.key)?;
            self.probe(&delta, true, &mut joined)?;
            self.left.remember(&delta)?;
        }
        if !right.is_empty() {
            let delta = self.delta(right, &self.right.key)?;
            self.probe(&delta, false, &mut joined)?;
            self.right.remember(&delta)?;
        }
        ZSet::concat(&self.output, &joined)
    }

    fn state_size(&self) -> StateSize {
        StateSize {
            rows: self.left.rows.len() + self.right.rows.len(),
            bytes: self.left.rows.size_bytes() + self.right.rows.size_bytes(),
        }
    }
}

#[cfg(test)]
mod tests;

//! Joins of two changing inputs: inner, outer, semi, anti and mark; equal keys, any further predicate, or both.
//!
//! Both sides are remembered under their join key. A step takes the change of the left side against the right as it
//! was, then the change of the right side against the left as it is now:
//!
//! ```text
//!   Δ(A ⋈ B)  =  ΔA ⋈ B  +  (A + ΔA) ⋈ ΔB
//! ```
//!
//! Every kind but the inner join also depends on whether a row has *any* partner ([`Role`]). Without a further
//! predicate all rows of a key have partners or none, so the state of a key is whether the other side has it. With
//! one, each remembered row counts its partners.
//!
//! State: per side and row, its columns outside the key, under the key's bytes, and the count of partners where it is
//! needed. It is dropped when the watermark passes what [`Expiry`] says (window and interval joins), else never.
//! A change behind the watermark, whose partners may be gone, is late and ignored.
//! A row whose key has a NULL is not kept and has no partner, unless `null_equals_null`.
//! Cost: per changed row one key lookup and one insertion, and per result row a gather and a decode; a key or row that
//! gains its first or loses its last partner costs its rows on the other side once.
//!
//! Rule: no intermediate batch exceeds [`JOINED_ROWS_MAX`] rows or [`JOINED_BYTES_MAX`] bytes by more than a row, however
//! hot a key is. Where the circuit takes the output in parts, no more waits than makes one.

mod output;
mod partners;
mod side;

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, RecordBatch, UInt32Array, new_null_array};
use arrow::datatypes::SchemaRef;
use dataflow::{
    Error, KeyPart, Operator, Result, StateReader, StateSize, StateWriter, StepContext, Watermark, ZSet,
};

use super::{Emit, Expiry, microseconds};
use crate::row_codec::{RowCodec, batch_of, consolidate};
use output::Output;
use side::{Delta, Side};

/// The predicate of a join beyond equality of keys: a mask over joined rows. NULL is false.
pub type Residual = Box<dyn Fn(&RecordBatch, &mut StepContext) -> Result<BooleanArray> + Send>;

/// Joined rows built before the residual is applied: enough to be vectorised, and small in memory.
pub const JOINED_ROWS_MAX: usize = 32 * 1024;
/// The same, for rows with long strings.
pub const JOINED_BYTES_MAX: usize = 32 << 20;

/// Of the saved state.
const FORMAT_VERSION: u8 = 1;

/// What a join gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JoinKind {
    /// Pairs.
    Inner,
    /// Pairs, and left rows without partner beside NULLs.
    Left,
    /// Pairs, and right rows without partner beside NULLs.
    Right,
    /// Pairs, and rows of both sides without partner.
    Full,
    /// Left rows with a partner, once each: EXISTS, IN.
    Semi,
    /// Left rows without partner: NOT EXISTS.
    Anti,
    /// Left rows, each with a boolean that says whether it has a partner: EXISTS inside OR.
    Mark,
}

/// Which rows of a side leave the join on their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Never,
    Unmatched,
    Matched,
    Marked,
}

impl JoinKind {
    /// True when joined pairs are part of the result.
    pub fn gives_pairs(self) -> bool {
        matches!(self, JoinKind::Inner | JoinKind::Left | JoinKind::Right | JoinKind::Full)
    }

    fn roles(self) -> [Role; 2] {
        use Role::*;
        match self {
            JoinKind::Inner => [Never, Never],
            JoinKind::Left => [Unmatched, Never],
            JoinKind::Right => [Never, Unmatched],
            JoinKind::Full => [Unmatched, Unmatched],
            JoinKind::Semi => [Matched, Never],
            JoinKind::Anti => [Unmatched, Never],
            JoinKind::Mark => [Marked, Never],
        }
    }
}

/// How long a side's rows matter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct JoinSideTime {
    /// A change of this side is late when this has expired: its partners may be gone.
    pub late: Option<Expiry>,
    /// A remembered row is dropped when this has expired: no partner may come any more.
    pub drop: Option<Expiry>,
}

pub struct JoinSpec {
    pub kind: JoinKind,
    pub left: SchemaRef,
    pub right: SchemaRef,
    /// Pairs of a left and a right column number that must be equal, of the same type. None: a cross join.
    pub on: Vec<(usize, usize)>,
    /// `IS NOT DISTINCT FROM` instead of `=`.
    pub null_equals_null: bool,
    /// Given left columns, then right columns.
    pub residual: Option<Residual>,
    /// Left and right.
    pub time: [JoinSideTime; 2],
    /// With `OnClose`, rows without partner wait until none can come.
    pub emit: Emit,
    /// Left rows meet the right rows that are there when they come, and are forgotten. Inner and left joins only.
    pub lookup: bool,
    /// Left columns, then right columns; for semi and anti the left ones; for mark the left ones and a boolean.
    pub output: SchemaRef,
}

/// Input ports: 0 is left, 1 is right.
pub struct Join {
    kind: JoinKind,
    null_equals_null: bool,
    residual: Option<Residual>,
    emit: Emit,
    lookup: bool,
    /// Left columns, then right columns: what the residual sees.
    joined: SchemaRef,
    output: SchemaRef,
    key_codec: RowCodec,
    sides: [Side; 2],
    /// Rows that are made at once.
    piece_rows: usize,
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
        let fields: Vec<_> = spec.left.fields().iter().chain(spec.right.fields()).cloned().collect();
        let [left_role, right_role] = spec.kind.roles();
        let counts = spec.residual.is_some();
        Ok(Join {
            kind: spec.kind,
            key_codec: RowCodec::for_columns(&spec.left, &left_key)?,
            sides: [
                Side::new(&spec.left, left_key, left_role, spec.time[0], counts)?,
                Side::new(&spec.right, right_key, right_role, spec.time[1], counts)?,
            ],
            null_equals_null: spec.null_equals_null,
            residual: spec.residual,
            emit: spec.emit,
            lookup: spec.lookup,
            piece_rows: JOINED_ROWS_MAX,
            joined: Arc::new(arrow::datatypes::Schema::new(fields)),
            output: spec.output,
        })
    }

    /// Takes the change of one side against the other side as it is.
    fn take_change(
        &mut self,
        port: usize,
        change: &ZSet,
        ctx: &mut StepContext,
        out: &mut Output<'_>,
    ) -> Result<()> {
        let change = match self.sides[port].time.late {
            Some(expiry) => on_time(change, expiry, ctx)?,
            None => change.clone(),
        };
        if change.is_empty() {
            return Ok(());
        }
        let ordered;
        let mut delta = Delta::new(&change, &self.sides[port].key, &self.key_codec, self.null_equals_null)?;
        out.ordered = change.all_inserts();
        if let Some(parts) = ctx.parts
            && !out.ordered
            && self.pairs_reach(parts.rows, &delta, port)
        {
            out.ordered = true;
            ordered = retractions_first(&change)?;
            delta = Delta::new(&ordered, &self.sides[port].key, &self.key_codec, self.null_equals_null)?;
        }
        let counting = self.residual.is_some() && self.kind != JoinKind::Inner;
        if self.lookup {
            return self.look_up(&delta, port, counting, ctx, out);
        }
        if counting {
            let partners = self.count_partners(&delta, port, ctx, out)?;
            self.give_changed(&delta, port, |row| partners.of_changed[row] > 0, out)?;
            self.sides[port].remember(&delta, Some(&partners.of_changed))?;
            self.give_turned_rows(1 - port, partners.of_remembered, out)
        } else {
            if self.kind.gives_pairs() {
                self.pair(&delta, port, ctx, out)?;
            }
            self.give_by_key(&delta, port, out)?;
            let turned = self.remember_by_key(&delta, port)?;
            self.give_turned_keys(&delta, 1 - port, &turned, out)
        }
    }

    /// Gives left rows with the right rows of now; remembers right rows.
    fn look_up(
        &mut self,
        delta: &Delta<'_>,
        port: usize,
        counting: bool,
        ctx: &mut StepContext,
        out: &mut Output<'_>,
    ) -> Result<()> {
        if port == 1 {
            return self.sides[1].remember(delta, None);
        }
        if counting {
            let partners = self.count_partners(delta, 0, ctx, out)?;
            return self.give_changed(delta, 0, |row| partners.of_changed[row] > 0, out);
        }
        self.pair(delta, 0, ctx, out)?;
        self.give_by_key(delta, 0, out)
    }

    /// True when rows of this side without partner are given only when they can have none any more.
    fn waits(&self, port: usize) -> bool {
        self.emit == Emit::OnClose && self.sides[port].time.drop.is_some()
    }

    /// The output rows of rows that leave on their own.
    fn alone(
        &self,
        port: usize,
        own: Vec<ArrayRef>,
        weights: Vec<i64>,
        marks: Option<BooleanArray>,
    ) -> Result<ZSet> {
        let rows = weights.len();
        let columns = if self.kind.gives_pairs() {
            let width = self.sides[0].width();
            let others = if port == 0 { width..self.joined.fields().len() } else { 0..width };
            let nulls: Vec<ArrayRef> =
                others.map(|c| new_null_array(self.joined.field(c).data_type(), rows)).collect();
            if port == 0 { [own, nulls].concat() } else { [nulls, own].concat() }
        } else {
            own.into_iter().chain(marks.map(|m| Arc::new(m) as ArrayRef)).collect()
        };
        Ok(ZSet::new(batch_of(&self.output, columns, rows)?, weights))
    }
}

/// The net change, in an order in which the sum of no first rows takes away what is not there.
fn retractions_first(change: &ZSet) -> Result<ZSet> {
    let columns: Vec<usize> = (0..change.rows().num_columns()).collect();
    let net = consolidate(change, &RowCodec::for_columns(&change.schema(), &columns)?)?;
    let (mut order, insertions): (Vec<u32>, Vec<u32>) =
        (0..net.len() as u32).partition(|row| net.weight(*row as usize) < 0);
    order.extend(insertions);
    net.take(&UInt32Array::from(order))
}

/// The rows of a change whose partners are not gone.
pub(super) fn on_time(change: &ZSet, expiry: Expiry, ctx: &mut StepContext) -> Result<ZSet> {
    if ctx.watermark_before == Watermark::MIN || change.is_empty() {
        return Ok(change.clone());
    }
    let times = microseconds(change.rows().column(expiry.column))?;
    let late = |time: Option<i64>| time.is_some_and(|t| expiry.expired(t, ctx.watermark_before));
    if !late(arrow::compute::min(&times)) {
        return Ok(change.clone());
    }
    let mask: BooleanArray = times.iter().map(|time| Some(!late(time))).collect();
    ctx.late_rows += mask.false_count() as u64;
    change.filter(&mask)
}

impl Operator for Join {
    fn name(&self) -> &'static str {
        "join"
    }

    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.output)
    }

    fn step(&mut self, inputs: &[ZSet], ctx: &mut StepContext) -> Result<ZSet> {
        if inputs.len() != 2 {
            return Err(Error::Operator(format!("join takes two inputs, not {}", inputs.len())));
        }
        let mut out = Output::new(&self.output, ctx.parts);
        self.piece_rows = ctx.parts.map_or(JOINED_ROWS_MAX, |parts| parts.rows.clamp(1, JOINED_ROWS_MAX));
        // A lookup sees the right side's rows of the same step.
        for port in if self.lookup { [1, 0] } else { [0, 1] } {
            self.take_change(port, &inputs[port], ctx, &mut out)?;
        }
        if ctx.watermark != ctx.watermark_before {
            out.ordered = true;
            self.drop_expired(ctx.watermark, &mut out)?;
        }
        out.rest()
    }

    fn save(&self, part: KeyPart<'_>, out: &mut StateWriter) -> Result<()> {
        out.u8(FORMAT_VERSION);
        self.sides.iter().try_for_each(|side| side.save(&self.key_codec, part, out))
    }

    fn load(&mut self, saved: &mut StateReader<'_>) -> Result<()> {
        saved.version(FORMAT_VERSION)?;
        self.sides.iter_mut().try_for_each(|side| side.load(saved))
    }

    fn state_size(&self) -> StateSize {
        let [left, right] = &self.sides;
        left.state_size() + right.state_size()
    }
}

#[cfg(test)]
mod tests;

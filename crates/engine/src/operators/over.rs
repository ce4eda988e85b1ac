//! Window functions: `f(...) OVER (PARTITION BY p ORDER BY o frame)`, and the bounds of SESSION windows.
//!
//! ```text
//!   change --> partition: its rows in order        [ . . . . x . . . . . . ]
//!                 |                                      ^ inserted or deleted
//!                 v                                    [-----------]
//!          rows whose frames hold it: their results before, and after --> -old +new
//! ```
//!
//! Nothing is remembered of results: those of the rows within reach of a change are computed before and after it, and
//! what differs goes out. How far a change reaches follows from the frames: `ROWS BETWEEN 3 PRECEDING AND CURRENT ROW`
//! four rows, a running total all that come later. Aggregates [slide] from row to row, and stay where they were for
//! the rows that come next, so that a row at the end of its partition costs what enters and leaves its frame.
//!
//! Ties: peers are treated as PostgreSQL does; where the order among them shows (ROWS, row_number, lag), rows
//! equal in ORDER BY stand in the order of their other columns, so the result does not depend on arrival.
//!
//! State: the rows of every partition and the values that calls read. It is freed
//! - with the partition, when that is bound to a window ([`Release::Partition`]);
//! - when ordered by event time and emitted on close ([`Release::Order`]): a row's result leaves when the watermark has
//!   passed all that its frame may still get, and rows that no later frame can hold are dropped;
//! - sessions: when the watermark passes their end, also when results are updated.
//!
//! Late rows are counted and ignored. A row without a time belongs to no window that closes, and is reported.
//!
//! Cost per changed row: a search in the partition, and the rows within reach, each with the rows by which its frame
//! differs from the one before. Aggregates that do not slide (string_agg, array_agg, DISTINCT sums) go through their
//! frame for every row.

mod compile;
mod evaluate;
mod frame;
mod list;
mod saving;
mod settle;
mod slide;
mod store;
#[cfg(test)]
mod tests;
mod update;
mod values;

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, UInt32Array};
use arrow::compute::{SortOptions, take};
use arrow::datatypes::{DataType, FieldRef, SchemaRef, TimestampMicrosecondType};
use dataflow::{
    Error, KeyPart, KeyTable, Operator, Result, StateReader, StateSize, StateWriter, StepContext, ZSet,
};

use super::aggregate::{AggregateCall, is_time};
use super::{Emit, Expiry};
use crate::row_codec::{EncodedRows, RowCodec, batch_of};
use compile::Compiled;
use evaluate::{Call, ResultColumn};
use frame::View;
pub use frame::{Bound, CalendarUnit, Frame, Offset, Unit};
use list::OrderedList;
use slide::Slide;
use store::RowStore;
use update::Change;
use values::ValueColumn;

/// What an [`Over`] does.
#[derive(Clone, Debug)]
pub struct OverSpec {
    pub input: SchemaRef,
    pub partition: Vec<usize>,
    pub order: Vec<(usize, SortOptions)>,
    pub calls: Vec<OverCall>,
    /// Input columns, then one per call.
    pub output: SchemaRef,
    pub release: Release,
    pub emit: Emit,
}

/// When rows are final, and their state is freed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Release {
    Never,
    /// With the window that the partition belongs to.
    Partition(Expiry),
    /// Row by row, by the first ORDER BY column.
    Order(Expiry),
}

impl Release {
    pub fn expiry(self) -> Option<Expiry> {
        match self {
            Release::Never => None,
            Release::Partition(expiry) | Release::Order(expiry) => Some(expiry),
        }
    }
}

/// One window function.
#[derive(Clone, Debug)]
pub struct OverCall {
    pub function: OverFunction,
    pub output: FieldRef,
}

#[derive(Clone, Debug)]
pub enum OverFunction {
    RowNumber,
    Rank,
    DenseRank,
    PercentRank,
    CumeDist,
    Ntile {
        buckets: usize,
    },
    /// lag (`back` rows) or lead (negative); `default` has one value.
    Shift {
        argument: usize,
        back: i64,
        default: Option<ArrayRef>,
        ignore_nulls: bool,
    },
    /// first_value (0), nth_value (n - 1), last_value (-1).
    Nth {
        argument: usize,
        frame: Frame,
        nth: i64,
        ignore_nulls: bool,
    },
    Aggregate {
        call: AggregateCall,
        frame: Frame,
    },
    /// Time of the first row of the session, in microseconds; ordered by time alone.
    SessionStart {
        gap_us: i64,
    },
    /// Time of the last row of the session plus the gap.
    SessionEnd {
        gap_us: i64,
    },
}

/// Window functions over one PARTITION BY and ORDER BY.
pub struct Over {
    spec: OverSpec,
    compiled: Compiled,
    partition_codec: RowCodec,
    entry_codec: RowCodec,
    // Columns of a row's bytes: ORDER BY first, then those that are in neither clause.
    entry_columns: Vec<usize>,
    order_codec: RowCodec,
    /// Length of the ORDER BY columns' bytes, when it is the same for all rows.
    order_length: Option<usize>,
    // Per input column: where its values are kept.
    origin: Vec<Origin>,
    keys: KeyTable,
    // By key slot.
    partitions: Vec<Partition>,
    store: RowStore,
    windows: BTreeSet<(i64, u32)>,
    // Partitions to be emitted when their window closes.
    closing: BTreeSet<(i64, u32)>,
    // Partitions in which a row becomes final, or is not needed any more, at this order value.
    due: BTreeSet<(i64, u32)>,
    // Partitions whose last row was dropped in this step.
    emptied: Vec<u32>,
}

#[derive(Clone, Copy)]
enum Origin {
    Partition(usize),
    Entry(usize),
}

#[derive(Default)]
struct Partition {
    live: bool,
    list: OrderedList,
    slides: Box<[Slide]>,
    /// Position of the row whose frames the slides hold.
    at: Option<usize>,
    /// Results are out, so that changes of them are emitted.
    published: bool,
    /// Rows before this position have left ([`Release::Order`]).
    emitted: usize,
    window: Option<i64>,
    due: Option<i64>,
    // Number of its group in the current step plus one; 0 if not touched.
    group: u32,
}

/// What one step emits, and forgets after that.
struct Effects {
    /// Rows of old results, with the slot of their partition.
    old: Vec<(u32, u32)>,
    old_results: Vec<ResultColumn>,
    new: Vec<(u32, u32)>,
    new_results: Vec<ResultColumn>,
    /// Numbers in `old` and `new` of the same row before and after.
    pairs: Vec<(u32, u32)>,
    inserted: Vec<u32>,
    /// Rows without a copy left.
    released: Vec<u32>,
}

impl Over {
    /// # Errors
    /// If a column type can't be kept, or a call's types do not go together.
    pub fn new(spec: OverSpec) -> Result<Over> {
        let schema = &spec.input;
        if let Some(expiry) = spec.release.expiry() {
            let field = schema.field(expiry.column);
            let placed = match spec.release {
                Release::Order(_) => spec.order.first().is_some_and(|(column, _)| *column == expiry.column),
                _ => spec.partition.contains(&expiry.column),
            };
            if !is_time(field.data_type()) || !placed {
                return Err(Error::Operator(format!("column \"{}\" bounds no window", field.name())));
            }
        } else if spec.emit == Emit::OnClose {
            return Err(Error::Operator("EMIT ON WINDOW CLOSE needs a window or event time".to_owned()));
        }
        let compiled = Compiled::new(&spec)?;
        if compiled.never_final && spec.emit == Emit::OnClose && matches!(spec.release, Release::Order(_)) {
            return Err(Error::Operator("a frame without end is never final".to_owned()));
        }
        let mut entry: Vec<(usize, SortOptions)> = Vec::new();
        let mut order_columns = 0;
        let rest = (0..schema.fields().len()).map(|column| (column, SortOptions::default()));
        for (number, (column, options)) in spec.order.iter().copied().chain(rest).enumerate() {
            // Partition columns are equal in all rows compared; a repeated one decides nothing.
            let known = spec.partition.contains(&column) || entry.iter().any(|(c, _)| *c == column);
            if !known {
                entry.push((column, options));
                order_columns += usize::from(number < spec.order.len());
            }
        }
        let entry_columns: Vec<usize> = entry.iter().map(|(column, _)| *column).collect();
        let position = |columns: &[usize], column| columns.iter().position(|c| *c == column);
        let origin = (0..schema.fields().len())
            .map(|column| match position(&spec.partition, column) {
                Some(n) => Origin::Partition(n),
                None => Origin::Entry(position(&entry_columns, column).expect("every column is kept")),
            })
            .collect();
        let typed = |entry: &[(usize, SortOptions)]| {
            let typed = |(column, options): &(usize, SortOptions)| {
                (schema.field(*column).data_type().clone(), *options)
            };
            RowCodec::new(entry.iter().map(typed))
        };
        let order_codec = typed(&entry[..order_columns])?;
        let fixed = |(column, _): &(usize, SortOptions)| {
            let data_type = schema.field(*column).data_type();
            data_type.is_primitive() || *data_type == DataType::Boolean
        };
        let order_length = match entry[..order_columns].iter().all(fixed) {
            true => {
                let nulls = entry[..order_columns].iter();
                let nulls = nulls.map(|(c, _)| arrow::array::new_null_array(schema.field(*c).data_type(), 1));
                Some(order_codec.encode(&nulls.collect::<Vec<_>>(), 1)?.get(0).len())
            }
            false => None,
        };
        let values = compiled.value_columns.iter();
        let values =
            values.map(|c| ValueColumn::new(schema.field(*c).data_type())).collect::<Result<Vec<_>>>()?;
        Ok(Over {
            partition_codec: RowCodec::for_columns(schema, &spec.partition)?,
            entry_codec: typed(&entry)?,
            entry_columns,
            order_codec,
            order_length,
            origin,
            keys: KeyTable::new(),
            partitions: Vec::new(),
            store: RowStore::new(values),
            windows: BTreeSet::new(),
            closing: BTreeSet::new(),
            due: BTreeSet::new(),
            emptied: Vec::new(),
            compiled,
            spec,
        })
    }

    fn results(&self) -> Result<Vec<ResultColumn>> {
        let column = |(call, compiled): (&OverCall, &Call)| {
            let data_type = call.output.data_type();
            Ok(match compiled {
                Call::Gather(_) => ResultColumn::Arrays(Vec::new(), data_type.clone()),
                _ => ResultColumn::Values(ValueColumn::new(data_type)?),
            })
        };
        self.spec.calls.iter().zip(&self.compiled.calls.calls).map(column).collect()
    }

    /// The input's rows that are on time, by partition: slots, and the rows of each in order of arrival.
    fn group(&mut self, input: &ZSet, ctx: &mut StepContext) -> Result<Vec<(u32, Vec<u32>)>> {
        let keys = self.partition_codec.encode_columns(input.rows(), &self.spec.partition)?;
        let times = self.spec.release.expiry().map(|expiry| {
            (expiry, input.rows().column(expiry.column).as_primitive::<TimestampMicrosecondType>())
        });
        let by_partition = matches!(self.spec.release, Release::Partition(_));
        let mut groups: Vec<(u32, Vec<u32>)> = Vec::new();
        for row in 0..input.len() {
            let mut window = None;
            if let Some((expiry, values)) = times {
                let value = values.is_valid(row).then(|| values.value(row));
                match value {
                    Some(value) if expiry.expired(value, ctx.watermark_before) => {
                        ctx.late_rows += input.weight(row).unsigned_abs();
                        continue;
                    }
                    None if self.spec.emit == Emit::OnClose => {
                        let name = self.spec.input.field(expiry.column).name();
                        ctx.report_error(|| {
                            format!(
                                "row without a value in column \"{name}\" belongs to no window that closes"
                            )
                        });
                        continue;
                    }
                    _ => {}
                }
                window = value.filter(|_| by_partition);
            }
            let slot = self.partition(keys.get(row), window);
            let partition = &mut self.partitions[slot as usize];
            if partition.group == 0 {
                groups.push((slot, Vec::new()));
                partition.group = groups.len() as u32;
            }
            groups[partition.group as usize - 1].1.push(row as u32);
        }
        for (slot, _) in &groups {
            self.partitions[*slot as usize].group = 0;
        }
        Ok(groups)
    }

    /// The slot of the partition with this key, made if it is new.
    fn partition(&mut self, key: &[u8], window: Option<i64>) -> u32 {
        let (slot, new) = self.keys.insert(key);
        if new {
            if self.partitions.len() <= slot as usize {
                self.partitions.resize_with(slot as usize + 1, Partition::default);
            }
            let updating = self.spec.emit == Emit::Updating;
            let slides = vec![Slide::default(); self.compiled.calls.slides.len()].into();
            self.partitions[slot as usize] =
                Partition { live: true, published: updating, window, slides, ..Partition::default() };
            if let Some(value) = window {
                self.windows.insert((value, slot));
                if !updating {
                    self.closing.insert((value, slot));
                }
            }
        }
        slot
    }

    /// What each distinct row of a partition changes by, in order.
    fn changes(&self, rows: &[u32], input: &ZSet, entries: &EncodedRows) -> Vec<(u32, i64)> {
        let bytes = |row: &u32| entries.get(*row as usize);
        let mut rows = rows.to_vec();
        if !rows.is_sorted_by_key(bytes) {
            rows.sort_by(|a, b| bytes(a).cmp(bytes(b)));
        }
        let mut changes: Vec<(u32, i64)> = Vec::with_capacity(rows.len());
        for row in rows {
            let weight = input.weight(row as usize);
            match changes.last_mut().filter(|(last, _)| bytes(last) == bytes(&row)) {
                Some((_, sum)) => *sum += weight,
                None => changes.push((row, weight)),
            }
        }
        changes.retain(|(_, weight)| *weight != 0);
        changes
    }

    fn forget(&mut self, slot: u32) {
        let mut partition = std::mem::take(&mut self.partitions[slot as usize]);
        let end = partition.list.end();
        for row in partition.list.drop_before(end) {
            if self.store.remove_copy(row) {
                self.store.release(row);
            }
        }
        if let Some(value) = partition.window {
            self.windows.remove(&(value, slot));
            self.closing.remove(&(value, slot));
        }
        if let Some(value) = partition.due {
            self.due.remove(&(value, slot));
        }
        self.keys.remove(slot);
        if self.keys.is_empty() {
            self.partitions = Vec::new();
        }
    }

    /// Rows of the state, whose partitions are in the given slots, with their results.
    fn rows(
        &self,
        rows: &[(u32, u32)],
        input: &ZSet,
        results: Vec<ArrayRef>,
    ) -> Result<arrow::array::RecordBatch> {
        let fresh: Option<Vec<u32>> = rows.iter().map(|(_, row)| self.store.fresh(*row)).collect();
        let mut columns: Vec<ArrayRef> = match fresh {
            Some(fresh) => {
                let all = fresh.len() == input.len() && fresh.iter().enumerate().all(|(i, f)| i as u32 == *f);
                let fresh = UInt32Array::from(fresh);
                let columns = input.rows().columns().iter();
                match all {
                    true => columns.cloned().collect(),
                    false => columns.map(|column| Ok(take(column, &fresh, None)?)).collect::<Result<_>>()?,
                }
            }
            None => {
                let keys: Vec<&[u8]> = rows.iter().map(|(slot, _)| self.keys.key(*slot)).collect();
                let bytes: Vec<&[u8]> = rows.iter().map(|(_, row)| self.store.bytes(*row)).collect();
                let partition_columns = self.partition_codec.decode(&keys)?;
                let entry_columns = self.entry_codec.decode(&bytes)?;
                let column = |origin: &Origin| match origin {
                    Origin::Partition(n) => Arc::clone(&partition_columns[*n]),
                    Origin::Entry(n) => Arc::clone(&entry_columns[*n]),
                };
                self.origin.iter().map(column).collect()
            }
        };
        columns.extend(results);
        batch_of(&self.spec.output, columns, rows.len())
    }

    /// What the step changes: rows whose results differ, before and after.
    fn output(&self, effects: &mut Effects, input: &ZSet) -> Result<ZSet> {
        let finish = |columns: &mut Vec<ResultColumn>| {
            columns.iter_mut().map(ResultColumn::finish).collect::<Result<Vec<ArrayRef>>>()
        };
        let new_results = finish(&mut effects.new_results)?;
        if effects.old.is_empty() {
            if effects.new.is_empty() {
                return Ok(ZSet::empty(Arc::clone(&self.spec.output)));
            }
            return Ok(ZSet::inserts(self.rows(&effects.new, input, new_results)?));
        }
        let old_results = finish(&mut effects.old_results)?;
        let mut old_goes = vec![true; effects.old.len()];
        let mut new_comes = vec![true; effects.new.len()];
        let (before, after): (Vec<u32>, Vec<u32>) = effects.pairs.iter().copied().unzip();
        let (before, after) = (UInt32Array::from(before), UInt32Array::from(after));
        let mut equal = vec![true; effects.pairs.len()];
        for (old, new) in old_results.iter().zip(&new_results) {
            let codec = RowCodec::new([(old.data_type().clone(), SortOptions::default())])?;
            let old = codec.encode(&[take(old, &before, None)?], before.len())?;
            let new = codec.encode(&[take(new, &after, None)?], after.len())?;
            for (pair, equal) in equal.iter_mut().enumerate().filter(|(_, equal)| **equal) {
                *equal = old.get(pair) == new.get(pair);
            }
        }
        for ((old, new), _) in effects.pairs.iter().zip(equal).filter(|(_, equal)| *equal) {
            old_goes[*old as usize] = false;
            new_comes[*new as usize] = false;
        }
        let pick = |rows: &[(u32, u32)], results: &[ArrayRef], picked: &[bool]| -> Result<ZSet> {
            let indices = (0..rows.len() as u32).filter(|i| picked[*i as usize]);
            let indices = UInt32Array::from_iter_values(indices);
            if indices.is_empty() {
                return Ok(ZSet::empty(Arc::clone(&self.spec.output)));
            }
            let results = results.iter().map(|r| Ok(take(r, &indices, None)?)).collect::<Result<_>>()?;
            let rows: Vec<(u32, u32)> = indices.values().iter().map(|i| rows[*i as usize]).collect();
            Ok(ZSet::inserts(self.rows(&rows, input, results)?))
        };
        let old = pick(&effects.old, &old_results, &old_goes)?;
        let new = pick(&effects.new, &new_results, &new_comes)?;
        ZSet::concat(&self.spec.output, &[old.negate(), new])
    }
}

impl Operator for Over {
    fn name(&self) -> &'static str {
        "over"
    }

    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.spec.output)
    }

    fn step(&mut self, inputs: &[ZSet], ctx: &mut StepContext) -> Result<ZSet> {
        let [input] = inputs else {
            return Err(Error::Operator(format!("over takes one input, not {}", inputs.len())));
        };
        let mut effects = Effects {
            old: vec![],
            old_results: self.results()?,
            new: vec![],
            new_results: self.results()?,
            pairs: vec![],
            inserted: vec![],
            released: vec![],
        };
        let mut touched = Vec::new();
        if !input.is_empty() {
            let groups = self.group(input, ctx)?;
            let entries = self.entry_codec.encode_columns(input.rows(), &self.entry_columns)?;
            let order_columns = self.order_columns();
            let orders = match self.order_length {
                Some(_) => None,
                None => Some(self.order_codec.encode_columns(input.rows(), &order_columns)?),
            };
            let sources = self.store.sources(&self.compiled.value_columns, input.rows())?;
            for (slot, rows) in groups {
                let changes = self.changes(&rows, input, &entries);
                let changes = changes
                    .into_iter()
                    .map(|(row, weight)| {
                        let bytes = entries.get(row as usize);
                        let order_length = self.order_length.unwrap_or_else(|| {
                            orders.as_ref().map_or(0, |orders| orders.get(row as usize).len())
                        });
                        Change { bytes, order_length, input_row: row as usize, weight, position: 0, row: 0 }
                    })
                    .collect();
                if self.update(slot, changes, &sources, &mut effects, ctx)? {
                    touched.push(slot);
                }
            }
        }
        self.settle_all(&touched, ctx, &mut effects)?;
        let output = self.output(&mut effects, input)?;
        for row in &effects.inserted {
            self.store.forget_fresh(*row);
        }
        // Bytes of removed rows were needed until here.
        for row in effects.released {
            self.store.release(row);
        }
        self.forget_all(&touched, ctx.watermark);
        self.store.tidy();
        Ok(output)
    }

    fn save(&self, part: KeyPart<'_>, out: &mut StateWriter) -> Result<()> {
        self.save_partitions(part, out)
    }

    fn load(&mut self, saved: &mut StateReader<'_>) -> Result<()> {
        self.load_partitions(saved)
    }

    fn state_size(&self) -> StateSize {
        let slide = size_of::<Slide>();
        let partitions: usize = self
            .partitions
            .iter()
            .map(|p| size_of::<Partition>() + p.list.size_bytes() + p.slides.len() * slide)
            .sum();
        let rows = self.partitions.iter().map(|p| p.list.len()).sum();
        StateSize { rows, bytes: partitions + self.store.size_bytes() + self.keys.size_bytes() }
    }
}

impl Over {
    fn order_columns(&self) -> Vec<usize> {
        let count = self.spec.order.len();
        let named = |column: &usize| self.spec.order.iter().any(|(c, _)| c == column);
        self.entry_columns.iter().copied().take(count).filter(named).collect()
    }

    fn view(&self, slot: u32) -> View<'_> {
        View { list: &self.partitions[slot as usize].list, store: &self.store, order: self.compiled.order }
    }
}

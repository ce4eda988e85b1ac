//! The first rows of every partition: `ROW_NUMBER() OVER (PARTITION BY p ORDER BY o) <= n`.
//!
//! ```text
//!   row -> partition key | entry bytes = sort key ++ other columns
//!                |
//!                v
//!   bag: all rows of the partition        ranking: the best of them, sorted
//!   (append-only: only the best n)        [ first n: visible | spare candidates ]
//! ```
//!
//! Ties are broken by the bytes of the row's other columns, so the result does not depend on arrival.
//! A step updates the bag row by row, then once per touched partition merges what concerns the ranking into
//! it and emits the difference of the first n before and after. Rows behind the last candidate cost one
//! comparison; when removals have used up the spare candidates, a scan of the partition selects new ones.
//! With ON WINDOW CLOSE, rows wait in the bag (append-only: the best n of them) until their window closes.
//!
//! State: the rows of a partition, freed when its window column expires; never without one. Late rows are
//! ignored and counted.
//! Cost per changed row: two hash lookups; O(n) per touched partition.
//!
//! Invariants, per partition and between steps: the ranking is sorted; every row outside it is greater
//! than all in it; it has offset + limit rows unless it has all rows.

mod ranking;
mod saving;

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, UInt64Array};
use arrow::compute::SortOptions;
use arrow::datatypes::{DataType, FieldRef, SchemaRef, TimeUnit, TimestampMicrosecondType};
use dataflow::{Error, KeyPart, Operator, Result, StateReader, StateSize, StateWriter, StepContext, ZSet};

use super::{Emit, Expiry};
use crate::bag::Bag;
use crate::row_codec::{EncodedRows, RowCodec, batch_of};
use ranking::{Difference, Ranked};

pub struct TopNSpec {
    pub input: SchemaRef,
    pub partition: Vec<usize>,
    pub order: Vec<(usize, SortOptions)>,
    /// Rows shown per partition.
    pub limit: usize,
    /// Rows skipped before.
    pub offset: usize,
    /// The row number, counted from 1 before `offset`, as last output column of type UInt64 or Int64.
    pub row_number: Option<FieldRef>,
    /// Input columns, then the row number if asked for.
    pub output: SchemaRef,
    /// A partition column that bounds the partition's window.
    pub expiry: Option<Expiry>,
    pub emit: Emit,
    /// The input never retracts: worse rows than the best are forgotten.
    pub append_only: bool,
}

pub struct TopN {
    spec: TopNSpec,
    // Rows that decide the result: offset + limit.
    rows_needed: usize,
    partition_codec: RowCodec,
    // Columns of an entry's bytes: ORDER BY first, then those that are in neither clause.
    entry_columns: Vec<usize>,
    entry_codec: RowCodec,
    // Per input column: where its values are kept.
    origin: Vec<Origin>,
    bag: Bag,
    // By the bag's key slot.
    partitions: Vec<Partition>,
    // Partitions to be freed, by the value of their window column.
    expiring: BTreeSet<(i64, u32)>,
    // Partitions to be emitted (ON WINDOW CLOSE), by the value of their window column.
    closing: BTreeSet<(i64, u32)>,
}

#[derive(Clone, Copy)]
enum Origin {
    Partition(usize),
    Entry(usize),
}

#[derive(Default)]
struct Partition {
    ranking: Vec<Ranked>,
    // The ranking has all rows of the partition.
    complete: bool,
    // Results are visible, so changes of the first rows are emitted.
    published: bool,
    // Value of the window column, in `expiring` and perhaps `closing`.
    window: Option<i64>,
    // Number of its group in the current step plus one; 0 if not touched.
    group: u32,
}

/// Row numbers of one step's input by partition.
#[derive(Default)]
struct Groups {
    // Key slots in the order they were first touched.
    slots: Vec<u32>,
    // Row numbers of group `i` are `rows[ends[i - 1]..ends[i]]`, in arrival order.
    ends: Vec<usize>,
    rows: Vec<u32>,
}

/// What one step emits, and forgets after that.
#[derive(Default)]
struct Effects {
    // Key slot of the partition, and the row.
    emitted: Vec<(u32, Difference)>,
    // Entries to release if their weight is zero.
    touched: Vec<u32>,
    // Entries that are not needed any more.
    dropped: Vec<u32>,
}

impl TopN {
    /// Candidates kept in order beyond the visible rows: as many again, and a few for small n.
    const SPARE_CANDIDATES: usize = 16;
    /// Large partitions keep a share of their rows in order, so that refilling is rarer the dearer it is.
    const SPARE_SHARE: usize = 64;
    const SPARE_SHARE_MAX: usize = 1024;

    /// # Errors
    /// If a column type can't be kept as row bytes, or the expiry does not name a partition column that is a
    /// timestamp.
    pub fn new(spec: TopNSpec) -> Result<TopN> {
        let schema = &spec.input;
        match spec.expiry {
            Some(expiry) => {
                let field = schema.field(expiry.column);
                let timestamp = matches!(field.data_type(), DataType::Timestamp(TimeUnit::Microsecond, _));
                if !timestamp || !spec.partition.contains(&expiry.column) {
                    return Err(Error::Operator(format!(
                        "column \"{}\" bounds no window: it must be a timestamp and in PARTITION BY",
                        field.name()
                    )));
                }
            }
            None if spec.emit == Emit::OnClose => {
                return Err(Error::Operator(
                    "EMIT ON WINDOW CLOSE of a Top-N needs a window column in PARTITION BY".to_string(),
                ));
            }
            None => {}
        }
        if let Some(field) = &spec.row_number
            && !matches!(field.data_type(), DataType::UInt64 | DataType::Int64)
        {
            return Err(Error::Operator(format!(
                "row number \"{}\" has type {}, not a 64-bit integer",
                field.name(),
                field.data_type()
            )));
        }
        let mut entry: Vec<(usize, SortOptions)> = Vec::new();
        let rest = (0..schema.fields().len()).map(|column| (column, SortOptions::default()));
        for (column, options) in spec.order.iter().copied().chain(rest) {
            // Partition columns are equal in all rows compared; a repeated one decides nothing.
            let known = spec.partition.contains(&column) || entry.iter().any(|(c, _)| *c == column);
            if !known {
                entry.push((column, options));
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
        let types =
            entry.into_iter().map(|(column, options)| (schema.field(column).data_type().clone(), options));
        Ok(TopN {
            rows_needed: spec.offset.saturating_add(spec.limit),
            partition_codec: RowCodec::for_columns(schema, &spec.partition)?,
            entry_codec: RowCodec::new(types)?,
            entry_columns,
            origin,
            bag: Bag::new(),
            partitions: Vec::new(),
            expiring: BTreeSet::new(),
            closing: BTreeSet::new(),
            spec,
        })
    }

    /// Sorts the rows by partition, leaving out late ones and those that can't matter.
    fn group(&mut self, input: &ZSet, entries: &EncodedRows, ctx: &mut StepContext) -> Result<Groups> {
        let keys = self.partition_codec.encode_columns(input.rows(), &self.spec.partition)?;
        let windows = self.spec.expiry.map(|expiry| {
            (expiry, input.rows().column(expiry.column).as_primitive::<TimestampMicrosecondType>())
        });
        let mut groups = Groups::default();
        let mut counts: Vec<usize> = Vec::new();
        let mut taken: Vec<(u32, u32)> = Vec::with_capacity(input.len());
        // Rows of one partition often follow each other.
        let mut last: Option<(&[u8], u32)> = None;
        for row in 0..input.len() {
            let mut window = None;
            if let Some((expiry, values)) = windows {
                window = values.is_valid(row).then(|| values.value(row));
                match window {
                    Some(value) if expiry.expired(value, ctx.watermark_before) => {
                        ctx.late_rows += 1;
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
            }
            let key = keys.get(row);
            let slot = match last {
                Some((bytes, slot)) if bytes == key => slot,
                _ => self.partition(key, window),
            };
            last = Some((key, slot));
            let partition = &mut self.partitions[slot as usize];
            if self.spec.append_only
                && partition
                    .ranking
                    .last()
                    .is_some_and(|worst| !partition.complete && entries.get(row) >= self.bag.row(worst.entry))
            {
                continue;
            }
            if partition.group == 0 {
                groups.slots.push(slot);
                counts.push(0);
                partition.group = groups.slots.len() as u32;
            }
            counts[partition.group as usize - 1] += 1;
            taken.push((partition.group - 1, row as u32));
        }
        let mut end = 0;
        let mut next: Vec<usize> = Vec::with_capacity(counts.len());
        for count in counts {
            next.push(end);
            end += count;
            groups.ends.push(end);
        }
        groups.rows = vec![0; taken.len()];
        for (group, row) in taken {
            groups.rows[next[group as usize]] = row;
            next[group as usize] += 1;
        }
        for slot in &groups.slots {
            self.partitions[*slot as usize].group = 0;
        }
        Ok(groups)
    }

    /// The slot of the partition with this key, made if it is new.
    fn partition(&mut self, key: &[u8], window: Option<i64>) -> u32 {
        let (slot, new) = self.bag.insert_key(key);
        if new {
            let published = self.spec.emit == Emit::Updating;
            self.begin(slot, Partition { complete: true, published, window, ..Partition::default() });
        }
        slot
    }

    /// Notes a new partition and when its window closes.
    fn begin(&mut self, slot: u32, partition: Partition) {
        if let Some(value) = partition.window {
            self.expiring.insert((value, slot));
            if !partition.published {
                self.closing.insert((value, slot));
            }
        }
        if self.partitions.len() <= slot as usize {
            self.partitions.resize_with(slot as usize + 1, Partition::default);
        }
        self.partitions[slot as usize] = partition;
    }

    /// Takes in one partition's rows of an input without retractions.
    fn append(
        &mut self,
        slot: u32,
        rows: &[u32],
        input: &ZSet,
        entries: &EncodedRows,
        effects: &mut Effects,
    ) {
        let candidates = rows.iter().map(|row| (*row, entries.get(*row as usize)));
        let (best, _) = ranking::smallest(candidates, self.rows_needed);
        let mut changes: Vec<Ranked> = Vec::with_capacity(best.len());
        for (row, bytes) in best {
            let update = self.bag.update_at(slot, bytes, input.weight(row as usize));
            let change = Ranked { entry: update.entry, weight: update.after };
            match changes.last_mut() {
                // Equal rows are neighbours.
                Some(last) if last.entry == change.entry => *last = change,
                _ => changes.push(change),
            }
        }
        let partition = &self.partitions[slot as usize];
        let mut ranking = ranking::merge(&partition.ranking, &changes, |entry| self.bag.row(entry));
        let kept = ranking::entries_covering(&ranking, self.rows_needed as u64);
        effects.dropped.extend(ranking[kept..].iter().map(|ranked| ranked.entry));
        ranking.truncate(kept);
        let full = ranking::row_count(&ranking) >= self.rows_needed as u64;
        self.replace_ranking(slot, ranking, !full, effects);
    }

    /// Takes in one partition's changes.
    fn change(
        &mut self,
        slot: u32,
        rows: &[u32],
        input: &ZSet,
        entries: &EncodedRows,
        effects: &mut Effects,
    ) {
        let partition = &self.partitions[slot as usize];
        // Rows beyond the last candidate do not concern the ranking.
        let boundary = match partition.ranking.last() {
            Some(last) if !partition.complete => Some(last.entry),
            _ => None,
        };
        let ranked = partition.published;
        let mut concerned: Vec<(u32, &[u8])> = Vec::new();
        for row in rows {
            let bytes = entries.get(*row as usize);
            let update = self.bag.update_at(slot, bytes, input.weight(*row as usize));
            if update.after == 0 {
                effects.touched.push(update.entry);
            }
            if ranked && boundary.is_none_or(|last| bytes <= self.bag.row(last)) {
                concerned.push((update.entry, bytes));
            }
        }
        if concerned.is_empty() {
            return;
        }
        concerned.sort_unstable_by(|a, b| a.1.cmp(b.1));
        concerned.dedup_by_key(|(entry, _)| *entry);
        let changes: Vec<Ranked> = concerned
            .into_iter()
            .map(|(entry, _)| Ranked { entry, weight: self.bag.weight(entry) })
            .collect();
        let partition = &self.partitions[slot as usize];
        let mut complete = partition.complete;
        let mut ranking = ranking::merge(&partition.ranking, &changes, |entry| self.bag.row(entry));
        let target = self.candidates_target(slot);
        if !complete && ranking::row_count(&ranking) < self.rows_needed as u64 {
            (ranking, complete) = self.select_candidates(slot);
        } else if ranking.len() > target.saturating_mul(2) {
            ranking.truncate(target);
            complete = false;
        }
        self.replace_ranking(slot, ranking, complete, effects);
    }

    /// Emits what the new ranking changes among the visible rows, and keeps it.
    fn replace_ranking(&mut self, slot: u32, ranking: Vec<Ranked>, complete: bool, effects: &mut Effects) {
        let partition = &mut self.partitions[slot as usize];
        if partition.published {
            let positions = self.spec.offset as u64..self.rows_needed as u64;
            let emit = |difference| effects.emitted.push((slot, difference));
            if self.spec.row_number.is_some() {
                ranking::diff_numbered(&partition.ranking, &ranking, positions, emit);
            } else {
                let bytes = |entry| self.bag.row(entry);
                ranking::diff_unnumbered(&partition.ranking, &ranking, positions, bytes, emit);
            }
        }
        partition.ranking.clear();
        partition.ranking.extend_from_slice(&ranking);
        partition.complete = complete;
    }

    /// Makes the results of a closed window visible.
    fn publish(&mut self, slot: u32, effects: &mut Effects) {
        let (ranking, complete) = if self.spec.append_only {
            let partition = &mut self.partitions[slot as usize];
            (std::mem::take(&mut partition.ranking), partition.complete)
        } else {
            self.select_candidates(slot)
        };
        self.partitions[slot as usize].published = true;
        self.replace_ranking(slot, ranking, complete, effects);
    }

    /// How many rows of the partition to keep in order.
    fn candidates_target(&self, slot: u32) -> usize {
        let share = (self.bag.count(slot) / TopN::SPARE_SHARE).min(TopN::SPARE_SHARE_MAX);
        self.rows_needed.saturating_mul(2).saturating_add(TopN::SPARE_CANDIDATES + share)
    }

    /// The best rows of a partition from all its rows, and whether these are all.
    fn select_candidates(&self, slot: u32) -> (Vec<Ranked>, bool) {
        let present = self.bag.rows_at(slot).filter(|row| row.weight > 0);
        let items = present.map(|row| (Ranked { entry: row.entry, weight: row.weight }, row.row));
        let (best, all) = ranking::smallest(items, self.candidates_target(slot));
        (best.into_iter().map(|(ranked, _)| ranked).collect(), all)
    }

    fn output(&self, emitted: &[(u32, Difference)]) -> Result<ZSet> {
        if emitted.is_empty() {
            return Ok(ZSet::empty(Arc::clone(&self.spec.output)));
        }
        let keys: Vec<&[u8]> = emitted.iter().map(|(slot, _)| self.bag.key(*slot)).collect();
        let rows: Vec<&[u8]> = emitted.iter().map(|(_, row)| self.bag.row(row.entry)).collect();
        let partition_columns = self.partition_codec.decode(&keys)?;
        let entry_columns = self.entry_codec.decode(&rows)?;
        let mut columns: Vec<ArrayRef> = self
            .origin
            .iter()
            .map(|origin| match origin {
                Origin::Partition(n) => Arc::clone(&partition_columns[*n]),
                Origin::Entry(n) => Arc::clone(&entry_columns[*n]),
            })
            .collect();
        if let Some(field) = &self.spec.row_number {
            let numbers = emitted.iter().map(|(_, row)| row.position + 1);
            columns.push(match field.data_type() {
                DataType::UInt64 => Arc::new(UInt64Array::from_iter_values(numbers)),
                _ => Arc::new(Int64Array::from_iter_values(numbers.map(|number| number as i64))),
            });
        }
        let rows = batch_of(&self.spec.output, columns, emitted.len())?;
        Ok(ZSet::new(rows, emitted.iter().map(|(_, row)| row.weight).collect()))
    }

    fn forget(&mut self, slot: u32) {
        let partition = std::mem::take(&mut self.partitions[slot as usize]);
        if let Some(value) = partition.window {
            self.expiring.remove(&(value, slot));
            self.closing.remove(&(value, slot));
        }
        self.bag.remove_key(slot);
        if self.bag.keys_len() == 0 {
            self.partitions = Vec::new();
        }
    }
}

impl Operator for TopN {
    fn name(&self) -> &'static str {
        "top-n"
    }

    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.spec.output)
    }

    fn step(&mut self, inputs: &[ZSet], ctx: &mut StepContext) -> Result<ZSet> {
        let [input] = inputs else {
            return Err(Error::Operator(format!("top-n takes one input, not {}", inputs.len())));
        };
        if self.spec.limit == 0 {
            return Ok(ZSet::empty(self.schema()));
        }
        if self.spec.append_only && input.weights().is_some_and(|weights| weights.iter().any(|w| *w < 0)) {
            return Err(Error::Operator(
                "top-n over an append-only input was given a retraction".to_string(),
            ));
        }
        let mut effects = Effects::default();
        let mut groups = Groups::default();
        if !input.is_empty() {
            let entries = self.entry_codec.encode_columns(input.rows(), &self.entry_columns)?;
            groups = self.group(input, &entries, ctx)?;
            let mut start = 0;
            for (slot, end) in groups.slots.iter().zip(&groups.ends) {
                let rows = &groups.rows[start..*end];
                if self.spec.append_only {
                    self.append(*slot, rows, input, &entries, &mut effects);
                } else {
                    self.change(*slot, rows, input, &entries, &mut effects);
                }
                start = *end;
            }
        }
        if let Some(expiry) = self.spec.expiry {
            while let Some((value, slot)) = self.closing.first().copied()
                && expiry.closed(value, ctx.watermark)
            {
                self.closing.pop_first();
                self.publish(slot, &mut effects);
            }
        }
        let output = self.output(&effects.emitted)?;
        // Bytes of removed rows were needed until here.
        for entry in effects.touched {
            self.bag.release(entry);
        }
        for entry in effects.dropped {
            self.bag.remove_entry(entry);
        }
        for slot in groups.slots {
            if self.bag.count(slot) == 0 {
                self.forget(slot);
            }
        }
        if let Some(expiry) = self.spec.expiry {
            while let Some((value, slot)) = self.expiring.first().copied()
                && expiry.expired(value, ctx.watermark)
            {
                self.forget(slot);
            }
        }
        Ok(output)
    }

    fn save(&self, part: KeyPart<'_>, out: &mut StateWriter) -> Result<()> {
        self.write_state(part, out)
    }

    fn load(&mut self, saved: &mut StateReader<'_>) -> Result<()> {
        self.read_state(saved)
    }

    fn state_size(&self) -> StateSize {
        let rankings: usize =
            self.partitions.iter().map(|p| p.ranking.capacity() * size_of::<Ranked>()).sum();
        let windows = (self.expiring.len() + self.closing.len()) * size_of::<(i64, u32)>();
        let partitions = self.partitions.capacity() * size_of::<Partition>();
        StateSize { rows: self.bag.len(), bytes: self.bag.size_bytes() + rankings + windows + partitions }
    }
}

#[cfg(test)]
mod tests;

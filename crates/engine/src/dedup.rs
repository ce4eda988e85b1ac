//! Who was seen before: event ids within a table's dedup window, and requests within a day.
//!
//! Both are saved with checkpoints and learn the rest from the log at start, so a retry is recognized across crashes.

use std::collections::{HashMap, HashSet, VecDeque};

use ahash::RandomState;
use arrow::array::{Array, BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::row::{RowConverter, SortField};
use dataflow::{Error, StateReader, StateWriter, Tick};
use sql::{RelationId, TableDef};

use crate::record::RequestKey;

/// Event ids of one table, remembered for at least its window.
///
/// Kept as 128-bit keyed hashes in two generations: when the younger is a window old, the older is
/// forgotten. Two ids collide with probability 2^-128 times the number of pairs.
///
/// The hashes' key is this set's own and saved with it, so that another process recognizes the ids.
pub struct DedupSet {
    column: usize,
    window_us: i64,
    converter: RowConverter,
    seeds: [[u64; 4]; 2],
    hashers: [RandomState; 2],
    young: HashSet<u128, RandomState>,
    old: HashSet<u128, RandomState>,
    young_since_us: i64,
    /// Number of the younger generation.
    generation: u64,
    /// Ids that were not saved yet, of the younger and the older generation.
    fresh: [Vec<u128>; 2],
    /// There were too many of them to be kept twice: all ids are to be saved.
    overflown: bool,
}

impl DedupSet {
    /// Ids that are kept a second time until they are saved.
    const FRESH_MAX: usize = 4_000_000;

    /// `None` when the table has no dedup key.
    pub fn new(table: &TableDef) -> Option<DedupSet> {
        let column = table.options.dedup_key?;
        let field = SortField::new(table.columns[column].data_type.clone());
        let seeds = [new_seed(), new_seed()];
        Some(DedupSet {
            column,
            window_us: table.options.dedup_window_us,
            converter: RowConverter::new(vec![field]).ok()?,
            seeds,
            hashers: seeds.map(hasher),
            young: HashSet::default(),
            old: HashSet::default(),
            young_since_us: i64::MIN,
            generation: 0,
            fresh: Default::default(),
            overflown: false,
        })
    }

    /// Remembers the batch's ids and gives a mask of the rows whose id is new, or `None` when all are.
    /// Rows without an id are never duplicates.
    pub fn admit(&mut self, rows: &RecordBatch, arrival_us: i64) -> dataflow::Result<Option<BooleanArray>> {
        if self.young_since_us == i64::MIN {
            self.young_since_us = arrival_us;
        } else if arrival_us.saturating_sub(self.young_since_us) >= self.window_us {
            self.old = std::mem::take(&mut self.young);
            self.fresh[1] = std::mem::take(&mut self.fresh[0]);
            self.generation += 1;
            self.young_since_us = arrival_us;
        }
        let ids = rows.column(self.column);
        let encoded = self.converter.convert_columns(std::slice::from_ref(ids))?;
        let mut fresh = vec![true; rows.num_rows()];
        let mut all_fresh = true;
        for (row, id) in encoded.iter().enumerate() {
            if ids.is_null(row) {
                continue;
            }
            let hash = self.hash(id.data());
            if self.old.contains(&hash) || !self.young.insert(hash) {
                fresh[row] = false;
                all_fresh = false;
            } else if !self.overflown {
                self.fresh[0].push(hash);
            }
        }
        if self.fresh[0].len() > Self::FRESH_MAX {
            self.overflow();
        }
        Ok((!all_fresh).then(|| BooleanArray::from(fresh)))
    }

    /// Takes back the ids of rows that were admitted but could not be made durable.
    pub fn forget(&mut self, rows: &RecordBatch) -> dataflow::Result<()> {
        let encoded = self.converter.convert_columns(std::slice::from_ref(rows.column(self.column)))?;
        for id in encoded.iter() {
            let hash = self.hash(id.data());
            self.young.remove(&hash);
        }
        self.overflow();
        Ok(())
    }

    fn overflow(&mut self) {
        self.overflown = true;
        self.fresh = Default::default();
    }

    pub fn window_us(&self) -> i64 {
        self.window_us
    }

    /// True when ids are to be saved that [`DedupSet::save_ids`] does not know to be new.
    pub fn is_overflown(&self) -> bool {
        self.overflown
    }

    fn hash(&self, id: &[u8]) -> u128 {
        let [a, b] = [0, 1].map(|h| u128::from(self.hashers[h].hash_one(id)));
        a << 64 | b
    }

    /// Writes what it is besides its ids.
    pub fn save_head(&self, out: &mut StateWriter) {
        out.u8(STATE_VERSION);
        self.seeds.iter().flatten().for_each(|seed| out.u64(*seed));
        out.u64(fingerprint(&self.hashers));
        out.i64(self.young_since_us);
        out.u64(self.generation);
    }

    /// Writes all ids, or those that came since the last time; false when there are none.
    pub fn save_ids(&mut self, all: bool, out: &mut StateWriter) -> bool {
        out.u64(self.generation);
        let fresh = std::mem::take(&mut self.fresh);
        self.overflown = false;
        if all {
            for ids in [&self.young, &self.old] {
                out.all(ids.iter(), |out, hash| out.i128(*hash as i128));
            }
            return !self.young.is_empty() || !self.old.is_empty();
        }
        for ids in &fresh {
            out.all(ids.iter(), |out, hash| out.i128(*hash as i128));
        }
        fresh.iter().any(|ids| !ids.is_empty())
    }

    /// Begins anew with what [`DedupSet::save_head`] wrote; the ids come then.
    ///
    /// # Errors
    /// When it was not written by this version, or here ids have other hashes.
    pub fn load_head(&mut self, saved: &mut StateReader<'_>) -> dataflow::Result<()> {
        saved.version(STATE_VERSION)?;
        for seed in self.seeds.iter_mut().flatten() {
            *seed = saved.u64()?;
        }
        self.hashers = self.seeds.map(hasher);
        if saved.u64()? != fingerprint(&self.hashers) {
            return Err(Error::State(
                "this machine gives event ids other hashes than the one that saved them".into(),
            ));
        }
        self.young_since_us = saved.i64()?;
        self.generation = saved.u64()?;
        (self.young, self.old) = Default::default();
        Ok(())
    }

    /// Remembers ids that [`DedupSet::save_ids`] wrote, but for those that were forgotten since.
    ///
    /// # Errors
    /// When they were not written by it.
    pub fn load_ids(&mut self, saved: &mut StateReader<'_>) -> dataflow::Result<()> {
        let generation = saved.u64()?;
        for generation in [Some(generation), generation.checked_sub(1)] {
            let ids = saved.all(StateReader::i128)?.into_iter().map(|hash| hash as u128);
            let Some(generation) = generation else { continue };
            match self.generation.checked_sub(generation) {
                Some(0) => self.young.extend(ids),
                Some(1) => self.old.extend(ids),
                _ => {}
            }
        }
        Ok(())
    }
}

const STATE_VERSION: u8 = 1;

/// Secret: who knows it can make ids collide.
fn new_seed() -> [u64; 4] {
    let random = RandomState::new();
    [0u64, 1, 2, 3].map(|number| random.hash_one(number))
}

fn hasher([a, b, c, d]: [u64; 4]) -> RandomState {
    RandomState::with_seeds(a, b, c, d)
}

/// Tells apart implementations of the hash, which differ by the machine's instructions and between versions: each
/// length of text goes another way through it.
fn fingerprint(hashers: &[RandomState; 2]) -> u64 {
    let texts =
        ["", "id", "an id", "a longer id", "an id longer than sixteen bytes", &"a very long id ".repeat(9)];
    hashers[0].hash_one(texts) ^ hashers[1].hash_one(texts)
}

pub fn keep(rows: &RecordBatch, mask: &BooleanArray) -> dataflow::Result<RecordBatch> {
    Ok(filter_record_batch(rows, mask)?)
}

/// The answer that a request got.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    pub body_crc: u32,
    pub accepted: u64,
    pub duplicates: u64,
    pub tick: Tick,
}

/// Requests with an idempotency key, remembered for a day.
#[derive(Default)]
pub struct Requests {
    answers: HashMap<(RelationId, String), Answer>,
    by_age: VecDeque<(i64, (RelationId, String))>,
    /// So many of the newest were not saved yet.
    unsaved: usize,
}

impl Requests {
    pub const WINDOW_US: i64 = 24 * 3_600_000_000;

    pub fn find(&self, table: RelationId, key: &str) -> Option<&Answer> {
        self.answers.get(&(table, key.to_string()))
    }

    /// The request could not be made durable: a retry is to be taken.
    pub fn forget(&mut self, table: RelationId, key: &str) {
        self.answers.remove(&(table, key.to_string()));
    }

    pub fn remember(&mut self, table: RelationId, request: &RequestKey, arrival_us: i64, answer: Answer) {
        while let Some((age, key)) = self.by_age.front() {
            if arrival_us.saturating_sub(*age) < Self::WINDOW_US {
                break;
            }
            self.answers.remove(key);
            self.by_age.pop_front();
        }
        self.unsaved = self.unsaved.min(self.by_age.len());
        let key = (table, request.key.clone());
        self.answers.insert(key.clone(), answer);
        self.by_age.push_back((arrival_us, key));
        self.unsaved += 1;
    }

    /// Writes all requests, or those that came since the last time; false when there are none.
    pub fn save(&mut self, all: bool, out: &mut StateWriter) -> bool {
        let count = if all { self.by_age.len() } else { self.unsaved };
        self.unsaved = 0;
        out.all(self.by_age.range(self.by_age.len() - count..), |out, (age, key)| {
            out.i64(*age);
            out.u32(key.0.0);
            out.text(&key.1);
            out.option(self.answers.get(key), |out, answer| {
                out.u32(answer.body_crc);
                out.u64(answer.accepted);
                out.u64(answer.duplicates);
                out.u64(answer.tick.0);
            });
        });
        count > 0
    }

    /// Remembers what [`Requests::save`] wrote, behind what was written before.
    ///
    /// # Errors
    /// When it was not written by it.
    pub fn load(&mut self, saved: &mut StateReader<'_>) -> dataflow::Result<()> {
        for _ in 0..saved.count()? {
            let age = saved.i64()?;
            let key = (RelationId(saved.u32()?), saved.text()?.to_string());
            let answer = saved.option(|saved| {
                Ok(Answer {
                    body_crc: saved.u32()?,
                    accepted: saved.u64()?,
                    duplicates: saved.u64()?,
                    tick: Tick(saved.u64()?),
                })
            })?;
            if let Some(answer) = answer {
                self.answers.insert(key.clone(), answer);
            }
            self.by_age.push_back((age, key));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;

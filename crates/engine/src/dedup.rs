//! Who was seen before: event ids within a table's dedup window, and requests within a day.
//!
//! Both are rebuilt from the log at start, so a retry is recognized across crashes.

use std::collections::{HashMap, HashSet, VecDeque};

use ahash::RandomState;
use arrow::array::{Array, BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::row::{RowConverter, SortField};
use dataflow::Tick;
use sql::{RelationId, TableDef};

use crate::record::RequestKey;

/// Event ids of one table, remembered for at least its window.
///
/// Kept as 128-bit keyed hashes in two generations: when the younger is a window old, the older is
/// forgotten. Two ids collide with probability 2^-128 times the number of pairs.
pub struct DedupSet {
    column: usize,
    window_us: i64,
    converter: RowConverter,
    hashers: [RandomState; 2],
    young: HashSet<u128, RandomState>,
    old: HashSet<u128, RandomState>,
    young_since_us: i64,
}

impl DedupSet {
    /// `None` when the table has no dedup key.
    pub fn new(table: &TableDef) -> Option<DedupSet> {
        let column = table.options.dedup_key?;
        let field = SortField::new(table.columns[column].data_type.clone());
        Some(DedupSet {
            column,
            window_us: table.options.dedup_window_us,
            converter: RowConverter::new(vec![field]).ok()?,
            hashers: [RandomState::new(), RandomState::new()],
            young: HashSet::default(),
            old: HashSet::default(),
            young_since_us: i64::MIN,
        })
    }

    /// Remembers the batch's ids and gives a mask of the rows whose id is new, or `None` when all are.
    /// Rows without an id are never duplicates.
    pub fn admit(&mut self, rows: &RecordBatch, arrival_us: i64) -> dataflow::Result<Option<BooleanArray>> {
        if self.young_since_us == i64::MIN {
            self.young_since_us = arrival_us;
        } else if arrival_us.saturating_sub(self.young_since_us) >= self.window_us {
            self.old = std::mem::take(&mut self.young);
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
            let [a, b] = [0, 1].map(|h| u128::from(self.hashers[h].hash_one(id.data())));
            let hash = a << 64 | b;
            if self.old.contains(&hash) || !self.young.insert(hash) {
                fresh[row] = false;
                all_fresh = false;
            }
        }
        Ok((!all_fresh).then(|| BooleanArray::from(fresh)))
    }

    /// Takes back the ids of rows that were admitted but could not be made durable.
    pub fn forget(&mut self, rows: &RecordBatch) -> dataflow::Result<()> {
        let encoded = self.converter.convert_columns(std::slice::from_ref(rows.column(self.column)))?;
        for id in encoded.iter() {
            let [a, b] = [0, 1].map(|h| u128::from(self.hashers[h].hash_one(id.data())));
            self.young.remove(&(a << 64 | b));
        }
        Ok(())
    }
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
        let key = (table, request.key.clone());
        self.answers.insert(key.clone(), answer);
        self.by_age.push_back((arrival_us, key));
    }
}

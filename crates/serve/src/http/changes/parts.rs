//! A snapshot or a change, cut into events of bounded size.
//!
//! A change is consolidated first and its deletions come before its insertions, so that a reader
//! may apply part after part: a row that was inserted and deleted in one tick never shows.

use std::collections::HashMap;

use arrow::array::RecordBatch;
use arrow::row::{RowConverter, SortField};
use dataflow::{Tick, ZSet};
use engine::Change;

use super::{JsonRows, rows_total};

/// Rows of one event.
pub const PART_ROWS: usize = 500;
/// Bytes of JSON after which an event gets no more rows: each slow reader holds about this much.
const PART_BYTES: usize = 64 << 10;

/// What is left to send of one snapshot or change.
pub struct Parts {
    tick: Tick,
    content: Content,
}

enum Content {
    Snapshot {
        // Members of the first part.
        head: Option<Vec<u8>>,
        batches: Vec<RecordBatch>,
        sent: usize,
        total: usize,
    },
    Change {
        rows: RecordBatch,
        // Row number and weight: deletions (negative) first.
        entries: Vec<(usize, i64)>,
        // Position: entry, and how many copies of it were sent.
        entry: usize,
        copies: u64,
    },
}

impl Parts {
    pub fn snapshot(tick: Tick, head: Vec<u8>, batches: Vec<RecordBatch>) -> Parts {
        let total = rows_total(&batches);
        Parts { tick, content: Content::Snapshot { head: Some(head), batches, sent: 0, total } }
    }

    /// `None` when nothing changed after all.
    pub fn change(change: Change) -> Option<Parts> {
        let entries = consolidated(&change.change);
        if entries.is_empty() {
            return None;
        }
        let rows = change.change.rows().clone();
        Some(Parts { tick: change.tick, content: Content::Change { rows, entries, entry: 0, copies: 0 } })
    }

    pub fn tick(&self) -> Tick {
        self.tick
    }

    pub fn event_name(&self) -> &'static str {
        match self.content {
            Content::Snapshot { .. } => "snapshot",
            Content::Change { .. } => "change",
        }
    }

    /// Writes the members of the next event; true when it is the last one.
    pub fn write_next(&mut self, out: &mut Vec<u8>, json: &JsonRows) -> bool {
        match &mut self.content {
            Content::Snapshot { head, batches, sent, total } => {
                match head.take() {
                    Some(head) => out.extend_from_slice(&head),
                    None => out.extend_from_slice(format!(",\"tick\":{}", self.tick).as_bytes()),
                }
                out.extend_from_slice(b",\"rows\":[");
                let first = *sent;
                while *sent < *total && *sent - first < PART_ROWS && out.len() < PART_BYTES {
                    if *sent > first {
                        out.push(b',');
                    }
                    let (batch, row) = locate(batches, *sent);
                    json.write_object(out, batch, row);
                    *sent += 1;
                }
                let last = *sent == *total;
                out.extend_from_slice(format!("],\"last\":{last}").as_bytes());
                last
            }
            Content::Change { rows, entries, entry, copies } => {
                let mut deleted = Vec::new();
                let mut inserted = Vec::new();
                let mut written = 0;
                while *entry < entries.len()
                    && written < PART_ROWS
                    && deleted.len() + inserted.len() < PART_BYTES
                {
                    let (row, weight) = entries[*entry];
                    let list = if weight < 0 { &mut deleted } else { &mut inserted };
                    if !list.is_empty() {
                        list.push(b',');
                    }
                    json.write_object(list, rows, row);
                    written += 1;
                    *copies += 1;
                    if *copies == weight.unsigned_abs() {
                        *entry += 1;
                        *copies = 0;
                    }
                }
                let last = *entry == entries.len();
                out.extend_from_slice(format!(",\"tick\":{},\"deleted\":[", self.tick).as_bytes());
                out.extend_from_slice(&deleted);
                out.extend_from_slice(b"],\"inserted\":[");
                out.extend_from_slice(&inserted);
                out.extend_from_slice(format!("],\"last\":{last}").as_bytes());
                last
            }
        }
    }
}

fn locate(batches: &[RecordBatch], mut number: usize) -> (&RecordBatch, usize) {
    for batch in batches {
        if number < batch.num_rows() {
            return (batch, number);
        }
        number -= batch.num_rows();
    }
    panic!("the number is below the total of rows");
}

/// Row numbers with their summed weights, deletions first; equal rows are one entry.
fn consolidated(change: &ZSet) -> Vec<(usize, i64)> {
    let plain = || (0..change.len()).map(move |row| (row, change.weight(row)));
    if change.all_inserts() {
        return plain().collect();
    }
    let mut entries: Vec<(usize, i64)> = match row_keys(change) {
        None => plain().collect(),
        Some(keys) => {
            let mut first: HashMap<&[u8], usize> = HashMap::new();
            let mut sums: Vec<(usize, i64)> = Vec::new();
            for (row, weight) in plain() {
                let slot = *first.entry(keys.row(row).data()).or_insert_with(|| {
                    sums.push((row, 0));
                    sums.len() - 1
                });
                sums[slot].1 += weight;
            }
            sums.into_iter().filter(|(_, weight)| *weight != 0).collect()
        }
    };
    // Stable: within deletions and within insertions the engine's order stays.
    entries.sort_by_key(|(_, weight)| *weight > 0);
    entries
}

/// Comparable bytes of each row; `None` for types that Arrow can't encode.
fn row_keys(change: &ZSet) -> Option<arrow::row::Rows> {
    let fields =
        change.schema().fields().iter().map(|field| SortField::new(field.data_type().clone())).collect();
    RowConverter::new(fields).ok()?.convert_columns(change.rows().columns()).ok()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int64Array, StringArray};
    use serde_json::{Value, json};

    use super::*;

    fn rows(values: &[i64]) -> RecordBatch {
        let array: ArrayRef = Arc::new(Int64Array::from(values.to_vec()));
        RecordBatch::try_from_iter([("v", array)]).unwrap()
    }

    fn all_parts(mut parts: Parts) -> Vec<Value> {
        let json = JsonRows::new(&rows(&[]).schema());
        let mut out = Vec::new();
        loop {
            let mut data = b"{\"view\":\"x\"".to_vec();
            let last = parts.write_next(&mut data, &json);
            data.push(b'}');
            out.push(serde_json::from_slice(&data).unwrap());
            if last {
                return out;
            }
        }
    }

    #[test]
    fn a_snapshot_comes_in_parts_and_says_which_is_the_last() {
        let head = b",\"tick\":3,\"reset\":false".to_vec();
        let first: Vec<i64> = (0..600).collect();
        let parts = all_parts(Parts::snapshot(Tick(3), head, vec![rows(&first), rows(&[600])]));
        assert_eq!(parts.len(), 2);
        assert_eq!(parts[0]["rows"].as_array().unwrap().len(), PART_ROWS);
        assert_eq!((&parts[0]["last"], &parts[0]["reset"]), (&json!(false), &json!(false)));
        assert_eq!(parts[1]["rows"][100], json!({"v": 600}));
        assert_eq!((&parts[1]["last"], &parts[1]["tick"]), (&json!(true), &json!(3)));
    }

    #[test]
    fn an_empty_snapshot_is_one_event() {
        let parts = all_parts(Parts::snapshot(Tick(0), b",\"tick\":0".to_vec(), vec![]));
        assert_eq!(parts, vec![json!({"view": "x", "tick": 0, "rows": [], "last": true})]);
    }

    #[test]
    fn a_change_is_consolidated_and_deletes_first() {
        let change = ZSet::new(rows(&[1, 2, 3, 2, 1, 4]), vec![1, 1, 2, -1, 1, -1]);
        let parts = all_parts(Parts::change(Change { tick: Tick(9), change }).unwrap());
        let of = |value: i64| json!({"v": value});
        assert_eq!(
            parts,
            vec![json!({
                "view": "x", "tick": 9, "last": true,
                "deleted": [of(4)], "inserted": [of(1), of(1), of(3), of(3)],
            })]
        );
        let nothing = ZSet::new(rows(&[1, 1]), vec![1, -1]);
        assert!(Parts::change(Change { tick: Tick(9), change: nothing }).is_none());
    }

    #[test]
    fn a_heavy_row_does_not_make_a_heavy_event() {
        let change = ZSet::new(rows(&[7]), vec![1_201]);
        let parts = all_parts(Parts::change(Change { tick: Tick(1), change }).unwrap());
        let lengths: Vec<usize> =
            parts.iter().map(|part| part["inserted"].as_array().unwrap().len()).collect();
        assert_eq!(lengths, [500, 500, 201]);
    }
    #[test]
    fn wide_rows_come_in_more_events() {
        let texts = vec!["x".repeat(PART_BYTES / 4); 9];
        let array: ArrayRef = Arc::new(StringArray::from(texts));
        let batch = RecordBatch::try_from_iter([("v", array)]).unwrap();
        let change = ZSet::new(batch.clone(), vec![1; 9]);
        let change = Parts::change(Change { tick: Tick(1), change }).unwrap();
        let snapshot = Parts::snapshot(Tick(1), b",\"tick\":1".to_vec(), vec![batch]);
        for (parts, list) in [(change, "inserted"), (snapshot, "rows")] {
            let lengths: Vec<usize> =
                all_parts(parts).iter().map(|part| part[list].as_array().unwrap().len()).collect();
            assert_eq!(lengths, [4, 4, 1]);
        }
    }
}

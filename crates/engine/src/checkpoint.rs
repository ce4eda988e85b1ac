//! Checkpoints: the engine's state beside the log, so that a start reads only the log's end.
//!
//! ```text
//!   log          ------- S ------------------------ end
//!   tables            at S, S+2 ..         state as of some record at or after S each, none before what it reads
//!   nodes                 S+2, S+5 ..
//!   views                       S+9        all at the same tick, last
//!   dedup, requests     S+1
//!   start        opens them, replays from S on; each passes over what is in it already
//! ```
//!
//! So a checkpoint costs no pause: between two steps a node is saved, and the engine goes on. A step of a replay ends
//! where something was saved, so that nothing is saved in the middle of one.
//!
//! [`Manifest`] is a checkpoint's body: what is where. States that did not change are taken over from the checkpoint
//! before. Whatever can't be read is not used: the checkpoint before is tried, at last the whole log.

mod manifest;
mod saver;

pub use manifest::{HistoryEntry, Manifest, NodeEntry, RelationEntry, SeenEntry, TableEntry};
pub use saver::{Draft, Restored, Save, Saver, Where, mark_of, pieces_of};

/// A hash of known columns by this seed: where it is another, keys are divided into other shards.
pub fn probe(seed: u64) -> u64 {
    use arrow::array::{ArrayRef, Int64Array, StringArray};
    use datafusion::common::hash_utils::{RandomState, create_hashes};
    let columns: [ArrayRef; 2] = [
        std::sync::Arc::new(Int64Array::from(vec![4711])),
        std::sync::Arc::new(StringArray::from(vec!["a text longer than one word of the processor"])),
    ];
    let mut hashes = vec![0];
    match create_hashes(&columns, &RandomState::with_seed(seed), &mut hashes) {
        Ok(_) => hashes[0],
        Err(_) => 0,
    }
}

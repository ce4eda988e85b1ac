//! Sources: where rows come from, with a position to resume from.

pub mod files;
pub mod parallel;

mod chunks;

pub use files::{FileBatch, FileFormat, FileOptions, FileSource, Position};
pub use parallel::{FileOrder, ParallelFiles};

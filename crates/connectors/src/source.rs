//! Sources: where rows come from, with a position to resume from.

pub mod files;
pub mod nexmark;
pub mod parallel;

mod chunks;
mod registry;

pub use files::{FileBatch, FileFormat, FileOptions, FileSource, Position};
pub use parallel::{FileOrder, ParallelFiles};
pub use registry::{CheckOnly, Registry};

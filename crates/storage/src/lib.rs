//! Every byte on disk, and nothing about what the bytes mean.
//!
//! In reading order: the only way to files ([`disk`]), Arrow columns as bytes ([`columns`]), the
//! durable event log ([`log`]), and states at some moment of it ([`checkpoints`]). The formats are described in docs/format.md.

pub mod checkpoints;
pub mod columns;
pub mod disk;
pub mod log;

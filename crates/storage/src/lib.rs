//! Every byte on disk, and nothing about what the bytes mean.
//!
//! In reading order: the only way to files ([`disk`]), Arrow columns as bytes ([`columns`]), and the
//! durable event log ([`log`]). The formats are described in docs/format.md.

pub mod columns;
pub mod disk;
pub mod log;

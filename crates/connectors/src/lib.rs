//! Bytes to columns and back: formats, compression and sources.
//!
//! ```text
//!   file, body, COPY  --compression-->  bytes  --format-->  dataflow::DecodedRows
//! ```
//!
//! A format writes straight into columns, without row objects, and never loses a row silently:
//! each row of the input is either in the batch or in `rejected`, with its reason and its bytes.
//! This crate knows neither SQL nor the engine nor any socket; the target columns come as an
//! Arrow schema whose field metadata `sql_type` names the PostgreSQL type.

pub mod compression;
pub mod error;
pub mod format;
pub mod pieces;
pub mod source;

pub use compression::{Encoding, decompress_bounded};
pub use error::{Error, Result};

//! What can go wrong outside of rows: files, compressed bytes, file headers.

use std::path::PathBuf;

/// Rows that can't be read are not errors, see [`dataflow::RejectedRow`]; these are.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file can't be opened or read, or its compressed bytes are damaged.
    #[error("can't read file {}: {source}", path.display())]
    File { path: PathBuf, source: std::io::Error },
    /// The compressed bytes are damaged or cut off.
    #[error("the body is not valid {encoding}: {source}")]
    Compressed { encoding: &'static str, source: std::io::Error },
    /// More bytes come out than are allowed.
    #[error("the body is longer than {bytes_max} bytes when decompressed; send it in smaller parts")]
    TooLarge { bytes_max: usize },
    /// The file as a whole does not fit: no rows were read from it.
    #[error("{0}")]
    Mismatch(String),
    #[error(transparent)]
    Parquet(#[from] parquet::errors::ParquetError),
    #[error(transparent)]
    Arrow(#[from] arrow::error::ArrowError),
}

pub type Result<T, E = Error> = std::result::Result<T, E>;

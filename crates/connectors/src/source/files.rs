//! Files as a replayable source: the same bytes give the same rows, and a [`Position`] says where
//! to go on.
//!
//! This is what Flink's filesystem source is: the file itself is the log. Plain, gzip and zstd
//! files are told apart by content. For more than one core see [`super::ParallelFiles`].

use std::path::PathBuf;

use arrow::datatypes::SchemaRef;
use dataflow::DecodedRows;

use super::chunks::{ChunkReader, ChunkSettings};
use super::parallel::FileOrder;
use crate::Result;
use crate::format::csv::{CsvOptions, Header};
use crate::format::json::JsonOptions;

/// What the files hold.
#[derive(Clone, Debug, PartialEq)]
pub enum FileFormat {
    Csv(CsvOptions),
    /// One object per line, whatever [`JsonOptions::framing`] says.
    Ndjson(JsonOptions),
}

impl FileFormat {
    pub(super) fn row_bytes_max(&self) -> usize {
        match self {
            FileFormat::Csv(options) => options.row_bytes_max,
            FileFormat::Ndjson(options) => options.row_bytes_max,
        }
    }

    pub(super) fn has_header(&self) -> bool {
        matches!(self, FileFormat::Csv(options) if options.header != Header::Absent)
    }
}

/// How files are read.
#[derive(Clone, Debug, PartialEq)]
pub struct FileOptions {
    /// Bytes decoded at once. 2 MiB are about 55,000 rows of 38 bytes and stay in a core's cache.
    pub chunk_bytes: usize,
    /// Hand the bytes of each batch on with it, for `DecodedRows::raw_ranges` to point into;
    /// without, `raw_ranges` is empty.
    pub keep_bodies: bool,
    /// Threads of [`super::ParallelFiles`]; 0 means one per core.
    pub threads: usize,
    /// In which order [`super::ParallelFiles`] hands on batches of several files.
    pub order: FileOrder,
}

impl Default for FileOptions {
    fn default() -> Self {
        FileOptions { chunk_bytes: 2 << 20, keep_bodies: false, threads: 0, order: FileOrder::Sequential }
    }
}

/// A place between two rows. Stays valid as long as the file is not replaced (it may grow, if it
/// ended with a line end).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// Which of the source's files.
    pub file: usize,
    /// Byte in the decompressed file.
    pub offset: u64,
    /// Rows of the file before it, rejected ones included.
    pub row: u64,
}

/// Some rows of one file.
#[derive(Debug)]
pub struct FileBatch {
    pub rows: DecodedRows,
    /// The number in its file of the row that has number 0 in `rows`.
    pub first_row: u64,
    /// Where the file goes on behind this batch.
    pub next: Position,
    /// The bytes that the rows stand in, with [`FileOptions::keep_bodies`]; else empty.
    pub body: Vec<u8>,
}

impl FileBatch {
    /// Counts the rows and says where they stand. `position` is moved behind them.
    pub(super) fn new(
        mut rows: DecodedRows,
        body: Option<Vec<u8>>,
        end: u64,
        position: &mut Position,
    ) -> FileBatch {
        let first_row = position.row;
        position.row += (rows.batch.num_rows() + rows.rejected.len()) as u64;
        position.offset = end;
        if body.is_none() {
            rows.raw_ranges = Vec::new();
        }
        FileBatch { rows, first_row, next: *position, body: body.unwrap_or_default() }
    }
}

/// Reads files one after the other in the calling thread.
pub struct FileSource {
    paths: Vec<PathBuf>,
    settings: ChunkSettings,
    keep_bodies: bool,
    reader: Option<ChunkReader>,
    position: Position,
    buffer: Vec<u8>,
}

impl FileSource {
    /// Opens the files at their start. `columns` says which column each field of a CSV row goes
    /// to (see [`crate::format::csv::CsvDecoder::new`]); NDJSON does not need it.
    ///
    /// # Errors
    /// When one of the files can't be opened.
    pub fn open(
        paths: &[PathBuf],
        format: FileFormat,
        schema: &SchemaRef,
        columns: &[usize],
        options: &FileOptions,
    ) -> Result<FileSource> {
        let settings = ChunkSettings {
            format,
            schema: SchemaRef::clone(schema),
            columns: columns.to_vec(),
            chunk_bytes: options.chunk_bytes,
        };
        for path in paths {
            ChunkReader::open(path, &settings, 0)?;
        }
        Ok(FileSource {
            paths: paths.to_vec(),
            settings,
            keep_bodies: options.keep_bodies,
            reader: None,
            position: Position::default(),
            buffer: Vec::new(),
        })
    }

    /// The rows that follow, or `None` behind the last file.
    pub fn next_batch(&mut self) -> Result<Option<FileBatch>> {
        while let Some(path) = self.paths.get(self.position.file) {
            let reader = match &mut self.reader {
                Some(reader) => reader,
                None => self.reader.insert(ChunkReader::open(path, &self.settings, self.position.offset)?),
            };
            let Some(chunk) = reader.next(&mut self.buffer)? else {
                self.reader = None;
                self.position = Position { file: self.position.file + 1, offset: 0, row: 0 };
                continue;
            };
            let rows = chunk.decode(&self.buffer);
            let body = self.keep_bodies.then(|| std::mem::take(&mut self.buffer));
            return Ok(Some(FileBatch::new(rows, body, chunk.end, &mut self.position)));
        }
        Ok(None)
    }

    /// Where the next batch begins.
    pub fn position(&self) -> Position {
        self.position
    }

    /// Goes on at a position that a batch of the same files gave.
    pub fn seek(&mut self, position: Position) {
        self.reader = None;
        self.position = position;
    }
}

#[cfg(test)]
mod tests;

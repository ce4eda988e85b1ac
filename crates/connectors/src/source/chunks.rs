//! Cuts one file into chunks of whole rows.
//!
//! Invariant: the same file gives the same rows whatever the chunk size, because a chunk ends
//! only where the decoder of a whole file would begin a new row. Memory stays bounded by the
//! chunk size and the longest row allowed: the rest of a longer row is read and dropped.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use dataflow::{DecodedRows, RejectedRow};

use super::files::FileFormat;
use crate::compression::FileReader;
use crate::format::csv::CsvDecoder;
use crate::format::json::{JsonDecoder, JsonFraming, JsonOptions};
use crate::format::rows::{RowsBuilder, nullable};
use crate::{Error, Result};

/// Decodes the rows of chunks.
pub(super) enum RowDecoder {
    Csv(CsvDecoder),
    Json(JsonDecoder),
}

impl RowDecoder {
    pub(super) fn new(format: &FileFormat, schema: &SchemaRef, columns: &[usize]) -> RowDecoder {
        match format {
            FileFormat::Csv(options) => RowDecoder::Csv(CsvDecoder::new(schema, columns, options.clone())),
            FileFormat::Ndjson(options) => {
                let options = JsonOptions { framing: JsonFraming::Lines, ..options.clone() };
                RowDecoder::Json(JsonDecoder::new(schema, options))
            }
        }
    }

    fn whole_rows_len(&self, chunk: &[u8]) -> usize {
        match self {
            RowDecoder::Csv(decoder) => decoder.whole_rows_len(chunk),
            RowDecoder::Json(_) => memchr::memrchr(b'\n', chunk).map_or(0, |at| at + 1),
        }
    }

    fn decode_from(&self, chunk: &[u8], start: usize) -> DecodedRows {
        match self {
            RowDecoder::Csv(decoder) => decoder.decode_from(chunk, start),
            RowDecoder::Json(decoder) => decoder.decode_from(chunk, start),
        }
    }
}

/// What the bytes of a chunk are.
enum Content {
    /// Rows from `start` on (behind the header).
    Rows { start: usize },
    /// The beginning of one row of `length` bytes, which is too long.
    TooLarge { length: usize },
}

/// Bytes of a file and how to read them.
pub(super) struct Chunk {
    /// Place behind the chunk in the decompressed file.
    pub(super) end: u64,
    content: Content,
    decoder: Arc<RowDecoder>,
    row_bytes_max: usize,
    schema: SchemaRef,
}

impl Chunk {
    /// Decodes the chunk whose bytes were read into `bytes`.
    pub(super) fn decode(&self, bytes: &[u8]) -> DecodedRows {
        match self.content {
            Content::Rows { start } => self.decoder.decode_from(bytes, start),
            Content::TooLarge { length } => {
                let mut rows = RowsBuilder::new(&self.schema);
                rows.reject_too_large(bytes, length, self.row_bytes_max);
                rows.finish(&self.schema)
            }
        }
    }
}

/// How to open a file.
#[derive(Clone)]
pub(super) struct ChunkSettings {
    pub(super) format: FileFormat,
    pub(super) schema: SchemaRef,
    pub(super) columns: Vec<usize>,
    pub(super) chunk_bytes: usize,
}

/// Reads chunks of one file.
pub(super) struct ChunkReader {
    path: PathBuf,
    reader: FileReader,
    decoder: Arc<RowDecoder>,
    settings: ChunkSettings,
    schema: SchemaRef,
    /// Bytes behind the last whole row of the previous chunk.
    carry: Vec<u8>,
    /// Place of the next chunk in the decompressed file.
    offset: u64,
}

impl ChunkReader {
    /// Opens a file to be read from `offset` on, where a row begins.
    pub(super) fn open(path: &Path, settings: &ChunkSettings, offset: u64) -> Result<ChunkReader> {
        let mut reader = ChunkReader {
            path: path.to_path_buf(),
            reader: FileReader::open(path)?,
            decoder: Arc::new(RowDecoder::new(&settings.format, &settings.schema, &settings.columns)),
            settings: settings.clone(),
            schema: nullable(&settings.schema),
            carry: Vec::new(),
            offset: 0,
        };
        if offset > 0 {
            // The header stands in the first chunk.
            reader.next(&mut Vec::new())?;
            reader.reader = FileReader::open(path)?;
            reader
                .reader
                .skip_to(offset)
                .map_err(|source| Error::File { path: path.to_path_buf(), source })?;
            reader.carry.clear();
            reader.offset = offset;
        }
        Ok(reader)
    }

    /// Reads the next chunk into `buffer`; `None` at the end of the file.
    pub(super) fn next(&mut self, buffer: &mut Vec<u8>) -> Result<Option<Chunk>> {
        buffer.clear();
        buffer.extend_from_slice(&self.carry);
        self.carry.clear();
        let row_bytes_max = self.settings.format.row_bytes_max();
        let mut target = self.settings.chunk_bytes.max(buffer.len() + 1);
        loop {
            let at_end = self.fill(buffer, target)?;
            if buffer.is_empty() {
                return Ok(None);
            }
            let whole = if at_end { buffer.len() } else { self.decoder.whole_rows_len(buffer) };
            if whole > 0 {
                self.carry.extend_from_slice(&buffer[whole..]);
                buffer.truncate(whole);
                return self.rows_chunk(buffer).map(Some);
            }
            // Two bytes of grace: the line end does not belong to the row.
            if buffer.len() > row_bytes_max.saturating_add(2) {
                return self.too_large_chunk(buffer).map(Some);
            }
            target = buffer.len() + buffer.len().max(64);
        }
    }

    fn rows_chunk(&mut self, buffer: &[u8]) -> Result<Chunk> {
        let mut start = 0;
        if self.offset == 0 {
            match self.decoder.as_ref() {
                RowDecoder::Csv(decoder) => {
                    let (bound, rows_start) = decoder.begin(buffer);
                    self.decoder = Arc::new(RowDecoder::Csv(bound));
                    start = rows_start;
                }
                RowDecoder::Json(_) if buffer.starts_with(b"\xef\xbb\xbf") => start = 3,
                RowDecoder::Json(_) => {}
            }
        }
        self.offset += buffer.len() as u64;
        Ok(self.chunk(Content::Rows { start }))
    }

    fn too_large_chunk(&mut self, buffer: &mut Vec<u8>) -> Result<Chunk> {
        if self.offset == 0 && self.settings.format.has_header() {
            return Err(Error::Mismatch(format!(
                "the header of {} is longer than a row may be",
                self.path.display()
            )));
        }
        let mut length = buffer.len();
        let mut last = buffer.last().copied();
        buffer.truncate(RejectedRow::RAW_BYTES_MAX);
        let mut line_end_bytes = 0;
        let mut piece = Vec::new();
        loop {
            piece.clear();
            let at_end = self.fill(&mut piece, self.settings.chunk_bytes.max(64))?;
            let line_end = memchr::memchr(b'\n', &piece);
            let rest = &piece[..line_end.unwrap_or(piece.len())];
            length += rest.len();
            last = rest.last().copied().or(last);
            if let Some(at) = line_end {
                self.carry.extend_from_slice(&piece[at + 1..]);
                line_end_bytes = 1;
            }
            if line_end.is_some() || at_end {
                break;
            }
        }
        self.offset += (length + line_end_bytes) as u64;
        let carriage_return = usize::from(last == Some(b'\r'));
        Ok(self.chunk(Content::TooLarge { length: length - carriage_return }))
    }

    fn chunk(&self, content: Content) -> Chunk {
        Chunk {
            end: self.offset,
            content,
            decoder: Arc::clone(&self.decoder),
            row_bytes_max: self.settings.format.row_bytes_max(),
            schema: Arc::clone(&self.schema),
        }
    }

    /// Reads until `buffer` holds `target` bytes; true at the end of the file.
    fn fill(&mut self, buffer: &mut Vec<u8>, target: usize) -> Result<bool> {
        let missing = target.saturating_sub(buffer.len());
        buffer.reserve(missing);
        let read = self
            .reader
            .by_ref()
            .take(missing as u64)
            .read_to_end(buffer)
            .map_err(|source| Error::File { path: self.path.clone(), source })?;
        Ok(read < missing)
    }
}

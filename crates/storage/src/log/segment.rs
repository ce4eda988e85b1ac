//! One file of the log: its name, its header, and reading frames from it in big pieces.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::frame::{self, FRAME_HEADER_BYTES, FrameHeader};
use super::{LogError, RECORD_BYTES_MAX};
use crate::disk::{Disk, DiskFile};

/// Bytes before the first frame.
pub const SEGMENT_HEADER_BYTES: usize = 32;

pub const FORMAT_VERSION: u32 = 1;

const MAGIC: [u8; 8] = *b"SHOPSLOG";

/// One read call asks for this much, or for a whole record if that is longer.
const READ_BYTES: usize = 1 << 20;

/// Distance between two entries of the index in memory: what a reader may have to skip.
const INDEX_STEP_BYTES: u64 = 256 << 10;

/// What is known of a segment in memory.
#[derive(Debug)]
pub struct Segment {
    /// Offset of the first record.
    pub first: u64,
    pub salt: u32,
    /// Length of the committed part.
    pub bytes: u64,
    /// Some of the records, ascending, to start reading near an offset.
    pub index: Vec<IndexEntry>,
}

#[derive(Clone, Copy, Debug)]
pub struct IndexEntry {
    pub offset: u64,
    pub position: u64,
}

pub fn add_to_index(index: &mut Vec<IndexEntry>, offset: u64, position: u64) {
    if index.last().is_none_or(|last| last.position + INDEX_STEP_BYTES <= position) {
        index.push(IndexEntry { offset, position });
    }
}

pub fn file_name(first: u64) -> String {
    format!("{first:020}.log")
}

/// The first offset a segment file's name says; `None` for files that are not segments.
pub fn parse_file_name(path: &Path) -> Option<u64> {
    let digits = path.file_name()?.to_str()?.strip_suffix(".log")?;
    if digits.len() == 20 && digits.bytes().all(|byte| byte.is_ascii_digit()) {
        digits.parse().ok()
    } else {
        None
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentHeader {
    pub first: u64,
    pub salt: u32,
}

/// Why the start of a file is not a header.
#[derive(Debug, PartialEq, Eq)]
pub enum HeaderError {
    Invalid(&'static str),
    Newer { version: u32 },
}

impl SegmentHeader {
    pub fn to_bytes(self) -> [u8; SEGMENT_HEADER_BYTES] {
        let mut bytes = [0; SEGMENT_HEADER_BYTES];
        bytes[0..8].copy_from_slice(&MAGIC);
        bytes[8..12].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.salt.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.first.to_le_bytes());
        let crc = crc32fast::hash(&bytes[..28]);
        bytes[28..32].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    pub fn parse(bytes: &[u8]) -> Result<SegmentHeader, HeaderError> {
        let Some(bytes) = bytes.first_chunk::<SEGMENT_HEADER_BYTES>() else {
            return Err(HeaderError::Invalid("the file is shorter than a segment header"));
        };
        if bytes[0..8] != MAGIC {
            return Err(HeaderError::Invalid("the file does not start like a segment"));
        }
        let version = u32::from_le_bytes([bytes[8], bytes[9], bytes[10], bytes[11]]);
        // Before the checksum: a later version may place it elsewhere.
        if version > FORMAT_VERSION {
            return Err(HeaderError::Newer { version });
        }
        let crc = u32::from_le_bytes([bytes[28], bytes[29], bytes[30], bytes[31]]);
        if version == 0 || crc != crc32fast::hash(&bytes[..28]) {
            return Err(HeaderError::Invalid("checksum of the segment header does not match"));
        }
        let salt = u32::from_le_bytes([bytes[12], bytes[13], bytes[14], bytes[15]]);
        let mut first = [0; 8];
        first.copy_from_slice(&bytes[16..24]);
        Ok(SegmentHeader { first: u64::from_le_bytes(first), salt })
    }
}

/// Reads frame after frame of one segment.
#[derive(Debug)]
pub struct FrameReader {
    file: Arc<dyn DiskFile>,
    path: PathBuf,
    salt: u32,
    /// Frames are read up to here.
    end: u64,
    position: u64,
    // Invariant: holds the bytes of the file from `buffer_start` on.
    buffer: Vec<u8>,
    buffer_start: u64,
}

/// A checked frame, and where it starts.
#[derive(Debug)]
pub struct Frame<'a> {
    pub header: FrameHeader,
    pub position: u64,
    pub payload: &'a [u8],
}

/// Why there is no frame.
#[derive(Debug)]
pub enum FrameError {
    Io(LogError),
    /// The bytes at `position` are not a frame with this offset.
    Invalid {
        position: u64,
        what: String,
    },
}

impl FrameReader {
    pub fn open(
        disk: &dyn Disk,
        path: &Path,
        start: IndexEntry,
        salt: u32,
        end: u64,
    ) -> Result<FrameReader, LogError> {
        let file = disk.open(path).map_err(|error| LogError::from_io("open log segment", path, error))?;
        Ok(FrameReader::new(file, path, start.position, salt, end))
    }

    pub fn new(file: Arc<dyn DiskFile>, path: &Path, position: u64, salt: u32, end: u64) -> FrameReader {
        FrameReader {
            file,
            path: path.to_owned(),
            salt,
            end,
            position,
            buffer: Vec::new(),
            buffer_start: position,
        }
    }

    pub fn position(&self) -> u64 {
        self.position
    }

    /// Lets the reader go on to what was committed since.
    pub fn extend_to(&mut self, end: u64) {
        self.end = end;
    }

    /// The next frame, which must have `offset`; `None` at the end.
    pub fn next(&mut self, offset: u64) -> Result<Option<Frame<'_>>, FrameError> {
        self.read(Some(offset))
    }

    /// The next frame, whatever its offset.
    pub fn next_any(&mut self) -> Result<Option<Frame<'_>>, FrameError> {
        self.read(None)
    }

    fn read(&mut self, expected: Option<u64>) -> Result<Option<Frame<'_>>, FrameError> {
        if self.position >= self.end {
            return Ok(None);
        }
        let position = self.position;
        let invalid = |what: String| FrameError::Invalid { position, what };
        let rest = self.end - position;
        if rest < FRAME_HEADER_BYTES as u64 {
            return Err(invalid("the record header is cut off".to_owned()));
        }
        let salt = self.salt;
        let header_bytes = self.bytes(FRAME_HEADER_BYTES)?;
        let header_bytes = header_bytes.first_chunk().expect("as many bytes as asked for");
        let (header, crc) =
            FrameHeader::parse(salt, header_bytes).map_err(|what| invalid(what.to_owned()))?;
        if let Some(offset) = expected
            && header.offset != offset
        {
            return Err(invalid(format!("record {} stands where record {offset} belongs", header.offset)));
        }
        if header.payload_length as usize > RECORD_BYTES_MAX {
            return Err(invalid(format!("record of {} bytes is longer than any", header.payload_length)));
        }
        if rest < header.frame_length() {
            return Err(invalid("the record is cut off".to_owned()));
        }
        let frame = self.bytes(header.frame_length() as usize)?;
        if frame::payload_crc(&frame[FRAME_HEADER_BYTES..]) != crc {
            return Err(invalid("checksum of the record does not match".to_owned()));
        }
        self.position += header.frame_length();
        let start = (position - self.buffer_start) as usize;
        let frame = &self.buffer[start..start + header.frame_length() as usize];
        Ok(Some(Frame { header, position, payload: &frame[FRAME_HEADER_BYTES..] }))
    }

    /// The next `length` bytes, which do not reach beyond `end`.
    fn bytes(&mut self, length: usize) -> Result<&[u8], FrameError> {
        let start = (self.position - self.buffer_start) as usize;
        if self.buffer.len() < start + length {
            self.fill(length)?;
        }
        let start = (self.position - self.buffer_start) as usize;
        Ok(&self.buffer[start..start + length])
    }

    fn fill(&mut self, length: usize) -> Result<(), FrameError> {
        let start = (self.position - self.buffer_start) as usize;
        self.buffer.drain(..start);
        self.buffer_start = self.position;
        let rest = self.end - self.position;
        let wanted = rest.min(length.max(READ_BYTES) as u64) as usize;
        let known = self.buffer.len();
        self.buffer.resize(wanted, 0);
        let read = self
            .file
            .read_full_at(self.buffer_start + known as u64, &mut self.buffer[known..])
            .map_err(|error| FrameError::Io(LogError::from_io("read log segment", &self.path, error)))?;
        self.buffer.truncate(known + read);
        if self.buffer.len() < length {
            let what = format!("the file ends before byte {}", self.position + length as u64);
            return Err(FrameError::Invalid { position: self.position, what });
        }
        Ok(())
    }
}

impl FrameError {
    pub fn into_log_error(self, path: &Path) -> LogError {
        match self {
            FrameError::Io(error) => error,
            FrameError::Invalid { position, what } => LogError::damaged(path, position, what),
        }
    }
}

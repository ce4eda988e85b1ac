//! Opening a log: every record is checked, a torn tail is cut, damage stops.
//!
//! ```text
//!   bad record --> in the last segment? --no--> damaged
//!                     | yes
//!                  a valid header after it? --no--> torn: cut
//!                     | yes
//!                  of a later commit? --yes--> damaged: what stood here had been synced
//!                     | no, of the same commit
//!                  is a sector of the bad record all zero? --yes--> torn: it was never written
//!                                                          --no---> damaged
//! ```
//!
//! The last question is there because a power cut may lose any sectors of an unfinished write, not only
//! its end; a sector of a growing file that was never written reads as zeros.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::LogError;
use super::frame::{self, FRAME_HEADER_BYTES};
use super::segment::{
    self, FORMAT_VERSION, FrameError, FrameReader, HeaderError, SEGMENT_HEADER_BYTES, Segment, SegmentHeader,
};
use crate::disk::{Disk, DiskFile, is_disk_full};

/// Smallest unit that disks write as a whole.
const SECTOR_BYTES: u64 = 512;

const CHUNK_BYTES: u64 = 1 << 20;

/// What opening found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recovery {
    /// Records in the log.
    pub records: u64,
    pub segments: u64,
    /// What was cut: the rest of a write that a crash interrupted, never acknowledged.
    pub torn_tail: Option<TornTail>,
}

/// Bytes that were cut off, or a segment that was removed because it had not even a header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TornTail {
    pub path: PathBuf,
    /// Where the file ends now.
    pub position: u64,
    /// How many bytes stood there.
    pub bytes: u64,
    /// What was wrong with them.
    pub reason: String,
}

pub struct Recovered {
    pub recovery: Recovery,
    pub segments: Vec<Segment>,
    pub last_file: Option<Arc<dyn DiskFile>>,
    pub fsyncs: u64,
}

pub fn recover(disk: &dyn Disk, dir: &Path) -> Result<Recovered, LogError> {
    disk.create_dir_all(dir).map_err(|error| LogError::from_io("create log directory", dir, error))?;
    let paths = disk.list(dir).map_err(|error| LogError::from_io("list log directory", dir, error))?;
    let mut files: Vec<(u64, PathBuf)> =
        paths.into_iter().filter_map(|path| Some((segment::parse_file_name(&path)?, path))).collect();
    files.sort();

    let mut segments: Vec<Segment> = Vec::new();
    let mut next_offset = 0;
    let mut last: Option<LastSegment> = None;
    let mut torn_tail = None;
    let count = files.len();
    for (number, (first, path)) in files.into_iter().enumerate() {
        check_follows(&path, first, next_offset)?;
        let is_last = number + 1 == count;
        let file = disk.open(&path).map_err(|error| LogError::from_io("open log segment", &path, error))?;
        let bytes = file.len().map_err(|error| LogError::from_io("read length of", &path, error))?;
        let header = match read_header(&file, &path, first, bytes)? {
            Ok(header) => header,
            // The header is durable before the first record is written.
            Err(what) if is_last && bytes <= SEGMENT_HEADER_BYTES as u64 => {
                disk.remove(&path).map_err(|error| LogError::from_io("remove torn segment", &path, error))?;
                torn_tail = Some(TornTail { path, position: 0, bytes, reason: what.to_owned() });
                break;
            }
            Err(what) => return Err(LogError::damaged(&path, 0, what)),
        };
        let mut scan = scan(&file, &path, header, next_offset, bytes)?;
        if let Some(reason) = scan.invalid.take() {
            if !is_last {
                return Err(LogError::damaged(&path, scan.end, reason));
            }
            check_torn(&file, &path, header.salt, scan.end, bytes, &reason)?;
            let tail = TornTail { path: path.clone(), position: scan.end, bytes: bytes - scan.end, reason };
            file.truncate(scan.end).map_err(|error| LogError::from_io("cut torn tail of", &path, error))?;
            torn_tail = Some(tail);
        }
        next_offset = scan.next_offset;
        last = Some(LastSegment { file, path, rewrite_from: scan.last_commit, end: scan.end });
        segments.push(Segment { first, salt: header.salt, bytes: scan.end, index: scan.index });
    }

    let mut fsyncs = 0;
    if let Some(last) = &last {
        last.make_durable()?;
        fsyncs += 1;
    }
    if last.is_some() || torn_tail.is_some() {
        disk.sync_dir(dir).map_err(|error| LogError::from_io("sync log directory", dir, error))?;
        fsyncs += 1;
    }
    let recovery = Recovery { records: next_offset, segments: segments.len() as u64, torn_tail };
    Ok(Recovered { recovery, segments, last_file: last.map(|last| last.file), fsyncs })
}

fn check_follows(path: &Path, first: u64, next_offset: u64) -> Result<(), LogError> {
    if first > next_offset {
        let what = format!("the segment before it, with records {next_offset} to {}, is missing", first - 1);
        return Err(LogError::damaged(path, 0, what));
    }
    if first < next_offset {
        let what = format!("it is named for record {first}, which an earlier segment holds already");
        return Err(LogError::damaged(path, 0, what));
    }
    Ok(())
}

fn read_header(
    file: &Arc<dyn DiskFile>,
    path: &Path,
    first: u64,
    file_bytes: u64,
) -> Result<Result<SegmentHeader, &'static str>, LogError> {
    let mut bytes = vec![0; file_bytes.min(SEGMENT_HEADER_BYTES as u64) as usize];
    let read = file
        .read_full_at(0, &mut bytes)
        .map_err(|error| LogError::from_io("read log segment", path, error))?;
    match SegmentHeader::parse(&bytes[..read]) {
        Ok(header) if header.first == first => Ok(Ok(header)),
        Ok(header) => {
            let what =
                format!("its header says that it starts with record {}, its name does not", header.first);
            Err(LogError::damaged(path, 0, what))
        }
        Err(HeaderError::Newer { version }) => {
            Err(LogError::NewerFormat { path: path.to_owned(), version, known: FORMAT_VERSION })
        }
        Err(HeaderError::Invalid(what)) => Ok(Err(what)),
    }
}

struct Scan {
    next_offset: u64,
    index: Vec<segment::IndexEntry>,
    /// Where the last whole frame ends.
    end: u64,
    /// Where the last commit starts; 0 if there is none.
    last_commit: u64,
    /// What is wrong with the bytes at `end`.
    invalid: Option<String>,
}

fn scan(
    file: &Arc<dyn DiskFile>,
    path: &Path,
    header: SegmentHeader,
    first: u64,
    file_bytes: u64,
) -> Result<Scan, LogError> {
    let start = SEGMENT_HEADER_BYTES as u64;
    let mut frames = FrameReader::new(Arc::clone(file), path, start, header.salt, file_bytes);
    let mut scan = Scan { next_offset: first, index: Vec::new(), end: start, last_commit: 0, invalid: None };
    loop {
        match frames.next(scan.next_offset) {
            Ok(Some(frame)) => {
                segment::add_to_index(&mut scan.index, frame.header.offset, frame.position);
                scan.last_commit = frame.position.saturating_sub(u64::from(frame.header.into_commit));
                scan.end = frame.position + frame.header.frame_length();
                scan.next_offset += 1;
            }
            Ok(None) => return Ok(scan),
            Err(FrameError::Io(error)) => return Err(error),
            Err(FrameError::Invalid { position, what }) => {
                assert!(position == scan.end, "frames follow each other");
                scan.invalid = Some(what);
                return Ok(scan);
            }
        }
    }
}

/// Fails unless the invalid bytes from `bad` on are what a crash leaves of an unfinished write.
fn check_torn(
    file: &Arc<dyn DiskFile>,
    path: &Path,
    salt: u32,
    bad: u64,
    end: u64,
    reason: &str,
) -> Result<(), LogError> {
    let mut same_commit = None;
    let mut from = bad + 1;
    while from + FRAME_HEADER_BYTES as u64 <= end {
        let chunk = read(file, path, from, end.min(from + CHUNK_BYTES))?;
        for (position, header) in frame::find_headers(salt, &chunk) {
            let position = from + position as u64;
            let commit_start = position.saturating_sub(u64::from(header.into_commit));
            if commit_start > bad {
                let what = format!("{reason}; a valid record of a later commit follows at byte {position}");
                return Err(LogError::damaged(path, bad, what));
            }
            same_commit.get_or_insert((position, commit_start));
        }
        if chunk.len() < FRAME_HEADER_BYTES {
            break;
        }
        // A header may lie across the border.
        from += (chunk.len() - FRAME_HEADER_BYTES + 1) as u64;
    }
    let Some((position, commit_start)) = same_commit else {
        return Ok(());
    };
    if has_lost_sector(file, path, Range { bad, next: position, commit_start, end })? {
        return Ok(());
    }
    Err(LogError::damaged(path, bad, format!("{reason}; a valid record follows at byte {position}")))
}

/// Where a sector is looked for that was never written.
struct Range {
    /// The invalid bytes: from here ...
    bad: u64,
    /// ... to the next valid header.
    next: u64,
    /// Bytes before this were durable when the commit was written.
    commit_start: u64,
    end: u64,
}

fn has_lost_sector(file: &Arc<dyn DiskFile>, path: &Path, range: Range) -> Result<bool, LogError> {
    let mut chunk_start = range.bad / SECTOR_BYTES * SECTOR_BYTES;
    while chunk_start < range.next {
        let chunk = read(file, path, chunk_start, range.end.min(chunk_start + CHUNK_BYTES))?;
        if chunk.is_empty() {
            break;
        }
        for (number, sector) in chunk.chunks(SECTOR_BYTES as usize).enumerate() {
            let sector_start = chunk_start + number as u64 * SECTOR_BYTES;
            if sector_start >= range.next {
                break;
            }
            let written_before = range.commit_start.saturating_sub(sector_start) as usize;
            let of_commit = sector.get(written_before..).unwrap_or_default();
            if !of_commit.is_empty() && of_commit.iter().all(|byte| *byte == 0) {
                return Ok(true);
            }
        }
        chunk_start += chunk.len() as u64;
    }
    Ok(false)
}

fn read(file: &Arc<dyn DiskFile>, path: &Path, from: u64, to: u64) -> Result<Vec<u8>, LogError> {
    let mut bytes = vec![0; (to - from) as usize];
    let length = file
        .read_full_at(from, &mut bytes)
        .map_err(|error| LogError::from_io("read log segment", path, error))?;
    bytes.truncate(length);
    Ok(bytes)
}

/// The segment that a crash may have left half synced.
struct LastSegment {
    file: Arc<dyn DiskFile>,
    path: PathBuf,
    rewrite_from: u64,
    end: u64,
}

impl LastSegment {
    /// Puts the records that will be shown to readers on stable storage.
    ///
    /// The process before this one may have ended between write and sync, or because a sync failed. In
    /// the second case Linux takes the bytes for clean and syncs them never again, so the last commit
    /// (and only that one can be concerned) is written over itself first.
    fn make_durable(&self) -> Result<(), LogError> {
        let mut position = self.rewrite_from;
        while position < self.end {
            let chunk = read(&self.file, &self.path, position, self.end.min(position + CHUNK_BYTES))?;
            if chunk.is_empty() {
                break;
            }
            match self.file.write_all_at(position, &chunk) {
                Ok(()) => {}
                // A file system that never writes in place needs space for this; the bytes are there
                // already, and a full disk must not stop reads.
                Err(error) if is_disk_full(&error) => break,
                Err(error) => return Err(LogError::from_io("rewrite last commit of", &self.path, error)),
            }
            position += chunk.len() as u64;
        }
        self.file.sync_data().map_err(|error| LogError::from_io("sync log segment", &self.path, error))
    }
}

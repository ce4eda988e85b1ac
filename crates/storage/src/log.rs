//! The durable event log: what is in it was accepted, in this order, and survives a power cut.
//!
//! ```text
//!   append --> pending bytes --commit--> one write --> fdatasync --> committed --> LogReader
//!                               |                        |
//!                   no space: cut back, DiskFull     failed: Poisoned, until reopened
//! ```
//!
//! One [`Log`] writes, any number of [`LogReader`]s read, and they see committed records only. The log
//! is a row of segment files, each named by the number of its first record; a commit lies in one
//! segment as a whole. Byte tables are in docs/format.md.
//!
//! Invariant: offsets are dense from 0; it is asserted before writing and checked when reading.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::RwLock;

use crate::disk::{Disk, DiskFile, is_disk_full};

mod error;
mod frame;
mod reader;
mod recovery;
mod segment;

pub use error::LogError;
pub use reader::{LogReader, Records};
pub use recovery::{Recovery, TornTail};

use frame::FRAME_HEADER_BYTES;
use segment::{SEGMENT_HEADER_BYTES, Segment, SegmentHeader};

/// Longest payload of a record.
pub const RECORD_BYTES_MAX: usize = 256 << 20;

/// Most bytes that can wait for one commit; a write call takes less than 2 GiB.
pub const COMMIT_BYTES_MAX: usize = 1 << 30;

/// A larger buffer is given back after its commit.
const BUFFER_BYTES_KEPT: usize = 16 << 20;

/// Number of a record, dense from 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Offset(pub u64);

/// Where a record stands, for [`LogReader::read_at`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Location {
    /// Offset of the first record of the segment, which names its file.
    pub segment: u64,
    /// First byte of the frame in the file.
    pub position: u64,
    /// Bytes of the frame, its header included.
    pub length: u32,
}

/// A record as it was appended, and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogRecord {
    pub offset: Offset,
    pub kind: u8,
    pub stream: u32,
    pub location: Location,
    pub payload: Vec<u8>,
}

#[derive(Clone, Debug)]
pub struct LogOptions {
    /// A segment that has reached this size is closed at the next commit. Larger ones mean fewer
    /// files, smaller ones finer retention.
    pub segment_bytes_max: u64,
}

impl Default for LogOptions {
    fn default() -> Self {
        LogOptions { segment_bytes_max: 128 << 20 }
    }
}

/// The writer. Dropping it without [`Log::commit`] forgets what was appended since.
#[derive(Debug)]
pub struct Log {
    shared: Arc<Shared>,
    options: LogOptions,
    /// The last segment's file; `None` before the first commit to a new log.
    file: Option<Arc<dyn DiskFile>>,
    pending: Pending,
    fsyncs: u64,
    /// Why nothing can be written any more.
    poisoned: Option<Poison>,
}

/// Records appended and not committed: all go to one segment.
#[derive(Debug, Default)]
struct Pending {
    bytes: Vec<u8>,
    records: u64,
    target: Option<Target>,
    index: Vec<segment::IndexEntry>,
}

/// Where the pending bytes will be written; decided at the first append of a commit, so that the
/// location of a record is known before it is written.
#[derive(Clone, Copy, Debug)]
struct Target {
    segment: u64,
    position: u64,
    salt: u32,
    new: bool,
}

#[derive(Clone, Debug)]
struct Poison {
    path: PathBuf,
    reason: String,
}

/// What the writer and the readers share.
#[derive(Debug)]
struct Shared {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    committed: RwLock<Committed>,
}

#[derive(Debug, Default)]
struct Committed {
    // Invariant: ascending by first offset, the first one at 0, without gap.
    segments: Vec<Segment>,
    next_offset: u64,
}

impl Log {
    /// Opens or creates the log in `dir`, checks every record, and cuts a torn tail.
    ///
    /// The caller holds the [`crate::disk::DirLock`] of the data directory.
    ///
    /// # Errors
    /// [`LogError::Damaged`] for everything invalid that a power cut does not explain; nothing is
    /// changed on disk then.
    pub fn open(disk: Arc<dyn Disk>, dir: &Path, options: LogOptions) -> Result<(Log, Recovery), LogError> {
        let recovered = recovery::recover(disk.as_ref(), dir)?;
        let committed = Committed { segments: recovered.segments, next_offset: recovered.recovery.records };
        let shared = Arc::new(Shared { disk, dir: dir.to_owned(), committed: RwLock::new(committed) });
        let log = Log {
            shared,
            options,
            file: recovered.last_file,
            pending: Pending::default(),
            fsyncs: recovered.fsyncs,
            poisoned: None,
        };
        Ok((log, recovered.recovery))
    }

    /// Adds a record, in memory only, to what the next [`Log::commit`] makes durable.
    ///
    /// # Errors
    /// [`LogError::RecordTooLarge`], [`LogError::CommitTooLarge`], [`LogError::Poisoned`]; the record
    /// is then not part of the next commit, the earlier ones still are.
    pub fn append(&mut self, kind: u8, stream: u32, payload: &[u8]) -> Result<(Offset, Location), LogError> {
        self.check_poison()?;
        if payload.len() > RECORD_BYTES_MAX {
            return Err(LogError::RecordTooLarge { bytes: payload.len() });
        }
        let into_commit = self.pending.bytes.len();
        let length = FRAME_HEADER_BYTES + payload.len();
        if into_commit + length > COMMIT_BYTES_MAX {
            return Err(LogError::CommitTooLarge { bytes: into_commit + length });
        }
        let target = self.target();
        let offset = self.next_offset().0;
        let frame = frame::FrameHeader {
            kind,
            payload_length: payload.len() as u32,
            offset,
            stream,
            into_commit: into_commit as u32,
        };
        frame.write(target.salt, payload, &mut self.pending.bytes);
        let position = target.position + into_commit as u64;
        segment::add_to_index(&mut self.pending.index, offset, position);
        self.pending.records += 1;
        let location = Location { segment: target.segment, position, length: length as u32 };
        Ok((Offset(offset), location))
    }

    /// Makes everything appended durable with one write and one fdatasync; returns the next offset.
    ///
    /// # Errors
    /// Nothing of the commit counts then: its offsets are given to the next appends. After
    /// [`LogError::DiskFull`] and [`LogError::Io`] the same records can be appended again, at once or
    /// when space is free; after [`LogError::Poisoned`] the log takes no more writes until it is
    /// reopened, and reads go on.
    pub fn commit(&mut self) -> Result<Offset, LogError> {
        self.check_poison()?;
        let Some(target) = self.pending.target else {
            return Ok(self.committed_offset());
        };
        let result = self.write_pending(target);
        if result.is_ok() {
            self.publish(target);
        }
        self.pending.clear();
        result?;
        Ok(self.committed_offset())
    }

    pub fn reader(&self) -> LogReader {
        LogReader::new(Arc::clone(&self.shared))
    }

    /// Size of all segments, without what waits for a commit.
    pub fn bytes(&self) -> u64 {
        self.shared.committed.read().segments.iter().map(|segment| segment.bytes).sum()
    }

    /// The offset of the next record to be appended.
    pub fn next_offset(&self) -> Offset {
        Offset(self.committed_offset().0 + self.pending.records)
    }

    /// How many times a file was synced since opening.
    pub fn fsyncs(&self) -> u64 {
        self.fsyncs
    }

    fn committed_offset(&self) -> Offset {
        Offset(self.shared.committed.read().next_offset)
    }

    fn check_poison(&self) -> Result<(), LogError> {
        match &self.poisoned {
            None => Ok(()),
            Some(poison) => {
                Err(LogError::Poisoned { path: poison.path.clone(), reason: poison.reason.clone() })
            }
        }
    }

    fn target(&mut self) -> Target {
        if let Some(target) = self.pending.target {
            return target;
        }
        let committed = self.shared.committed.read();
        let target = match committed.segments.last() {
            // An empty segment is there when its first commit failed for lack of space.
            Some(last)
                if last.bytes < self.options.segment_bytes_max || last.first == committed.next_offset =>
            {
                Target { segment: last.first, position: last.bytes, salt: last.salt, new: false }
            }
            _ => Target {
                segment: committed.next_offset,
                position: SEGMENT_HEADER_BYTES as u64,
                salt: self.shared.disk.random() as u32,
                new: true,
            },
        };
        drop(committed);
        self.pending.target = Some(target);
        target
    }

    fn write_pending(&mut self, target: Target) -> Result<(), LogError> {
        let path = self.shared.segment_path(target.segment);
        if target.new {
            self.create_segment(&path, target)?;
        }
        let file = Arc::clone(self.file.as_ref().expect("a segment that is written to is open"));
        if let Err(error) = file.write_all_at(target.position, &self.pending.bytes) {
            return Err(self.undo_write(&path, &file, target.position, error));
        }
        self.sync(&path, &file)
    }

    /// The one place where a file of the log is synced: an error is final, since the bytes may be gone
    /// although a second sync would report success.
    fn sync(&mut self, path: &Path, file: &Arc<dyn DiskFile>) -> Result<(), LogError> {
        self.fsyncs += 1;
        file.sync_data().map_err(|error| self.poison(path, format!("fsync failed: {error}")))
    }

    fn sync_dir(&mut self) -> Result<(), LogError> {
        self.fsyncs += 1;
        let dir = self.shared.dir.clone();
        let synced = self.shared.disk.sync_dir(&dir);
        synced.map_err(|error| self.poison(&dir, format!("fsync of the directory failed: {error}")))
    }

    fn poison(&mut self, path: &Path, reason: String) -> LogError {
        self.poisoned = Some(Poison { path: path.to_owned(), reason: reason.clone() });
        LogError::Poisoned { path: path.to_owned(), reason }
    }

    /// Cuts a failed write away. With no space left the log goes on from there; any other error of a
    /// write says that the device is in trouble.
    fn undo_write(
        &mut self,
        path: &Path,
        file: &Arc<dyn DiskFile>,
        length: u64,
        error: std::io::Error,
    ) -> LogError {
        if !is_disk_full(&error) {
            return self.poison(path, format!("write failed: {error}"));
        }
        if let Err(error) = file.truncate(length) {
            return self.poison(path, format!("cutting an incomplete write away failed: {error}"));
        }
        // Durable before the next write: otherwise a power cut could mix bytes of both.
        match self.sync(path, file) {
            Ok(()) => LogError::DiskFull { path: path.to_owned(), source: error },
            Err(poisoned) => poisoned,
        }
    }

    fn create_segment(&mut self, path: &Path, target: Target) -> Result<(), LogError> {
        let disk = Arc::clone(&self.shared.disk);
        let file = disk.create(path).map_err(|error| LogError::from_io("create segment", path, error))?;
        let header = SegmentHeader { first: target.segment, salt: target.salt };
        if let Err(error) = file.write_all_at(0, &header.to_bytes()) {
            if !is_disk_full(&error) {
                return Err(self.poison(path, format!("write failed: {error}")));
            }
            if let Err(error) = disk.remove(path) {
                return Err(self.poison(path, format!("removing an incomplete segment failed: {error}")));
            }
            return Err(LogError::DiskFull { path: path.to_owned(), source: error });
        }
        self.sync(path, &file)?;
        self.sync_dir()?;
        // The segment counts from here on, even if the records meant for it fail: it is whole, and
        // the next commit goes into it.
        let segment =
            Segment { first: target.segment, salt: target.salt, bytes: target.position, index: Vec::new() };
        self.shared.committed.write().segments.push(segment);
        self.file = Some(file);
        Ok(())
    }

    /// Shows the pending records to readers.
    fn publish(&mut self, target: Target) {
        let mut committed = self.shared.committed.write();
        let next_offset = committed.next_offset;
        let last = committed.segments.last_mut().expect("a segment that was written to is listed");
        assert!(last.first == target.segment, "a commit lies in the last segment");
        assert!(last.bytes == target.position, "a commit starts where the last one ended");
        assert!(last.first <= next_offset, "offsets grow");
        last.bytes += self.pending.bytes.len() as u64;
        for entry in self.pending.index.drain(..) {
            segment::add_to_index(&mut last.index, entry.offset, entry.position);
        }
        committed.next_offset += self.pending.records;
    }
}

impl Pending {
    fn clear(&mut self) {
        self.bytes.clear();
        if self.bytes.capacity() > BUFFER_BYTES_KEPT {
            self.bytes = Vec::new();
        }
        self.records = 0;
        self.target = None;
        self.index.clear();
    }
}

impl Shared {
    fn segment_path(&self, first: u64) -> PathBuf {
        self.dir.join(segment::file_name(first))
    }
}

#[cfg(test)]
mod tests;

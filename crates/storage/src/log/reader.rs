//! Reading committed records, in order or by location.

use std::sync::Arc;

use parking_lot::Mutex;

use super::segment::{Frame, FrameReader, IndexEntry};
use super::{Location, LogError, LogRecord, Offset, SEGMENT_HEADER_BYTES, Shared};
use crate::disk::DiskFile;

/// A view of the log's committed records; clones are cheap and independent.
#[derive(Debug)]
pub struct LogReader {
    shared: Arc<Shared>,
    /// The segment that was last read by location.
    open: Mutex<Option<(u64, Arc<dyn DiskFile>)>>,
}

impl Clone for LogReader {
    fn clone(&self) -> Self {
        LogReader::new(Arc::clone(&self.shared))
    }
}

impl LogReader {
    pub(super) fn new(shared: Arc<Shared>) -> LogReader {
        LogReader { shared, open: Mutex::new(None) }
    }

    /// The offset after the last committed record.
    pub fn next_offset(&self) -> Offset {
        Offset(self.shared.committed.read().next_offset)
    }

    /// The records from `from` on. The iterator ends where the log ends at that moment, and goes on
    /// when asked again after another commit; after an error it gives nothing more.
    pub fn records(&self, from: Offset) -> Records {
        Records { shared: Arc::clone(&self.shared), next: from.0, frames: None, failed: false }
    }

    /// The record at a location that [`super::Log::append`] or another record's `location` named.
    ///
    /// # Errors
    /// [`LogError::NoSuchRecord`] if it lies outside of what is committed, [`LogError::Damaged`] if no
    /// valid record stands there.
    pub fn read_at(&self, location: Location) -> Result<LogRecord, LogError> {
        let end = location.position + u64::from(location.length);
        let no_such = LogError::NoSuchRecord { segment: location.segment, position: location.position };
        let salt = {
            let committed = self.shared.committed.read();
            let Ok(found) = committed.segments.binary_search_by_key(&location.segment, |s| s.first) else {
                return Err(no_such);
            };
            let segment = &committed.segments[found];
            if location.position < SEGMENT_HEADER_BYTES as u64 || end > segment.bytes {
                return Err(no_such);
            }
            segment.salt
        };
        let path = self.shared.segment_path(location.segment);
        let file = self.segment_file(location.segment)?;
        let mut frames = FrameReader::new(file, &path, location.position, salt, end);
        match frames.next_any() {
            Ok(Some(frame)) => Ok(record(location.segment, frame)),
            Ok(None) => Err(no_such),
            Err(error) => Err(error.into_log_error(&path)),
        }
    }

    fn segment_file(&self, first: u64) -> Result<Arc<dyn DiskFile>, LogError> {
        let mut open = self.open.lock();
        if let Some((segment, file)) = open.as_ref()
            && *segment == first
        {
            return Ok(Arc::clone(file));
        }
        let path = self.shared.segment_path(first);
        let file = self
            .shared
            .disk
            .open(&path)
            .map_err(|error| LogError::from_io("open log segment", &path, error))?;
        *open = Some((first, Arc::clone(&file)));
        Ok(file)
    }
}

/// Iterator over records in order.
#[derive(Debug)]
pub struct Records {
    shared: Arc<Shared>,
    next: u64,
    /// The segment being read.
    frames: Option<(u64, FrameReader)>,
    failed: bool,
}

/// What a reader does when it has read all it knew of.
enum Step {
    End,
    /// The segment has grown up to this byte.
    More(u64),
    Open {
        first: u64,
        salt: u32,
        start: IndexEntry,
        end: u64,
    },
}

impl Records {
    fn step(&self) -> Step {
        let committed = self.shared.committed.read();
        if self.next >= committed.next_offset {
            return Step::End;
        }
        // Segment 0 starts at offset 0, so one is found.
        let number = committed.segments.partition_point(|segment| segment.first <= self.next);
        let Some(segment) = committed.segments[..number].last() else {
            return Step::End;
        };
        if let Some((first, _)) = &self.frames
            && *first == segment.first
        {
            return Step::More(segment.bytes);
        }
        let near = segment.index.partition_point(|entry| entry.offset <= self.next);
        let origin = IndexEntry { offset: segment.first, position: SEGMENT_HEADER_BYTES as u64 };
        let start = segment.index[..near].last().copied().unwrap_or(origin);
        Step::Open { first: segment.first, salt: segment.salt, start, end: segment.bytes }
    }

    fn read(&mut self) -> Result<Option<LogRecord>, LogError> {
        loop {
            if let Some((first, frames)) = &mut self.frames {
                match frames.next(self.next) {
                    Ok(Some(frame)) => {
                        self.next += 1;
                        return Ok(Some(record(*first, frame)));
                    }
                    Ok(None) => {}
                    Err(error) => return Err(error.into_log_error(&self.shared.segment_path(*first))),
                }
            }
            match self.step() {
                Step::End => return Ok(None),
                Step::More(end) => {
                    let (first, frames) = self.frames.as_mut().expect("only an open segment has more");
                    if frames.position() >= end {
                        let path = self.shared.segment_path(*first);
                        return Err(LogError::damaged(
                            &path,
                            end,
                            format!("record {} is missing", self.next),
                        ));
                    }
                    frames.extend_to(end);
                }
                Step::Open { first, salt, start, end } => {
                    self.frames = Some((first, self.open(first, salt, start, end)?))
                }
            }
        }
    }

    /// Opens a segment and skips to the record wanted.
    fn open(&self, first: u64, salt: u32, start: IndexEntry, end: u64) -> Result<FrameReader, LogError> {
        let path = self.shared.segment_path(first);
        let mut frames = FrameReader::open(self.shared.disk.as_ref(), &path, start, salt, end)?;
        for offset in start.offset..self.next {
            match frames.next(offset) {
                Ok(Some(_)) => {}
                Ok(None) => {
                    return Err(LogError::damaged(&path, end, format!("record {offset} is missing")));
                }
                Err(error) => return Err(error.into_log_error(&path)),
            }
        }
        Ok(frames)
    }
}

impl Iterator for Records {
    type Item = Result<LogRecord, LogError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let result = self.read();
        self.failed = result.is_err();
        result.transpose()
    }
}

fn record(segment: u64, frame: Frame<'_>) -> LogRecord {
    LogRecord {
        offset: Offset(frame.header.offset),
        kind: frame.header.kind,
        stream: frame.header.stream,
        location: Location { segment, position: frame.position, length: frame.header.frame_length() as u32 },
        payload: frame.payload.to_vec(),
    }
}

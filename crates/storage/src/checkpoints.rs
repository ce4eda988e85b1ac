//! Checkpoints: states as they were at some moment, so that a start need not read the whole log.
//!
//! ```text
//!   blobs-1       | state | state | state |
//!   checkpoint-1  refers to blobs-1
//!   blobs-2               | what changed |
//!   checkpoint-2  refers to blobs-1 and blobs-2       checkpoint-1 and blobs-1 stay until nothing needs them
//! ```
//!
//! A checkpoint is a file of its own that says where each state stands; it counts once it was renamed to its name, and
//! then all that it refers to is durable. What the states and the checkpoint's body mean is not known here. Byte tables
//! are in docs/format.md.
//!
//! Rule: the log is the truth. Whatever is wrong here costs time, never data: the checkpoint before, or the log, is read
//! instead.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::disk::{Disk, DiskFile};

const BLOBS: &str = "blobs-";
const CHECKPOINT: &str = "checkpoint-";
const UNFINISHED: &str = "unfinished";
const MARK: [u8; 8] = *b"SHOPCKPT";
const VERSION: u32 = 1;
const HEADER_BYTES: usize = 32;

/// Bytes that a file of states keeps in memory before it writes them.
const BUFFER_BYTES: usize = 4 << 20;

/// What can't be done with a checkpoint.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    #[error("{what} {path}: {source}")]
    Io { what: &'static str, path: PathBuf, source: io::Error },
    #[error("{path} is damaged at byte {position}: {reason}")]
    Damaged { path: PathBuf, position: u64, reason: String },
    /// Written by a later version of the program.
    #[error("{path} has format version {version}; this program reads version {VERSION}")]
    Version { path: PathBuf, version: u32 },
}

pub type Result<T, E = CheckpointError> = std::result::Result<T, E>;

/// Where a state stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Blob {
    /// Number of the file.
    pub file: u64,
    pub position: u64,
    pub length: u64,
    pub crc: u32,
}

/// A checkpoint that is whole; the states that it refers to are checked when they are read.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    pub number: u64,
    pub body: Vec<u8>,
}

/// The directory of checkpoints.
#[derive(Debug)]
pub struct Checkpoints {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    next: u64,
}

impl Checkpoints {
    /// Opens or creates the directory, and reads the checkpoints that are there, newest first. What a crash left
    /// unfinished is removed.
    ///
    /// # Errors
    /// When the directory can't be made or read.
    #[allow(clippy::type_complexity)]
    pub fn open(disk: Arc<dyn Disk>, dir: &Path) -> Result<(Checkpoints, Vec<Result<Checkpoint>>)> {
        disk.create_dir_all(dir).map_err(failed("create directory", dir))?;
        let (mut next, mut found) = (1, BTreeMap::new());
        for path in disk.list(dir).map_err(failed("read directory", dir))? {
            if path.extension().is_some_and(|extension| extension == UNFINISHED) {
                disk.remove(&path).map_err(failed("remove", &path))?;
            } else if let Some(number) = number_of(&path, BLOBS) {
                next = next.max(number + 1);
            } else if let Some(number) = number_of(&path, CHECKPOINT) {
                next = next.max(number + 1);
                found.insert(number, path);
            }
        }
        let read = |(number, path): (&u64, &PathBuf)| read_checkpoint(disk.as_ref(), *number, path);
        let checkpoints = found.iter().rev().map(read).collect();
        Ok((Checkpoints { disk, dir: dir.to_owned(), next }, checkpoints))
    }

    /// Begins the next checkpoint.
    ///
    /// # Errors
    /// When its file of states can't be created.
    pub fn begin(&mut self) -> Result<CheckpointWriter> {
        let number = self.next;
        // Whatever becomes of it: a file that could not be written or synced is never written to again.
        self.next += 1;
        let path = self.blobs_path(number);
        let file = self.disk.create(&path).map_err(failed("create", &path))?;
        Ok(CheckpointWriter {
            disk: Arc::clone(&self.disk),
            dir: self.dir.clone(),
            number,
            path,
            file,
            buffer: Vec::new(),
            written: 0,
        })
    }

    /// Reads a state.
    ///
    /// # Errors
    /// When it is not what was written.
    pub fn read(&self, blob: &Blob) -> Result<Vec<u8>> {
        let path = self.blobs_path(blob.file);
        let file = self.disk.open(&path).map_err(failed("open", &path))?;
        read_blob(file.as_ref(), &path, blob)
    }

    /// A reader that keeps files open.
    pub fn reader(&self) -> BlobReader {
        BlobReader { disk: Arc::clone(&self.disk), dir: self.dir.clone(), files: BTreeMap::new() }
    }

    /// Removes what a checkpoint that failed left behind, so that the log has the space.
    pub fn discard(&self, number: u64) {
        let path = self.dir.join(format!("{CHECKPOINT}{number:016}"));
        for path in [path.with_extension(UNFINISHED), path, self.blobs_path(number)] {
            // What can't be removed now is removed with the next checkpoint.
            let _ = self.disk.remove(&path);
        }
        let _ = self.disk.sync_dir(&self.dir);
    }

    /// Length of a file of states; `None` when it can't be read.
    pub fn file_bytes(&self, number: u64) -> Option<u64> {
        self.disk.open(&self.blobs_path(number)).and_then(|file| file.len()).ok()
    }

    /// Removes all checkpoints but these, and the files of states that they don't refer to.
    ///
    /// # Errors
    /// When a file can't be removed; the next call tries again.
    pub fn retain(&self, checkpoints: &BTreeSet<u64>, blobs: &BTreeSet<u64>) -> Result<()> {
        // A checkpoint goes before what it refers to.
        for (prefix, kept) in [(CHECKPOINT, checkpoints), (BLOBS, blobs)] {
            for path in self.disk.list(&self.dir).map_err(failed("read directory", &self.dir))? {
                if number_of(&path, prefix)
                    .is_some_and(|number| !kept.contains(&number) && number < self.next)
                {
                    self.disk.remove(&path).map_err(failed("remove", &path))?;
                }
            }
            self.disk.sync_dir(&self.dir).map_err(failed("sync directory", &self.dir))?;
        }
        Ok(())
    }

    fn blobs_path(&self, number: u64) -> PathBuf {
        self.dir.join(format!("{BLOBS}{number:016}"))
    }
}

/// Reads states, one file after another.
#[derive(Debug)]
pub struct BlobReader {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    files: BTreeMap<u64, Arc<dyn DiskFile>>,
}

impl BlobReader {
    /// Reads a state.
    ///
    /// # Errors
    /// When it is not what was written.
    pub fn read(&mut self, blob: &Blob) -> Result<Vec<u8>> {
        let path = self.dir.join(format!("{BLOBS}{:016}", blob.file));
        let file = match self.files.get(&blob.file) {
            Some(file) => Arc::clone(file),
            None => {
                let file = self.disk.open(&path).map_err(failed("open", &path))?;
                self.files.insert(blob.file, Arc::clone(&file));
                file
            }
        };
        read_blob(file.as_ref(), &path, blob)
    }
}

/// A checkpoint that is being written. Dropping it leaves a file of states that nobody refers to.
#[derive(Debug)]
pub struct CheckpointWriter {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    number: u64,
    path: PathBuf,
    file: Arc<dyn DiskFile>,
    buffer: Vec<u8>,
    written: u64,
}

impl CheckpointWriter {
    /// Writes a state.
    ///
    /// # Errors
    /// When it can't be written; the checkpoint is then to be dropped.
    pub fn put(&mut self, state: &[u8]) -> Result<Blob> {
        let blob = Blob {
            file: self.number,
            position: self.written + self.buffer.len() as u64,
            length: state.len() as u64,
            crc: crc32fast::hash(state),
        };
        if self.buffer.len() + state.len() > BUFFER_BYTES {
            self.flush()?;
        }
        if state.len() > BUFFER_BYTES {
            self.file.write_all_at(self.written, state).map_err(failed("write", &self.path))?;
            self.written += state.len() as u64;
        } else {
            self.buffer.extend_from_slice(state);
        }
        Ok(blob)
    }

    fn flush(&mut self) -> Result<()> {
        self.file.write_all_at(self.written, &self.buffer).map_err(failed("write", &self.path))?;
        self.written += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }

    /// Number of the checkpoint and of its file of states.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Bytes of states so far.
    pub fn bytes(&self) -> u64 {
        self.written + self.buffer.len() as u64
    }

    /// Makes the states and the checkpoint durable; it counts when this returns.
    ///
    /// # Errors
    /// When something can't be written or synced. The checkpoint may count or not then.
    pub fn commit(mut self, body: &[u8]) -> Result<Checkpoint> {
        self.flush()?;
        self.file.sync_data().map_err(failed("sync", &self.path))?;
        let path = self.dir.join(format!("{CHECKPOINT}{:016}", self.number));
        let unfinished = path.with_extension(UNFINISHED);
        let file = self.disk.create(&unfinished).map_err(failed("create", &unfinished))?;
        let mut bytes = header(body);
        bytes.extend_from_slice(body);
        file.write_all_at(0, &bytes).map_err(failed("write", &unfinished))?;
        file.sync_data().map_err(failed("sync", &unfinished))?;
        // The names of both files' content first, then the one that makes it count.
        self.disk.sync_dir(&self.dir).map_err(failed("sync directory", &self.dir))?;
        self.disk.rename(&unfinished, &path).map_err(failed("rename", &unfinished))?;
        self.disk.sync_dir(&self.dir).map_err(failed("sync directory", &self.dir))?;
        Ok(Checkpoint { number: self.number, body: body.to_vec() })
    }
}

/// ```text
///   0      8         12     16            24         28           32
///   | mark | version | zero | body length | body crc | header crc | body ...
/// ```
fn header(body: &[u8]) -> Vec<u8> {
    let mut header = Vec::with_capacity(HEADER_BYTES + body.len());
    header.extend_from_slice(&MARK);
    header.extend_from_slice(&VERSION.to_le_bytes());
    header.extend_from_slice(&[0; 4]);
    header.extend_from_slice(&(body.len() as u64).to_le_bytes());
    header.extend_from_slice(&crc32fast::hash(body).to_le_bytes());
    let crc = crc32fast::hash(&header);
    header.extend_from_slice(&crc.to_le_bytes());
    header
}

fn read_checkpoint(disk: &dyn Disk, number: u64, path: &Path) -> Result<Checkpoint> {
    let file = disk.open(path).map_err(failed("open", path))?;
    let damaged = |position, reason: &str| CheckpointError::Damaged {
        path: path.into(),
        position,
        reason: reason.into(),
    };
    let length = file.len().map_err(failed("read", path))?;
    let mut bytes = vec![0; usize::try_from(length).unwrap_or(usize::MAX).min(1 << 32)];
    let read = file.read_full_at(0, &mut bytes).map_err(failed("read", path))?;
    if read < bytes.len() || bytes.len() < HEADER_BYTES || bytes[..8] != MARK {
        return Err(damaged(0, "it is no checkpoint"));
    }
    let number_at = |at: usize| bytes[at..at + 4].try_into().map(u32::from_le_bytes).unwrap_or(0);
    if crc32fast::hash(&bytes[..28]) != number_at(28) {
        return Err(damaged(28, "checksum of the header does not match"));
    }
    if number_at(8) != VERSION {
        return Err(CheckpointError::Version { path: path.into(), version: number_at(8) });
    }
    let body = bytes.split_off(HEADER_BYTES);
    let number_at = |at: usize| bytes[at..at + 4].try_into().map(u32::from_le_bytes).unwrap_or(0);
    if u64::from(number_at(16)) | u64::from(number_at(20)) << 32 != body.len() as u64 {
        return Err(damaged(16, "its length does not match"));
    }
    if crc32fast::hash(&body) != number_at(24) {
        return Err(damaged(24, "checksum of the body does not match"));
    }
    Ok(Checkpoint { number, body })
}

fn read_blob(file: &dyn DiskFile, path: &Path, blob: &Blob) -> Result<Vec<u8>> {
    let damaged = |reason: &str| CheckpointError::Damaged {
        path: path.into(),
        position: blob.position,
        reason: reason.into(),
    };
    // A length from a damaged place must not reserve what is not there.
    let length = file.len().map_err(failed("read", path))?;
    if blob.position.checked_add(blob.length).is_none_or(|end| end > length) {
        return Err(damaged("the file ends before the state does"));
    }
    let mut bytes = vec![0; blob.length as usize];
    let read = file.read_full_at(blob.position, &mut bytes).map_err(failed("read", path))?;
    if read < bytes.len() || crc32fast::hash(&bytes) != blob.crc {
        return Err(damaged("checksum of a state does not match"));
    }
    Ok(bytes)
}

fn failed(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> CheckpointError {
    let path = path.to_owned();
    move |source| CheckpointError::Io { what, path, source }
}

fn number_of(path: &Path, prefix: &str) -> Option<u64> {
    path.file_name()?.to_str()?.strip_prefix(prefix)?.parse().ok()
}

#[cfg(test)]
mod tests;

//! The only way to files: one trait, so that tests can lose, tear and damage what a disk may.
//!
//! ```text
//!   log, checkpoints, history --> Disk / DiskFile --> RealDisk     the operating system
//!                                                 \-> FaultyDisk   in memory, seeded trouble
//! ```
//!
//! Two things hold for every implementation. Bytes are on stable storage only after
//! [`DiskFile::sync_data`]; a file's name is only after [`Disk::sync_dir`]. Nothing here retries or
//! hides an error: what a failed write or sync means is decided by the caller.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub mod faulty;
mod lock;
mod real;

pub use faulty::FaultyDisk;
pub use lock::{DirLock, LockError};
pub use real::RealDisk;

/// A file system, or something that behaves like one.
pub trait Disk: fmt::Debug + Send + Sync {
    /// Creates an empty file for reading and writing; fails if the name is taken.
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>>;

    /// Opens an existing file for reading and writing.
    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>>;

    /// Renames a file, replacing what has the new name.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Paths of the files in a directory, sorted; folders are left out.
    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>>;

    /// Creates a directory and its parents, durably; an existing one is fine.
    fn create_dir_all(&self, dir: &Path) -> io::Result<()>;

    /// Makes creations, removals and renames in a directory durable.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;

    /// Locks a directory against other processes; use [`DirLock::acquire`].
    fn lock_dir(&self, dir: &Path) -> Result<DirLock, LockError>;

    /// A number that nobody outside can guess (a simulated disk draws it from its seed).
    fn random(&self) -> u64;
}

/// An open file. All positions are given by the caller; there is no cursor.
pub trait DiskFile: fmt::Debug + Send + Sync {
    /// Writes at `position` with one system call; returns how many bytes were taken, which may be fewer.
    fn write_at(&self, position: u64, bytes: &[u8]) -> io::Result<usize>;

    /// Reads at `position` with one system call; 0 means end of file.
    fn read_at(&self, position: u64, buffer: &mut [u8]) -> io::Result<usize>;

    fn len(&self) -> io::Result<u64>;

    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Cuts the file to `length` bytes.
    fn truncate(&self, length: u64) -> io::Result<()>;

    /// Returns when the content, and the length needed to read it back, is on stable storage.
    ///
    /// After an error nobody knows which bytes arrived, and a second call may report success for bytes
    /// that were dropped: the caller must stop writing to the file.
    fn sync_data(&self) -> io::Result<()>;

    /// Writes all of `bytes`; more than one system call only after a short write.
    fn write_all_at(&self, mut position: u64, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            match self.write_at(position, bytes) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => {
                    position += written as u64;
                    bytes = &bytes[written..];
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Fills `buffer` as far as the file goes; returns the number of bytes read.
    fn read_full_at(&self, position: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.read_at(position + filled as u64, &mut buffer[filled..]) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }
}

/// True when an operation failed for lack of space, so that it may succeed once space is freed.
pub fn is_disk_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

#[cfg(test)]
mod tests;

//! One process per data directory.
//!
//! The lock is the operating system's, on the file `lock`, so it ends with the process however that
//! dies; the process id in the file only tells the second opener whom to look for.

use std::any::Any;
use std::fmt;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};

use super::Disk;

/// Holds a directory until dropped.
pub struct DirLock {
    dir: PathBuf,
    // Dropping it unlocks.
    _held: Box<dyn Any + Send + Sync>,
}

/// Why a directory could not be locked.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Stop the other process, or use another directory.
    #[error("data directory {} is in use by {}; stop that process or choose another directory", dir.display(), holder(*pid))]
    Held {
        dir: PathBuf,
        /// `None` when the holder had not written its id yet.
        pid: Option<u32>,
    },
    /// The directory or its lock file can't be used; check that it exists and is writable.
    #[error("cannot lock data directory {}: {source}; check that it exists and is writable", dir.display())]
    Io { dir: PathBuf, source: io::Error },
}

impl DirLock {
    /// Locks `dir`, without waiting.
    ///
    /// # Errors
    /// [`LockError::Held`] when another process (or this one) holds it already.
    pub fn acquire(disk: &dyn Disk, dir: &Path) -> Result<DirLock, LockError> {
        disk.lock_dir(dir)
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    pub(super) fn new(dir: &Path, held: impl Any + Send + Sync) -> DirLock {
        DirLock { dir: dir.to_owned(), _held: Box::new(held) }
    }
}

impl fmt::Debug for DirLock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DirLock").field("dir", &self.dir).finish_non_exhaustive()
    }
}

fn holder(pid: Option<u32>) -> String {
    match pid {
        Some(pid) => format!("process {pid}"),
        None => "another process".to_owned(),
    }
}

pub(super) fn lock_real_dir(dir: &Path) -> Result<DirLock, LockError> {
    let io_error = |source| LockError::Io { dir: dir.to_owned(), source };
    // Not truncated on opening: until the lock is ours, the content is the holder's.
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(dir.join("lock"))
        .map_err(io_error)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            return Err(LockError::Held { dir: dir.to_owned(), pid: read_pid(&mut file) });
        }
        Err(TryLockError::Error(source)) => return Err(io_error(source)),
    }
    write_pid(&mut file).map_err(io_error)?;
    Ok(DirLock::new(dir, file))
}

fn read_pid(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    // More than a pid is not a pid.
    file.take(64).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

fn write_pid(file: &mut File) -> io::Result<()> {
    file.rewind()?;
    file.set_len(0)?;
    file.write_all(format!("{}\n", std::process::id()).as_bytes())
}

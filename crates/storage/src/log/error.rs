//! What can go wrong with the log, by what the caller can do about it.

use std::io;
use std::path::{Path, PathBuf};

use super::{COMMIT_BYTES_MAX, RECORD_BYTES_MAX};
use crate::disk::is_disk_full;

#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// Nothing was changed. Refuse the input for now and append it again once space is free.
    #[error("no space left for log file {}: {source}; free space on the disk, writing then goes on", path.display())]
    DiskFull { path: PathBuf, source: io::Error },

    /// What is on disk is no longer known. Stop accepting writes; reads go on; reopen the log to write
    /// again, after the disk has been looked at.
    #[error("log takes no more writes: {reason} on {}; check the disk, then restart", path.display())]
    Poisoned { path: PathBuf, reason: String },

    /// The log's files are not what was written. Do not start; a person has to decide.
    #[error(
        "log file {} is damaged at byte {position}: {what}; restore the file from a backup, or see \"Damage\" in docs/format.md to give up the records from there on",
        path.display()
    )]
    Damaged { path: PathBuf, position: u64, what: String },

    /// Open it with the version that wrote it, or a later one.
    #[error("log file {} has format version {version}, this program reads up to {known}; use a newer program", path.display())]
    NewerFormat { path: PathBuf, version: u32, known: u32 },

    /// The operating system refused, nothing was changed; may be tried again.
    #[error("cannot {action} {}: {source}", path.display())]
    Io { action: &'static str, path: PathBuf, source: io::Error },

    /// Split the record.
    #[error(
        "record of {bytes} bytes is larger than the log's limit of {RECORD_BYTES_MAX} bytes; send fewer rows at once"
    )]
    RecordTooLarge { bytes: usize },

    /// Commit, then append again.
    #[error(
        "{bytes} bytes wait for one commit, the log's limit is {COMMIT_BYTES_MAX} bytes; commit before appending more"
    )]
    CommitTooLarge { bytes: usize },

    /// The location is not one the log gave out for a committed record.
    #[error("no record at byte {position} of log segment {segment}")]
    NoSuchRecord { segment: u64, position: u64 },
}

impl LogError {
    /// True when the same append and commit may succeed later, without reopening.
    pub fn can_retry(&self) -> bool {
        matches!(self, LogError::DiskFull { .. } | LogError::Io { .. } | LogError::CommitTooLarge { .. })
    }

    pub(super) fn from_io(action: &'static str, path: &Path, source: io::Error) -> LogError {
        let path = path.to_owned();
        if is_disk_full(&source) {
            LogError::DiskFull { path, source }
        } else {
            LogError::Io { action, path, source }
        }
    }

    pub(super) fn damaged(path: &Path, position: u64, what: impl Into<String>) -> LogError {
        LogError::Damaged { path: path.to_owned(), position, what: what.into() }
    }
}

//! How a command ends when it does not end well: an exit code, a message, and what to do.
//!
//! The codes are part of the interface (docs/reference/cli.md); scripts and service managers rely on them.

use std::fmt;
use std::process::ExitCode;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// The command could not do what was asked.
    Failed = 1,
    /// Wrong arguments or configuration; nothing was started.
    Usage = 2,
    /// Another process holds the data directory.
    Busy = 3,
    /// The data directory is damaged.
    Damaged = 4,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit as u8)
    }
}

/// Printed to stderr as `error: MESSAGE` and `hint: HINT`.
#[derive(Clone, Debug, PartialEq)]
pub struct Failure {
    pub exit: Exit,
    pub message: String,
    pub hint: Option<String>,
}

pub type Result<T = (), E = Failure> = std::result::Result<T, E>;

impl Failure {
    pub fn failed(message: impl Into<String>) -> Failure {
        Failure { exit: Exit::Failed, message: message.into(), hint: None }
    }

    pub fn usage(message: impl Into<String>) -> Failure {
        Failure { exit: Exit::Usage, message: message.into(), hint: None }
    }

    /// A failed system call on a named thing: `read orders.csv: permission denied`.
    pub fn io(action: &str, name: impl fmt::Display, error: &std::io::Error) -> Failure {
        Failure::failed(format!("{action} {name}: {error}"))
    }

    pub fn hint(mut self, hint: impl Into<String>) -> Failure {
        self.hint = Some(hint.into());
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error: {}", self.message)?;
        if let Some(hint) = &self.hint {
            write!(f, "\nhint: {hint}")?;
        }
        Ok(())
    }
}

//! What can go wrong inside a circuit.

/// An error of an operator: either an Arrow kernel refused, or a rule of ours is broken.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Arrow(#[from] arrow::error::ArrowError),
    /// The operator can't go on; the view that stands on it is suspended with this text.
    #[error("{0}")]
    Operator(String),
    /// A saved state can't be read.
    #[error("saved state can't be read: {0}")]
    State(String),
}

pub type Result<T, E = Error> = std::result::Result<T, E>;

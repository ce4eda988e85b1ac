//! The contract of incremental computation, without SQL, files or sockets.
//!
//! In reading order: time ([`Tick`], [`Watermark`]), change ([`ZSet`]), identity of rows
//! ([`KeyTable`]), the operator contract ([`Operator`]), rows on their way in
//! ([`DecodedRows`]) and where they come from ([`Source`]), and the picture notation for tests ([`picture`]).
//!
//! The algebra is that of DBSP (Budiu et al., VLDB 2023): a change is a Z-set, an operator
//! maps changes of its inputs to the change of its output.

pub mod error;
pub mod input;
pub mod keys;
pub mod operator;
pub mod picture;
pub mod source;
pub mod state;
pub mod time;
pub mod zset;

pub use error::{Error, Result};
pub use input::{DecodedRows, RejectReason, RejectedRow};
pub use keys::{KeyTable, RandomState, random_state};
pub use operator::{Operator, PartSink, StateSize, StepContext};
pub use source::{Connectors, Poll, Source, SourceError, SourceRows, SourceSpec};
pub use state::{KeyPart, StateReader, StateWriter};
pub use time::{Tick, Watermark};
pub use zset::ZSet;

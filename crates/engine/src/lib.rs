//! The incremental engine: SQL views kept up to date over a durable log.
//!
//! In reading order: what serving sees ([`api`], [`Database`], [`Session`]), the way in ([`constraints`], [`dedup`],
//! [`record`], [`writer`], [`sources`]), the deterministic core ([`table`], [`watermarks`], [`stepper`], [`circuit`],
//! [`operators`]), planning ([`plan`], [`definition`]), and the way out ([`driver`], [`published`], [`provider`]).

pub mod api;
pub mod bag;
pub mod checkpoint;
mod circuit;
pub mod constraints;
pub mod database;
pub mod dedup;
pub mod definition;
mod dml;
mod driver;
mod key_read;
pub mod operators;
mod packed_rows;
mod pg_catalog;
pub mod plan;
mod point_read;
mod provider;
mod published;
pub mod record;
mod row_codec;
mod seen;
mod session;
mod show;
mod sources;
pub mod stepper;
pub mod system;
pub mod table;
pub mod transient;
pub mod view_store;
pub mod watermarks;
mod writer;

pub use api::*;
pub use database::{Database, Subscription};
pub use session::Session;
pub use transient::Transient;

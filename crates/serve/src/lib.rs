//! What faces the network: HTTP (rows in, views out, changes pushed, the live page) and the Postgres
//! wire protocol.
//!
//! Everything here goes through [`engine::Database`] and [`engine::Session`]; neither module knows how
//! rows are stored or views kept.

pub mod http;
pub mod pg;

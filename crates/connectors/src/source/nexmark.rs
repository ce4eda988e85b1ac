//! The Nexmark benchmark's auction house as a source: people, auctions and bids that never happened.
//!
//! Event number `n` is a function of `n` and the options alone, so the generator is its own log: a position is the
//! number of the next event, and whoever starts there gets exactly the events from there on. Three sources with the
//! same options give three views of one stream of events: of 50 events one is a person, three are auctions, 46 are bids.
//!
//! Fields, proportions, hot keys, prices and expiry follow the benchmark's public description (Tucker et al., "NEXMark:
//! A Benchmark for Queries over Data Streams", and its implementations in Beam and Flink); the random numbers are ours,
//! so that rows differ from those of other generators while distributions don't.

mod connector;
mod events;
mod options;
mod random;
#[cfg(test)]
mod tests;

pub use connector::NexmarkSource;
pub use events::{Events, NexmarkTable};
pub use options::NexmarkOptions;

//! `WITH (connector = 'nexmark', nexmark.table.type = 'Bid', ...)`: names and defaults as in RisingWave.

use std::collections::BTreeMap;

use dataflow::SourceError;

use super::NexmarkTable;

/// What the events are like.
#[derive(Clone, Debug, PartialEq)]
pub struct NexmarkOptions {
    pub table: NexmarkTable,
    /// Events of all three kinds together; `None`: without end.
    pub event_num: Option<u64>,
    /// Rows handed on at once.
    pub max_chunk_size: usize,
    /// Events are stamped with the time at which they are made.
    pub use_real_time: bool,
    /// Time between the making of two events; 0: as fast as they are taken.
    pub min_event_gap_ns: u64,
    /// Time stamp of event 0, in milliseconds since 1970.
    pub start_time_ms: i64,
    /// Events per second of event time.
    pub event_rate: u64,
    /// Within groups of this many events, order is shuffled; 1: none is out of order.
    pub out_of_order_group_size: u64,
    pub active_people: u64,
    pub in_flight_auctions: u64,
    pub avg_person_byte_size: usize,
    pub avg_auction_byte_size: usize,
    pub avg_bid_byte_size: usize,
    /// One of this many auctions is by somebody other than the current hot seller.
    pub hot_seller_ratio: u64,
    pub hot_auction_ratio: u64,
    pub hot_bidder_ratio: u64,
    pub hot_channel_ratio: u64,
    pub num_categories: u64,
}

impl Default for NexmarkOptions {
    fn default() -> Self {
        NexmarkOptions {
            table: NexmarkTable::Bid,
            event_num: None,
            max_chunk_size: 8192,
            use_real_time: false,
            min_event_gap_ns: 100_000,
            // 2015-07-15, as in the first implementations.
            start_time_ms: 1_436_918_400_000,
            event_rate: 10_000,
            out_of_order_group_size: 1,
            active_people: 1000,
            in_flight_auctions: 100,
            avg_person_byte_size: 200,
            avg_auction_byte_size: 500,
            avg_bid_byte_size: 100,
            hot_seller_ratio: 4,
            hot_auction_ratio: 2,
            hot_bidder_ratio: 4,
            hot_channel_ratio: 2,
            num_categories: 5,
        }
    }
}

const KNOWN: [&str; 19] = [
    "nexmark.table.type",
    "nexmark.split.num",
    "nexmark.event.num",
    "nexmark.max.chunk.size",
    "nexmark.use.real.time",
    "nexmark.min.event.gap.in.ns",
    "nexmark.start.time",
    "nexmark.event.rate",
    "nexmark.out.of.order.group.size",
    "nexmark.active.people",
    "nexmark.in.flight.auctions",
    "nexmark.avg.person.byte.size",
    "nexmark.avg.auction.byte.size",
    "nexmark.avg.bid.byte.size",
    "nexmark.hot.seller.ratio",
    "nexmark.hot.auction.ratio",
    "nexmark.hot.bidder.ratio",
    "nexmark.hot.channel.ratio",
    "nexmark.num.categories",
];

impl NexmarkOptions {
    /// # Errors
    /// Options that don't exist or whose values can't be; a missing `nexmark.table.type`.
    pub fn parse(written: &BTreeMap<String, String>) -> Result<NexmarkOptions, SourceError> {
        let mut options = NexmarkOptions::default();
        let mut table = None;
        for (name, value) in written {
            let count = |least: u64| count(name, value, least);
            let size = || count(0).map(|n| n as usize);
            match name.as_str() {
                "nexmark.table.type" => table = Some(NexmarkTable::parse(name, value)?),
                // Parts that other engines read in parallel; one reader is enough for us, and rows don't depend on it.
                "nexmark.split.num" => drop(count(1)?),
                "nexmark.event.num" if value.trim() == "-1" => options.event_num = None,
                "nexmark.event.num" => options.event_num = Some(count(0)?),
                "nexmark.max.chunk.size" => options.max_chunk_size = count(1)?.min(1 << 20) as usize,
                "nexmark.use.real.time" => options.use_real_time = boolean(name, value)?,
                "nexmark.min.event.gap.in.ns" => options.min_event_gap_ns = count(0)?,
                "nexmark.start.time" => {
                    options.start_time_ms = count(0)? as i64;
                }
                "nexmark.event.rate" => options.event_rate = count(1)?,
                "nexmark.out.of.order.group.size" => options.out_of_order_group_size = count(1)?,
                "nexmark.active.people" => options.active_people = count(1)?,
                "nexmark.in.flight.auctions" => options.in_flight_auctions = count(1)?,
                "nexmark.avg.person.byte.size" => options.avg_person_byte_size = size()?,
                "nexmark.avg.auction.byte.size" => options.avg_auction_byte_size = size()?,
                "nexmark.avg.bid.byte.size" => options.avg_bid_byte_size = size()?,
                "nexmark.hot.seller.ratio" => options.hot_seller_ratio = count(1)?,
                "nexmark.hot.auction.ratio" => options.hot_auction_ratio = count(1)?,
                "nexmark.hot.bidder.ratio" => options.hot_bidder_ratio = count(1)?,
                "nexmark.hot.channel.ratio" => options.hot_channel_ratio = count(1)?,
                "nexmark.num.categories" => options.num_categories = count(1)?,
                _ => {
                    let error = SourceError::option(
                        name,
                        format!("unknown option \"{name}\" of connector \"nexmark\""),
                    );
                    return Err(error.with_hint(format!("its options are: {}", KNOWN.join(", "))));
                }
            }
        }
        options.table = table.ok_or_else(|| {
            SourceError::option("connector", "connector \"nexmark\" needs the option nexmark.table.type")
                .with_hint("nexmark.table.type = 'Person', 'Auction' or 'Bid'")
        })?;
        Ok(options)
    }
}

fn count(name: &str, value: &str, least: u64) -> Result<u64, SourceError> {
    // Numbers that only a mistake could make larger, and that leave room for sums.
    const MOST: u64 = 1 << 50;
    match value.trim().parse::<u64>() {
        Ok(number) if (least..=MOST).contains(&number) => Ok(number),
        _ => {
            let message =
                format!("option \"{name}\" takes a whole number from {least} to {MOST}, not '{value}'");
            Err(SourceError::option(name, message))
        }
    }
}

fn boolean(name: &str, value: &str) -> Result<bool, SourceError> {
    match value.trim().to_ascii_lowercase().as_str() {
        "true" | "t" | "on" | "1" => Ok(true),
        "false" | "f" | "off" | "0" => Ok(false),
        _ => Err(SourceError::option(name, format!("option \"{name}\" is 'true' or 'false', not '{value}'"))),
    }
}

//! From event numbers to columns.
//!
//! Numbers are dealt in rounds of 50: the first is a person, the next three are auctions, the rest bids. Ids count up
//! within their kind from 1000, so that the newest auction at event `n` is known without having made it; bids and
//! sellers are drawn from what is recent at `n`, with a hot one that most of them share.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, StringArray, TimestampMicrosecondArray};
use arrow::buffer::{Buffer, OffsetBuffer};
use arrow::datatypes::{DataType, TimeUnit};
use dataflow::SourceError;

use super::options::NexmarkOptions;
use super::random::Random;

/// One, so that a round's first event is its person.
const PERSONS: u64 = 1;
const AUCTIONS: u64 = 3;
const BIDS: u64 = 46;
/// Events of a round.
const ROUND: u64 = PERSONS + AUCTIONS + BIDS;
const FIRST_ID: u64 = 1000;
const FIRST_CATEGORY: u64 = 10;
/// Ids a little ahead of what exists are drawn, too, so that some joins find no partner.
const LEAD: u64 = 10;
/// The hot seller, auction and bidder change when this many of their kind are new.
const HOT_EVERY: u64 = 100;

const FIRST_NAMES: [&str; 11] =
    ["Peter", "Paul", "Luke", "John", "Saul", "Vicky", "Kate", "Julie", "Sarah", "Deiter", "Walter"];
const LAST_NAMES: [&str; 9] =
    ["Shultz", "Abrams", "Spencer", "White", "Bartels", "Walton", "Smith", "Jones", "Noris"];
const CITIES: [&str; 10] = [
    "Phoenix",
    "Los Angeles",
    "San Francisco",
    "Boise",
    "Portland",
    "Bend",
    "Redmond",
    "Seattle",
    "Kent",
    "Cheyenne",
];
const STATES: [&str; 6] = ["AZ", "CA", "ID", "OR", "WA", "WY"];
const HOT_CHANNELS: [&str; 4] = ["Google", "Facebook", "Baidu", "Apple"];
const CHANNELS: u64 = 10_000;

/// The three kinds of events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NexmarkTable {
    Person,
    Auction,
    Bid,
}

impl NexmarkTable {
    pub const ALL: [NexmarkTable; 3] = [NexmarkTable::Person, NexmarkTable::Auction, NexmarkTable::Bid];

    pub(super) fn parse(option: &str, value: &str) -> Result<NexmarkTable, SourceError> {
        let found = NexmarkTable::ALL.into_iter().find(|t| t.name().eq_ignore_ascii_case(value.trim()));
        found.ok_or_else(|| {
            SourceError::option(option, format!("there is no Nexmark table '{value}'"))
                .with_hint("nexmark.table.type = 'Person', 'Auction' or 'Bid'")
        })
    }

    pub fn name(self) -> &'static str {
        match self {
            NexmarkTable::Person => "Person",
            NexmarkTable::Auction => "Auction",
            NexmarkTable::Bid => "Bid",
        }
    }

    /// Names and types of the columns, in the benchmark's order.
    pub fn columns(self) -> Vec<(&'static str, DataType)> {
        let (int, text, time) =
            (DataType::Int64, DataType::Utf8, DataType::Timestamp(TimeUnit::Microsecond, None));
        let kind = |name: &str| match name {
            "date_time" | "expires" => time.clone(),
            "id" | "initial_bid" | "reserve" | "seller" | "category" | "auction" | "bidder" | "price" => {
                int.clone()
            }
            _ => text.clone(),
        };
        let names: &[&str] = match self {
            NexmarkTable::Person => {
                &["id", "name", "email_address", "credit_card", "city", "state", "date_time", "extra"]
            }
            NexmarkTable::Auction => &[
                "id",
                "item_name",
                "description",
                "initial_bid",
                "reserve",
                "date_time",
                "expires",
                "seller",
                "category",
                "extra",
            ],
            NexmarkTable::Bid => &["auction", "bidder", "price", "channel", "url", "date_time", "extra"],
        };
        names.iter().map(|name| (*name, kind(name))).collect()
    }

    /// The kind of event `number`.
    pub fn of(number: u64) -> NexmarkTable {
        match number % ROUND {
            offset if offset < PERSONS => NexmarkTable::Person,
            offset if offset < PERSONS + AUCTIONS => NexmarkTable::Auction,
            _ => NexmarkTable::Bid,
        }
    }
}

/// Fields, for their random numbers.
#[derive(Clone, Copy)]
enum Field {
    Name = 1,
    Email,
    Card,
    City,
    State,
    ItemName,
    Description,
    InitialBid,
    Reserve,
    Expires,
    Seller,
    Category,
    Auction,
    Bidder,
    Price,
    Channel,
    Url,
    Extra,
}

/// Makes events of one kind.
#[derive(Clone)]
pub struct Events {
    options: NexmarkOptions,
    hot_urls: Arc<Vec<String>>,
    urls: Arc<Vec<String>>,
}

impl Events {
    pub fn new(options: NexmarkOptions) -> Events {
        let hot = (0..HOT_CHANNELS.len() as u64).map(|channel| url(CHANNELS + channel));
        let urls = (0..CHANNELS).map(|channel| {
            let mut url = url(channel);
            // Nine of ten say which channel they came through.
            if Random::new(channel, Field::Url as u64).below(10) > 0 {
                url.push_str(&format!("&channel_id={}", channel.reverse_bits() >> 33));
            }
            url
        });
        Events { options, hot_urls: Arc::new(hot.collect()), urls: Arc::new(urls.collect()) }
    }

    pub fn options(&self) -> &NexmarkOptions {
        &self.options
    }

    /// The numbers of the next events of this kind from `position` on and before `until`, at most `rows_max`, and
    /// where to go on.
    ///
    /// A position counts events in the order in which they happen to arrive; the number that an event is made from
    /// differs from it within groups of `out_of_order_group_size`.
    pub fn numbers(&self, mut position: u64, until: u64, rows_max: usize) -> (Vec<u64>, u64) {
        let until = until.min(self.options.event_num.unwrap_or(u64::MAX));
        let mut numbers = Vec::with_capacity(rows_max);
        while position < until && numbers.len() < rows_max {
            let number = self.shuffled(position);
            if NexmarkTable::of(number) == self.options.table {
                numbers.push(number);
            }
            position += 1;
        }
        (numbers, position)
    }

    fn shuffled(&self, position: u64) -> u64 {
        let group = self.options.out_of_order_group_size;
        if group == 1 {
            return position;
        }
        // 953 is prime, so that this is a permutation of any group whose size is no multiple of it.
        let step = if group.is_multiple_of(953) { 1 } else { 953 };
        let start = position / group * group;
        start + (position - start) * step % group
    }

    /// Time stamp of event `number`, in microseconds since 1970.
    pub fn time_us(&self, number: u64) -> i64 {
        let since = u128::from(number) * 1_000_000 / u128::from(self.options.event_rate);
        // Milliseconds, as in the benchmark.
        self.options.start_time_ms * 1000 + (since as i64) / 1000 * 1000
    }

    /// One column of the events `numbers`; `now_us` is the time stamp of all of them with `use_real_time`.
    ///
    /// # Panics
    /// For a column that the table does not have; see [`NexmarkTable::columns`].
    pub fn column(&self, name: &str, numbers: &[u64], now_us: i64) -> ArrayRef {
        use NexmarkTable::*;
        let time = |n: u64| if self.options.use_real_time { now_us } else { self.time_us(n) };
        let ints = |value: &dyn Fn(u64) -> i64| -> ArrayRef {
            Arc::new(Int64Array::from_iter_values(numbers.iter().map(|n| value(*n))))
        };
        let times = |value: &dyn Fn(u64) -> i64| -> ArrayRef {
            Arc::new(TimestampMicrosecondArray::from_iter_values(numbers.iter().map(|n| value(*n))))
        };
        let random = |n: u64, field: Field| Random::new(n, field as u64);
        match (self.options.table, name) {
            (_, "date_time") => times(&time),
            (_, "extra") => self.extra(numbers),
            (Person, "id") => ints(&|n| (newest_person(n) + FIRST_ID) as i64),
            (Person, "name") => texts(numbers, |n, text| {
                let mut random = random(n, Field::Name);
                text.extend_from_slice(random.choose(&FIRST_NAMES).as_bytes());
                text.push(b' ');
                text.extend_from_slice(random.choose(&LAST_NAMES).as_bytes());
            }),
            (Person, "email_address") => texts(numbers, |n, text| {
                let mut random = random(n, Field::Email);
                random.letters(7, text);
                text.push(b'@');
                random.letters(5, text);
                text.extend_from_slice(b".com");
            }),
            (Person, "credit_card") => texts(numbers, |n, text| {
                let mut random = random(n, Field::Card);
                let [a, b, c, d] = [0; 4].map(|_: u8| random.below(10_000));
                text.extend_from_slice(format!("{a:04} {b:04} {c:04} {d:04}").as_bytes());
            }),
            (Person, "city") => texts(numbers, |n, text| {
                text.extend_from_slice(random(n, Field::City).choose(&CITIES).as_bytes());
            }),
            (Person, "state") => texts(numbers, |n, text| {
                text.extend_from_slice(random(n, Field::State).choose(&STATES).as_bytes());
            }),
            (Auction, "id") => ints(&|n| (newest_auction(n) + FIRST_ID) as i64),
            (Auction, "item_name") => texts(numbers, |n, text| random(n, Field::ItemName).letters(20, text)),
            (Auction, "description") => {
                texts(numbers, |n, text| random(n, Field::Description).letters(100, text))
            }
            (Auction, "initial_bid") => ints(&|n| random(n, Field::InitialBid).price()),
            (Auction, "reserve") => {
                ints(&|n| random(n, Field::InitialBid).price() + random(n, Field::Reserve).price())
            }
            (Auction, "expires") => times(&|n| {
                // On average as many auctions are open as are to be in flight.
                let ahead = self.options.in_flight_auctions * ROUND / AUCTIONS;
                let horizon_ms = (self.time_us(n + ahead) - self.time_us(n)) / 1000;
                let length_ms = 1 + random(n, Field::Expires).below((horizon_ms as u64 * 2).max(1));
                time(n) + length_ms as i64 * 1000
            }),
            (Auction, "seller") => ints(&|n| {
                let mut random = random(n, Field::Seller);
                let seller = match random.below(self.options.hot_seller_ratio) {
                    0 => self.some_person(n, &mut random),
                    _ => newest_person(n) / HOT_EVERY * HOT_EVERY,
                };
                (seller + FIRST_ID) as i64
            }),
            (Auction, "category") => ints(&|n| {
                (FIRST_CATEGORY + random(n, Field::Category).below(self.options.num_categories)) as i64
            }),
            (Bid, "auction") => ints(&|n| {
                let mut random = random(n, Field::Auction);
                let auction = match random.below(self.options.hot_auction_ratio) {
                    0 => self.some_auction(n, &mut random),
                    _ => newest_auction(n) / HOT_EVERY * HOT_EVERY,
                };
                (auction + FIRST_ID) as i64
            }),
            (Bid, "bidder") => ints(&|n| {
                let mut random = random(n, Field::Bidder);
                let bidder = match random.below(self.options.hot_bidder_ratio) {
                    0 => self.some_person(n, &mut random),
                    _ => newest_person(n) / HOT_EVERY * HOT_EVERY + 1,
                };
                (bidder + FIRST_ID) as i64
            }),
            (Bid, "price") => ints(&|n| random(n, Field::Price).price()),
            (Bid, "channel") => texts(numbers, |n, text| match self.channel(n) {
                Ok(hot) => text.extend_from_slice(HOT_CHANNELS[hot].as_bytes()),
                Err(number) => text.extend_from_slice(format!("channel-{number}").as_bytes()),
            }),
            (Bid, "url") => texts(numbers, |n, text| {
                text.extend_from_slice(match self.channel(n) {
                    Ok(hot) => self.hot_urls[hot].as_bytes(),
                    Err(number) => self.urls[number].as_bytes(),
                });
            }),
            (table, other) => panic!("Nexmark table {} has no column {other}", table.name()),
        }
    }

    /// A hot channel, or the number of another one.
    fn channel(&self, number: u64) -> Result<usize, usize> {
        let mut random = Random::new(number, Field::Channel as u64);
        match random.below(self.options.hot_channel_ratio) {
            0 => Err(random.below(CHANNELS) as usize),
            _ => Ok(random.below(HOT_CHANNELS.len() as u64) as usize),
        }
    }

    /// Fills a row up to its average size, give or take a fifth of what is missing.
    fn extra(&self, numbers: &[u64]) -> ArrayRef {
        // Sizes of the other fields as the benchmark counts them: 8 for a number or time, text by its length.
        let (others, wanted) = match self.options.table {
            NexmarkTable::Person => (8 + 12 + 17 + 19 + 8 + 2, self.options.avg_person_byte_size),
            NexmarkTable::Auction => (8 + 20 + 100 + 5 * 8, self.options.avg_auction_byte_size),
            NexmarkTable::Bid => (4 * 8, self.options.avg_bid_byte_size),
        };
        let missing = wanted.saturating_sub(others) as u64;
        let fifth = (missing + 2) / 5;
        texts(numbers, |n, text| {
            let mut random = Random::new(n, Field::Extra as u64);
            let length = missing - fifth + random.below(2 * fifth + 1);
            random.letters(length as usize, text);
        })
    }

    fn some_person(&self, number: u64, random: &mut Random) -> u64 {
        let people = newest_person(number) + 1;
        let active = people.min(self.options.active_people);
        people - active + random.below(active + LEAD)
    }

    fn some_auction(&self, number: u64, random: &mut Random) -> u64 {
        let newest = newest_auction(number);
        let oldest = newest.saturating_sub(self.options.in_flight_auctions);
        oldest + random.below(newest - oldest + 1 + LEAD)
    }
}

/// The newest person at event `number`, counted from 0.
fn newest_person(number: u64) -> u64 {
    number / ROUND
}

/// The newest auction at event `number`, counted from 0.
fn newest_auction(number: u64) -> u64 {
    let (round, offset) = (number / ROUND, number % ROUND);
    match offset {
        // Before this round's first auction: the last one of the round before.
        _ if offset < PERSONS => (round * AUCTIONS).saturating_sub(1),
        _ => round * AUCTIONS + (offset - PERSONS).min(AUCTIONS - 1),
    }
}

/// An address of three folders.
fn url(seed: u64) -> String {
    let mut random = Random::new(seed, 0);
    let mut path = Vec::new();
    for _ in 0..3 {
        random.letters(5, &mut path);
        path.push(b'/');
    }
    format!("https://www.nexmark.com/{}item.htm?query=1", String::from_utf8_lossy(&path))
}

/// A column of texts, each written behind the others.
fn texts(numbers: &[u64], write: impl Fn(u64, &mut Vec<u8>)) -> ArrayRef {
    let mut bytes = Vec::with_capacity(numbers.len() * 24);
    let mut offsets = Vec::with_capacity(numbers.len() + 1);
    offsets.push(0i32);
    for number in numbers {
        write(*number, &mut bytes);
        offsets.push(i32::try_from(bytes.len()).expect("a chunk of rows holds less than 2 GiB"));
    }
    let array = StringArray::try_new(OffsetBuffer::new(offsets.into()), Buffer::from_vec(bytes), None);
    Arc::new(array.expect("everything written is ASCII"))
}

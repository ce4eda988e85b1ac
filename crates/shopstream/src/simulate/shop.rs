//! The shop: visitors, carts, orders, payments, stock, as a queue of things that will happen.
//!
//! ```text
//!   agenda (what happens next) ──> act ──> outbox (rows by the time they are sent) ──> rows_until
//!        ^                          |
//!        └──── follow-ups ──────────┘
//! ```
//!
//! Time is microseconds since the start of the simulation. Rule: what comes out of [`Shop::rows_until`] depends
//! on the plan only, not on how often it is called; everything due is acted out before a row leaves.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap};

use super::books::Books;
use super::rng::{Rng, Zipf};
use super::rows::{Json, Table, format_date, format_time};

pub const SECOND: i64 = 1_000_000;
pub const MINUTE: i64 = 60 * SECOND;
pub const HOUR: i64 = 60 * MINUTE;
pub const DAY: i64 = 24 * HOUR;

const CATEGORIES: i64 = 20;
const ITEM_ID_FIRST: i64 = 1001;
/// Shops meet names like this one; a page that shows them must not run them.
const HOSTILE_NAME: &str = "<script>alert(1)</script>";
const REORDER_POINT: i64 = 10;
/// Rows that follow from one session on average, measured; see the test of the rate.
const ROWS_PER_SESSION: f64 = 21.4;
/// Items of a category that a promotion makes cheaper.
const PROMOTED_MAX: usize = 25;

/// Everything that decides what happens.
#[derive(Clone, Debug)]
pub struct Plan {
    pub seed: u64,
    pub rate: f64,
    /// Microseconds since 1970 of the first event.
    pub start_us: i64,
    pub items: u32,
    pub duplicate_ratio: f64,
    pub disorder_ratio: f64,
    pub late_ratio: f64,
    pub broken_ratio: f64,
    pub skew_ratio: f64,
}

pub(super) struct Item {
    pub(super) id: i64,
    pub(super) category: i64,
    name: String,
    list_cents: i64,
    pub(super) price_cents: i64,
    pub(super) on_hand: i64,
    restocking: bool,
}

pub(super) struct Session {
    pub(super) user: i64,
    /// How far the visitor's clock is off.
    pub(super) skew_us: i64,
    pub(super) views_left: i64,
    pub(super) cart: Vec<(usize, i64)>,
}

pub(super) struct Order {
    pub(super) id: i64,
    pub(super) user: i64,
    pub(super) status: &'static str,
    pub(super) cents: i64,
    pub(super) units: i64,
    pub(super) created_us: i64,
    pub(super) lines: Vec<(usize, i64)>,
    pub(super) attempts: i64,
    pub(super) fraud: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Action {
    Arrive,
    Step(u64),
    Pay(usize),
    Ship(usize),
    Refund(usize),
    Restock(usize),
    PromotionStart,
    PromotionEnd,
    BotBurst,
    BotHit { bot: i64, item: usize, left: i64 },
    FraudBurst,
    FraudLogin { user: i64, left: i64 },
}

/// A row on its way out.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Parcel {
    send_us: i64,
    number: u64,
    table: Table,
    json: String,
}

pub struct Shop {
    pub(super) plan: Plan,
    pub(super) rng: Rng,
    pub(super) books: Books,
    pub(super) items: Vec<Item>,
    popularity: Zipf,
    /// Popularity rank to item.
    ranking: Vec<usize>,
    promoted: Vec<usize>,
    agenda: BinaryHeap<Reverse<(i64, u64, Action)>>,
    outbox: BinaryHeap<Reverse<Parcel>>,
    sequence: u64,
    pub(super) sessions: HashMap<u64, Session>,
    pub(super) orders: Vec<Order>,
    pub(super) users_known: Vec<i64>,
    pub(super) user_next: i64,
    /// Added to the numbers of orders, payments, ... so that two runs do not share them.
    pub(super) id_base: i64,
    pub(super) ids: BTreeMap<Table, i64>,
    event_number: u64,
}

impl Shop {
    /// Opens the shop: items, shelves and the bookkeeping of the last days are rows at time 0.
    pub fn open(plan: Plan) -> Shop {
        let mut rng = Rng::new(plan.seed);
        let count = plan.items as usize;
        let mut ranking: Vec<usize> = (0..count).collect();
        for i in (1..count).rev() {
            ranking.swap(i, rng.below(i as u64 + 1) as usize);
        }
        let mut shop = Shop {
            books: Books { seed: plan.seed, start: format_time(plan.start_us), ..Books::default() },
            items: Vec::with_capacity(count),
            popularity: Zipf::new(count),
            ranking,
            promoted: vec![],
            agenda: BinaryHeap::new(),
            outbox: BinaryHeap::new(),
            sequence: 0,
            sessions: HashMap::new(),
            orders: vec![],
            users_known: vec![],
            user_next: 10_001,
            id_base: plan.start_us.max(0) / SECOND * 1_000_000,
            ids: BTreeMap::new(),
            event_number: 0,
            rng,
            plan,
        };
        shop.fill_shelves();
        shop.write_daily_sales();
        shop.later(0, Action::Arrive);
        shop.later(MINUTE, Action::PromotionStart);
        shop.later(2 * MINUTE, Action::BotBurst);
        shop.later(3 * MINUTE, Action::FraudBurst);
        shop
    }

    /// Acts until `until_us` and hands every row sent by then to `take`, in the order of sending.
    pub fn rows_until(&mut self, until_us: i64, mut take: impl FnMut(Table, &str)) {
        while let Some(Reverse((at, _, _))) = self.agenda.peek() {
            if *at > until_us {
                break;
            }
            if let Some(Reverse((at, _, action))) = self.agenda.pop() {
                self.act(at, action);
            }
        }
        while let Some(Reverse(parcel)) = self.outbox.peek() {
            if parcel.send_us > until_us {
                break;
            }
            if let Some(Reverse(parcel)) = self.outbox.pop() {
                take(parcel.table, &parcel.json);
            }
        }
        self.books.simulated_seconds = until_us as f64 / SECOND as f64;
    }

    /// Closes the shop: hands out the rows that were still held back, and the books.
    pub fn close(mut self, mut take: impl FnMut(Table, &str)) -> Books {
        while let Some(Reverse(parcel)) = self.outbox.pop() {
            take(parcel.table, &parcel.json);
        }
        for order in &self.orders {
            *self.books.orders_by_status.entry(order.status).or_default() += 1;
        }
        self.books.stock = self.items.iter().map(|item| (item.id, item.on_hand)).collect();
        self.books.complete = true;
        self.books
    }

    pub(super) fn later(&mut self, at_us: i64, action: Action) {
        self.sequence += 1;
        self.agenda.push(Reverse((at_us, self.sequence, action)));
    }

    /// Puts a row into the outbox as it is.
    pub(super) fn post(&mut self, send_us: i64, table: Table, json: String) {
        self.sequence += 1;
        self.outbox.push(Reverse(Parcel { send_us, number: self.sequence, table, json }));
    }

    /// Posts a good row, at once.
    pub(super) fn send(&mut self, at_us: i64, table: Table, json: String) {
        *self.books.rows.entry(table.name()).or_default() += 1;
        self.post(at_us, table, json);
    }

    pub(super) fn clock(&self, at_us: i64) -> i64 {
        self.plan.start_us + at_us
    }

    pub(super) fn new_id(&mut self, table: Table) -> i64 {
        let id = self.ids.entry(table).or_default();
        *id += 1;
        self.id_base + *id
    }

    pub(super) fn new_event_id(&mut self) -> String {
        self.event_number += 1;
        format!("{:x}-{:x}", self.id_base / 1_000_000, self.event_number)
    }

    fn act(&mut self, at: i64, action: Action) {
        match action {
            Action::Arrive => self.arrive(at),
            Action::Step(session) => self.step(at, session),
            Action::Pay(order) => self.pay(at, order),
            Action::Ship(order) => self.ship(at, order),
            Action::Refund(order) => self.refund(at, order),
            Action::Restock(item) => self.restock(at, item),
            Action::PromotionStart => self.start_promotion(at),
            Action::PromotionEnd => self.end_promotion(at),
            Action::BotBurst => self.start_bot(at),
            Action::BotHit { bot, item, left } => self.bot_hit(at, bot, item, left),
            Action::FraudBurst => self.start_fraud(at),
            Action::FraudLogin { user, left } => self.fraud_login(at, user, left),
        }
    }

    /// Mean time between two sessions: the rate bends over the day.
    pub(super) fn session_gap_us(&self, at_us: i64) -> f64 {
        ROWS_PER_SESSION / self.plan.rate / rhythm(at_us) * SECOND as f64
    }

    pub(super) fn draw_item(&mut self) -> usize {
        if !self.promoted.is_empty() && self.rng.chance(0.3) {
            return self.promoted[self.rng.below(self.promoted.len() as u64) as usize];
        }
        self.ranking[self.popularity.draw(&mut self.rng)]
    }

    fn fill_shelves(&mut self) {
        const CENTS: [i64; 8] = [199, 499, 999, 1499, 1999, 4999, 9999, 29_999];
        for i in 0..self.plan.items as i64 {
            let list_cents = CENTS[self.rng.below(8) as usize] + 100 * self.rng.below(10) as i64;
            let name = if i == 41 { HOSTILE_NAME.to_string() } else { format!("Item {}", ITEM_ID_FIRST + i) };
            self.items.push(Item {
                id: ITEM_ID_FIRST + i,
                category: 1 + i % CATEGORIES,
                name,
                list_cents,
                price_cents: list_cents,
                on_hand: 0,
                restocking: false,
            });
            let index = i as usize;
            self.write_item(0, index);
            let received = self.rng.between(5, 150);
            self.move_stock(0, index, received, "receive", None);
        }
    }

    fn write_daily_sales(&mut self) {
        for days_ago in (1..=60).rev() {
            let cents = self.rng.between(500_000, 1_500_000);
            let date = format_date(self.plan.start_us - days_ago * DAY);
            let json = Json::new().text("date", &date).cents("sales", cents).end();
            self.send(0, Table::DailySales, json);
        }
    }

    fn write_item(&mut self, at: i64, index: usize) {
        let item = &self.items[index];
        let json = Json::new()
            .number("item_id", item.id)
            .number("category_id", item.category)
            .text("name", &item.name)
            .cents("price", item.price_cents)
            .end();
        self.send(at, Table::Items, json);
    }

    /// Changes the stock of an item: a line in the ledger, and the new level.
    pub(super) fn move_stock(
        &mut self,
        at: i64,
        index: usize,
        delta: i64,
        reason: &'static str,
        order: Option<i64>,
    ) {
        let move_id = self.new_id(Table::StockMoves);
        let now = self.clock(at);
        let item = &mut self.items[index];
        item.on_hand += delta;
        assert!(item.on_hand >= 0, "nothing is sold that is not on the shelf");
        let mut ledger = Json::new()
            .number("move_id", move_id)
            .number("product_id", item.id)
            .number("delta", delta)
            .text("reason", reason);
        if let Some(order) = order {
            ledger = ledger.number("order_id", order);
        }
        let level = Json::new()
            .number("product_id", item.id)
            .number("quantity", item.on_hand)
            .time("updated_at", now)
            .end();
        let restock = item.on_hand <= REORDER_POINT && !item.restocking;
        item.restocking |= restock;
        self.send(at, Table::StockMoves, ledger.time("ts", now).end());
        self.send(at, Table::Stock, level);
        if restock {
            let wait = self.rng.between(2 * MINUTE, 8 * MINUTE);
            self.later(at + wait, Action::Restock(index));
        }
    }

    fn restock(&mut self, at: i64, index: usize) {
        self.items[index].restocking = false;
        let received = self.rng.between(50, 150);
        self.move_stock(at, index, received, "receive", None);
    }

    fn start_promotion(&mut self, at: i64) {
        let category = self.rng.between(1, CATEGORIES);
        let chosen: Vec<usize> = (0..self.items.len())
            .filter(|i| self.items[*i].category == category)
            .take(PROMOTED_MAX)
            .collect();
        for index in &chosen {
            let item = &mut self.items[*index];
            item.price_cents = item.list_cents * 4 / 5;
            self.write_item(at, *index);
        }
        self.promoted = chosen;
        self.books.promotions += 1;
        self.later(at + 10 * MINUTE, Action::PromotionEnd);
    }

    fn end_promotion(&mut self, at: i64) {
        for index in std::mem::take(&mut self.promoted) {
            let item = &mut self.items[index];
            item.price_cents = item.list_cents;
            self.write_item(at, index);
        }
        let wait = self.rng.wait_us(20.0 * MINUTE as f64);
        self.later(at + wait, Action::PromotionStart);
    }
}

/// How busy the shop is over the simulated day, on average 1. The day begins at 10 in the morning.
fn rhythm(at_us: i64) -> f64 {
    const BY_HOUR: [f64; 24] = [
        1.0, 1.1, 1.2, 1.15, 1.0, 1.0, 1.05, 1.1, 1.2, 1.4, 1.6, 1.75, 1.7, 1.4, 0.9, 0.5, 0.3, 0.25, 0.25,
        0.3, 0.5, 0.75, 0.85, 0.95,
    ];
    let hour = at_us.rem_euclid(DAY) / HOUR;
    let part = (at_us.rem_euclid(HOUR)) as f64 / HOUR as f64;
    let (from, to) = (BY_HOUR[hour as usize], BY_HOUR[(hour as usize + 1) % 24]);
    from + (to - from) * part
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_has_average_traffic_of_one() {
        let mean: f64 = (0..24 * 60).map(|minute| rhythm(minute * MINUTE)).sum::<f64>() / (24.0 * 60.0);
        assert!((0.95..1.05).contains(&mean), "{mean}");
    }
}

//! What visitors do: honest ones look, put into the cart, buy, pay, send back; bots look at one item without end;
//! thieves try passwords and buy with what they find.

use super::rows::{Json, Table};
use super::shop::{Action, MINUTE, Order, SECOND, Session, Shop};

impl Shop {
    pub(super) fn arrive(&mut self, at: i64) {
        let gap = self.session_gap_us(at);
        let wait = self.rng.wait_us(gap).max(1);
        self.later(at + wait, Action::Arrive);

        let returning = !self.users_known.is_empty() && self.rng.chance(0.6);
        let user = if returning {
            self.users_known[self.rng.below(self.users_known.len() as u64) as usize]
        } else {
            self.user_next += 1;
            self.users_known.push(self.user_next);
            self.user_next
        };
        let skew_us =
            if self.rng.chance(self.plan.skew_ratio) { self.rng.between(-SECOND, SECOND) } else { 0 };
        let mut views_left = 1;
        while views_left < 60 && self.rng.chance(0.87) {
            views_left += 1;
        }
        self.books.sessions += 1;
        self.books.returning_sessions += u64::from(returning);
        if self.rng.chance(0.3) {
            let ip = ip_of(user);
            if self.rng.chance(0.05) {
                self.login(at, user, &ip, false);
            }
            self.login(at, user, &ip, true);
        }
        let number = self.books.sessions;
        self.sessions.insert(number, Session { user, skew_us, views_left, cart: vec![] });
        self.step(at, number);
    }

    /// One page view and what follows from it.
    pub(super) fn step(&mut self, at: i64, number: u64) {
        let item = self.draw_item();
        let (fav, cart, quantity) =
            (self.rng.chance(0.06), self.rng.chance(0.13), [1, 1, 1, 1, 2, 3][self.rng.below(6) as usize]);
        let Some(session) = self.sessions.get_mut(&number) else { return };
        let (user, skew_us) = (session.user, session.skew_us);
        session.views_left -= 1;
        let leaves = session.views_left == 0;
        if cart {
            session.cart.push((item, quantity));
        }
        self.behave(at, user, skew_us, item, "pv");
        if fav {
            self.behave(at, user, skew_us, item, "fav");
        }
        if cart {
            self.behave(at, user, skew_us, item, "cart");
        }
        if !leaves {
            let think = SECOND + self.rng.wait_us(9.0 * SECOND as f64);
            self.later(at + think, Action::Step(number));
            return;
        }
        if let Some(session) = self.sessions.remove(&number)
            && !session.cart.is_empty()
            && self.rng.chance(0.5)
        {
            self.order(at, session.user, session.skew_us, session.cart, false);
        }
    }

    /// What a visitor does: a row of user_behavior, with all the trouble that rows meet on their way, and one of the
    /// simpler table behavior, which has words for most of it.
    fn behave(&mut self, at: i64, user: i64, skew_us: i64, item: usize, behavior: &'static str) {
        let action = match behavior {
            "pv" => Some("browse"),
            "cart" => Some("add_to_cart"),
            "buy" => Some("purchase"),
            _ => None,
        };
        if let Some(action) = action {
            let json = Json::new()
                .number("user_id", user)
                .text("action", action)
                .number("product_id", self.items[item].id)
                .time("ts", self.clock(at))
                .end();
            self.send(at, Table::Behavior, json);
        }
        let event_id = self.new_event_id();
        let item = &self.items[item];
        let json = Json::new()
            .number("user_id", user)
            .number("item_id", item.id)
            .number("category_id", item.category)
            .text("behavior", behavior)
            .time("ts", self.plan.start_us + at + skew_us)
            .text("event_id", &event_id)
            .end();
        *self.books.behavior.entry(behavior).or_default() += 1;
        if behavior == "pv" {
            if self.rng.chance(self.plan.late_ratio) {
                *self.books.late.entry(Table::UserBehavior.name()).or_default() += 1;
                let delay = self.rng.between(MINUTE, 5 * MINUTE);
                self.send(at + delay, Table::UserBehavior, json);
                return;
            }
            if self.rng.chance(self.plan.broken_ratio) {
                self.send_broken(at);
            }
        }
        self.send_troubled(at, Table::UserBehavior, json);
    }

    /// Sends a row of a table with event ids: sometimes a little late, sometimes twice.
    fn send_troubled(&mut self, at: i64, table: Table, json: String) {
        // With clocks a second off in either direction this stays within the watermark's 5 seconds.
        let delay =
            if self.rng.chance(self.plan.disorder_ratio) { self.rng.between(1, 2_500_000) } else { 0 };
        if self.rng.chance(self.plan.duplicate_ratio) {
            *self.books.duplicates.entry(table.name()).or_default() += 1;
            self.post(at + delay, table, json.clone());
        }
        self.send(at + delay, table, json);
    }

    fn send_broken(&mut self, at: i64) {
        let now = super::rows::format_time(self.clock(at));
        let (reason, json) = match self.rng.below(5) {
            0 => ("malformed", r#"{"user_id":1,"item_id""#.to_string()),
            1 => (
                "wrong_type",
                format!(
                    r#"{{"user_id":"nobody","item_id":1001,"category_id":1,"behavior":"pv","ts":"{now}"}}"#
                ),
            ),
            2 => (
                "check",
                format!(r#"{{"user_id":1,"item_id":1001,"category_id":1,"behavior":"stare","ts":"{now}"}}"#),
            ),
            3 => ("not_null", r#"{"user_id":1,"item_id":1001,"category_id":1,"behavior":"pv"}"#.to_string()),
            _ => (
                "too_far_ahead",
                r#"{"user_id":1,"item_id":1001,"category_id":1,"behavior":"pv","ts":"2199-01-01T00:00:00Z"}"#
                    .to_string(),
            ),
        };
        let table = Table::UserBehavior;
        *self.books.broken.entry(table.name()).or_default().entry(reason).or_default() += 1;
        self.post(at, table, json);
    }

    fn login(&mut self, at: i64, user: i64, ip: &str, success: bool) {
        let event_id = self.new_event_id();
        let json = Json::new()
            .number("user_id", user)
            .text("ip", ip)
            .text("outcome", if success { "success" } else { "fail" })
            .time("ts", self.clock(at))
            .text("event_id", &event_id)
            .end();
        self.books.login_failures += u64::from(!success);
        self.send_troubled(at, Table::Logins, json);
    }

    /// Buys what is in the cart, as far as it is on the shelf.
    fn order(&mut self, at: i64, user: i64, skew_us: i64, cart: Vec<(usize, i64)>, fraud: bool) {
        let mut lines: Vec<(usize, i64)> = vec![];
        for (item, wanted) in cart {
            let taken: i64 =
                lines.iter().filter(|(known, _)| *known == item).map(|(_, quantity)| quantity).sum();
            let quantity = wanted.min(self.items[item].on_hand - taken);
            if quantity > 0 {
                lines.push((item, quantity));
            }
        }
        if lines.is_empty() {
            return;
        }
        let id = self.new_id(Table::Orders);
        let (mut cents, mut units) = (0, 0);
        for (number, (item, quantity)) in lines.iter().enumerate() {
            let price = self.items[*item].price_cents;
            cents += price * quantity;
            units += quantity;
            let json = Json::new()
                .number("order_id", id)
                .number("line_no", number as i64 + 1)
                .number("item_id", self.items[*item].id)
                .number("quantity", *quantity)
                .cents("unit_price", price)
                .cents("amount", price * quantity)
                .end();
            self.send(at, Table::OrderLines, json);
            self.behave(at, user, skew_us, *item, "buy");
            self.move_stock(at, *item, -quantity, "sale", Some(id));
        }
        self.books.orders += 1;
        self.books.units += units;
        self.books.gmv_cents += cents;
        self.orders.push(Order {
            id,
            user,
            status: "created",
            cents,
            units,
            created_us: at,
            lines,
            attempts: 0,
            fraud,
        });
        let index = self.orders.len() - 1;
        self.write_order(at, index);
        let wait = self.rng.between(3 * SECOND, 90 * SECOND);
        self.later(at + wait, Action::Pay(index));
    }

    fn write_order(&mut self, at: i64, index: usize) {
        let order = &self.orders[index];
        let json = Json::new()
            .number("order_id", order.id)
            .number("user_id", order.user)
            .text("status", order.status)
            .text("currency", "EUR")
            .cents("amount", order.cents)
            .number("units", order.units)
            .time("created_at", self.plan.start_us + order.created_us)
            .time("updated_at", self.clock(at))
            .end();
        self.send(at, Table::Orders, json);
    }

    pub(super) fn pay(&mut self, at: i64, index: usize) {
        let captured = self.orders[index].fraud || self.rng.chance(0.92);
        let method = ["card", "card", "wallet", "transfer"][self.rng.below(4) as usize];
        let (payment_id, event_id) = (self.new_id(Table::Payments), self.new_event_id());
        let order = &mut self.orders[index];
        order.attempts += 1;
        let json = Json::new()
            .number("payment_id", payment_id)
            .number("order_id", order.id)
            .number("user_id", order.user)
            .text("method", method)
            .text("outcome", if captured { "captured" } else { "failed" })
            .cents("amount", order.cents)
            .time("ts", self.plan.start_us + at)
            .text("event_id", &event_id)
            .end();
        let (cents, attempts, fraud) = (order.cents, order.attempts, order.fraud);
        self.send_troubled(at, Table::Payments, json);
        if captured {
            self.books.paid_cents += cents;
            self.orders[index].status = "paid";
            self.write_order(at, index);
            if fraud || self.rng.chance(0.04) {
                let wait = self.rng.between(2 * MINUTE, 30 * MINUTE);
                self.later(at + wait, Action::Refund(index));
            } else {
                let wait = self.rng.between(5 * MINUTE, 60 * MINUTE);
                self.later(at + wait, Action::Ship(index));
            }
            return;
        }
        self.books.payments_failed += 1;
        if attempts < 2 && self.rng.chance(0.6) {
            let wait = self.rng.between(10 * SECOND, MINUTE);
            self.later(at + wait, Action::Pay(index));
        } else {
            self.cancel(at, index);
        }
    }

    fn cancel(&mut self, at: i64, index: usize) {
        self.books.cancelled_cents += self.orders[index].cents;
        self.orders[index].status = "cancelled";
        self.write_order(at, index);
        self.return_lines(at, index, "sale_cancel");
    }

    pub(super) fn ship(&mut self, at: i64, index: usize) {
        self.orders[index].status = "shipped";
        self.write_order(at, index);
    }

    pub(super) fn refund(&mut self, at: i64, index: usize) {
        let whole = self.orders[index].fraud || self.rng.chance(0.7);
        let reason = if self.orders[index].fraud {
            "fraud"
        } else {
            ["damaged", "not_as_described", "changed_mind"][self.rng.below(3) as usize]
        };
        let refund_id = self.new_id(Table::Refunds);
        let order = &self.orders[index];
        let cents = if whole { order.cents } else { (order.cents / 2).max(1) };
        let json = Json::new()
            .number("refund_id", refund_id)
            .number("order_id", order.id)
            .text("reason", reason)
            .cents("amount", cents)
            .time("ts", self.clock(at))
            .end();
        self.books.refunded_cents += cents;
        self.send(at, Table::Refunds, json);
        if whole {
            self.orders[index].status = "refunded";
            self.write_order(at, index);
            self.return_lines(at, index, "return");
        }
    }

    fn return_lines(&mut self, at: i64, index: usize, reason: &'static str) {
        let id = self.orders[index].id;
        for (item, quantity) in std::mem::take(&mut self.orders[index].lines) {
            self.move_stock(at, item, quantity, reason, Some(id));
        }
    }

    pub(super) fn start_bot(&mut self, at: i64) {
        self.books.bot_bursts += 1;
        let bot = 9_000_000 + self.books.bot_bursts as i64;
        let item = self.draw_item();
        let left = (self.plan.rate * 10.0).clamp(20.0, 5000.0) as i64;
        self.bot_hit(at, bot, item, left);
        let wait = MINUTE + self.rng.wait_us(10.0 * MINUTE as f64);
        self.later(at + wait, Action::BotBurst);
    }

    pub(super) fn bot_hit(&mut self, at: i64, bot: i64, item: usize, left: i64) {
        self.behave(at, bot, 0, item, "pv");
        if left > 1 {
            let burst = (self.plan.rate * 10.0).clamp(20.0, 5000.0) as i64;
            self.later(at + 20 * SECOND / burst, Action::BotHit { bot, item, left: left - 1 });
        }
    }

    pub(super) fn start_fraud(&mut self, at: i64) {
        if let Some(last) = self.users_known.len().checked_sub(1) {
            self.books.fraud_bursts += 1;
            let victim = self.users_known[self.rng.below(last as u64 + 1) as usize];
            let left = self.rng.between(8, 20);
            self.fraud_login(at, victim, left);
        }
        let wait = MINUTE + self.rng.wait_us(12.0 * MINUTE as f64);
        self.later(at + wait, Action::FraudBurst);
    }

    pub(super) fn fraud_login(&mut self, at: i64, user: i64, left: i64) {
        let ip = format!("198.51.100.{}", 1 + left % 3);
        let found = left == 1 && self.rng.chance(0.5);
        self.login(at, user, &ip, found);
        if left > 1 {
            let wait = self.rng.between(SECOND / 2, 2 * SECOND);
            self.later(at + wait, Action::FraudLogin { user, left: left - 1 });
        } else if found {
            let item = self.draw_item();
            self.order(at, user, 0, vec![(item, 3)], true);
        }
    }
}

/// An address of the documentation range that stays with the user.
fn ip_of(user: i64) -> String {
    format!("203.0.113.{}", 1 + user % 250)
}

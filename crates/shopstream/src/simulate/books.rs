//! What the simulator says it sent, so that views can be compared with it to the cent.

use std::collections::BTreeMap;

use serde::Serialize;

/// Counts of everything sent. `rows` counts the rows that a correct database keeps: duplicates and broken
/// rows are beside it, late ones are in it.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Books {
    pub seed: u64,
    pub start: String,
    pub simulated_seconds: f64,
    /// False when sending failed before the end; then the rest of the figures may be ahead of the server.
    pub complete: bool,
    pub rows: BTreeMap<&'static str, u64>,
    pub duplicates: BTreeMap<&'static str, u64>,
    /// Rows sent a minute and more after they happened, behind the watermark.
    pub late: BTreeMap<&'static str, u64>,
    /// Rows that cannot be accepted, by table and by the reason they are rejected for.
    pub broken: BTreeMap<&'static str, BTreeMap<&'static str, u64>>,
    pub behavior: BTreeMap<&'static str, u64>,
    pub sessions: u64,
    pub returning_sessions: u64,
    pub bot_bursts: u64,
    pub fraud_bursts: u64,
    pub promotions: u64,
    /// Orders by their last status.
    pub orders_by_status: BTreeMap<&'static str, u64>,
    pub orders: u64,
    pub units: i64,
    /// Amount of all orders placed.
    pub gmv_cents: i64,
    /// Amount of all captured payments.
    pub paid_cents: i64,
    pub refunded_cents: i64,
    pub cancelled_cents: i64,
    pub payments_failed: u64,
    pub login_failures: u64,
    /// On hand per item at the end; equals the stock table and the sum of stock_moves.
    pub stock: BTreeMap<i64, i64>,
    /// What the server answered: accepted, duplicates, rejected.
    pub server: BTreeMap<&'static str, ServerCounts>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct ServerCounts {
    pub accepted: u64,
    pub duplicates: u64,
    pub rejected: u64,
}

impl Books {
    /// For people; the whole is in the JSON report.
    pub fn summary(&self) -> String {
        let mut lines = vec![format!(
            "simulated {:.0} s from {} (seed {}): {} sessions, {} of them returning; {} promotions, {} bot and {} \
             fraud bursts",
            self.simulated_seconds,
            self.start,
            self.seed,
            self.sessions,
            self.returning_sessions,
            self.promotions,
            self.bot_bursts,
            self.fraud_bursts
        )];
        lines.push(format!(
            "{:<14} {:>10} {:>10} {:>8} {:>8}   {}",
            "table", "rows", "duplicate", "late", "broken", "server: accepted / duplicate / rejected"
        ));
        for (table, rows) in &self.rows {
            let broken: u64 = self.broken.get(table).map_or(0, |reasons| reasons.values().sum());
            let count = |counts: &BTreeMap<&'static str, u64>| counts.get(table).copied().unwrap_or(0);
            let server = self.server.get(table).copied().unwrap_or_default();
            lines.push(format!(
                "{table:<14} {rows:>10} {:>10} {:>8} {broken:>8}   {} / {} / {}",
                count(&self.duplicates),
                count(&self.late),
                server.accepted,
                server.duplicates,
                server.rejected
            ));
        }
        let money = |cents: i64| format!("{}.{:02}", cents / 100, cents % 100);
        lines.push(format!(
            "{} orders, {} units, GMV {}, paid {}, refunded {}, cancelled {}",
            self.orders,
            self.units,
            money(self.gmv_cents),
            money(self.paid_cents),
            money(self.refunded_cents),
            money(self.cancelled_cents)
        ));
        if !self.complete {
            lines.push("sending ended early: the server may have less than this".to_string());
        }
        lines.join("\n")
    }
}

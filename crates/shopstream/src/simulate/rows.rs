//! Rows of the simulated shop as the JSON lines that are sent.
//!
//! Money is counted in cents and written as a decimal number with two digits; no floating point on the way.

use std::fmt::Write;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Table {
    Items,
    Stock,
    DailySales,
    UserBehavior,
    Behavior,
    Orders,
    OrderLines,
    Payments,
    Refunds,
    StockMoves,
    Logins,
}

impl Table {
    /// In the order in which they are sent.
    pub const ALL: [Table; 11] = [
        Table::Items,
        Table::DailySales,
        Table::Stock,
        Table::StockMoves,
        Table::Logins,
        Table::UserBehavior,
        Table::Behavior,
        Table::Orders,
        Table::OrderLines,
        Table::Payments,
        Table::Refunds,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Table::Items => "items",
            Table::Stock => "stock",
            Table::DailySales => "daily_sales",
            Table::UserBehavior => "user_behavior",
            Table::Behavior => "behavior",
            Table::Orders => "orders",
            Table::OrderLines => "order_lines",
            Table::Payments => "payments",
            Table::Refunds => "refunds",
            Table::StockMoves => "stock_moves",
            Table::Logins => "logins",
        }
    }
}

/// Builds one JSON object.
pub struct Json {
    text: String,
}

impl Json {
    pub fn new() -> Json {
        Json { text: String::from("{") }
    }

    fn key(&mut self, key: &str) {
        if self.text.len() > 1 {
            self.text.push(',');
        }
        let _ = write!(self.text, "\"{key}\":");
    }

    pub fn number(mut self, key: &str, value: i64) -> Json {
        self.key(key);
        let _ = write!(self.text, "{value}");
        self
    }

    pub fn cents(mut self, key: &str, cents: i64) -> Json {
        assert!(cents >= 0, "amounts of the simulator are positive");
        self.key(key);
        let _ = write!(self.text, "{}.{:02}", cents / 100, cents % 100);
        self
    }

    pub fn text(mut self, key: &str, value: &str) -> Json {
        self.key(key);
        self.text.push_str(&serde_json::Value::from(value).to_string());
        self
    }

    pub fn time(mut self, key: &str, us: i64) -> Json {
        self.key(key);
        let _ = write!(self.text, "\"{}\"", format_time(us));
        self
    }

    pub fn end(mut self) -> String {
        self.text.push('}');
        self.text
    }
}

/// `2026-01-05T09:00:00.123Z`, to the millisecond.
pub fn format_time(us: i64) -> String {
    let (year, month, day) = civil(us.div_euclid(86_400_000_000));
    let ms = us.rem_euclid(86_400_000_000) / 1000;
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{:03}Z",
        ms / 3_600_000,
        ms / 60_000 % 60,
        ms / 1000 % 60,
        ms % 1000
    )
}

/// `2026-01-05`.
pub fn format_date(us: i64) -> String {
    let (year, month, day) = civil(us.div_euclid(86_400_000_000));
    format!("{year:04}-{month:02}-{day:02}")
}

/// Year, month and day of a day number since 1970 (Hinnant, "chrono-compatible low-level date algorithms").
fn civil(days: i64) -> (i64, i64, i64) {
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let doe = z.rem_euclid(146_097);
    let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let month = if mp < 10 { mp + 3 } else { mp - 9 };
    (yoe + era * 400 + i64::from(month <= 2), month, doy - (153 * mp + 2) / 5 + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_read_as_the_calendar_says() {
        assert_eq!(format_time(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(format_time(1_511_658_000_123_456), "2017-11-26T01:00:00.123Z");
        assert_eq!(format_time(951_782_400_000_000), "2000-02-29T00:00:00.000Z");
        assert_eq!(format_date(-1), "1969-12-31");
    }

    #[test]
    fn objects_are_json() {
        let json = Json::new().number("a", -1).cents("b", 1205).text("c", "<s>\"\n").time("d", 0).end();
        assert_eq!(json, r#"{"a":-1,"b":12.05,"c":"<s>\"\n","d":"1970-01-01T00:00:00.000Z"}"#);
        serde_json::from_str::<serde_json::Value>(&json).unwrap();
    }
}

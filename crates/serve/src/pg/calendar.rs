//! Days, times and intervals as PostgreSQL writes and reads them.
//!
//! Dates are days since 1970-01-01, times microseconds; the calendar is the proleptic Gregorian one,
//! and the year before 1 is `0001 BC`. Algorithms for the calendar: Howard Hinnant, "chrono-Compatible
//! Low-Level Date Algorithms".

use bytes::{BufMut, BytesMut};

pub const DAY_US: i64 = 86_400_000_000;

/// Microseconds and days from 1970-01-01 to 2000-01-01, where PostgreSQL's binary formats begin.
pub const POSTGRES_EPOCH_US: i64 = 946_684_800_000_000;
pub const POSTGRES_EPOCH_DAYS: i32 = 10_957;

/// Year, month, day of a day number.
pub fn civil_of_days(days: i64) -> (i64, u32, u32) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = (day_of_year - (153 * month_from_march + 2) / 5 + 1) as u32;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month as u32, day)
}

/// Day number of a date; the date must exist.
pub fn days_of_civil(year: i64, month: u32, day: u32) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let month_from_march = i64::from(if month > 2 { month - 3 } else { month + 9 });
    let day_of_year = (153 * month_from_march + 2) / 5 + i64::from(day) - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

fn days_in_month(year: i64, month: u32) -> u32 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

pub fn write_date(days: i64, out: &mut BytesMut) {
    let (year, month, day) = civil_of_days(days);
    write_year_month_day(year, month, day, out);
    if year <= 0 {
        out.put_slice(b" BC");
    }
}

/// `2021-01-01 00:00:00.5`, with `+00` when it is a moment in UTC.
pub fn write_timestamp(micros: i64, utc: bool, out: &mut BytesMut) {
    let (year, month, day) = civil_of_days(micros.div_euclid(DAY_US));
    write_year_month_day(year, month, day, out);
    out.put_u8(b' ');
    write_time(micros.rem_euclid(DAY_US), out);
    if utc {
        out.put_slice(b"+00");
    }
    if year <= 0 {
        out.put_slice(b" BC");
    }
}

/// Microseconds since midnight as `12:30:00.25`.
pub fn write_time(micros: i64, out: &mut BytesMut) {
    write_hours_minutes_seconds(micros.unsigned_abs(), out);
}

fn write_year_month_day(year: i64, month: u32, day: u32, out: &mut BytesMut) {
    let shown = if year > 0 { year } else { 1 - year };
    write_padded(shown.unsigned_abs(), 4, out);
    out.put_u8(b'-');
    write_padded(u64::from(month), 2, out);
    out.put_u8(b'-');
    write_padded(u64::from(day), 2, out);
}

fn write_hours_minutes_seconds(micros: u64, out: &mut BytesMut) {
    let seconds = micros / 1_000_000;
    write_padded(seconds / 3_600, 2, out);
    out.put_u8(b':');
    write_padded(seconds / 60 % 60, 2, out);
    out.put_u8(b':');
    write_padded(seconds % 60, 2, out);
    let fraction = micros % 1_000_000;
    if fraction != 0 {
        let mut digits = [0u8; 6];
        let mut rest = fraction;
        for digit in digits.iter_mut().rev() {
            *digit = b'0' + (rest % 10) as u8;
            rest /= 10;
        }
        let used = digits.iter().rposition(|d| *d != b'0').map_or(0, |last| last + 1);
        out.put_u8(b'.');
        out.put_slice(&digits[..used]);
    }
}

/// A number with leading zeros up to `width` digits.
fn write_padded(value: u64, width: usize, out: &mut BytesMut) {
    let mut digits = [b'0'; 20];
    let mut start = digits.len();
    let mut rest = value;
    loop {
        start -= 1;
        digits[start] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    out.put_slice(&digits[start.min(digits.len() - width)..]);
}

/// PostgreSQL's `intervalstyle = postgres`: `1 year 2 mons -3 days +04:05:06.789`.
///
/// A sign `+` follows a negative part, so that it does not seem to cover the next one too.
pub fn write_interval(months: i32, days: i32, micros: i64, out: &mut BytesMut) {
    let mut first = true;
    let mut after_negative = false;
    let parts = [(months / 12, "year"), (months % 12, "mon"), (days, "day")];
    for (value, unit) in parts {
        if value == 0 {
            continue;
        }
        if !first {
            out.put_u8(b' ');
        }
        if value < 0 {
            out.put_u8(b'-');
        } else if after_negative {
            out.put_u8(b'+');
        }
        write_padded(u64::from(value.unsigned_abs()), 1, out);
        out.put_u8(b' ');
        out.put_slice(unit.as_bytes());
        if value != 1 {
            out.put_u8(b's');
        }
        first = false;
        after_negative = value < 0;
    }
    if first || micros != 0 {
        if !first {
            out.put_u8(b' ');
        }
        if micros < 0 {
            out.put_u8(b'-');
        } else if after_negative {
            out.put_u8(b'+');
        }
        write_hours_minutes_seconds(micros.unsigned_abs(), out);
    }
}

/// Day number of `2021-01-31`, also with ` BC`.
pub fn parse_date(text: &str) -> Option<i64> {
    let mut cursor = Cursor::new(text);
    let date = cursor.date()?;
    let days = date.with_era(cursor.era())?;
    cursor.end().then_some(days)
}

/// Microseconds since midnight of `12:30`, `12:30:00.25`; a time zone is not taken.
pub fn parse_time(text: &str) -> Option<i64> {
    let mut cursor = Cursor::new(text);
    let micros = cursor.time()?;
    cursor.end().then_some(micros)
}

/// Microseconds since 1970 of an ISO timestamp: `2021-01-01`, `2021-01-01 12:30:00.5+08:00`, `...T...Z`.
/// The zone is ignored for a timestamp without time zone, as PostgreSQL does, and UTC when it is absent.
pub fn parse_timestamp(text: &str, with_zone: bool) -> Option<i64> {
    let mut cursor = Cursor::new(text);
    let date = cursor.date()?;
    let (mut time, mut offset_us) = (0, 0);
    if cursor.eat(b'T') || cursor.eat(b't') || cursor.eat(b' ') {
        cursor.spaces();
        if cursor.peek().is_some_and(|b| b.is_ascii_digit()) {
            time = cursor.time()?;
            offset_us = cursor.zone()?;
        }
    }
    let days = date.with_era(cursor.era())?;
    let micros = days.checked_mul(DAY_US)?.checked_add(time)?;
    if !cursor.end() {
        return None;
    }
    if with_zone { micros.checked_sub(offset_us) } else { Some(micros) }
}

struct Date {
    year: i64,
    month: u32,
    day: u32,
}

impl Date {
    fn with_era(self, before_christ: bool) -> Option<i64> {
        let year = match (before_christ, self.year) {
            (_, 0) => return None,
            (true, year) => 1 - year,
            (false, year) => year,
        };
        let exists =
            (1..=12).contains(&self.month) && (1..=days_in_month(year, self.month)).contains(&self.day);
        exists.then(|| days_of_civil(year, self.month, self.day))
    }
}

struct Cursor<'a> {
    rest: &'a [u8],
}

impl<'a> Cursor<'a> {
    fn new(text: &'a str) -> Cursor<'a> {
        Cursor { rest: text.trim().as_bytes() }
    }

    fn peek(&self) -> Option<u8> {
        self.rest.first().copied()
    }

    fn eat(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        if found {
            self.rest = &self.rest[1..];
        }
        found
    }

    fn spaces(&mut self) {
        while self.eat(b' ') {}
    }

    /// A number of `min..=max` digits.
    fn number(&mut self, min: usize, max: usize) -> Option<i64> {
        let digits = self.rest.iter().take(max).take_while(|b| b.is_ascii_digit()).count();
        if digits < min {
            return None;
        }
        let value = self.rest[..digits].iter().fold(0i64, |value, b| value * 10 + i64::from(b - b'0'));
        self.rest = &self.rest[digits..];
        Some(value)
    }

    fn date(&mut self) -> Option<Date> {
        let year = self.number(4, 6)?;
        let month = (self.eat(b'-')).then(|| self.number(1, 2))??;
        let day = (self.eat(b'-')).then(|| self.number(1, 2))??;
        Some(Date { year, month: month as u32, day: day as u32 })
    }

    fn time(&mut self) -> Option<i64> {
        let hours = self.number(1, 2)?;
        let minutes = (self.eat(b':')).then(|| self.number(2, 2))??;
        let mut micros = 0;
        if self.eat(b':') {
            micros = self.number(2, 2)? * 1_000_000;
            if micros > 60_000_000 {
                return None;
            }
            if self.eat(b'.') {
                micros += self.fraction()?;
            }
        }
        if minutes > 59 || hours > 24 {
            return None;
        }
        let total = hours * 3_600_000_000 + minutes * 60_000_000 + micros;
        (total <= DAY_US).then_some(total)
    }

    /// Digits after the point, rounded to microseconds.
    fn fraction(&mut self) -> Option<i64> {
        let digits: Vec<u8> = self.rest.iter().copied().take_while(u8::is_ascii_digit).collect();
        if digits.is_empty() {
            return None;
        }
        self.rest = &self.rest[digits.len()..];
        let digit = |i: usize| digits.get(i).map_or(0, |b| i64::from(b - b'0'));
        let micros = (0..6).fold(0, |value, i| value * 10 + digit(i));
        Some(micros + i64::from(digit(6) >= 5))
    }

    /// Offset east of UTC in microseconds: `Z`, `+08`, `+0530`, `-03:30`, ` UTC`; nothing is 0.
    fn zone(&mut self) -> Option<i64> {
        self.spaces();
        if self.rest.len() >= 3 && self.rest[..3].eq_ignore_ascii_case(b"UTC") {
            self.rest = &self.rest[3..];
            return Some(0);
        }
        if self.eat(b'Z') || self.eat(b'z') {
            return Some(0);
        }
        let sign = match self.peek() {
            Some(b'+') => 1,
            Some(b'-') => -1,
            _ => return Some(0),
        };
        self.rest = &self.rest[1..];
        let hours = self.number(1, 2)?;
        let minutes = if self.eat(b':') || self.peek().is_some_and(|b| b.is_ascii_digit()) {
            self.number(2, 2)?
        } else {
            0
        };
        let seconds = if self.eat(b':') { self.number(2, 2)? } else { 0 };
        if hours > 15 || minutes > 59 || seconds > 59 {
            return None;
        }
        Some(sign * (hours * 3_600 + minutes * 60 + seconds) * 1_000_000)
    }

    fn era(&mut self) -> bool {
        self.spaces();
        let found = self.rest.eq_ignore_ascii_case(b"BC");
        if found {
            self.rest = &[];
        }
        found
    }

    fn end(&mut self) -> bool {
        self.spaces();
        self.rest.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_day_number_survives_the_calendar() {
        for days in (-1_000_000..3_000_000).step_by(13) {
            let (year, month, day) = civil_of_days(days);
            assert_eq!(days_of_civil(year, month, day), days);
            assert!(day <= days_in_month(year, month));
        }
        assert_eq!(civil_of_days(18_628), (2021, 1, 1));
    }

    #[test]
    fn timestamps_are_read_in_the_spellings_that_drivers_send() {
        let noon = 1_609_502_400_000_000;
        for text in [
            "2021-01-01 12:00:00+00",
            "2021-01-01T12:00:00Z",
            "2021-01-01 20:00:00+08:00",
            "2021-01-01 20:00+0800",
            "2021-01-01 08:30:00.000000 -03:30",
            "2021-01-01 12:00 UTC",
            " 2021-1-1 12:00:00 ",
        ] {
            assert_eq!(parse_timestamp(text, true), Some(noon), "{text}");
        }
        assert_eq!(parse_timestamp("2021-01-01 12:00:00+08", false), Some(noon));
        assert_eq!(parse_timestamp("2021-01-01", true), Some(noon - DAY_US / 2));
        assert_eq!(parse_timestamp("0044-03-15 12:00:00+00 BC", true), Some(-63_517_780_800_000_000));
        assert_eq!(parse_timestamp("1970-01-01 00:00:00.0000015", true), Some(2));
        for text in
            ["2021-02-29", "2021-13-01", "2021-01-01 25:00", "2021-01-01 12:00 x", "0000-01-01", "now", ""]
        {
            assert_eq!(parse_timestamp(text, true), None, "{text}");
        }
    }

    #[test]
    fn dates_and_times_are_read_and_refused() {
        assert_eq!(parse_date("0001-12-31 BC"), Some(-719_163));
        assert_eq!(parse_date("10000-01-01"), Some(2_932_897));
        assert_eq!(parse_date("2021-04-31"), None);
        assert_eq!(parse_time("12:30:00.25"), Some(45_000_250_000));
        assert_eq!(parse_time("24:00:00"), Some(DAY_US));
        assert_eq!(parse_time("24:00:01"), None);
        assert_eq!(parse_time("1:2"), None);
    }
}

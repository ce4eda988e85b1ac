//! Dates, times, timestamps and intervals.
//!
//! Timestamps are taken as
//!
//! - `2021-01-01T00:00:00.123456Z`, RFC 3339 with any offset;
//! - `2021-01-01 00:00:00[.ffffff][+08[:00]]`, PostgreSQL's way; without an offset it is UTC;
//! - `2021-01-01`, midnight UTC;
//! - an integer: epoch seconds when its size is below 1e11, milliseconds below 1e14, else
//!   microseconds (1e11 seconds is the year 5138, 1e11 milliseconds the year 1973);
//! - a number with a fraction: epoch seconds.
//!
//! Years 1 to 9999; digits behind the microsecond are rounded, as PostgreSQL does.

use arrow::compute::kernels::cast_utils::parse_interval_month_day_nano;
use arrow::datatypes::IntervalMonthDayNano;

use super::{Fault, float64, integer};

/// 0001-01-01 00:00:00 UTC.
const TIMESTAMP_MIN_US: i64 = -62_135_596_800_000_000;
/// 9999-12-31 23:59:59.999999 UTC.
const TIMESTAMP_MAX_US: i64 = 253_402_300_799_999_999;

const DAY_US: i64 = 86_400_000_000;

/// Microseconds since 1970-01-01 UTC.
pub(crate) fn timestamp(text: &[u8]) -> Result<i64, Fault> {
    if text.get(4) != Some(&b'-') {
        return epoch_text(text);
    }
    let Some((day, rest)) = text.split_at_checked(10) else {
        return Err(Fault::WrongType);
    };
    let day_us = i64::from(date(day)?) * DAY_US;
    let rest = match rest {
        [] => return Ok(day_us),
        [b'T' | b't' | b' ', rest @ ..] => rest,
        _ => return Err(Fault::WrongType),
    };
    let (time_us, zone) = clock(rest)?;
    in_range(day_us + time_us - zone_offset_us(zone)?)
}

fn in_range(us: i64) -> Result<i64, Fault> {
    if (TIMESTAMP_MIN_US..=TIMESTAMP_MAX_US).contains(&us) { Ok(us) } else { Err(Fault::OutOfRange) }
}

#[inline(never)]
fn epoch_text(text: &[u8]) -> Result<i64, Fault> {
    let text = text.trim_ascii();
    if text.get(4) == Some(&b'-') {
        return timestamp(text);
    }
    match integer(text) {
        Ok(number) => epoch_integer(number),
        Err(Fault::NotWhole) => epoch_float(float64(text)?),
        Err(fault) => Err(fault),
    }
}

/// An integer as a timestamp; its size says the unit.
#[inline]
pub(crate) fn epoch_integer(number: i64) -> Result<i64, Fault> {
    match number.unsigned_abs() {
        0..100_000_000_000 => in_range(number * 1_000_000),
        100_000_000_000..100_000_000_000_000 => in_range(number * 1000),
        _ => in_range(number),
    }
}

/// Epoch seconds with a fraction.
fn epoch_float(seconds: f64) -> Result<i64, Fault> {
    // Whole and fraction apart: scaled at once, a double has no room for the last microsecond.
    let whole = seconds.floor();
    if !(TIMESTAMP_MIN_US as f64 / 1e6..=TIMESTAMP_MAX_US as f64 / 1e6).contains(&whole) {
        return Err(Fault::OutOfRange);
    }
    in_range(whole as i64 * 1_000_000 + ((seconds - whole) * 1e6).round() as i64)
}

/// Days since 1970-01-01, of `YYYY-MM-DD`.
pub(crate) fn date(text: &[u8]) -> Result<i32, Fault> {
    let text = if text.len() == 10 { text } else { text.trim_ascii() };
    let Ok([y1, y2, y3, y4, b'-', m1, m2, b'-', d1, d2]) = <&[u8; 10]>::try_from(text) else {
        return Err(Fault::WrongType);
    };
    let year = two_digits(*y1, *y2)? * 100 + two_digits(*y3, *y4)?;
    let (month, day) = (two_digits(*m1, *m2)?, two_digits(*d1, *d2)?);
    if year == 0 || !(1..=12).contains(&month) || day == 0 || day > days_in_month(year, month) {
        return Err(Fault::OutOfRange);
    }
    Ok(days_from_civil(year as i32, month as i32, day as i32))
}

#[inline]
fn two_digits(high: u8, low: u8) -> Result<u32, Fault> {
    let (high, low) = (high.wrapping_sub(b'0'), low.wrapping_sub(b'0'));
    if high > 9 || low > 9 {
        return Err(Fault::WrongType);
    }
    Ok(u32::from(high) * 10 + u32::from(low))
}

fn days_in_month(year: u32, month: u32) -> u32 {
    match month {
        2 if year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400)) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Howard Hinnant's `days_from_civil`: years begin in March, so that the leap day is the last one.
fn days_from_civil(year: i32, month: i32, day: i32) -> i32 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

/// `HH:MM[:SS[.ffffff]]` at the start of a text: microseconds since midnight, and what follows.
fn clock(text: &[u8]) -> Result<(i64, &[u8]), Fault> {
    let [h1, h2, b':', m1, m2, rest @ ..] = text else {
        return Err(Fault::WrongType);
    };
    let (hour, minute) = (two_digits(*h1, *h2)?, two_digits(*m1, *m2)?);
    let (second, rest) = match rest {
        [b':', s1, s2, rest @ ..] => (two_digits(*s1, *s2)?, rest),
        rest => (0, rest),
    };
    // Second 60 is a leap second: it is the first one of the next minute, as in PostgreSQL.
    if hour > 23 || minute > 59 || second > 60 {
        return Err(Fault::OutOfRange);
    }
    let us = i64::from(hour * 3600 + minute * 60 + second) * 1_000_000;
    let [b'.', fraction @ ..] = rest else {
        return Ok((us, rest));
    };
    let digits = fraction.iter().take_while(|b| b.is_ascii_digit()).count();
    if digits == 0 {
        return Err(Fault::WrongType);
    }
    let mut fraction_us = 0;
    for digit in fraction[..digits].iter().chain(b"000000").take(6) {
        fraction_us = fraction_us * 10 + i64::from(digit - b'0');
    }
    let round_up = digits > 6 && fraction[6] >= b'5';
    Ok((us + fraction_us + i64::from(round_up), &fraction[digits..]))
}

/// The offset east of UTC that a zone text says: nothing, `Z`, `UTC`, `+08`, `+08:00`, `-0330`.
fn zone_offset_us(zone: &[u8]) -> Result<i64, Fault> {
    let zone = zone.trim_ascii();
    let (sign, digits) = match zone {
        [] | b"Z" | b"z" | b"UTC" | b"GMT" => return Ok(0),
        [b'+', digits @ ..] => (1, digits),
        [b'-', digits @ ..] => (-1, digits),
        _ => return Err(Fault::WrongType),
    };
    let (hours, minutes, seconds) = match digits {
        [h1, h2] => (two_digits(*h1, *h2)?, 0, 0),
        [h1, h2, b':', m1, m2] | [h1, h2, m1, m2] => (two_digits(*h1, *h2)?, two_digits(*m1, *m2)?, 0),
        [h1, h2, b':', m1, m2, b':', s1, s2] => {
            (two_digits(*h1, *h2)?, two_digits(*m1, *m2)?, two_digits(*s1, *s2)?)
        }
        _ => return Err(Fault::WrongType),
    };
    if hours > 15 || minutes > 59 || seconds > 59 {
        return Err(Fault::OutOfRange);
    }
    Ok(sign * i64::from(hours * 3600 + minutes * 60 + seconds) * 1_000_000)
}

/// Microseconds since midnight, of `HH:MM[:SS[.ffffff]]`.
pub(crate) fn time_of_day(text: &[u8]) -> Result<i64, Fault> {
    let (us, rest) = clock(text.trim_ascii())?;
    if !rest.is_empty() {
        return Err(Fault::WrongType);
    }
    if us >= DAY_US { Err(Fault::OutOfRange) } else { Ok(us) }
}

/// An interval in words (`1 day 2 hours`, `04:05:06`) or ISO 8601 (`P1DT2H`).
pub(crate) fn interval(text: &[u8]) -> Result<IntervalMonthDayNano, Fault> {
    let text = std::str::from_utf8(text).map_err(|_| Fault::WrongType)?.trim();
    if text.is_empty() {
        return Err(Fault::WrongType);
    }
    if let Some(iso) = text.strip_prefix(['P', 'p']) {
        return iso_interval(iso);
    }
    // Arrow reads a bare number as months, which nobody means.
    if text.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'.' | b'-' | b'+')) {
        return Err(Fault::WrongType);
    }
    // Arrow does not read a clock time at the end, as in `1 day 04:05:06`.
    let (words, clock) = match text.rsplit_once(char::is_whitespace) {
        Some((words, last)) if last.contains(':') => (words.trim_end(), Some(last)),
        None if text.contains(':') => ("", Some(text)),
        _ => (text, None),
    };
    let nanoseconds = clock.map_or(Ok(0), clock_nanoseconds)?;
    if words.is_empty() {
        return Ok(IntervalMonthDayNano::new(0, 0, nanoseconds));
    }
    let rest = parse_interval_month_day_nano(words).map_err(|_| Fault::WrongType)?;
    let nanoseconds = rest.nanoseconds.checked_add(nanoseconds).ok_or(Fault::OutOfRange)?;
    Ok(IntervalMonthDayNano::new(rest.months, rest.days, nanoseconds))
}

/// `[-]H:MM[:SS[.ffffff]]`, with as many hours as wanted.
fn clock_nanoseconds(text: &str) -> Result<i64, Fault> {
    let (sign, text) = match text.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    };
    let (hours, rest) = text.split_once(':').ok_or(Fault::WrongType)?;
    if hours.is_empty() || !hours.bytes().all(|b| b.is_ascii_digit()) {
        return Err(Fault::WrongType);
    }
    let hours: i64 = hours.parse().map_err(|_| Fault::OutOfRange)?;
    let within_hour = time_of_day(format!("00:{rest}").as_bytes())?;
    hours
        .checked_mul(3_600_000_000)
        .and_then(|us| us.checked_add(within_hour))
        .and_then(|us| us.checked_mul(1000 * sign))
        .ok_or(Fault::OutOfRange)
}

fn iso_interval(text: &str) -> Result<IntervalMonthDayNano, Fault> {
    let mut words = String::new();
    let (mut in_time, mut number_start) = (false, 0);
    for (at, letter) in text.char_indices() {
        let unit = match (letter.to_ascii_uppercase(), in_time) {
            ('T', false) if at == number_start => {
                in_time = true;
                number_start = at + 1;
                continue;
            }
            ('0'..='9' | '.' | '-' | '+', _) => continue,
            ('Y', false) => "years",
            ('M', false) => "months",
            ('W', false) => "weeks",
            ('D', false) => "days",
            ('H', true) => "hours",
            ('M', true) => "minutes",
            ('S', true) => "seconds",
            _ => return Err(Fault::WrongType),
        };
        words.push_str(&format!("{} {unit} ", &text[number_start..at]));
        number_start = at + 1;
    }
    if words.is_empty() || number_start != text.len() {
        return Err(Fault::WrongType);
    }
    parse_interval_month_day_nano(words.trim()).map_err(|_| Fault::WrongType)
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::{DateTime, NaiveDate};

    #[test]
    fn timestamps() {
        let us = |rfc3339: &str| Ok(DateTime::parse_from_rfc3339(rfc3339).unwrap().timestamp_micros());
        let cases = [
            ("2021-01-01T00:00:00Z", us("2021-01-01T00:00:00Z")),
            ("2021-01-01t08:00:00.5+08:00", us("2021-01-01T00:00:00.5Z")),
            ("2021-01-01 00:00:00", us("2021-01-01T00:00:00Z")),
            ("2021-01-01 00:00", us("2021-01-01T00:00:00Z")),
            ("2021-01-01 00:00:00.123456+08", us("2020-12-31T16:00:00.123456Z")),
            ("2021-01-01 00:00:00 -0330", us("2021-01-01T03:30:00Z")),
            ("2021-01-01 00:00:00 UTC", us("2021-01-01T00:00:00Z")),
            ("2021-01-01", us("2021-01-01T00:00:00Z")),
            ("2021-01-01T00:00:00.1234565Z", us("2021-01-01T00:00:00.123457Z")),
            ("2021-01-01T00:00:00.1234564999Z", us("2021-01-01T00:00:00.123456Z")),
            ("2016-12-31T23:59:60Z", us("2017-01-01T00:00:00Z")),
            ("1511658000", us("2017-11-26T01:00:00Z")),
            ("1511658000000", us("2017-11-26T01:00:00Z")),
            ("1511658000000000", us("2017-11-26T01:00:00Z")),
            ("-1", us("1969-12-31T23:59:59Z")),
            ("1511658000.25", us("2017-11-26T01:00:00.25Z")),
            (" 2021-01-01 ", us("2021-01-01T00:00:00Z")),
            ("0001-01-01", Ok(TIMESTAMP_MIN_US)),
            ("9999-12-31 23:59:59.999999", Ok(TIMESTAMP_MAX_US)),
            ("9999-12-31 23:59:59.9999999", Err(Fault::OutOfRange)),
            ("2021-02-29", Err(Fault::OutOfRange)),
            ("2021-13-01", Err(Fault::OutOfRange)),
            ("2021-01-01 24:00:00", Err(Fault::OutOfRange)),
            ("2021-01-01 00:00:00+99", Err(Fault::OutOfRange)),
            ("1511658000000000000", Err(Fault::OutOfRange)),
            ("2021-01-01X00:00:00", Err(Fault::WrongType)),
            ("2021-01-01T", Err(Fault::WrongType)),
            ("2021-01-01T00:00:00.Z", Err(Fault::WrongType)),
            ("2021-01-01T00:00:00 PST", Err(Fault::WrongType)),
            ("2021-1-1", Err(Fault::WrongType)),
            ("2021-", Err(Fault::WrongType)),
            ("yesterday", Err(Fault::WrongType)),
            ("", Err(Fault::WrongType)),
        ];
        for (text, expected) in cases {
            assert_eq!(timestamp(text.as_bytes()), expected, "{text}");
        }
    }

    #[test]
    fn every_day_of_the_calendar() {
        let (mut day, epoch) = (NaiveDate::from_ymd_opt(1, 1, 1).unwrap(), NaiveDate::default());
        while day.format("%Y").to_string().len() == 4 {
            let expected = (day - epoch).num_days() as i32;
            assert_eq!(date(day.format("%Y-%m-%d").to_string().as_bytes()), Ok(expected), "{day}");
            day += chrono::TimeDelta::days(17);
        }
        for text in ["2021-02-29", "1900-02-29", "2021-04-31", "0000-01-01", "2021-00-10"] {
            assert_eq!(date(text.as_bytes()), Err(Fault::OutOfRange), "{text}");
        }
        for text in ["20210101", "2021/01/01", "2021-01-01x", "", "2021-01-0x"] {
            assert_eq!(date(text.as_bytes()), Err(Fault::WrongType), "{text}");
        }
    }

    #[test]
    fn times_and_intervals() {
        assert_eq!(time_of_day(b"01:02:03.5"), Ok(3_723_500_000));
        assert_eq!(time_of_day(b"23:59"), Ok(86_340_000_000));
        assert_eq!(time_of_day(b"24:00:00"), Err(Fault::OutOfRange));
        assert_eq!(time_of_day(b"01:02:03Z"), Err(Fault::WrongType));
        let value = |months, days, nanos| Ok(IntervalMonthDayNano::new(months, days, nanos));
        let cases = [
            ("1 day 2 hours", value(0, 1, 7_200_000_000_000)),
            ("1 day -100:00", value(0, 1, -360_000_000_000_000)),
            ("1:2", Err(Fault::WrongType)),
            ("04:05:06.5", value(0, 0, 14_706_500_000_000)),
            ("1 year 2 mons", value(14, 0, 0)),
            ("P1Y2M3DT4H5M6.5S", value(14, 3, 14_706_500_000_000)),
            ("PT1.5S", value(0, 0, 1_500_000_000)),
            ("5", Err(Fault::WrongType)),
            ("P", Err(Fault::WrongType)),
            ("P1", Err(Fault::WrongType)),
            ("PT1D", Err(Fault::WrongType)),
            ("soon", Err(Fault::WrongType)),
            ("", Err(Fault::WrongType)),
        ];
        for (text, expected) in cases {
            assert_eq!(interval(text.as_bytes()), expected, "{text}");
        }
    }
}

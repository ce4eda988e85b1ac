//! Times in files as people write them: epoch seconds, milli- or microseconds, RFC 3339, SQL.

use chrono::{DateTime, NaiveDateTime};

/// How a time was written, to write another one the same way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Style {
    /// A whole number of units of this many microseconds.
    Epoch(i64),
    Text,
}

/// Microseconds since 1970, and how they were written. A time without zone is UTC.
pub(crate) fn parse(text: &str) -> Option<(i64, Style)> {
    let text = text.trim();
    if let Ok(number) = text.parse::<i64>() {
        // Seconds reach this size in the year 5138, milliseconds had it in 1973.
        let unit = match number.unsigned_abs() {
            0..100_000_000_000 => 1_000_000,
            100_000_000_000..100_000_000_000_000 => 1_000,
            _ => 1,
        };
        return Some((number.checked_mul(unit)?, Style::Epoch(unit)));
    }
    if let Ok(time) = DateTime::parse_from_rfc3339(text)
        .or_else(|_| DateTime::parse_from_str(text, "%Y-%m-%d %H:%M:%S%.f%#z"))
    {
        return Some((time.timestamp_micros(), Style::Text));
    }
    for format in ["%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%dT%H:%M:%S%.f"] {
        if let Ok(time) = NaiveDateTime::parse_from_str(text, format) {
            return Some((time.and_utc().timestamp_micros(), Style::Text));
        }
    }
    None
}

pub(crate) fn print(us: i64, style: Style) -> String {
    match style {
        Style::Epoch(unit) => us.div_euclid(unit).to_string(),
        Style::Text => DateTime::from_timestamp_micros(us)
            .map_or_else(|| us.to_string(), |time| time.to_rfc3339_opts(chrono::SecondsFormat::AutoSi, true)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_usual_spellings_are_read() {
        let us = 1_511_658_000_000_000;
        for (text, style) in [
            ("1511658000", Style::Epoch(1_000_000)),
            ("1511658000000", Style::Epoch(1_000)),
            ("1511658000000000", Style::Epoch(1)),
            ("2017-11-26T01:00:00Z", Style::Text),
            ("2017-11-26T09:00:00+08:00", Style::Text),
            ("2017-11-26 01:00:00", Style::Text),
            ("2017-11-26 09:00:00+08", Style::Text),
        ] {
            assert_eq!(parse(text), Some((us, style)), "{text}");
        }
        for bad in ["", "pv", "2017-13-01 00:00:00", "12:00"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
        assert_eq!(print(us, Style::Epoch(1000)), "1511658000000");
        assert_eq!(print(us, Style::Text), "2017-11-26T01:00:00Z");
    }
}

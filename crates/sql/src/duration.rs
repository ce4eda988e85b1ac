//! Lengths of time as users write them: `INTERVAL '5 seconds'`, `INTERVAL '5' MINUTE`, `'1 day'`.

use arrow::array::types::IntervalMonthDayNano;
use arrow::compute::kernels::cast_utils::{
    IntervalParseConfig, IntervalUnit, parse_interval_month_day_nano_config,
};
use datafusion::sql::sqlparser::ast;

use crate::{Result, SqlError, SqlState};

const DAY_US: i64 = 24 * 3_600_000_000;

/// Microseconds of a text such as `5 seconds` or `1 hour 30 minutes`; a number without a unit counts
/// seconds, as in PostgreSQL.
///
/// # Errors
///
/// Texts that are no interval, and months and years, whose length is not fixed.
pub fn parse_us(text: &str) -> Result<i64> {
    let seconds = IntervalParseConfig::new(IntervalUnit::Second);
    let interval = parse_interval_month_day_nano_config(&spelled_out(text), seconds).map_err(|_| {
        SqlError::new(SqlState::InvalidTextRepresentation, format!("invalid interval \"{text}\""))
            .with_hint("write it like '5 seconds' or '1 hour 30 minutes'")
    })?;
    fixed_us(interval)
}

/// An interval as PostgreSQL prints and reads it, `1 day 02:03:04`, with its clock time and short words spelled out for
/// Arrow's parser: `1 day 02 hours 03 minutes 04 seconds`. What is not understood stays as it is.
pub fn spelled_out(interval: &str) -> String {
    let words = interval.split_whitespace().map(|word| match word {
        "mon" => "month".to_string(),
        "mons" => "months".to_string(),
        clock if clock.contains(':') => clock_spelled_out(clock).unwrap_or_else(|| clock.to_string()),
        word => word.to_string(),
    });
    words.collect::<Vec<_>>().join(" ")
}

/// `-02:03:04.5` as `-02 hours -03 minutes -04.5 seconds`; two parts are hours and minutes.
fn clock_spelled_out(clock: &str) -> Option<String> {
    let sign = if clock.starts_with('-') { "-" } else { "" };
    let parts: Vec<&str> = clock.strip_prefix(['-', '+']).unwrap_or(clock).split(':').collect();
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    let (whole, last) = parts.split_at(2.min(parts.len()));
    let seconds = match last {
        [] => Some("0"),
        [seconds] => Some(*seconds),
        _ => None,
    }?;
    let (before, after) = seconds.split_once('.').unwrap_or((seconds, "0"));
    let below_sixty = |part: &str| part.parse::<u32>().is_ok_and(|number| number < 60);
    let valid = whole.len() == 2
        && whole.iter().all(|part| digits(part))
        && below_sixty(whole[1])
        && digits(before)
        && below_sixty(before)
        && digits(after);
    valid.then(|| format!("{sign}{} hours {sign}{} minutes {sign}{seconds} seconds", whole[0], whole[1]))
}

/// Microseconds of an interval value without months.
pub fn fixed_us(interval: IntervalMonthDayNano) -> Result<i64> {
    if interval.months != 0 {
        return Err(SqlError::new(SqlState::InvalidParameterValue, "months and years have no fixed length")
            .with_hint("give the length in days, for example INTERVAL '30 days'"));
    }
    i64::from(interval.days)
        .checked_mul(DAY_US)
        .and_then(|days| days.checked_add(interval.nanoseconds / 1_000))
        .ok_or_else(|| SqlError::new(SqlState::NumericValueOutOfRange, "interval out of range"))
}

/// Microseconds of an expression that is an interval constant; `None` when it is something else.
pub(crate) fn constant_us(expr: &ast::Expr) -> Result<Option<i64>> {
    match expr {
        ast::Expr::Nested(inner) => constant_us(inner),
        ast::Expr::Interval(interval) => {
            let Some(value) = literal_text(&interval.value) else { return Ok(None) };
            match &interval.leading_field {
                // `INTERVAL '1:30' HOUR TO MINUTE` and the like have no plain unit.
                Some(_) if interval.last_field.is_some() => Ok(None),
                Some(unit) => parse_us(&format!("{value} {unit}")).map(Some),
                None => parse_us(&value).map(Some),
            }
        }
        ast::Expr::Cast { expr, data_type: ast::DataType::Interval { .. }, .. } => match literal_text(expr) {
            Some(text) => parse_us(&text).map(Some),
            None => Ok(None),
        },
        _ => Ok(None),
    }
}

fn literal_text(expr: &ast::Expr) -> Option<String> {
    match expr {
        ast::Expr::Value(value) => match &value.value {
            ast::Value::SingleQuotedString(text) | ast::Value::EscapedStringLiteral(text) => {
                Some(text.clone())
            }
            ast::Value::Number(number, _) => Some(number.clone()),
            _ => None,
        },
        ast::Expr::UnaryOp { op: ast::UnaryOperator::Minus, expr } => {
            literal_text(expr).map(|text| format!("-{text}"))
        }
        _ => None,
    }
}

/// A length of time for people: `5 seconds`, `1 hour 30 minutes`.
pub fn display_us(us: i64) -> String {
    const UNITS: [(i64, &str); 6] = [
        (DAY_US, "day"),
        (3_600_000_000, "hour"),
        (60_000_000, "minute"),
        (1_000_000, "second"),
        (1_000, "millisecond"),
        (1, "microsecond"),
    ];
    let mut rest = us.unsigned_abs();
    let mut words = Vec::new();
    for (size, name) in UNITS {
        let count = rest / size.unsigned_abs();
        rest %= size.unsigned_abs();
        if count > 0 {
            words.push(format!("{count} {name}{}", if count == 1 { "" } else { "s" }));
        }
    }
    match words.is_empty() {
        true => "0 seconds".to_string(),
        false => format!("{}{}", if us < 0 { "-" } else { "" }, words.join(" ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_become_microseconds() {
        let cases = [
            ("5 seconds", 5_000_000),
            ("1 hour 30 minutes", 5_400_000_000),
            ("10 min", 600_000_000),
            ("1 day", 86_400_000_000),
            ("1 week", 7 * 86_400_000_000),
            ("90", 90_000_000),
            ("250 milliseconds", 250_000),
            ("1.5 seconds", 1_500_000),
            ("-5 seconds", -5_000_000),
            ("02:03:04", 7_384_000_000),
            ("1 day 02:03:04.5", 86_400_000_000 + 7_384_500_000),
            ("-1 day +00:30", -86_400_000_000 + 1_800_000_000),
            ("-00:00:05", -5_000_000),
        ];
        for (text, us) in cases {
            assert_eq!(parse_us(text), Ok(us), "{text}");
        }
        for text in ["1:2:3:4", "1:60", "a:b", "1:", ":5", "1:2:3:", "--1:00", "1:2:3.x"] {
            assert_eq!(parse_us(text).unwrap_err().state, SqlState::InvalidTextRepresentation, "{text}");
        }
        assert_eq!(parse_us("1 month").unwrap_err().state, SqlState::InvalidParameterValue);
        assert_eq!(parse_us("soon").unwrap_err().state, SqlState::InvalidTextRepresentation);
    }

    #[test]
    fn display_reads_back() {
        for us in [1, 5_000_000, 5_400_000_000, 90_061_001_001] {
            assert_eq!(parse_us(&display_us(us)), Ok(us));
        }
        assert_eq!(display_us(5_400_000_000), "1 hour 30 minutes");
        assert_eq!(display_us(0), "0 seconds");
    }
}

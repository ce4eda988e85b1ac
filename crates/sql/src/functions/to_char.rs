//! `to_char(time, pattern)` with PostgreSQL's patterns: `to_char(ts, 'YYYY-MM-DD HH24:MI')`.
//!
//! Patterns are read once per call; unknown letters stand for themselves, text in double quotes too.

use std::fmt::Write;
use std::sync::Arc;

use arrow::array::{Array, AsArray, StringBuilder};
use arrow::datatypes::{DataType, TimeUnit, TimestampMicrosecondType};
use chrono::{DateTime, Datelike, NaiveDateTime, Timelike};
use datafusion::common::{Result, exec_err, internal_err, plan_err};
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility};

use super::{answer, arrays};

#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct ToChar {
    signature: Signature,
}

impl ToChar {
    pub(super) fn new() -> ToChar {
        ToChar { signature: Signature::user_defined(Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for ToChar {
    fn name(&self) -> &str {
        "to_char"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, arg_types: &[DataType]) -> Result<Vec<DataType>> {
        let [value, _pattern] = arg_types else { return plan_err!("to_char takes a time and a pattern") };
        match value {
            DataType::Timestamp(_, _) | DataType::Date32 | DataType::Date64 | DataType::Null => {
                // Times are shown in UTC, the only zone of a session.
                Ok(vec![DataType::Timestamp(TimeUnit::Microsecond, None), DataType::Utf8])
            }
            other => plan_err!("to_char of {other} is not supported, only of dates and timestamps"),
        }
    }

    fn return_type(&self, _arg_types: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let inputs = arrays(&args.args, args.number_rows)?;
        let [times, patterns] = inputs.as_slice() else {
            return internal_err!("to_char takes two arguments");
        };
        let times = times.as_primitive::<TimestampMicrosecondType>();
        let patterns = patterns.as_string::<i32>();
        let mut pieces: (Option<&str>, Vec<Piece>) = (None, Vec::new());
        let mut builder = StringBuilder::with_capacity(times.len(), times.len() * 16);
        for row in 0..times.len() {
            if times.is_null(row) || patterns.is_null(row) {
                builder.append_null();
                continue;
            }
            let pattern = patterns.value(row);
            if pieces.0 != Some(pattern) {
                pieces = (Some(pattern), parse(pattern));
            }
            let Some(time) = DateTime::from_timestamp_micros(times.value(row)).map(|time| time.naive_utc())
            else {
                return exec_err!("timestamp {} is out of range for to_char", times.value(row));
            };
            for piece in &pieces.1 {
                piece
                    .write(&mut builder, time)
                    .map_err(|error| datafusion::common::exec_datafusion_err!("{error}"))?;
            }
            builder.append_value("");
        }
        answer(&args.args, Arc::new(builder.finish()))
    }
}

#[derive(Clone, Debug, PartialEq)]
enum Piece {
    Text(String),
    /// Pattern word in capitals, as written, and whether `FM` stood before it.
    Field {
        word: &'static str,
        written: String,
        unpadded: bool,
    },
}

/// Longer words first, so that `MONTH` is not read as `MON`.
const WORDS: [&str; 29] = [
    "MONTH", "HH24", "HH12", "IYYY", "YYYY", "MON", "DDD", "DAY", "YYY", "AM", "PM", "DD", "DY", "HH", "ID",
    "IW", "MI", "MM", "MS", "OF", "SS", "TZ", "US", "WW", "YY", "CC", "D", "Q", "Y",
];

fn parse(pattern: &str) -> Vec<Piece> {
    let mut pieces = Vec::new();
    let mut text = String::new();
    let mut unpadded = false;
    let mut rest = pattern;
    while let Some(first) = rest.chars().next() {
        if first == '"' {
            let end = rest[1..].find('"').map_or(rest.len(), |end| end + 1);
            text.push_str(&rest[1..end]);
            rest = rest.get(end + 1..).unwrap_or_default();
            continue;
        }
        let starts = |word: &str| rest.get(..word.len()).is_some_and(|head| head.eq_ignore_ascii_case(word));
        if starts("FM") {
            unpadded = true;
            rest = &rest[2..];
            continue;
        }
        match WORDS.iter().find(|word| starts(word)) {
            Some(word) => {
                if !text.is_empty() {
                    pieces.push(Piece::Text(std::mem::take(&mut text)));
                }
                pieces.push(Piece::Field { word, written: rest[..word.len()].to_string(), unpadded });
                unpadded = false;
                rest = &rest[word.len()..];
            }
            None => {
                text.push(first);
                rest = &rest[first.len_utf8()..];
            }
        }
    }
    if !text.is_empty() {
        pieces.push(Piece::Text(text));
    }
    pieces
}

impl Piece {
    fn write(&self, out: &mut impl Write, time: NaiveDateTime) -> std::fmt::Result {
        let (word, written, unpadded) = match self {
            Piece::Text(text) => return out.write_str(text),
            Piece::Field { word, written, unpadded } => (*word, written.as_str(), *unpadded),
        };
        let week = time.iso_week();
        let hour12 = if time.hour().is_multiple_of(12) { 12 } else { time.hour() % 12 };
        let (number, width) = match word {
            "YYYY" => (i64::from(time.year()), 4),
            "YYY" => (i64::from(time.year().rem_euclid(1000)), 3),
            "YY" => (i64::from(time.year().rem_euclid(100)), 2),
            "Y" => (i64::from(time.year().rem_euclid(10)), 1),
            "IYYY" => (i64::from(week.year()), 4),
            "CC" => (i64::from((time.year() - 1).div_euclid(100) + 1), 2),
            "Q" => (i64::from(time.month0() / 3 + 1), 1),
            "MM" => (i64::from(time.month()), 2),
            "DD" => (i64::from(time.day()), 2),
            "DDD" => (i64::from(time.ordinal()), 3),
            "D" => (i64::from(time.weekday().num_days_from_sunday() + 1), 1),
            "ID" => (i64::from(time.weekday().number_from_monday()), 1),
            "IW" => (i64::from(week.week()), 2),
            "WW" => (i64::from(time.ordinal0() / 7 + 1), 2),
            "HH24" => (i64::from(time.hour()), 2),
            "HH12" | "HH" => (i64::from(hour12), 2),
            "MI" => (i64::from(time.minute()), 2),
            "SS" => (i64::from(time.second()), 2),
            "MS" => (i64::from(time.nanosecond() / 1_000_000), 3),
            "US" => (i64::from(time.nanosecond() / 1_000), 6),
            "AM" | "PM" => {
                return out.write_str(&cased(if time.hour() < 12 { "Am" } else { "Pm" }, written, 0));
            }
            "TZ" => return out.write_str(&cased("Utc", written, 0)),
            "OF" => return out.write_str("+00"),
            "MON" => return out.write_str(&cased(&time.format("%b").to_string(), written, 0)),
            "DY" => return out.write_str(&cased(&time.format("%a").to_string(), written, 0)),
            // Full names are padded to nine letters unless FM says otherwise.
            "MONTH" => {
                let width = if unpadded { 0 } else { 9 };
                return out.write_str(&cased(&time.format("%B").to_string(), written, width));
            }
            _ => {
                let width = if unpadded { 0 } else { 9 };
                return out.write_str(&cased(&time.format("%A").to_string(), written, width));
            }
        };
        match unpadded {
            true => write!(out, "{number}"),
            false => write!(out, "{number:0width$}"),
        }
    }
}

/// The name in the case of the pattern word: `MON`, `Mon` or `mon`.
fn cased(name: &str, written: &str, width: usize) -> String {
    let mut letters = written.chars();
    let first_upper = letters.next().is_some_and(char::is_uppercase);
    let second_upper = letters.next().is_some_and(char::is_uppercase);
    let name = match (first_upper, second_upper) {
        (true, true) => name.to_uppercase(),
        (true, false) => name.to_string(),
        _ => name.to_lowercase(),
    };
    format!("{name:<width$}")
}

//! Times and zones: `AT TIME ZONE`, `date_trunc` with a zone, `age`, `make_timestamp`.
//!
//! A TIMESTAMPTZ is a moment, kept in UTC; a TIMESTAMP is what a clock on a wall shows. A zone turns one into the other:
//! of a time that the wall's clock shows twice the first moment is meant, of one that it skips the moment after.

use std::str::FromStr;
use std::sync::Arc;

use arrow::array::timezone::Tz;
use arrow::array::{
    Array, ArrayRef, AsArray, IntervalMonthDayNanoArray, StringArray, TimestampMicrosecondArray,
};
use arrow::datatypes::{
    DataType, Float64Type, Int64Type, IntervalMonthDayNano, IntervalUnit, TimeUnit, TimestampMicrosecondType,
};
use chrono::{DateTime, Datelike, Duration, LocalResult, NaiveDate, NaiveDateTime, TimeZone, Timelike};
use datafusion::common::{Result, exec_datafusion_err, exec_err};
use datafusion::logical_expr::ScalarUDF;

use super::plain::{Take, plain};
use crate::catalog::timestamptz;

pub(super) fn all() -> Vec<ScalarUDF> {
    let interval = |_: &[DataType]| DataType::Interval(IntervalUnit::MonthDayNano);
    vec![
        plain("timezone", &[Take::Text, Take::Any], timezone_type, timezone).udf(),
        plain("age", &[Take::Timestamp, Take::Timestamp], interval, age).udf(),
        plain(
            "make_timestamp",
            &[Take::Int, Take::Int, Take::Int, Take::Int, Take::Int, Take::Double],
            |_| DataType::Timestamp(TimeUnit::Microsecond, None),
            |args, rows| Ok(Arc::new(made(args, rows)?)),
        )
        .udf(),
        plain(
            "make_timestamptz",
            &[Take::Int, Take::Int, Take::Int, Take::Int, Take::Int, Take::Double],
            |_| timestamptz(),
            |args, rows| Ok(Arc::new(made(args, rows)?.with_timezone("UTC"))),
        )
        .udf(),
    ]
}

/// What `x AT TIME ZONE z` gives: the other of the two types.
fn timezone_type(types: &[DataType]) -> DataType {
    match types.get(1) {
        Some(DataType::Timestamp(_, None)) => timestamptz(),
        // Dates and texts are read as moments.
        _ => DataType::Timestamp(TimeUnit::Microsecond, None),
    }
}

fn zone_named(name: &str) -> Result<Tz> {
    let known = match name.to_ascii_uppercase().as_str() {
        "UTC" | "GMT" | "Z" => Ok("+00:00".to_string()),
        _ => Err(name.to_string()),
    };
    let name = known.unwrap_or_else(|name| name);
    Tz::from_str(&name).map_err(|_| exec_datafusion_err!("time zone \"{name}\" not recognized"))
}

fn naive(us: i64) -> Result<NaiveDateTime> {
    let time = DateTime::from_timestamp_micros(us);
    time.map(|time| time.naive_utc()).ok_or_else(|| exec_datafusion_err!("timestamp out of range"))
}

fn micros(time: NaiveDateTime) -> i64 {
    time.and_utc().timestamp_micros()
}

/// The moment at which the zone's clocks show this time.
fn moment(zone: &Tz, time: NaiveDateTime) -> Result<i64> {
    match zone.from_local_datetime(&time) {
        LocalResult::Single(moment) => Ok(moment.timestamp_micros()),
        LocalResult::Ambiguous(first, _) => Ok(first.timestamp_micros()),
        // The hour that is skipped in spring: as if the clock had not been put forward yet.
        LocalResult::None => match zone.from_local_datetime(&(time - Duration::hours(1))).earliest() {
            Some(before) => Ok((before + Duration::hours(1)).timestamp_micros()),
            None => exec_err!("timestamp out of range"),
        },
    }
}

fn timezone(args: &[ArrayRef], rows: usize) -> Result<ArrayRef> {
    let zones: &StringArray = args[0].as_string::<i32>();
    let moments = !matches!(args[1].data_type(), DataType::Timestamp(_, None));
    let wanted = if moments { timestamptz() } else { DataType::Timestamp(TimeUnit::Microsecond, None) };
    let times = arrow::compute::cast(&args[1], &wanted)?;
    let times = times.as_primitive::<TimestampMicrosecondType>();
    let mut known: Option<(&str, Tz)> = None;
    let mut values = Vec::with_capacity(rows);
    for row in 0..rows {
        if zones.is_null(row) || times.is_null(row) {
            values.push(None);
            continue;
        }
        let name = zones.value(row);
        if known.is_none_or(|(of, _)| of != name) {
            known = Some((name, zone_named(name)?));
        }
        let Some((_, zone)) = known else { return exec_err!("a time zone has a name") };
        let time = naive(times.value(row))?;
        values.push(Some(match moments {
            true => micros(zone.from_utc_datetime(&time).naive_local()),
            false => moment(&zone, time)?,
        }));
    }
    let times = TimestampMicrosecondArray::from(values);
    Ok(if moments { Arc::new(times) } else { Arc::new(times.with_timezone("UTC")) })
}

/// The time between two times in years, months, days and the rest, as PostgreSQL counts it.
fn age(args: &[ArrayRef], rows: usize) -> Result<ArrayRef> {
    let later = args[0].as_primitive::<TimestampMicrosecondType>();
    let earlier = args[1].as_primitive::<TimestampMicrosecondType>();
    let ages = (0..rows).map(|row| match later.is_valid(row) && earlier.is_valid(row) {
        false => Ok(None),
        true => age_between(naive(later.value(row))?, naive(earlier.value(row))?).map(Some),
    });
    Ok(Arc::new(IntervalMonthDayNanoArray::from(ages.collect::<Result<Vec<_>>>()?)))
}

fn age_between(later: NaiveDateTime, earlier: NaiveDateTime) -> Result<IntervalMonthDayNano> {
    if later < earlier {
        let age = age_between(earlier, later)?;
        return Ok(IntervalMonthDayNano::new(-age.months, -age.days, -age.nanoseconds));
    }
    let of_day = |time: NaiveDateTime| {
        i64::from(time.num_seconds_from_midnight()) * 1_000_000_000 + i64::from(time.nanosecond())
    };
    let mut months = (later.year() - earlier.year()) * 12 + later.month() as i32 - earlier.month() as i32;
    let mut days = later.day() as i32 - earlier.day() as i32;
    let mut nanoseconds = of_day(later) - of_day(earlier);
    if nanoseconds < 0 {
        nanoseconds += 86_400_000_000_000;
        days -= 1;
    }
    if days < 0 {
        // Days are borrowed from the month of the earlier time.
        let first = NaiveDate::from_ymd_opt(earlier.year(), earlier.month(), 1);
        let next = first.and_then(|first| first.checked_add_months(chrono::Months::new(1)));
        let length = first.zip(next).map(|(first, next)| (next - first).num_days() as i32);
        days += length.ok_or_else(|| exec_datafusion_err!("timestamp out of range"))?;
        months -= 1;
    }
    Ok(IntervalMonthDayNano::new(months, days, nanoseconds))
}

fn made(args: &[ArrayRef], rows: usize) -> Result<TimestampMicrosecondArray> {
    let numbers: Vec<_> = args[..5].iter().map(|arg| arg.as_primitive::<Int64Type>()).collect();
    let seconds = args[5].as_primitive::<Float64Type>();
    let times = (0..rows).map(|row| {
        if seconds.is_null(row) || numbers.iter().any(|number| number.is_null(row)) {
            return Ok(None);
        }
        let part = |number: usize| numbers[number].value(row);
        let day =
            i32::try_from(part(0)).ok().zip(u32::try_from(part(1)).ok().zip(u32::try_from(part(2)).ok()));
        let day = day.and_then(|(year, (month, day))| NaiveDate::from_ymd_opt(year, month, day));
        let hour = u32::try_from(part(3)).ok().zip(u32::try_from(part(4)).ok());
        let time = day.zip(hour).and_then(|(day, (hour, minute))| day.and_hms_opt(hour, minute, 0));
        match (time, seconds.value(row)) {
            (Some(time), second) if (0.0..=60.0).contains(&second) => {
                Ok(Some(micros(time) + (second * 1e6).round() as i64))
            }
            _ => exec_err!("date or time field value out of range"),
        }
    });
    Ok(TimestampMicrosecondArray::from(times.collect::<Result<Vec<_>>>()?))
}

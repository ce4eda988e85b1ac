//! A file sent at the pace at which it happened, or a multiple of it.
//!
//! Rows of the same tenth of a (wall clock) second form a chunk. Where a chunk ends depends on the file and the
//! speed only, never on the clock, so that a repeated replay is recognized like any other load.
//!
//! With `--rebase-time` all times are moved by the same amount. At speed 1 and above the *last* row lands on the
//! moment at which it is sent, because the times of the file go by faster than the clock and rows from the future
//! are refused; below speed 1 the first row does.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::lines::{Lines, TextFile};
use super::times::{self, Style};
use super::{CHUNK_BYTES_MAX, Chunk, Chunks};
use crate::cli::FileFormat;
use crate::failure::{Failure, Result};
use crate::load::input::Input;

/// Wall clock time that a chunk covers.
const SLICE: Duration = Duration::from_millis(100);

pub(crate) struct ReplayChunks {
    lines: Lines,
    clock: Clock,
    time: TimeField,
    batch_rows: u64,
    /// The first row of the next chunk, and its slice.
    pending: Option<(Vec<u8>, u64)>,
}

/// Which slice a time falls into, and by how much times are moved.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Clock {
    first_us: i64,
    speed: f64,
    shift_us: i64,
}

impl Clock {
    fn slice(&self, us: i64) -> u64 {
        let elapsed_us = us.saturating_sub(self.first_us).max(0) as f64 / self.speed;
        (elapsed_us / SLICE.as_micros() as f64) as u64
    }
}

/// Where the time of a row stands.
#[derive(Clone, Debug, PartialEq)]
enum TimeField {
    Csv(usize),
    Json(String),
}

impl ReplayChunks {
    pub(crate) fn open(input: Input, file: &TextFile<'_>, speed: f64) -> Result<ReplayChunks> {
        let TextFile { path, flags, .. } = file;
        let mut lines = Lines::open(input, file)?;
        lines.announce();
        let time = TimeField::find(&lines, flags.time_column.as_deref().unwrap_or("ts"))?;
        let mut row = vec![];
        if !lines.next(&mut row)? {
            let clock = Clock { first_us: 0, speed, shift_us: 0 };
            return Ok(ReplayChunks { lines, clock, time, batch_rows: 0, pending: None });
        }
        let first_us = match time.read(&row) {
            Some((us, _)) => us,
            None => {
                return Err(Failure::failed(format!(
                    "the first row of {} has no time in column {}: {}",
                    path.display(),
                    flags.time_column.as_deref().unwrap_or("ts"),
                    String::from_utf8_lossy(&row).trim_end().chars().take(200).collect::<String>()
                )));
            }
        };
        let shift_us = if flags.rebase_time { shift(file, &time, first_us, speed)? } else { 0 };
        let clock = Clock { first_us, speed, shift_us };
        let batch_rows = u64::from(flags.batch_rows);
        Ok(ReplayChunks { lines, clock, time, batch_rows, pending: Some((row, 0)) })
    }
}

/// Reads the whole file for its last time.
fn shift(file: &TextFile<'_>, time: &TimeField, first_us: i64, speed: f64) -> Result<i64> {
    let path = file.path;
    if path.as_os_str() == "-" {
        return Err(Failure::usage(
            "--rebase-time reads the file twice, which standard input does not allow",
        ));
    }
    let mut lines = Lines::open(Input::open(path)?, file)?;
    let (mut row, mut last_us) = (vec![], first_us);
    while lines.next(&mut row)? {
        if let Some((us, _)) = time.read(&row) {
            last_us = last_us.max(us);
        }
        row.clear();
    }
    let now_us = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as i64);
    Ok(shift_us(now_us, first_us, last_us, speed))
}

fn shift_us(now_us: i64, first_us: i64, last_us: i64, speed: f64) -> i64 {
    if speed < 1.0 {
        return now_us - first_us;
    }
    now_us + ((last_us - first_us) as f64 / speed) as i64 - last_us
}

impl Chunks for ReplayChunks {
    fn next_chunk(&mut self) -> Result<Option<Chunk>> {
        let Some((first, slice)) = self.pending.take() else { return Ok(None) };
        let mut body = self.lines.header.to_vec();
        self.time.write(&first, self.clock.shift_us, &mut body);
        let mut rows = 1;
        let mut row = vec![];
        while self.lines.next(&mut row)? {
            // A row out of order, or without a readable time, goes with its neighbours.
            let row_slice = self.time.read(&row).map_or(slice, |(us, _)| self.clock.slice(us)).max(slice);
            if row_slice > slice || rows == self.batch_rows || body.len() > CHUNK_BYTES_MAX {
                self.pending = Some((row, row_slice));
                break;
            }
            self.time.write(&row, self.clock.shift_us, &mut body);
            rows += 1;
            row.clear();
        }
        Ok(Some(Chunk { body, rows, due: Some(SLICE * u32::try_from(slice).unwrap_or(u32::MAX)) }))
    }

    fn content_type(&self) -> &'static str {
        self.lines.content_type()
    }
}

impl TimeField {
    fn find(lines: &Lines, column: &str) -> Result<TimeField> {
        if lines.format != FileFormat::Csv {
            return Ok(TimeField::Json(column.to_string()));
        }
        let header = String::from_utf8_lossy(&lines.header).into_owned();
        let names: Vec<&str> =
            header.trim_end().split(',').map(|name| name.trim().trim_matches('"')).collect();
        match names.iter().position(|name| *name == column) {
            Some(index) => Ok(TimeField::Csv(index)),
            None => Err(Failure::usage(format!("no column {column} among {}", names.join(", ")))
                .hint("--time-column names the column with the time, --columns names the columns")),
        }
    }

    fn read(&self, row: &[u8]) -> Option<(i64, Style)> {
        match self {
            TimeField::Csv(index) => {
                let range = csv_field(row, *index)?;
                times::parse(std::str::from_utf8(&row[range]).ok()?.trim().trim_matches('"'))
            }
            TimeField::Json(key) => {
                let object: serde_json::Value = serde_json::from_slice(row).ok()?;
                match object.get(key)? {
                    serde_json::Value::String(text) => times::parse(text),
                    serde_json::Value::Number(number) => times::parse(&number.to_string()),
                    _ => None,
                }
            }
        }
    }

    /// Appends the row with its time moved; a row without a readable time stays as it is.
    fn write(&self, row: &[u8], shift_us: i64, body: &mut Vec<u8>) {
        let Some((us, style)) = self.read(row).filter(|_| shift_us != 0) else {
            body.extend_from_slice(row);
            return;
        };
        let moved = times::print(us + shift_us, style);
        match self {
            TimeField::Csv(index) => {
                let Some(range) = csv_field(row, *index) else { return };
                body.extend_from_slice(&row[..range.start]);
                body.extend_from_slice(moved.as_bytes());
                body.extend_from_slice(&row[range.end..]);
            }
            TimeField::Json(key) => {
                let Ok(mut object) = serde_json::from_slice::<serde_json::Value>(row) else { return };
                object[key] = match style {
                    Style::Epoch(_) => {
                        moved.parse::<i64>().map_or(moved.clone().into(), |number| number.into())
                    }
                    Style::Text => moved.into(),
                };
                body.extend_from_slice(object.to_string().as_bytes());
                body.push(b'\n');
            }
        }
    }
}

/// The bytes of a field of a CSV row, with its quotes and without the line end.
fn csv_field(row: &[u8], index: usize) -> Option<std::ops::Range<usize>> {
    let end = row.iter().rposition(|byte| !matches!(byte, b'\n' | b'\r'))? + 1;
    let (mut field, mut start, mut quoted) = (0, 0, false);
    for (at, byte) in row[..end].iter().enumerate() {
        match byte {
            b'"' => quoted = !quoted,
            b',' if !quoted => {
                if field == index {
                    return Some(start..at);
                }
                field += 1;
                start = at + 1;
            }
            _ => {}
        }
    }
    (field == index).then_some(start..end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_between_quotes() {
        let row = b"a,\"b,\"\"x\"\"\",12\r\n";
        assert_eq!(csv_field(row, 0), Some(0..1));
        assert_eq!(csv_field(row, 1), Some(2..11));
        assert_eq!(csv_field(row, 2), Some(12..14));
        assert_eq!(csv_field(row, 3), None);
    }

    #[test]
    fn moved_rows_are_never_ahead_of_their_sending() {
        for speed in [0.5, 1.0, 600.0] {
            let (now, first, last) = (5_000_000_000, 1_000_000, 601_000_000);
            let shift = shift_us(now, first, last, speed);
            for time in [first, 300_000_000, last] {
                let sent = now + ((time - first) as f64 / speed) as i64;
                assert!(time + shift <= sent, "speed {speed}, time {time}");
            }
        }
    }

    #[test]
    fn times_move_in_their_own_spelling() {
        let mut body = vec![];
        TimeField::Csv(1).write(b"7,100\n", 5_000_000, &mut body);
        TimeField::Json("ts".into()).write(b"{\"a\":1,\"ts\":100}\n", 5_000_000, &mut body);
        TimeField::Json("ts".into()).write(b"{\"ts\":\"1970-01-01T00:00:00Z\"}\n", 5_000_000, &mut body);
        TimeField::Json("ts".into()).write(b"broken\n", 5_000_000, &mut body);
        let expected = "7,105\n{\"a\":1,\"ts\":105}\n{\"ts\":\"1970-01-01T00:00:05Z\"}\nbroken\n";
        assert_eq!(String::from_utf8(body).unwrap(), expected);
    }
}

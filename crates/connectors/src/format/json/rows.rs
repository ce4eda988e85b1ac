//! Where rows begin and end in a body, and how reading goes on behind a broken one.
//!
//! NDJSON: a broken row ends at its line's end. Array: a broken element ends where its brackets
//! balance; if they never do, the rest of the array is one rejected row, because any guess could
//! drop rows without a word.
//!
//! The fast path knows only success. A row that fails is taken back and read a second time by
//! [`Reader::judge`], which finds out what to tell the sender.

use dataflow::RejectReason;

use super::cursor::{Cursor, unescape};
use super::shape::{RowShape, did_you_mean};
use super::value;
use super::{JsonFraming, JsonOptions};
use crate::format::rows::{RowsBuilder, too_large};
use crate::format::value::{Fault, shorten};

/// Reads all rows of `body[start..]` into `rows`.
pub(super) fn read_body(
    shape: &RowShape,
    options: &JsonOptions,
    body: &[u8],
    start: usize,
    rows: &mut RowsBuilder,
) {
    let mut reader = Reader {
        shape,
        options,
        body,
        rows,
        order: Vec::new(),
        seen: vec![0; shape.names.len().div_ceil(64)],
        utf8: simdutf8::basic::from_utf8(body).is_ok(),
    };
    let mut cursor = Cursor::new(body, start);
    cursor.skip_space();
    if cursor.peek() == Some(b'[') && options.framing == JsonFraming::Auto {
        reader.array(&mut cursor);
    } else {
        reader.lines(&mut cursor);
    }
}

/// Marks a key that names no column in [`Reader::order`].
const UNKNOWN: usize = usize::MAX;

struct Reader<'a> {
    shape: &'a RowShape,
    options: &'a JsonOptions,
    body: &'a [u8],
    rows: &'a mut RowsBuilder,
    /// Columns in the order of the previous row's keys.
    order: Vec<usize>,
    /// Columns given by the row being read, one bit each.
    seen: Vec<u64>,
    /// The whole body is valid UTF-8; otherwise each row is checked.
    utf8: bool,
}

/// Why the fast path gave up on a row.
enum Failure {
    Value { column: usize, at: usize, fault: Fault },
    UnknownKey { at: usize },
    Broken { at: usize },
}

/// What is told to the sender.
struct Verdict {
    column: Option<String>,
    reason: RejectReason,
    message: String,
}

impl Verdict {
    fn malformed(message: String) -> Verdict {
        Verdict { column: None, reason: RejectReason::Malformed, message }
    }
}

impl Reader<'_> {
    fn lines(&mut self, cursor: &mut Cursor<'_>) {
        loop {
            cursor.skip_space();
            let start = cursor.at;
            if start >= self.body.len() {
                return;
            }
            let verdict = match self.object(cursor) {
                Ok(()) => match self.line_goes_on(start, cursor.at) {
                    None => {
                        self.accept(start, cursor.at);
                        continue;
                    }
                    Some(at) => self.text_behind(start, at),
                },
                Err(failure) => {
                    let (end, verdict) = self.judge(start, failure);
                    match end.map(|end| (end, self.line_goes_on(start, end))) {
                        Some((end, None)) => {
                            self.rows.roll_back();
                            self.reject(start, end, verdict);
                            cursor.at = end;
                            continue;
                        }
                        Some((_, Some(at))) => self.text_behind(start, at),
                        None => verdict,
                    }
                }
            };
            self.rows.roll_back();
            let end = self.line_end(start);
            self.reject(start, end, verdict);
            cursor.at = end;
        }
    }

    fn line_end(&self, start: usize) -> usize {
        memchr::memchr(b'\n', &self.body[start..]).map_or(self.body.len(), |length| start + length)
    }

    /// Where something else than the next row follows the row `start..end` on its line, if it does.
    #[inline(always)]
    fn line_goes_on(&self, start: usize, end: usize) -> Option<usize> {
        if self.options.framing == JsonFraming::Lines {
            let line_end = self.line_end(start);
            if line_end < end {
                return Some(line_end);
            }
        }
        let mut at = end;
        while let Some(b' ' | b'\t' | b'\r') = self.body.get(at) {
            at += 1;
        }
        match self.body.get(at) {
            None | Some(b'\n') => None,
            Some(b'{') if self.options.framing == JsonFraming::Auto => None,
            Some(_) => Some(at),
        }
    }

    fn text_behind(&self, start: usize, at: usize) -> Verdict {
        if self.body[at] == b'\n' {
            return self.cut_off();
        }
        let excerpt = self.excerpt(at);
        Verdict::malformed(format!(
            "not valid JSON at byte {}: {excerpt} follows the object on its line",
            at - start
        ))
    }

    fn array(&mut self, cursor: &mut Cursor<'_>) {
        cursor.at += 1;
        cursor.skip_space();
        if cursor.peek() == Some(b']') {
            cursor.at += 1;
            return self.behind_array(cursor);
        }
        loop {
            cursor.skip_space();
            let start = cursor.at;
            let (end, verdict) = match self.object(cursor) {
                Ok(()) => (Some(cursor.at), None),
                Err(failure) => {
                    let (end, verdict) = self.judge(start, failure);
                    (end, Some(verdict))
                }
            };
            // A whole element is followed by a comma or the closing bracket.
            let whole = end.map(|end| (end, self.separator(end))).filter(|(_, next)| next.is_some());
            match (whole, verdict) {
                (Some((end, _)), None) => {
                    self.accept(start, end);
                    cursor.at = end;
                }
                (Some((end, _)), Some(verdict)) => {
                    self.rows.roll_back();
                    self.reject(start, end, verdict);
                    cursor.at = end;
                }
                (None, verdict) => {
                    self.rows.roll_back();
                    let mut verdict = verdict.unwrap_or_else(|| {
                        let mut behind = Cursor::new(self.body, end.unwrap_or(start));
                        behind.skip_space();
                        Verdict::malformed(match behind.peek() {
                            None => "not valid JSON: the array is not closed".to_string(),
                            Some(_) => format!(
                                "not valid JSON: {} follows the element instead of a comma",
                                self.excerpt(behind.at)
                            ),
                        })
                    });
                    match balanced_end(self.body, start) {
                        Some(end) => {
                            self.reject(start, end, verdict);
                            cursor.at = end;
                        }
                        None => {
                            verdict.message.push_str(
                                "; the rest of the array can't be told apart, so none of it was read",
                            );
                            self.reject(start, self.body.len(), verdict);
                            cursor.at = self.body.len();
                            return;
                        }
                    }
                }
            }
            cursor.skip_space();
            let separator = cursor.peek();
            cursor.at += 1;
            if separator == Some(b']') {
                return self.behind_array(cursor);
            }
        }
    }

    fn separator(&self, end: usize) -> Option<u8> {
        let mut cursor = Cursor::new(self.body, end);
        cursor.skip_space();
        cursor.peek().filter(|byte| matches!(byte, b',' | b']'))
    }

    fn behind_array(&mut self, cursor: &mut Cursor<'_>) {
        cursor.skip_space();
        if cursor.at < self.body.len() {
            let verdict = Verdict::malformed(format!(
                "not valid JSON: {} follows the array; send one array, or objects line by line",
                self.excerpt(cursor.at)
            ));
            self.reject(cursor.at, self.body.len(), verdict);
        }
    }

    /// Reads one object into the columns.
    #[inline(always)]
    fn object(&mut self, cursor: &mut Cursor<'_>) -> Result<(), Failure> {
        let broken = |cursor: &Cursor<'_>| Failure::Broken { at: cursor.at };
        if cursor.peek() != Some(b'{') {
            return Err(broken(cursor));
        }
        cursor.at += 1;
        self.seen.fill(0);
        cursor.skip_space();
        if cursor.peek() == Some(b'}') {
            cursor.at += 1;
            return Ok(());
        }
        let mut position = 0;
        loop {
            let key_at = cursor.at;
            let column = match self.order.get(position) {
                Some(expected)
                    if *expected != UNKNOWN && self.shape.keys[*expected].stands_at(cursor.bytes, key_at) =>
                {
                    cursor.at = key_at + self.shape.keys[*expected].len();
                    *expected
                }
                _ => self.surprising_key(cursor, position).map_err(|_| broken(cursor))?,
            };
            position += 1;
            cursor.skip_space();
            cursor.expect(b':').map_err(|_| broken(cursor))?;
            cursor.skip_space();
            if column == UNKNOWN {
                if !self.options.ignore_unknown {
                    return Err(Failure::UnknownKey { at: key_at });
                }
                cursor.skip_value().map_err(|_| broken(cursor))?;
            } else {
                let (word, bit) = (column / 64, 1u64 << (column % 64));
                if self.seen[word] & bit != 0 {
                    // The key stands twice: the last value counts.
                    self.rows.columns[column].truncate(self.rows.row_numbers.len());
                } else {
                    self.seen[word] |= bit;
                }
                let at = cursor.at;
                value::push(&mut self.rows.columns[column], cursor).map_err(|fault| Failure::Value {
                    column,
                    at,
                    fault,
                })?;
            }
            cursor.skip_space();
            match cursor.peek() {
                Some(b',') => cursor.at += 1,
                Some(b'}') => {
                    cursor.at += 1;
                    return Ok(());
                }
                _ => return Err(broken(cursor)),
            }
            cursor.skip_space();
        }
    }

    /// Looks up a key that was not expected here, and expects it next time.
    #[inline(never)]
    fn surprising_key(&mut self, cursor: &mut Cursor<'_>, position: usize) -> Result<usize, Fault> {
        if cursor.peek() != Some(b'"') {
            return Err(Fault::Syntax);
        }
        let token = cursor.string()?;
        let raw = &cursor.bytes[token.start..token.end];
        let column = if token.escaped {
            let mut key = Vec::with_capacity(raw.len());
            match unescape(raw, |piece| key.extend_from_slice(piece)) {
                Err(Fault::Syntax) => return Err(Fault::Syntax),
                Err(_) => None,
                Ok(()) => self.shape.find(&key),
            }
        } else {
            self.shape.find(raw)
        }
        .unwrap_or(UNKNOWN);
        // Rows with very many keys must not make every later row remember them.
        if position < 4 * self.shape.names.len() + 64 {
            self.order.resize(self.order.len().max(position + 1), UNKNOWN);
            self.order[position] = column;
        }
        Ok(column)
    }

    /// Keeps the row whose values stand in the columns, if its size and bytes allow it.
    #[inline(always)]
    fn accept(&mut self, start: usize, end: usize) {
        let suspect = end - start > self.options.row_bytes_max || !self.utf8;
        if suspect && let Some(verdict) = self.refusal(start, end) {
            self.rows.roll_back();
            self.reject(start, end, verdict);
            return;
        }
        let columns = self.shape.names.len();
        for word in 0..self.seen.len() {
            let all = if columns - 64 * word >= 64 { u64::MAX } else { (1 << (columns - 64 * word)) - 1 };
            let mut missing = all & !self.seen[word];
            while missing != 0 {
                self.rows.push_absent(64 * word + missing.trailing_zeros() as usize);
                missing &= missing - 1;
            }
        }
        self.rows.commit(start..end);
        if self.rows.len() == 1 {
            // Rows of a body resemble each other. Bounded, because a long body may begin with a
            // short row by chance.
            let estimate = (self.body.len() - start) / (end - start);
            self.rows.reserve(estimate.min(1 << 17));
        }
    }

    /// Why the bytes of a row are refused, whatever it says.
    fn refusal(&self, start: usize, end: usize) -> Option<Verdict> {
        let length = end - start;
        if length > self.options.row_bytes_max {
            return Some(Verdict {
                column: None,
                reason: RejectReason::TooLarge,
                message: too_large(length, self.options.row_bytes_max),
            });
        }
        if !self.utf8
            && let Err(error) = std::str::from_utf8(&self.body[start..end])
        {
            return Some(Verdict {
                column: None,
                reason: RejectReason::InvalidUtf8,
                message: format!("byte {} of the row is not valid UTF-8", error.valid_up_to()),
            });
        }
        None
    }

    fn reject(&mut self, start: usize, end: usize, verdict: Verdict) {
        let verdict = self.refusal(start, end).unwrap_or(verdict);
        let raw = self.body[start..end].trim_ascii_end();
        self.rows.reject(raw, verdict.column.as_deref(), verdict.reason, verdict.message);
    }

    /// Reads a failed row again: its end, when its brackets say so, and what is wrong with it.
    #[cold]
    fn judge(&self, start: usize, failure: Failure) -> (Option<usize>, Verdict) {
        let limit = match self.options.framing {
            JsonFraming::Lines => self.line_end(start),
            JsonFraming::Auto => self.body.len(),
        };
        let mut whole = Cursor::new(&self.body[..limit], start);
        match whole.skip_value() {
            Ok(()) => {}
            Err(Fault::TooDeep) => {
                let message = Fault::TooDeep.describe(b"", "");
                return (None, Verdict::malformed(message));
            }
            Err(_) if whole.at >= limit => return (None, self.cut_off()),
            Err(_) => return (None, self.broken(start, whole.at)),
        }
        let verdict = match failure {
            Failure::Value { column, at, fault } => {
                let mut end = Cursor::new(self.body, at);
                // The whole object was passed just now, so this value can be.
                let end = if end.skip_value().is_ok() { end.at } else { at };
                let sql_type = &self.rows.columns[column].sql_type;
                Verdict {
                    column: Some(self.shape.names[column].clone()),
                    reason: fault.reason(),
                    message: fault.describe(&self.body[at..end], sql_type),
                }
            }
            Failure::UnknownKey { at } => self.unknown_column(at),
            Failure::Broken { .. } if self.body[start] != b'{' => Verdict::malformed(format!(
                "expected a JSON object, found {}",
                shorten(&self.body[start..whole.at])
            )),
            Failure::Broken { at } => self.broken(start, at),
        };
        (Some(whole.at), verdict)
    }

    fn broken(&self, start: usize, at: usize) -> Verdict {
        let excerpt = self.excerpt(at);
        Verdict::malformed(format!("not valid JSON at byte {}, at {excerpt}", at - start))
    }

    fn cut_off(&self) -> Verdict {
        Verdict::malformed(match self.options.framing {
            JsonFraming::Lines => "not valid JSON: the line ends within the object".to_string(),
            JsonFraming::Auto => "not valid JSON: the body ends within the row".to_string(),
        })
    }

    fn unknown_column(&self, at: usize) -> Verdict {
        let mut key = Vec::new();
        if let Ok(token) = Cursor::new(self.body, at).string() {
            // Only a name for people: a key that can't be resolved is shown as far as it goes.
            let _ = unescape(&self.body[token.start..token.end], |piece| key.extend_from_slice(piece));
        }
        let name = String::from_utf8_lossy(&key).into_owned();
        let shown = shorten(name.as_bytes());
        let hint = match did_you_mean(&name, self.shape.names.iter().map(String::as_str)) {
            Some(near) => format!("; did you mean \"{near}\"?"),
            None => format!("; columns are {}", shorten(self.shape.names.join(", ").as_bytes())),
        };
        Verdict {
            column: Some(shown),
            reason: RejectReason::UnknownColumn,
            message: format!("no such column{hint}"),
        }
    }

    /// A few bytes from `at` on, for a message.
    fn excerpt(&self, at: usize) -> String {
        let rest = &self.body[at.min(self.body.len())..];
        let line = &rest[..rest.len().min(24)];
        let line = line.split(|byte| *byte == b'\n').next().unwrap_or(line);
        format!("'{}'", shorten(line))
    }
}

/// Where the array element that begins at `start` ends, judged by brackets and strings alone.
fn balanced_end(body: &[u8], start: usize) -> Option<usize> {
    let (mut at, mut depth) = (start, 0usize);
    loop {
        match body.get(at)? {
            b'"' => {
                at += 1;
                loop {
                    at = crate::format::scan::string_stop(body, at);
                    match body.get(at)? {
                        b'"' => break,
                        b'\\' => at += 2,
                        _ => at += 1,
                    }
                }
            }
            b'{' | b'[' => depth += 1,
            b',' | b']' if depth == 0 => return Some(at),
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
        at += 1;
    }
}

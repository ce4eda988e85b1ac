//! One text, one value: the reading of single values that all text formats share.
//!
//! Rule: a value is taken exactly or not at all. Nothing is rounded, cut or wrapped; what does not
//! fit is a [`Fault`]. The only exception is what PostgreSQL does too: timestamps keep microseconds.

mod number;
mod time;

use dataflow::RejectReason;

pub(crate) use number::{boolean, decimal, float32, float64, integer, integer_at};
pub(crate) use time::{date, epoch_integer, interval, time_of_day, timestamp};

/// Why a value can't be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The bytes are not of the format's grammar.
    Syntax,
    /// Brackets nest deeper than [`super::json::DEPTH_MAX`].
    TooDeep,
    /// A text that PostgreSQL can't hold: NUL, or half of a surrogate pair.
    Unrepresentable,
    WrongType,
    /// A fraction where a whole number is needed.
    NotWhole,
    OutOfRange,
    /// More fraction digits than the type keeps.
    FractionTooLong,
}

impl Fault {
    pub(crate) fn reason(self) -> RejectReason {
        match self {
            Fault::Syntax | Fault::TooDeep => RejectReason::Malformed,
            Fault::Unrepresentable => RejectReason::InvalidUtf8,
            Fault::WrongType | Fault::NotWhole => RejectReason::WrongType,
            Fault::OutOfRange | Fault::FractionTooLong => RejectReason::OutOfRange,
        }
    }

    /// The message for people; `value` is the text as sent.
    pub(crate) fn describe(self, value: &[u8], sql_type: &str) -> String {
        let value = shorten(value);
        match self {
            Fault::Syntax => format!("{value} is not valid here"),
            Fault::TooDeep => {
                format!("brackets nest deeper than {} levels", super::json::DEPTH_MAX)
            }
            Fault::Unrepresentable => {
                format!("{value} holds a NUL or half a surrogate pair, which {sql_type} can't hold")
            }
            Fault::WrongType => format!("{value} is not a valid {sql_type}"),
            Fault::NotWhole => format!("{value} is not a whole number, as {sql_type} needs"),
            Fault::OutOfRange => format!("{value} is out of range for {sql_type}"),
            Fault::FractionTooLong => {
                format!("{value} has more fraction digits than {sql_type} keeps")
            }
        }
    }
}

/// Longest value quoted in a message, in characters.
const QUOTED_CHARS_MAX: usize = 60;

/// The text for a message: lossy, cut to [`QUOTED_CHARS_MAX`].
pub(crate) fn shorten(value: &[u8]) -> String {
    // Four bytes per character at most, so this prefix is enough.
    let prefix = &value[..value.len().min(4 * QUOTED_CHARS_MAX + 4)];
    let text = String::from_utf8_lossy(prefix);
    let mut out: String =
        text.chars().take(QUOTED_CHARS_MAX).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
    if out.len() < value.len() && text.chars().count() > QUOTED_CHARS_MAX {
        out.push_str("...");
    }
    if out.is_empty() { "an empty text".to_string() } else { out }
}

/// Appends the bytes of a `bytea` text: `\x` and hexadecimal digits, or PostgreSQL's escape format
/// (bytes as they are, `\\`, `\ooo`).
pub(crate) fn bytea(text: &[u8], out: &mut Vec<u8>) -> Result<(), Fault> {
    if let Some(hex) = text.strip_prefix(b"\\x") {
        let mut digits = hex.iter().filter(|b| !b.is_ascii_whitespace());
        while let Some(high) = digits.next() {
            let low = digits.next().ok_or(Fault::WrongType)?;
            out.push(hex_digit(*high)? << 4 | hex_digit(*low)?);
        }
        return Ok(());
    }
    let mut rest = text;
    while let Some(at) = memchr::memchr(b'\\', rest) {
        out.extend_from_slice(&rest[..at]);
        rest = &rest[at + 1..];
        match rest {
            [b'\\', tail @ ..] => {
                out.push(b'\\');
                rest = tail;
            }
            [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', tail @ ..] => {
                out.push((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'));
                rest = tail;
            }
            _ => return Err(Fault::WrongType),
        }
    }
    out.extend_from_slice(rest);
    Ok(())
}

pub(crate) fn hex_digit(digit: u8) -> Result<u8, Fault> {
    match digit {
        b'0'..=b'9' => Ok(digit - b'0'),
        b'a'..=b'f' => Ok(digit - b'a' + 10),
        b'A'..=b'F' => Ok(digit - b'A' + 10),
        _ => Err(Fault::WrongType),
    }
}

/// One element of a PostgreSQL array text: its bytes without quotes and escapes, or null.
pub(crate) type ArrayElement = Option<Vec<u8>>;

/// Splits `{1,NULL,"a \"b\""}`. An element that is an array itself is given back as its text.
pub(crate) fn array_elements(text: &[u8]) -> Result<Vec<ArrayElement>, Fault> {
    let inner = text
        .trim_ascii()
        .strip_prefix(b"{")
        .and_then(|rest| rest.strip_suffix(b"}"))
        .ok_or(Fault::WrongType)?;
    let mut elements = Vec::new();
    if inner.trim_ascii().is_empty() {
        return Ok(elements);
    }
    let mut at = 0;
    loop {
        while inner.get(at).is_some_and(u8::is_ascii_whitespace) {
            at += 1;
        }
        let mut element = Vec::new();
        let mut quoted = false;
        match inner.get(at) {
            Some(b'"') => {
                quoted = true;
                at += 1;
                loop {
                    match inner.get(at) {
                        None => return Err(Fault::WrongType),
                        Some(b'"') => break,
                        Some(b'\\') => {
                            element.push(*inner.get(at + 1).ok_or(Fault::WrongType)?);
                            at += 2;
                        }
                        Some(byte) => {
                            element.push(*byte);
                            at += 1;
                        }
                    }
                }
                at += 1;
            }
            Some(b'{') => {
                let start = at;
                at = nested_array_end(inner, at)?;
                element.extend_from_slice(&inner[start..at]);
                quoted = true;
            }
            _ => {
                while let Some(byte) = inner.get(at).filter(|b| **b != b',') {
                    match byte {
                        b'\\' => {
                            element.push(*inner.get(at + 1).ok_or(Fault::WrongType)?);
                            at += 1;
                        }
                        b'"' | b'{' | b'}' => return Err(Fault::WrongType),
                        byte => element.push(*byte),
                    }
                    at += 1;
                }
                element.truncate(element.trim_ascii_end().len());
                if element.is_empty() {
                    return Err(Fault::WrongType);
                }
            }
        }
        let null = !quoted && element.eq_ignore_ascii_case(b"null");
        elements.push(if null { None } else { Some(element) });
        while inner.get(at).is_some_and(u8::is_ascii_whitespace) {
            at += 1;
        }
        match inner.get(at) {
            None => return Ok(elements),
            Some(b',') => at += 1,
            Some(_) => return Err(Fault::WrongType),
        }
    }
}

fn nested_array_end(text: &[u8], start: usize) -> Result<usize, Fault> {
    let (mut depth, mut quoted, mut at) = (0usize, false, start);
    while let Some(byte) = text.get(at) {
        match byte {
            b'\\' => at += 1,
            b'"' => quoted = !quoted,
            b'{' if !quoted => depth += 1,
            b'}' if !quoted => {
                depth -= 1;
                if depth == 0 {
                    return Ok(at + 1);
                }
            }
            _ => {}
        }
        at += 1;
    }
    Err(Fault::WrongType)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytea_in_both_formats() {
        let read = |text: &str| {
            let mut out = Vec::new();
            bytea(text.as_bytes(), &mut out).map(|()| out)
        };
        assert_eq!(read("\\xDEad 01"), Ok(vec![0xde, 0xad, 1]));
        assert_eq!(read("a\\\\b\\001\\377"), Ok(vec![b'a', b'\\', b'b', 1, 255]));
        assert_eq!(read(""), Ok(vec![]));
        for bad in ["\\xabc", "\\xzz", "\\9", "\\", "\\400"] {
            assert_eq!(read(bad), Err(Fault::WrongType), "{bad}");
        }
    }

    #[test]
    fn arrays_are_split_as_postgres_does() {
        let read = |text: &str| {
            array_elements(text.as_bytes()).map(|elements| {
                elements
                    .into_iter()
                    .map(|e| e.map_or("NULL".into(), |e| format!("[{}]", String::from_utf8(e).unwrap())))
                    .collect::<String>()
            })
        };
        assert_eq!(read("{}").unwrap(), "");
        assert_eq!(read(" { 1, null ,\"NULL\", \"a,\\\"b\" ,c d } ").unwrap(), "[1]NULL[NULL][a,\"b][c d]");
        assert_eq!(read("{{1,2},{\"}\",3}}").unwrap(), "[{1,2}][{\"}\",3}]");
        for bad in ["", "1,2", "{1", "{1,}", "{\"a}", "{,}", "{a\"b}", "{{1}", "{\"a\"b}", "{a\\}"] {
            assert_eq!(read(bad), Err(Fault::WrongType), "{bad}");
        }
    }

    #[test]
    fn long_values_are_shortened_for_messages() {
        assert_eq!(shorten(b"abc"), "abc");
        assert_eq!(shorten(b""), "an empty text");
        let long = shorten("\u{fc}".repeat(100).as_bytes());
        assert_eq!(long.chars().count(), QUOTED_CHARS_MAX + 3);
        assert!(shorten(&[0xff, 0x00]).contains('\u{fffd}'));
    }
}

//! A place in JSON text, and the tokens that can stand there.
//!
//! Nothing here recurses: nesting is a counter and a bit per level.

use super::DEPTH_MAX;
use crate::format::scan;
use crate::format::value::{self, Fault, hex_digit};

pub(super) struct Cursor<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) at: usize,
    /// Set when a skipped string holds a NUL or half a surrogate pair: valid JSON, but no text.
    pub(super) unrepresentable: bool,
}

/// A string's bytes between its quotes.
#[derive(Clone, Copy)]
pub(super) struct StringToken {
    pub(super) start: usize,
    pub(super) end: usize,
    pub(super) escaped: bool,
}

/// A number's bytes.
#[derive(Clone, Copy)]
pub(super) struct NumberToken {
    pub(super) start: usize,
    pub(super) end: usize,
    /// Digits only, without fraction and exponent.
    pub(super) plain: bool,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(bytes: &'a [u8], at: usize) -> Cursor<'a> {
        Cursor { bytes, at, unrepresentable: false }
    }

    #[inline(always)]
    pub(super) fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    #[inline(always)]
    pub(super) fn skip_space(&mut self) {
        while let Some(b' ' | b'\n' | b'\r' | b'\t') = self.peek() {
            self.at += 1;
        }
    }

    #[inline(always)]
    pub(super) fn expect(&mut self, byte: u8) -> Result<(), Fault> {
        if self.peek() != Some(byte) {
            return Err(Fault::Syntax);
        }
        self.at += 1;
        Ok(())
    }

    pub(super) fn literal(&mut self, word: &[u8]) -> Result<(), Fault> {
        if !self.bytes[self.at..].starts_with(word) {
            return Err(Fault::Syntax);
        }
        self.at += word.len();
        Ok(())
    }

    /// Reads the string whose opening quote stands here; escapes are not checked yet.
    #[inline(always)]
    pub(super) fn string(&mut self) -> Result<StringToken, Fault> {
        let start = self.at + 1;
        let stop = scan::string_stop(self.bytes, start);
        if self.bytes.get(stop) == Some(&b'"') {
            self.at = stop + 1;
            return Ok(StringToken { start, end: stop, escaped: false });
        }
        self.escaped_string(start, stop)
    }

    #[inline(never)]
    fn escaped_string(&mut self, start: usize, mut stop: usize) -> Result<StringToken, Fault> {
        loop {
            match self.bytes.get(stop) {
                Some(b'"') => {
                    self.at = stop + 1;
                    return Ok(StringToken { start, end: stop, escaped: true });
                }
                Some(b'\\') if stop + 2 <= self.bytes.len() => {
                    stop = scan::string_stop(self.bytes, stop + 2);
                }
                // The end of the text, or a control character.
                _ => {
                    self.at = stop.min(self.bytes.len());
                    return Err(Fault::Syntax);
                }
            }
        }
    }

    /// Reads the number that begins here, by JSON's grammar: no leading zeros, no `+`, no `.5`.
    pub(super) fn number(&mut self) -> Result<NumberToken, Fault> {
        let start = self.at;
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        match self.peek() {
            Some(b'0') => self.at += 1,
            Some(b'1'..=b'9') => self.skip_digits(),
            _ => return Err(Fault::Syntax),
        }
        let mut plain = true;
        if self.peek() == Some(b'.') {
            plain = false;
            self.at += 1;
            self.some_digits()?;
        }
        if let Some(b'e' | b'E') = self.peek() {
            plain = false;
            self.at += 1;
            if let Some(b'+' | b'-') = self.peek() {
                self.at += 1;
            }
            self.some_digits()?;
        }
        if self.peek().is_some_and(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'+' | b'-')) {
            return Err(Fault::Syntax);
        }
        Ok(NumberToken { start, end: self.at, plain })
    }

    #[inline]
    fn skip_digits(&mut self) {
        while let Some(b'0'..=b'9') = self.peek() {
            self.at += 1;
        }
    }

    fn some_digits(&mut self) -> Result<(), Fault> {
        let start = self.at;
        self.skip_digits();
        if self.at == start { Err(Fault::Syntax) } else { Ok(()) }
    }

    /// Reads the number that begins here as an integer; up to 15 digits go the fast way.
    #[inline(always)]
    pub(super) fn integer(&mut self) -> Result<i64, Fault> {
        const POWERS: [i64; 8] = [1, 10, 100, 1_000, 10_000, 100_000, 1_000_000, 10_000_000];
        let negative = self.peek() == Some(b'-');
        let first = self.at + usize::from(negative);
        if let Some(word) = scan::word_at(self.bytes, first) {
            let count = scan::leading_digits(word);
            let (number, end) = if count == 8 {
                let rest = scan::word_at(self.bytes, first + 8).unwrap_or(u64::MAX);
                let more = scan::leading_digits(rest);
                let low = if more == 0 { 0 } else { scan::first_digits(rest, more) as i64 };
                let high = scan::first_digits(word, 8) as i64;
                (high * POWERS[more & 7] + low, if more == 8 { 0 } else { first + 8 + more })
            } else if count == 0 {
                (0, 0)
            } else {
                (scan::first_digits(word, count) as i64, first + count)
            };
            let leading_zero = word as u8 == b'0' && count > 1;
            let next = self.bytes.get(end).copied();
            if end > first && !leading_zero && matches!(next, Some(b',' | b'}' | b' ' | b']')) {
                self.at = end;
                return Ok(if negative { -number } else { number });
            }
        }
        let token = self.number()?;
        value::integer(&self.bytes[token.start..token.end])
    }

    /// Passes the value that begins here, checking all of its grammar.
    pub(super) fn skip_value(&mut self) -> Result<(), Fault> {
        // Bit 0 is the innermost level; set for an object.
        let mut levels = 0u128;
        let mut depth = 0usize;
        loop {
            let opened = match self.peek() {
                Some(bracket @ (b'{' | b'[')) => {
                    let object = bracket == b'{';
                    self.at += 1;
                    self.skip_space();
                    if self.peek() == Some(if object { b'}' } else { b']' }) {
                        if depth >= DEPTH_MAX {
                            return Err(Fault::TooDeep);
                        }
                        self.at += 1;
                        false
                    } else {
                        if depth >= DEPTH_MAX {
                            return Err(Fault::TooDeep);
                        }
                        depth += 1;
                        levels = levels << 1 | u128::from(object);
                        if object {
                            self.skip_key()?;
                        }
                        true
                    }
                }
                Some(b'"') => {
                    self.skip_string()?;
                    false
                }
                Some(b'-' | b'0'..=b'9') => {
                    self.number()?;
                    false
                }
                Some(b't') => {
                    self.literal(b"true")?;
                    false
                }
                Some(b'f') => {
                    self.literal(b"false")?;
                    false
                }
                Some(b'n') => {
                    self.literal(b"null")?;
                    false
                }
                _ => return Err(Fault::Syntax),
            };
            if opened {
                continue;
            }
            loop {
                if depth == 0 {
                    return Ok(());
                }
                self.skip_space();
                let object = levels & 1 == 1;
                match self.peek() {
                    Some(b',') => {
                        self.at += 1;
                        self.skip_space();
                        if object {
                            self.skip_key()?;
                        }
                        break;
                    }
                    Some(b'}') if object => {}
                    Some(b']') if !object => {}
                    _ => return Err(Fault::Syntax),
                }
                self.at += 1;
                depth -= 1;
                levels >>= 1;
            }
        }
    }

    fn skip_key(&mut self) -> Result<(), Fault> {
        if self.peek() != Some(b'"') {
            return Err(Fault::Syntax);
        }
        self.skip_string()?;
        self.skip_space();
        self.expect(b':')?;
        self.skip_space();
        Ok(())
    }

    fn skip_string(&mut self) -> Result<(), Fault> {
        let token = self.string()?;
        if token.escaped {
            match unescape(&self.bytes[token.start..token.end], |_| {}) {
                Err(Fault::Unrepresentable) => self.unrepresentable = true,
                other => other?,
            }
        }
        Ok(())
    }
}

/// Hands the pieces of a string with its escapes resolved to `piece`.
///
/// # Errors
/// [`Fault::Syntax`] for an escape that JSON does not have; [`Fault::Unrepresentable`] for NUL
/// and lone surrogates, after the rest of the string was checked.
pub(super) fn unescape(raw: &[u8], mut piece: impl FnMut(&[u8])) -> Result<(), Fault> {
    let mut rest = raw;
    let mut unrepresentable = false;
    while let Some(at) = memchr::memchr(b'\\', rest) {
        piece(&rest[..at]);
        let escape = *rest.get(at + 1).ok_or(Fault::Syntax)?;
        rest = &rest[at + 2..];
        let byte = match escape {
            b'"' | b'\\' | b'/' => escape,
            b'b' => 8,
            b'f' => 12,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'u' => {
                let unit = four_hex_digits(&mut rest)?;
                let code = match unit {
                    0xd800..0xdc00 if rest.starts_with(b"\\u") => {
                        let mut after = &rest[2..];
                        let low = four_hex_digits(&mut after)?;
                        if (0xdc00..0xe000).contains(&low) {
                            rest = after;
                            0x10000 + ((unit - 0xd800) << 10 | (low - 0xdc00))
                        } else {
                            unit
                        }
                    }
                    unit => unit,
                };
                match char::from_u32(code) {
                    Some(c) if c != '\0' => piece(c.encode_utf8(&mut [0; 4]).as_bytes()),
                    _ => unrepresentable = true,
                }
                continue;
            }
            _ => return Err(Fault::Syntax),
        };
        piece(&[byte]);
    }
    piece(rest);
    if unrepresentable { Err(Fault::Unrepresentable) } else { Ok(()) }
}

fn four_hex_digits(rest: &mut &[u8]) -> Result<u32, Fault> {
    let (digits, tail) = rest.split_at_checked(4).ok_or(Fault::Syntax)?;
    *rest = tail;
    digits.iter().try_fold(0, |unit, digit| {
        hex_digit(*digit).map(|value| unit << 4 | u32::from(value)).map_err(|_| Fault::Syntax)
    })
}

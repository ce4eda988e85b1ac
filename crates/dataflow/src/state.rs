//! What operators remember, as bytes: written when their state is saved, read when it is opened again.
//!
//! A flat sequence of values without names or types; whoever reads asks for what was written, in the same order. Integers
//! are in little-endian order, lengths are LEB128. Damage is the storage's matter (checksums); still no sequence of bytes
//! makes a reader panic or reserve memory that the bytes don't fill.

use arrow::array::{ArrayRef, BooleanArray};

use crate::{Error, Result};

/// Writes a state.
#[derive(Debug, Default)]
pub struct StateWriter {
    bytes: Vec<u8>,
}

macro_rules! writes {
    ($($(#[$doc:meta])* $name:ident: $type:ty),*) => {
        $($(#[$doc])* #[inline] pub fn $name(&mut self, value: $type) {
            self.bytes.extend_from_slice(&value.to_le_bytes());
        })*
    };
}

impl StateWriter {
    pub fn new() -> StateWriter {
        StateWriter::default()
    }

    writes!(u8: u8, u32: u32, u64: u64, i64: i64, i128: i128, f64: f64);

    #[inline]
    pub fn bool(&mut self, value: bool) {
        self.u8(u8::from(value));
    }

    /// A number of things; small ones take one byte.
    #[inline]
    pub fn count(&mut self, mut value: usize) {
        while value >= 0x80 {
            self.bytes.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.bytes.push(value as u8);
    }

    /// A number of either sign; those near zero take one byte.
    #[inline]
    pub fn signed(&mut self, value: i64) {
        // The sign goes to the lowest bit.
        let mut rest = ((value << 1) ^ (value >> 63)) as u64;
        while rest >= 0x80 {
            self.bytes.push(rest as u8 | 0x80);
            rest >>= 7;
        }
        self.bytes.push(rest as u8);
    }

    /// Bytes with their length.
    #[inline]
    pub fn bytes(&mut self, value: &[u8]) {
        self.count(value.len());
        self.bytes.extend_from_slice(value);
    }

    /// Bytes whose length the reader knows otherwise.
    #[inline]
    pub fn raw(&mut self, value: &[u8]) {
        self.bytes.extend_from_slice(value);
    }

    pub fn text(&mut self, value: &str) {
        self.bytes(value.as_bytes());
    }

    pub fn option<T>(&mut self, value: Option<T>, write: impl FnOnce(&mut StateWriter, T)) {
        self.bool(value.is_some());
        if let Some(value) = value {
            write(self, value);
        }
    }

    /// Things one after another, with their number.
    pub fn all<T>(
        &mut self,
        values: impl ExactSizeIterator<Item = T>,
        mut write: impl FnMut(&mut StateWriter, T),
    ) {
        self.count(values.len());
        values.for_each(|value| write(self, value));
    }

    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }
}

/// Reads a state.
#[derive(Clone, Debug)]
pub struct StateReader<'a> {
    rest: &'a [u8],
}

macro_rules! reads {
    ($($name:ident: $type:ty),*) => {
        $(#[inline] pub fn $name(&mut self) -> Result<$type> {
            Ok(<$type>::from_le_bytes(self.array()?))
        })*
    };
}

impl<'a> StateReader<'a> {
    pub fn new(bytes: &'a [u8]) -> StateReader<'a> {
        StateReader { rest: bytes }
    }

    reads!(u8: u8, u32: u32, u64: u64, i64: i64, i128: i128, f64: f64);

    #[inline]
    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let (value, rest) = self.rest.split_first_chunk::<N>().ok_or_else(ends_early)?;
        self.rest = rest;
        Ok(*value)
    }

    pub fn bool(&mut self) -> Result<bool> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(Error::State(format!("{other} is neither true nor false"))),
        }
    }

    #[inline]
    pub fn count(&mut self) -> Result<usize> {
        let (mut value, mut shift) = (0usize, 0);
        loop {
            let byte = self.u8()?;
            if shift >= usize::BITS - 7 {
                return Err(Error::State("a number is too large".into()));
            }
            value |= usize::from(byte & 0x7F) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
            shift += 7;
        }
    }

    #[inline]
    pub fn signed(&mut self) -> Result<i64> {
        let (mut value, mut shift) = (0u64, 0);
        loop {
            let byte = self.u8()?;
            if shift == 63 && byte > 1 {
                return Err(Error::State("a number is too large".into()));
            }
            value |= u64::from(byte & 0x7F) << shift;
            if byte < 0x80 {
                return Ok((value >> 1) as i64 ^ -((value & 1) as i64));
            }
            shift += 7;
        }
    }

    /// The version of a format, of which only this one is known.
    pub fn version(&mut self, known: u8) -> Result<()> {
        let version = self.u8()?;
        if version == known {
            return Ok(());
        }
        Err(Error::State(format!("its format has version {version}, this program reads version {known}")))
    }

    #[inline]
    pub fn bytes(&mut self) -> Result<&'a [u8]> {
        let length = self.count()?;
        self.raw(length)
    }

    /// So many bytes.
    #[inline]
    pub fn raw(&mut self, length: usize) -> Result<&'a [u8]> {
        let (value, rest) = self.rest.split_at_checked(length).ok_or_else(ends_early)?;
        self.rest = rest;
        Ok(value)
    }

    pub fn text(&mut self) -> Result<&'a str> {
        std::str::from_utf8(self.bytes()?).map_err(|_| Error::State("a text is not UTF-8".into()))
    }

    pub fn option<T>(&mut self, read: impl FnOnce(&mut StateReader<'a>) -> Result<T>) -> Result<Option<T>> {
        if self.bool()? { read(self).map(Some) } else { Ok(None) }
    }

    /// What [`StateWriter::all`] wrote.
    pub fn all<T>(&mut self, mut read: impl FnMut(&mut StateReader<'a>) -> Result<T>) -> Result<Vec<T>> {
        let count = self.count()?;
        // Each takes a byte at least, but for things of no bytes, which nobody writes by the million.
        let mut values = Vec::with_capacity(count.min(self.rest.len()));
        for _ in 0..count {
            values.push(read(self)?);
        }
        Ok(values)
    }

    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// Says that everything was read.
    ///
    /// # Errors
    /// When bytes are left: they were written by another version.
    pub fn finish(self) -> Result<()> {
        if self.rest.is_empty() {
            return Ok(());
        }
        Err(Error::State(format!("{} bytes are left", self.rest.len())))
    }
}

fn ends_early() -> Error {
    Error::State("it ends early".into())
}

/// A mask over keys, given as the columns of the operator's (first input's) key.
type Pick<'a> = &'a dyn Fn(&[ArrayRef]) -> Result<BooleanArray>;

/// Some of the keys that an operator remembers something about: when its state is split, each part is saved by itself.
#[derive(Clone, Copy)]
pub struct KeyPart<'a> {
    pick: Option<Pick<'a>>,
}

impl<'a> KeyPart<'a> {
    pub const ALL: KeyPart<'static> = KeyPart { pick: None };

    /// The keys for which `pick` is true. The same key gives the same answer, whatever stands beside it.
    pub fn of(pick: Pick<'a>) -> KeyPart<'a> {
        KeyPart { pick: Some(pick) }
    }

    pub fn is_all(&self) -> bool {
        self.pick.is_none()
    }

    /// Of these keys those that are meant; `None` for all.
    pub fn mask(&self, keys: &[ArrayRef]) -> Result<Option<BooleanArray>> {
        self.pick.map(|pick| pick(keys)).transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read() {
        let mut out = StateWriter::new();
        for count in [0, 127, 128, 1 << 40] {
            out.count(count);
        }
        for number in [0, -1, 63, -64, 64, i64::MAX, i64::MIN] {
            out.signed(number);
        }
        out.i128(-5);
        out.f64(-0.0);
        out.text("größe");
        out.option(Some(7), StateWriter::i64);
        out.option(None, StateWriter::i64);
        out.all([1u32, 2].into_iter(), StateWriter::u32);
        let bytes = out.into_bytes();
        let mut read = StateReader::new(&bytes);
        for count in [0, 127, 128, 1 << 40] {
            assert_eq!(read.count().unwrap(), count);
        }
        for number in [0, -1, 63, -64, 64, i64::MAX, i64::MIN] {
            assert_eq!(read.signed().unwrap(), number);
        }
        assert_eq!(read.i128().unwrap(), -5);
        assert!(read.f64().unwrap().is_sign_negative());
        assert_eq!(read.text().unwrap(), "größe");
        assert_eq!(read.option(StateReader::i64).unwrap(), Some(7));
        assert_eq!(read.option(StateReader::i64).unwrap(), None);
        assert_eq!(read.all(StateReader::u32).unwrap(), [1, 2]);
        read.finish().unwrap();
    }

    #[test]
    fn other_bytes_are_an_error_and_not_a_panic() {
        let huge = [0xFF; 12];
        assert!(StateReader::new(&huge).count().is_err());
        assert!(StateReader::new(&huge).signed().is_err());
        assert!(StateReader::new(&[2]).version(1).is_err());
        assert!(StateReader::new(&huge).bytes().is_err());
        assert!(StateReader::new(&[2]).bool().is_err());
        assert!(StateReader::new(&[200, 1]).all(StateReader::i64).is_err());
        assert!(StateReader::new(&[1]).i64().is_err());
        assert!(StateReader::new(&[1]).finish().is_err());
    }
}

//! Keys of up to four words: one word per column of up to 64 bits, two per text, a bit per column for NULL.
//!
//! ```text
//!   word:  | value's bits                                |
//!   text:  | bytes 0..8      | bytes 8..14 | length | nulls |      up to 14 bytes
//!          | number in texts | 0           | 255    | nulls |      longer
//! ```
//!
//! NULL bits stand in the spare byte of the first text, else in a last word of their own, which is left out when
//! no column is nullable.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, StringArray};
use arrow::buffer::{BooleanBuffer, Buffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow::datatypes::{DataType, FieldRef};
use dataflow::keys::FixedKeyTable;
use dataflow::{KeyTable, Result, StateReader, StateWriter};

use crate::operators::aggregate::columns::{damaged, load_words, save_words};
use crate::operators::aggregate::words::{array_from_words, each_equality_word, is_word};

/// Where the columns stand in a packed key.
pub struct Layout {
    columns: Vec<Place>,
    pub words: usize,
    // Word and shift of the NULL bits; column `i` has bit `i`.
    nulls: Option<(usize, u32)>,
}

#[derive(Clone, Copy)]
enum Place {
    Word(usize),
    /// Two words from here.
    Text(usize),
}

const WORDS_MAX: usize = 4;
const TEXT_BYTES_MAX: usize = 14;
const LENGTH_SHIFT: u32 = 48;
const NULLS_SHIFT: u32 = 56;
const LONG: u64 = 255;

impl Layout {
    /// `None` when the key does not fit.
    pub fn of(fields: &[FieldRef]) -> Option<Layout> {
        let mut words = 0;
        let mut nulls = None;
        let mut columns = Vec::with_capacity(fields.len());
        for field in fields {
            match field.data_type() {
                DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => {
                    columns.push(Place::Text(words));
                    nulls = nulls.or(Some((words + 1, NULLS_SHIFT)));
                    words += 2;
                }
                data_type if is_word(data_type) => {
                    columns.push(Place::Word(words));
                    words += 1;
                }
                _ => return None,
            }
        }
        if nulls.is_none() && fields.iter().any(|field| field.is_nullable()) {
            nulls = Some((words, 0));
            words += 1;
        }
        (words <= WORDS_MAX).then_some(Layout { columns, words, nulls })
    }
}

/// Keys of `N` words.
pub struct Packed<const N: usize> {
    layout: Layout,
    pub table: FixedKeyTable<N>,
    /// Texts longer than [`TEXT_BYTES_MAX`].
    texts: KeyTable,
    // Per text: keys that hold it. Invariant: at least one, between calls.
    text_holders: Vec<u32>,
    // Reused from batch to batch.
    packed: Vec<[u64; N]>,
    tags: Vec<u32>,
}

/// Rows packed at a time, so that the packed keys stay in the cache.
const CHUNK_ROWS: usize = 1024;

impl<const N: usize> Packed<N> {
    pub fn new(layout: Layout) -> Packed<N> {
        assert_eq!(layout.words, N, "the layout has this many words");
        Packed {
            layout,
            table: FixedKeyTable::new(),
            texts: KeyTable::new(),
            text_holders: Vec::new(),
            packed: Vec::new(),
            tags: Vec::new(),
        }
    }

    pub fn assign(
        &mut self,
        columns: &[ArrayRef],
        rows_len: usize,
        slots: &mut Vec<u32>,
        created: &mut Vec<u32>,
    ) -> Result<()> {
        for start in (0..rows_len).step_by(CHUNK_ROWS) {
            let length = CHUNK_ROWS.min(rows_len - start);
            self.pack(columns, start, length);
            self.tags.clear();
            self.tags.extend(self.packed.iter().map(|key| self.table.tag(key)));
            for (tag, key) in self.tags.iter().zip(&self.packed) {
                let (slot, new) = self.table.insert_tagged(*tag, key);
                if new {
                    created.push(slot);
                    hold_texts(&self.layout, &mut self.text_holders, key);
                }
                slots.push(slot);
            }
        }
        Ok(())
    }

    fn pack(&mut self, columns: &[ArrayRef], start: usize, length: usize) {
        self.packed.clear();
        self.packed.resize(length, [0; N]);
        let packed = &mut self.packed;
        for (i, (column, place)) in columns.iter().zip(&self.layout.columns).enumerate() {
            let column = column.slice(start, length);
            match *place {
                Place::Word(at) => each_equality_word(&column, |row, word| packed[row][at] = word),
                Place::Text(at) => {
                    let (texts, holders) = (&mut self.texts, &mut self.text_holders);
                    each_text(&column, |row, text| {
                        let (low, high) = match short_text(text) {
                            Some(words) => words,
                            None => (u64::from(long_text(texts, holders, text)), LONG << LENGTH_SHIFT),
                        };
                        packed[row][at] = low;
                        packed[row][at + 1] |= high;
                    });
                }
            }
            let Some(nulls) = column.logical_nulls().filter(|nulls| nulls.null_count() > 0) else { continue };
            let (word, shift) = self.layout.nulls.expect("a column with nulls is nullable, or a text");
            for row in (0..length).filter(|row| nulls.is_null(*row)) {
                match *place {
                    Place::Word(at) => packed[row][at] = 0,
                    // The high word may hold NULL bits of columns before; null texts come as empty.
                    Place::Text(_) => {}
                }
                packed[row][word] |= 1 << (shift + i as u32);
            }
        }
    }

    pub fn keys(&self, slots: &[u32], fields: &[FieldRef]) -> Result<Vec<ArrayRef>> {
        fields.iter().enumerate().map(|(column, field)| self.key_column(slots, column, field)).collect()
    }

    pub fn key_column(&self, slots: &[u32], column: usize, field: &FieldRef) -> Result<ArrayRef> {
        let nulls = self.layout.nulls.and_then(|(word, shift)| {
            let bit = shift + column as u32;
            let valid = |row: usize| self.table.key(slots[row])[word] >> bit & 1 == 0;
            let nulls = NullBuffer::new(BooleanBuffer::collect_bool(slots.len(), valid));
            Some(nulls).filter(|nulls| nulls.null_count() > 0)
        });
        match self.layout.columns[column] {
            Place::Word(at) => {
                let words: Vec<u64> = slots.iter().map(|slot| self.table.key(*slot)[at]).collect();
                array_from_words(field.data_type(), &words, nulls)
            }
            Place::Text(at) => self.texts_at(slots, at, nulls),
        }
    }

    fn texts_at(&self, slots: &[u32], at: usize, nulls: Option<NullBuffer>) -> Result<ArrayRef> {
        let mut bytes: Vec<u8> = Vec::with_capacity(slots.len() * 8);
        let mut offsets: Vec<i32> = Vec::with_capacity(slots.len() + 1);
        offsets.push(0);
        for slot in slots {
            let key = self.table.key(*slot);
            match key[at + 1] >> LENGTH_SHIFT & 0xff {
                LONG => bytes.extend_from_slice(self.texts.key(key[at] as u32)),
                length => {
                    let text = (u128::from(key[at + 1]) << 64 | u128::from(key[at])).to_le_bytes();
                    bytes.extend_from_slice(&text[..length as usize]);
                }
            }
            let end = i32::try_from(bytes.len()).map_err(|_| {
                dataflow::Error::Operator("group keys of one step hold more than 2 GiB of text".to_owned())
            })?;
            offsets.push(end);
        }
        let offsets = OffsetBuffer::new(ScalarBuffer::from(offsets));
        Ok(Arc::new(StringArray::try_new(offsets, Buffer::from_vec(bytes), nulls)?))
    }

    fn sibling_key(&self, slot: u32, first: i64) -> [u64; N] {
        let mut key = *self.table.key(slot);
        key[0] = first as u64;
        key
    }

    pub fn sibling(&mut self, slot: u32, first: i64) -> (u32, bool) {
        let key = self.sibling_key(slot, first);
        let (slot, new) = self.table.insert(&key);
        if new {
            hold_texts(&self.layout, &mut self.text_holders, &key);
        }
        (slot, new)
    }

    pub fn find_sibling(&self, slot: u32, first: i64) -> Option<u32> {
        self.table.find(&self.sibling_key(slot, first))
    }

    pub fn remove(&mut self, slot: u32) {
        let key = *self.table.key(slot);
        for place in &self.layout.columns {
            let Some(text) = long_text_at(&key, *place) else { continue };
            self.text_holders[text as usize] -= 1;
            if self.text_holders[text as usize] == 0 {
                self.texts.remove(text);
            }
        }
        self.table.remove(slot);
    }

    pub fn renumber(&mut self, live: &[u32]) {
        let texts: Vec<u32> = (0..self.text_holders.len() as u32)
            .filter(|text| self.text_holders[*text as usize] > 0)
            .collect();
        let mut renumbered = vec![0u32; self.text_holders.len()];
        for (new, old) in texts.iter().enumerate() {
            renumbered[*old as usize] = new as u32;
        }
        self.texts.renumber(&texts);
        self.text_holders = texts.iter().map(|text| self.text_holders[*text as usize]).collect();
        let key = |slot: &u32| {
            let mut key = *self.table.key(*slot);
            for place in &self.layout.columns {
                if let (Some(text), Place::Text(at)) = (long_text_at(&key, *place), *place) {
                    key[at] = u64::from(renumbered[text as usize]);
                }
            }
            key
        };
        self.table = FixedKeyTable::from_keys(live.iter().map(key));
    }

    /// Writes the keys of these slots word by word. Long texts stand before them, each once, and their places among
    /// those in the keys.
    pub fn save(&self, slots: &[u32], out: &mut StateWriter) {
        let mut places = vec![u32::MAX; self.text_holders.len()];
        let mut texts = Vec::new();
        for place in self.layout.columns.iter().filter(|place| matches!(place, Place::Text(_))) {
            for text in slots.iter().filter_map(|slot| long_text_at(self.table.key(*slot), *place)) {
                if places[text as usize] == u32::MAX {
                    places[text as usize] = texts.len() as u32;
                    texts.push(text);
                }
            }
        }
        out.all(texts.into_iter(), |out, text| out.bytes(self.texts.key(text)));
        for word in 0..N {
            let keys = slots.iter().map(|slot| self.table.key(*slot));
            if self.layout.columns.iter().any(|place| matches!(place, Place::Text(at) if *at == word)) {
                let place = Place::Text(word);
                let written = |key| long_text_at(key, place).map(|text| u64::from(places[text as usize]));
                save_words(keys.map(|key| written(key).unwrap_or(key[word])), out);
            } else {
                save_words(keys.map(|key| key[word]), out);
            }
        }
    }

    /// The slots of `count` keys that [`Packed::save`] wrote.
    pub fn load(&mut self, count: usize, saved: &mut StateReader<'_>) -> Result<Vec<u32>> {
        let (texts, holders) = (&mut self.texts, &mut self.text_holders);
        let texts: Vec<u32> = saved.all(|saved| match saved.bytes()? {
            text if text.len() > TEXT_BYTES_MAX => Ok(long_text(texts, holders, text)),
            _ => Err(damaged("a text that fits the key stands apart")),
        })?;
        let mut keys: Vec<[u64; N]> = Vec::new();
        for word in 0..N {
            let words = load_words(count, saved)?;
            keys.resize(count, [0; N]);
            keys.iter_mut().zip(words).for_each(|(key, value)| key[word] = value);
        }
        for place in &self.layout.columns {
            let Place::Text(at) = *place else { continue };
            for key in &mut keys {
                match key[at + 1] >> LENGTH_SHIFT & 0xff {
                    LONG => {
                        let text = texts.get(key[at] as usize);
                        key[at] = u64::from(*text.ok_or_else(|| damaged("a key's text is missing"))?);
                    }
                    length if length as usize > TEXT_BYTES_MAX => {
                        return Err(damaged("a key's text is too long"));
                    }
                    _ => {}
                }
            }
        }
        self.table.reserve(count);
        let mut slots = Vec::with_capacity(count);
        for key in &keys {
            let (slot, new) = self.table.insert(key);
            if !new {
                return Err(damaged("a key is there already"));
            }
            hold_texts(&self.layout, &mut self.text_holders, key);
            slots.push(slot);
        }
        if texts.iter().any(|text| self.text_holders[*text as usize] == 0) {
            return Err(damaged("a text belongs to no key"));
        }
        Ok(slots)
    }

    pub fn size_bytes(&self) -> usize {
        self.table.size_bytes() + self.texts.size_bytes() + self.text_holders.capacity() * 4
    }
}

/// A new key holds its long texts.
fn hold_texts<const N: usize>(layout: &Layout, holders: &mut [u32], key: &[u64; N]) {
    for place in &layout.columns {
        if let Some(text) = long_text_at(key, *place) {
            holders[text as usize] += 1;
        }
    }
}

fn long_text_at<const N: usize>(key: &[u64; N], place: Place) -> Option<u32> {
    match place {
        Place::Text(at) if key[at + 1] >> LENGTH_SHIFT & 0xff == LONG => Some(key[at] as u32),
        _ => None,
    }
}

/// The number of a long text; it is held once the key it belongs to is in the table.
#[cold]
fn long_text(texts: &mut KeyTable, holders: &mut Vec<u32>, text: &[u8]) -> u32 {
    let (number, _) = texts.insert(text);
    if holders.len() <= number as usize {
        holders.resize(number as usize + 1, 0);
    }
    number
}

/// The two words of a text that fits.
#[inline]
fn short_text(text: &[u8]) -> Option<(u64, u64)> {
    let length = text.len();
    if length > TEXT_BYTES_MAX {
        return None;
    }
    let word = |at: usize| u64::from_le_bytes(text[at..at + 8].try_into().expect("eight bytes"));
    let half = |at: usize| u64::from(u32::from_le_bytes(text[at..at + 4].try_into().expect("four bytes")));
    // Loads overlap, so that no loop over bytes is needed.
    let (low, high) = match length {
        8.. => (word(0), if length == 8 { 0 } else { word(length - 8) >> (8 * (16 - length)) }),
        4.. => (half(0) | half(length - 4) << (8 * (length - 4)), 0),
        1.. => {
            let byte = |at: usize| u64::from(text[at]) << (8 * at);
            (byte(0) | byte(length / 2) | byte(length - 1), 0)
        }
        0 => (0, 0),
    };
    Some((low, high | (length as u64) << LENGTH_SHIFT))
}

/// Calls `f` with every row's number and bytes; null rows come as empty.
#[inline(always)]
fn each_text(column: &ArrayRef, mut f: impl FnMut(usize, &[u8])) {
    macro_rules! each {
        ($texts:expr) => {{
            let texts = $texts;
            if texts.null_count() == 0 {
                for row in 0..texts.len() {
                    f(row, texts.value(row).as_bytes());
                }
            } else {
                for row in 0..texts.len() {
                    f(row, if texts.is_null(row) { b"" } else { texts.value(row).as_bytes() });
                }
            }
        }};
    }
    match column.data_type() {
        DataType::Utf8 => each!(column.as_string::<i32>()),
        DataType::LargeUtf8 => each!(column.as_string::<i64>()),
        _ => each!(column.as_string_view()),
    }
}

//! Codes of values: the value itself where a word holds it, else a number.

use arrow::array::ArrayRef;
use arrow::datatypes::DataType;
use arrow::row::{RowConverter, SortField};
use dataflow::{KeyTable, Result, StateReader, StateWriter};

use crate::operators::aggregate::change::conform;
use crate::operators::aggregate::group_table::equality_form;
use crate::operators::aggregate::words::{array_from_words, each_equality_word};

/// How the values of a call are coded.
pub enum Codes {
    /// One column of this type, which a word holds.
    Words(DataType),
    Numbers(Numbers),
}

/// Fewer free numbers than this are not worth renumbering.
const RENUMBERING_MIN: usize = 4096;

/// Numbers for values of any type, given out while some set holds them.
pub struct Numbers {
    types: Vec<DataType>,
    converter: RowConverter,
    values: KeyTable,
    // Per number: how many sets hold the value.
    holders: Vec<u32>,
    // Numbers that may have no holder.
    unused: Vec<u32>,
}

impl Numbers {
    /// # Errors
    /// If a type can't be compared.
    pub fn new(types: Vec<DataType>) -> Result<Numbers> {
        let fields = types.iter().map(|data_type| SortField::new(data_type.clone())).collect();
        Ok(Numbers {
            types,
            converter: RowConverter::new(fields)?,
            values: KeyTable::new(),
            holders: Vec::new(),
            unused: Vec::new(),
        })
    }

    /// The number of a value; a new one has no holder yet.
    #[inline]
    fn number(&mut self, value: &[u8]) -> u32 {
        let (number, new) = self.values.insert(value);
        if new {
            if self.holders.len() <= number as usize {
                self.holders.resize(number as usize + 1, 0);
            }
            self.holders[number as usize] = 0;
            self.unused.push(number);
        }
        number
    }
}

impl Codes {
    /// The code of each row; those of new values are kept until [`Codes::drop_unused`].
    pub fn of(&mut self, columns: &[ArrayRef]) -> Result<Vec<u64>> {
        match self {
            Codes::Words(_) => {
                let mut codes = vec![0; columns[0].len()];
                each_equality_word(&columns[0], |row, word| codes[row] = word);
                Ok(codes)
            }
            Codes::Numbers(numbers) => {
                let columns: Vec<ArrayRef> = columns.iter().map(equality_form).collect();
                let rows = numbers.converter.convert_columns(&columns)?;
                let mut codes = Vec::with_capacity(rows.num_rows());
                for row in rows.iter() {
                    codes.push(u64::from(numbers.number(row.data())));
                }
                Ok(codes)
            }
        }
    }

    /// A set holds the value from now on.
    #[inline]
    pub fn keep(&mut self, code: u64) {
        if let Codes::Numbers(numbers) = self {
            numbers.holders[code as usize] += 1;
        }
    }

    /// A set does not hold the value any more.
    #[inline]
    pub fn drop(&mut self, code: u64) {
        if let Codes::Numbers(numbers) = self {
            let holders = &mut numbers.holders[code as usize];
            *holders -= 1;
            if *holders == 0 {
                numbers.unused.push(code as u32);
            }
        }
    }

    /// Forgets values that no set holds. Apart from `drop`, because a value may go and come within a step.
    pub fn drop_unused(&mut self) {
        if let Codes::Numbers(numbers) = self {
            let mut unused = std::mem::take(&mut numbers.unused);
            unused.sort_unstable();
            unused.dedup();
            for number in unused.drain(..) {
                if numbers.holders[number as usize] == 0 {
                    numbers.values.remove(number);
                }
            }
            numbers.unused = unused;
        }
    }

    /// New numbers for the values in use, by old number, when few of many are left.
    pub fn renumber(&mut self) -> Option<Vec<u32>> {
        let Codes::Numbers(numbers) = self else { return None };
        let slots_len = numbers.values.slots_len();
        if slots_len < RENUMBERING_MIN || numbers.values.len() * 4 > slots_len {
            return None;
        }
        let used: Vec<u32> = numbers.values.iter().map(|(number, _)| number).collect();
        let mut renumbered = vec![0; slots_len];
        for (new, old) in used.iter().enumerate() {
            renumbered[*old as usize] = new as u32;
        }
        numbers.values.renumber(&used);
        numbers.holders = used.iter().map(|number| numbers.holders[*number as usize]).collect();
        Some(renumbered)
    }

    /// The columns again, out of codes.
    pub fn values(&self, codes: &[u64]) -> Result<Vec<ArrayRef>> {
        match self {
            Codes::Words(data_type) => Ok(vec![array_from_words(data_type, codes, None)?]),
            Codes::Numbers(numbers) => {
                let parser = numbers.converter.parser();
                let rows = codes.iter().map(|code| parser.parse(numbers.values.key(*code as u32)));
                let columns = numbers.converter.convert_rows(rows)?;
                columns
                    .into_iter()
                    .zip(&numbers.types)
                    .map(|(column, data_type)| conform(column, data_type))
                    .collect()
            }
        }
    }

    /// Writes the values that these codes stand for. Numbers are saved as places in that list, which the answer gives
    /// by number and which follow each other as the numbers do; words stand for themselves.
    pub fn save(&self, codes: impl Iterator<Item = u64>, out: &mut StateWriter) -> Option<Vec<u32>> {
        let Codes::Numbers(numbers) = self else { return None };
        let mut used = vec![false; numbers.values.slots_len()];
        codes.for_each(|code| used[code as usize] = true);
        out.count(used.iter().filter(|used| **used).count());
        let mut places = vec![0; used.len()];
        for (place, number) in (0..).zip((0..used.len()).filter(|number| used[*number])) {
            out.bytes(numbers.values.key(number as u32));
            places[number] = place;
        }
        Some(places)
    }

    /// The numbers of the values that [`Codes::save`] wrote, by their places.
    pub fn load(&mut self, saved: &mut StateReader<'_>) -> Result<Option<Vec<u32>>> {
        let Codes::Numbers(numbers) = self else { return Ok(None) };
        Ok(Some(saved.all(|saved| Ok(numbers.number(saved.bytes()?)))?))
    }

    pub fn size_bytes(&self) -> usize {
        match self {
            Codes::Words(_) => 0,
            Codes::Numbers(numbers) => numbers.values.size_bytes() + numbers.holders.capacity() * 4,
        }
    }
}

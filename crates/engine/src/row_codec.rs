//! Rows as bytes: equality, order and storage in one representation.
//!
//! Arrow's row format writes a row's columns one after another so that `memcmp` on the bytes is the SQL
//! order, equal bytes are equal rows, and the columns can be read back. No encoding is a prefix of a
//! different one, so encodings may be concatenated and still be compared and told apart.
//!
//! Rule: bytes are only decoded by a codec of the same column types and sort options that wrote them.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch, RecordBatchOptions, UInt32Array};
use arrow::compute::{SortOptions, cast};
use arrow::datatypes::{DataType, SchemaRef};
use arrow::row::{RowConverter, RowParser, Rows, SortField};
use dataflow::zset::take_rows;
use dataflow::{Error, KeyPart, KeyTable, Result, ZSet};

/// Encodes columns to row bytes and back.
#[derive(Debug)]
pub struct RowCodec {
    types: Vec<DataType>,
    converter: RowConverter,
    parser: RowParser,
}

/// The encoded rows of one batch.
#[derive(Debug)]
pub struct EncodedRows {
    rows: Rows,
    // The row format has no rows without columns; we do (a global Top-N has an empty partition key).
    count: usize,
    no_columns: bool,
}

impl EncodedRows {
    #[inline]
    pub fn get(&self, row: usize) -> &[u8] {
        if self.no_columns { &[] } else { self.rows.row(row).data() }
    }

    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        (0..self.count).map(|row| self.get(row))
    }
}

impl RowCodec {
    /// Most bytes decoded at once: string columns count their bytes in 31 bits.
    const DECODED_BYTES_MAX: usize = i32::MAX as usize;
    /// Keys looked at together, and about the bytes that they have at most.
    const PICKED_KEYS: usize = 8192;
    const PICKED_BYTES: usize = 16 << 20;

    /// A codec for columns of these types with their order.
    ///
    /// # Errors
    /// If a type has no row format.
    pub fn new(columns: impl IntoIterator<Item = (DataType, SortOptions)>) -> Result<RowCodec> {
        let columns: Vec<(DataType, SortOptions)> = columns.into_iter().collect();
        let types = columns.iter().map(|(data_type, _)| data_type.clone()).collect();
        let fields = columns.into_iter().map(|(t, order)| SortField::new_with_options(t, order)).collect();
        let converter = RowConverter::new(fields)?;
        let parser = converter.parser();
        Ok(RowCodec { types, converter, parser })
    }

    /// A codec for the columns of `schema` with these numbers, in ascending order.
    pub fn for_columns(schema: &SchemaRef, columns: &[usize]) -> Result<RowCodec> {
        RowCodec::new(columns.iter().map(|c| (schema.field(*c).data_type().clone(), SortOptions::default())))
    }

    /// Encodes `columns`, which have `row_count` rows each.
    pub fn encode(&self, columns: &[ArrayRef], row_count: usize) -> Result<EncodedRows> {
        let rows = self.converter.convert_columns(columns)?;
        Ok(EncodedRows { rows, count: row_count, no_columns: columns.is_empty() })
    }

    /// Encodes the columns of `batch` with these numbers.
    pub fn encode_columns(&self, batch: &RecordBatch, columns: &[usize]) -> Result<EncodedRows> {
        let columns: Vec<ArrayRef> = columns.iter().map(|c| Arc::clone(batch.column(*c))).collect();
        self.encode(&columns, batch.num_rows())
    }

    /// The columns of rows that this codec encoded.
    ///
    /// # Errors
    /// If the rows are too large for one batch.
    pub fn decode(&self, rows: &[&[u8]]) -> Result<Vec<ArrayRef>> {
        let bytes: usize = rows.iter().map(|row| row.len()).sum();
        if bytes > RowCodec::DECODED_BYTES_MAX {
            return Err(Error::Operator(format!(
                "one step changed {} rows of together {bytes} bytes; a batch holds at most 2 GiB",
                rows.len()
            )));
        }
        let columns = self.converter.convert_rows(rows.iter().map(|row| self.parser.parse(row)))?;
        // Dictionaries come back as their values.
        let restored = columns.into_iter().zip(&self.types).map(|(column, data_type)| {
            if column.data_type() == data_type { Ok(column) } else { cast(&column, data_type) }
        });
        Ok(restored.collect::<Result<_, _>>()?)
    }

    /// The slots of keys, which this codec encoded, that belong to the part, in ascending order.
    ///
    /// # Errors
    /// If there are no columns to tell keys apart.
    pub fn slots_of(&self, keys: &KeyTable, part: KeyPart<'_>) -> Result<Vec<u32>> {
        if part.is_all() {
            return Ok(keys.iter().map(|(slot, _)| slot).collect());
        }
        if self.types.is_empty() {
            return Err(Error::State("there is no key to divide it by".into()));
        }
        let mut chosen = Vec::new();
        let mut all = keys.iter().peekable();
        while all.peek().is_some() {
            let (mut slots, mut rows, mut bytes) = (Vec::new(), Vec::new(), 0);
            while rows.len() < RowCodec::PICKED_KEYS
                && bytes < RowCodec::PICKED_BYTES
                && let Some((slot, key)) = all.next()
            {
                slots.push(slot);
                rows.push(key);
                bytes += key.len();
            }
            match part.mask(&self.decode(&rows)?)? {
                Some(mask) => {
                    let picked = slots.into_iter().zip(&mask).filter(|(_, picked)| *picked == Some(true));
                    chosen.extend(picked.map(|(slot, _)| slot));
                }
                None => chosen.extend(slots),
            }
        }
        Ok(chosen)
    }
}

/// Rows in portions that are large enough to be decoded quickly, and small enough for one batch.
pub fn portions<T>(rows: &[T], length: impl Fn(&T) -> usize) -> impl Iterator<Item = &[T]> {
    const ROWS: usize = 65_536;
    const BYTES: usize = 64 << 20;
    let mut rest = rows;
    std::iter::from_fn(move || {
        let mut bytes = 0;
        let fits = |row: &&T| {
            bytes += length(row);
            bytes <= BYTES
        };
        let count = rest.iter().take(ROWS).take_while(fits).count();
        // A longer row is alone.
        let (portion, others) = rest.split_at(count.max(1).min(rest.len()));
        rest = others;
        (!portion.is_empty()).then_some(portion)
    })
}

/// A batch of `columns`, which may be none at all.
pub fn batch_of(schema: &SchemaRef, columns: Vec<ArrayRef>, row_count: usize) -> Result<RecordBatch> {
    let options = RecordBatchOptions::new().with_row_count(Some(row_count));
    Ok(RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options)?)
}

/// The same change with every distinct row once, weights summed, and rows that cancel out left out.
pub fn consolidate(change: &ZSet, codec: &RowCodec) -> Result<ZSet> {
    let rows = codec.encode(change.rows().columns(), change.len())?;
    let mut distinct = KeyTable::new();
    let mut first: Vec<u32> = Vec::new();
    let mut sums: Vec<i64> = Vec::new();
    for (row, bytes) in rows.iter().enumerate() {
        let (slot, new) = distinct.insert(bytes);
        if new {
            first.push(row as u32);
            sums.push(0);
        }
        sums[slot as usize] += change.weight(row);
    }
    let mut kept = Vec::new();
    let mut weights = Vec::new();
    for (row, sum) in first.into_iter().zip(sums) {
        if sum != 0 {
            kept.push(row);
            weights.push(sum);
        }
    }
    let rows = take_rows(change.rows(), &UInt32Array::from(kept))?;
    Ok(ZSet::new(rows, weights))
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{Int64Array, StringArray};
    use arrow::datatypes::{Field, Schema};
    use dataflow::picture::picture;

    #[test]
    fn rows_come_back_and_sort_as_sql_says() {
        let codec = RowCodec::new([
            (DataType::Int64, SortOptions { descending: true, nulls_first: false }),
            (DataType::Utf8, SortOptions::default()),
        ])
        .unwrap();
        let columns: Vec<ArrayRef> = vec![
            Arc::new(Int64Array::from(vec![Some(1), None, Some(7), Some(1)])),
            Arc::new(StringArray::from(vec![
                Some("b"),
                Some("x"),
                None,
                Some("a longer text than one block of it"),
            ])),
        ];
        let rows = codec.encode(&columns, 4).unwrap();
        let mut sorted: Vec<&[u8]> = rows.iter().collect();
        sorted.sort();
        let back = codec.decode(&sorted).unwrap();
        let expected = Int64Array::from(vec![Some(7), Some(1), Some(1), None]);
        assert_eq!(back[0].as_ref(), &expected as &dyn Array);
        let expected =
            StringArray::from(vec![None, Some("a longer text than one block of it"), Some("b"), Some("x")]);
        assert_eq!(back[1].as_ref(), &expected as &dyn Array);
    }

    #[test]
    fn portions_hold_all_rows_in_order() {
        const MIB: usize = 1 << 20;
        let lengths = [10, 70 * MIB, 5, 60 * MIB, 5 * MIB];
        let portions: Vec<&[usize]> = portions(&lengths, |length| *length).collect();
        assert_eq!(portions, [&[10][..], &[70 * MIB], &[5, 60 * MIB], &[5 * MIB]]);
        let many = vec![(); 100_000];
        assert_eq!(super::portions(&many, |()| 8).map(<[_]>::len).collect::<Vec<_>>(), [65_536, 34_464]);
    }

    #[test]
    fn rows_without_columns_are_still_rows() {
        let codec = RowCodec::new([]).unwrap();
        let rows = codec.encode(&[], 3).unwrap();
        assert_eq!(rows.iter().collect::<Vec<_>>(), vec![&[] as &[u8]; 3]);
        assert!(codec.decode(&[b"", b""]).unwrap().is_empty());
    }

    #[test]
    fn dictionaries_keep_their_type() {
        let values = StringArray::from(vec!["a", "b", "a"]);
        let data_type = DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8));
        let column = cast(&values, &data_type).unwrap();
        let codec = RowCodec::new([(data_type.clone(), SortOptions::default())]).unwrap();
        let rows = codec.encode(&[column], 3).unwrap();
        let back = codec.decode(&rows.iter().collect::<Vec<_>>()).unwrap();
        assert_eq!(back[0].data_type(), &data_type);
    }

    #[test]
    fn rows_without_columns_are_one_row() {
        let empty: SchemaRef = Arc::new(arrow::datatypes::Schema::empty());
        let change = ZSet::new(batch_of(&empty, vec![], 3).unwrap(), vec![1, 1, -1]);
        let codec = RowCodec::for_columns(&empty, &[]).unwrap();
        let sum = consolidate(&change, &codec).unwrap();
        assert_eq!((sum.len(), sum.weight(0)), (1, 1));
        assert_eq!(sum.take(&UInt32Array::from(vec![0, 0])).unwrap().len(), 2);
    }

    #[test]
    fn consolidation_sums_weights() {
        let schema = Arc::new(Schema::new(vec![Field::new("a", DataType::Int64, true)]));
        let column: ArrayRef = Arc::new(Int64Array::from(vec![Some(1), None, Some(1), None, Some(2)]));
        let rows = batch_of(&schema, vec![column], 5).unwrap();
        let codec = RowCodec::for_columns(&schema, &[0]).unwrap();
        let sum = consolidate(&ZSet::new(rows, vec![1, 1, 1, -1, -1]), &codec).unwrap();
        assert_eq!(sum.len(), 2);
        assert_eq!(picture(&[sum]), "+ 2  1\n- 1  2\n");
    }
}

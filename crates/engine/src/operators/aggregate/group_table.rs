//! From group keys to slots and back.
//!
//! A key of up to four words is packed and looked up as it is (see [`packed`]). Every other key goes through
//! arrow's row format and a table of byte strings. Equal floats are one key: -0.0 counts as 0.0.

mod packed;

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{DataType, FieldRef, Float32Type, Float64Type};
use arrow::row::{RowConverter, SortField};
use dataflow::{KeyTable, Result, StateReader, StateWriter};

use super::change::conform;
use super::columns::damaged;
use packed::{Layout, Packed};

/// Slots of group keys.
pub struct GroupTable {
    fields: Vec<FieldRef>,
    kind: Kind,
}

enum Kind {
    /// No key columns: one group, always in slot 0.
    Single,
    Packed1(Packed<1>),
    Packed2(Packed<2>),
    Packed3(Packed<3>),
    Packed4(Packed<4>),
    Rows(RowKeys),
}

/// Runs `$body` with `$table` bound to whatever table there is; `$single` for the group without a key.
macro_rules! each_kind {
    ($kind:expr, $table:ident => $body:expr, single => $single:expr) => {
        match $kind {
            Kind::Single => $single,
            Kind::Packed1($table) => $body,
            Kind::Packed2($table) => $body,
            Kind::Packed3($table) => $body,
            Kind::Packed4($table) => $body,
            Kind::Rows($table) => $body,
        }
    };
}

impl GroupTable {
    /// # Errors
    /// If a column's type can't be a key.
    pub fn new(fields: Vec<FieldRef>) -> Result<GroupTable> {
        let kind = match Layout::of(&fields) {
            _ if fields.is_empty() => Kind::Single,
            Some(layout) if layout.words == 1 => Kind::Packed1(Packed::new(layout)),
            Some(layout) if layout.words == 2 => Kind::Packed2(Packed::new(layout)),
            Some(layout) if layout.words == 3 => Kind::Packed3(Packed::new(layout)),
            Some(layout) if layout.words == 4 => Kind::Packed4(Packed::new(layout)),
            _ => Kind::Rows(RowKeys::new(&fields)?),
        };
        Ok(GroupTable { fields, kind })
    }

    pub fn len(&self) -> usize {
        each_kind!(&self.kind, keys => keys.table.len(), single => 1)
    }

    /// Number of slots ever in use at once.
    pub fn slots_len(&self) -> usize {
        each_kind!(&self.kind, keys => keys.table.slots_len(), single => 1)
    }

    /// Appends the slot of each of the `rows_len` rows to `slots`, and those of new keys to `created`.
    pub fn assign(
        &mut self,
        columns: &[ArrayRef],
        rows_len: usize,
        slots: &mut Vec<u32>,
        created: &mut Vec<u32>,
    ) -> Result<()> {
        slots.reserve(rows_len);
        each_kind!(&mut self.kind, keys => keys.assign(columns, rows_len, slots, created), single => {
            slots.resize(slots.len() + rows_len, 0);
            Ok(())
        })
    }

    /// The key columns of these slots.
    pub fn keys(&self, slots: &[u32]) -> Result<Vec<ArrayRef>> {
        let columns =
            each_kind!(&self.kind, keys => keys.keys(slots, &self.fields), single => Ok(Vec::new()))?;
        columns
            .into_iter()
            .zip(&self.fields)
            .map(|(column, field)| conform(column, field.data_type()))
            .collect()
    }

    /// One of the key columns of these slots.
    pub fn key_column(&self, slots: &[u32], column: usize) -> Result<ArrayRef> {
        let field = &self.fields[column];
        let array = each_kind!(
            &self.kind,
            keys => keys.key_column(slots, column, field),
            single => panic!("a group without a key has no key column")
        )?;
        conform(array, field.data_type())
    }

    /// Slot of the key that differs from that of `slot` in its first column, an Int64 without NULL; and whether
    /// it is new.
    ///
    /// # Panics
    /// If there are no key columns.
    pub fn sibling(&mut self, slot: u32, first: i64) -> (u32, bool) {
        each_kind!(&mut self.kind, keys => keys.sibling(slot, first), single => panic!("a sibling differs in its key"))
    }

    /// As [`GroupTable::sibling`], if there is one.
    pub fn find_sibling(&self, slot: u32, first: i64) -> Option<u32> {
        each_kind!(&self.kind, keys => keys.find_sibling(slot, first), single => None)
    }

    /// Forgets the keys in these slots.
    ///
    /// # Panics
    /// If one of them holds no key.
    pub fn remove(&mut self, slots: &[u32]) {
        each_kind!(&mut self.kind, keys => slots.iter().for_each(|slot| keys.remove(*slot)), single => {})
    }

    /// Renumbers: the key in slot `live[i]` gets slot `i`. `live` names every key once.
    pub fn renumber(&mut self, live: &[u32]) {
        each_kind!(&mut self.kind, keys => keys.renumber(live), single => {})
    }

    /// Writes the keys in these slots.
    pub fn save(&self, slots: &[u32], out: &mut StateWriter) {
        out.count(slots.len());
        each_kind!(&self.kind, keys => keys.save(slots, out), single => {});
    }

    /// The new slots of the keys that [`GroupTable::save`] wrote, in their order.
    ///
    /// # Errors
    /// When something else wrote them, or one of them is here already.
    pub fn load(&mut self, saved: &mut StateReader<'_>) -> Result<Vec<u32>> {
        let count = saved.count()?;
        each_kind!(&mut self.kind, keys => keys.load(count, saved), single => match count {
            1 => Ok(vec![0]),
            _ => Err(damaged("a group without a key is not alone")),
        })
    }

    pub fn size_bytes(&self) -> usize {
        each_kind!(&self.kind, keys => keys.size_bytes(), single => 0)
    }
}

/// The column with equal floats made identical: -0.0 becomes 0.0.
pub fn equality_form(column: &ArrayRef) -> ArrayRef {
    match column.data_type() {
        DataType::Float32 => Arc::new(
            column.as_primitive::<Float32Type>().unary::<_, Float32Type>(|v| if v == 0.0 { 0.0 } else { v }),
        ),
        DataType::Float64 => Arc::new(
            column.as_primitive::<Float64Type>().unary::<_, Float64Type>(|v| if v == 0.0 { 0.0 } else { v }),
        ),
        _ => Arc::clone(column),
    }
}

/// Keys of any types, in arrow's row format.
struct RowKeys {
    converter: RowConverter,
    table: KeyTable,
}

impl RowKeys {
    fn new(fields: &[FieldRef]) -> Result<RowKeys> {
        let fields = fields.iter().map(|field| SortField::new(field.data_type().clone())).collect();
        Ok(RowKeys { converter: RowConverter::new(fields)?, table: KeyTable::new() })
    }

    fn assign(
        &mut self,
        columns: &[ArrayRef],
        _rows_len: usize,
        slots: &mut Vec<u32>,
        created: &mut Vec<u32>,
    ) -> Result<()> {
        let columns: Vec<ArrayRef> = columns.iter().map(equality_form).collect();
        for row in self.converter.convert_columns(&columns)?.iter() {
            let (slot, new) = self.table.insert(row.data());
            if new {
                created.push(slot);
            }
            slots.push(slot);
        }
        Ok(())
    }

    fn keys(&self, slots: &[u32], _fields: &[FieldRef]) -> Result<Vec<ArrayRef>> {
        let parser = self.converter.parser();
        Ok(self.converter.convert_rows(slots.iter().map(|slot| parser.parse(self.table.key(*slot))))?)
    }

    fn key_column(&self, slots: &[u32], column: usize, _field: &FieldRef) -> Result<ArrayRef> {
        Ok(self.keys(slots, &[])?.swap_remove(column))
    }

    fn sibling_key(&self, slot: u32, first: i64) -> Vec<u8> {
        // The row format starts an Int64 with a byte for "not null", then big-endian with the sign turned.
        let mut key = self.table.key(slot).to_vec();
        key[1..9].copy_from_slice(&(first as u64 ^ 1 << 63).to_be_bytes());
        key
    }

    fn sibling(&mut self, slot: u32, first: i64) -> (u32, bool) {
        let key = self.sibling_key(slot, first);
        self.table.insert(&key)
    }

    fn find_sibling(&self, slot: u32, first: i64) -> Option<u32> {
        self.table.find(&self.sibling_key(slot, first))
    }

    fn remove(&mut self, slot: u32) {
        self.table.remove(slot);
    }

    fn renumber(&mut self, live: &[u32]) {
        self.table.renumber(live);
    }

    fn save(&self, slots: &[u32], out: &mut StateWriter) {
        slots.iter().for_each(|slot| out.bytes(self.table.key(*slot)));
    }

    fn load(&mut self, count: usize, saved: &mut StateReader<'_>) -> Result<Vec<u32>> {
        let mut slots = Vec::new();
        for _ in 0..count {
            let (slot, new) = self.table.insert(saved.bytes()?);
            if !new {
                return Err(damaged("a key is there already"));
            }
            slots.push(slot);
        }
        Ok(slots)
    }

    fn size_bytes(&self) -> usize {
        self.table.size_bytes()
    }
}

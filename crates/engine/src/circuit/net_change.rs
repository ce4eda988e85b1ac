//! The sum of many changes.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use dataflow::{Result, ZSet};

use crate::bag::Bag;
use crate::row_codec::{RowCodec, batch_of};

/// Changes of one node within a step. As long as rows only come they are kept as they are; else each distinct row once,
/// so that updates over and over again take the place of one.
#[derive(Default)]
pub struct NetChange {
    inserts: Vec<ZSet>,
    net: Option<Net>,
    /// What went wrong first.
    failed: Option<dataflow::Error>,
}

struct Net {
    schema: SchemaRef,
    codec: RowCodec,
    rows: Bag,
}

impl NetChange {
    /// Rows of a batch that is given at the end, at most.
    const BATCH_ROWS: usize = 64 * 1024;

    pub fn add(&mut self, change: &ZSet) {
        if let Err(error) = self.try_add(change) {
            self.failed.get_or_insert(error);
        }
    }

    /// Adds what comes after it.
    pub fn append(&mut self, later: NetChange) {
        self.failed = self.failed.take().or(later.failed);
        later.inserts.iter().for_each(|change| self.add(change));
        match later.net.map(|net| net.batches()) {
            Some(Ok(batches)) => batches.iter().for_each(|change| self.add(change)),
            Some(Err(error)) => drop(self.failed.get_or_insert(error)),
            None => {}
        }
    }

    fn try_add(&mut self, change: &ZSet) -> Result<()> {
        if self.net.is_none() && change.all_inserts() {
            self.inserts.push(change.clone());
            return Ok(());
        }
        if self.net.is_none() {
            let mut net = Net::new(&change.schema())?;
            for inserts in std::mem::take(&mut self.inserts) {
                net.add(&inserts)?;
            }
            self.net = Some(net);
        }
        self.net.as_mut().expect("was just made").add(change)
    }

    /// The sum with a last change: batches that can be applied one after another.
    ///
    /// # Errors
    /// When a column type can't be kept as row bytes, or a row is too long for a batch.
    pub fn with(mut self, last: Option<ZSet>) -> Result<Vec<ZSet>> {
        if let Some(last) = last {
            self.add(&last);
        }
        if let Some(error) = self.failed {
            return Err(error);
        }
        match self.net {
            Some(net) => net.batches(),
            None => Ok(self.inserts),
        }
    }
}

impl Net {
    fn new(schema: &SchemaRef) -> Result<Net> {
        let columns: Vec<usize> = (0..schema.fields().len()).collect();
        Ok(Net {
            schema: Arc::clone(schema),
            codec: RowCodec::for_columns(schema, &columns)?,
            rows: Bag::new(),
        })
    }

    fn add(&mut self, change: &ZSet) -> Result<()> {
        let rows = self.codec.encode(change.rows().columns(), change.len())?;
        for (row, bytes) in rows.iter().enumerate() {
            self.rows.add(bytes, &[], change.weight(row));
        }
        Ok(())
    }

    /// What is taken away comes first: it was there before, and makes room for a new row of the same key.
    fn batches(&self) -> Result<Vec<ZSet>> {
        let rows: Vec<(&[u8], i64)> =
            self.rows.all().map(|row| (self.rows.key(self.rows.key_of(row.entry)), row.weight)).collect();
        let (mut ordered, inserted): (Vec<_>, Vec<_>) = rows.into_iter().partition(|(_, weight)| *weight < 0);
        ordered.extend(inserted);
        let batch = |rows: &[(&[u8], i64)]| {
            let (bytes, weights): (Vec<&[u8]>, Vec<i64>) = rows.iter().copied().unzip();
            Ok(ZSet::new(batch_of(&self.schema, self.codec.decode(&bytes)?, bytes.len())?, weights))
        };
        ordered.chunks(NetChange::BATCH_ROWS).map(batch).collect()
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{Int64Array, RecordBatch};
    use dataflow::picture::picture;

    use super::*;

    fn change(rows: &[(i64, i64)]) -> ZSet {
        let values = Int64Array::from_iter_values(rows.iter().map(|(value, _)| *value));
        let rows_batch = RecordBatch::try_from_iter([("value", Arc::new(values) as _)]).unwrap();
        ZSet::new(rows_batch, rows.iter().map(|(_, weight)| *weight).collect())
    }

    #[test]
    fn insertions_stay_as_they_are() {
        let mut net = NetChange::default();
        net.add(&change(&[(1, 1), (2, 1)]));
        let sum = net.with(Some(change(&[(2, 1)]))).unwrap();
        assert_eq!(sum.iter().map(ZSet::len).collect::<Vec<_>>(), [2, 1]);
    }

    #[test]
    fn updates_of_updates_are_one_and_retractions_come_first() {
        let mut net = NetChange::default();
        net.add(&change(&[(11, 1), (20, 2)]));
        net.add(&change(&[(10, -1)]));
        for value in 11..100 {
            let mut later = NetChange::default();
            later.add(&change(&[(value, -1)]));
            later.add(&change(&[(value + 1, 1)]));
            net.append(later);
        }
        let sum = net.with(None).unwrap();
        let [sum] = sum.as_slice() else { panic!("one batch, not {}", sum.len()) };
        assert_eq!(sum.weight(0), -1);
        assert_eq!(picture(std::slice::from_ref(sum)), picture(&[change(&[(10, -1), (20, 2), (100, 1)])]));
    }
}

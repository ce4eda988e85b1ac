//! The rows of one partition in their order: numbers of rows in chunks, so that a row in the middle of a long
//! partition moves a chunk and not the partition.
//!
//! Positions count from the first row the partition ever had, also after rows at the front were dropped, so that a row
//! number needs no other memory than its position.

/// A chunk is cut in two when it is longer.
const CHUNK_MAX: usize = 512;

#[derive(Default)]
pub struct OrderedList {
    // Invariant: none is empty.
    chunks: Vec<Vec<u32>>,
    dropped: usize,
    len: usize,
}

impl OrderedList {
    /// A list without rows, of which as many were dropped.
    pub fn starting_at(dropped: usize) -> OrderedList {
        OrderedList { dropped, ..OrderedList::default() }
    }

    /// Position of the first row that is still there.
    #[inline]
    pub fn start(&self) -> usize {
        self.dropped
    }

    /// The position after the last row.
    #[inline]
    pub fn end(&self) -> usize {
        self.dropped + self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub fn len(&self) -> usize {
        self.len
    }

    /// Chunk and place in it of a position from `start` to `end`; the end is behind the last row of the last chunk.
    #[inline]
    fn locate(&self, position: usize) -> (usize, usize) {
        let mut index = position - self.dropped;
        if let [only] = self.chunks.as_slice() {
            debug_assert!(index <= only.len());
            return (0, index);
        }
        if index > self.len / 2 {
            let mut end = self.len;
            for (number, chunk) in self.chunks.iter().enumerate().rev() {
                let start = end - chunk.len();
                if index >= start {
                    return (number, index - start);
                }
                end = start;
            }
        }
        for (number, chunk) in self.chunks.iter().enumerate() {
            if index < chunk.len() {
                return (number, index);
            }
            index -= chunk.len();
        }
        (self.chunks.len(), 0)
    }

    /// # Panics
    /// If there is no row at the position.
    #[inline]
    pub fn get(&self, position: usize) -> u32 {
        let (chunk, index) = self.locate(position);
        self.chunks[chunk][index]
    }

    /// The rows from `from` up to, not including, `to`.
    pub fn range(&self, from: usize, to: usize) -> impl Iterator<Item = u32> + '_ {
        let (chunk, index) = if from < to { self.locate(from) } else { (self.chunks.len(), 0) };
        let first = self.chunks.get(chunk).map_or(&[][..], |chunk| &chunk[index..]);
        let rest = self.chunks.iter().skip(chunk + 1).flatten();
        first.iter().chain(rest).copied().take(to.saturating_sub(from))
    }

    pub fn insert(&mut self, position: usize, row: u32) {
        let (mut number, mut index) = self.locate(position);
        if number == self.chunks.len() {
            match number.checked_sub(1) {
                Some(last) => (number, index) = (last, self.chunks[last].len()),
                None => self.chunks.push(Vec::new()),
            }
        }
        self.len += 1;
        let is_last = number + 1 == self.chunks.len();
        let chunk = &mut self.chunks[number];
        if index == chunk.len() && chunk.len() >= CHUNK_MAX && is_last {
            // In order: a full chunk stays full.
            self.chunks.push(vec![row]);
            return;
        }
        chunk.insert(index, row);
        if chunk.len() > CHUNK_MAX {
            let upper = chunk.split_off(chunk.len() / 2);
            self.chunks.insert(number + 1, upper);
        }
    }

    pub fn remove(&mut self, position: usize) {
        let (number, index) = self.locate(position);
        self.chunks[number].remove(index);
        self.len -= 1;
        if self.chunks[number].is_empty() {
            self.chunks.remove(number);
        }
    }

    /// Takes the rows before `position` out, for good.
    pub fn drop_before(&mut self, position: usize) -> Vec<u32> {
        let mut out = Vec::with_capacity(position.saturating_sub(self.dropped));
        let mut emptied = 0;
        for chunk in &mut self.chunks {
            let wanted = position - self.dropped - out.len();
            if wanted < chunk.len() {
                out.extend(chunk.drain(..wanted));
                break;
            }
            out.append(chunk);
            emptied += 1;
        }
        self.chunks.drain(..emptied);
        self.len -= out.len();
        self.dropped = position;
        out
    }

    /// The first position whose row is not `before`; rows that are come first.
    pub fn partition_point(&self, mut before: impl FnMut(u32) -> bool) -> usize {
        let full = self.chunks.partition_point(|chunk| before(*chunk.last().expect("no chunk is empty")));
        let rows: usize = self.chunks[..full].iter().map(Vec::len).sum();
        let inside = self.chunks.get(full).map_or(0, |chunk| chunk.partition_point(|row| before(*row)));
        self.dropped + rows + inside
    }

    /// As [`partition_point`](OrderedList::partition_point), quick when the answer is near `hint`.
    pub fn partition_point_near(&self, hint: usize, mut before: impl FnMut(u32) -> bool) -> usize {
        let (start, end) = (self.start(), self.end());
        let hint = hint.clamp(start, end);
        let (mut low, mut high);
        let mut reach = 1;
        if hint < end && before(self.get(hint)) {
            low = hint + 1;
            loop {
                high = low + reach;
                if high >= end {
                    high = end;
                    break;
                }
                if !before(self.get(high)) {
                    break;
                }
                low = high + 1;
                reach *= 2;
            }
        } else {
            high = hint;
            loop {
                if high == start {
                    return start;
                }
                low = high.saturating_sub(reach).max(start);
                if before(self.get(low)) {
                    low += 1;
                    break;
                }
                high = low;
                reach *= 2;
            }
        }
        while low < high {
            let middle = low + (high - low) / 2;
            if before(self.get(middle)) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low
    }

    pub fn size_bytes(&self) -> usize {
        self.chunks.iter().map(|chunk| chunk.capacity() * 4 + size_of::<Vec<u32>>()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn behaves_like_a_vector() {
        for seed in 0..60 {
            let mut rng = fastrand::Rng::with_seed(seed);
            let (mut list, mut model) = (OrderedList::default(), Vec::<u32>::new());
            let mut dropped = 0;
            for _ in 0..6000 {
                let end = dropped + model.len();
                match rng.u8(..10) {
                    0..=5 => {
                        // Sorted, with ties.
                        let row = rng.u32(..2000).max(model.first().copied().unwrap_or(0));
                        let at = dropped + model.partition_point(|r| *r < row);
                        list.insert(at, row);
                        model.insert(at - dropped, row);
                    }
                    6 if !model.is_empty() => {
                        let at = rng.usize(dropped..end);
                        list.remove(at);
                        model.remove(at - dropped);
                    }
                    7 if rng.u8(..40) == 0 => {
                        let at = rng.usize(dropped..=end);
                        assert_eq!(list.drop_before(at), model.drain(..at - dropped).collect::<Vec<_>>());
                        dropped = at;
                    }
                    _ => {
                        let wanted = rng.u32(..2000);
                        let point = dropped + model.partition_point(|r| *r < wanted);
                        assert_eq!(list.partition_point(|r| r < wanted), point);
                        let hint = rng.usize(..end + 3);
                        assert_eq!(list.partition_point_near(hint, |r| r < wanted), point);
                    }
                }
                assert_eq!((list.start(), list.end()), (dropped, dropped + model.len()));
            }
            let (from, to) = (dropped + model.len() / 3, dropped + model.len());
            assert_eq!(list.range(from, to).collect::<Vec<_>>(), model[from - dropped..]);
            for (index, row) in model.iter().enumerate() {
                assert_eq!(list.get(dropped + index), *row);
            }
        }
    }
}

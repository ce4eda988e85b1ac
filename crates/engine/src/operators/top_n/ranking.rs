//! The order of one partition's rows, and how two orders differ. Pure functions over sorted lists.
//!
//! Entries are numbers of rows in a [`crate::bag::Bag`]; their bytes begin with the sort key, so that
//! comparing bytes is comparing by ORDER BY, ties broken by the rest of the row.

use std::cmp::Ordering;
use std::ops::Range;

/// A row that stands in the order, `weight` times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ranked {
    pub entry: u32,
    // Invariant: positive.
    pub weight: i64,
}

/// A row number (from 0) or several that a row has or had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Difference {
    pub entry: u32,
    pub weight: i64,
    pub position: u64,
}

/// The `limit` smallest of `items` by their bytes, in ascending order, and whether these are all.
///
/// Keeps at most twice as many at a time; once `limit` are known, most others cost one comparison.
pub fn smallest<'a, T: Copy>(
    items: impl Iterator<Item = (T, &'a [u8])>,
    limit: usize,
) -> (Vec<(T, &'a [u8])>, bool) {
    let mut kept: Vec<(T, &[u8])> = Vec::new();
    let mut threshold: Option<&[u8]> = None;
    let mut all = true;
    if limit == 0 {
        return (kept, false);
    }
    for (item, bytes) in items {
        if threshold.is_some_and(|threshold| bytes >= threshold) {
            all = false;
            continue;
        }
        kept.push((item, bytes));
        if kept.len() >= limit.saturating_mul(2).saturating_add(16) {
            threshold = Some(cut(&mut kept, limit));
            all = false;
        }
    }
    if kept.len() > limit {
        cut(&mut kept, limit);
        all = false;
    }
    kept.sort_by(|a, b| a.1.cmp(b.1));
    (kept, all)
}

fn cut<'a, T: Copy>(kept: &mut Vec<(T, &'a [u8])>, limit: usize) -> &'a [u8] {
    let (_, last, _) = kept.select_nth_unstable_by(limit - 1, |a, b| a.1.cmp(b.1));
    let threshold = last.1;
    kept.truncate(limit);
    threshold
}

/// Applies `changes` to `ranking`: rows with their new weight, where zero or less means gone.
///
/// Both are sorted by `bytes` and name an entry at most once.
pub fn merge<'a>(ranking: &[Ranked], changes: &[Ranked], bytes: impl Fn(u32) -> &'a [u8]) -> Vec<Ranked> {
    let mut merged = Vec::with_capacity(ranking.len() + changes.len());
    let mut rest = ranking;
    for change in changes {
        let key = bytes(change.entry);
        let before = rest.partition_point(|ranked| bytes(ranked.entry) < key);
        merged.extend_from_slice(&rest[..before]);
        rest = &rest[before..];
        if rest.first().is_some_and(|ranked| ranked.entry == change.entry) {
            rest = &rest[1..];
        }
        if change.weight > 0 {
            merged.push(*change);
        }
    }
    merged.extend_from_slice(rest);
    merged
}

/// Number of rows, counting each as often as it stands.
pub fn row_count(ranking: &[Ranked]) -> u64 {
    ranking.iter().fold(0, |rows: u64, ranked| rows.saturating_add(ranked.weight as u64))
}

/// How many entries it takes to have `rows` rows; all when there are fewer.
pub fn entries_covering(ranking: &[Ranked], rows: u64) -> usize {
    let mut covered = 0;
    for (entries, ranked) in ranking.iter().enumerate() {
        if covered >= rows {
            return entries;
        }
        covered += ranked.weight as u64;
    }
    ranking.len()
}

/// What changes at `positions` when `old` becomes `new`, with the row's position as part of the row.
pub fn diff_numbered(
    old: &[Ranked],
    new: &[Ranked],
    positions: Range<u64>,
    mut emit: impl FnMut(Difference),
) {
    let (mut old, mut new) = (Cursor::new(old), Cursor::new(new));
    let mut at = 0;
    while at < positions.end {
        let (was, is) = (old.current(), new.current());
        if was.is_none() && is.is_none() {
            break;
        }
        // The stretch in which neither row changes.
        let until = old.end().min(new.end()).min(positions.end);
        if was != is {
            for position in at.max(positions.start)..until {
                if let Some(entry) = was {
                    emit(Difference { entry, weight: -1, position });
                }
                if let Some(entry) = is {
                    emit(Difference { entry, weight: 1, position });
                }
            }
        }
        at = until;
        old.advance_to(at);
        new.advance_to(at);
    }
}

/// What changes at `positions` when `old` becomes `new`, positions not being part of the row.
pub fn diff_unnumbered<'a>(
    old: &[Ranked],
    new: &[Ranked],
    positions: Range<u64>,
    bytes: impl Fn(u32) -> &'a [u8],
    mut emit: impl FnMut(Difference),
) {
    let (mut old, mut new) = (Cursor::new(old), Cursor::new(new));
    let mut emit = |entry, weight| {
        if weight != 0 {
            emit(Difference { entry, weight, position: 0 });
        }
    };
    loop {
        let was = old.current().filter(|_| old.start < positions.end);
        let is = new.current().filter(|_| new.start < positions.end);
        match (was, is) {
            (None, None) => break,
            (Some(entry), None) => {
                emit(entry, -old.visible(&positions));
                old.next();
            }
            (None, Some(entry)) => {
                emit(entry, new.visible(&positions));
                new.next();
            }
            (Some(was), Some(is)) if was == is => {
                emit(is, new.visible(&positions) - old.visible(&positions));
                old.next();
                new.next();
            }
            (Some(was), Some(is)) => match bytes(was).cmp(bytes(is)) {
                Ordering::Less => {
                    emit(was, -old.visible(&positions));
                    old.next();
                }
                Ordering::Equal | Ordering::Greater => {
                    emit(is, new.visible(&positions));
                    new.next();
                }
            },
        }
    }
}

/// Walks a ranking, knowing the positions of the current row.
struct Cursor<'a> {
    ranking: &'a [Ranked],
    index: usize,
    // First position of the current row.
    start: u64,
}

impl<'a> Cursor<'a> {
    fn new(ranking: &'a [Ranked]) -> Cursor<'a> {
        Cursor { ranking, index: 0, start: 0 }
    }

    fn current(&self) -> Option<u32> {
        self.ranking.get(self.index).map(|ranked| ranked.entry)
    }

    /// The position after the current row's last; never, at the end.
    fn end(&self) -> u64 {
        self.ranking.get(self.index).map_or(u64::MAX, |ranked| self.start + ranked.weight as u64)
    }

    fn next(&mut self) {
        self.start = self.end();
        self.index += 1;
    }

    fn advance_to(&mut self, position: u64) {
        while self.end() <= position {
            self.next();
        }
    }

    /// How many of the current row's positions are among `positions`.
    fn visible(&self, positions: &Range<u64>) -> i64 {
        let (start, end) = (self.start.max(positions.start), self.end().min(positions.end));
        end.saturating_sub(start) as i64
    }
}

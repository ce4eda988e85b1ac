//! Which rows a frame holds, and which rows' frames hold a row.
//!
//! Positions are those of the partition's [`OrderedList`]; a frame is `start..end`. NULLs and ties are treated as
//! PostgreSQL does: peers (rows with equal ORDER BY columns) are in a RANGE or GROUPS frame together, and a RANGE with
//! an offset gives a row without an order value its fellow NULLs.

use arrow::datatypes::IntervalMonthDayNano;

use super::list::OrderedList;
use super::store::RowStore;

/// ROWS, RANGE or GROUPS between two bounds.
#[derive(Clone, Debug, PartialEq)]
pub struct Frame {
    pub unit: Unit,
    pub start: Bound,
    pub end: Bound,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    Rows,
    Range,
    Groups,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Bound {
    UnboundedPreceding,
    Preceding(Offset),
    CurrentRow,
    Following(Offset),
    UnboundedFollowing,
}

/// How far a bound is from the current row. Never negative.
#[derive(Clone, Debug, PartialEq)]
pub enum Offset {
    /// Of rows or groups.
    Count(usize),
    /// Of whole numbers, decimals (unscaled) and times (in the column's unit).
    Whole(i128),
    Float(f64),
    /// Months, which have no fixed length, of a timestamp in microseconds.
    Calendar {
        interval: IntervalMonthDayNano,
        unit: CalendarUnit,
    },
}

/// What a time column counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CalendarUnit {
    Microseconds,
    Days,
}

/// The one ORDER BY column of a RANGE with an offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RangeOrder {
    /// Its number among the kept values.
    pub values: usize,
    pub descending: bool,
    pub nulls_first: bool,
    pub float: bool,
}

/// A partition's rows, to be looked at.
#[derive(Clone, Copy)]
pub struct View<'a> {
    pub list: &'a OrderedList,
    pub store: &'a RowStore,
    pub order: Option<RangeOrder>,
}

/// An order value, or an order value moved by an offset.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub enum OrderValue {
    Whole(i128),
    Float(f64),
}

const DAY_US: i128 = 86_400_000_000;

impl Offset {
    pub fn count(&self) -> usize {
        match self {
            Offset::Count(count) => *count,
            _ => unreachable!("ROWS and GROUPS count"),
        }
    }

    /// The value `by` this offset later (or earlier, for `sign` -1).
    fn moved(&self, value: OrderValue, sign: i128) -> OrderValue {
        match (self, value) {
            (Offset::Whole(by), OrderValue::Whole(value)) => {
                OrderValue::Whole(value.saturating_add(sign * by))
            }
            (Offset::Float(by), OrderValue::Float(value)) => OrderValue::Float(value + sign as f64 * by),
            (Offset::Calendar { interval, unit }, OrderValue::Whole(value)) => {
                OrderValue::Whole(calendar(value, *interval, *unit, sign))
            }
            _ => unreachable!("an offset has the type of the order column"),
        }
    }

    /// At least as long as this offset ever is.
    pub fn longest(&self) -> Offset {
        match self {
            Offset::Calendar { interval, unit } => {
                let days = i128::from(interval.months) * 31 + i128::from(interval.days) + 1;
                let us = days * DAY_US + i128::from(interval.nanoseconds / 1000);
                Offset::Whole(match unit {
                    CalendarUnit::Microseconds => us,
                    CalendarUnit::Days => us / DAY_US + 1,
                })
            }
            other => other.clone(),
        }
    }
}

fn calendar(value: i128, interval: IntervalMonthDayNano, unit: CalendarUnit, sign: i128) -> i128 {
    let us = match unit {
        CalendarUnit::Microseconds => value,
        CalendarUnit::Days => value.saturating_mul(DAY_US),
    };
    let months = chrono::Months::new(interval.months.unsigned_abs());
    let forward = (sign > 0) == (interval.months >= 0);
    let shifted = i64::try_from(us).ok().and_then(chrono::DateTime::from_timestamp_micros).and_then(|time| {
        if forward { time.checked_add_months(months) } else { time.checked_sub_months(months) }
    });
    // Beyond the calendar there are no rows either.
    let Some(shifted) = shifted else { return if sign > 0 { i128::MAX } else { i128::MIN } };
    let rest = i128::from(interval.days) * DAY_US + i128::from(interval.nanoseconds / 1000);
    let us = i128::from(shifted.timestamp_micros()) + sign * rest;
    match unit {
        CalendarUnit::Microseconds => us,
        CalendarUnit::Days => us.div_euclid(DAY_US),
    }
}

impl<'a> View<'a> {
    /// The order value of a row; `None` for NULL.
    #[inline]
    pub fn value(&self, row: u32) -> Option<OrderValue> {
        let order = self.order.expect("a RANGE offset has an order column");
        let column = &self.store.values[order.values];
        column.is_present(row).then(|| match order.float {
            true => OrderValue::Float(column.float(row)),
            false => OrderValue::Whole(column.whole(row)),
        })
    }

    /// True when the row stands before rows with the value.
    #[inline]
    fn before(&self, row: u32, value: OrderValue) -> bool {
        let order = self.order.expect("a RANGE offset has an order column");
        match (self.value(row), value) {
            (None, _) => order.nulls_first,
            (Some(OrderValue::Whole(a)), OrderValue::Whole(b)) => (a < b) != order.descending && a != b,
            (Some(OrderValue::Float(a)), OrderValue::Float(b)) => {
                let ordering = a.total_cmp(&b);
                if order.descending { ordering.is_gt() } else { ordering.is_lt() }
            }
            _ => unreachable!("order values are of one type"),
        }
    }

    /// True when the row stands behind rows with the value.
    #[inline]
    fn behind(&self, row: u32, value: OrderValue) -> bool {
        let order = self.order.expect("a RANGE offset has an order column");
        match (self.value(row), value) {
            (None, _) => !order.nulls_first,
            (Some(OrderValue::Whole(a)), OrderValue::Whole(b)) => (a > b) != order.descending && a != b,
            (Some(OrderValue::Float(a)), OrderValue::Float(b)) => {
                let ordering = a.total_cmp(&b);
                if order.descending { ordering.is_lt() } else { ordering.is_gt() }
            }
            _ => unreachable!("order values are of one type"),
        }
    }

    /// First position whose row does not stand before the value.
    pub fn first_at(&self, value: OrderValue, hint: usize) -> usize {
        self.list.partition_point_near(hint, |row| self.before(row, value))
    }

    /// The position after the last row that does not stand behind the value.
    pub fn after(&self, value: OrderValue, hint: usize) -> usize {
        self.list.partition_point_near(hint, |row| !self.behind(row, value))
    }

    /// The value `offset` towards the front (PRECEDING) of the partition.
    pub fn preceding(&self, value: OrderValue, offset: &Offset) -> OrderValue {
        let descending = self.order.is_some_and(|order| order.descending);
        offset.moved(value, if descending { 1 } else { -1 })
    }

    pub fn following(&self, value: OrderValue, offset: &Offset) -> OrderValue {
        let descending = self.order.is_some_and(|order| order.descending);
        offset.moved(value, if descending { -1 } else { 1 })
    }

    /// The rows that are equal in the ORDER BY columns to the one at `position`.
    #[inline]
    pub fn peers(&self, position: usize) -> (usize, usize) {
        let key = self.store.order_key(self.list.get(position));
        (self.peers_start(key, position), self.peers_end(key, position + 1))
    }

    pub fn peers_start(&self, key: &[u8], hint: usize) -> usize {
        let start = self.list.start();
        if hint == start || self.store.order_key(self.list.get(hint - 1)) != key {
            // Most often a row has no peers.
            return hint;
        }
        self.list.partition_point_near(hint, |row| self.store.order_key(row) < key)
    }

    pub fn peers_end(&self, key: &[u8], hint: usize) -> usize {
        if hint >= self.list.end() || self.store.order_key(self.list.get(hint)) != key {
            return hint;
        }
        self.list.partition_point_near(hint, |row| self.store.order_key(row) <= key)
    }

    /// Start of the group that is `groups` before the one starting at `start`.
    pub fn groups_before(&self, start: usize, groups: usize) -> usize {
        let mut at = start;
        for _ in 0..groups {
            if at == self.list.start() {
                break;
            }
            at = self.peers(at - 1).0;
        }
        at
    }

    /// End of the group that is `groups` after the one ending at `end`.
    pub fn groups_after(&self, end: usize, groups: usize) -> usize {
        let mut at = end;
        for _ in 0..groups {
            if at == self.list.end() {
                break;
            }
            at = self.peers(at).1;
        }
        at
    }

    /// The frame of the row at `position`, whose peers are `peers`. `hint` is where the frame was last.
    pub fn frame(
        &self,
        frame: &Frame,
        position: usize,
        peers: (usize, usize),
        hint: (usize, usize),
    ) -> (usize, usize) {
        let (first, last) = (self.list.start(), self.list.end());
        let start = match (&frame.start, frame.unit) {
            // Also the rows that were dropped: sums remember them.
            (Bound::UnboundedPreceding, _) => 0,
            (Bound::UnboundedFollowing, _) => last,
            (Bound::CurrentRow, Unit::Rows) => position,
            (Bound::CurrentRow, _) => peers.0,
            (Bound::Preceding(by), Unit::Rows) => position.saturating_sub(by.count()).max(first),
            (Bound::Following(by), Unit::Rows) => position.saturating_add(by.count()).min(last),
            (Bound::Preceding(by), Unit::Groups) => self.groups_before(peers.0, by.count()),
            (Bound::Following(by), Unit::Groups) => match by.count() {
                0 => peers.0,
                groups => self.groups_after(peers.1, groups - 1),
            },
            (Bound::Preceding(by), Unit::Range) => match self.value(self.list.get(position)) {
                None => peers.0,
                Some(value) => self.first_at(self.preceding(value, by), hint.0),
            },
            (Bound::Following(by), Unit::Range) => match self.value(self.list.get(position)) {
                None => peers.0,
                Some(value) => self.first_at(self.following(value, by), hint.0),
            },
        };
        let end = match (&frame.end, frame.unit) {
            (Bound::UnboundedPreceding, _) => first,
            (Bound::UnboundedFollowing, _) => last,
            (Bound::CurrentRow, Unit::Rows) => position + 1,
            (Bound::CurrentRow, _) => peers.1,
            (Bound::Preceding(by), Unit::Rows) => (position + 1).saturating_sub(by.count()).max(first),
            (Bound::Following(by), Unit::Rows) => (position + 1).saturating_add(by.count()).min(last),
            (Bound::Preceding(by), Unit::Groups) => match by.count() {
                0 => peers.1,
                groups => self.groups_before(peers.0, groups - 1),
            },
            (Bound::Following(by), Unit::Groups) => self.groups_after(peers.1, by.count()),
            (Bound::Preceding(by), Unit::Range) => match self.value(self.list.get(position)) {
                None => peers.1,
                Some(value) => self.after(self.preceding(value, by), hint.1),
            },
            (Bound::Following(by), Unit::Range) => match self.value(self.list.get(position)) {
                None => peers.1,
                Some(value) => self.after(self.following(value, by), hint.1),
            },
        };
        (start, end.max(start))
    }
}

impl Frame {
    /// From the first row to the last.
    pub const WHOLE: Frame =
        Frame { unit: Unit::Rows, start: Bound::UnboundedPreceding, end: Bound::UnboundedFollowing };

    /// How many rows, groups or values behind a row its frame looks.
    pub fn uses_offset(&self) -> bool {
        self.unit == Unit::Range
            && [&self.start, &self.end].iter().any(|b| matches!(b, Bound::Preceding(_) | Bound::Following(_)))
    }
}

//! Finds how far apart in event time the rows of a join may be: `b.ts BETWEEN a.ts AND a.ts + INTERVAL '10 minutes'`.

use std::collections::BTreeMap;

use datafusion::common::DFSchema;
use datafusion::logical_expr::utils::split_conjunction;
use datafusion::logical_expr::{BinaryExpr, Expr, Operator};
use datafusion::scalar::ScalarValue;

/// `left.column - right.column` lies in `[from_us, to_us]` for every joined pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bounds {
    /// Column number in the left input.
    pub left: usize,
    /// Column number in the right input.
    pub right: usize,
    pub from_us: i64,
    pub to_us: i64,
}

/// The first pair of columns that the predicate bounds on both ends.
pub(super) fn bounds(filter: &Expr, left: &DFSchema, right: &DFSchema) -> Option<Bounds> {
    let mut found: BTreeMap<(usize, usize), (Option<i64>, Option<i64>)> = BTreeMap::new();
    for conjunct in split_conjunction(filter) {
        let Expr::BinaryExpr(BinaryExpr { left: a, op, right: b }) = conjunct else { continue };
        // As `smaller + x <= greater + y`.
        let (smaller, greater, strict) = match op {
            Operator::LtEq => (a, b, 0),
            Operator::Lt => (a, b, 1),
            Operator::GtEq => (b, a, 0),
            Operator::Gt => (b, a, 1),
            _ => continue,
        };
        let (Some((smaller, x)), Some((greater, y))) = (shifted(smaller), shifted(greater)) else { continue };
        let column = |schema: &DFSchema, expression: &Expr| match expression {
            Expr::Column(column) => schema.maybe_index_of_column(column),
            _ => None,
        };
        if let (Some(l), Some(r)) = (column(left, smaller), column(right, greater)) {
            let to = y.saturating_sub(x).saturating_sub(strict);
            let slot = &mut found.entry((l, r)).or_default().1;
            *slot = Some(slot.map_or(to, |t| t.min(to)));
        } else if let (Some(r), Some(l)) = (column(right, smaller), column(left, greater)) {
            let from = x.saturating_sub(y).saturating_add(strict);
            let slot = &mut found.entry((l, r)).or_default().0;
            *slot = Some(slot.map_or(from, |f| f.max(from)));
        }
    }
    found.into_iter().find_map(|((left, right), bounds)| match bounds {
        (Some(from_us), Some(to_us)) => Some(Bounds { left, right, from_us, to_us }),
        _ => None,
    })
}

/// A column plus a constant number of microseconds.
fn shifted(expression: &Expr) -> Option<(&Expr, i64)> {
    match expression {
        Expr::Column(_) => Some((expression, 0)),
        Expr::Alias(alias) => shifted(&alias.expr),
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::Plus, right }) => {
            match (interval_us(left), interval_us(right)) {
                (None, Some(us)) => shifted(left).map(|(column, by)| (column, by.saturating_add(us))),
                (Some(us), None) => shifted(right).map(|(column, by)| (column, by.saturating_add(us))),
                _ => None,
            }
        }
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::Minus, right }) => {
            let us = interval_us(right)?;
            shifted(left).map(|(column, by)| (column, by.saturating_sub(us)))
        }
        _ => None,
    }
}

/// A constant interval of fixed length; months have none.
fn interval_us(expression: &Expr) -> Option<i64> {
    const DAY_US: i64 = 86_400_000_000;
    match expression {
        Expr::Literal(ScalarValue::IntervalMonthDayNano(Some(v)), _) if v.months == 0 => {
            Some(i64::from(v.days).checked_mul(DAY_US)?.checked_add(v.nanoseconds / 1000)?)
        }
        Expr::Literal(ScalarValue::IntervalDayTime(Some(v)), _) => {
            Some(i64::from(v.days).checked_mul(DAY_US)?.checked_add(i64::from(v.milliseconds) * 1000)?)
        }
        Expr::Literal(ScalarValue::DurationMicrosecond(Some(us)), _) => Some(*us),
        Expr::Literal(ScalarValue::DurationNanosecond(Some(ns)), _) => Some(*ns / 1000),
        _ => None,
    }
}

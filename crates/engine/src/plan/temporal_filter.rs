//! Lowering of filters, those that compare with the clock among them.
//!
//! `ts > now() - INTERVAL '1 hour'` has a side that reads rows and one that reads the clock. The clock's side has to
//! rise with the clock, so that a row comes or goes only once.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema};
use datafusion::common::DFSchema;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::logical_expr::utils::{conjunction, split_conjunction};
use datafusion::logical_expr::{BinaryExpr, Expr, Operator};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::scalar::ScalarValue;
use sql::SqlError;
use sql::planner::reads_clock;

use super::lower::{Lowering, column, plain_column};
use super::{NodeIndex, PlanKind, TimeKind, physical};
use crate::operators::temporal_filter::{Side, TemporalFilterSpec, clock_schema};

/// One comparison with the clock.
struct Comparison {
    /// Reads rows only.
    value: Expr,
    side: Side,
    /// Reads the clock only.
    threshold: Expr,
}

impl Lowering<'_> {
    /// Rows that meet the predicate, whose columns are those of `schema`.
    pub(super) fn filtered(
        &mut self,
        input: NodeIndex,
        predicate: &Expr,
        schema: &DFSchema,
    ) -> Result<NodeIndex, SqlError> {
        let (moving, still): (Vec<&Expr>, Vec<&Expr>) =
            split_conjunction(predicate).into_iter().partition(|part| reads_clock(part));
        if moving.is_empty() {
            let predicate = physical(predicate, schema)?;
            return self.map(input, Some(predicate), None, None);
        }
        let mut node = input;
        if let Some(still) = conjunction(still.into_iter().cloned()) {
            node = self.map(node, Some(physical(&still, schema)?), None, None)?;
        }
        for part in moving {
            for comparison in comparisons(part)? {
                node = self.temporal_filter(node, &comparison, schema)?;
            }
        }
        Ok(node)
    }

    fn temporal_filter(
        &mut self,
        input: NodeIndex,
        comparison: &Comparison,
        schema: &DFSchema,
    ) -> Result<NodeIndex, SqlError> {
        let shown = Arc::clone(&self.node(input).schema);
        let width = shown.fields().len();
        let value = physical(&comparison.value, schema)?;
        let (below, compared) = match plain_column(&value) {
            Some(compared) => {
                let time = self.node(input).properties.time[compared];
                if matches!(time, Some(TimeKind::VirtualStart { .. } | TimeKind::VirtualEnd { .. })) {
                    self.virtual_misused = true;
                }
                (input, compared)
            }
            None => {
                let data_type = value.data_type(&shown).map_err(|e| sql::planner::from_datafusion(e, ""))?;
                let mut fields: Vec<Field> = shown.fields().iter().map(|f| Field::clone(f)).collect();
                fields.push(Field::new("compared with the clock", data_type, true));
                let mut expressions: Vec<Arc<dyn PhysicalExpr>> =
                    (0..width).map(|c| column(&shown, c)).collect();
                expressions.push(value);
                (self.map(input, None, Some(expressions), Some(Arc::new(Schema::new(fields))))?, width)
            }
        };
        let threshold = on_clock(&comparison.threshold)?;
        let mut properties = self.node(input).properties.clone();
        if matches!(comparison.side, Side::Above { .. }) {
            properties.append_only = false;
        }
        let text = format!("temporal filter {compared} {:?} {threshold} {threshold:?}", comparison.side);
        let spec = TemporalFilterSpec { column: compared, threshold, side: comparison.side, width };
        Ok(self.add(PlanKind::TemporalFilter(Arc::new(spec)), text, vec![below], shown, properties))
    }
}

fn comparisons(predicate: &Expr) -> Result<Vec<Comparison>, SqlError> {
    let above = |value: &Expr, inclusive, threshold: &Expr| Comparison {
        value: value.clone(),
        side: Side::Above { inclusive },
        threshold: threshold.clone(),
    };
    let below = |value: &Expr, inclusive, threshold: &Expr| Comparison {
        value: value.clone(),
        side: Side::Below { inclusive },
        threshold: threshold.clone(),
    };
    let found = match predicate {
        Expr::Between(between) if !between.negated => {
            let low = between.expr.as_ref().clone().gt_eq(between.low.as_ref().clone());
            let high = between.expr.as_ref().clone().lt_eq(between.high.as_ref().clone());
            let mut both = Vec::new();
            for part in [low, high] {
                if !reads_clock(&part) {
                    return Err(refused(predicate));
                }
                both.extend(comparisons(&part)?);
            }
            both
        }
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => {
            let (value, op, threshold) = match (reads_clock(left), reads_clock(right)) {
                (false, true) => (left, *op, right),
                (true, false) => match op.swap() {
                    Some(op) => (right, op, left),
                    None => return Err(refused(predicate)),
                },
                _ => return Err(refused(predicate)),
            };
            if !rises(threshold) {
                return Err(refused(predicate));
            }
            match op {
                Operator::Gt => vec![above(value, false, threshold)],
                Operator::GtEq => vec![above(value, true, threshold)],
                Operator::Lt => vec![below(value, false, threshold)],
                Operator::LtEq => vec![below(value, true, threshold)],
                Operator::Eq => vec![below(value, true, threshold), above(value, true, threshold)],
                _ => return Err(refused(predicate)),
            }
        }
        _ => return Err(refused(predicate)),
    };
    Ok(found)
}

/// True when the expression reads nothing but the clock and never goes down while the clock goes up.
fn rises(threshold: &Expr) -> bool {
    let is_constant = |expr: &Expr| matches!(expr, Expr::Literal(..));
    match threshold {
        Expr::Alias(alias) => rises(&alias.expr),
        Expr::Cast(cast) => {
            let to = cast.field.data_type();
            matches!(to, DataType::Timestamp(..) | DataType::Date32) && rises(&cast.expr)
        }
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::Plus, right }) => {
            (rises(left) && keeps_order(left, right)) || (rises(right) && keeps_order(right, left))
        }
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::Minus, right }) => {
            rises(left) && keeps_order(left, right)
        }
        Expr::ScalarFunction(function) => match (function.func.name(), function.args.as_slice()) {
            ("now" | "current_date", []) => true,
            ("date_trunc", [unit, time]) => is_constant(unit) && rises(time),
            ("date_bin", [stride, time]) => is_constant(stride) && rises(time),
            _ => false,
        },
        _ => false,
    }
}

/// True when moments moved by this interval stay in their order. Months do not keep it: a month before March 29 at
/// noon and a month before March 30 in the morning are February 28 at noon and in the morning. Starts of months do.
fn keeps_order(moved: &Expr, interval: &Expr) -> bool {
    let starts_months = match moved {
        Expr::ScalarFunction(function) if function.func.name() == "date_trunc" => {
            let unit = function.args.first().and_then(|unit| match unit {
                Expr::Literal(unit, _) => unit.try_as_str().flatten().map(str::to_ascii_lowercase),
                _ => None,
            });
            unit.is_some_and(|unit| {
                ["month", "quarter", "year", "decade", "century"].contains(&unit.as_str())
            })
        }
        _ => false,
    };
    match interval {
        Expr::Literal(ScalarValue::IntervalMonthDayNano(Some(interval)), _) => {
            interval.months == 0 || (starts_months && interval.days == 0 && interval.nanoseconds == 0)
        }
        Expr::Literal(ScalarValue::IntervalYearMonth(Some(_)), _) => starts_months,
        Expr::Literal(..) => true,
        _ => false,
    }
}

/// The expression over a batch that holds the clock.
fn on_clock(threshold: &Expr) -> Result<Arc<dyn PhysicalExpr>, SqlError> {
    let failed = |e| sql::planner::from_datafusion(e, "");
    let now = Expr::Column(datafusion::common::Column::from_name("now"));
    let bound = threshold.clone().transform_up(|expr| match &expr {
        Expr::ScalarFunction(function) if function.func.name() == "now" => Ok(Transformed::yes(now.clone())),
        Expr::ScalarFunction(function) if function.func.name() == "current_date" => {
            Ok(Transformed::yes(datafusion::logical_expr::cast(now.clone(), DataType::Date32)))
        }
        _ => Ok(Transformed::no(expr)),
    });
    let schema = DFSchema::try_from(clock_schema()).map_err(failed)?;
    physical(&bound.map_err(failed)?.data, &schema)
}

fn refused(predicate: &Expr) -> SqlError {
    SqlError::unsupported(format!("a materialized view can't filter by {predicate}")).with_hint(
        "compare a value of the row with now(), plus or minus a constant interval: ts > now() - INTERVAL '1 hour'; \
         =, <, <=, >, >=, BETWEEN and AND are understood, current_date and date_trunc(unit, now()) too; months may be \
         added to date_trunc('month', now()), as '30 days' to anything",
    )
}

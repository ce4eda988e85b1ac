//! Lowering of ASOF joins.
//!
//! With watermarks on both times, over rows that only come, a left row's partner becomes final when the watermark has
//! passed what could still change it: this is when `EMIT ON WINDOW CLOSE` gives the row, and when rows are freed.

use std::sync::Arc;

use arrow::datatypes::Schema;
use sql::asof_join::{AsofComparison, AsofJoin};
use sql::{SqlError, SqlState};

use super::explain::{Freed, State};
use super::lower::{Lowering, joined_fields};
use super::{NodeIndex, PlanKind, PlanNode, Properties, TimeKind};
use crate::operators::{Emit, Expiry};

pub struct AsofJoinPlan {
    pub on: Vec<(usize, usize)>,
    pub time: (usize, usize),
    pub comparison: AsofComparison,
    pub outer: bool,
    /// Number of left columns in the result.
    pub left_width: usize,
    /// When rows of the left and the right side are late.
    pub late: Option<[Expiry; 2]>,
    pub emit: Emit,
}

impl Lowering<'_> {
    pub(super) fn asof_join(&mut self, join: &AsofJoin) -> Result<NodeIndex, SqlError> {
        let sides = [self.lower_expanded(&join.left)?, self.lower_expanded(&join.right)?];
        let time = join.indices(&join.time);
        let late = self.final_times(sides, time)?;
        let [l, r] = sides.map(|side| self.node(side));
        let fields = joined_fields([l, r], join, join.outer);
        let emit = self.options.emit;
        let (p, q) = (&l.properties, &r.properties);
        let mut watermarks = p.watermarks.clone();
        watermarks.extend(q.watermarks.iter().copied());
        let plan = AsofJoinPlan {
            on: join.on_indices(),
            time,
            comparison: join.comparison,
            outer: join.outer,
            left_width: p.time.len(),
            late,
            emit,
        };
        let properties = Properties {
            append_only: emit == Emit::OnClose,
            // Each left row is there once at most.
            key: p.key.clone(),
            time: result_times([l, r], &plan),
            watermarks,
            delay_us: p.delay_us.max(q.delay_us),
            closed: emit == Emit::OnClose,
        };
        let text = format!(
            "asof join {} on={:?} match={:?} outer={} {late:?} {emit:?}",
            plan.comparison, plan.on, plan.time, plan.outer
        );
        let schema = Arc::new(Schema::new(fields));
        Ok(self.add(PlanKind::AsofJoin(Arc::new(plan)), text, sides.to_vec(), schema, properties))
    }

    /// When rows of both sides are late; `None` when they may change or one side has no watermark on its time.
    fn final_times(
        &self,
        sides: [NodeIndex; 2],
        time: (usize, usize),
    ) -> Result<Option<[Expiry; 2]>, SqlError> {
        let is_final = |(side, column): (NodeIndex, usize)| {
            let properties = &self.node(side).properties;
            let is_event = matches!(properties.time[column], Some(TimeKind::Event));
            is_event && properties.append_only && !properties.watermarks.is_empty()
        };
        if is_final((sides[0], time.0)) && is_final((sides[1], time.1)) {
            // A row stamped exactly at the watermark is still on time.
            let allowed_lateness_us = self.options.allowed_lateness_us;
            let expiry = |column: usize| Expiry { column, add_us: 1, allowed_lateness_us };
            return Ok(Some([expiry(time.0), expiry(time.1)]));
        }
        match self.options.emit {
            Emit::Updating => Ok(None),
            Emit::OnClose => Err(SqlError::new(
                SqlState::InvalidDefinition,
                "EMIT ON WINDOW CLOSE of an ASOF or temporal join needs append-only rows on both sides, compared by the columns of their watermarks",
            )
            .with_hint("declare WATERMARK FOR the compared column and APPEND ONLY on both tables, or leave the clause out")),
        }
    }
}

/// What the result's columns say about event time. Rows come and change while the one time that decides when they are
/// final is not behind the watermark: with `>=` and `>` the left row's, else its partner's. Other times may be far behind.
fn result_times([l, r]: [&PlanNode; 2], plan: &AsofJoinPlan) -> Vec<Option<TimeKind>> {
    let (p, q) = (&l.properties, &r.properties);
    let mut times = vec![None; p.time.len() + q.time.len()];
    if plan.late.is_none() {
        return times;
    }
    if !plan.comparison.looks_back() {
        if !plan.outer {
            times[p.time.len() + plan.time.1] = q.time[plan.time.1];
        }
    } else if p.delay_us == 0 {
        times[..p.time.len()].copy_from_slice(&p.time);
    } else {
        // Below is a join of times that lie apart.
        times[plan.time.0] = p.time[plan.time.0];
    }
    times
}

/// What EXPLAIN says of the join.
pub(super) fn what(plan: &AsofJoinPlan, node: &PlanNode) -> String {
    let kind = if plan.outer { "left" } else { "inner" };
    let name = |column: usize| node.schema.field(column).name();
    format!(
        "asof {kind} join keys={} match=[{} {} {}] emit={}",
        plan.on.len(),
        name(plan.time.0),
        plan.comparison,
        name(plan.left_width + plan.time.1),
        match plan.emit {
            Emit::Updating => "updating",
            Emit::OnClose => "on window close",
        }
    )
}

/// What the join keeps.
pub(super) fn state(plan: &AsofJoinPlan) -> State {
    let (keeps, freed) = match (plan.late.is_some(), plan.comparison.looks_back()) {
        (false, _) => ("the rows of both inputs", Freed::ByDeletes),
        (true, true) => (
            "left rows ahead of the watermark, and right rows until the next of their key is behind it",
            Freed::ByWatermark,
        ),
        (true, false) => (
            "left rows until their partner is behind the watermark, and right rows ahead of it",
            Freed::ByWatermark,
        ),
    };
    State { keeps: keeps.to_string(), freed }
}

//! Lowering of MATCH_RECOGNIZE.
//!
//! Rows that only come, ordered by a time with a watermark, are matched once they are final: a buffer below holds
//! them back until the watermark has passed them. Everything else is matched anew, partition by partition, whenever
//! it changes.

use std::fmt::Write;
use std::sync::Arc;

use sql::match_recognize::{Compiled, MatchRecognize};
use sql::{SqlError, SqlState};

use super::explain::{Freed, State};
use super::lower::{Lowering, schema_of};
use super::{NodeIndex, PlanKind, Properties, TimeKind};
use crate::operators::{Emit, Expiry};

/// How a pattern is matched, and by what.
pub struct MatchPlan {
    pub compiled: Arc<Compiled>,
    /// `Some`: rows come when they are final, by this column. `None`: partitions are matched anew.
    pub expiry: Option<Expiry>,
}

impl Lowering<'_> {
    pub(super) fn match_recognize(&mut self, node: &MatchRecognize) -> Result<NodeIndex, SqlError> {
        let input = self.lower_expanded(&node.input)?;
        let output = schema_of(datafusion::logical_expr::UserDefinedLogicalNodeCore::schema(node));
        let schema = Arc::clone(&self.node(input).schema);
        let compiled = Compiled::new(Arc::clone(&node.pattern), schema, Arc::clone(&output))
            .map_err(|error| sql::planner::from_datafusion(error, ""))?;
        let expiry = self.final_rows(input, node)?;
        let properties = self.node(input).properties.clone();
        let below = match expiry {
            Some(expiry) => self.buffer(input, expiry)?,
            None => input,
        };
        let mut text = format!("match_recognize {expiry:?} ");
        // The derived text is long, and complete.
        let _ = write!(text, "{:?}", node.pattern);
        let width = output.fields().len();
        Ok(self.add(
            PlanKind::MatchRecognize(Arc::new(MatchPlan { compiled: Arc::new(compiled), expiry })),
            text,
            vec![below],
            output,
            Properties {
                append_only: expiry.is_some(),
                key: None,
                time: vec![None; width],
                watermarks: properties.watermarks,
                delay_us: properties.delay_us,
                closed: expiry.is_some(),
            },
        ))
    }

    /// By what rows become final; `None` when they may still change or have no watermark.
    fn final_rows(&self, input: NodeIndex, node: &MatchRecognize) -> Result<Option<Expiry>, SqlError> {
        let properties = &self.node(input).properties;
        let pattern = &node.pattern;
        let time = pattern.time_column().filter(|column| {
            matches!(properties.time[*column], Some(TimeKind::Event)) && !properties.watermarks.is_empty()
        });
        let column = match time {
            Some(column) if properties.append_only => column,
            _ if self.options.emit == Emit::OnClose => {
                return Err(SqlError::new(
                    SqlState::InvalidDefinition,
                    "EMIT ON WINDOW CLOSE of MATCH_RECOGNIZE needs append-only rows, ordered first by the column of their watermark",
                )
                .with_hint("declare WATERMARK FOR ts and APPEND ONLY on the table and write ORDER BY ts, or leave the clause out"));
            }
            _ => return Ok(None),
        };
        if self.options.allowed_lateness_us > 0 {
            return Err(SqlError::unsupported("late = 'amend' does not go with MATCH_RECOGNIZE")
                .with_hint("matches are final; make the watermark's delay larger, or see late_rows"));
        }
        if pattern.pattern.any(&|part| matches!(part, sql::match_recognize::pattern::Pattern::PartitionEnd)) {
            return Err(SqlError::unsupported("$ in PATTERN of a materialized view over a stream of rows has no end to match")
                .with_hint("say with WITHIN how long a match may take, or use CREATE VIEW, which is computed when it is read"));
        }
        // A row stamped exactly at the watermark is still on time.
        Ok(Some(Expiry { column, add_us: 1, allowed_lateness_us: 0 }))
    }
}

/// What EXPLAIN says of the pattern's state.
pub(super) fn describe(plan: &MatchPlan) -> String {
    let pattern = &plan.compiled.pattern;
    let names =
        |columns: &[usize]| columns.iter().map(|c| pattern.names[*c].as_str()).collect::<Vec<_>>().join(", ");
    let mut text =
        format!("match_recognize partition=[{}] pattern=({})", names(&pattern.partition_by), pattern.pattern);
    if let Some(us) = pattern.within_us {
        let _ = write!(text, " within={}", sql::duration::display_us(us));
    }
    text.push_str(match plan.expiry {
        Some(_) => " emit=when final",
        None => " emit=updating",
    });
    text
}

/// What the operator keeps.
pub(super) fn state(plan: &MatchPlan) -> State {
    let pattern = &plan.compiled.pattern;
    if plan.expiry.is_none() {
        return State { keeps: "all rows of a partition".to_string(), freed: Freed::ByDeletes };
    }
    let mut keeps = String::from("rows of the match under way, until it is decided");
    match pattern.within_us {
        Some(_) => keeps.push_str(" or its time is over"),
        None => keeps.push_str(", without WITHIN whenever that may be"),
    }
    if pattern.remembers_partitions() {
        keeps.push_str(", and one entry per partition until the view is dropped");
    }
    State { keeps, freed: Freed::ByWatermark }
}

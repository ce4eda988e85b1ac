//! Lowering of joins `FOR SYSTEM_TIME AS OF PROCTIME()`.
//!
//! The order that counts is that of the log: a left row meets the right rows of the records before its own, and of its
//! own. [`crate::stepper`] cuts steps so that within one the right side's records come first.

use std::sync::Arc;

use arrow::datatypes::Schema;
use sql::lookup_join::LookupJoin;
use sql::{SqlError, SqlState};

use super::lower::{Lowering, joined_fields};
use super::{Grid, JoinPlan, NodeIndex, PlanKind, Properties, physical};
use crate::operators::Emit;
use crate::operators::join::JoinKind;

impl Lowering<'_> {
    pub(super) fn lookup_join(&mut self, join: &LookupJoin) -> Result<NodeIndex, SqlError> {
        let sides = [self.lower_expanded(&join.left)?, self.lower_expanded(&join.right)?];
        if sides.iter().any(|side| self.reads_clock(*side)) {
            return Err(SqlError::unsupported(
                "now() below a join FOR SYSTEM_TIME AS OF PROCTIME() is not supported",
            )
            .with_hint("filter by now() in a view over this one"));
        }
        let [l, r] = sides.map(|side| self.node(side));
        if !l.properties.append_only {
            return Err(SqlError::new(
                SqlState::InvalidDefinition,
                "the left side of a join FOR SYSTEM_TIME AS OF PROCTIME() has to be append-only",
            )
            .with_hint(
                "what a row was joined with is not remembered, so it can't be taken back; make the left table APPEND ONLY, or leave FOR SYSTEM_TIME out and the result follows all changes",
            ));
        }
        let fields = joined_fields([l, r], join, join.outer);
        let on = join.on_indices();
        let is_unique = r
            .properties
            .key
            .as_ref()
            .is_some_and(|key| key.iter().all(|column| on.iter().any(|(_, right)| right == column)));
        let mut time = l.properties.time.clone();
        time.resize(fields.len(), None);
        let properties = Properties {
            append_only: true,
            key: l.properties.key.clone().filter(|_| is_unique),
            time,
            ..l.properties.clone()
        };
        let residual = match &join.filter {
            None => None,
            Some(filter) => {
                let both = join.left.schema().join(join.right.schema());
                Some(physical(filter, &both.map_err(|e| SqlError::internal(e.to_string()))?)?)
            }
        };
        let kind = if join.outer { JoinKind::Left } else { JoinKind::Inner };
        let text = format!(
            "lookup join {kind:?} on={on:?} residual={:?}",
            residual.as_ref().map(|r| format!("{r} {r:?}"))
        );
        let plan = JoinPlan {
            kind,
            on,
            null_equals_null: false,
            residual,
            time: Default::default(),
            grid: Grid::POINT,
            emit: Emit::Updating,
            lookup: true,
        };
        let schema = Arc::new(Schema::new(fields));
        Ok(self.add(PlanKind::Join(Arc::new(plan)), text, sides.to_vec(), schema, properties))
    }

    pub(super) fn reads_clock(&self, node: NodeIndex) -> bool {
        let node = self.node(node);
        matches!(node.kind, PlanKind::TemporalFilter(_)) || node.inputs.iter().any(|i| self.reads_clock(*i))
    }
}

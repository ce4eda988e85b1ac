//! Lowering of inner joins.

use std::sync::Arc;

use arrow::datatypes::{Field, Schema};
use datafusion::common::{DFSchemaRef, NullEquality};
use datafusion::logical_expr::{Expr, Join, JoinType};
use sql::SqlError;

use super::lower::{Lowering, column, plain_column};
use super::{JoinPlan, NodeIndex, PlanKind, Properties, physical};
use crate::operators::Emit;

impl Lowering<'_> {
    pub(super) fn join(&mut self, join: &Join) -> Result<NodeIndex, SqlError> {
        if join.join_type != JoinType::Inner {
            return Err(SqlError::unsupported(format!(
                "{} JOIN is not supported in a materialized view yet",
                join.join_type.to_string().to_uppercase()
            ))
            .with_hint("INNER JOIN on equal columns is; CREATE VIEW takes all kinds"));
        }
        if join.on.is_empty() {
            return Err(SqlError::unsupported(
                "a join without an equality is not supported in a materialized view yet",
            )
            .with_hint("add an equality between columns of both sides to ON"));
        }
        let (left, left_keys, left_width) =
            self.side(&join.left, join.left.schema(), join.on.iter().map(|(l, _)| l))?;
        let (right, right_keys, right_width) =
            self.side(&join.right, join.right.schema(), join.on.iter().map(|(_, r)| r))?;
        let (l, r) = (self.node(left), self.node(right));
        let left_total = l.schema.fields().len();
        let fields: Vec<Field> =
            l.schema.fields().iter().chain(r.schema.fields().iter()).map(|f| Field::clone(f)).collect();
        let output = Arc::new(Schema::new(fields));
        let mut properties = Properties {
            append_only: l.properties.append_only && r.properties.append_only,
            key: match (&l.properties.key, &r.properties.key) {
                (Some(a), Some(b)) => {
                    Some(a.iter().copied().chain(b.iter().map(|c| c + left_total)).collect())
                }
                _ => None,
            },
            time: l.properties.time.iter().chain(&r.properties.time).copied().collect(),
            watermarks: l.properties.watermarks.union(&r.properties.watermarks).copied().collect(),
            closed: l.properties.closed || r.properties.closed,
        };
        // A row of one side may come long after the row of the other that it meets, so the result's
        // event times are in no order: windows above keep their state, unless the user chose final results.
        if self.options.emit == Emit::Updating {
            properties.time.fill(None);
        }
        let on: Vec<(usize, usize)> = left_keys.into_iter().zip(right_keys).collect();
        // The join's own columns, without the computed keys, in the planner's order.
        let kept: Vec<usize> = (0..left_width).chain(left_total..left_total + right_width).collect();
        let plan = JoinPlan {
            on: on.clone(),
            null_equals_null: join.null_equality == NullEquality::NullEqualsNull,
            residual: None,
        };
        let text = format!("join on={on:?} {:?}", join.null_equality);
        let node = self.add(PlanKind::Join(Arc::new(plan)), text, vec![left, right], output, properties);
        let mut node = self.select(node, &kept)?;
        if let Some(filter) = &join.filter {
            let both = join
                .left
                .schema()
                .join(join.right.schema())
                .map_err(|e| SqlError::internal(e.to_string()))?;
            node = self.map(node, Some(physical(filter, &both)?), None, None)?;
        }
        Ok(node)
    }

    /// One input with its key expressions as columns: node, key columns, number of its own columns.
    fn side<'e>(
        &mut self,
        plan: &datafusion::logical_expr::LogicalPlan,
        schema: &DFSchemaRef,
        keys: impl Iterator<Item = &'e Expr>,
    ) -> Result<(NodeIndex, Vec<usize>, usize), SqlError> {
        let input = self.lower_expanded(plan)?;
        let own = Arc::clone(&self.node(input).schema);
        let width = own.fields().len();
        let mut expressions: Vec<_> = (0..width).map(|c| column(&own, c)).collect();
        let mut fields: Vec<Field> = own.fields().iter().map(|f| Field::clone(f)).collect();
        let mut numbers = Vec::new();
        for key in keys {
            let bound = physical(key, schema)?;
            if let Some(c) = plain_column(&bound) {
                numbers.push(c);
                continue;
            }
            let data_type = bound.data_type(&own).map_err(|e| SqlError::internal(e.to_string()))?;
            fields.push(Field::new(key.schema_name().to_string(), data_type, true));
            expressions.push(bound);
            numbers.push(expressions.len() - 1);
        }
        let node = self.map(input, None, Some(expressions), Some(Arc::new(Schema::new(fields))))?;
        Ok((node, numbers, width))
    }
}

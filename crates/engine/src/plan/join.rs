//! Lowering of joins.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema};
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DFSchemaRef, JoinType, NullEquality};
use datafusion::logical_expr::{Expr, Join, LogicalPlan, Operator};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::{BinaryExpr, Column, IsNotNullExpr, IsNullExpr, NotExpr};
use datafusion::scalar::ScalarValue;
use sql::SqlError;

use super::interval_join::{Bounds, bounds};
use super::lower::{Lowering, column, columns_of, plain_column, schema_of};
use super::{Grid, JoinPlan, NodeIndex, PlanKind, Properties, TimeKind, physical};
use crate::operators::join::{JoinKind, JoinSideTime};
use crate::operators::{Emit, Expiry};

/// One input with its key expressions as columns.
struct Side {
    node: NodeIndex,
    keys: Vec<usize>,
    /// Number of the input's own columns; computed keys come after them.
    width: usize,
}

/// How long the rows of a join matter, by its columns.
struct JoinTime {
    sides: [JoinSideTime; 2],
    grid: Grid,
    /// Rows of the result may be stamped this much behind the watermark.
    delay_us: i64,
}

impl Lowering<'_> {
    pub(super) fn join(&mut self, join: &Join) -> Result<NodeIndex, SqlError> {
        let left_keys = join.on.iter().map(|(l, _)| l);
        let right_keys = join.on.iter().map(|(_, r)| r);
        let left = self.side(&join.left, join.left.schema(), left_keys)?;
        let right = self.side(&join.right, join.right.schema(), right_keys)?;
        let (kind, swapped) = match join.join_type {
            JoinType::Inner => (JoinKind::Inner, false),
            JoinType::Left => (JoinKind::Left, false),
            JoinType::Right => (JoinKind::Right, false),
            JoinType::Full => (JoinKind::Full, false),
            JoinType::LeftSemi => (JoinKind::Semi, false),
            JoinType::LeftAnti => (JoinKind::Anti, false),
            JoinType::LeftMark => (JoinKind::Mark, false),
            JoinType::RightSemi => (JoinKind::Semi, true),
            JoinType::RightAnti => (JoinKind::Anti, true),
            JoinType::RightMark => (JoinKind::Mark, true),
        };
        let residual = self.residual(join, &left, &right)?;
        let (left, right, residual) = if swapped {
            let (l, r) = (self.width(left.node), self.width(right.node));
            let turned = residual.map(|e| renumber(e, &|c| if c < l { c + r } else { c - l })).transpose()?;
            (right, left, turned)
        } else {
            (left, right, residual)
        };
        let nulls_equal = join.null_equality == NullEquality::NullEqualsNull;
        let own_filter = join.filter.is_some();
        let node = if join.null_aware {
            self.not_in(left, right, residual, own_filter, nulls_equal)?
        } else {
            self.join_sides(kind, left, right, residual, nulls_equal, bounds_of(join))?
        };
        self.rename(node, &schema_of(&join.schema))
    }

    fn width(&self, node: NodeIndex) -> usize {
        self.node(node).schema.fields().len()
    }

    /// The join's own column names; nullability is ours.
    fn rename(&mut self, node: NodeIndex, names: &Schema) -> Result<NodeIndex, SqlError> {
        let ours = Arc::clone(&self.node(node).schema);
        let columns = (0..ours.fields().len()).map(|c| column(&ours, c)).collect();
        let fields: Vec<Field> = ours
            .fields()
            .iter()
            .zip(names.fields())
            .map(|(ours, theirs)| Field::clone(ours).with_name(theirs.name()))
            .collect();
        self.map(node, None, Some(columns), Some(Arc::new(Schema::new(fields))))
    }

    /// The predicate beyond equality, over the columns of both sides with their computed keys.
    fn residual(
        &self,
        join: &Join,
        left: &Side,
        right: &Side,
    ) -> Result<Option<Arc<dyn PhysicalExpr>>, SqlError> {
        let Some(filter) = &join.filter else { return Ok(None) };
        if matches!(filter, Expr::Literal(ScalarValue::Boolean(Some(true)), _)) {
            return Ok(None);
        }
        let both =
            join.left.schema().join(join.right.schema()).map_err(|e| SqlError::internal(e.to_string()))?;
        let computed = self.width(left.node) - left.width;
        let own = left.width;
        debug_assert!(both.fields().len() == left.width + right.width, "schemas of both sides, joined");
        renumber(physical(filter, &both)?, &|c| if c < own { c } else { c + computed }).map(Some)
    }

    /// Joins two lowered sides; the result has the sides' own columns only.
    fn join_sides(
        &mut self,
        kind: JoinKind,
        left: Side,
        mut right: Side,
        mut residual: Option<Arc<dyn PhysicalExpr>>,
        null_equals_null: bool,
        bounds: Option<Bounds>,
    ) -> Result<NodeIndex, SqlError> {
        let left_total = self.width(left.node);
        let right_own = right.width;
        let mut bounds = bounds;
        if !kind.gives_pairs() {
            // Of the right side only what decides is kept.
            let mut needed: BTreeSet<usize> = right.keys.iter().copied().collect();
            needed.extend(residual.iter().flat_map(columns_of).filter_map(|c| c.checked_sub(left_total)));
            let needed: Vec<usize> = needed.into_iter().collect();
            let place = |c: usize| needed.iter().position(|n| *n == c).expect("needed columns are kept");
            right.keys = right.keys.iter().map(|c| place(*c)).collect();
            residual = residual
                .map(|e| {
                    renumber(e, &|c| if c < left_total { c } else { left_total + place(c - left_total) })
                })
                .transpose()?;
            bounds = bounds.map(|b| Bounds { right: place(b.right), ..b });
            right.node = self.select(right.node, &needed)?;
        }
        let time = self.join_time(&left, &right, bounds);
        let on_close = self.options.emit == Emit::OnClose && time.is_some();
        let nodes = match &time {
            // Final rows only: what may still change waits below.
            Some(time) if on_close => [
                self.held_until_final(left.node, time.sides[0])?,
                self.held_until_final(right.node, time.sides[1])?,
            ],
            _ => [left.node, right.node],
        };
        let [l, r] = nodes.map(|n| self.node(n));
        let pad = |fields: &Schema, nullable: bool| -> Vec<Field> {
            fields
                .fields()
                .iter()
                .map(|f| Field::clone(f).with_nullable(nullable || f.is_nullable()))
                .collect()
        };
        let mut fields = pad(&l.schema, matches!(kind, JoinKind::Right | JoinKind::Full));
        match kind {
            JoinKind::Semi | JoinKind::Anti => {}
            JoinKind::Mark => fields.push(Field::new("mark", DataType::Boolean, false)),
            _ => fields.extend(pad(&r.schema, matches!(kind, JoinKind::Left | JoinKind::Full))),
        }
        let properties =
            self.join_properties(kind, [l, r].map(|n| &n.properties), &left, &right, &time, on_close);
        let on: Vec<(usize, usize)> = left.keys.iter().copied().zip(right.keys.iter().copied()).collect();
        let sides = time.as_ref().map(|t| t.sides).unwrap_or_default();
        let emit = if on_close { Emit::OnClose } else { Emit::Updating };
        let text = format!(
            "join {kind:?} on={on:?} nulls={null_equals_null} residual={:?} {sides:?} {emit:?}",
            residual.as_ref().map(|r| format!("{r} {r:?}"))
        );
        let plan = JoinPlan {
            kind,
            on,
            null_equals_null,
            residual,
            time: sides,
            grid: time.as_ref().map_or(Grid::POINT, |t| t.grid),
            emit,
            lookup: false,
        };
        let node = self.add(
            PlanKind::Join(Arc::new(plan)),
            text,
            nodes.to_vec(),
            Arc::new(Schema::new(fields)),
            properties,
        );
        // Without the computed keys.
        let kept: Vec<usize> = match kind {
            JoinKind::Semi | JoinKind::Anti => (0..left.width).collect(),
            JoinKind::Mark => (0..left.width).chain([left_total]).collect(),
            _ => (0..left.width).chain(left_total..left_total + right_own).collect(),
        };
        self.select(node, &kept)
    }

    /// Holds back rows that may still be retracted, until their window closes.
    fn held_until_final(&mut self, node: NodeIndex, time: JoinSideTime) -> Result<NodeIndex, SqlError> {
        let properties = &self.node(node).properties;
        match time.late {
            Some(expiry) if !properties.append_only && !properties.closed => self.buffer(node, expiry),
            _ => Ok(node),
        }
    }

    fn join_properties(
        &self,
        kind: JoinKind,
        [l, r]: [&Properties; 2],
        left: &Side,
        right: &Side,
        time: &Option<JoinTime>,
        on_close: bool,
    ) -> Properties {
        let shift = l.time.len();
        let unique = |p: &Properties, keys: &[usize]| {
            p.key.as_ref().is_some_and(|key| key.iter().all(|k| keys.contains(k)))
        };
        let both = |a: &[usize], b: &[usize]| -> Vec<usize> {
            a.iter().copied().chain(b.iter().map(|c| c + shift)).collect()
        };
        let key = match (kind, &l.key, &r.key) {
            (JoinKind::Semi | JoinKind::Anti | JoinKind::Mark, Some(a), _) => Some(a.clone()),
            // At most one partner: the other side's key does.
            (JoinKind::Inner | JoinKind::Left, Some(a), Some(_)) if unique(r, &right.keys) => Some(a.clone()),
            (JoinKind::Inner | JoinKind::Right, Some(_), Some(b)) if unique(l, &left.keys) => {
                Some(both(&[], b))
            }
            // A full join's rows without partner have NULLs in either key, which may be a key's own NULL.
            (JoinKind::Inner | JoinKind::Left | JoinKind::Right, Some(a), Some(b)) => Some(both(a, b)),
            _ => None,
        };
        let inputs_append_only = l.append_only && r.append_only;
        let append_only = match kind {
            JoinKind::Inner | JoinKind::Semi => inputs_append_only,
            _ => on_close && (l.append_only || l.closed) && (r.append_only || r.closed),
        };
        let mut times = l.time.clone();
        match kind {
            JoinKind::Semi | JoinKind::Anti => {}
            JoinKind::Mark => times.push(None),
            _ => times.extend(r.time.iter().copied()),
        }
        // A row of one side may come long after the row of the other that it meets, so the result's event times are
        // in no order: windows above keep their state, unless partners are near in time or the user chose final
        // results.
        if self.options.emit == Emit::Updating && time.is_none() {
            times.fill(None);
        }
        let mut watermarks = l.watermarks.clone();
        watermarks.extend(r.watermarks.iter().copied());
        Properties {
            append_only,
            key,
            time: times,
            watermarks,
            closed: on_close || l.closed || r.closed,
            delay_us: l.delay_us.max(r.delay_us).saturating_add(time.as_ref().map_or(0, |t| t.delay_us)),
        }
    }

    /// When partners of a row can't come any more: both sides are in the same window, or near each other in event
    /// time.
    fn join_time(&self, left: &Side, right: &Side, bounds: Option<Bounds>) -> Option<JoinTime> {
        let [l, r] = [left.node, right.node].map(|n| &self.node(n).properties);
        if l.watermarks.is_empty() || r.watermarks.is_empty() {
            return None;
        }
        let lateness = self.options.allowed_lateness_us;
        let expiry = |column: usize, add_us: i64| Expiry { column, add_us, allowed_lateness_us: lateness };
        for (a, b) in left.keys.iter().zip(&right.keys) {
            let (add_us, grid) = match (l.time[*a], r.time[*b]) {
                (Some(TimeKind::WindowEnd { grid }), Some(TimeKind::WindowEnd { grid: other }))
                    if grid == other =>
                {
                    (0, grid)
                }
                (
                    Some(TimeKind::WindowStart { size_us, grid }),
                    Some(TimeKind::WindowStart { size_us: size, grid: other }),
                ) if grid == other && size_us == size => (size_us, grid),
                _ => continue,
            };
            let side = |column| JoinSideTime {
                late: Some(expiry(column, add_us)),
                drop: Some(expiry(column, add_us)),
            };
            return Some(JoinTime { sides: [side(*a), side(*b)], grid, delay_us: 0 });
        }
        // Rows of a table with updates may be retracted at any time, and their partners have to be there then.
        if !l.append_only || !r.append_only {
            return None;
        }
        let event = |p: &Properties, c: usize| matches!(p.time.get(c), Some(Some(TimeKind::Event)));
        let same_moment = left.keys.iter().zip(&right.keys).find(|(a, b)| event(l, **a) && event(r, **b));
        let bounds = match same_moment {
            Some((a, b)) => Bounds { left: *a, right: *b, from_us: 0, to_us: 0 },
            None => bounds.filter(|b| event(l, b.left) && event(r, b.right))?,
        };
        // Rows stamped at the watermark are still on time, hence the microsecond. A row behind the watermark is late:
        // partners of it may have been dropped.
        let side = |column, partners_until_us: i64| JoinSideTime {
            late: Some(expiry(column, 1)),
            drop: Some(expiry(column, partners_until_us.saturating_add(1))),
        };
        Some(JoinTime {
            sides: [side(bounds.left, 0i64.saturating_sub(bounds.from_us)), side(bounds.right, bounds.to_us)],
            grid: Grid::POINT,
            delay_us: bounds.from_us.saturating_abs().max(bounds.to_us.saturating_abs()),
        })
    }

    /// `x NOT IN (SELECT y ...)`: true when every `x = y` is false, so a NULL on either side makes it NULL.
    ///
    /// With nothing else in the predicate it is three anti joins: rows with a partner leave, all rows leave when some
    /// y is NULL, and rows whose x is NULL leave when there is any y at all.
    fn not_in(
        &mut self,
        left: Side,
        right: Side,
        residual: Option<Arc<dyn PhysicalExpr>>,
        own_filter: bool,
        null_equals_null: bool,
    ) -> Result<NodeIndex, SqlError> {
        let plain = left.keys.len() == 1 && !own_filter;
        if !plain {
            return self.correlated_not_in(left, right, residual, null_equals_null);
        }
        let (x, y) = (left.keys[0], right.keys[0]);
        let keyless = |node: NodeIndex, width: usize| Side { node, keys: vec![], width };
        let (width, right_width) = (left.width, right.width);
        let is_null = |node: NodeIndex, c: usize, lowering: &Self| -> Arc<dyn PhysicalExpr> {
            Arc::new(IsNullExpr::new(column(&lowering.node(node).schema, c)))
        };
        let null_y = is_null(right.node, y, self);
        let null_ys = self.map(right.node, Some(null_y), None, None)?;
        let null_x = is_null(left.node, x, self);
        let known_x: Arc<dyn PhysicalExpr> = Arc::new(NotExpr::new(Arc::clone(&null_x)));
        let null_xs = self.map(left.node, Some(null_x), None, None)?;
        let known_xs = self.map(left.node, Some(known_x), None, None)?;
        let null_xs = self.join_sides(
            JoinKind::Anti,
            keyless(null_xs, width),
            keyless(right.node, right_width),
            None,
            false,
            None,
        )?;
        let known = Side { node: known_xs, keys: left.keys, width };
        let partnerless = self.join_sides(JoinKind::Anti, known, right, None, false, None)?;
        let partnerless = self.join_sides(
            JoinKind::Anti,
            keyless(partnerless, width),
            keyless(null_ys, right_width),
            None,
            false,
            None,
        )?;
        let schema = Arc::clone(&self.node(null_xs).schema);
        self.union(vec![null_xs, partnerless], schema)
    }

    /// NOT IN with a correlated subquery: an anti join on `(x = y) IS NOT FALSE`. The first key is the IN's.
    fn correlated_not_in(
        &mut self,
        mut left: Side,
        mut right: Side,
        residual: Option<Arc<dyn PhysicalExpr>>,
        null_equals_null: bool,
    ) -> Result<NodeIndex, SqlError> {
        let (l, r) = (Arc::clone(&self.node(left.node).schema), Arc::clone(&self.node(right.node).schema));
        let total = l.fields().len();
        let residual = if left.keys.is_empty() {
            residual
        } else {
            let (x, y) = (left.keys.remove(0), right.keys.remove(0));
            let y: Arc<dyn PhysicalExpr> = Arc::new(Column::new(r.field(y).name(), y + total));
            let equal: Arc<dyn PhysicalExpr> = Arc::new(BinaryExpr::new(column(&l, x), Operator::Eq, y));
            let known: Arc<dyn PhysicalExpr> = Arc::new(IsNotNullExpr::new(Arc::clone(&equal)));
            let unequal: Arc<dyn PhysicalExpr> = Arc::new(NotExpr::new(equal));
            let surely_unequal: Arc<dyn PhysicalExpr> =
                Arc::new(BinaryExpr::new(known, Operator::And, unequal));
            let may_be_equal: Arc<dyn PhysicalExpr> = Arc::new(NotExpr::new(surely_unequal));
            Some(match residual {
                Some(rest) => Arc::new(BinaryExpr::new(may_be_equal, Operator::And, rest)),
                None => may_be_equal,
            })
        };
        self.join_sides(JoinKind::Anti, left, right, residual, null_equals_null, None)
    }

    /// One input with its key expressions as columns.
    fn side<'e>(
        &mut self,
        plan: &LogicalPlan,
        schema: &DFSchemaRef,
        keys: impl Iterator<Item = &'e Expr>,
    ) -> Result<Side, SqlError> {
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
        Ok(Side { node, keys: numbers, width })
    }
}

fn bounds_of(join: &Join) -> Option<Bounds> {
    bounds(join.filter.as_ref()?, join.left.schema(), join.right.schema())
}

/// The expression with other column numbers.
fn renumber(
    expression: Arc<dyn PhysicalExpr>,
    number: &dyn Fn(usize) -> usize,
) -> Result<Arc<dyn PhysicalExpr>, SqlError> {
    expression
        .transform_up(|e| {
            let moved = (e.as_ref() as &dyn std::any::Any)
                .downcast_ref::<Column>()
                .map(|c| Arc::new(Column::new(c.name(), number(c.index()))) as Arc<dyn PhysicalExpr>);
            Ok(match moved {
                Some(column) => Transformed::yes(column),
                None => Transformed::no(e),
            })
        })
        .map(|t| t.data)
        .map_err(|e| SqlError::internal(e.to_string()))
}

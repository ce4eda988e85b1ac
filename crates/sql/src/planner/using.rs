//! Columns that outer joins merge: `USING` and `NATURAL`.
//!
//! DataFusion gives a merged column as one side has it, which is NULL in rows that the other side alone has. PostgreSQL
//! gives the value that is there, and so do we:
//!
//! ```text
//!   SELECT *, c FROM a LEFT JOIN b USING (c)       SELECT a.c AS c, a.x, b.y, c
//!   SELECT *, c FROM a RIGHT JOIN b USING (c)      SELECT b.c AS c, a.x, b.y, b.c AS c
//!   SELECT *, c FROM a FULL JOIN b USING (c)       SELECT coalesce(a.c, b.c) AS c, a.x, b.y, coalesce(a.c, b.c) AS c
//! ```
//!
//! `a.c` and `b.c` are what they were. A join that merges `c` once more compares that value. Of subqueries the columns are
//! not known yet: `*` becomes `* REPLACE (value AS c)`, with `c` where DataFusion has it. REPLACE also takes the place of
//! another relation's column of that name; DataFusion refuses two columns of one name, so that this is an error.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use datafusion::common::Result;
use datafusion::sql::sqlparser::ast::{
    self, BinaryOperator, Expr, Ident, Join, JoinConstraint, JoinOperator, OrderByKind, Query,
    ReplaceSelectElement, ReplaceSelectItem, Select, SelectItem, SetExpr, Spanned, TableFactor,
    TableWithJoins, VisitorMut,
};

use super::relations::located;
use crate::walk::walk;
use crate::{Catalog, SqlError};

type ByName = BTreeMap<String, Expr>;

/// Merged columns by name, with what they are.
#[derive(Default)]
struct Merged {
    /// Of all joins.
    all: ByName,
    /// Of outer joins: where `*` may have the wrong one.
    outer: ByName,
    /// Those that unqualified names do not find: of right and full joins, and of several joins.
    hidden: ByName,
    /// Those of which DataFusion would compare another column in the next join.
    other: BTreeSet<String>,
}

/// What relations are called in a statement, for `NATURAL`.
#[derive(Default)]
pub(super) struct Names<'a> {
    pub catalog: Option<&'a Catalog>,
    /// WITH queries, which hide the catalog's relations.
    pub queries: Vec<String>,
}

impl Names<'_> {
    pub(super) fn add_queries(&mut self, query: &Query) {
        let queries = query.with.iter().flat_map(|with| &with.cte_tables);
        self.queries.extend(queries.map(|query| folded(&query.alias.name)));
    }
}

/// Gives the merged columns of a SELECT's outer joins their values.
///
/// # Errors
///
/// Joins whose merged columns can't be told.
pub(super) fn merge(select: &mut Select, names: &Names<'_>) -> Result<()> {
    let (mut outer, mut hidden) = (ByName::new(), ByName::new());
    let mut all_columns = Some(Vec::new());
    let mut is_any = false;
    for table in &mut select.from {
        let mut merged = Merged::default();
        let columns = gather(table, names, &mut merged)?.map(|visible| visible.items(&merged.all));
        all_columns = all_columns.zip(columns).map(|(before, these)| [before, these].concat());
        is_any |= !merged.all.is_empty();
        // Of two columns of one name, none is meant by it.
        outer.extend(merged.outer);
        for (name, value) in merged.hidden {
            if hidden.remove(&name).is_none() {
                hidden.insert(name, value);
            }
        }
    }
    if !is_any {
        return Ok(());
    }
    if !hidden.is_empty() {
        for item in &mut select.projection {
            if let SelectItem::UnnamedExpr(Expr::Identifier(name)) = item
                && hidden.contains_key(&folded(name))
            {
                *item =
                    SelectItem::ExprWithAlias { expr: Expr::Identifier(name.clone()), alias: name.clone() };
            }
        }
        // FROM is not touched: its conditions see the sides themselves.
        let from = std::mem::take(&mut select.from);
        let _ = walk(select, &mut Replacing { hidden: &hidden, depth: 0 });
        select.from = from;
    }
    for number in (0..select.projection.len()).rev() {
        let SelectItem::Wildcard(options) = &mut select.projection[number] else { continue };
        match &all_columns {
            Some(columns) => drop(select.projection.splice(number..=number, columns.iter().cloned())),
            None if options.opt_replace.is_none() && !outer.is_empty() => {
                let items = outer.iter().map(|(name, expr)| {
                    let column_name = Ident::with_quote('"', name);
                    Box::new(ReplaceSelectElement { expr: expr.clone(), column_name, as_keyword: true })
                });
                options.opt_replace = Some(ReplaceSelectItem { items: items.collect() });
            }
            None => {}
        }
    }
    Ok(())
}

/// A relation of the catalog, with those of its columns that are not merged.
struct Relation {
    name: Ident,
    columns: Vec<String>,
}

/// What `*` stands for.
#[derive(Default)]
struct Visible {
    merged: Vec<String>,
    relations: Vec<Relation>,
}

impl Visible {
    fn has(&self, column: &String) -> bool {
        self.merged.contains(column) || self.relations.iter().any(|r| r.columns.contains(column))
    }

    fn join(&mut self, right: Visible, merged: &[String]) {
        self.relations.extend(right.relations);
        let both = std::mem::take(&mut self.merged).into_iter().chain(right.merged);
        self.merged = merged.to_vec();
        self.merged.extend(both.filter(|column| !merged.contains(column)));
        for relation in &mut self.relations {
            relation.columns.retain(|column| !merged.contains(column));
        }
    }

    /// As PostgreSQL has them: the merged columns, then the others of each relation.
    fn items(&self, merged: &ByName) -> Vec<SelectItem> {
        let quoted = |name: &String| Ident::with_quote('"', name);
        let first = self.merged.iter().filter_map(|name| {
            let expr = merged.get(name)?.clone();
            Some(SelectItem::ExprWithAlias { expr, alias: quoted(name) })
        });
        let others = self.relations.iter().flat_map(|relation| {
            let column = |column| Expr::CompoundIdentifier(vec![relation.name.clone(), quoted(column)]);
            relation.columns.iter().map(column).map(SelectItem::UnnamedExpr).collect::<Vec<_>>()
        });
        first.chain(others).collect()
    }
}

/// ORDER BY names the result's columns first, and then the merged ones.
pub(super) fn merge_order(query: &mut Query, names: &Names<'_>) -> Result<()> {
    let SetExpr::Select(select) = query.body.as_ref() else { return Ok(()) };
    let Some(order) = &mut query.order_by else { return Ok(()) };
    let mut hidden = ByName::new();
    for mut table in select.from.iter().filter(|table| !table.joins.is_empty()).cloned() {
        let mut merged = Merged::default();
        gather(&mut table, names, &mut merged)?;
        hidden.extend(merged.hidden);
    }
    for item in &select.projection {
        match item {
            SelectItem::Wildcard(_) => hidden.clear(),
            SelectItem::ExprWithAlias { alias: name, .. }
            | SelectItem::UnnamedExpr(Expr::Identifier(name)) => {
                hidden.remove(&folded(name));
            }
            _ => {}
        }
    }
    if let OrderByKind::Expressions(expressions) = &mut order.kind
        && !hidden.is_empty()
    {
        for expression in expressions {
            let _ = walk(&mut expression.expr, &mut Replacing { hidden: &hidden, depth: 0 });
        }
    }
    Ok(())
}

/// Adds the merged columns of all joins of a relation, and gives what is visible of it, if that is known.
fn gather(table: &mut TableWithJoins, names: &Names<'_>, merged: &mut Merged) -> Result<Option<Visible>> {
    let visible = |relation: &mut TableFactor, merged: &mut Merged| match relation {
        TableFactor::NestedJoin { table_with_joins, alias: None } => gather(table_with_joins, names, merged),
        relation => Ok(visible(relation, names)),
    };
    let mut known = visible(&mut table.relation, merged)?;
    // What stands on the left of a join, if that is one relation.
    let mut left = relation_name(&table.relation);
    for join in &mut table.joins {
        let right = visible(&mut join.relation, merged)?;
        name_natural(join, known.as_ref(), right.as_ref())?;
        let columns = merged.add(join, left.take())?;
        known = known.zip(right).map(|(mut left, right)| {
            left.join(right, &columns);
            left
        });
        // The right side of a semi-join is not seen, and other joins are not ours.
        use JoinOperator::*;
        if !matches!(
            join.join_operator,
            Join(_)
                | Inner(_)
                | Left(_)
                | LeftOuter(_)
                | Right(_)
                | RightOuter(_)
                | FullOuter(_)
                | CrossJoin(_)
                | AsOf { .. }
        ) {
            known = None;
        }
    }
    Ok(known)
}

impl Merged {
    /// Adds the merged columns of a join, whose left side is the relation `left` or several, and gives their names.
    fn add(&mut self, join: &mut ast::Join, left: Option<Ident>) -> Result<Vec<String>> {
        use JoinOperator::*;
        let relation = relation_name(&join.relation);
        let span = join.relation.span();
        let (side, constraint) = match &mut join.join_operator {
            Join(c) | Inner(c) => (Side::Inner, c),
            Left(c) | LeftOuter(c) | AsOf { constraint: c, .. } => (Side::Left, c),
            Right(c) | RightOuter(c) => (Side::Right, c),
            FullOuter(c) => (Side::Both, c),
            _ => return Ok(Vec::new()),
        };
        let JoinConstraint::Using(columns) = constraint else { return Ok(Vec::new()) };
        let merged = columns.iter().filter_map(|name| name.0.first()?.as_ident().map(folded)).collect();
        let mut sides = Vec::new();
        let mut is_plain = true;
        for name in columns.iter() {
            let [ast::ObjectNamePart::Identifier(name)] = name.0.as_slice() else { continue };
            let of_left = self.all.get(&folded(name)).cloned().unwrap_or_else(|| match &left {
                Some(left) => Expr::CompoundIdentifier(vec![left.clone(), name.clone()]),
                None => Expr::Identifier(name.clone()),
            });
            let of_right = || match &relation {
                Some(relation) => Ok(Expr::CompoundIdentifier(vec![relation.clone(), name.clone()])),
                None => {
                    let error = SqlError::unsupported(
                        "USING of a RIGHT or FULL JOIN, or after one, needs a name for the relation on its right",
                    );
                    Err(located(error.with_hint("add AS name to it, or write ON"), span))
                }
            };
            // DataFusion would compare the column of one side.
            is_plain &= !self.other.contains(&folded(name));
            sides.push((of_left.clone(), of_right()));
            let value = match side {
                Side::Inner | Side::Left => of_left,
                Side::Right => of_right()?,
                Side::Both => super::rewrites::call("coalesce", vec![of_left, of_right()?])
                    .map_err(|error| located(error, name.span))?,
            };
            let name = folded(name);
            if matches!(side, Side::Right | Side::Both) {
                self.other.insert(name.clone());
            }
            if self.other.contains(&name) || self.all.contains_key(&name) {
                self.hidden.insert(name.clone(), value.clone());
            }
            if !matches!(side, Side::Inner) || self.outer.contains_key(&name) {
                self.outer.insert(name.clone(), value.clone());
            }
            self.all.insert(name, value);
        }
        if !is_plain {
            let equal = |(left, right): (Expr, Result<Expr>)| {
                let (left, right) = (Box::new(left), Box::new(right?));
                Ok(Expr::BinaryOp { left, op: BinaryOperator::Eq, right })
            };
            let conditions = sides.into_iter().map(equal).collect::<Result<Vec<Expr>>>()?;
            let both = |left, right| Expr::BinaryOp {
                left: Box::new(left),
                op: BinaryOperator::And,
                right: Box::new(right),
            };
            *constraint =
                conditions.into_iter().reduce(both).map_or(JoinConstraint::None, JoinConstraint::On);
        }
        Ok(merged)
    }
}

/// Which side's column a merged one is.
enum Side {
    /// Any: they are equal.
    Inner,
    Left,
    Right,
    Both,
}

/// NATURAL joins as USING, by the columns that the catalog knows.
fn name_natural(join: &mut Join, left: Option<&Visible>, right: Option<&Visible>) -> Result<()> {
    use JoinOperator::*;
    let span = join.relation.span();
    let (constraint, is_outer) = match &mut join.join_operator {
        Join(c) | Inner(c) => (c, false),
        Left(c) | LeftOuter(c) | Right(c) | RightOuter(c) | FullOuter(c) => (c, true),
        _ => return Ok(()),
    };
    if !matches!(constraint, JoinConstraint::Natural) {
        return Ok(());
    }
    let (Some(left), Some(right)) = (left, right) else {
        if !is_outer {
            return Ok(());
        }
        let error = SqlError::unsupported("outer NATURAL joins of subqueries are not supported");
        return Err(located(error.with_hint("write USING and the columns"), span));
    };
    let mut common = Vec::new();
    for relation in &left.relations {
        common.extend(relation.columns.iter().filter(|column| right.has(column)));
    }
    common.extend(left.merged.iter().filter(|column| right.has(column)));
    if !common.is_empty() {
        let names = common.into_iter().map(|name| ast::ObjectName::from(Ident::with_quote('"', name)));
        *constraint = JoinConstraint::Using(names.collect());
    }
    Ok(())
}

/// The columns of a relation of the catalog.
fn visible(relation: &TableFactor, names: &Names<'_>) -> Option<Visible> {
    let TableFactor::Table { name, alias, args: None, .. } = relation else { return None };
    let [ast::ObjectNamePart::Identifier(known)] = name.0.as_slice() else { return None };
    let known = folded(known);
    if names.queries.contains(&known) || alias.as_ref().is_some_and(|alias| !alias.columns.is_empty()) {
        return None;
    }
    let columns = names.catalog?.columns(&known);
    let relation = Relation { name: relation_name(relation)?, columns };
    (!relation.columns.is_empty()).then(|| Visible { merged: Vec::new(), relations: vec![relation] })
}

/// What the columns of a relation are qualified with.
fn relation_name(relation: &TableFactor) -> Option<Ident> {
    let (alias, name) = match relation {
        TableFactor::Table { alias, name, .. } => (alias, name.0.last().and_then(|part| part.as_ident())),
        TableFactor::Derived { alias, .. } | TableFactor::NestedJoin { alias, .. } => (alias, None),
        _ => return None,
    };
    alias.as_ref().map(|alias| alias.name.clone()).or_else(|| name.cloned())
}

fn folded(name: &Ident) -> String {
    if name.quote_style.is_some() { name.value.clone() } else { name.value.to_lowercase() }
}

/// Replaces unqualified names in a SELECT, not in queries inside of it.
struct Replacing<'a> {
    hidden: &'a ByName,
    depth: usize,
}

impl VisitorMut for Replacing<'_> {
    type Break = ();

    fn pre_visit_query(&mut self, _query: &mut Query) -> ControlFlow<()> {
        self.depth += 1;
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _query: &mut Query) -> ControlFlow<()> {
        self.depth -= 1;
        ControlFlow::Continue(())
    }

    // Afterwards, so that what is put in is not looked at again.
    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if self.depth == 0
            && let Expr::Identifier(name) = expr
            && let Some(value) = self.hidden.get(&folded(name))
        {
            *expr = value.clone();
        }
        ControlFlow::Continue(())
    }
}

//! Planning of joins by time: ASOF JOIN, and FOR SYSTEM_TIME AS OF a time.
//!
//! DataFusion plans an ordinary join of the same sides and names, with a call of a marker function in its filter that
//! says how the join was written. Once the query is bound, [`rewrite`] takes the marked joins for what they are:
//!
//! ```text
//! a ASOF JOIN b ON a.k = b.k AND a.ts >= b.ts
//!     Join: filter a.k = b.k AND a.ts >= b.ts AND marker("asof")       --rewrite-->       AsofJoin: a.k = b.k, a.ts >= b.ts
//! ```

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::common::tree_node::Transformed;
use datafusion::common::{Column, DFSchema, DataFusionError, Diagnostic, Result, Span, internal_err};
use datafusion::execution::SessionState;
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::planner::{
    PlannedRelation, RelationPlanner, RelationPlannerContext, RelationPlanning,
};
use datafusion::logical_expr::type_coercion::binary::comparison_coercion;
use datafusion::logical_expr::utils::{conjunction, split_conjunction_owned};
use datafusion::logical_expr::{
    BinaryExpr, Cast, Expr, ExprSchemable, Extension, Join, JoinConstraint, JoinType, LogicalPlan,
    LogicalPlanBuilder, Operator, TableScan, UserDefinedLogicalNode, lit,
};
use datafusion::sql::sqlparser::ast::{self, JoinOperator, Spanned, TableFactor, TableWithJoins};

use super::relations::located;
use super::rewrites::marked;
use crate::asof_join::{AsofComparison, AsofJoin, ColumnPair};
use crate::lookup_join::LookupJoin;
use crate::parser::asof_join::Form;
use crate::types::name_of;
use crate::{Catalog, SqlError, SqlState};

const MARKER: &str = "shopstream_asof_join";
const USAGE: &str = "write a ASOF [LEFT] JOIN b ON a.key = b.key AND a.time >= b.time";

/// Makes the last join by time and all before it one relation, which [`AsofRelations`] plans.
pub(super) fn nest(table: &mut TableWithJoins) {
    let Some(last) = table.joins.iter().rposition(is_asof) else { return };
    let rest = table.joins.split_off(last + 1);
    let joins = std::mem::replace(&mut table.joins, rest);
    // The copy is a few names.
    let inner = TableWithJoins { relation: table.relation.clone(), joins };
    table.relation = TableFactor::NestedJoin { table_with_joins: Box::new(inner), alias: None };
}

/// [`nest`] for joins in parentheses, which need it only when the last of them is another.
pub(super) fn nest_inside(table: &mut TableWithJoins) {
    if !table.joins.last().is_some_and(is_asof) {
        nest(table);
    }
}

fn is_asof(join: &ast::Join) -> bool {
    matches!(join.join_operator, JoinOperator::AsOf { .. })
}

/// Plans relations that end with a join by time.
#[derive(Debug)]
pub(super) struct AsofRelations;

impl RelationPlanner for AsofRelations {
    fn plan_relation(
        &self,
        relation: TableFactor,
        context: &mut dyn RelationPlannerContext,
    ) -> Result<RelationPlanning> {
        match relation {
            TableFactor::NestedJoin { mut table_with_joins, alias }
                if table_with_joins.joins.last().is_some_and(is_asof) =>
            {
                let join = table_with_joins.joins.pop().expect("checked by the guard");
                let plan = plan_marked(*table_with_joins, join, context)?;
                Ok(RelationPlanning::Planned(Box::new(PlannedRelation::new(plan, alias))))
            }
            other => Ok(RelationPlanning::Original(Box::new(other))),
        }
    }
}

/// An ordinary join with a marker.
fn plan_marked(
    mut left: TableWithJoins,
    join: ast::Join,
    context: &mut dyn RelationPlannerContext,
) -> Result<LogicalPlan> {
    let span = join.relation.span();
    let JoinOperator::AsOf { match_condition, constraint } = join.join_operator else {
        return internal_err!("only joins by time are planned here");
    };
    if matches!(&join.relation, TableFactor::Derived { lateral: true, .. } | TableFactor::UNNEST { .. }) {
        let error = SqlError::unsupported("LATERAL in a join by time is not supported");
        return Err(located(error.with_hint(USAGE), span));
    }
    let Some((form, outer, condition)) = unmarked(match_condition) else {
        let error = SqlError::new(SqlState::SyntaxError, "MATCH_CONDITION takes one comparison of two times");
        return Err(located(error.with_hint(USAGE), span));
    };
    nest(&mut left);
    // DataFusion takes no outer join without a condition.
    let constraint = match constraint {
        ast::JoinConstraint::None => ast::JoinConstraint::On(crate::parse_expr("true").map_err(external)?),
        other => other,
    };
    let join_operator =
        if outer { JoinOperator::LeftOuter(constraint) } else { JoinOperator::Inner(constraint) };
    left.joins.push(ast::Join { relation: join.relation, global: false, join_operator });
    let plan = context.plan(TableFactor::NestedJoin { table_with_joins: Box::new(left), alias: None })?;
    let LogicalPlan::Join(mut join) = plan else {
        return internal_err!("a join is planned as a join");
    };
    let mut arguments = vec![lit(form as u8)];
    if let Some(condition) = condition {
        arguments.push(context.sql_to_expr(condition, &join.schema)?);
    }
    join.filter = conjunction(join.filter.take().into_iter().chain([marked(MARKER, arguments)]));
    Ok(LogicalPlan::Join(join))
}

/// What the parser put into MATCH_CONDITION: the form, whether left rows without partner stay, and the user's condition.
fn unmarked(condition: ast::Expr) -> Option<(Form, bool, Option<ast::Expr>)> {
    let of_mark = |expr: &ast::Expr| match expr {
        ast::Expr::Identifier(name) => Form::of_mark(&name.value),
        _ => None,
    };
    match condition {
        ast::Expr::BinaryOp { left, op: ast::BinaryOperator::And, right } => {
            of_mark(&left).map(|(form, outer)| (form, outer, Some(*right)))
        }
        other => of_mark(&other).map(|(form, outer)| (form, outer, None)),
    }
}

/// Takes marked joins for what they are.
///
/// # Errors
///
/// Conditions that are no equalities and one inequality; histories of tables that have none.
pub(super) fn rewrite(plan: LogicalPlan, state: &SessionState) -> Result<LogicalPlan> {
    let catalog = state.config().get_extension::<Catalog>();
    plan.transform_up_with_subqueries(|node| match node {
        LogicalPlan::Join(join) if join.filter.as_ref().is_some_and(is_marked) => {
            Ok(Transformed::yes(Conditions::of(join, catalog.as_deref())?.plan()?))
        }
        other => Ok(Transformed::no(other)),
    })
    .map(|transformed| transformed.data)
}

/// The marker is the last conjunct.
fn is_marked(filter: &Expr) -> bool {
    match filter {
        Expr::BinaryExpr(BinaryExpr { op: Operator::And, right, .. }) => is_marked(right),
        Expr::ScalarFunction(function) => function.func.name() == MARKER,
        _ => false,
    }
}

/// A marked join, taken apart.
struct Conditions {
    left: Arc<LogicalPlan>,
    right: Arc<LogicalPlan>,
    outer: bool,
    schema: Arc<DFSchema>,
    on: Vec<(Expr, Expr)>,
    time: Option<(Expr, AsofComparison, Expr)>,
    /// FOR SYSTEM_TIME AS OF PROCTIME(), which takes any condition and no time.
    is_lookup: bool,
    filter: Vec<Expr>,
}

impl Conditions {
    fn of(join: Join, catalog: Option<&Catalog>) -> Result<Conditions> {
        let mut conjuncts = join.filter.map(split_conjunction_owned).unwrap_or_default();
        let Some(Expr::ScalarFunction(ScalarFunction { args, .. })) = conjuncts.pop() else {
            return internal_err!("a marked join has a marker");
        };
        let mut args = args.into_iter();
        let form = args.next();
        let form = [Form::On, Form::Match, Form::History, Form::Lookup]
            .into_iter()
            .find(|known| form == Some(lit(*known as u8)));
        let Some(form) = form else { return internal_err!("a marker has a form") };
        let given = args.next();
        let mut conditions = Conditions {
            outer: join.join_type == JoinType::Left,
            left: join.left,
            right: join.right,
            schema: join.schema,
            on: join.on,
            time: None,
            is_lookup: false,
            filter: Vec::new(),
        };
        for conjunct in conjuncts.into_iter().filter(|conjunct| *conjunct != lit(true)) {
            match form {
                Form::Lookup => conditions.add_any(conjunct)?,
                _ => conditions.add(conjunct, form == Form::On)?,
            }
        }
        match (form, given) {
            (Form::On, None)
                if conditions.time.is_none() && join.join_constraint == JoinConstraint::Using =>
            {
                // DuckDB: the last column of USING is the time.
                let last = conditions.on.pop();
                conditions.time = last.map(|(left, right)| (left, AsofComparison::GtEq, right));
            }
            (Form::Match, Some(given)) => {
                let is_comparison = matches!(&given, Expr::BinaryExpr(b) if comparison(b.op).is_some());
                if !is_comparison {
                    return Err(refused(&given, "MATCH_CONDITION takes one comparison of two times"));
                }
                conditions.add(given, true)?;
            }
            (Form::History, Some(time)) => conditions.add_history(time, catalog)?,
            (Form::Lookup, None) => conditions.is_lookup = true,
            _ => {}
        }
        Ok(conditions)
    }

    /// Adds what has to hold for both sides.
    fn add(&mut self, condition: Expr, may_be_time: bool) -> Result<()> {
        let Expr::BinaryExpr(BinaryExpr { left: a, op, right: b }) = &condition else {
            return Err(self.unknown(&condition));
        };
        let (l, r, turned) = match (self.side_of(a)?, self.side_of(b)?) {
            (Some(0), Some(1)) => (a, b, false),
            (Some(1), Some(0)) => (b, a, true),
            _ => return Err(self.unknown(&condition)),
        };
        let (l, r) = (l.as_ref().clone(), r.as_ref().clone());
        match comparison(*op) {
            None if *op == Operator::Eq => self.on.push((l, r)),
            None => return Err(self.unknown(&condition)),
            Some(_) if !may_be_time => {
                let message = "the inequality of this join is said already, and ON takes equalities only";
                return Err(refused(&condition, message));
            }
            Some(_) if self.time.is_some() => {
                return Err(refused(&condition, "ASOF JOIN takes one inequality, and this is another"));
            }
            Some(found) => {
                self.time = Some((l, if turned { found.mirrored() } else { found }, r));
            }
        }
        Ok(())
    }

    /// Adds a condition that is not about time.
    fn add_any(&mut self, condition: Expr) -> Result<()> {
        if let Expr::BinaryExpr(BinaryExpr { left: a, op: Operator::Eq, right: b }) = &condition {
            let (a, b) = (a.as_ref(), b.as_ref());
            match (self.side_of(a)?, self.side_of(b)?) {
                (Some(0), Some(1)) => {
                    self.on.push((a.clone(), b.clone()));
                    return Ok(());
                }
                (Some(1), Some(0)) => {
                    self.on.push((b.clone(), a.clone()));
                    return Ok(());
                }
                _ => {}
            }
        }
        self.filter.push(condition);
        Ok(())
    }

    fn unknown(&self, condition: &Expr) -> DataFusionError {
        let message = "ON of an ASOF JOIN takes comparisons of a left with a right column, joined with AND: equalities and one of >=, >, <=, <";
        refused(condition, message)
    }

    /// 0 when the expression is of the left side, 1 when of the right one.
    fn side_of(&self, expr: &Expr) -> Result<Option<usize>> {
        let columns = expr.column_refs();
        let all_of = |plan: &LogicalPlan| columns.iter().all(|column| plan.schema().has_column(column));
        Ok(match () {
            () if columns.is_empty() || expr.contains_outer() => None,
            () if all_of(&self.left) => Some(0),
            () if all_of(&self.right) => Some(1),
            () => None,
        })
    }

    /// `FOR SYSTEM_TIME AS OF time`: the column since when a right row holds is that of its table's watermark.
    fn add_history(&mut self, time: Expr, catalog: Option<&Catalog>) -> Result<()> {
        if self.side_of(&time)? != Some(0) {
            return Err(refused(&time, "FOR SYSTEM_TIME AS OF takes a column of the left side"));
        }
        let no_history = |what: String| {
            external(SqlError::new(SqlState::WrongObjectType, what).with_hint(
                "FOR SYSTEM_TIME AS OF reads an APPEND ONLY table with WATERMARK FOR the time since when a row holds; leave it out and a plain join takes the rows of now",
            ))
        };
        let Some(scan) = scanned(&self.right) else {
            return Err(no_history("a subquery has no history".to_string()));
        };
        let name = scan.table_name.table();
        let Some(table) = catalog.and_then(|catalog| catalog.tables.get(name)) else {
            return Err(no_history(format!("view \"{name}\" has no history")));
        };
        if !table.append_only {
            return Err(no_history(format!("table \"{name}\" is updated in place and has no history")));
        }
        let Some(watermark) = &table.watermark else {
            return Err(no_history(format!(
                "table \"{name}\" has no watermark, so nothing says since when a row holds"
            )));
        };
        let since = &table.columns[watermark.column].name;
        let index = self.right.schema().fields().iter().position(|field| field.name() == since);
        let Some(index) = index else { return internal_err!("a table has its watermark's column") };
        let since = Expr::Column(Column::from(self.right.schema().qualified_field(index)));
        self.time = Some((time, AsofComparison::GtEq, since));
        Ok(())
    }

    fn plan(mut self) -> Result<LogicalPlan> {
        let time = self.time.take();
        if let Some((left, _, right)) = &time {
            for (expr, side) in [(left, &self.left), (right, &self.right)] {
                let data_type = expr.get_type(side.schema())?;
                if !is_ordered(&data_type) {
                    let message =
                        format!("ASOF JOIN compares times or numbers, and this is {}", name_of(&data_type));
                    let error = SqlError::new(SqlState::DatatypeMismatch, message).with_hint(USAGE);
                    return Err(placed(error, expr));
                }
            }
        }
        let mut sides = [Computed::new(&self.left, "left"), Computed::new(&self.right, "right")];
        let mut on = Vec::new();
        for (l, r) in std::mem::take(&mut self.on) {
            on.push(pair(l, r, &mut sides)?);
        }
        let time = match time {
            Some((l, comparison, r)) => Some((pair(l, r, &mut sides)?, comparison)),
            None => None,
        };
        let is_computed = sides.iter().any(|side| !side.added.is_empty());
        let [left, right] = sides.map(Computed::plan);
        let (left, right) = (left?, right?);
        let node: Arc<dyn UserDefinedLogicalNode> = match time {
            Some((time, comparison)) => {
                Arc::new(AsofJoin::try_new(left, right, on, time, comparison, self.outer)?)
            }
            None if self.is_lookup => {
                Arc::new(LookupJoin::try_new(left, right, on, conjunction(self.filter), self.outer)?)
            }
            None => {
                let error = SqlError::new(SqlState::SyntaxError, "ASOF JOIN has no inequality of two times");
                return Err(external(error.with_hint(USAGE)));
            }
        };
        let plan = LogicalPlan::Extension(Extension { node });
        if !is_computed {
            return Ok(plan);
        }
        let columns = self.schema.iter().map(|column| Expr::Column(Column::from(column)));
        LogicalPlanBuilder::from(plan).project(columns)?.build()
    }
}

/// One side and the expressions over it that are compared.
struct Computed<'a> {
    input: &'a LogicalPlan,
    name: &'static str,
    added: Vec<Expr>,
}

impl<'a> Computed<'a> {
    fn new(input: &'a LogicalPlan, name: &'static str) -> Computed<'a> {
        Computed { input, name, added: Vec::new() }
    }

    fn column(&mut self, expr: Expr) -> Column {
        match expr {
            Expr::Column(column) => column,
            other => {
                let name = format!("shopstream_asof_{}_{}", self.name, self.added.len());
                self.added.push(other.alias(name.clone()));
                Column::from_name(name)
            }
        }
    }

    fn plan(self) -> Result<LogicalPlan> {
        if self.added.is_empty() {
            return Ok(self.input.clone());
        }
        let columns = self.input.schema().iter().map(|column| Expr::Column(Column::from(column)));
        LogicalPlanBuilder::from(self.input.clone()).project(columns.chain(self.added))?.build()
    }
}

/// Two expressions that are compared, as columns of one type.
fn pair(left: Expr, right: Expr, sides: &mut [Computed<'_>; 2]) -> Result<ColumnPair> {
    let types = [left.get_type(sides[0].input.schema())?, right.get_type(sides[1].input.schema())?];
    let Some(common) = comparison_coercion(&types[0], &types[1]) else {
        let [a, b] = types.map(|data_type| name_of(&data_type));
        let error = SqlError::new(SqlState::DatatypeMismatch, format!("{a} can't be compared with {b}"));
        return Err(placed(error.with_hint("cast one of them to the other's type"), &left));
    };
    let [left_type, right_type] = types;
    let cast = |expr: Expr, from: DataType| {
        if from == common { expr } else { Expr::Cast(Cast::new(Box::new(expr), common.clone())) }
    };
    let [left_side, right_side] = sides;
    Ok((left_side.column(cast(left, left_type)), right_side.column(cast(right, right_type))))
}

fn comparison(op: Operator) -> Option<AsofComparison> {
    match op {
        Operator::GtEq => Some(AsofComparison::GtEq),
        Operator::Gt => Some(AsofComparison::Gt),
        Operator::LtEq => Some(AsofComparison::LtEq),
        Operator::Lt => Some(AsofComparison::Lt),
        _ => None,
    }
}

/// Types whose values stand in one line, each as long as the others.
fn is_ordered(data_type: &DataType) -> bool {
    data_type.is_numeric() || data_type.is_temporal()
}

/// The table that a relation is, under whatever name.
fn scanned(plan: &LogicalPlan) -> Option<&TableScan> {
    match plan {
        LogicalPlan::TableScan(scan) => Some(scan),
        LogicalPlan::SubqueryAlias(alias) => scanned(&alias.input),
        _ => None,
    }
}

fn refused(expr: &Expr, message: &str) -> DataFusionError {
    placed(SqlError::new(SqlState::FeatureNotSupported, message).with_hint(USAGE), expr)
}

fn external(error: SqlError) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}

/// The error at the place of the expression's first column.
fn placed(error: SqlError, expr: &Expr) -> DataFusionError {
    let first: Option<Span> =
        expr.column_refs().into_iter().filter_map(|column| column.spans().first()).min();
    let diagnostic = Diagnostic::new_error(error.message.clone(), first);
    external(error).with_diagnostic(diagnostic)
}

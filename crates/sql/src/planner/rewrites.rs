//! Clauses that are said with window functions, once the query is bound: `DISTINCT ON`, `FETCH ... WITH TIES` and
//! `SESSION WITH GAP`.
//!
//! ```text
//! SELECT DISTINCT ON (k) ... ORDER BY k, o    row_number() OVER (PARTITION BY k ORDER BY k, o) <= 1
//! ORDER BY o FETCH FIRST n ROWS WITH TIES     rank() OVER (ORDER BY o) <= n
//! f() OVER (PARTITION BY k ORDER BY ts
//!           SESSION WITH GAP g)               f() OVER (PARTITION BY k, session start), over SESSION
//! ```
//!
//! Batch queries and views are rewritten alike, so that they mean the same. What sqlparser and DataFusion have no words
//! for comes here as a call of a marker function: see [`mark_query`] and [`mark_window`].

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::common::tree_node::Transformed;
use datafusion::common::{Column, DataFusionError, Result, ScalarValue, internal_err};
use datafusion::functions_window::expr_fn::{rank, row_number};
use datafusion::logical_expr::expr::{ScalarFunction, Sort as SortExpr, WindowFunction};
use datafusion::logical_expr::{
    ColumnarValue, Distinct, DistinctOn, Expr, ExprFunctionExt, Extension, Limit, LogicalPlan,
    LogicalPlanBuilder, Projection, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Sort,
    Volatility, Window, lit,
};
use datafusion::sql::sqlparser::ast::{
    self, LimitClause, Spanned, WindowFrame, WindowFrameBound, WindowFrameUnits, WindowType,
};

use super::relations::located;
use crate::session_tvf::SessionTvf;
use crate::{SqlError, SqlState};

const WITH_TIES: &str = "shopstream_with_ties";
const SESSION: &str = "shopstream_session";
const SESSION_BOUNDS: [&str; 2] = ["shopstream_session_start", "shopstream_session_end"];

/// The marker functions, to be known to the planner; none is ever computed.
pub(super) fn markers() -> Vec<Arc<ScalarUDF>> {
    let number = Marker { name: WITH_TIES, signature: Signature::any(1, Volatility::Immutable) };
    let session = Marker { name: SESSION, signature: Signature::any(2, Volatility::Immutable) };
    [number, session].into_iter().map(|marker| Arc::new(ScalarUDF::new_from_impl(marker))).collect()
}

/// A call of a marker function.
pub(super) fn marked(name: &'static str, args: Vec<Expr>) -> Expr {
    let marker = Marker { name, signature: Signature::variadic_any(Volatility::Immutable) };
    Expr::ScalarFunction(ScalarFunction { func: Arc::new(ScalarUDF::new_from_impl(marker)), args })
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Marker {
    name: &'static str,
    signature: Signature,
}

impl ScalarUDFImpl for Marker {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arg_types: &[DataType]) -> Result<DataType> {
        Ok(DataType::Int64)
    }

    fn invoke_with_args(&self, _args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        internal_err!("{}() is replaced before it runs", self.name)
    }
}

pub(super) fn call(name: &str, arguments: Vec<ast::Expr>) -> crate::Result<ast::Expr> {
    // Built from text because the tree has many fields that say nothing.
    let placeholders = vec!["0"; arguments.len()].join(", ");
    let mut expr = crate::parse_expr(&format!("{name}({placeholders})"))?;
    if let ast::Expr::Function(function) = &mut expr
        && let ast::FunctionArguments::List(list) = &mut function.args
    {
        for (slot, argument) in list.args.iter_mut().zip(arguments) {
            *slot = ast::FunctionArg::Unnamed(ast::FunctionArgExpr::Expr(argument));
        }
    }
    Ok(expr)
}

/// Turns `FETCH FIRST n ROWS ONLY` into LIMIT, and WITH TIES into a LIMIT that [`rewrite`] finds.
pub(super) fn mark_query(query: &mut ast::Query) -> Result<()> {
    let Some(fetch) = query.fetch.take() else { return Ok(()) };
    let span = query.span();
    if fetch.percent {
        return Err(located(SqlError::unsupported("FETCH ... PERCENT is not supported"), span));
    }
    if fetch.with_ties && query.order_by.is_none() {
        let error =
            SqlError::new(SqlState::SyntaxError, "WITH TIES cannot be specified without ORDER BY clause");
        return Err(located(error, span));
    }
    let one = || crate::parse_expr("1");
    let quantity = match fetch.quantity {
        Some(quantity) => quantity,
        None => one().map_err(|error| located(error, span))?,
    };
    let wanted = match fetch.with_ties {
        true => call(WITH_TIES, vec![quantity]).map_err(|error| located(error, span))?,
        false => quantity,
    };
    match &mut query.limit_clause {
        None => {
            query.limit_clause =
                Some(LimitClause::LimitOffset { limit: Some(wanted), offset: None, limit_by: vec![] });
        }
        Some(LimitClause::LimitOffset { limit: limit @ None, .. }) => *limit = Some(wanted),
        Some(_) => {
            let error = SqlError::new(SqlState::SyntaxError, "LIMIT and FETCH FIRST in one query");
            return Err(located(error, span));
        }
    }
    Ok(())
}

/// Turns the frame that the parser made of `SESSION WITH GAP` into a partition by session.
pub(super) fn mark_window(function: &mut ast::Function) -> Result<()> {
    let Some(WindowType::WindowSpec(spec)) = &mut function.over else { return Ok(()) };
    let Some(frame) = &spec.window_frame else { return Ok(()) };
    // No GROUPS frame counts intervals, so the parser uses it as a sign.
    let (WindowFrameUnits::Groups, WindowFrameBound::Preceding(Some(gap))) =
        (frame.units, &frame.start_bound)
    else {
        return Ok(());
    };
    if !matches!(gap.as_ref(), ast::Expr::Interval(_)) {
        return Ok(());
    }
    let [time] = spec.order_by.as_slice() else {
        let error =
            SqlError::new(SqlState::SyntaxError, "SESSION WITH GAP needs exactly one ORDER BY column");
        return Err(located(error, gap.span()));
    };
    let marker = call(SESSION, vec![time.expr.clone(), gap.as_ref().clone()]);
    let marker = marker.map_err(|error| located(error, time.expr.span()))?;
    spec.partition_by.push(marker);
    spec.window_frame = Some(WindowFrame {
        units: WindowFrameUnits::Rows,
        start_bound: WindowFrameBound::Preceding(None),
        end_bound: Some(WindowFrameBound::Following(None)),
    });
    Ok(())
}

/// Says a bound plan's clauses with window functions.
pub(super) fn rewrite(plan: LogicalPlan) -> Result<LogicalPlan> {
    plan.transform_up_with_subqueries(|node| match node {
        LogicalPlan::Distinct(Distinct::On(on)) => Ok(Transformed::yes(first_of_each(on)?)),
        LogicalPlan::Limit(limit) if with_ties(&limit).is_some() => Ok(Transformed::yes(ties(limit)?)),
        LogicalPlan::Window(window) if window.window_expr.iter().any(|e| session_of(e).is_some()) => {
            Ok(Transformed::yes(sessions(window)?))
        }
        other => Ok(Transformed::no(other)),
    })
    .map(|transformed| transformed.data)
}

/// `DISTINCT ON`: the first row of each group.
fn first_of_each(on: DistinctOn) -> Result<LogicalPlan> {
    let DistinctOn { on_expr, select_expr, sort_expr, input, .. } = on;
    let order = sort_expr.unwrap_or_default();
    let number = row_number().partition_by(on_expr).order_by(order.clone()).build()?;
    let (numbered, number) = with_window(input.as_ref().clone(), vec![number])?;
    let mut first = LogicalPlanBuilder::from(numbered).filter(number[0].clone().lt_eq(lit(1u64)))?;
    if !order.is_empty() {
        first = first.sort(order)?;
    }
    first.project(select_expr)?.build()
}

/// The plan with window functions over it, and their columns.
fn with_window(input: LogicalPlan, functions: Vec<Expr>) -> Result<(LogicalPlan, Vec<Expr>)> {
    let width = input.schema().fields().len();
    let plan = LogicalPlanBuilder::window_plan(input, functions.clone())?;
    let columns = functions
        .iter()
        .map(|function| {
            let name = function.schema_name().to_string();
            let index = plan.schema().fields().iter().skip(width).position(|f| *f.name() == name);
            match index {
                Some(index) => Ok(Expr::Column(Column::from(plan.schema().qualified_field(width + index)))),
                None => internal_err!("window function {name} has a column"),
            }
        })
        .collect::<Result<_>>()?;
    Ok((plan, columns))
}

fn with_ties(limit: &Limit) -> Option<&ScalarFunction> {
    match strip_cast(limit.fetch.as_deref()?) {
        Expr::ScalarFunction(function) if function.func.name() == WITH_TIES => Some(function),
        _ => None,
    }
}

fn strip_cast(expr: &Expr) -> &Expr {
    match expr {
        Expr::Cast(cast) => strip_cast(&cast.expr),
        other => other,
    }
}

/// `ORDER BY ... FETCH FIRST n ROWS WITH TIES`, whose order is kept.
fn ties(limit: Limit) -> Result<LogicalPlan> {
    let constant = |expr: &Expr| match strip_cast(expr) {
        Expr::Literal(value, _) => match value.cast_to(&DataType::Int64) {
            Ok(ScalarValue::Int64(Some(number))) if number >= 0 => Some(number),
            _ => None,
        },
        _ => None,
    };
    let failed = || {
        let error = SqlError::new(
            SqlState::InvalidParameterValue,
            "FETCH FIRST ... WITH TIES and its OFFSET have to be constant numbers that are not negative",
        );
        DataFusionError::External(Box::new(error))
    };
    let rows = with_ties(&limit).and_then(|f| f.args.first()).and_then(constant).ok_or_else(failed)?;
    let skip = match limit.skip.as_deref() {
        None => 0,
        Some(skip) => constant(skip).ok_or_else(failed)?,
    };
    // Columns that are ordered by but not selected are dropped above the sort.
    let (projection, sort) = match limit.input.as_ref() {
        LogicalPlan::Sort(sort) => (None, sort),
        LogicalPlan::Projection(projection) => match projection.input.as_ref() {
            LogicalPlan::Sort(sort) => (Some(projection), sort),
            _ => return internal_err!("WITH TIES comes with ORDER BY"),
        },
        _ => return internal_err!("WITH TIES comes with ORDER BY"),
    };
    let Sort { expr: order, input, .. } = sort;
    let over = |function: Expr, order: &[SortExpr]| function.order_by(order.to_vec()).build();
    let mut functions = vec![over(rank(), order)?];
    if skip > 0 {
        functions.push(over(row_number(), order)?);
    }
    let columns: Vec<Expr> = input.schema().iter().map(|column| Expr::Column(Column::from(column))).collect();
    let (ranked, results) = with_window(input.as_ref().clone(), functions)?;
    let last = lit(skip.saturating_add(rows) as u64);
    let mut condition = results[0].clone().lt_eq(last);
    if rows == 0 {
        condition = lit(false);
    }
    if let Some(number) = results.get(1) {
        condition = condition.and(number.clone().gt(lit(skip as u64)));
    }
    let kept =
        LogicalPlanBuilder::from(ranked).filter(condition)?.project(columns)?.sort(order.clone())?.build()?;
    match projection {
        None => Ok(kept),
        Some(projection) => {
            Projection::try_new(projection.expr.clone(), Arc::new(kept)).map(LogicalPlan::Projection)
        }
    }
}

fn window_of(expr: &Expr) -> Option<&WindowFunction> {
    match expr {
        Expr::WindowFunction(function) => Some(function),
        Expr::Alias(alias) => window_of(&alias.expr),
        _ => None,
    }
}

/// The marker in a window function's PARTITION BY.
fn session_of(expr: &Expr) -> Option<&ScalarFunction> {
    window_of(expr)?.params.partition_by.iter().find_map(|expr| match expr {
        Expr::ScalarFunction(function) if function.func.name() == SESSION => Some(function),
        _ => None,
    })
}

/// Window functions over sessions. All in one node have the same PARTITION BY and ORDER BY.
fn sessions(window: Window) -> Result<LogicalPlan> {
    let refused = |message: &str| {
        let error = SqlError::unsupported(message);
        DataFusionError::External(Box::new(
            error.with_hint("write OVER (PARTITION BY column, ... ORDER BY time_column SESSION WITH GAP INTERVAL '5 minutes')"),
        ))
    };
    let mut first: Option<(Vec<Expr>, ScalarFunction)> = None;
    for expr in &window.window_expr {
        let (Some(function), Some(marker)) = (window_of(expr), session_of(expr)) else {
            return internal_err!("window functions over one partition are alike");
        };
        let keys = &function.params.partition_by;
        let others: Vec<Expr> = keys.iter().filter(|key| !is_marker(key)).cloned().collect();
        match &first {
            None => first = Some((others, marker.clone())),
            Some((keys, known)) if *keys == others && known == marker => {}
            Some(_) => return Err(refused("different sessions over the same key and order")),
        }
    }
    let Some((keys, marker)) = first else { return internal_err!("a window has functions") };
    let keys = keys
        .into_iter()
        .map(|key| match key {
            Expr::Column(column) => Ok(column),
            _ => Err(refused("PARTITION BY of SESSION WITH GAP takes columns only")),
        })
        .collect::<Result<Vec<_>>>()?;
    let [time, gap] = marker.args.as_slice() else { return internal_err!("a session has a time and a gap") };
    let Expr::Column(time) = time else {
        return Err(refused("ORDER BY of SESSION WITH GAP takes a column"));
    };
    let gap_us = interval_us(gap).ok_or_else(|| {
        refused("the gap of a session has to be a positive constant interval of fixed length")
    })?;
    let columns: Vec<Expr> =
        window.input.schema().iter().map(|column| Expr::Column(Column::from(column))).collect();
    let names = SESSION_BOUNDS.map(str::to_string);
    let node = SessionTvf::try_new(window.input.as_ref().clone(), keys, time.clone(), gap_us, names)?;
    let input = LogicalPlan::Extension(Extension { node: Arc::new(node) });
    // Its end says when a session is over; its start tells it from others.
    let width = input.schema().fields().len();
    let bounds =
        [width - 2, width - 1].map(|index| Expr::Column(Column::from(input.schema().qualified_field(index))));
    let functions = window
        .window_expr
        .iter()
        .map(|expr| match expr.clone().unalias() {
            Expr::WindowFunction(mut function) => {
                function.params.partition_by.retain(|key| !is_marker(key));
                function.params.partition_by.extend(bounds.clone());
                Ok(Expr::WindowFunction(function))
            }
            other => internal_err!("{other} is a window function"),
        })
        .collect::<Result<Vec<_>>>()?;
    let (plan, results) = with_window(input, functions)?;
    let named = results.into_iter().zip(&window.window_expr).map(|(result, expr)| {
        // The column keeps the name by which the query knows it.
        result.alias(expr.schema_name().to_string())
    });
    LogicalPlanBuilder::from(plan).project(columns.into_iter().chain(named))?.build()
}

fn is_marker(expr: &Expr) -> bool {
    matches!(expr, Expr::ScalarFunction(function) if function.func.name() == SESSION)
}

fn interval_us(expr: &Expr) -> Option<i64> {
    let Expr::Literal(value, _) = strip_cast(expr) else { return None };
    let (months, days, nanoseconds) = match value {
        ScalarValue::IntervalMonthDayNano(Some(v)) => (v.months, v.days, v.nanoseconds),
        ScalarValue::IntervalDayTime(Some(v)) => (0, v.days, i64::from(v.milliseconds) * 1_000_000),
        _ => return None,
    };
    let us = i64::from(days).checked_mul(86_400_000_000)?.checked_add(nanoseconds / 1000)?;
    (months == 0 && us > 0).then_some(us)
}

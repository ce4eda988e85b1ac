//! Window table functions in FROM, and the refusal of relations that DataFusion does not plan.
//!
//! DataFusion looks tables up before it plans, and finds them by walking the syntax tree. The first
//! argument of `TUMBLE(t, ...)` is not a relation there, so [`prepare`] wraps it: `(SELECT * FROM t)`.

use crate::walk::walk;
use std::ops::ControlFlow;
use std::sync::Arc;

use datafusion::common::{Column, DataFusionError, Diagnostic, Result, Span};
use datafusion::logical_expr::planner::{
    PlannedRelation, RelationPlanner, RelationPlannerContext, RelationPlanning,
};
use datafusion::logical_expr::{Expr, Extension, LogicalPlan};
use datafusion::sql::sqlparser::ast::{
    self, FunctionArg, FunctionArgExpr, ObjectName, ObjectNamePart, Spanned, TableFactor, VisitorMut,
};
use datafusion::sql::sqlparser::tokenizer::Span as AstSpan;

use super::gap_fill::is_gap_fill;
use super::using::Names;
use crate::changelog::Changelog;
use crate::session_tvf::SessionTvf;
use crate::types::name_of;
use crate::window_tvf::{WINDOW_END, WINDOW_START, WindowKind, WindowTvf};
use crate::{Catalog, SqlError, SqlState, duration};

#[derive(Clone, Copy)]
enum Function {
    Tumble,
    Hop,
    Cumulate,
}

impl Function {
    fn named(name: &ObjectName) -> Option<Function> {
        let [ObjectNamePart::Identifier(ident)] = name.0.as_slice() else { return None };
        match ident.value.to_ascii_lowercase().as_str() {
            "tumble" => Some(Function::Tumble),
            "hop" => Some(Function::Hop),
            "cumulate" => Some(Function::Cumulate),
            _ => None,
        }
    }

    fn usage(self) -> &'static str {
        match self {
            Function::Tumble => "TUMBLE(table, time_column, size [, offset])",
            Function::Hop => "HOP(table, time_column, slide, size [, offset])",
            Function::Cumulate => "CUMULATE(table, time_column, step, size [, offset])",
        }
    }

    /// How many intervals there are before the offset.
    fn sizes(self) -> usize {
        match self {
            Function::Tumble => 1,
            Function::Hop | Function::Cumulate => 2,
        }
    }
}

/// Readies a statement for DataFusion's planner.
///
/// # Errors
///
/// Relations and joins that we do not have, by name.
pub(super) fn prepare(statement: &mut ast::Statement, catalog: Option<&Catalog>) -> Result<()> {
    let names = Names { catalog, queries: Vec::new() };
    match walk(statement, &mut Preparation { names }) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(error) => Err(error),
    }
}

/// [`prepare`] for an expression that stands alone: DEFAULT, CHECK, a generated column.
pub(super) fn prepare_expr(expr: &mut ast::Expr) -> Result<()> {
    match walk(expr, &mut Preparation { names: Names::default() }) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(error) => Err(error),
    }
}

/// [`prepare`] for a query that stands for a relation.
pub(super) fn prepare_query(query: &mut ast::Query) -> ControlFlow<DataFusionError> {
    walk(query, &mut Preparation { names: Names::default() })
}

struct Preparation<'a> {
    names: Names<'a>,
}

impl VisitorMut for Preparation<'_> {
    type Break = DataFusionError;

    fn pre_visit_table_factor(&mut self, relation: &mut TableFactor) -> ControlFlow<DataFusionError> {
        super::set_returning::rewrite_relation(relation);
        if let TableFactor::NestedJoin { table_with_joins, .. } = relation {
            super::asof_join::nest_inside(table_with_joins);
        }
        let span = relation.span();
        let refused = match relation {
            TableFactor::Table { name, args: Some(arguments), .. }
                if Function::named(name).is_some()
                    || is_session(name)
                    || is_gap_fill(name)
                    || is_changelog(name) =>
            {
                if let Some(FunctionArg::Unnamed(FunctionArgExpr::Expr(first))) = arguments.args.first_mut()
                    && let Some(name) = relation_name(first)
                {
                    match select_all(name) {
                        Ok(query) => *first = ast::Expr::Subquery(query),
                        Err(error) => return ControlFlow::Break(located(error, span)),
                    }
                }
                return ControlFlow::Continue(());
            }
            TableFactor::Table { name, args: None, .. } if is_clause_word(name) => {
                let error =
                    SqlError::new(SqlState::SyntaxError, format!("syntax error at or near \"{name}\""));
                return ControlFlow::Break(located(error.with_hint("name a table after FROM"), span));
            }
            TableFactor::Table { version: Some(_), .. } => "a table AS OF a time",
            TableFactor::Table { sample: Some(_), .. } => "TABLESAMPLE",
            TableFactor::Table { with_ordinality: true, .. } => "WITH ORDINALITY",
            TableFactor::TableFunction { .. } => "this function in TABLE(...)",
            TableFactor::Pivot { .. } => "PIVOT",
            TableFactor::Unpivot { .. } => "UNPIVOT",
            TableFactor::MatchRecognize { .. } => "MATCH_RECOGNIZE",
            TableFactor::JsonTable { .. } | TableFactor::OpenJsonTable { .. } => "JSON_TABLE",
            TableFactor::XmlTable { .. } => "XMLTABLE",
            _ => return ControlFlow::Continue(()),
        };
        ControlFlow::Break(located(SqlError::unsupported(format!("{refused} is not supported")), span))
    }

    fn pre_visit_query(&mut self, query: &mut ast::Query) -> ControlFlow<DataFusionError> {
        self.names.add_queries(query);
        super::values::agree(&mut query.body);
        match super::rewrites::mark_query(query).and_then(|()| super::using::merge_order(query, &self.names))
        {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => ControlFlow::Break(error),
        }
    }

    /// A number with an exponent is a double: as a decimal it could need hundreds of digits. Intervals may hold a clock
    /// time.
    fn pre_visit_expr(&mut self, expr: &mut ast::Expr) -> ControlFlow<DataFusionError> {
        spell_out_interval(expr);
        if let ast::Expr::Function(function) = expr
            && let Err(error) = super::rewrites::mark_window(function)
        {
            return ControlFlow::Break(error);
        }
        if let ast::Expr::Value(value) = expr
            && let ast::Value::Number(digits, _) = &value.value
            && digits.contains(['e', 'E'])
        {
            let text = ast::Value::SingleQuotedString(digits.clone()).with_span(value.span);
            *expr = ast::Expr::Cast {
                kind: ast::CastKind::Cast,
                expr: Box::new(ast::Expr::Value(text)),
                data_type: ast::DataType::DoublePrecision,
                array: false,
                format: None,
            };
        }
        super::spellings::rewrite(expr);
        ControlFlow::Continue(())
    }

    fn pre_visit_select(&mut self, select: &mut ast::Select) -> ControlFlow<DataFusionError> {
        if let Err(error) = super::using::merge(select, &self.names) {
            return ControlFlow::Break(error);
        }
        select.from.iter_mut().for_each(super::asof_join::nest);
        super::set_returning::rewrite_select(select);
        ControlFlow::Continue(())
    }
}

/// `INTERVAL '1 day 02:03:04'` and `'02:03:04'::interval` as DataFusion reads them, which knows words only.
fn spell_out_interval(expr: &mut ast::Expr) {
    let value = match expr {
        ast::Expr::Interval(interval) if interval.leading_field.is_none() => &mut interval.value,
        ast::Expr::Cast { expr, data_type: ast::DataType::Interval { .. }, .. } => expr,
        _ => return,
    };
    if let ast::Expr::Value(value) = value.as_mut()
        && let ast::Value::SingleQuotedString(text) = &mut value.value
    {
        *text = duration::spelled_out(text);
    }
}

/// The parser takes `FROM WHERE` for a table named "where".
fn is_clause_word(name: &ObjectName) -> bool {
    let [ObjectNamePart::Identifier(word)] = name.0.as_slice() else { return false };
    let words = ["where", "group", "having", "order", "limit", "union", "from", "select"];
    word.quote_style.is_none() && words.contains(&word.value.to_lowercase().as_str())
}

fn relation_name(argument: &ast::Expr) -> Option<ObjectName> {
    let idents = match argument {
        ast::Expr::Identifier(ident) => vec![ident.clone()],
        ast::Expr::CompoundIdentifier(idents) => idents.clone(),
        _ => return None,
    };
    Some(ObjectName(idents.into_iter().map(ObjectNamePart::Identifier).collect()))
}

/// `SELECT * FROM name`, built from text because the tree has many fields that say nothing.
fn select_all(relation: ObjectName) -> crate::Result<Box<ast::Query>> {
    let mut query = crate::parse_query("SELECT * FROM t")?;
    if let ast::SetExpr::Select(select) = query.body.as_mut()
        && let Some(TableFactor::Table { name, .. }) =
            select.from.first_mut().map(|table| &mut table.relation)
    {
        *name = relation;
    }
    Ok(query)
}

/// Plans TUMBLE, HOP and CUMULATE.
#[derive(Debug)]
pub(super) struct WindowRelations;

impl RelationPlanner for WindowRelations {
    fn plan_relation(
        &self,
        relation: TableFactor,
        context: &mut dyn RelationPlannerContext,
    ) -> Result<RelationPlanning> {
        let span = relation.span();
        match relation {
            TableFactor::Table { name, alias, args: Some(arguments), .. }
                if Function::named(&name).is_some() =>
            {
                let function = Function::named(&name).expect("checked by the guard");
                let plan = plan_window(function, arguments.args, span, context)?;
                Ok(RelationPlanning::Planned(Box::new(PlannedRelation::new(plan, alias))))
            }
            TableFactor::Table { name, alias, args: Some(arguments), .. } if is_gap_fill(&name) => {
                let plan = super::gap_fill::plan(&arguments.args, span, context)?;
                Ok(RelationPlanning::Planned(Box::new(PlannedRelation::new(plan, alias))))
            }
            TableFactor::Table { name, alias, args: Some(arguments), .. } if is_changelog(&name) => {
                let plan = plan_changelog(arguments.args, span, context)?;
                Ok(RelationPlanning::Planned(Box::new(PlannedRelation::new(plan, alias))))
            }
            TableFactor::Table { name, alias, args: Some(arguments), .. } if is_session(&name) => {
                let plan = plan_session(arguments.args, span, context)?;
                Ok(RelationPlanning::Planned(Box::new(PlannedRelation::new(plan, alias))))
            }
            other => Ok(RelationPlanning::Original(Box::new(other))),
        }
    }
}

/// What the parser makes of `AS CHANGELOG FROM t`: `changelog(t)`.
fn is_changelog(name: &ObjectName) -> bool {
    let [ObjectNamePart::Identifier(ident)] = name.0.as_slice() else { return false };
    ident.value.eq_ignore_ascii_case("changelog")
}

fn plan_changelog(
    mut arguments: Vec<FunctionArg>,
    span: AstSpan,
    context: &mut dyn RelationPlannerContext,
) -> Result<LogicalPlan> {
    let (Some(FunctionArg::Unnamed(FunctionArgExpr::Expr(ast::Expr::Subquery(subquery)))), true) =
        (arguments.pop(), arguments.is_empty())
    else {
        let error = SqlError::new(SqlState::SyntaxError, "a changelog is of one table or view");
        return Err(located(error.with_hint("write WITH c AS CHANGELOG FROM t SELECT ... FROM c"), span));
    };
    let input = context.plan(TableFactor::Derived { lateral: false, subquery, alias: None, sample: None })?;
    let node = Changelog::try_new(input)?;
    Ok(LogicalPlan::Extension(Extension { node: Arc::new(node) }))
}

fn is_session(name: &ObjectName) -> bool {
    let [ObjectNamePart::Identifier(ident)] = name.0.as_slice() else { return false };
    ident.value.eq_ignore_ascii_case("session")
}

const SESSION_USAGE: &str = "SESSION(table [PARTITION BY column, ...], time_column, gap)";

/// `SESSION(t, key, ..., time, gap)`, which is how `SESSION(t PARTITION BY key, ..., time, gap)` comes here.
fn plan_session(
    arguments: Vec<FunctionArg>,
    span: AstSpan,
    context: &mut dyn RelationPlannerContext,
) -> Result<LogicalPlan> {
    let usage = |message: String, span: AstSpan| {
        let error = SqlError::new(SqlState::SyntaxError, message);
        located(error.with_hint(format!("write {SESSION_USAGE}")), span)
    };
    let mut expressions = Vec::with_capacity(arguments.len());
    for argument in arguments {
        match argument {
            FunctionArg::Unnamed(FunctionArgExpr::Expr(ast::Expr::Tuple(keys))) => expressions.extend(keys),
            FunctionArg::Unnamed(FunctionArgExpr::Expr(ast::Expr::Nested(key))) => expressions.push(*key),
            FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => expressions.push(expr),
            other => return Err(usage(format!("argument {other} is not understood"), span)),
        }
    }
    let (Some(gap), Some(time)) = (expressions.pop(), expressions.pop()) else {
        return Err(usage("SESSION needs a table, a time column and a gap".to_string(), span));
    };
    if expressions.is_empty() {
        return Err(usage("SESSION needs a table, a time column and a gap".to_string(), span));
    }
    let ast::Expr::Subquery(subquery) = expressions.remove(0) else {
        return Err(usage("the first argument must be a table, view or subquery".to_string(), span));
    };
    let input = context.plan(TableFactor::Derived { lateral: false, subquery, alias: None, sample: None })?;
    let mut column = |expr: ast::Expr, what: &str| {
        let span = expr.span();
        match context.sql_to_expr(expr, input.schema())? {
            Expr::Column(column) => Ok((column, span)),
            _ => Err(usage(format!("{what} of SESSION must be a column"), span)),
        }
    };
    let keys = expressions.into_iter().map(|key| Ok(column(key, "a PARTITION BY key")?.0));
    let keys = keys.collect::<Result<Vec<_>>>()?;
    let (time_column, time_span) = column(time, "the time")?;
    let gap_span = gap.span();
    let gap_us = duration::constant_us(&gap).map_err(|error| located(error, gap_span))?;
    let gap_us = gap_us.filter(|gap| *gap > 0).ok_or_else(|| {
        let error = SqlError::new(
            SqlState::InvalidParameterValue,
            format!("the gap of SESSION must be a positive constant interval, not {gap}"),
        );
        located(
            error.with_hint(format!("write {SESSION_USAGE}, the gap like INTERVAL '5 minutes'")),
            gap_span,
        )
    })?;
    check_columns(&input, &time_column, "SESSION").map_err(|error| located(error, time_span))?;
    let bounds = [WINDOW_START, WINDOW_END].map(str::to_string);
    let node = SessionTvf::try_new(input, keys, time_column, gap_us, bounds)?;
    Ok(LogicalPlan::Extension(Extension { node: Arc::new(node) }))
}

fn plan_window(
    function: Function,
    arguments: Vec<FunctionArg>,
    span: AstSpan,
    context: &mut dyn RelationPlannerContext,
) -> Result<LogicalPlan> {
    let usage = |message: String| {
        SqlError::new(SqlState::SyntaxError, message).with_hint(format!("write {}", function.usage()))
    };
    let mut expressions = Vec::with_capacity(arguments.len());
    for argument in arguments {
        match argument {
            FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => expressions.push(expr),
            other => return Err(located(usage(format!("argument {other} is not understood")), span)),
        }
    }
    let sizes = function.sizes();
    if !(sizes + 2..=sizes + 3).contains(&expressions.len()) {
        let message = format!("wrong number of arguments: {}", expressions.len());
        return Err(located(usage(message), span));
    }
    let intervals = expressions.split_off(2);
    let (Some(time), Some(relation)) = (expressions.pop(), expressions.pop()) else {
        return Err(located(SqlError::internal("window function without arguments"), span));
    };

    let ast::Expr::Subquery(subquery) = relation else {
        return Err(located(
            usage("the first argument must be a table, view or subquery".to_string()),
            relation.span(),
        ));
    };
    let input = context.plan(TableFactor::Derived { lateral: false, subquery, alias: None, sample: None })?;

    let time_span = time.span();
    let time_column = match context.sql_to_expr(time, input.schema())? {
        Expr::Column(column) => column,
        _ => return Err(located(usage("the second argument must be a column".to_string()), time_span)),
    };
    let kind = window_kind(function, &intervals, span)?;
    check_columns(&input, &time_column, kind.name()).map_err(|error| located(error, time_span))?;
    let node = WindowTvf::try_new(input, kind, time_column)?;
    Ok(LogicalPlan::Extension(Extension { node: Arc::new(node) }))
}

/// The window that the function's intervals give; `call` is where the function itself stands.
fn window_kind(function: Function, intervals: &[ast::Expr], call: AstSpan) -> Result<WindowKind> {
    let located = |error: SqlError, expr: &ast::Expr| {
        let place = expr.span();
        // Line 0 stands for a place that the parser did not keep.
        located(error, if place.start.line == 0 { call } else { place })
    };
    let mut sizes = Vec::with_capacity(intervals.len());
    for expr in intervals {
        let us = duration::constant_us(expr).map_err(|error| located(error, expr))?.ok_or_else(|| {
            let error = SqlError::new(
                SqlState::InvalidParameterValue,
                format!("window size must be a constant interval, not {expr}"),
            );
            let hint = format!("write {}, each size like INTERVAL '5 minutes'", function.usage());
            located(error.with_hint(hint), expr)
        })?;
        sizes.push(us);
    }
    let offset = sizes.get(function.sizes()).copied().unwrap_or(0);
    let kind = match function {
        Function::Tumble => WindowKind::tumble(sizes[0], offset),
        Function::Hop => WindowKind::hop(sizes[0], sizes[1], offset),
        Function::Cumulate => WindowKind::cumulate(sizes[0], sizes[1], offset),
    };
    kind.map_err(|error| located(error, &intervals[0]))
}

/// The checks of [`WindowTvf::try_new`], with the words for a user.
pub(super) fn check_columns(input: &LogicalPlan, time_column: &Column, function: &str) -> crate::Result<()> {
    let schema = input.schema();
    if let Ok(index) = schema.index_of_column(time_column) {
        let data_type = schema.field(index).data_type();
        if !matches!(data_type, arrow::datatypes::DataType::Timestamp(_, _)) {
            let message = format!(
                "time column \"{}\" of {} has type {}, not timestamp",
                time_column.name,
                function,
                name_of(data_type)
            );
            return Err(SqlError::new(SqlState::DatatypeMismatch, message));
        }
    }
    match [WINDOW_START, WINDOW_END]
        .iter()
        .find(|name| schema.fields().iter().any(|field| field.name() == **name))
    {
        Some(name) => Err(SqlError::new(
            SqlState::DuplicateColumn,
            format!("the relation in {} has a column \"{name}\" already", function),
        )
        .with_hint(format!("rename it: {}((SELECT {name} AS inner_{name}, ... FROM ...), ...)", function))),
        None => Ok(()),
    }
}

/// An error of ours inside DataFusion's planner, with its place.
pub(super) fn located(error: SqlError, span: AstSpan) -> DataFusionError {
    let diagnostic = Diagnostic::new_error(error.message.clone(), Span::try_from_sqlparser_span(span));
    DataFusionError::External(Box::new(error)).with_diagnostic(diagnostic)
}

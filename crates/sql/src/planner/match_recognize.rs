//! Planning of MATCH_RECOGNIZE: looks names up and takes the terms out of its expressions.
//!
//! ```text
//!   a AS LAST(price) > PREV(price) + 1        terms:       0: price of the current row, 1: price one row before
//!                                             condition:   __term_0 > __term_1 + 1
//! ```

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use arrow::compute::SortOptions;
use arrow::datatypes::DataType;
use datafusion::common::{DFSchema, DataFusionError, Result};
use datafusion::logical_expr::planner::{
    PlannedRelation, RelationPlanner, RelationPlannerContext, RelationPlanning,
};
use datafusion::logical_expr::simplify::SimplifyContext;
use datafusion::logical_expr::{Expr, ExprSchemable, Extension, LogicalPlan, LogicalPlanBuilder};
use datafusion::optimizer::simplify_expressions::ExprSimplifier;
use datafusion::sql::sqlparser::ast::{
    self, FunctionArg, FunctionArgExpr, FunctionArguments, ObjectName, ObjectNamePart, Spanned, TableFactor,
    VisitMut, VisitorMut,
};
use datafusion::sql::sqlparser::tokenizer::Span;

use super::relations::located;
use crate::match_recognize::{
    Anchor, MatchRecognize, RowPattern, RowsPerMatch, Skip, Term, VARIABLES_MAX, Value, VariableSet, pattern,
};
use crate::parser::match_recognize::{self as parsed, FINAL, FUNCTION, MatchClauses, RUNNING};
use crate::types::name_of;
use crate::{SqlError, SqlState};

/// Plans the calls that MATCH_RECOGNIZE was rewritten to.
#[derive(Debug)]
pub(super) struct MatchRelations;

impl RelationPlanner for MatchRelations {
    fn plan_relation(
        &self,
        relation: TableFactor,
        context: &mut dyn RelationPlannerContext,
    ) -> Result<RelationPlanning> {
        let span = relation.span();
        match relation {
            TableFactor::Table { name, alias, args: Some(arguments), .. } if is_call(&name) => {
                let plan = plan(arguments.args, span, context)?;
                Ok(RelationPlanning::Planned(Box::new(PlannedRelation::new(plan, alias))))
            }
            other => Ok(RelationPlanning::Original(Box::new(other))),
        }
    }
}

fn is_call(name: &ObjectName) -> bool {
    matches!(name.0.as_slice(), [ObjectNamePart::Identifier(ident)] if ident.value.eq_ignore_ascii_case(FUNCTION))
}

fn plan(
    arguments: Vec<FunctionArg>,
    span: Span,
    context: &mut dyn RelationPlannerContext,
) -> Result<LogicalPlan> {
    let mut expressions = arguments.into_iter().map(|argument| match argument {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => Some(expr),
        _ => None,
    });
    let (Some(Some(ast::Expr::Subquery(subquery))), Some(Some(ast::Expr::Value(body))), None) =
        (expressions.next(), expressions.next(), expressions.next())
    else {
        let error = SqlError::new(SqlState::SyntaxError, "MATCH_RECOGNIZE is no function").with_hint(
            "write FROM t MATCH_RECOGNIZE (PARTITION BY ... ORDER BY ... PATTERN (...) DEFINE ...)",
        );
        return Err(located(error, span));
    };
    let input = context.plan(TableFactor::Derived { lateral: false, subquery, alias: None, sample: None })?;
    let place = body.span;
    let text = match body.value {
        ast::Value::SingleQuotedString(text) => text,
        other => return Err(located(SqlError::internal(format!("{other} is no pattern")), place)),
    };
    let clauses = parsed::parse_body(&text, place.start).map_err(|error| located(error, place))?;
    Binder::new(context, input, &clauses)?.bind(clauses)
}

struct Binder<'a> {
    context: &'a mut dyn RelationPlannerContext,
    input: LogicalPlan,
    variables: Vec<String>,
    /// Subsets, and the variables as sets of one.
    sets: HashMap<String, VariableSet>,
    /// The projection below: expressions over the input.
    columns: Vec<Expr>,
    terms: Vec<Term>,
}

/// Where an expression stands.
#[derive(Clone, Copy, Debug)]
enum Scope {
    /// The condition of a variable.
    Define(u8),
    Measures {
        one_row: bool,
    },
}

impl<'a> Binder<'a> {
    fn new(
        context: &'a mut dyn RelationPlannerContext,
        input: LogicalPlan,
        clauses: &MatchClauses,
    ) -> Result<Binder<'a>> {
        let mut binder = Binder {
            context,
            input,
            variables: Vec::new(),
            sets: HashMap::new(),
            columns: Vec::new(),
            terms: Vec::new(),
        };
        clauses.pattern.each_variable(&mut |name| {
            if !binder.variables.iter().any(|variable| variable == name) {
                binder.variables.push(name.to_string());
            }
        });
        if binder.variables.len() > VARIABLES_MAX {
            let message = format!("PATTERN has more than {VARIABLES_MAX} variables");
            let error = SqlError::new(SqlState::ConfigurationLimitExceeded, message);
            return Err(located(error, clauses.pattern_span));
        }
        for (number, name) in binder.variables.iter().enumerate() {
            binder.sets.insert(name.clone(), 1 << number);
        }
        for (name, members) in &clauses.subsets {
            let subset = binder.context.normalize_ident(name.clone());
            if binder.sets.contains_key(&subset) {
                let message = format!("\"{subset}\" is a pattern variable already");
                return Err(located(SqlError::new(SqlState::DuplicateObject, message), name.span));
            }
            let mut set = 0;
            for member in members {
                set |= binder.set(member, "SUBSET")?;
            }
            binder.sets.insert(subset, set);
        }
        Ok(binder)
    }

    fn bind(mut self, mut clauses: MatchClauses) -> Result<LogicalPlan> {
        self.check(&clauses)?;
        let partition_by = self.partition_by(&clauses)?;
        let order_by = self.order_by(&clauses)?;
        if clauses.within.is_some() || clauses.timeout_rows || clauses.pattern.has_absence() {
            self.check_time(&clauses, &order_by)?;
        }
        let rows = match clauses.rows {
            parsed::RowsPerMatch::One => RowsPerMatch::One,
            parsed::RowsPerMatch::All { empty, unmatched } => RowsPerMatch::All { empty, unmatched },
        };
        let mut others = Vec::new();
        if rows != RowsPerMatch::One {
            for column in self.input.schema().columns() {
                let number = self.column(Expr::Column(column));
                let known =
                    partition_by.contains(&number) || order_by.iter().any(|(column, _)| *column == number);
                if !known {
                    others.push(number);
                }
            }
        }
        let variables = self.define(std::mem::take(&mut clauses.define))?;
        let scope = Scope::Measures { one_row: rows == RowsPerMatch::One };
        let mut measures = Vec::new();
        for (expr, name) in std::mem::take(&mut clauses.measures) {
            let span = expr.span();
            let bound = self.expr(expr, scope).map_err(|error| placed(error, span))?;
            measures.push((self.context.normalize_ident(name), bound));
        }
        let skip = match &clauses.skip {
            parsed::Skip::PastLastRow => Skip::PastLastRow,
            parsed::Skip::ToNextRow => Skip::ToNextRow,
            parsed::Skip::ToFirst(name) => Skip::ToFirst(self.set(name, "AFTER MATCH SKIP")?),
            parsed::Skip::ToLast(name) => Skip::ToLast(self.set(name, "AFTER MATCH SKIP")?),
        };
        if let Err(error) = pattern::check_size(&clauses.pattern, &self.variables) {
            let text = error.strip_backtrace();
            let text = text.strip_prefix("Error during planning: ").unwrap_or(&text).to_string();
            let error = SqlError::new(SqlState::ConfigurationLimitExceeded, text);
            return Err(located(error, clauses.pattern_span));
        }
        let names: Vec<String> = self
            .columns
            .iter()
            .map(|expr| match expr {
                Expr::Column(column) => column.name.clone(),
                other => other.schema_name().to_string(),
            })
            .collect();
        // Columns keep their names where they can, because late_rows shows them.
        let named: Vec<Expr> = (0..names.len())
            .map(|n| {
                let plain = matches!(self.columns[n], Expr::Column(_));
                let unique = names.iter().filter(|name| **name == names[n]).count() == 1;
                let name = if plain && unique { names[n].clone() } else { format!("__column_{n}") };
                self.columns[n].clone().alias(name)
            })
            .collect();
        let pattern = RowPattern {
            partition_by,
            order_by,
            others,
            names,
            pattern: clauses.pattern,
            variables,
            terms: self.terms,
            measures,
            rows,
            timeout_rows: clauses.timeout_rows,
            skip,
            within_us: clauses.within.map(|(us, _)| us),
        };
        let input = LogicalPlanBuilder::from(self.input).project(named)?.build()?;
        let node = MatchRecognize::try_new(input, Arc::new(pattern)).map_err(|error| {
            let text = error.strip_backtrace();
            let text = text.strip_prefix("Error during planning: ").unwrap_or(&text).to_string();
            let error = SqlError::new(SqlState::DuplicateColumn, text);
            located(error.with_hint("give the measure another name with AS"), clauses.pattern_span)
        })?;
        Ok(LogicalPlan::Extension(Extension { node: Arc::new(node) }))
    }

    /// Rules between clauses.
    fn check(&self, clauses: &MatchClauses) -> Result<()> {
        let refuse = |error: SqlError| Err(located(error, clauses.pattern_span));
        let invalid = |message: &str| SqlError::new(SqlState::InvalidDefinition, message);
        if !clauses.pattern.absence_comes_last(true) {
            let error = invalid("NOT in PATTERN has to be the last element");
            return refuse(error.with_hint(
                "in the middle define a variable that excludes the row: PATTERN (a other* b) DEFINE other AS status <> 'x'",
            ));
        }
        if clauses.pattern.has_absence() && clauses.within.is_none() {
            return refuse(
                invalid("NOT in PATTERN needs WITHIN")
                    .with_hint("say how long to wait: PATTERN (create NOT pay) WITHIN INTERVAL '15 minutes'"),
            );
        }
        if clauses.timeout_rows && clauses.within.is_none() {
            return refuse(
                invalid("WITH TIMEOUT ROWS needs WITHIN")
                    .with_hint("say when a match is too late: PATTERN (...) WITHIN INTERVAL '15 minutes'"),
            );
        }
        if clauses.timeout_rows && matches!(clauses.rows, parsed::RowsPerMatch::All { unmatched: true, .. }) {
            return refuse(invalid("WITH UNMATCHED ROWS and WITH TIMEOUT ROWS exclude each other"));
        }
        Ok(())
    }

    fn partition_by(&mut self, clauses: &MatchClauses) -> Result<Vec<usize>> {
        let mut columns = Vec::new();
        for expr in &clauses.partition_by {
            let column = self.input_column(expr, "PARTITION BY")?;
            if !columns.contains(&column) {
                columns.push(column);
            }
        }
        Ok(columns)
    }

    fn order_by(&mut self, clauses: &MatchClauses) -> Result<Vec<(usize, SortOptions)>> {
        if clauses.order_by.is_empty() {
            let error = SqlError::new(SqlState::InvalidDefinition, "MATCH_RECOGNIZE needs ORDER BY")
                .with_hint(
                    "a pattern speaks of an order of rows, most often that of their time: ORDER BY ts",
                );
            return Err(located(error, clauses.pattern_span));
        }
        let mut keys: Vec<(usize, SortOptions)> = Vec::new();
        for key in &clauses.order_by {
            let column = self.input_column(&key.expr, "ORDER BY")?;
            let descending = key.options.asc == Some(false);
            let nulls_first = key.options.nulls_first.unwrap_or(descending);
            if !keys.iter().any(|(known, _)| *known == column) {
                keys.push((column, SortOptions { descending, nulls_first }));
            }
        }
        Ok(keys)
    }

    fn input_column(&mut self, expr: &ast::Expr, clause: &str) -> Result<usize> {
        let span = expr.span();
        match self.context.sql_to_expr(expr.clone(), self.input.schema())? {
            Expr::Column(column) => Ok(self.column(Expr::Column(column))),
            _ => Err(located(
                SqlError::unsupported(format!("{clause} of MATCH_RECOGNIZE takes columns, not {expr}"))
                    .with_hint(
                        "compute it below: FROM (SELECT ..., expression AS x FROM t) MATCH_RECOGNIZE (...)",
                    ),
                span,
            )),
        }
    }

    fn check_time(&self, clauses: &MatchClauses, order_by: &[(usize, SortOptions)]) -> Result<()> {
        let place = clauses.within.map_or(clauses.pattern_span, |(_, span)| span);
        let (column, options) = order_by[0];
        let data_type = self.columns[column].get_type(self.input.schema())?;
        let what = match (&data_type, options.descending) {
            (DataType::Timestamp(_, _), false) => return Ok(()),
            (DataType::Timestamp(_, _), true) => "sorted in descending order".to_string(),
            (other, _) => format!("of type {}", name_of(other)),
        };
        let message = format!("WITHIN needs a time as the first column of ORDER BY, which is {what}");
        let error = SqlError::new(SqlState::DatatypeMismatch, message);
        Err(located(error.with_hint("write ORDER BY ts, a timestamp in ascending order"), place))
    }

    fn define(&mut self, define: Vec<(ast::Ident, ast::Expr)>) -> Result<Vec<(String, Option<Expr>)>> {
        let mut conditions: Vec<Option<Expr>> = vec![None; self.variables.len()];
        for (name, expr) in define {
            let variable = self.context.normalize_ident(name.clone());
            let Some(number) = self.variables.iter().position(|known| *known == variable) else {
                let message = format!("DEFINE has \"{variable}\", which is not in PATTERN");
                let error = SqlError::new(SqlState::UndefinedObject, message);
                let hint = crate::suggest::closest(&variable, self.variables.iter().map(String::as_str));
                let error = match hint {
                    Some(near) => error.with_hint(crate::suggest::did_you_mean(near)),
                    None => error.with_hint("use it in PATTERN or leave it out of DEFINE"),
                };
                return Err(located(error, name.span));
            };
            if conditions[number].is_some() {
                let message = format!("DEFINE has \"{variable}\" twice");
                return Err(located(SqlError::new(SqlState::DuplicateObject, message), name.span));
            }
            let span = expr.span();
            let scope = Scope::Define(number as u8);
            let bound = self.expr(expr, scope).map_err(|error| placed(error, span))?;
            let found = bound.get_type(&self.term_schema()?)?;
            if !matches!(found, DataType::Boolean | DataType::Null) {
                let message =
                    format!("condition of \"{variable}\" has type {}, not boolean", name_of(&found));
                return Err(located(SqlError::new(SqlState::DatatypeMismatch, message), span));
            }
            conditions[number] = Some(bound);
        }
        Ok(self.variables.iter().cloned().zip(conditions).collect())
    }

    /// A condition or measure as an expression over the terms.
    fn expr(&mut self, mut expr: ast::Expr, scope: Scope) -> Result<Expr> {
        let mut extraction = Extraction { binder: self, scope };
        if let ControlFlow::Break(error) = VisitMut::visit(&mut expr, &mut extraction) {
            return Err(error);
        }
        let schema = self.term_schema()?;
        let bound = self.context.sql_to_expr(expr, &schema)?;
        super::streaming::refuse_clock(&bound, "MATCH_RECOGNIZE")
            .map_err(|error| DataFusionError::External(Box::new(error)))?;
        coerced(bound, &schema)
    }

    fn term_schema(&self) -> Result<DFSchema> {
        let types = self.column_types()?;
        RowPattern::term_schema(&self.terms, |column| types[column].clone())
    }

    fn column_types(&self) -> Result<Vec<DataType>> {
        self.columns.iter().map(|expr| expr.get_type(self.input.schema())).collect()
    }

    /// Number of the projection's column with this value.
    fn column(&mut self, expr: Expr) -> usize {
        match self.columns.iter().position(|known| *known == expr) {
            Some(number) => number,
            None => {
                self.columns.push(expr);
                self.columns.len() - 1
            }
        }
    }

    fn term(&mut self, term: Term) -> usize {
        match self.terms.iter().position(|known| *known == term) {
            Some(number) => number,
            None => {
                self.terms.push(term);
                self.terms.len() - 1
            }
        }
    }

    fn all(&self) -> VariableSet {
        (1 << self.variables.len()) - 1
    }

    fn set(&self, name: &ast::Ident, clause: &str) -> Result<VariableSet> {
        let variable = self.context.normalize_ident(name.clone());
        self.sets.get(&variable).copied().ok_or_else(|| {
            let message = format!("{clause} has \"{variable}\", which is not in PATTERN");
            let mut error = SqlError::new(SqlState::UndefinedObject, message);
            if let Some(near) = crate::suggest::closest(&variable, self.sets.keys().map(String::as_str)) {
                error = error.with_hint(crate::suggest::did_you_mean(near));
            }
            located(error, name.span)
        })
    }

    /// An expression over the columns of one row: the variables it is about, and the projection's column.
    fn row_value(&mut self, mut expr: ast::Expr) -> Result<(VariableSet, usize)> {
        let span = expr.span();
        let written = expr.to_string();
        let mut qualifiers = Qualifiers { sets: &self.sets, context: &*self.context, found: Vec::new() };
        if let ControlFlow::Break(error) = VisitMut::visit(&mut expr, &mut qualifiers) {
            return Err(error);
        }
        let mut found = qualifiers.found;
        found.dedup();
        let set = match found.as_slice() {
            [] | [None] => self.all(),
            [Some(set)] => *set,
            _ => {
                let error = SqlError::new(
                    SqlState::InvalidDefinition,
                    format!("{written} is about rows of several pattern variables"),
                );
                let hint = "columns inside one function take the same variable: LAST(a.x) + LAST(b.x)";
                return Err(located(error.with_hint(hint), span));
            }
        };
        let bound = self.context.sql_to_expr(expr, self.input.schema())?;
        let bound = coerced(bound, self.input.schema())?;
        Ok((set, self.column(bound)))
    }
}

fn coerced(expr: Expr, schema: &DFSchema) -> Result<Expr> {
    let context = SimplifyContext::builder().with_schema(Arc::new(schema.clone())).build();
    ExprSimplifier::new(context).coerce(expr, schema)
}

/// Gives an error its place unless it has one.
fn placed(error: DataFusionError, span: Span) -> DataFusionError {
    if error.diagnostic().is_some() {
        return error;
    }
    located(super::from_datafusion(error, ""), span)
}

/// Takes the pattern variables off the columns of an expression and collects them.
struct Qualifiers<'a> {
    sets: &'a HashMap<String, VariableSet>,
    context: &'a dyn RelationPlannerContext,
    found: Vec<Option<VariableSet>>,
}

impl VisitorMut for Qualifiers<'_> {
    type Break = DataFusionError;

    fn pre_visit_expr(&mut self, expr: &mut ast::Expr) -> ControlFlow<DataFusionError> {
        match expr {
            ast::Expr::Identifier(_) => self.found.push(None),
            ast::Expr::CompoundIdentifier(parts) => {
                let set = self.sets.get(&self.context.normalize_ident(parts[0].clone())).copied();
                self.found.push(set);
                if set.is_some() {
                    parts.remove(0);
                    if let [column] = parts.as_slice() {
                        *expr = ast::Expr::Identifier(column.clone());
                        // The identifier is not visited again.
                    }
                }
            }
            ast::Expr::Function(function) => {
                let name = function.name.to_string().trim_matches('"').to_lowercase();
                if is_navigation(&name) || is_match_function(&name) {
                    let error = SqlError::unsupported(format!("{name} can't stand inside {expr}"))
                        .with_hint("PREV and NEXT take FIRST and LAST; everything else stands outside");
                    return ControlFlow::Break(located(error, expr.span()));
                }
            }
            _ => {}
        }
        ControlFlow::Continue(())
    }
}

/// Replaces what is said of rows by the names of terms.
struct Extraction<'a, 'b> {
    binder: &'a mut Binder<'b>,
    scope: Scope,
}

fn is_navigation(name: &str) -> bool {
    matches!(
        name.strip_prefix(FINAL).or(name.strip_prefix(RUNNING)).unwrap_or(name),
        "prev" | "next" | "first" | "last"
    )
}

fn is_match_function(name: &str) -> bool {
    matches!(name, "classifier" | "match_number" | "match_timed_out")
}

impl VisitorMut for Extraction<'_, '_> {
    type Break = DataFusionError;

    fn pre_visit_expr(&mut self, expr: &mut ast::Expr) -> ControlFlow<DataFusionError> {
        let span = expr.span();
        let term = match expr {
            ast::Expr::Identifier(_) | ast::Expr::CompoundIdentifier(_) => self.column(expr.clone()),
            ast::Expr::Function(function) => match self.function(function, span) {
                Ok(None) => return ControlFlow::Continue(()),
                Ok(Some(term)) => Ok(term),
                Err(error) => Err(error),
            },
            ast::Expr::Subquery(_) | ast::Expr::Exists { .. } | ast::Expr::InSubquery { .. } => {
                Err(located(SqlError::unsupported("a subquery in MATCH_RECOGNIZE is not supported"), span))
            }
            ast::Expr::Value(value) if matches!(value.value, ast::Value::Placeholder(_)) => {
                let error = SqlError::unsupported("a parameter in MATCH_RECOGNIZE is not supported");
                Err(located(error.with_hint("write the value itself"), span))
            }
            _ => return ControlFlow::Continue(()),
        };
        match term {
            Ok(term) => {
                let number = self.binder.term(term);
                let name = ast::Ident { value: Term::column_name(number), quote_style: None, span };
                *expr = ast::Expr::Identifier(name);
                ControlFlow::Continue(())
            }
            Err(error) => ControlFlow::Break(placed(error, span)),
        }
    }
}

impl Extraction<'_, '_> {
    /// A column without a function: of the row itself, or of the last row of its variable.
    fn column(&mut self, expr: ast::Expr) -> Result<Term> {
        let (set, column) = self.binder.row_value(expr)?;
        Ok(Term::Row { value: Value::Column(column), anchor: self.last(set, 0, false), offset: 0 })
    }

    fn last(&self, set: VariableSet, n: u32, is_final: bool) -> Anchor {
        match self.scope {
            Scope::Define(variable) if n == 0 && set & (1 << variable) != 0 => Anchor::Current,
            scope => Anchor::Last { set, n, whole: whole(scope, is_final) },
        }
    }

    /// The term for a call that is about rows; `None` for other functions.
    fn function(&mut self, function: &ast::Function, span: Span) -> Result<Option<Term>> {
        let [ObjectNamePart::Identifier(ident)] = function.name.0.as_slice() else { return Ok(None) };
        let lower = ident.value.to_lowercase();
        let (name, is_final) = match (lower.strip_prefix(FINAL), lower.strip_prefix(RUNNING)) {
            (Some(name), _) => (name, true),
            (_, Some(name)) => (name, false),
            _ => (lower.as_str(), false),
        };
        if is_final && matches!(self.scope, Scope::Define(_)) {
            let error =
                SqlError::new(SqlState::InvalidDefinition, "FINAL belongs to MEASURES, not to DEFINE");
            let hint = "while rows are being matched only those so far are known; leave FINAL out";
            return Err(located(error.with_hint(hint), span));
        }
        let term = match name {
            "prev" | "next" | "first" | "last" => self.navigation(name, function, is_final, span)?,
            "classifier" => {
                let (set, _) = self.classifier(function, span)?;
                Term::Row { value: Value::Classifier, anchor: self.last(set, 0, is_final), offset: 0 }
            }
            "match_number" => Term::MatchNumber,
            "match_timed_out" => match self.scope {
                Scope::Measures { .. } => Term::TimedOut,
                Scope::Define(_) => {
                    let error = "MATCH_TIMED_OUT() belongs to MEASURES, not to DEFINE";
                    return Err(located(SqlError::new(SqlState::InvalidDefinition, error), span));
                }
            },
            name if self.binder.context.context_provider().get_aggregate_meta(name).is_some() => {
                self.aggregate(name, function, is_final, span)?
            }
            _ if lower != name => {
                let message = format!("FINAL and RUNNING do not go with function {name}");
                return Err(located(SqlError::new(SqlState::SyntaxError, message), span));
            }
            _ => return Ok(None),
        };
        if function.over.is_some() {
            let error = SqlError::unsupported("OVER in MATCH_RECOGNIZE is not supported");
            return Err(located(error, span));
        }
        Ok(Some(term))
    }

    fn navigation(
        &mut self,
        name: &str,
        function: &ast::Function,
        is_final: bool,
        span: Span,
    ) -> Result<Term> {
        let (argument, n) = navigation_arguments(name, function, span)?;
        let physical = matches!(name, "prev" | "next");
        let n = n.unwrap_or(u32::from(physical));
        if physical {
            let offset = if name == "prev" { -i64::from(n) } else { i64::from(n) };
            // PREV(LAST(a.x, 2), 1)
            if let ast::Expr::Function(inner) = &argument {
                match self.function(inner, argument.span())? {
                    Some(Term::Row { value: Value::Classifier, .. }) => {
                        let error = SqlError::unsupported(format!("{name}(CLASSIFIER()) is not supported"));
                        let hint = "ask for an earlier row of the match: LAST(CLASSIFIER(), 1)";
                        return Err(located(error.with_hint(hint), span));
                    }
                    Some(Term::Row { value, anchor, offset: 0 }) => {
                        return Ok(Term::Row { value, anchor, offset });
                    }
                    Some(_) => {
                        let message = format!("{name} takes a column, FIRST or LAST");
                        return Err(located(SqlError::new(SqlState::SyntaxError, message), span));
                    }
                    None => {}
                }
            }
            let (set, column) = self.binder.row_value(argument)?;
            return Ok(Term::Row {
                value: Value::Column(column),
                anchor: self.last(set, 0, is_final),
                offset,
            });
        }
        let (set, value) = match &argument {
            ast::Expr::Function(inner) if inner.name.to_string().eq_ignore_ascii_case("classifier") => {
                (self.classifier(inner, span)?.0, Value::Classifier)
            }
            _ => {
                let (set, column) = self.binder.row_value(argument)?;
                (set, Value::Column(column))
            }
        };
        let anchor = match name {
            "first" => Anchor::First { set, n, whole: whole(self.scope, is_final) },
            _ => self.last(set, n, is_final),
        };
        Ok(Term::Row { value, anchor, offset: 0 })
    }

    fn classifier(&self, function: &ast::Function, span: Span) -> Result<(VariableSet, ())> {
        let arguments = arguments(function);
        match arguments.as_slice() {
            [] => Ok((self.binder.all(), ())),
            [FunctionArg::Unnamed(FunctionArgExpr::Expr(ast::Expr::Identifier(name)))] => {
                Ok((self.binder.set(name, "CLASSIFIER")?, ()))
            }
            _ => {
                let error = SqlError::new(SqlState::SyntaxError, "CLASSIFIER takes at most one variable");
                Err(located(error, span))
            }
        }
    }

    fn aggregate(
        &mut self,
        name: &str,
        function: &ast::Function,
        is_final: bool,
        span: Span,
    ) -> Result<Term> {
        let clauses = match &function.args {
            FunctionArguments::List(list) => list.clauses.len(),
            _ => 0,
        };
        if function.filter.is_some() || !function.within_group.is_empty() || clauses > 0 {
            let error = SqlError::unsupported(format!("FILTER and ORDER BY in {name} of MATCH_RECOGNIZE are not supported"))
                .with_hint("aggregates go over the rows of a variable in their order; define a variable or SUBSET for the rows");
            return Err(located(error, span));
        }
        let mut call = function.clone();
        let plain = ast::Ident { value: name.to_string(), quote_style: None, span };
        call.name = ObjectName(vec![ObjectNamePart::Identifier(plain)]);
        call.over = None;
        let mut set = self.binder.all();
        let star = match arguments(function).as_slice() {
            [FunctionArg::Unnamed(FunctionArgExpr::Wildcard)] => true,
            [FunctionArg::Unnamed(FunctionArgExpr::QualifiedWildcard(variable))] => {
                let [ObjectNamePart::Identifier(variable)] = variable.0.as_slice() else {
                    let message = format!("{variable} is no pattern variable");
                    return Err(located(SqlError::new(SqlState::UndefinedObject, message), span));
                };
                set = self.binder.set(variable, name)?;
                true
            }
            _ => false,
        };
        if star && let FunctionArguments::List(list) = &mut call.args {
            let one = ast::Value::Number("1".to_string(), false).with_span(span);
            list.args = vec![FunctionArg::Unnamed(FunctionArgExpr::Expr(ast::Expr::Value(one)))];
        }
        let mut call = ast::Expr::Function(call);
        if !star {
            let mut qualifiers =
                Qualifiers { sets: &self.binder.sets, context: &*self.binder.context, found: Vec::new() };
            if let ControlFlow::Break(error) = VisitMut::visit(&mut call, &mut qualifiers) {
                return Err(error);
            }
            let mut found = qualifiers.found;
            found.dedup();
            set = match found.as_slice() {
                [] | [None] => set,
                [Some(set)] => *set,
                _ => {
                    let message = format!("{name} is about rows of several pattern variables");
                    let error = SqlError::new(SqlState::InvalidDefinition, message);
                    let hint =
                        "all columns in it take the same variable; SUBSET makes one variable of several";
                    return Err(located(error.with_hint(hint), span));
                }
            };
        }
        let schema = Arc::clone(self.binder.input.schema());
        let bound = coerced(self.binder.context.sql_to_expr(call, &schema)?, &schema)?;
        let data_type = bound.get_type(&schema)?;
        let Expr::AggregateFunction(aggregate) = bound.unalias_nested().data else {
            return Err(located(SqlError::internal(format!("{name} is an aggregate")), span));
        };
        let arguments = aggregate.params.args.into_iter().map(|arg| self.binder.column(arg)).collect();
        Ok(Term::Aggregate {
            function: aggregate.func,
            arguments,
            distinct: aggregate.params.distinct,
            set,
            whole: whole(self.scope, is_final),
            data_type,
        })
    }
}

fn whole(scope: Scope, is_final: bool) -> bool {
    is_final || matches!(scope, Scope::Measures { one_row: true })
}

fn arguments(function: &ast::Function) -> Vec<FunctionArg> {
    match &function.args {
        FunctionArguments::List(list) => list.args.clone(),
        _ => Vec::new(),
    }
}

/// The expression and the number of rows of a navigation function.
fn navigation_arguments(
    name: &str,
    function: &ast::Function,
    span: Span,
) -> Result<(ast::Expr, Option<u32>)> {
    let usage = || {
        let message = format!("{name} takes an expression and a constant number of rows");
        let error = SqlError::new(SqlState::SyntaxError, message);
        located(error.with_hint(format!("write {name}(price) or {name}(price, 2)")), span)
    };
    let plain = |argument: &FunctionArg| match argument {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => Some(expr.clone()),
        _ => None,
    };
    let number = |expr: &ast::Expr| match expr {
        ast::Expr::Value(value) => match &value.value {
            ast::Value::Number(digits, _) => digits.parse::<u32>().ok().filter(|n| *n <= ROWS_MAX),
            _ => None,
        },
        _ => None,
    };
    match arguments(function).as_slice() {
        [argument] => Ok((plain(argument).ok_or_else(usage)?, None)),
        [argument, n] => {
            let n = plain(n).as_ref().and_then(number).ok_or_else(usage)?;
            Ok((plain(argument).ok_or_else(usage)?, Some(n)))
        }
        _ => Err(usage()),
    }
}

/// The farthest that PREV, NEXT, FIRST and LAST reach.
const ROWS_MAX: u32 = 10_000;

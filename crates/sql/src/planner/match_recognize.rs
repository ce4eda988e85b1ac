//! Planning of MATCH_RECOGNIZE: looks names up and takes the terms out of its expressions.
//!
//! ```text
//!   a AS LAST(price) > PREV(price) + 1        terms:       0: price of the current row, 1: price one row before
//!                                             condition:   __term_0 > __term_1 + 1
//! ```

mod terms;

use crate::walk::walk;
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
    self, FunctionArg, FunctionArgExpr, ObjectName, ObjectNamePart, Spanned, TableFactor,
};
use datafusion::sql::sqlparser::tokenizer::Span;

use self::terms::{Extraction, Qualifiers};
use super::relations::located;
use crate::match_recognize::{
    MatchRecognize, RowPattern, RowsPerMatch, Skip, Term, VARIABLES_MAX, VariableSet, pattern,
};
use crate::parser::match_recognize::{self as parsed, FUNCTION, MatchClauses};
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
        if let ControlFlow::Break(error) = walk(&mut expr, &mut extraction) {
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
        if let ControlFlow::Break(error) = walk(&mut expr, &mut qualifiers) {
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

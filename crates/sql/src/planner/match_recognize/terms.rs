//! Terms: what the expressions of a MATCH_RECOGNIZE say of rows, taken out of them.

use crate::walk::walk;
use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use datafusion::common::{DataFusionError, Result};
use datafusion::logical_expr::planner::RelationPlannerContext;
use datafusion::logical_expr::{Expr, ExprSchemable};
use datafusion::sql::sqlparser::ast::{
    self, FunctionArg, FunctionArgExpr, FunctionArguments, ObjectName, ObjectNamePart, Spanned, VisitorMut,
};
use datafusion::sql::sqlparser::tokenizer::Span;

use super::{Binder, Scope, coerced, located, placed};
use crate::match_recognize::{Anchor, Term, Value, VariableSet};
use crate::parser::match_recognize::{FINAL, RUNNING};
use crate::{SqlError, SqlState};

/// Takes the pattern variables off the columns of an expression and collects them.
pub(super) struct Qualifiers<'a> {
    pub(super) sets: &'a HashMap<String, VariableSet>,
    pub(super) context: &'a dyn RelationPlannerContext,
    pub(super) found: Vec<Option<VariableSet>>,
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
pub(super) struct Extraction<'a, 'b> {
    pub(super) binder: &'a mut Binder<'b>,
    pub(super) scope: Scope,
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
                let set = self.classifier(function, span)?;
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
                (self.classifier(inner, span)?, Value::Classifier)
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

    /// The variables that CLASSIFIER looks at.
    fn classifier(&self, function: &ast::Function, span: Span) -> Result<VariableSet> {
        let arguments = arguments(function);
        match arguments.as_slice() {
            [] => Ok(self.binder.all()),
            [FunctionArg::Unnamed(FunctionArgExpr::Expr(ast::Expr::Identifier(name)))] => {
                self.binder.set(name, "CLASSIFIER")
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
            if let ControlFlow::Break(error) = walk(&mut call, &mut qualifiers) {
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

//! Set-returning functions, in FROM and in the SELECT list, as `unnest` of a function that gives an array.
//!
//! ```text
//!   FROM jsonb_array_elements(t.items) WITH ORDINALITY AS i(item, n)
//!   FROM UNNEST(json_elements(t.items), generate_series(1, array_length(json_elements(t.items)))) AS i(item, n)
//!
//!   SELECT generate_series(1, n)        ->        SELECT unnest(generate_series(1, n)) AS generate_series
//! ```
//!
//! Several arrays are unnested side by side, the shorter ones filled up with NULL, as in PostgreSQL.

use crate::walk::{for_each_expr, walk};
use datafusion::sql::sqlparser::ast::{
    self, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, Ident, ObjectName, ObjectNamePart,
    SelectItem, Spanned, TableAlias, TableAliasColumnDef, TableFactor, VisitorMut,
};
use std::ops::ControlFlow;

/// A set-returning function: the functions whose arrays are its columns, and their names.
struct SetReturning {
    name: &'static str,
    columns: &'static [(&'static str, &'static str)],
}

/// Without unnest itself, whose arguments are arrays already.
const FUNCTIONS: [SetReturning; 13] = [
    SetReturning { name: "generate_series", columns: &[("generate_series", "generate_series")] },
    SetReturning { name: "json_array_elements", columns: &[("json_elements", "value")] },
    SetReturning { name: "jsonb_array_elements", columns: &[("json_elements", "value")] },
    SetReturning { name: "json_array_elements_text", columns: &[("json_elements_text", "value")] },
    SetReturning { name: "jsonb_array_elements_text", columns: &[("json_elements_text", "value")] },
    SetReturning { name: "json_object_keys", columns: &[("json_keys", "json_object_keys")] },
    SetReturning { name: "jsonb_object_keys", columns: &[("json_keys", "jsonb_object_keys")] },
    SetReturning { name: "jsonb_each", columns: &[("json_keys", "key"), ("json_values", "value")] },
    SetReturning { name: "jsonb_each_text", columns: &[("json_keys", "key"), ("json_values_text", "value")] },
    SetReturning { name: "regexp_matches", columns: &[("regexp_all_matches", "regexp_matches")] },
    SetReturning {
        name: "regexp_split_to_table",
        columns: &[("regexp_split_to_array", "regexp_split_to_table")],
    },
    SetReturning { name: "string_to_table", columns: &[("string_to_array", "string_to_table")] },
    SetReturning { name: "generate_subscripts", columns: &[("array_subscripts", "generate_subscripts")] },
];

fn find(name: &ObjectName) -> Option<&'static SetReturning> {
    let [ObjectNamePart::Identifier(ident)] = name.0.as_slice() else { return None };
    FUNCTIONS.iter().find(|function| function.name.eq_ignore_ascii_case(&ident.value))
}

fn is_unnest(name: &ObjectName) -> bool {
    matches!(name.0.as_slice(), [ObjectNamePart::Identifier(ident)] if ident.value.eq_ignore_ascii_case("unnest"))
}

/// Rewrites a function in FROM. A series of constants is left to the planner, which makes its rows one by one.
pub(super) fn rewrite_relation(relation: &mut TableFactor) {
    let span = relation.span();
    let (arrays, names, alias, with_ordinality) = match relation {
        TableFactor::UNNEST { alias, array_exprs, with_offset: false, with_ordinality, .. } => {
            let names = vec!["unnest"; array_exprs.len()];
            (array_exprs.clone(), names, alias.clone(), *with_ordinality)
        }
        TableFactor::Table { name, alias, args: Some(arguments), with_ordinality, .. } => {
            let Some(exprs) = plain_arguments(&arguments.args) else { return };
            let series_of_constants =
                is_series(name) && !*with_ordinality && exprs.iter().all(|expr| !reads_columns(expr));
            match arrays_of(name, exprs) {
                Some((arrays, names)) if !series_of_constants => {
                    (arrays, names, alias.clone(), *with_ordinality)
                }
                Some(_) => {
                    let name = || Ident::with_span(span, "generate_series");
                    let known = || TableAlias { explicit: true, name: name(), columns: vec![], at: None };
                    let alias = alias.get_or_insert_with(known);
                    // A function's only column is known by the alias.
                    if alias.columns.is_empty() {
                        alias.columns.push(TableAliasColumnDef { name: alias.name.clone(), data_type: None });
                    }
                    return;
                }
                None => return,
            }
        }
        TableFactor::Function { name, args, alias, with_ordinality, .. } => {
            let Some(exprs) = plain_arguments(args) else { return };
            match arrays_of(name, exprs) {
                Some((arrays, names)) => (arrays, names, alias.clone(), *with_ordinality),
                None => return,
            }
        }
        _ => return,
    };
    let mut arrays = arrays;
    let mut names: Vec<Ident> = names.into_iter().map(|name| Ident::with_span(span, name)).collect();
    let first = names.first().cloned().unwrap_or_else(|| Ident::with_span(span, "unnest"));
    let mut alias =
        alias.unwrap_or_else(|| TableAlias { explicit: true, name: first, columns: vec![], at: None });
    // A function's only column is known by the alias.
    if alias.columns.is_empty() && names.len() == 1 {
        names[0] = alias.name.clone();
    }
    if with_ordinality {
        let lengths = arrays.iter().map(|array| call("array_length", vec![array.clone()]));
        let longest = call("greatest", lengths.collect());
        let longest = Expr::Cast {
            kind: ast::CastKind::Cast,
            expr: Box::new(longest),
            data_type: ast::DataType::BigInt(None),
            array: false,
            format: None,
        };
        let one = Expr::Value(ast::Value::Number("1".to_string(), false).into());
        arrays.push(call("generate_series", vec![one, longest]));
        names.push(Ident::with_span(span, "ordinality"));
    }
    let given = alias.columns.len().min(names.len());
    let rest = names.drain(given..).map(|name| TableAliasColumnDef { name, data_type: None });
    alias.columns.extend(rest);
    *relation = TableFactor::UNNEST {
        alias: Some(alias),
        array_exprs: arrays,
        with_offset: false,
        with_offset_alias: None,
        with_ordinality: false,
    };
}

fn is_series(name: &ObjectName) -> bool {
    find(name).is_some_and(|function| function.name == "generate_series")
}

fn arrays_of(name: &ObjectName, arguments: Vec<Expr>) -> Option<(Vec<Expr>, Vec<&'static str>)> {
    if is_unnest(name) {
        let names = vec!["unnest"; arguments.len()];
        return Some((arguments, names));
    }
    let function = find(name)?;
    Some(function.columns.iter().map(|(array, column)| (call(array, arguments.clone()), *column)).unzip())
}

pub(super) fn plain_arguments(arguments: &[FunctionArg]) -> Option<Vec<Expr>> {
    let plain = |argument: &FunctionArg| match argument {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => Some(expr.clone()),
        _ => None,
    };
    arguments.iter().map(plain).collect()
}

/// `name(arguments)`
pub(super) fn call(name: &str, arguments: Vec<Expr>) -> Expr {
    let arguments =
        arguments.into_iter().map(|argument| FunctionArg::Unnamed(FunctionArgExpr::Expr(argument))).collect();
    Expr::Function(Function {
        name: ObjectName(vec![ObjectNamePart::Identifier(Ident::new(name))]),
        uses_odbc_syntax: false,
        parameters: FunctionArguments::None,
        args: FunctionArguments::List(ast::FunctionArgumentList {
            duplicate_treatment: None,
            args: arguments,
            clauses: vec![],
        }),
        filter: None,
        null_treatment: None,
        over: None,
        within_group: vec![],
    })
}

fn reads_columns(expr: &Expr) -> bool {
    let mut found = false;
    for_each_expr(expr, |expr| {
        found |= matches!(expr, Expr::Identifier(_) | Expr::CompoundIdentifier(_) | Expr::Subquery(_));
    });
    found
}

/// Rewrites the functions in a SELECT list. Those inside of an array function or of `unnest` are left: there
/// `generate_series` is an array.
pub(super) fn rewrite_select(select: &mut ast::Select) {
    for item in &mut select.projection {
        let (SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. }) = item else { continue };
        let name = match expr {
            Expr::Function(function) => find(&function.name).map(|found| found.name),
            _ => None,
        };
        let _ = walk(expr, &mut SelectList { inside: 0 });
        if let (SelectItem::UnnamedExpr(expr), Some(name)) = (&*item, name) {
            let alias = Ident::with_span(expr.span(), name);
            *item = SelectItem::ExprWithAlias { expr: expr.clone(), alias };
        }
    }
}

struct SelectList {
    /// How many calls that take arrays are around.
    inside: usize,
}

fn takes_arrays(function: &Function) -> bool {
    let [ObjectNamePart::Identifier(ident)] = function.name.0.as_slice() else { return false };
    let name = ident.value.to_ascii_lowercase();
    ["unnest", "unnest_outer", "cardinality", "flatten"].contains(&name.as_str())
        || name.starts_with("array_")
        || name.starts_with("list_")
}

impl VisitorMut for SelectList {
    type Break = ();

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if let Expr::Function(function) = expr {
            self.inside += usize::from(takes_arrays(function));
        }
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        let Expr::Function(function) = expr else { return ControlFlow::Continue(()) };
        if takes_arrays(function) {
            self.inside -= 1;
        } else if self.inside == 0
            && let FunctionArguments::List(list) = &function.args
            && let Some(arguments) = plain_arguments(&list.args)
            && let Some(found) = find(&function.name)
            && let [(array, _)] = found.columns
        {
            *expr = call("unnest", vec![call(array, arguments)]);
        }
        ControlFlow::Continue(())
    }
}

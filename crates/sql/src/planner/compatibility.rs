//! What clients ask the system catalogs, in words that DataFusion's planner knows.
//!
//! psql, drivers and BI tools send long queries over `pg_catalog` that use PostgreSQL's own spellings. Their meaning is
//! kept; where a spelling has no counterpart it is replaced by one that gives the same rows over the catalogs we have:
//!
//! | sent | planned |
//! | --- | --- |
//! | `pg_catalog.f(x)`, `OPERATOR(pg_catalog.~)`, `x COLLATE pg_catalog.default` | `f(x)`, `~`, `x` |
//! | `'orders'::regclass`, `oid::regclass`, `oid::regtype` | calls of `regclass`, `regtype` |
//! | `x::pg_catalog.text`, `::oid`, `::name`, `::"char"` | `::text`, `::bigint` |
//! | `(SELECT f(d.a) FROM pg_attrdef d WHERE ... AND c.b)`, one row at most | `CASE WHEN c.b THEN (SELECT max(f(d.a)) ...) END` |
//! | a SELECT that reads a catalog which is always empty | no rows |
//! | `generate_subscripts(a, 1)` | `unnest(array_subscripts(a))` |

use crate::walk::{for_each_expr, walk};
use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    self, BinaryOperator, Expr, FunctionArg, FunctionArgExpr, FunctionArguments, Ident, ObjectName,
    ObjectNamePart, SelectItem, SetExpr, TableFactor, VisitorMut,
};

/// Catalogs of PostgreSQL about things that do not exist here.
pub const EMPTY_CATALOGS: [&str; 34] = [
    "pg_aggregate",
    "pg_auth_members",
    "pg_cast",
    "pg_collation",
    "pg_conversion",
    "pg_db_role_setting",
    "pg_default_acl",
    "pg_depend",
    "pg_enum",
    "pg_event_trigger",
    "pg_extension",
    "pg_foreign_data_wrapper",
    "pg_foreign_server",
    "pg_foreign_table",
    "pg_inherits",
    "pg_largeobject_metadata",
    "pg_locks",
    "pg_opclass",
    "pg_operator",
    "pg_partitioned_table",
    "pg_policy",
    "pg_publication",
    "pg_publication_namespace",
    "pg_publication_rel",
    "pg_range",
    "pg_rewrite",
    "pg_sequence",
    "pg_sequences",
    "pg_shdepend",
    "pg_statistic_ext",
    "pg_subscription",
    "pg_tablespace",
    "pg_trigger",
    "pg_user_mapping",
];

/// True when the text may be about the catalogs: it names one of them, or a type or function that only they have.
pub fn mentions_catalogs(sql: &str) -> bool {
    const WORDS: [&str; 12] = [
        "pg_",
        "information_schema",
        "regclass",
        "regtype",
        "regproc",
        "current_user",
        "session_user",
        "current_setting",
        "current_schemas",
        "_description(",
        "format_type",
        "has_",
    ];
    let text = sql.to_ascii_lowercase();
    WORDS.iter().any(|word| text.contains(word))
}

/// Rewrites a statement that [`mentions_catalogs`] in place.
pub(super) fn rewrite(statement: &mut ast::Statement) {
    let _ = walk(statement, &mut Rewrite);
}

struct Rewrite;

impl VisitorMut for Rewrite {
    type Break = ();

    fn pre_visit_select(&mut self, select: &mut ast::Select) -> ControlFlow<()> {
        if reads_empty_catalog(select) {
            make_empty(select);
        }
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        match expr {
            Expr::Function(function) => rewrite_call(function).map_or((), |new| *expr = new),
            Expr::Collate { expr: inner, .. } => *expr = (**inner).clone(),
            Expr::BinaryOp { op, .. } => {
                if let BinaryOperator::PGCustomBinaryOperator(parts) = op
                    && let Some(plain) = parts.last().and_then(|name| operator(name))
                {
                    *op = plain;
                }
            }
            Expr::Cast { expr: inner, data_type, .. } => {
                if let Some(new) = rewrite_cast(inner, data_type) {
                    *expr = new;
                }
            }
            Expr::AnyOp { right, .. } | Expr::AllOp { right, .. } => rewrite_array_literal(right),
            Expr::Subquery(query) => {
                if let Some(null) = rewrite_scalar(query) {
                    *expr = null;
                }
            }
            _ => {}
        }
        ControlFlow::Continue(())
    }
}

fn null() -> Expr {
    Expr::Value(ast::Value::Null.into())
}

/// The last part of a name in `pg_catalog` or without a schema.
fn catalog_name(name: &ObjectName) -> Option<String> {
    let parts: Vec<&Ident> = name.0.iter().map(|part| part.as_ident()).collect::<Option<_>>()?;
    match parts.as_slice() {
        [name] => Some(name.value.to_lowercase()),
        [schema, name] if schema.value.eq_ignore_ascii_case("pg_catalog") => Some(name.value.to_lowercase()),
        _ => None,
    }
}

fn is_empty_catalog(factor: &TableFactor) -> bool {
    match factor {
        TableFactor::Table { name, args: None, .. } => {
            catalog_name(name).is_some_and(|name| EMPTY_CATALOGS.contains(&name.as_str()))
        }
        TableFactor::NestedJoin { table_with_joins, .. } => joins_empty(table_with_joins),
        _ => false,
    }
}

/// True when no row can come out because one side that has to match is empty.
fn joins_empty(from: &ast::TableWithJoins) -> bool {
    use ast::JoinOperator as J;
    let inner = |join: &ast::Join| {
        matches!(join.join_operator, J::Join(_) | J::Inner(_) | J::CrossJoin(_))
            && is_empty_catalog(&join.relation)
    };
    let keeps_left = from
        .joins
        .iter()
        .all(|join| !matches!(join.join_operator, J::Right(_) | J::RightOuter(_) | J::FullOuter(_)));
    (is_empty_catalog(&from.relation) && keeps_left) || from.joins.iter().any(inner)
}

fn reads_empty_catalog(select: &ast::Select) -> bool {
    // An aggregate has a row for no rows; a wildcard has columns that are not known here.
    let plain = select.projection.iter().all(|item| match item {
        SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } => !is_aggregate(expr),
        _ => false,
    });
    plain && select.from.iter().any(joins_empty)
}

fn is_aggregate(expr: &Expr) -> bool {
    const NAMES: [&str; 9] =
        ["count", "max", "min", "sum", "avg", "array_agg", "string_agg", "bool_or", "bool_and"];
    match expr {
        Expr::Function(function) => {
            catalog_name(&function.name).is_some_and(|name| NAMES.contains(&name.as_str()))
        }
        Expr::Cast { expr, .. } | Expr::Nested(expr) => is_aggregate(expr),
        _ => false,
    }
}

/// The same columns, and no row.
fn make_empty(select: &mut ast::Select) {
    for (number, item) in select.projection.iter_mut().enumerate() {
        let name = match item {
            SelectItem::ExprWithAlias { alias, .. } => alias.clone(),
            SelectItem::UnnamedExpr(Expr::Identifier(name)) => name.clone(),
            SelectItem::UnnamedExpr(Expr::CompoundIdentifier(names)) if !names.is_empty() => {
                names[names.len() - 1].clone()
            }
            _ => Ident::new(format!("column{number}")),
        };
        let text = Expr::Cast {
            kind: ast::CastKind::Cast,
            expr: Box::new(null()),
            data_type: ast::DataType::Text,
            array: false,
            format: None,
        };
        *item = SelectItem::ExprWithAlias { expr: text, alias: name };
    }
    select.from.clear();
    select.selection = Some(Expr::Value(ast::Value::Boolean(false).into()));
    select.having = None;
    select.group_by = ast::GroupByExpr::Expressions(Vec::new(), Vec::new());
}

fn operator(name: &str) -> Option<BinaryOperator> {
    Some(match name {
        "~" => BinaryOperator::PGRegexMatch,
        "~*" => BinaryOperator::PGRegexIMatch,
        "!~" => BinaryOperator::PGRegexNotMatch,
        "!~*" => BinaryOperator::PGRegexNotIMatch,
        "~~" => BinaryOperator::PGLikeMatch,
        "!~~" => BinaryOperator::PGNotLikeMatch,
        "=" => BinaryOperator::Eq,
        "<>" => BinaryOperator::NotEq,
        "<" => BinaryOperator::Lt,
        ">" => BinaryOperator::Gt,
        "||" => BinaryOperator::StringConcat,
        _ => return None,
    })
}

/// A call without the catalog's name; another expression where the function is no function here.
fn rewrite_call(function: &mut ast::Function) -> Option<Expr> {
    if let [schema, name] = function.name.0.as_slice()
        && schema.as_ident().is_some_and(|schema| {
            ["pg_catalog", "information_schema"].contains(&schema.value.to_lowercase().as_str())
        })
    {
        function.name = ObjectName(vec![name.clone()]);
    }
    let name = catalog_name(&function.name)?;
    match (name.as_str(), &mut function.args) {
        // Only over catalogs that are empty: roles of a policy, members of a role.
        ("array", FunctionArguments::Subquery(_)) => Some(null()),
        ("generate_subscripts", FunctionArguments::List(list)) if !list.args.is_empty() => {
            list.args.truncate(1);
            let subscripts = Expr::Function(ast::Function {
                name: ObjectName(vec![ObjectNamePart::Identifier(Ident::new("array_subscripts"))]),
                ..function.clone()
            });
            call("unnest", vec![subscripts])
        }
        _ => None,
    }
}

/// A call of a function, built from text because the tree has many fields that say nothing.
fn call(name: &str, arguments: Vec<Expr>) -> Option<Expr> {
    let Ok(Expr::Function(mut function)) = crate::parse_expr(&format!("{name}(1)")) else { return None };
    if let FunctionArguments::List(list) = &mut function.args {
        list.args =
            arguments.into_iter().map(|expr| FunctionArg::Unnamed(FunctionArgExpr::Expr(expr))).collect();
    }
    Some(Expr::Function(function))
}

fn rewrite_cast(inner: &Expr, data_type: &mut ast::DataType) -> Option<Expr> {
    if matches!(data_type, ast::DataType::Regclass) {
        return call("regclass", vec![inner.clone()]);
    }
    let ast::DataType::Custom(name, _) = &*data_type else { return None };
    let name = catalog_name(name)?;
    match name.as_str() {
        "regclass" | "regtype" | "regproc" | "regprocedure" | "regnamespace" | "regrole" => {
            call(if name == "regprocedure" { "regproc" } else { &name }, vec![inner.clone()])
        }
        "text" | "name" | "char" | "varchar" | "int2vector" | "oidvector" | "xid" | "aclitem" => {
            *data_type = ast::DataType::Text;
            None
        }
        "oid" | "int8" => {
            // The name of a relation was turned into its number already.
            *data_type = ast::DataType::BigInt(None);
            None
        }
        "int4" => {
            *data_type = ast::DataType::Integer(None);
            None
        }
        "int2" => {
            *data_type = ast::DataType::SmallInt(None);
            None
        }
        "bool" => {
            *data_type = ast::DataType::Boolean;
            None
        }
        _ => None,
    }
}

/// `= ANY ('{r,v}')` as `= ANY (ARRAY['r', 'v'])`.
fn rewrite_array_literal(right: &mut Expr) {
    let text = match right {
        Expr::Value(value) => match &value.value {
            ast::Value::SingleQuotedString(text) => text,
            _ => return,
        },
        Expr::Nested(inner) => return rewrite_array_literal(inner),
        _ => return,
    };
    let Some(items) = text.strip_prefix('{').and_then(|text| text.strip_suffix('}')) else { return };
    if items.contains(['"', '{', '\\']) {
        return;
    }
    let items = items.split(',').filter(|item| !item.is_empty());
    let elem = items.map(|item| Expr::Value(ast::Value::SingleQuotedString(item.trim().to_string()).into()));
    *right = Expr::Array(ast::Array { elem: elem.collect(), named: true });
}

/// A subquery that looks one value of a catalog up: DataFusion wants an aggregate to know that it is one value.
/// Gives NULL for a look-up in a catalog that is always empty.
fn rewrite_scalar(query: &mut ast::Query) -> Option<Expr> {
    let reads_catalog = |factor: &TableFactor| match factor {
        TableFactor::Table { name, args: None, .. } => {
            catalog_name(name).is_some_and(|name| name.starts_with("pg_"))
        }
        _ => false,
    };
    let SetExpr::Select(select) = query.body.as_mut() else { return None };
    let nothing = matches!(&select.selection, Some(Expr::Value(v)) if v.value == ast::Value::Boolean(false));
    if nothing && select.from.is_empty() {
        return Some(null());
    }
    if select.from.is_empty() || !select.from.iter().all(|from| reads_catalog(&from.relation)) {
        return None;
    }
    let (SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. }) =
        select.projection.first_mut()?
    else {
        return None;
    };
    if !is_aggregate(expr) && select.distinct.is_none() {
        *expr = call("max", vec![expr.clone()])?;
        query.order_by = None;
        query.limit_clause = None;
        // The planner joins on equalities; what is asked of the outer row alone is asked around the subquery.
        if let Some(outer) = take_outer_conditions(select) {
            let mut case = crate::parse_expr("CASE WHEN true THEN 1 END").ok()?;
            if let Expr::Case { conditions, .. } = &mut case {
                let when = conditions.first_mut()?;
                when.condition = outer;
                when.result = Expr::Subquery(Box::new(query.clone()));
            }
            return Some(case);
        }
    }
    None
}

/// Takes the conditions out of WHERE that name tables, and none of those of FROM.
fn take_outer_conditions(select: &mut ast::Select) -> Option<Expr> {
    let own: Vec<String> = select
        .from
        .iter()
        .flat_map(|from| std::iter::once(&from.relation).chain(from.joins.iter().map(|join| &join.relation)))
        .filter_map(|factor| match factor {
            TableFactor::Table { alias: Some(alias), .. } => Some(alias.name.value.to_lowercase()),
            TableFactor::Table { name, .. } => catalog_name(name),
            _ => None,
        })
        .collect();
    let is_outer = |condition: &Expr| {
        let (mut columns, mut outer) = (0, 0);
        for_each_expr(condition, |expr| match expr {
            Expr::CompoundIdentifier(parts) => {
                columns += 1;
                let table = parts.iter().rev().nth(1);
                outer += usize::from(table.is_some_and(|table| !own.contains(&table.value.to_lowercase())));
            }
            Expr::Identifier(_) | Expr::Subquery(_) | Expr::Exists { .. } => columns += 1,
            _ => {}
        });
        outer > 0 && columns == outer
    };
    let mut conditions = Vec::new();
    conjuncts(select.selection.take()?, &mut conditions);
    let (outer, inner): (Vec<_>, Vec<_>) = conditions.into_iter().partition(is_outer);
    let all = |conditions: Vec<Expr>| {
        conditions.into_iter().reduce(|left, right| Expr::BinaryOp {
            left: Box::new(left),
            op: BinaryOperator::And,
            right: Box::new(right),
        })
    };
    select.selection = all(inner);
    all(outer)
}

fn conjuncts(condition: Expr, found: &mut Vec<Expr>) {
    match condition {
        Expr::BinaryOp { left, op: BinaryOperator::And, right } => {
            conjuncts(*left, found);
            conjuncts(*right, found);
        }
        Expr::Nested(inner) => conjuncts(*inner, found),
        other => found.push(other),
    }
}

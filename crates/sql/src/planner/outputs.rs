//! Results in which two columns have the same name: `SELECT a, a`, `SELECT *, lower(name) AS name`.
//!
//! DataFusion wants the names of a projection to differ. PostgreSQL does not, and clients read by position. So a query
//! that fails for that reason alone is bound again with columns of our own naming, whose real names are given back
//! beside the plan. First only expressions without a name of their own are renamed, because ORDER BY may refer to
//! the others; when that does not help, all columns are.

use std::collections::HashMap;

use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::execution::SessionState;
use datafusion::logical_expr::{Expr, LogicalPlan};
use datafusion::sql::sqlparser::ast::{self, Ident, SelectItem, SetExpr};

use super::{bind_query, from_datafusion};
use crate::{Result, SqlState};

/// Begins the names that stand in for equal ones.
const STAND_IN: &str = "__output_";

/// A bound query, and the names of its columns where they are not those of the plan.
pub struct BoundOutput {
    pub plan: LogicalPlan,
    pub names: Option<Vec<String>>,
}

/// [`bind_query`] for a query that is read and not stored: names of its columns may be equal.
///
/// # Errors
///
/// Those of [`bind_query`].
pub async fn bind_output(state: &SessionState, query: &ast::Query, sql: &str) -> Result<BoundOutput> {
    let error = match bind_query(state, query, sql).await {
        Ok(plan) => return Ok(BoundOutput { plan, names: None }),
        Err(error) => error,
    };
    if !matches!(error.state, SqlState::DuplicateColumn | SqlState::AmbiguousColumn) {
        return Err(error);
    }
    for renamed in [Renamed::Unnamed, Renamed::All] {
        let mut names = HashMap::new();
        let mut query = query.clone();
        if renamed == Renamed::All && expand_wildcards(state, &mut query, sql).await.is_err() {
            break;
        }
        rename(&mut query.body, renamed, &mut names);
        if let Ok(plan) = bind_query(state, &query, sql).await {
            collect_names(&plan, &mut names).map_err(|error| from_datafusion(error, sql))?;
            let name = |field: &String| names.get(field).unwrap_or(field).clone();
            let names = plan.schema().fields().iter().map(|field| name(field.name())).collect();
            return Ok(BoundOutput { plan, names: Some(names) });
        }
    }
    Err(error)
}

#[derive(Clone, Copy, PartialEq)]
enum Renamed {
    /// Expressions without AS.
    Unnamed,
    All,
}

fn stand_in(number: usize) -> Ident {
    Ident::with_quote('"', format!("{STAND_IN}{number}"))
}

/// Renames columns of the query's result, also in the branches of a UNION; keeps the names that AS gave.
fn rename(body: &mut SetExpr, renamed: Renamed, names: &mut HashMap<String, String>) {
    match body {
        SetExpr::Select(select) => {
            for (number, item) in select.projection.iter_mut().enumerate() {
                match item {
                    SelectItem::UnnamedExpr(expr) => {
                        *item = SelectItem::ExprWithAlias { expr: expr.clone(), alias: stand_in(number) };
                    }
                    SelectItem::ExprWithAlias { alias, .. }
                        if renamed == Renamed::All && !alias.value.starts_with(STAND_IN) =>
                    {
                        let name = match alias.quote_style {
                            Some(_) => alias.value.clone(),
                            None => alias.value.to_lowercase(),
                        };
                        let new = stand_in(number);
                        // The first branch of a UNION names the columns.
                        names.entry(new.value.clone()).or_insert(name);
                        *alias = new;
                    }
                    _ => {}
                }
            }
        }
        SetExpr::Query(query) => rename(&mut query.body, renamed, names),
        SetExpr::SetOperation { left, right, .. } => {
            rename(left, renamed, names);
            rename(right, renamed, names);
        }
        _ => {}
    }
}

/// Replaces `*` and `t.*` by the columns they stand for.
async fn expand_wildcards(state: &SessionState, query: &mut ast::Query, sql: &str) -> Result<()> {
    let SetExpr::Select(select) = query.body.as_ref() else { return Ok(()) };
    let mut items = Vec::new();
    for item in &select.projection {
        if !matches!(item, SelectItem::Wildcard(_) | SelectItem::QualifiedWildcard(..)) {
            items.push(item.clone());
            continue;
        }
        let mut alone = query.clone();
        (alone.order_by, alone.limit_clause, alone.fetch) = (None, None, None);
        if let SetExpr::Select(select) = alone.body.as_mut() {
            select.projection = vec![item.clone()];
            select.distinct = None;
        }
        let plan = bind_query(state, &alone, sql).await?;
        for (qualifier, field) in plan.schema().iter() {
            let mut path: Vec<Ident> = qualifier
                .map(|qualifier| qualifier.to_vec())
                .unwrap_or_default()
                .into_iter()
                .map(|part| Ident::with_quote('"', part))
                .collect();
            let column = Ident::with_quote('"', field.name());
            path.push(column.clone());
            let expr = ast::Expr::CompoundIdentifier(path);
            items.push(SelectItem::ExprWithAlias { expr, alias: column });
        }
    }
    if let SetExpr::Select(select) = query.body.as_mut() {
        select.projection = items;
    }
    Ok(())
}

/// The names that renamed expressions would have had.
fn collect_names(plan: &LogicalPlan, names: &mut HashMap<String, String>) -> datafusion::error::Result<()> {
    plan.apply(|node| {
        if let LogicalPlan::Projection(projection) = node {
            for expr in &projection.expr {
                if let Expr::Alias(alias) = expr
                    && alias.name.starts_with(STAND_IN)
                {
                    let name = || alias.expr.qualified_name().1;
                    names.entry(alias.name.clone()).or_insert_with(name);
                }
            }
        }
        Ok(TreeNodeRecursion::Continue)
    })
    .map(|_| ())
}

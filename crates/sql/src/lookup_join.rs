//! `FOR SYSTEM_TIME AS OF PROCTIME()`: left rows beside the right rows that are there when they come.
//!
//! Later changes of the right side do not change what was given. Only a view that runs can tell what was there when; a
//! query that is asked once sees both sides at one moment, and so [`PlainLookups`] makes an ordinary join of it.

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

use datafusion::common::tree_node::Transformed;
use datafusion::common::{DFSchemaRef, JoinType, NullEquality, plan_err};
use datafusion::logical_expr::builder::build_join_schema;
use datafusion::logical_expr::{
    Expr, Extension, Join, JoinConstraint, LogicalPlan, UserDefinedLogicalNodeCore,
};
use datafusion::optimizer::{ApplyOrder, OptimizerConfig, OptimizerRule};

use crate::asof_join::ColumnPair;

/// A join with the right side of the moment in a logical plan.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LookupJoin {
    pub left: LogicalPlan,
    pub right: LogicalPlan,
    /// Columns that have to be equal.
    pub on: Vec<ColumnPair>,
    /// What else has to hold, over the columns of both sides.
    pub filter: Option<Expr>,
    /// Left rows without partner stand beside NULLs; else they are left out.
    pub outer: bool,
    schema: DFSchemaRef,
}

impl LookupJoin {
    /// # Errors
    ///
    /// When a column is not in its input, or columns of one name meet.
    pub fn try_new(
        left: LogicalPlan,
        right: LogicalPlan,
        on: Vec<ColumnPair>,
        filter: Option<Expr>,
        outer: bool,
    ) -> datafusion::common::Result<LookupJoin> {
        for (l, r) in &on {
            left.schema().index_of_column(l)?;
            right.schema().index_of_column(r)?;
        }
        let schema = Arc::new(build_join_schema(left.schema(), right.schema(), &join_type(outer))?);
        Ok(LookupJoin { left, right, on, filter, outer, schema })
    }

    /// Finds the node in a plan's extension.
    pub fn from_extension(extension: &Extension) -> Option<&LookupJoin> {
        extension.node.as_any().downcast_ref()
    }

    /// Numbers of the columns that have to be equal.
    pub fn on_indices(&self) -> Vec<(usize, usize)> {
        let index = |(l, r): &ColumnPair| {
            let left = self.left.schema().index_of_column(l).expect("checked in try_new");
            let right = self.right.schema().index_of_column(r).expect("checked in try_new");
            (left, right)
        };
        self.on.iter().map(index).collect()
    }
}

fn join_type(outer: bool) -> JoinType {
    if outer { JoinType::Left } else { JoinType::Inner }
}

/// The schema follows from the rest and has no order of its own.
impl PartialOrd for LookupJoin {
    fn partial_cmp(&self, other: &LookupJoin) -> Option<Ordering> {
        match (&self.outer, &self.on).cmp(&(&other.outer, &other.on)) {
            Ordering::Equal => {
                let own = (&self.filter, &self.left, &self.right);
                let order = own.partial_cmp(&(&other.filter, &other.left, &other.right));
                order.filter(|order| order.is_ne() || self == other)
            }
            order => Some(order),
        }
    }
}

impl UserDefinedLogicalNodeCore for LookupJoin {
    fn name(&self) -> &str {
        "LookupJoin"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        vec![&self.left, &self.right]
    }

    fn schema(&self) -> &DFSchemaRef {
        &self.schema
    }

    fn expressions(&self) -> Vec<Expr> {
        let columns = self.on.iter().flat_map(|(left, right)| [left.clone(), right.clone()]);
        columns.map(Expr::Column).chain(self.filter.clone()).collect()
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let on: Vec<String> = self.on.iter().map(|(left, right)| format!("{left} = {right}")).collect();
        let kind = if self.outer { "left" } else { "inner" };
        write!(f, "LookupJoin: {kind} on=[{}]", on.join(", "))?;
        match &self.filter {
            Some(filter) => write!(f, " filter=[{filter}]"),
            None => Ok(()),
        }
    }

    fn with_exprs_and_inputs(
        &self,
        mut exprs: Vec<Expr>,
        mut inputs: Vec<LogicalPlan>,
    ) -> datafusion::common::Result<LookupJoin> {
        let filter = if self.filter.is_some() { exprs.pop() } else { None };
        let columns = exprs.into_iter().map(|expr| match expr {
            Expr::Column(column) => Some(column),
            _ => None,
        });
        let columns: Option<Vec<_>> = columns.collect();
        let (right, left) = (inputs.pop(), inputs.pop());
        match (columns, left, right, inputs.is_empty()) {
            (Some(columns), Some(left), Some(right), true) if columns.len() == 2 * self.on.len() => {
                let pairs = columns.chunks(2).map(|pair| (pair[0].clone(), pair[1].clone())).collect();
                LookupJoin::try_new(left, right, pairs, filter, self.outer)
            }
            _ => plan_err!("a lookup join takes columns and two inputs"),
        }
    }

    /// The columns that are compared are added by the caller.
    fn necessary_children_exprs(&self, output_columns: &[usize]) -> Option<Vec<Vec<usize>>> {
        let width = self.left.schema().fields().len();
        let mut sides = vec![Vec::new(), Vec::new()];
        for column in output_columns {
            if *column < width { sides[0].push(*column) } else { sides[1].push(*column - width) }
        }
        Some(sides)
    }
}

/// Makes ordinary joins of lookups, for queries that are asked once.
#[derive(Debug)]
pub struct PlainLookups;

impl OptimizerRule for PlainLookups {
    fn name(&self) -> &str {
        "plain_lookups"
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        Some(ApplyOrder::BottomUp)
    }

    fn rewrite(
        &self,
        plan: LogicalPlan,
        _config: &dyn OptimizerConfig,
    ) -> datafusion::common::Result<Transformed<LogicalPlan>> {
        let LogicalPlan::Extension(extension) = &plan else { return Ok(Transformed::no(plan)) };
        let Some(lookup) = LookupJoin::from_extension(extension) else { return Ok(Transformed::no(plan)) };
        let on = lookup.on.iter().map(|(l, r)| (Expr::Column(l.clone()), Expr::Column(r.clone())));
        let join = Join::try_new(
            Arc::new(lookup.left.clone()),
            Arc::new(lookup.right.clone()),
            on.collect(),
            lookup.filter.clone(),
            join_type(lookup.outer),
            JoinConstraint::On,
            NullEquality::NullEqualsNothing,
            false,
        )?;
        Ok(Transformed::yes(LogicalPlan::Join(join)))
    }
}

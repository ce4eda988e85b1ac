//! ASOF joins: each left row beside the one right row of its key that is nearest in time.
//!
//! ```text
//!   left   k  ts          right  k  ts  rate        left.k = right.k AND left.ts >= right.ts
//!          a  10                 a   3  1.1         a  10  ->  a  8  1.2
//!          a   7                 a   8  1.2         a   7  ->  a  3  1.1
//! ```
//!
//! Of right rows with the same key and time that one counts which is largest by its columns, the first column first and
//! NULL smallest. A NULL key or time has no partner. Output: the left columns, then the right ones.
//!
//! Rule: right columns are never left out below the join, because they decide between equal times.

mod execution;

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

use datafusion::common::{Column, DFSchemaRef, JoinType, plan_err};
use datafusion::logical_expr::builder::build_join_schema;
use datafusion::logical_expr::{Expr, Extension, LogicalPlan, UserDefinedLogicalNodeCore};

pub use execution::{AsofJoinExec, AsofJoinPlanner};

/// How the left time is compared with the right one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AsofComparison {
    /// `left >= right`: the newest right row that is not newer.
    GtEq,
    /// `left > right`: the newest right row that is older.
    Gt,
    /// `left <= right`: the oldest right row that is not older.
    LtEq,
    /// `left < right`: the oldest right row that is newer.
    Lt,
}

impl AsofComparison {
    /// True when the partner is at or before the left row.
    pub fn looks_back(self) -> bool {
        matches!(self, AsofComparison::GtEq | AsofComparison::Gt)
    }

    /// True when a right row of the same time is no partner.
    pub fn is_strict(self) -> bool {
        matches!(self, AsofComparison::Gt | AsofComparison::Lt)
    }

    /// The same with the sides exchanged.
    pub fn mirrored(self) -> AsofComparison {
        match self {
            AsofComparison::GtEq => AsofComparison::LtEq,
            AsofComparison::Gt => AsofComparison::Lt,
            AsofComparison::LtEq => AsofComparison::GtEq,
            AsofComparison::Lt => AsofComparison::Gt,
        }
    }
}

impl fmt::Display for AsofComparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            AsofComparison::GtEq => ">=",
            AsofComparison::Gt => ">",
            AsofComparison::LtEq => "<=",
            AsofComparison::Lt => "<",
        })
    }
}

/// A left and a right column that are compared, of one type.
pub type ColumnPair = (Column, Column);

/// ASOF JOIN in a logical plan.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct AsofJoin {
    pub left: LogicalPlan,
    pub right: LogicalPlan,
    /// Columns that have to be equal.
    pub on: Vec<ColumnPair>,
    pub time: ColumnPair,
    pub comparison: AsofComparison,
    /// Left rows without partner stand beside NULLs; else they are left out.
    pub outer: bool,
    schema: DFSchemaRef,
}

impl AsofJoin {
    /// # Errors
    ///
    /// When a column is not in its input, or columns of one name meet.
    pub fn try_new(
        left: LogicalPlan,
        right: LogicalPlan,
        on: Vec<ColumnPair>,
        time: ColumnPair,
        comparison: AsofComparison,
        outer: bool,
    ) -> datafusion::common::Result<AsofJoin> {
        for (l, r) in on.iter().chain([&time]) {
            left.schema().index_of_column(l)?;
            right.schema().index_of_column(r)?;
        }
        let kind = if outer { JoinType::Left } else { JoinType::Inner };
        let schema = Arc::new(build_join_schema(left.schema(), right.schema(), &kind)?);
        Ok(AsofJoin { left, right, on, time, comparison, outer, schema })
    }

    /// Finds the node in a plan's extension.
    pub fn from_extension(extension: &Extension) -> Option<&AsofJoin> {
        extension.node.as_any().downcast_ref()
    }

    /// Numbers of a pair's columns in their inputs.
    pub fn indices(&self, pair: &ColumnPair) -> (usize, usize) {
        let left = self.left.schema().index_of_column(&pair.0).expect("checked in try_new");
        let right = self.right.schema().index_of_column(&pair.1).expect("checked in try_new");
        (left, right)
    }

    /// Numbers of the columns that have to be equal.
    pub fn on_indices(&self) -> Vec<(usize, usize)> {
        self.on.iter().map(|pair| self.indices(pair)).collect()
    }
}

/// The schema follows from the rest and has no order of its own.
impl PartialOrd for AsofJoin {
    fn partial_cmp(&self, other: &AsofJoin) -> Option<Ordering> {
        let own = (&self.comparison, &self.outer, &self.time, &self.on);
        match own.cmp(&(&other.comparison, &other.outer, &other.time, &other.on)) {
            Ordering::Equal => {
                let inputs = (&self.left, &self.right).partial_cmp(&(&other.left, &other.right));
                inputs.filter(|order| order.is_ne() || self == other)
            }
            order => Some(order),
        }
    }
}

impl UserDefinedLogicalNodeCore for AsofJoin {
    fn name(&self) -> &str {
        "AsofJoin"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        vec![&self.left, &self.right]
    }

    fn schema(&self) -> &DFSchemaRef {
        &self.schema
    }

    fn expressions(&self) -> Vec<Expr> {
        let pairs = self.on.iter().chain([&self.time]);
        pairs.flat_map(|(left, right)| [left.clone(), right.clone()]).map(Expr::Column).collect()
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let on: Vec<String> = self.on.iter().map(|(left, right)| format!("{left} = {right}")).collect();
        let kind = if self.outer { "left" } else { "inner" };
        let (left, right) = &self.time;
        write!(f, "AsofJoin: {kind} on=[{}] match=[{left} {} {right}]", on.join(", "), self.comparison)
    }

    fn with_exprs_and_inputs(
        &self,
        exprs: Vec<Expr>,
        mut inputs: Vec<LogicalPlan>,
    ) -> datafusion::common::Result<AsofJoin> {
        let columns = exprs.into_iter().map(|expr| match expr {
            Expr::Column(column) => Some(column),
            _ => None,
        });
        let columns: Option<Vec<Column>> = columns.collect();
        let (right, left) = (inputs.pop(), inputs.pop());
        match (columns, left, right, inputs.is_empty()) {
            (Some(columns), Some(left), Some(right), true) if columns.len() == 2 * self.on.len() + 2 => {
                let mut pairs: Vec<ColumnPair> =
                    columns.chunks(2).map(|pair| (pair[0].clone(), pair[1].clone())).collect();
                let time = pairs.remove(self.on.len());
                AsofJoin::try_new(left, right, pairs, time, self.comparison, self.outer)
            }
            _ => plan_err!("ASOF JOIN takes columns and two inputs"),
        }
    }

    fn necessary_children_exprs(&self, output_columns: &[usize]) -> Option<Vec<Vec<usize>>> {
        let width = self.left.schema().fields().len();
        let mut left: Vec<usize> = output_columns.iter().copied().filter(|column| *column < width).collect();
        left.extend(self.on.iter().chain([&self.time]).map(|pair| self.indices(pair).0));
        left.sort_unstable();
        left.dedup();
        Some(vec![left, (0..self.right.schema().fields().len()).collect()])
    }
}

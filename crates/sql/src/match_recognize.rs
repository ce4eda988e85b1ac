//! MATCH_RECOGNIZE: finds rows in a sequence by a regular expression over conditions (SQL:2016 row patterns).
//!
//! ```text
//!   text --parser--> MatchClauses --planner--> RowPattern --compile--> Matcher, used by
//!                                                                      batch execution and the engine
//! ```
//!
//! What is said of rows ("the price of the last a", "the sum of all b") is taken out of the expressions as
//! [`Term`]s. Below the node a projection computes the terms' arguments for every row; the expressions above are
//! over the terms only.
//!
//! [`Matcher`] is the one definition of what matches; batch execution and the engine's operators use it.
//! In reading order: [`pattern`], `program`, `compiled`, `rows`, `matcher`, `attempt`, `output`, `execution`, `progress`.

mod attempt;
mod compiled;
mod execution;
mod matcher;
mod output;
pub mod pattern;
mod program;
mod progress;
#[cfg(test)]
mod reference;
mod rows;
#[cfg(test)]
mod tests;

use std::cmp::Ordering;
use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use arrow::compute::SortOptions;
use arrow::datatypes::{DataType, Field};
use datafusion::common::{DFSchema, DFSchemaRef, TableReference, plan_err};
use datafusion::logical_expr::{AggregateUDF, Expr, Extension, LogicalPlan, UserDefinedLogicalNodeCore};

pub use compiled::Compiled;
pub use execution::{MatchRecognizeExec, MatchRecognizePlanner, Sorted, Sorter, match_all};
pub use matcher::{Matcher, Partition};
pub use output::{Evaluate, Found, Strict};
use pattern::Pattern;
pub use progress::Progress;
pub use rows::RowRef;

/// Variables of one pattern: their sets are bits of a word.
pub const VARIABLES_MAX: usize = 58;

/// A set of pattern variables, by their numbers.
pub type VariableSet = u64;

/// A MATCH_RECOGNIZE with all names looked up. Columns are numbers of columns of the projection below.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RowPattern {
    pub partition_by: Vec<usize>,
    pub order_by: Vec<(usize, SortOptions)>,
    /// Columns of ALL ROWS PER MATCH beside those of PARTITION BY and ORDER BY.
    pub others: Vec<usize>,
    /// Names of the columns above in the result, by column.
    pub names: Vec<String>,
    pub pattern: Pattern,
    /// The variables of PATTERN and their conditions over the terms; `None` is always true.
    pub variables: Vec<(String, Option<Expr>)>,
    pub terms: Vec<Term>,
    /// Expressions over the terms, and their names.
    pub measures: Vec<(String, Expr)>,
    pub rows: RowsPerMatch,
    /// WITH TIMEOUT ROWS: beginnings of matches whose time is over are rows, too.
    pub timeout_rows: bool,
    pub skip: Skip,
    pub within_us: Option<i64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RowsPerMatch {
    One,
    All { empty: bool, unmatched: bool },
}

/// AFTER MATCH SKIP
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Skip {
    PastLastRow,
    ToNextRow,
    ToFirst(VariableSet),
    ToLast(VariableSet),
}

/// Something that is said of the rows of a match.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Term {
    /// A value of one row, `offset` rows (PREV, NEXT) from the anchor.
    Row { value: Value, anchor: Anchor, offset: i64 },
    /// An aggregate over the rows of these variables.
    Aggregate {
        function: Arc<AggregateUDF>,
        arguments: Vec<usize>,
        distinct: bool,
        set: VariableSet,
        whole: bool,
        data_type: DataType,
    },
    /// MATCH_NUMBER()
    MatchNumber,
    /// MATCH_TIMED_OUT()
    TimedOut,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Value {
    Column(usize),
    /// CLASSIFIER(): the variable that the row is mapped to.
    Classifier,
}

/// A row of the match. `whole` looks at the complete match (FINAL), otherwise at its rows so far (RUNNING).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Anchor {
    /// The row whose condition is tested.
    Current,
    /// The n-th row, from 0, of these variables.
    First { set: VariableSet, n: u32, whole: bool },
    /// The n-th row from the end.
    Last { set: VariableSet, n: u32, whole: bool },
}

impl Term {
    /// True when only the row itself and its neighbours decide, not what was matched before.
    pub(crate) fn is_local(&self) -> bool {
        matches!(self, Term::Row { value: Value::Column(_), anchor: Anchor::Current, .. })
    }

    /// The name of the column that stands for term number `index`.
    pub(crate) fn column_name(index: usize) -> String {
        format!("__term_{index}")
    }

    pub(crate) fn data_type(&self, columns: impl Fn(usize) -> DataType) -> DataType {
        match self {
            Term::Row { value: Value::Column(column), .. } => columns(*column),
            Term::Row { value: Value::Classifier, .. } => DataType::Utf8,
            Term::Aggregate { data_type, .. } => data_type.clone(),
            Term::MatchNumber => DataType::Int64,
            Term::TimedOut => DataType::Boolean,
        }
    }
}

impl RowPattern {
    /// The schema of the terms, over which conditions and measures are written.
    pub(crate) fn term_schema(
        terms: &[Term],
        columns: impl Fn(usize) -> DataType,
    ) -> datafusion::common::Result<DFSchema> {
        let fields: Vec<Field> = terms
            .iter()
            .enumerate()
            .map(|(n, term)| Field::new(Term::column_name(n), term.data_type(&columns), true))
            .collect();
        DFSchema::from_unqualified_fields(fields.into(), Default::default())
    }

    /// Columns of the input that the result begins with, then after the measures.
    pub fn shown(&self) -> (Vec<usize>, Vec<usize>) {
        let mut before = self.partition_by.clone();
        if self.rows == RowsPerMatch::One {
            return (before, Vec::new());
        }
        for (column, _) in &self.order_by {
            if !before.contains(column) {
                before.push(*column);
            }
        }
        (before, self.others.clone())
    }

    /// The event-time column that WITHIN and watermarks speak of: the first of ORDER BY.
    pub fn time_column(&self) -> Option<usize> {
        self.order_by.first().filter(|(_, options)| !options.descending).map(|(column, _)| *column)
    }

    /// True when the place in the partition or the number of matches before matters, so that a partition can't be
    /// forgotten.
    pub fn remembers_partitions(&self) -> bool {
        self.pattern.any(&|pattern| matches!(pattern, Pattern::PartitionStart))
            || self.terms.contains(&Term::MatchNumber)
            || self.rows_before() > 0
    }

    /// The largest PREV.
    pub fn rows_before(&self) -> u64 {
        self.offsets().map(|offset| offset.min(0).unsigned_abs()).max().unwrap_or(0)
    }

    /// The largest NEXT.
    pub fn rows_after(&self) -> u64 {
        self.offsets().map(|offset| offset.max(0).unsigned_abs()).max().unwrap_or(0)
    }

    fn offsets(&self) -> impl Iterator<Item = i64> {
        self.terms.iter().map(|term| match term {
            Term::Row { offset, .. } => *offset,
            _ => 0,
        })
    }
}

/// MATCH_RECOGNIZE in a logical plan, over a projection of what it needs.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct MatchRecognize {
    pub input: LogicalPlan,
    pub pattern: Arc<RowPattern>,
    schema: DFSchemaRef,
}

impl MatchRecognize {
    /// # Errors
    /// When two columns of the result have the same name, or the expressions do not go together with the input.
    pub fn try_new(
        input: LogicalPlan,
        pattern: Arc<RowPattern>,
    ) -> datafusion::common::Result<MatchRecognize> {
        let columns = input.schema().fields().clone();
        let terms = RowPattern::term_schema(&pattern.terms, |column| columns[column].data_type().clone())?;
        let (before, after) = pattern.shown();
        let column = |column: &usize| {
            Arc::new(Field::new(&pattern.names[*column], columns[*column].data_type().clone(), true))
        };
        let mut fields: Vec<Arc<Field>> = before.iter().map(column).collect();
        for (name, expr) in &pattern.measures {
            use datafusion::logical_expr::ExprSchemable;
            fields.push(Arc::new(Field::new(name, expr.get_type(&terms)?, true)));
        }
        fields.extend(after.iter().map(column));
        let mut names = HashSet::new();
        if let Some(twice) = fields.iter().find(|field| !names.insert(field.name().as_str())) {
            return plan_err!("MATCH_RECOGNIZE gives two columns of the name \"{}\"", twice.name());
        }
        let fields: Vec<(Option<TableReference>, Arc<Field>)> =
            fields.into_iter().map(|field| (None, field)).collect();
        let schema = Arc::new(DFSchema::new_with_metadata(fields, Default::default())?);
        Ok(MatchRecognize { input, pattern, schema })
    }

    /// Finds the node in a plan's extension.
    pub fn from_extension(extension: &Extension) -> Option<&MatchRecognize> {
        extension.node.as_any().downcast_ref()
    }
}

/// Plans have no order that means anything.
impl PartialOrd for MatchRecognize {
    fn partial_cmp(&self, other: &MatchRecognize) -> Option<Ordering> {
        (self == other).then_some(Ordering::Equal)
    }
}

impl UserDefinedLogicalNodeCore for MatchRecognize {
    fn name(&self) -> &str {
        "MatchRecognize"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        vec![&self.input]
    }

    fn schema(&self) -> &DFSchemaRef {
        &self.schema
    }

    /// None: conditions and measures are over terms, which no other node knows.
    fn expressions(&self) -> Vec<Expr> {
        Vec::new()
    }

    /// The input's columns have other names.
    fn prevent_predicate_push_down_columns(&self) -> HashSet<String> {
        self.schema.fields().iter().map(|field| field.name().clone()).collect()
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MatchRecognize: PATTERN ({})", self.pattern.pattern)?;
        if let Some(us) = self.pattern.within_us {
            write!(f, " WITHIN {}", crate::duration::display_us(us))?;
        }
        Ok(())
    }

    fn with_exprs_and_inputs(
        &self,
        exprs: Vec<Expr>,
        mut inputs: Vec<LogicalPlan>,
    ) -> datafusion::common::Result<MatchRecognize> {
        match (inputs.pop(), exprs.is_empty() && inputs.is_empty()) {
            (Some(input), true) if input.schema().fields().len() == self.input.schema().fields().len() => {
                MatchRecognize::try_new(input, Arc::clone(&self.pattern))
            }
            _ => plan_err!("MATCH_RECOGNIZE takes one input and keeps its columns"),
        }
    }

    fn necessary_children_exprs(&self, _output_columns: &[usize]) -> Option<Vec<Vec<usize>>> {
        Some(vec![(0..self.input.schema().fields().len()).collect()])
    }
}

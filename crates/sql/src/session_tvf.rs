//! SESSION: rows of a key that follow each other closely are one window.
//!
//! ```text
//!   rows      x x  x          x x          gap |---|
//!   sessions |---------|     |------|      from the first row to the last row plus the gap
//! ```
//!
//! A row is in the session of the row before it, among those with the same key, when it is at most the gap later.
//! Output: the input's columns, then `window_start` (time of the session's first row) and `window_end` (time of its
//! last row plus the gap). Rows without a time are dropped; NULL is a key like any other.

mod execution;

use std::cmp::Ordering;
use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field};
use datafusion::common::{Column, DFSchema, DFSchemaRef, TableReference, plan_err};
use datafusion::logical_expr::{Expr, Extension, LogicalPlan, UserDefinedLogicalNodeCore};

use crate::duration;

pub use execution::{SessionTvfExec, SessionTvfPlanner};

/// SESSION in a logical plan.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SessionTvf {
    pub input: LogicalPlan,
    pub keys: Vec<Column>,
    /// A timestamp column of the input.
    pub time_column: Column,
    pub gap_us: i64,
    /// Names of the two columns that are added.
    pub bounds: [String; 2],
    schema: DFSchemaRef,
}

impl SessionTvf {
    /// # Errors
    ///
    /// When a column is not in the input, the time column is no timestamp, or a name is taken.
    pub fn try_new(
        input: LogicalPlan,
        keys: Vec<Column>,
        time_column: Column,
        gap_us: i64,
        bounds: [String; 2],
    ) -> datafusion::common::Result<SessionTvf> {
        for key in &keys {
            input.schema().index_of_column(key)?;
        }
        let index = input.schema().index_of_column(&time_column)?;
        let (qualifier, time_field) = input.schema().qualified_field(index);
        if !matches!(time_field.data_type(), DataType::Timestamp(_, _)) {
            return plan_err!("time column {} of SESSION is no timestamp", time_column.name);
        }
        let mut fields: Vec<(Option<TableReference>, Arc<Field>)> =
            input.schema().iter().map(|(qualifier, field)| (qualifier.cloned(), Arc::clone(field))).collect();
        for name in &bounds {
            if fields.iter().any(|(_, field)| field.name() == name) {
                return plan_err!("the relation in SESSION has a column \"{name}\" already");
            }
            fields.push((
                qualifier.cloned(),
                Arc::new(Field::new(name, time_field.data_type().clone(), false)),
            ));
        }
        let schema = DFSchema::new_with_metadata(fields, input.schema().metadata().clone())?;
        Ok(SessionTvf { input, keys, time_column, gap_us, bounds, schema: Arc::new(schema) })
    }

    /// Finds the node in a plan's extension.
    pub fn from_extension(extension: &Extension) -> Option<&SessionTvf> {
        extension.node.as_any().downcast_ref()
    }

    /// Number of the time column in the input and, because input columns come first, in the output.
    pub fn time_index(&self) -> usize {
        self.input.schema().index_of_column(&self.time_column).expect("checked in try_new")
    }

    /// Numbers of the key columns.
    pub fn key_indices(&self) -> Vec<usize> {
        let index = |key| self.input.schema().index_of_column(key).expect("checked in try_new");
        self.keys.iter().map(index).collect()
    }
}

/// The schema follows from the rest and has no order of its own.
impl PartialOrd for SessionTvf {
    fn partial_cmp(&self, other: &SessionTvf) -> Option<Ordering> {
        let own = (&self.gap_us, &self.time_column, &self.keys, &self.bounds);
        match own.cmp(&(&other.gap_us, &other.time_column, &other.keys, &other.bounds)) {
            Ordering::Equal => self.input.partial_cmp(&other.input).filter(|o| o.is_ne() || self == other),
            order => Some(order),
        }
    }
}

impl UserDefinedLogicalNodeCore for SessionTvf {
    fn name(&self) -> &str {
        "SessionTvf"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        vec![&self.input]
    }

    fn schema(&self) -> &DFSchemaRef {
        &self.schema
    }

    fn expressions(&self) -> Vec<Expr> {
        self.keys.iter().chain([&self.time_column]).cloned().map(Expr::Column).collect()
    }

    /// Only whole keys may be taken away below: any other row may hold a session together.
    fn prevent_predicate_push_down_columns(&self) -> HashSet<String> {
        let keys = self.key_indices();
        let fields = self.schema.fields().iter().enumerate();
        fields.filter(|(index, _)| !keys.contains(index)).map(|(_, field)| field.name().clone()).collect()
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let keys: Vec<String> = self.keys.iter().map(ToString::to_string).collect();
        write!(
            f,
            "SessionTvf: keys=[{}] time={} gap={}",
            keys.join(", "),
            self.time_column,
            duration::display_us(self.gap_us)
        )
    }

    fn with_exprs_and_inputs(
        &self,
        exprs: Vec<Expr>,
        mut inputs: Vec<LogicalPlan>,
    ) -> datafusion::common::Result<SessionTvf> {
        let columns: Option<Vec<Column>> = exprs
            .into_iter()
            .map(|expr| match expr {
                Expr::Column(column) => Some(column),
                _ => None,
            })
            .collect();
        match (columns, inputs.pop(), inputs.is_empty()) {
            (Some(mut keys), Some(input), true) if keys.len() == self.keys.len() + 1 => {
                let time_column = keys.remove(self.keys.len());
                SessionTvf::try_new(input, keys, time_column, self.gap_us, self.bounds.clone())
            }
            _ => plan_err!("SESSION takes columns and one input"),
        }
    }

    fn necessary_children_exprs(&self, output_columns: &[usize]) -> Option<Vec<Vec<usize>>> {
        let input_columns = self.input.schema().fields().len();
        let mut needed: Vec<usize> =
            output_columns.iter().copied().filter(|column| *column < input_columns).collect();
        needed.push(self.time_index());
        needed.extend(self.key_indices());
        needed.sort_unstable();
        needed.dedup();
        Some(vec![needed])
    }
}

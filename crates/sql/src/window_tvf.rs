//! Window table functions: TUMBLE, HOP and CUMULATE give every row the windows it belongs to.
//!
//! ```text
//! TUMBLE  |--size--|--size--|            one window per row
//! HOP     |---size---|                   size / slide windows per row
//!            |---size---|
//! CUMULATE |-step-|                      windows that grow by step up to size,
//!          |----2 steps----|             then start anew
//! ```
//!
//! A window is `[start, end)`, aligned to 1970-01-01 plus the offset. Output: the input's columns,
//! then `window_start` and `window_end` in the time column's type. Rows without a time are dropped.
//!
//! [`WindowKind::windows`] is the one definition of which windows a row belongs to; the batch
//! execution below and the engine's operators both use it.

mod execution;
#[cfg(test)]
mod tests;

use std::cmp::Ordering;
use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field};
use datafusion::common::{Column, DFSchema, DFSchemaRef, TableReference, plan_err};
use datafusion::logical_expr::{Expr, Extension, LogicalPlan, UserDefinedLogicalNodeCore};

use crate::{Result, SqlError, SqlState, duration};

pub use execution::{WindowTvfExec, WindowTvfPlanner};

pub const WINDOW_START: &str = "window_start";
pub const WINDOW_END: &str = "window_end";

/// A row belongs to at most this many windows, so that a slip of a unit does not fill the memory.
pub const WINDOWS_PER_ROW_MAX: i64 = 100_000;

/// The shape of the windows, in microseconds.
///
/// Invariant, kept by the constructors: sizes are positive, `size_us` is a multiple of `slide_us`
/// or `step_us`, and the offset is not negative and less than the size (HOP: the slide).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum WindowKind {
    Tumble { size_us: i64, offset_us: i64 },
    Hop { slide_us: i64, size_us: i64, offset_us: i64 },
    Cumulate { step_us: i64, size_us: i64, offset_us: i64 },
}

impl WindowKind {
    pub fn tumble(size_us: i64, offset_us: i64) -> Result<WindowKind> {
        positive("size of TUMBLE", size_us)?;
        Ok(WindowKind::Tumble { size_us, offset_us: offset_us.rem_euclid(size_us) })
    }

    pub fn hop(slide_us: i64, size_us: i64, offset_us: i64) -> Result<WindowKind> {
        positive("slide of HOP", slide_us)?;
        positive("size of HOP", size_us)?;
        multiple("HOP", "slide", slide_us, size_us)?;
        Ok(WindowKind::Hop { slide_us, size_us, offset_us: offset_us.rem_euclid(slide_us) })
    }

    pub fn cumulate(step_us: i64, size_us: i64, offset_us: i64) -> Result<WindowKind> {
        positive("step of CUMULATE", step_us)?;
        positive("size of CUMULATE", size_us)?;
        multiple("CUMULATE", "step", step_us, size_us)?;
        Ok(WindowKind::Cumulate { step_us, size_us, offset_us: offset_us.rem_euclid(size_us) })
    }

    /// The SQL word.
    pub fn name(self) -> &'static str {
        match self {
            WindowKind::Tumble { .. } => "TUMBLE",
            WindowKind::Hop { .. } => "HOP",
            WindowKind::Cumulate { .. } => "CUMULATE",
        }
    }

    pub fn size_us(self) -> i64 {
        match self {
            WindowKind::Tumble { size_us, .. }
            | WindowKind::Hop { size_us, .. }
            | WindowKind::Cumulate { size_us, .. } => size_us,
        }
    }

    pub fn offset_us(self) -> i64 {
        match self {
            WindowKind::Tumble { offset_us, .. }
            | WindowKind::Hop { offset_us, .. }
            | WindowKind::Cumulate { offset_us, .. } => offset_us,
        }
    }

    /// The largest number of windows a row belongs to. HOP gives each row exactly this many.
    pub fn windows_per_row(self) -> usize {
        let count = match self {
            WindowKind::Tumble { .. } => 1,
            WindowKind::Hop { slide_us, size_us, .. } => size_us / slide_us,
            WindowKind::Cumulate { step_us, size_us, .. } => size_us / step_us,
        };
        count as usize
    }

    /// The windows `(start, end)` of a row with this time, oldest start and shortest first.
    #[inline]
    pub fn windows(self, ts_us: i64) -> Windows {
        match self {
            WindowKind::Tumble { size_us, offset_us } => {
                let start = floor_to(ts_us, size_us, offset_us);
                Windows { start, end: start.saturating_add(size_us), start_step: 0, end_step: 0, left: 1 }
            }
            WindowKind::Hop { slide_us, size_us, offset_us } => {
                let newest = floor_to(ts_us, slide_us, offset_us);
                let start = newest.saturating_sub(size_us - slide_us);
                Windows {
                    start,
                    end: start.saturating_add(size_us),
                    start_step: slide_us,
                    end_step: slide_us,
                    left: (size_us / slide_us) as usize,
                }
            }
            WindowKind::Cumulate { step_us, size_us, offset_us } => {
                let start = floor_to(ts_us, size_us, offset_us);
                let steps_before = ts_us.saturating_sub(start) / step_us;
                Windows {
                    start,
                    end: start.saturating_add((steps_before + 1).saturating_mul(step_us)),
                    start_step: 0,
                    end_step: step_us,
                    left: (size_us / step_us - steps_before) as usize,
                }
            }
        }
    }
}

impl fmt::Display for WindowKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let show = duration::display_us;
        match self {
            WindowKind::Tumble { size_us, .. } => write!(f, "TUMBLE size {}", show(*size_us))?,
            WindowKind::Hop { slide_us, size_us, .. } => {
                write!(f, "HOP slide {} size {}", show(*slide_us), show(*size_us))?;
            }
            WindowKind::Cumulate { step_us, size_us, .. } => {
                write!(f, "CUMULATE step {} size {}", show(*step_us), show(*size_us))?;
            }
        }
        match self.offset_us() {
            0 => Ok(()),
            offset => write!(f, " offset {}", show(offset)),
        }
    }
}

/// The windows of one row.
#[derive(Clone, Debug)]
pub struct Windows {
    start: i64,
    end: i64,
    start_step: i64,
    end_step: i64,
    left: usize,
}

impl Iterator for Windows {
    type Item = (i64, i64);

    #[inline]
    fn next(&mut self) -> Option<(i64, i64)> {
        self.left = self.left.checked_sub(1)?;
        let window = (self.start, self.end);
        self.start = self.start.saturating_add(self.start_step);
        self.end = self.end.saturating_add(self.end_step);
        Some(window)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl ExactSizeIterator for Windows {}

/// The newest multiple of `unit`, shifted by `offset`, that is not after `ts`; also for times before 1970.
#[inline]
fn floor_to(ts_us: i64, unit_us: i64, offset_us: i64) -> i64 {
    ts_us.saturating_sub(ts_us.saturating_sub(offset_us).rem_euclid(unit_us))
}

fn positive(what: &str, us: i64) -> Result<()> {
    match us > 0 {
        true => Ok(()),
        false => Err(SqlError::new(SqlState::InvalidParameterValue, format!("{what} must be positive"))),
    }
}

fn multiple(function: &str, part: &str, part_us: i64, size_us: i64) -> Result<()> {
    let show = duration::display_us;
    if size_us % part_us != 0 {
        return Err(SqlError::new(
            SqlState::InvalidParameterValue,
            format!("size {} of {function} is not a multiple of its {part} {}", show(size_us), show(part_us)),
        ));
    }
    if size_us / part_us > WINDOWS_PER_ROW_MAX {
        return Err(SqlError::new(
            SqlState::ConfigurationLimitExceeded,
            format!(
                "size {} and {part} {} of {function} give each row {} windows, more than {WINDOWS_PER_ROW_MAX}",
                show(size_us),
                show(part_us),
                size_us / part_us
            ),
        ));
    }
    Ok(())
}

/// The window function in a logical plan.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct WindowTvf {
    pub input: LogicalPlan,
    pub kind: WindowKind,
    /// A timestamp column of the input.
    pub time_column: Column,
    schema: DFSchemaRef,
}

impl WindowTvf {
    /// # Errors
    ///
    /// When the time column is not in the input or no timestamp, or the input has a column
    /// `window_start` or `window_end` already.
    pub fn try_new(
        input: LogicalPlan,
        kind: WindowKind,
        time_column: Column,
    ) -> datafusion::common::Result<WindowTvf> {
        let index = input.schema().index_of_column(&time_column)?;
        let (qualifier, time_field) = input.schema().qualified_field(index);
        if !matches!(time_field.data_type(), DataType::Timestamp(_, _)) {
            return plan_err!("time column {} of {} is no timestamp", time_column.name, kind.name());
        }
        let mut fields: Vec<(Option<TableReference>, Arc<Field>)> =
            input.schema().iter().map(|(qualifier, field)| (qualifier.cloned(), Arc::clone(field))).collect();
        for name in [WINDOW_START, WINDOW_END] {
            if fields.iter().any(|(_, field)| field.name() == name) {
                return plan_err!("the relation in {} has a column \"{name}\" already", kind.name());
            }
            fields.push((
                qualifier.cloned(),
                Arc::new(Field::new(name, time_field.data_type().clone(), false)),
            ));
        }
        let schema = DFSchema::new_with_metadata(fields, input.schema().metadata().clone())?;
        Ok(WindowTvf { input, kind, time_column, schema: Arc::new(schema) })
    }

    /// Finds the node in a plan's extension.
    pub fn from_extension(extension: &Extension) -> Option<&WindowTvf> {
        extension.node.as_any().downcast_ref()
    }

    /// Number of the time column in the input and, because input columns come first, in the output.
    pub fn time_index(&self) -> usize {
        self.input.schema().index_of_column(&self.time_column).expect("checked in try_new")
    }

    /// Number of `window_start` in the output.
    pub fn window_start_index(&self) -> usize {
        self.schema.fields().len() - 2
    }

    /// Number of `window_end` in the output.
    pub fn window_end_index(&self) -> usize {
        self.schema.fields().len() - 1
    }
}

/// The schema follows from the rest and has no order of its own.
impl PartialOrd for WindowTvf {
    fn partial_cmp(&self, other: &WindowTvf) -> Option<Ordering> {
        match self.kind.cmp(&other.kind).then_with(|| self.time_column.cmp(&other.time_column)) {
            Ordering::Equal => self.input.partial_cmp(&other.input).filter(|o| o.is_ne() || self == other),
            order => Some(order),
        }
    }
}

impl UserDefinedLogicalNodeCore for WindowTvf {
    fn name(&self) -> &str {
        "WindowTvf"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        vec![&self.input]
    }

    fn schema(&self) -> &DFSchemaRef {
        &self.schema
    }

    fn expressions(&self) -> Vec<Expr> {
        vec![Expr::Column(self.time_column.clone())]
    }

    /// A filter on the input's own columns sees the same values below.
    fn prevent_predicate_push_down_columns(&self) -> HashSet<String> {
        HashSet::from([WINDOW_START.to_string(), WINDOW_END.to_string()])
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WindowTvf: {} time={}", self.kind, self.time_column)
    }

    fn with_exprs_and_inputs(
        &self,
        mut exprs: Vec<Expr>,
        mut inputs: Vec<LogicalPlan>,
    ) -> datafusion::common::Result<WindowTvf> {
        match (exprs.pop(), inputs.pop(), exprs.is_empty() && inputs.is_empty()) {
            (Some(Expr::Column(time_column)), Some(input), true) => {
                WindowTvf::try_new(input, self.kind, time_column)
            }
            _ => plan_err!("{} takes one column and one input", self.kind.name()),
        }
    }

    fn necessary_children_exprs(&self, output_columns: &[usize]) -> Option<Vec<Vec<usize>>> {
        let input_columns = self.window_start_index();
        let mut needed: Vec<usize> =
            output_columns.iter().copied().filter(|column| *column < input_columns).collect();
        needed.push(self.time_index());
        needed.sort_unstable();
        needed.dedup();
        Some(vec![needed])
    }
}

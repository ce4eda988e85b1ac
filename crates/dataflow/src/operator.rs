//! The operator contract.

use arrow::datatypes::SchemaRef;

use crate::{Result, Tick, Watermark, ZSet};

/// Maps changes of its inputs to the change of its output, one step at a time.
///
/// Synchronous and deterministic: no clock, randomness, thread, file or socket. The output may
/// depend on the sequence of inputs only through their sum, so that step boundaries do not
/// show: `step(a + b)` gives the same sum of outputs as `step(a)` then `step(b)`, as long as the
/// watermarks are the same.
pub trait Operator: Send {
    /// The SQL word, in lower case, shown by EXPLAIN: "aggregate", "join".
    fn name(&self) -> &'static str;

    fn schema(&self) -> SchemaRef;

    /// Consumes one Z-set per input port (empty ones included) and returns the output change.
    ///
    /// Called also with all inputs empty when a watermark advanced: this is when windows close
    /// and their state is freed.
    fn step(&mut self, inputs: &[ZSet], ctx: &mut StepContext) -> Result<ZSet>;

    /// When the clock alone will next change the output, as of `now_us`; `None` when it will not.
    fn clock_due_us(&mut self, _now_us: i64) -> Option<i64> {
        None
    }

    /// Rows and bytes kept; zero for a stateless operator.
    fn state_size(&self) -> StateSize {
        StateSize::default()
    }
}

/// What an operator learns and reports during one step.
#[derive(Debug, Default)]
pub struct StepContext {
    pub tick: Tick,
    /// The operator's watermark (minimum over its inputs) before this step's rows.
    /// Rows whose window is closed by it are late.
    pub watermark_before: Watermark,
    /// The watermark after this step's rows. Windows it closes are emitted or freed at the end of the step.
    pub watermark: Watermark,
    /// The clock after this step's records; `None` before the first. Part of the log, so never the wall clock's.
    pub now_us: Option<i64>,
    /// Rows ignored because their window's state is gone; operators add to it.
    pub late_rows: u64,
    /// Expressions and results that had no value (overflow, bad cast) and became NULL.
    pub errors: Vec<String>,
    /// All of them, also those beyond the sample kept in `errors`.
    pub errors_total: u64,
}

impl StepContext {
    /// Samples kept per step and operator; the rest is only counted.
    pub const ERROR_SAMPLES_MAX: usize = 8;

    pub fn report_error(&mut self, text: impl FnOnce() -> String) {
        self.errors_total += 1;
        if self.errors.len() < Self::ERROR_SAMPLES_MAX {
            self.errors.push(text());
        }
    }
}

/// How much an operator remembers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StateSize {
    pub rows: usize,
    pub bytes: usize,
}

impl std::ops::Add for StateSize {
    type Output = StateSize;
    fn add(self, other: StateSize) -> StateSize {
        StateSize { rows: self.rows + other.rows, bytes: self.bytes + other.bytes }
    }
}

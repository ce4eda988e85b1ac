//! The operator contract.

use arrow::datatypes::SchemaRef;

use crate::{KeyPart, Result, StateReader, StateWriter, Tick, Watermark, ZSet};

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

    /// Writes what the operator remembers about some keys, such that one of the same specification that takes it in goes
    /// on as this one would. What doesn't belong to a key goes with every part.
    ///
    /// # Errors
    /// When keys can't be told apart.
    fn save(&self, part: KeyPart<'_>, out: &mut StateWriter) -> Result<()>;

    /// Takes in what operators of the same specification saved about keys that this one doesn't know yet.
    ///
    /// # Errors
    /// When it was not written by [`Operator::save`] of this version; the operator is then not to be used any more.
    fn load(&mut self, saved: &mut StateReader<'_>) -> Result<()>;

    /// Rows and bytes kept; zero for a stateless operator.
    fn state_size(&self) -> StateSize {
        StateSize::default()
    }
}

/// Takes a part of an operator's output before its step ends. Parts, then what the step returns, are the output.
#[derive(Clone, Copy)]
pub struct PartSink<'a> {
    pub give: &'a (dyn Fn(ZSet) + Sync),
    /// A part is given as soon as there are so many rows.
    pub rows: usize,
}

impl std::fmt::Debug for PartSink<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PartSink")
    }
}

/// What an operator learns and reports during one step.
#[derive(Debug, Default)]
pub struct StepContext<'a> {
    pub tick: Tick,
    /// The operator's watermark (minimum over its inputs) before this step's rows.
    /// Rows whose window is closed by it are late.
    pub watermark_before: Watermark,
    /// The watermark after this step's rows. Windows it closes are emitted or freed at the end of the step.
    pub watermark: Watermark,
    /// The clock after this step's records; `None` before the first. Part of the log, so never the wall clock's.
    pub now_us: Option<i64>,
    /// When the step's last record was received.
    pub received_us: Option<i64>,
    /// Where an output that would not fit a batch goes, part by part; `None` where it has to be whole.
    pub parts: Option<PartSink<'a>>,
    /// Rows ignored because their window's state is gone; operators add to it.
    pub late_rows: u64,
    /// Expressions and results that had no value (overflow, bad cast) and became NULL.
    pub errors: Vec<String>,
    /// All of them, also those beyond the sample kept in `errors`.
    pub errors_total: u64,
}

impl<'a> StepContext<'a> {
    /// Samples kept per step and operator; the rest is only counted.
    pub const ERROR_SAMPLES_MAX: usize = 8;

    pub fn report_error(&mut self, text: impl FnOnce() -> String) {
        self.errors_total += 1;
        if self.errors.len() < Self::ERROR_SAMPLES_MAX {
            self.errors.push(text());
        }
    }

    /// The same moment, nothing reported yet: for one of several that share the step.
    pub fn fork<'b>(&self) -> StepContext<'b>
    where
        'a: 'b,
    {
        StepContext {
            tick: self.tick,
            watermark_before: self.watermark_before,
            watermark: self.watermark,
            now_us: self.now_us,
            received_us: self.received_us,
            parts: self.parts,
            ..Default::default()
        }
    }

    /// Takes over what another one reported.
    pub fn absorb(&mut self, other: StepContext<'_>) {
        self.late_rows += other.late_rows;
        self.errors_total += other.errors_total;
        self.errors.extend(other.errors);
        self.errors.truncate(Self::ERROR_SAMPLES_MAX);
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

//! `x > now() - INTERVAL '1 hour'` and its kin: rows come and go because time passes.
//!
//! The filter compares a value of each row with a threshold that only rises: an expression of the clock.
//!
//! ```text
//!   x > threshold   rows that are there leave when the threshold reaches them:   kept are those that are there
//!   x < threshold   rows that wait come when the threshold has passed them:      kept are those that wait
//! ```
//!
//! The clock comes with the step (it is in the log), so that the same log gives the same rows, however its records are
//! cut into steps: only the last threshold of a step counts.
//!
//! State: the rows above, in the order of their values. A row is freed when the threshold passes it; rows that it has
//! passed before cost nothing. A NULL passes no comparison. Cost: a search in the ordered rows per row.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, TimestampMicrosecondArray, UInt32Array};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use arrow::row::{RowConverter, SortField};
use dataflow::{Error, KeyPart, Operator, Result, StateReader, StateSize, StateWriter, StepContext, ZSet};
use datafusion::logical_expr::ColumnarValue;
use datafusion::physical_expr::PhysicalExpr;

/// Which side of the threshold a row has to be on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Rows leave.
    Above { inclusive: bool },
    /// Rows come.
    Below { inclusive: bool },
}

/// What a [`TemporalFilter`] compares.
#[derive(Clone)]
pub struct TemporalFilterSpec {
    /// The column that is compared.
    pub column: usize,
    /// Computed from a batch of [`clock_schema`]; never goes down while the clock goes up.
    pub threshold: Arc<dyn PhysicalExpr>,
    pub side: Side,
    /// How many of the input's columns are given on; the rest was there to be compared.
    pub width: usize,
}

/// The one column that thresholds are computed from.
pub fn clock_schema() -> SchemaRef {
    let time = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    Arc::new(Schema::new(vec![Field::new("now", time, false)]))
}

pub struct TemporalFilter {
    spec: TemporalFilterSpec,
    output: SchemaRef,
    compared: DataType,
    /// The compared value, then the columns that are given on.
    converter: RowConverter,
    /// The compared value alone: a prefix of the codes above.
    prefix: RowConverter,
    /// Invariant: all of them are on the same side of the threshold, and no weight is zero.
    rows: BTreeMap<Box<[u8]>, i64>,
    bytes: usize,
    threshold: Option<Box<[u8]>>,
    /// For which first row the moment of its change was computed.
    due: Option<(Box<[u8]>, Option<i64>)>,
}

/// Of the saved state.
const FORMAT_VERSION: u8 = 1;
/// Beside its bytes, what a row costs.
const ROW_BYTES: usize = 40;
/// Changes further away than this (some 300 years) are not waited for.
const HORIZON_US: i64 = 1 << 53;
/// How exactly the moment of the next change is found.
const DUE_PRECISION_US: i64 = 1000;

impl TemporalFilter {
    /// # Errors
    /// If the rows are of a type that can't be kept.
    pub fn new(spec: TemporalFilterSpec, input: &SchemaRef) -> Result<TemporalFilter> {
        let compared = SortField::new(input.field(spec.column).data_type().clone());
        let given = (0..spec.width).map(|column| SortField::new(input.field(column).data_type().clone()));
        let columns: Vec<usize> = (0..spec.width).collect();
        Ok(TemporalFilter {
            output: Arc::new(input.project(&columns)?),
            compared: input.field(spec.column).data_type().clone(),
            converter: RowConverter::new(std::iter::once(compared.clone()).chain(given).collect())?,
            prefix: RowConverter::new(vec![compared])?,
            spec,
            rows: BTreeMap::new(),
            bytes: 0,
            threshold: None,
            due: None,
        })
    }

    /// The threshold's code at this moment.
    fn threshold_at(&self, now_us: i64) -> Result<Box<[u8]>> {
        let failed = |e: datafusion::error::DataFusionError| Error::Operator(e.to_string());
        let now = TimestampMicrosecondArray::from(vec![now_us]).with_timezone("UTC");
        let batch = RecordBatch::try_new(clock_schema(), vec![Arc::new(now)])?;
        let value = match self.spec.threshold.evaluate(&batch).map_err(failed)? {
            ColumnarValue::Array(array) => array,
            ColumnarValue::Scalar(value) => value.to_array().map_err(failed)?,
        };
        let value = super::aggregate::change::conform(value, &self.compared)?;
        Ok(self.prefix.convert_columns(&[value])?.row(0).data().into())
    }

    /// True when the code's value is at or below the threshold, as far as this filter tells rows apart: rows above
    /// have left or come, those below have not.
    fn passed(&self, code: &[u8], threshold: &[u8]) -> bool {
        let at = code.get(..threshold.len()).is_some_and(|prefix| prefix == threshold);
        let below = code < threshold;
        match self.spec.side {
            Side::Above { inclusive } => below || (at && !inclusive),
            Side::Below { inclusive } => below || (at && inclusive),
        }
    }

    /// Takes out the rows that the threshold has passed.
    fn take_passed(&mut self, threshold: &[u8]) -> (Vec<Box<[u8]>>, Vec<i64>) {
        let (mut codes, mut weights) = (Vec::new(), Vec::new());
        while let Some((first, _)) = self.rows.first_key_value() {
            if !self.passed(first, threshold) {
                break;
            }
            let (code, weight) = self.rows.pop_first().expect("there is a first one");
            self.bytes -= code.len() + ROW_BYTES;
            codes.push(code);
            weights.push(weight);
        }
        (codes, weights)
    }

    fn keep(&mut self, code: &[u8], weight: i64) {
        if let Some(kept) = self.rows.get_mut(code) {
            *kept += weight;
            if *kept == 0 {
                self.rows.remove(code);
                self.bytes -= code.len() + ROW_BYTES;
            }
        } else if weight != 0 {
            self.rows.insert(code.into(), weight);
            self.bytes += code.len() + ROW_BYTES;
        }
    }

    fn decoded(&self, codes: &[Box<[u8]>], weights: Vec<i64>) -> Result<ZSet> {
        if codes.is_empty() {
            return Ok(ZSet::empty(Arc::clone(&self.output)));
        }
        let parser = self.converter.parser();
        let mut columns = self.converter.convert_rows(codes.iter().map(|code| parser.parse(code)))?;
        columns.remove(0);
        Ok(ZSet::new(super::aggregate::change::batch(&self.output, columns)?, weights))
    }
}

impl Operator for TemporalFilter {
    fn name(&self) -> &'static str {
        "temporal filter"
    }

    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.output)
    }

    fn step(&mut self, inputs: &[ZSet], ctx: &mut StepContext) -> Result<ZSet> {
        let leaves = matches!(self.spec.side, Side::Above { .. });
        if let Some(now_us) = ctx.now_us {
            let threshold = self.threshold_at(now_us)?;
            // A threshold that went down would be a mistake of planning; rows that are gone would be missed.
            assert!(self.threshold.as_ref().is_none_or(|old| *old <= threshold), "thresholds only rise");
            self.threshold = Some(threshold);
        }
        let input = &inputs[0];
        let mut pass: Vec<u32> = Vec::with_capacity(input.len());
        if !input.is_empty() {
            let rows = input.rows();
            let compared = rows.column(self.spec.column);
            let columns: Vec<ArrayRef> =
                std::iter::once(compared).chain(&rows.columns()[..self.spec.width]).map(Arc::clone).collect();
            let coded = self.converter.convert_columns(&columns)?;
            let nulls = compared.logical_nulls();
            for row in 0..input.len() {
                if nulls.as_ref().is_some_and(|nulls| nulls.is_null(row)) {
                    continue;
                }
                let code = coded.row(row);
                let passed =
                    self.threshold.as_ref().is_some_and(|threshold| self.passed(code.data(), threshold));
                if !passed {
                    self.keep(code.data(), input.weight(row));
                }
                if passed != leaves {
                    pass.push(row as u32);
                }
            }
        }
        // What this step's rows changed in the state is in `pass`, too; so what the threshold passes now is what was
        // shown, or waited, before the step or is added by it, and it is never both.
        let through = input.take(&UInt32Array::from(pass))?;
        let columns: Vec<usize> = (0..self.spec.width).collect();
        let through = through.with_rows(through.rows().project(&columns)?);
        let (codes, weights) = match self.threshold.clone() {
            Some(threshold) => self.take_passed(&threshold),
            None => (vec![], vec![]),
        };
        let weights = if leaves { weights.into_iter().map(|weight| -weight).collect() } else { weights };
        let moved = self.decoded(&codes, weights)?;
        ZSet::concat(&self.output, &[through, moved])
    }

    fn clock_due_us(&mut self, now_us: i64) -> Option<i64> {
        let first = self.rows.first_key_value()?.0;
        if let Some((of, due)) = &self.due
            && of == first
        {
            return *due;
        }
        let reaches = |at: i64| self.threshold_at(at).is_ok_and(|threshold| self.passed(first, &threshold));
        let mut ahead = DUE_PRECISION_US;
        while !reaches(now_us + ahead) {
            ahead *= 2;
            if ahead > HORIZON_US {
                self.due = Some((first.clone(), None));
                return None;
            }
        }
        let (mut low, mut high) = (now_us + ahead / 2, now_us + ahead);
        while high - low > DUE_PRECISION_US {
            let middle = low + (high - low) / 2;
            if reaches(middle) { high = middle } else { low = middle }
        }
        self.due = Some((first.clone(), Some(high)));
        Some(high)
    }

    fn save(&self, part: KeyPart<'_>, out: &mut StateWriter) -> Result<()> {
        super::undivided(part)?;
        out.u8(FORMAT_VERSION);
        out.option(self.threshold.as_deref(), StateWriter::bytes);
        // The moment depends on when it was looked for.
        out.option(self.due.as_ref(), |out, (first, due)| {
            out.bytes(first);
            out.option(*due, StateWriter::i64);
        });
        out.all(self.rows.iter(), |out, (code, weight)| {
            out.signed(*weight);
            out.bytes(code);
        });
        Ok(())
    }

    fn load(&mut self, saved: &mut StateReader<'_>) -> Result<()> {
        saved.version(FORMAT_VERSION)?;
        self.threshold = saved.option(StateReader::bytes)?.map(Box::from);
        self.due = saved.option(|saved| Ok((saved.bytes()?.into(), saved.option(StateReader::i64)?)))?;
        for _ in 0..saved.count()? {
            let weight = saved.signed()?;
            let code = saved.bytes()?;
            self.bytes += code.len() + ROW_BYTES;
            if self.rows.insert(code.into(), weight).is_some() || weight == 0 {
                return Err(Error::State("a row is not as rows are written".into()));
            }
        }
        Ok(())
    }

    fn state_size(&self) -> StateSize {
        StateSize { rows: self.rows.len(), bytes: self.bytes }
    }
}

#[cfg(test)]
mod tests;

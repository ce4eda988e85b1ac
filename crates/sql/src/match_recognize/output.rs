//! From matches to rows: columns of the partition, measures, and with ALL ROWS PER MATCH the rows themselves.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, Int64Array, RecordBatch, StringArray};
use arrow::compute::nullif;
use arrow::datatypes::DataType;
use datafusion::common::{Result, ScalarValue, internal_err};
use datafusion::logical_expr::ColumnarValue;
use datafusion::physical_expr::PhysicalExpr;

use super::attempt::Mapped;
use super::compiled::Compiled;
use super::rows::{RowRef, Rows};
use super::{Anchor, RowsPerMatch, Term, Value, VariableSet};

/// How expressions are computed, and what happens to those that fail.
pub trait Evaluate {
    /// The expression's value for every row of the batch.
    fn evaluate(
        &mut self,
        expr: &dyn PhysicalExpr,
        data_type: &DataType,
        batch: &RecordBatch,
    ) -> Result<ArrayRef>;

    /// Something that is no error but should be known.
    fn report(&mut self, text: &str);
}

/// A failing expression fails the query.
#[derive(Debug, Default)]
pub struct Strict;

impl Evaluate for Strict {
    fn evaluate(&mut self, expr: &dyn PhysicalExpr, _: &DataType, batch: &RecordBatch) -> Result<ArrayRef> {
        match expr.evaluate(batch)? {
            ColumnarValue::Array(array) => Ok(array),
            ColumnarValue::Scalar(scalar) => scalar.to_array_of_size(batch.num_rows()),
        }
    }

    fn report(&mut self, _text: &str) {}
}

/// A match, or what the clauses give rows for besides.
#[derive(Debug)]
pub struct Found {
    pub(super) kind: Kind,
    pub(super) mapped: Vec<Mapped>,
    /// The match's rows with those around them that PREV and NEXT may ask for.
    pub(super) window: Vec<RowRef>,
    /// Place of the match's first row in the window.
    pub(super) first: usize,
    pub(super) number: i64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Match,
    /// A match of no rows.
    Empty,
    TimedOut,
    /// A row that is in no match.
    Unmatched,
}

/// One row of the result: the rows of the match up to `so_far` are behind it.
struct Shown<'a> {
    found: &'a Found,
    row: RowRef,
    so_far: usize,
}

pub(super) fn output(
    compiled: &Compiled,
    rows: &Rows,
    found: &[Found],
    evaluator: &mut dyn Evaluate,
) -> Result<RecordBatch> {
    let shown = shown(compiled, found);
    if shown.is_empty() {
        return Ok(RecordBatch::new_empty(Arc::clone(&compiled.output)));
    }
    let at: Vec<Option<RowRef>> = shown.iter().map(|shown| Some(shown.row)).collect();
    let (before, after) = compiled.pattern.shown();
    let mut columns = Vec::with_capacity(compiled.output.fields().len());
    for column in &before {
        columns.push(rows.gather(*column, &at, &compiled.input)?);
    }
    let mut terms: Vec<Option<ArrayRef>> = vec![None; compiled.pattern.terms.len()];
    for measure in &compiled.measures {
        for term in &measure.terms {
            if terms[*term].is_none() {
                terms[*term] = Some(term_column(*term, &shown, compiled, rows)?);
            }
        }
    }
    let unmatched: BooleanArray =
        shown.iter().map(|shown| Some(shown.found.kind == Kind::Unmatched)).collect();
    for measure in &compiled.measures {
        let used = measure.terms.iter().filter_map(|term| terms[*term].clone()).collect();
        let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(shown.len()));
        let batch = RecordBatch::try_new_with_options(Arc::clone(&measure.schema), used, &options)?;
        let values = evaluator.evaluate(measure.expr.as_ref(), &measure.data_type, &batch)?;
        columns.push(if unmatched.true_count() > 0 { nullif(&values, &unmatched)? } else { values });
    }
    for column in &after {
        columns.push(rows.gather(*column, &at, &compiled.input)?);
    }
    let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(shown.len()));
    Ok(RecordBatch::try_new_with_options(Arc::clone(&compiled.output), columns, &options)?)
}

fn shown<'a>(compiled: &Compiled, found: &'a [Found]) -> Vec<Shown<'a>> {
    let mut shown = Vec::with_capacity(found.len());
    for found in found {
        let first = found.window[found.first];
        match (compiled.rows, found.kind) {
            (RowsPerMatch::One, _) => {
                shown.push(Shown { found, row: first, so_far: found.mapped.len() });
            }
            (RowsPerMatch::All { empty: false, .. }, Kind::Empty) => {}
            (_, Kind::Empty | Kind::Unmatched) => shown.push(Shown { found, row: first, so_far: 0 }),
            (_, Kind::Match | Kind::TimedOut) => {
                let rows = found.mapped.iter().enumerate().filter(|(_, mapped)| !mapped.excluded);
                shown.extend(rows.map(|(n, _)| Shown {
                    found,
                    row: found.window[found.first + n],
                    so_far: n + 1,
                }));
            }
        }
    }
    shown
}

fn term_column(term: usize, shown: &[Shown<'_>], compiled: &Compiled, rows: &Rows) -> Result<ArrayRef> {
    Ok(match &compiled.pattern.terms[term] {
        Term::Row { value: Value::Column(column), anchor, offset } => {
            let at: Vec<Option<RowRef>> = shown
                .iter()
                .map(|shown| {
                    let place = anchored(shown, *anchor)? + shown.found.first;
                    shown.found.window.get(place.checked_add_signed(*offset as isize)?).copied()
                })
                .collect();
            rows.gather(*column, &at, &compiled.input)?
        }
        Term::Row { value: Value::Classifier, anchor, offset } => {
            let names: StringArray = shown
                .iter()
                .map(|shown| {
                    let place = anchored(shown, *anchor)?.checked_add_signed(*offset as isize)?;
                    let mapped = shown.found.mapped.get(place)?;
                    Some(compiled.variables[mapped.variable as usize].as_str())
                })
                .collect();
            Arc::new(names)
        }
        Term::Aggregate { .. } => aggregate_column(term, shown, compiled, rows)?,
        Term::MatchNumber => {
            let numbers: Int64Array = shown
                .iter()
                .map(|shown| match shown.found.kind {
                    Kind::Match | Kind::Empty => Some(shown.found.number),
                    Kind::TimedOut | Kind::Unmatched => None,
                })
                .collect();
            Arc::new(numbers)
        }
        Term::TimedOut => {
            let over: BooleanArray =
                shown.iter().map(|shown| Some(shown.found.kind == Kind::TimedOut)).collect();
            Arc::new(over)
        }
    })
}

/// The place among the match's rows.
fn anchored(shown: &Shown<'_>, anchor: Anchor) -> Option<usize> {
    let rows =
        |whole: bool| &shown.found.mapped[..if whole { shown.found.mapped.len() } else { shown.so_far }];
    let within = |set: VariableSet| move |mapped: &Mapped| set & (1 << mapped.variable) != 0;
    let nth = |places: &mut dyn Iterator<Item = usize>, n: u32| places.nth(n as usize);
    match anchor {
        Anchor::Current => shown.so_far.checked_sub(1),
        Anchor::First { set, n, whole } => {
            let rows = rows(whole);
            nth(&mut (0..rows.len()).filter(|place| within(set)(&rows[*place])), n)
        }
        Anchor::Last { set, n, whole } => {
            let rows = rows(whole);
            nth(&mut (0..rows.len()).rev().filter(|place| within(set)(&rows[*place])), n)
        }
    }
}

fn aggregate_column(term: usize, shown: &[Shown<'_>], compiled: &Compiled, rows: &Rows) -> Result<ArrayRef> {
    let Term::Aggregate { arguments, set, whole, data_type, .. } = &compiled.pattern.terms[term] else {
        return internal_err!("term {term} is an aggregate");
    };
    let mut values: Vec<ScalarValue> = Vec::with_capacity(shown.len());
    let mut next = 0;
    while next < shown.len() {
        // The rows of one match follow each other, and each adds to the aggregate of the one before.
        let found = shown[next].found;
        let mut accumulator = compiled.accumulator(term)?;
        let mut taken = 0;
        while next < shown.len() && std::ptr::eq(shown[next].found, found) {
            let until = if *whole { found.mapped.len() } else { shown[next].so_far };
            let at: Vec<Option<RowRef>> = (taken..until)
                .filter(|place| set & (1 << found.mapped[*place].variable) != 0)
                .map(|place| Some(found.window[found.first + place]))
                .collect();
            taken = taken.max(until);
            if !at.is_empty() {
                let columns = arguments
                    .iter()
                    .map(|column| rows.gather(*column, &at, &compiled.input))
                    .collect::<Result<Vec<_>>>()?;
                accumulator.update_batch(&columns)?;
            }
            values.push(accumulator.evaluate()?);
            next += 1;
        }
    }
    let array = ScalarValue::iter_to_array(values)?;
    match array.data_type() == data_type {
        true => Ok(array),
        false => Ok(arrow::compute::cast(&array, data_type)?),
    }
}

//! `percentile_cont`, `percentile_disc` and `mode`, WITHIN GROUP (ORDER BY x), as PostgreSQL computes them.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Float64Array, ListArray};
use arrow::buffer::OffsetBuffer;
use arrow::compute::{SortOptions, concat, filter, is_not_null, sort_to_indices, take};
use arrow::datatypes::{DataType, Field, FieldRef, Float64Type};
use arrow::row::{RowConverter, SortField};
use datafusion::common::{Result, ScalarValue, exec_err, plan_err};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::{AggregateOrderSensitivity, format_state_name};
use datafusion::logical_expr::{Accumulator, AggregateUDFImpl, Signature, Volatility};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::Literal;

/// Which value is picked out of the ordered ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Interpolates between the two values around the fraction; doubles.
    PercentileCont,
    /// The first value that at least the fraction of all values do not exceed.
    PercentileDisc,
    /// The most frequent value, of several the first in the order.
    Mode,
}

/// Between which of `count` values, from 0, the fraction falls, and how far from the first to the second.
pub fn cont_position(fraction: f64, count: i64) -> (i64, i64, f64) {
    let at = fraction * (count - 1) as f64;
    (at.floor() as i64, at.ceil() as i64, at - at.floor())
}

/// The value a part of the way between two.
pub fn interpolated(low: f64, high: f64, part: f64) -> f64 {
    if low == high || part == 0.0 { low } else { low + part * (high - low) }
}

/// The number, from 0, of the value that `percentile_disc` picks out of `count`.
pub fn disc_position(fraction: f64, count: i64) -> i64 {
    ((fraction * count as f64).ceil() as i64 - 1).max(0)
}

/// A fraction given as a constant.
///
/// # Errors
/// If it is no number between 0 and 1.
pub fn fraction(value: &ScalarValue) -> Result<f64> {
    match value.cast_to(&DataType::Float64)? {
        ScalarValue::Float64(Some(fraction)) if (0.0..=1.0).contains(&fraction) => Ok(fraction),
        ScalarValue::Float64(Some(other)) => exec_err!("percentile value {other} is not between 0 and 1"),
        _ => plan_err!("percentile value must be a constant between 0 and 1"),
    }
}

/// The constant that an argument is.
pub(super) fn constant(argument: Option<&Arc<dyn PhysicalExpr>>) -> Result<ScalarValue> {
    match argument.and_then(|argument| argument.downcast_ref::<Literal>()) {
        Some(literal) => Ok(literal.value().clone()),
        None => plan_err!("percentile value must be a constant between 0 and 1"),
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct OrderedSet {
    kind: Kind,
    signature: Signature,
}

impl OrderedSet {
    pub(super) fn new(kind: Kind) -> OrderedSet {
        OrderedSet { kind, signature: Signature::user_defined(Volatility::Immutable) }
    }
}

impl AggregateUDFImpl for OrderedSet {
    fn name(&self) -> &str {
        match self.kind {
            Kind::PercentileCont => "percentile_cont",
            Kind::PercentileDisc => "percentile_disc",
            Kind::Mode => "mode",
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, arg_types: &[DataType]) -> Result<Vec<DataType>> {
        let name = self.name();
        match (self.kind, arg_types) {
            (Kind::Mode, [value]) => Ok(vec![value.clone()]),
            (Kind::Mode, _) => plan_err!("write mode() WITHIN GROUP (ORDER BY x)"),
            (Kind::PercentileDisc, [value, _]) => Ok(vec![value.clone(), DataType::Float64]),
            (Kind::PercentileCont, [value, _]) if value.is_numeric() || value.is_null() => {
                Ok(vec![DataType::Float64; 2])
            }
            (Kind::PercentileCont, [value, _]) => {
                plan_err!("Cannot coerce {value} to a number in {name}; percentile_disc takes any type")
            }
            _ => plan_err!("write {name}(0.5) WITHIN GROUP (ORDER BY x)"),
        }
    }

    fn return_type(&self, arg_types: &[DataType]) -> Result<DataType> {
        Ok(arg_types[0].clone())
    }

    fn supports_within_group_clause(&self) -> bool {
        true
    }

    /// Values are ordered here.
    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        AggregateOrderSensitivity::Insensitive
    }

    fn state_fields(&self, args: StateFieldsArgs<'_>) -> Result<Vec<FieldRef>> {
        let item = Field::new_list_field(args.input_fields[0].data_type().clone(), true);
        Ok(vec![Arc::new(Field::new_list(format_state_name(args.name, "values"), item, true))])
    }

    fn accumulator(&self, args: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        if args.is_distinct {
            return plan_err!("DISTINCT in {}() is not supported", self.name());
        }
        let fraction = match self.kind {
            Kind::Mode => 0.0,
            _ => fraction(&constant(args.exprs.get(1))?)?,
        };
        Ok(Box::new(Values {
            kind: self.kind,
            fraction,
            descending: args.order_bys.first().is_some_and(|sort| sort.options.descending),
            data_type: args.expr_fields[0].data_type().clone(),
            parts: Vec::new(),
        }))
    }
}

#[derive(Debug)]
struct Values {
    kind: Kind,
    fraction: f64,
    descending: bool,
    data_type: DataType,
    /// Without NULLs.
    parts: Vec<ArrayRef>,
}

impl Values {
    fn all(&self) -> Result<ArrayRef> {
        let parts: Vec<&dyn Array> = self.parts.iter().map(AsRef::as_ref).collect();
        match parts.is_empty() {
            true => Ok(arrow::array::new_empty_array(&self.data_type)),
            false => Ok(concat(&parts)?),
        }
    }

    fn keep(&mut self, values: &ArrayRef) -> Result<()> {
        let values = match values.null_count() {
            0 => Arc::clone(values),
            _ => filter(values, &is_not_null(values)?)?,
        };
        if !values.is_empty() {
            self.parts.push(values);
        }
        Ok(())
    }
}

impl Accumulator for Values {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.keep(&values[0])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        let lists = states[0].as_list::<i32>();
        (0..lists.len()).filter(|row| lists.is_valid(*row)).try_for_each(|row| self.keep(&lists.value(row)))
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let all = self.all()?;
        let item = Arc::new(Field::new_list_field(self.data_type.clone(), true));
        let offsets = OffsetBuffer::from_lengths([all.len()]);
        Ok(vec![ScalarValue::List(Arc::new(ListArray::try_new(item, offsets, all, None)?))])
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let all = self.all()?;
        let count = all.len() as i64;
        if count == 0 {
            return ScalarValue::try_from(&self.data_type);
        }
        let options = SortOptions { descending: self.descending, nulls_first: false };
        match self.kind {
            Kind::PercentileCont => {
                let sorted = arrow::compute::sort(&all, Some(options))?;
                let sorted: &Float64Array = sorted.as_primitive::<Float64Type>();
                let (low, high, part) = cont_position(self.fraction, count);
                let value = interpolated(sorted.value(low as usize), sorted.value(high as usize), part);
                Ok(ScalarValue::Float64(Some(value)))
            }
            Kind::PercentileDisc => {
                let order = sort_to_indices(&all, Some(options), None)?;
                let place = disc_position(self.fraction, count) as usize;
                ScalarValue::try_from_array(&all, order.value(place) as usize)
            }
            Kind::Mode => {
                let converter = RowConverter::new(vec![SortField::new(self.data_type.clone())])?;
                let order = sort_to_indices(&all, Some(options), None)?;
                let sorted = take(&all, &order, None)?;
                let codes = converter.convert_columns(&[sorted])?;
                let (mut best, mut best_length, mut start) = (0, 0, 0);
                for at in 1..=codes.num_rows() {
                    if at == codes.num_rows() || codes.row(at) != codes.row(start) {
                        if at - start > best_length {
                            (best, best_length) = (start, at - start);
                        }
                        start = at;
                    }
                }
                ScalarValue::try_from_array(&all, order.value(best) as usize)
            }
        }
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.parts.iter().map(|part| part.get_array_memory_size()).sum::<usize>()
    }
}

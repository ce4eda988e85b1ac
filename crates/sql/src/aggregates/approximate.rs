//! `approx_count_distinct(x)` and `approx_percentile(fraction [, accuracy]) WITHIN GROUP (ORDER BY x)`.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, ListArray};
use arrow::datatypes::{DataType, Field, FieldRef, Float64Type, Int64Type};
use arrow::row::{RowConverter, SortField};
use datafusion::common::{Result, ScalarValue, exec_err, plan_err};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::{AggregateOrderSensitivity, format_state_name};
use datafusion::logical_expr::{Accumulator, AggregateUDFImpl, Signature, Volatility};

use super::ordered_set::{constant, fraction};
use super::sketch::{DistinctSketch, QuantileSketch, hash};

/// How far off `approx_percentile` may be when it is not said: one hundredth of the value.
pub const DEFAULT_ACCURACY: f64 = 0.01;

/// The accuracy given as a constant.
///
/// # Errors
/// If it is not between 0 and 1, both excluded.
pub fn accuracy(value: &ScalarValue) -> Result<f64> {
    match value.cast_to(&DataType::Float64)? {
        ScalarValue::Float64(Some(accuracy)) if (1e-6..=0.5).contains(&accuracy) => Ok(accuracy),
        _ => exec_err!("the accuracy of approx_percentile must be between 0.000001 and 0.5"),
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct ApproxCountDistinct {
    signature: Signature,
    aliases: Vec<String>,
}

impl ApproxCountDistinct {
    pub(super) fn new() -> ApproxCountDistinct {
        let aliases = vec!["approx_distinct".to_string()];
        ApproxCountDistinct { signature: Signature::any(1, Volatility::Immutable), aliases }
    }
}

impl AggregateUDFImpl for ApproxCountDistinct {
    fn name(&self) -> &str {
        "approx_count_distinct"
    }

    fn aliases(&self) -> &[String] {
        &self.aliases
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arg_types: &[DataType]) -> Result<DataType> {
        Ok(DataType::Int64)
    }

    fn is_nullable(&self) -> bool {
        false
    }

    fn default_value(&self, _data_type: &DataType) -> Result<ScalarValue> {
        Ok(ScalarValue::Int64(Some(0)))
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        AggregateOrderSensitivity::Insensitive
    }

    fn state_fields(&self, args: StateFieldsArgs<'_>) -> Result<Vec<FieldRef>> {
        Ok(vec![Arc::new(Field::new(format_state_name(args.name, "sketch"), DataType::Binary, true))])
    }

    fn accumulator(&self, args: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        let data_type = args.expr_fields[0].data_type().clone();
        let hasher = ValueHasher::new(&data_type)?;
        Ok(Box::new(CountDistinct { hasher, sketch: DistinctSketch::default() }))
    }
}

/// Hashes of values of any type; equal values, 0.0 and -0.0 among them, have equal hashes.
#[derive(Debug)]
pub struct ValueHasher {
    converter: RowConverter,
}

impl ValueHasher {
    /// # Errors
    /// If the type's values can't be compared.
    pub fn new(data_type: &DataType) -> Result<ValueHasher, arrow::error::ArrowError> {
        Ok(ValueHasher { converter: RowConverter::new(vec![SortField::new(data_type.clone())])? })
    }

    /// Calls `f` with the number and the hash of each value that is not NULL.
    pub fn each(
        &self,
        column: &ArrayRef,
        mut f: impl FnMut(usize, u64),
    ) -> Result<(), arrow::error::ArrowError> {
        let zeros_as_one = match column.data_type() {
            DataType::Float64 => {
                let one = column.as_primitive::<Float64Type>().unary::<_, Float64Type>(|value| value + 0.0);
                Arc::new(one) as ArrayRef
            }
            _ => Arc::clone(column),
        };
        let rows = self.converter.convert_columns(&[zeros_as_one])?;
        for row in (0..column.len()).filter(|row| column.is_valid(*row)) {
            f(row, hash(rows.row(row).data()));
        }
        Ok(())
    }
}

#[derive(Debug)]
struct CountDistinct {
    hasher: ValueHasher,
    sketch: DistinctSketch,
}

impl Accumulator for CountDistinct {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        Ok(self.hasher.each(&values[0], |_, hash| self.sketch.add(hash))?)
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        for bytes in states[0].as_binary::<i32>().iter().flatten() {
            self.sketch.merge(&DistinctSketch::from_bytes(bytes));
        }
        Ok(())
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        Ok(vec![ScalarValue::Binary(Some(self.sketch.to_bytes()))])
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        Ok(ScalarValue::Int64(Some(self.sketch.count())))
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.sketch.heap_bytes()
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct ApproxPercentile {
    signature: Signature,
}

impl ApproxPercentile {
    pub(super) fn new() -> ApproxPercentile {
        ApproxPercentile { signature: Signature::user_defined(Volatility::Immutable) }
    }
}

impl AggregateUDFImpl for ApproxPercentile {
    fn name(&self) -> &str {
        "approx_percentile"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, arg_types: &[DataType]) -> Result<Vec<DataType>> {
        match arg_types {
            [value, _] | [value, _, _] if value.is_numeric() || value.is_null() => {
                Ok(vec![DataType::Float64; arg_types.len()])
            }
            [value, _] | [value, _, _] => plan_err!("Cannot coerce {value} to a number in approx_percentile"),
            _ => plan_err!("write approx_percentile(0.5, 0.01) WITHIN GROUP (ORDER BY x)"),
        }
    }

    fn return_type(&self, _arg_types: &[DataType]) -> Result<DataType> {
        Ok(DataType::Float64)
    }

    fn supports_within_group_clause(&self) -> bool {
        true
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        AggregateOrderSensitivity::Insensitive
    }

    fn state_fields(&self, args: StateFieldsArgs<'_>) -> Result<Vec<FieldRef>> {
        let item = Field::new_list_field(DataType::Int64, true);
        Ok(vec![Arc::new(Field::new_list(format_state_name(args.name, "buckets"), item, true))])
    }

    fn accumulator(&self, args: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        let fraction = fraction(&constant(args.exprs.get(1))?)?;
        let accuracy = match args.exprs.get(2) {
            Some(given) => accuracy(&constant(Some(given))?)?,
            None => DEFAULT_ACCURACY,
        };
        let descending = args.order_bys.first().is_some_and(|sort| sort.options.descending);
        let fraction = if descending { 1.0 - fraction } else { fraction };
        Ok(Box::new(Percentile { fraction, accuracy, sketch: QuantileSketch::default() }))
    }
}

#[derive(Debug)]
struct Percentile {
    fraction: f64,
    accuracy: f64,
    sketch: QuantileSketch,
}

impl Accumulator for Percentile {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let values = values[0].as_primitive::<Float64Type>();
        for value in values.iter().flatten().filter(|value| !value.is_nan()) {
            self.sketch.add(value, self.accuracy, 1);
        }
        Ok(())
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        for numbers in states[0].as_list::<i32>().iter().flatten() {
            self.sketch.merge_numbers(numbers.as_primitive::<Int64Type>().values());
        }
        Ok(())
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let numbers = self.sketch.to_numbers().into_iter().map(Some);
        let list = ListArray::from_iter_primitive::<Int64Type, _, _>([Some(numbers)]);
        Ok(vec![ScalarValue::List(Arc::new(list))])
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        Ok(ScalarValue::Float64(self.sketch.value_at(self.fraction, self.accuracy)))
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.sketch.buckets() * 24
    }
}

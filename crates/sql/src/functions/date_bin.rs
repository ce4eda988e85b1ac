//! `date_bin(stride, time [, origin])`: the start of the bin that holds a time.
//!
//! DataFusion's function looks for nanoseconds first and converts times and origin to them: the result is then no
//! timestamp of ours, and times after 2262 are out of range. Here times stay in microseconds.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, TimestampMicrosecondArray};
use arrow::datatypes::{
    DataType, IntervalMonthDayNanoType, IntervalUnit, TimeUnit, TimestampMicrosecondType,
};
use arrow::error::ArrowError;
use datafusion::common::{Result, internal_err, plan_err};
use datafusion::functions::datetime::date_bin::DateBinFunc;
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility};

use super::{answer, arrays};
use crate::duration::fixed_us;

#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct DateBin {
    signature: Signature,
    /// For times of day, which have no bins across midnight.
    of_day: DateBinFunc,
}

impl DateBin {
    pub(super) fn new() -> DateBin {
        DateBin { signature: Signature::user_defined(Volatility::Immutable), of_day: DateBinFunc::new() }
    }
}

impl ScalarUDFImpl for DateBin {
    fn name(&self) -> &str {
        "date_bin"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, arg_types: &[DataType]) -> Result<Vec<DataType>> {
        let (time, has_origin) = match arg_types {
            [_, time] => (time, false),
            [_, time, _] => (time, true),
            _ => return plan_err!("date_bin takes a stride, a time and optionally an origin"),
        };
        let time = match time {
            DataType::Timestamp(_, zone) => DataType::Timestamp(TimeUnit::Microsecond, zone.clone()),
            DataType::Time32(_) | DataType::Time64(_) => DataType::Time64(TimeUnit::Microsecond),
            DataType::Date32 | DataType::Date64 | DataType::Null => {
                DataType::Timestamp(TimeUnit::Microsecond, None)
            }
            // A text says by itself whether it has a zone; the one of the session is UTC.
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => crate::catalog::timestamptz(),
            other => return plan_err!("Cannot coerce {other} to a time in date_bin"),
        };
        let mut types = vec![DataType::Interval(IntervalUnit::MonthDayNano), time.clone()];
        if has_origin {
            types.push(time);
        }
        Ok(types)
    }

    fn return_type(&self, arg_types: &[DataType]) -> Result<DataType> {
        match arg_types.get(1) {
            Some(time) => Ok(time.clone()),
            None => plan_err!("date_bin takes a stride, a time and optionally an origin"),
        }
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let DataType::Timestamp(_, zone) = args.return_field.data_type().clone() else {
            return self.of_day.invoke_with_args(args);
        };
        let inputs = arrays(&args.args, args.number_rows)?;
        let [strides, times, origins @ ..] = inputs.as_slice() else {
            return internal_err!("date_bin without a time");
        };
        let strides = strides.as_primitive::<IntervalMonthDayNanoType>();
        let times = times.as_primitive::<TimestampMicrosecondType>();
        let origins = origins.first().map(|origins| origins.as_primitive::<TimestampMicrosecondType>());
        // Mostly one stride for all rows: its check is done once.
        let mut known = None;
        let mut binned = Vec::with_capacity(times.len());
        for row in 0..times.len() {
            let origin_is_null = origins.is_some_and(|origins| origins.is_null(row));
            if strides.is_null(row) || times.is_null(row) || origin_is_null {
                binned.push(None);
                continue;
            }
            let stride = strides.value(row);
            let stride_us = match known {
                Some((same, us)) if same == stride => us,
                _ => {
                    let us = stride_us(stride)?;
                    known = Some((stride, us));
                    us
                }
            };
            let origin = origins.map_or(0, |origins| origins.value(row));
            binned.push(Some(bin(stride_us, times.value(row), origin)?));
        }
        let array: ArrayRef = Arc::new(TimestampMicrosecondArray::from(binned).with_timezone_opt(zone));
        answer(&args.args, array)
    }
}

fn stride_us(stride: arrow::datatypes::IntervalMonthDayNano) -> Result<i64> {
    let refused = |text: &str| Err(ArrowError::InvalidArgumentError(text.to_string()).into());
    if stride.months != 0 {
        return refused(
            "timestamps can't be binned into intervals containing months or years; date_trunc('month', ts) gives the month",
        );
    }
    match fixed_us(stride) {
        Ok(us) if us > 0 => Ok(us),
        Ok(_) => refused("the stride of date_bin must be greater than zero"),
        Err(error) => refused(&error.message),
    }
}

fn bin(stride_us: i64, time_us: i64, origin_us: i64) -> Result<i64> {
    let since = i128::from(time_us) - i128::from(origin_us);
    let stride = i128::from(stride_us);
    let start = i128::from(origin_us) + since.div_euclid(stride) * stride;
    i64::try_from(start)
        .map_err(|_| ArrowError::ArithmeticOverflow("the bin's start is out of range".to_string()).into())
}

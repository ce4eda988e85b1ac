//! `now()` and `to_timestamp(x)`, in microseconds UTC like every TIMESTAMPTZ.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, TimestampMicrosecondArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, FieldRef, Float64Type, Int64Type};
use arrow::error::ArrowError;
use datafusion::common::{Result, ScalarValue, internal_err, plan_err};
use datafusion::logical_expr::simplify::{ExprSimplifyResult, SimplifyContext};
use datafusion::logical_expr::{
    ColumnarValue, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility,
};

use super::{answer, arrays};
use crate::catalog::timestamptz;

/// `now()`: one time for the whole statement.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Now {
    signature: Signature,
    aliases: Vec<String>,
}

impl Now {
    pub(super) fn new() -> Now {
        Now {
            signature: Signature::nullary(Volatility::Stable),
            aliases: vec!["current_timestamp".to_string(), "transaction_timestamp".to_string()],
        }
    }
}

impl ScalarUDFImpl for Now {
    fn name(&self) -> &str {
        "now"
    }

    fn aliases(&self) -> &[String] {
        &self.aliases
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arg_types: &[DataType]) -> Result<DataType> {
        Ok(timestamptz())
    }

    fn return_field_from_args(&self, _args: ReturnFieldArgs) -> Result<FieldRef> {
        Ok(Arc::new(Field::new(self.name(), timestamptz(), false)))
    }

    fn invoke_with_args(&self, _args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        internal_err!("now() is replaced by the statement's time before it runs")
    }

    fn simplify(&self, args: Vec<Expr>, info: &SimplifyContext) -> Result<ExprSimplifyResult> {
        let Some(now) = info.query_execution_start_time() else {
            return Ok(ExprSimplifyResult::Original(args));
        };
        let value = ScalarValue::TimestampMicrosecond(Some(now.timestamp_micros()), Some("UTC".into()));
        Ok(ExprSimplifyResult::Simplified(Expr::Literal(value, None)))
    }
}

/// `to_timestamp(x)`: seconds since 1970 as integer or fraction, or a text or time to convert.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct ToTimestamp {
    signature: Signature,
}

impl ToTimestamp {
    pub(super) fn new() -> ToTimestamp {
        ToTimestamp { signature: Signature::user_defined(Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for ToTimestamp {
    fn name(&self) -> &str {
        "to_timestamp"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, arg_types: &[DataType]) -> Result<Vec<DataType>> {
        let [arg] = arg_types else {
            return plan_err!("to_timestamp takes one argument: seconds since 1970, or a text");
        };
        Ok(vec![match arg {
            arg if arg.is_integer() => DataType::Int64,
            DataType::Null => DataType::Int64,
            arg if arg.is_floating() || arg.is_decimal() => DataType::Float64,
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => DataType::Utf8,
            DataType::Timestamp(_, _) | DataType::Date32 | DataType::Date64 => timestamptz(),
            other => return plan_err!("Cannot coerce {other} to a time in to_timestamp"),
        }])
    }

    fn return_type(&self, _arg_types: &[DataType]) -> Result<DataType> {
        Ok(timestamptz())
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let inputs = arrays(&args.args, args.number_rows)?;
        let Some(input) = inputs.first() else { return internal_err!("to_timestamp without an argument") };
        let overflow = |value: &dyn std::fmt::Display| {
            ArrowError::ArithmeticOverflow(format!("{value} seconds are out of range for a timestamp"))
        };
        let micros: TimestampMicrosecondArray = match input.data_type() {
            DataType::Int64 => input
                .as_primitive::<Int64Type>()
                .try_unary(|seconds| seconds.checked_mul(1_000_000).ok_or_else(|| overflow(&seconds)))?,
            DataType::Float64 => input.as_primitive::<Float64Type>().try_unary(|seconds| {
                let micros = (seconds * 1e6).round();
                // Both bounds are exact powers of two, so the comparison is exact as well.
                match micros >= i64::MIN as f64 && micros < i64::MAX as f64 {
                    true => Ok(micros as i64),
                    false => Err(overflow(&seconds)),
                }
            })?,
            _ => return answer(&args.args, cast(input, &timestamptz())?),
        };
        let array: ArrayRef = Arc::new(micros.with_timezone("UTC"));
        answer(&args.args, array)
    }
}

//! Functions without special wishes: fixed argument types, arrays in, an array out.

use arrow::array::ArrayRef;
use arrow::datatypes::DataType;
use datafusion::common::{Result, plan_err};
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

use super::{answer, arrays};
use crate::types::name_of;

/// What an argument has to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Take {
    Text,
    Int,
    Double,
    /// Microseconds, whatever is given: a time with a zone becomes that of UTC.
    Timestamp,
    TextArray,
    Any,
}

impl Take {
    fn data_type(self, given: &DataType) -> Option<DataType> {
        use arrow::datatypes::{Field, TimeUnit};
        let is_text =
            matches!(given, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View | DataType::Null);
        let is_time = matches!(given, DataType::Timestamp(_, _) | DataType::Date32 | DataType::Date64);
        match self {
            Take::Any => Some(given.clone()),
            Take::Text => is_text.then_some(DataType::Utf8),
            Take::Int => (given.is_integer() || given.is_null()).then_some(DataType::Int64),
            Take::Double => (given.is_numeric() || given.is_null()).then_some(DataType::Float64),
            Take::Timestamp => {
                (is_time || is_text).then_some(DataType::Timestamp(TimeUnit::Microsecond, None))
            }
            Take::TextArray => (is_text || matches!(given, DataType::List(_) | DataType::LargeList(_))).then(
                || match is_text && !given.is_null() {
                    true => DataType::Utf8,
                    false => DataType::List(std::sync::Arc::new(Field::new_list_field(DataType::Utf8, true))),
                },
            ),
        }
    }
}

/// A function by what it takes and how it computes.
#[derive(Debug)]
pub(super) struct Plain {
    pub(super) name: &'static str,
    pub(super) aliases: Vec<String>,
    pub(super) takes: &'static [Take],
    /// How many of the arguments may be left out.
    pub(super) optional: usize,
    /// The last argument may be repeated.
    pub(super) variadic: bool,
    pub(super) returns: fn(&[DataType]) -> DataType,
    /// All arrays have the given length.
    pub(super) compute: fn(&[ArrayRef], usize) -> Result<ArrayRef>,
    pub(super) signature: Signature,
}

impl PartialEq for Plain {
    fn eq(&self, other: &Plain) -> bool {
        self.name == other.name
    }
}

impl Eq for Plain {}

impl std::hash::Hash for Plain {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}

/// A function of arguments that all have to be there.
pub(super) fn plain(
    name: &'static str,
    takes: &'static [Take],
    returns: fn(&[DataType]) -> DataType,
    compute: fn(&[ArrayRef], usize) -> Result<ArrayRef>,
) -> Plain {
    Plain {
        name,
        aliases: vec![],
        takes,
        optional: 0,
        variadic: false,
        returns,
        compute,
        signature: Signature::user_defined(Volatility::Immutable),
    }
}

impl Plain {
    pub(super) fn aliased(mut self, aliases: &[&str]) -> Plain {
        self.aliases = aliases.iter().map(ToString::to_string).collect();
        self
    }

    pub(super) fn optional(mut self, count: usize) -> Plain {
        self.optional = count;
        self
    }

    pub(super) fn variadic(mut self) -> Plain {
        self.variadic = true;
        self
    }

    pub(super) fn udf(self) -> ScalarUDF {
        ScalarUDF::new_from_impl(self)
    }
}

impl ScalarUDFImpl for Plain {
    fn name(&self) -> &str {
        self.name
    }

    fn aliases(&self) -> &[String] {
        &self.aliases
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, given: &[DataType]) -> Result<Vec<DataType>> {
        let fits = given.len() + self.optional >= self.takes.len()
            && (self.variadic || given.len() <= self.takes.len());
        let types = given.iter().enumerate().map(|(number, given)| {
            let take = self.takes.get(number).or(self.takes.last().filter(|_| self.variadic));
            take.and_then(|take| take.data_type(given))
        });
        match types.collect::<Option<Vec<_>>>() {
            Some(types) if fits => Ok(types),
            _ => {
                let given: Vec<String> = given.iter().map(name_of).collect();
                plan_err!(
                    "No function matches the given name and argument types '{}({})'",
                    self.name,
                    given.join(", ")
                )
            }
        }
    }

    fn return_type(&self, arg_types: &[DataType]) -> Result<DataType> {
        Ok((self.returns)(arg_types))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let inputs = arrays(&args.args, args.number_rows)?;
        let rows = if super::all_scalar(&args.args) { 1 } else { args.number_rows };
        let array = (self.compute)(&inputs, rows)?;
        // Without arguments the value is the same for all rows, but an array says so as well.
        if args.args.is_empty() { Ok(ColumnarValue::Array(array)) } else { answer(&args.args, array) }
    }
}

pub(super) fn text(_: &[DataType]) -> DataType {
    DataType::Utf8
}

pub(super) fn boolean(_: &[DataType]) -> DataType {
    DataType::Boolean
}

pub(super) fn bigint(_: &[DataType]) -> DataType {
    DataType::Int64
}

pub(super) fn text_array(_: &[DataType]) -> DataType {
    use arrow::datatypes::Field;
    DataType::List(std::sync::Arc::new(Field::new_list_field(DataType::Utf8, true)))
}

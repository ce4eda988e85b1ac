//! What clients ask to find out whom they talk to: `version()`, `current_database()`, `pg_typeof(x)`.

use arrow::datatypes::DataType;
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility};

use crate::{DEFAULT_DATABASE, DEFAULT_SCHEMA, types};

/// A function without arguments that gives a fixed text.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct SessionText {
    name: &'static str,
    text: String,
    signature: Signature,
}

impl SessionText {
    fn new(name: &'static str, text: impl Into<String>) -> SessionText {
        SessionText { name, text: text.into(), signature: Signature::nullary(Volatility::Immutable) }
    }

    /// PostgreSQL's version comes first, because clients read it to know what they may ask.
    pub(super) fn version() -> SessionText {
        SessionText::new("version", format!("PostgreSQL 16.6 (Shopstream {})", env!("CARGO_PKG_VERSION")))
    }

    pub(super) fn current_database() -> SessionText {
        SessionText::new("current_database", DEFAULT_DATABASE)
    }

    pub(super) fn current_schema() -> SessionText {
        SessionText::new("current_schema", DEFAULT_SCHEMA)
    }
}

impl ScalarUDFImpl for SessionText {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arg_types: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8)
    }

    fn invoke_with_args(&self, _args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        Ok(ColumnarValue::Scalar(ScalarValue::Utf8(Some(self.text.clone()))))
    }
}

/// `pg_typeof(x)`: the name of a value's type.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct PgTypeof {
    signature: Signature,
}

impl PgTypeof {
    pub(super) fn new() -> PgTypeof {
        PgTypeof { signature: Signature::any(1, Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for PgTypeof {
    fn name(&self) -> &str {
        "pg_typeof"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arg_types: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let name = args.arg_fields.first().map(|field| types::field_type_name(field));
        Ok(ColumnarValue::Scalar(ScalarValue::Utf8(name)))
    }
}

//! SQL types: what users write, what PostgreSQL calls it, and the Arrow type that holds it.
//!
//! | written | PostgreSQL's name | Arrow |
//! | --- | --- | --- |
//! | BOOLEAN, BOOL | boolean | Boolean |
//! | SMALLINT, INT2, TINYINT | smallint | Int16 |
//! | INT, INTEGER, INT4 | integer | Int32 |
//! | BIGINT, INT8 | bigint | Int64 |
//! | REAL, FLOAT4, FLOAT(1..24) | real | Float32 |
//! | DOUBLE PRECISION, DOUBLE, FLOAT, FLOAT8, FLOAT(25..53) | double precision | Float64 |
//! | DECIMAL(p,s), NUMERIC(p,s), DEC(p,s) | numeric(p,s) | Decimal128(p,s), p at most 38 |
//! | DECIMAL, NUMERIC | numeric(38,10) | Decimal128(38,10): Arrow decimals have a fixed scale |
//! | TEXT, STRING, CLOB | text | Utf8 |
//! | VARCHAR, CHARACTER VARYING, CHAR, with or without (n) | character varying, character | Utf8; n is kept in the name |
//! | BYTEA, BYTES | bytea | Binary |
//! | DATE | date | Date32 |
//! | TIME | time without time zone | Time64(us) |
//! | TIMESTAMP, DATETIME | timestamp without time zone | Timestamp(us) |
//! | TIMESTAMPTZ, TIMESTAMP WITH TIME ZONE, TIMESTAMP_LTZ | timestamp with time zone | Timestamp(us, UTC) |
//! | INTERVAL | interval | Interval(MonthDayNano) |
//! | JSON, JSONB | jsonb | Utf8 |
//! | UUID | uuid | Utf8 |
//! | T\[\], ARRAY\<T\> | T\[\] | List(T) |

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, IntervalUnit, TimeUnit};
use datafusion::common::DataFusionError;
use datafusion::logical_expr::planner::TypePlanner;
use datafusion::sql::sqlparser::ast;
use datafusion::sql::sqlparser::ast::{ArrayElemTypeDef, CharacterLength, ExactNumberInfo, TimezoneInfo};

use crate::catalog::timestamptz;
use crate::{Result, SqlError, SqlState};

/// A type of the dialect.
#[derive(Clone, Debug, PartialEq)]
pub struct SqlType {
    pub data_type: DataType,
    /// As PostgreSQL prints it.
    pub name: String,
}

impl SqlType {
    fn new(data_type: DataType, name: impl Into<String>) -> SqlType {
        SqlType { data_type, name: name.into() }
    }
}

/// The largest number of digits a NUMERIC can have, and what NUMERIC without digits means.
pub const NUMERIC_PRECISION_MAX: u8 = 38;
pub const NUMERIC_SCALE_DEFAULT: i8 = 10;

/// The type that a type name of the parser means.
///
/// # Errors
///
/// Types we do not have, and numerics with more than 38 digits.
pub fn from_ast(sql_type: &ast::DataType) -> Result<SqlType> {
    use ast::DataType as T;
    Ok(match sql_type {
        T::Boolean | T::Bool => SqlType::new(DataType::Boolean, "boolean"),
        T::SmallInt(_) | T::Int2(_) | T::TinyInt(_) => SqlType::new(DataType::Int16, "smallint"),
        T::Int(_) | T::Integer(_) | T::Int4(_) => SqlType::new(DataType::Int32, "integer"),
        T::BigInt(_) | T::Int8(_) => SqlType::new(DataType::Int64, "bigint"),
        T::Real | T::Float4 => SqlType::new(DataType::Float32, "real"),
        T::Float(ExactNumberInfo::Precision(1..=24)) => SqlType::new(DataType::Float32, "real"),
        T::Float(_) | T::Float8 | T::Double(_) | T::DoublePrecision => {
            SqlType::new(DataType::Float64, "double precision")
        }
        T::Numeric(digits) | T::Decimal(digits) | T::Dec(digits) => numeric(*digits)?,
        T::Text | T::String(_) | T::Clob(_) => SqlType::new(DataType::Utf8, "text"),
        T::Varchar(length) | T::CharacterVarying(length) | T::CharVarying(length) | T::Nvarchar(length) => {
            SqlType::new(DataType::Utf8, with_length("character varying", length))
        }
        T::Char(length) | T::Character(length) => {
            SqlType::new(DataType::Utf8, with_length("character", length))
        }
        T::Bytea | T::Bytes(_) => SqlType::new(DataType::Binary, "bytea"),
        T::Date => SqlType::new(DataType::Date32, "date"),
        T::Time(_, TimezoneInfo::None | TimezoneInfo::WithoutTimeZone) => {
            SqlType::new(DataType::Time64(TimeUnit::Microsecond), "time without time zone")
        }
        T::Timestamp(_, TimezoneInfo::None | TimezoneInfo::WithoutTimeZone) | T::Datetime(_) => {
            SqlType::new(DataType::Timestamp(TimeUnit::Microsecond, None), "timestamp without time zone")
        }
        T::Timestamp(_, TimezoneInfo::WithTimeZone | TimezoneInfo::Tz) => {
            SqlType::new(timestamptz(), "timestamp with time zone")
        }
        T::Interval { .. } => SqlType::new(DataType::Interval(IntervalUnit::MonthDayNano), "interval"),
        T::JSON | T::JSONB => SqlType::new(DataType::Utf8, "jsonb"),
        T::Uuid => SqlType::new(DataType::Utf8, "uuid"),
        T::Array(
            ArrayElemTypeDef::SquareBracket(element, _)
            | ArrayElemTypeDef::AngleBracket(element)
            | ArrayElemTypeDef::Parenthesis(element),
        ) => {
            let element = from_ast(element)?;
            SqlType::new(
                DataType::List(Arc::new(Field::new_list_field(element.data_type, true))),
                format!("{}[]", element.name),
            )
        }
        T::Custom(name, _) if name.to_string().eq_ignore_ascii_case("timestamp_ltz") => {
            SqlType::new(timestamptz(), "timestamp with time zone")
        }
        other => return Err(unknown_type(&other.to_string())),
    })
}

fn numeric(digits: ExactNumberInfo) -> Result<SqlType> {
    let (precision, scale) = match digits {
        ExactNumberInfo::None => (u64::from(NUMERIC_PRECISION_MAX), i64::from(NUMERIC_SCALE_DEFAULT)),
        ExactNumberInfo::Precision(precision) => (precision, 0),
        ExactNumberInfo::PrecisionAndScale(precision, scale) => (precision, scale),
    };
    let out_of_range = |message: String| SqlError::new(SqlState::InvalidParameterValue, message);
    let p = u8::try_from(precision).ok().filter(|p| (1..=NUMERIC_PRECISION_MAX).contains(p)).ok_or_else(
        || {
            out_of_range(format!(
                "numeric precision {precision} must be between 1 and {NUMERIC_PRECISION_MAX}"
            ))
        },
    )?;
    let s =
        i8::try_from(scale).ok().filter(|s| *s >= 0 && i16::from(*s) <= i16::from(p)).ok_or_else(|| {
            out_of_range(format!("numeric scale {scale} must be between 0 and precision {precision}"))
        })?;
    Ok(SqlType::new(DataType::Decimal128(p, s), format!("numeric({p},{s})")))
}

fn with_length(name: &str, length: &Option<CharacterLength>) -> String {
    match length {
        Some(CharacterLength::IntegerLength { length, .. }) => format!("{name}({length})"),
        _ => name.to_string(),
    }
}

fn unknown_type(written: &str) -> SqlError {
    const KNOWN: [&str; 22] = [
        "boolean",
        "smallint",
        "int",
        "integer",
        "bigint",
        "real",
        "double precision",
        "float",
        "decimal",
        "numeric",
        "text",
        "varchar",
        "char",
        "bytea",
        "date",
        "time",
        "timestamp",
        "timestamptz",
        "interval",
        "jsonb",
        "uuid",
        "string",
    ];
    let name = written.to_lowercase();
    let error = SqlError::new(SqlState::UndefinedObject, format!("type \"{name}\" does not exist"));
    match crate::suggest::closest(&name, KNOWN) {
        Some(known) => error.with_hint(crate::suggest::did_you_mean(known)),
        None if name.contains("serial") => {
            error.with_hint("use bigint; keys come with the rows, there are no sequences")
        }
        None if name.contains("unsigned") => {
            error.with_hint("there are no unsigned types; use a wider signed one")
        }
        None => error,
    }
}

/// The type's name as PostgreSQL prints it, for a column whose declared type is not known.
pub fn name_of(data_type: &DataType) -> String {
    match data_type {
        DataType::Null => "unknown".into(),
        DataType::Boolean => "boolean".into(),
        DataType::Int8 | DataType::Int16 | DataType::UInt8 => "smallint".into(),
        DataType::Int32 | DataType::UInt16 => "integer".into(),
        DataType::Int64 | DataType::UInt32 => "bigint".into(),
        DataType::UInt64 => "numeric(20,0)".into(),
        DataType::Float16 | DataType::Float32 => "real".into(),
        DataType::Float64 => "double precision".into(),
        DataType::Decimal32(p, s)
        | DataType::Decimal64(p, s)
        | DataType::Decimal128(p, s)
        | DataType::Decimal256(p, s) => format!("numeric({p},{s})"),
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => "text".into(),
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => {
            "bytea".into()
        }
        DataType::Date32 | DataType::Date64 => "date".into(),
        DataType::Time32(_) | DataType::Time64(_) => "time without time zone".into(),
        DataType::Timestamp(_, None) => "timestamp without time zone".into(),
        DataType::Timestamp(_, Some(_)) => "timestamp with time zone".into(),
        DataType::Interval(_) | DataType::Duration(_) => "interval".into(),
        DataType::List(field)
        | DataType::LargeList(field)
        | DataType::FixedSizeList(field, _)
        | DataType::ListView(field)
        | DataType::LargeListView(field) => format!("{}[]", name_of(field.data_type())),
        DataType::Dictionary(_, value) => name_of(value),
        DataType::RunEndEncoded(_, value) => name_of(value.data_type()),
        DataType::Struct(_) | DataType::Union(_, _) => "record".into(),
        DataType::Map(_, _) => "jsonb".into(),
    }
}

/// Where a field's metadata keeps the name of its SQL type, when several types share one Arrow type: a jsonb, a uuid
/// and a varchar(10) are text to Arrow.
pub const SQL_TYPE_KEY: &str = "sql_type";

/// The field as one of this SQL type.
pub fn with_sql_type(field: Field, name: &str) -> Field {
    let mut metadata = field.metadata().clone();
    metadata.insert(SQL_TYPE_KEY.to_string(), name.to_string());
    field.with_metadata(metadata)
}

/// The name of the field's SQL type, if its Arrow type does not say it all.
pub fn sql_type_of(field: &Field) -> Option<&str> {
    let name = field.metadata().get(SQL_TYPE_KEY)?;
    holds_text(field.data_type()).then_some(name)
}

/// The name of the field's SQL type as PostgreSQL prints it.
pub fn field_type_name(field: &Field) -> String {
    sql_type_of(field).map_or_else(|| name_of(field.data_type()), str::to_string)
}

/// Text, or lists of it: the types that Arrow does not tell apart.
fn holds_text(data_type: &DataType) -> bool {
    match data_type {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => true,
        DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) => {
            holds_text(item.data_type())
        }
        _ => false,
    }
}

/// `2021-01-01 10:00`, also with a zone, as `2021-01-01 10:00:00`: Arrow wants the seconds. `None` for other texts.
pub fn with_seconds(text: &str) -> Option<String> {
    let clock = text.as_bytes().get(10..16)?;
    let is_time = matches!(clock, [b' ' | b'T' | b't', h1, h2, b':', m1, m2] if [h1, h2, m1, m2].iter().all(|d| d.is_ascii_digit()));
    let (time, zone) = text.split_at_checked(16)?;
    let is_whole = !zone.starts_with([':', '.']) && !zone.starts_with(|c: char| c.is_ascii_digit());
    (is_time && is_whole && time.as_bytes()[4] == b'-').then(|| format!("{time}:00{zone}"))
}

/// Gives casts inside queries the same types as column definitions.
#[derive(Debug)]
pub(crate) struct DialectTypes;

impl TypePlanner for DialectTypes {
    fn plan_type_field(&self, sql_type: &ast::DataType) -> datafusion::common::Result<Option<FieldRef>> {
        let found = from_ast(sql_type).map_err(|error| DataFusionError::External(Box::new(error)))?;
        let field = Field::new("", found.data_type, true);
        // Also for plain text: a cast without a name would keep the name of what is cast.
        Ok(Some(Arc::new(if holds_text(field.data_type()) {
            with_sql_type(field, &found.name)
        } else {
            field
        })))
    }
}

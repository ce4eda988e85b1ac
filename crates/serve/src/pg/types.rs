//! Arrow types as PostgreSQL types and back.
//!
//! ```text
//! Arrow type of a column --[`PgType::of_field`]--> OID + modifier   (what the client is told)
//!        \--[`canonical`]--> the one Arrow type per OID that `encode` writes
//! OID of a parameter --[`arrow_of`]--> Arrow type the value is read into
//! ```

use arrow::datatypes::{DataType, Field, IntervalUnit, TimeUnit};
use pgwire::api::Type;

/// What a client is told about a column.
#[derive(Clone, Debug, PartialEq)]
pub struct PgType {
    pub oid_type: Type,
    /// Precision and scale of numeric, length of varchar; -1 without.
    pub modifier: i32,
}

impl PgType {
    /// The type of a column: by its Arrow type and, where several PostgreSQL types share one Arrow
    /// type (text, jsonb, uuid, varchar), by `sql_type` in its metadata.
    pub fn of_field(field: &Field) -> PgType {
        PgType::of(field.data_type(), field.metadata().get("sql_type").map(String::as_str))
    }

    pub fn of(data_type: &DataType, sql_type: Option<&str>) -> PgType {
        let plain = |oid_type| PgType { oid_type, modifier: -1 };
        match data_type {
            DataType::Boolean => plain(Type::BOOL),
            DataType::Int8 | DataType::Int16 | DataType::UInt8 => plain(Type::INT2),
            DataType::Int32 | DataType::UInt16 => plain(Type::INT4),
            DataType::Int64 | DataType::UInt32 | DataType::UInt64 => plain(Type::INT8),
            DataType::Float16 | DataType::Float32 => plain(Type::FLOAT4),
            DataType::Float64 => plain(Type::FLOAT8),
            DataType::Decimal32(precision, scale)
            | DataType::Decimal64(precision, scale)
            | DataType::Decimal128(precision, scale)
            | DataType::Decimal256(precision, scale) => {
                // A negative scale has no modifier in PostgreSQL before 15, and no client needs it.
                let modifier =
                    if *scale >= 0 { ((i32::from(*precision) << 16) | i32::from(*scale)) + 4 } else { -1 };
                PgType { oid_type: Type::NUMERIC, modifier }
            }
            DataType::Binary | DataType::LargeBinary | DataType::BinaryView => plain(Type::BYTEA),
            DataType::FixedSizeBinary(16) if sql_type == Some("uuid") => plain(Type::UUID),
            DataType::FixedSizeBinary(_) => plain(Type::BYTEA),
            DataType::Date32 | DataType::Date64 => plain(Type::DATE),
            DataType::Time32(_) | DataType::Time64(_) => plain(Type::TIME),
            DataType::Timestamp(_, None) => plain(Type::TIMESTAMP),
            DataType::Timestamp(_, Some(_)) => plain(Type::TIMESTAMPTZ),
            DataType::Interval(_) | DataType::Duration(_) => plain(Type::INTERVAL),
            DataType::Dictionary(_, values) => PgType::of(values, sql_type),
            DataType::RunEndEncoded(_, values) => PgType::of(values.data_type(), sql_type),
            DataType::List(_) if sql_type == Some("int2vector") => plain(Type::INT2_VECTOR),
            DataType::List(item)
            | DataType::LargeList(item)
            | DataType::FixedSizeList(item, _)
            | DataType::ListView(item)
            | DataType::LargeListView(item) => {
                let sql_type = sql_type.map(|s| s.trim_end_matches("[]"));
                let item_type = PgType::of(item.data_type(), sql_type).oid_type;
                // An array of arrays has the same type as an array: dimensions are part of the value.
                plain(if is_array(&item_type) { item_type } else { array_of(&item_type) })
            }
            _ => of_text(sql_type),
        }
    }

    /// Bytes of a value in binary, -1 when they vary.
    pub fn size(&self) -> i16 {
        match self.oid_type {
            Type::BOOL => 1,
            Type::INT2 => 2,
            Type::INT4 | Type::FLOAT4 | Type::DATE => 4,
            Type::INT8 | Type::FLOAT8 | Type::TIME | Type::TIMESTAMP | Type::TIMESTAMPTZ => 8,
            Type::INTERVAL | Type::UUID => 16,
            _ => -1,
        }
    }
}

/// What text stands for, by the name of the SQL type: `jsonb`, `character varying(10)`.
fn of_text(sql_type: Option<&str>) -> PgType {
    let sql_type = sql_type.unwrap_or("text");
    let (name, length) = match sql_type.split_once('(') {
        Some((name, rest)) => (name, rest.trim_end_matches(')').parse::<i32>().ok()),
        None => (sql_type, None),
    };
    let modifier = length.map_or(-1, |length| length.saturating_add(4));
    match name.trim() {
        "jsonb" => PgType { oid_type: Type::JSONB, modifier: -1 },
        "json" => PgType { oid_type: Type::JSON, modifier: -1 },
        "uuid" => PgType { oid_type: Type::UUID, modifier: -1 },
        "character varying" | "varchar" => PgType { oid_type: Type::VARCHAR, modifier },
        "character" | "char" | "bpchar" => PgType { oid_type: Type::BPCHAR, modifier },
        _ => PgType { oid_type: Type::TEXT, modifier: -1 },
    }
}

/// Element types with their array types; the list of everything that is sent.
static ARRAYS: [(Type, Type); 19] = [
    (Type::BOOL, Type::BOOL_ARRAY),
    (Type::INT2, Type::INT2_ARRAY),
    (Type::INT4, Type::INT4_ARRAY),
    (Type::INT8, Type::INT8_ARRAY),
    (Type::FLOAT4, Type::FLOAT4_ARRAY),
    (Type::FLOAT8, Type::FLOAT8_ARRAY),
    (Type::NUMERIC, Type::NUMERIC_ARRAY),
    (Type::TEXT, Type::TEXT_ARRAY),
    (Type::VARCHAR, Type::VARCHAR_ARRAY),
    (Type::BPCHAR, Type::BPCHAR_ARRAY),
    (Type::BYTEA, Type::BYTEA_ARRAY),
    (Type::DATE, Type::DATE_ARRAY),
    (Type::TIME, Type::TIME_ARRAY),
    (Type::TIMESTAMP, Type::TIMESTAMP_ARRAY),
    (Type::TIMESTAMPTZ, Type::TIMESTAMPTZ_ARRAY),
    (Type::INTERVAL, Type::INTERVAL_ARRAY),
    (Type::UUID, Type::UUID_ARRAY),
    (Type::JSON, Type::JSON_ARRAY),
    (Type::JSONB, Type::JSONB_ARRAY),
];

fn array_of(element: &Type) -> Type {
    ARRAYS
        .iter()
        .find(|(candidate, _)| candidate == element)
        .map_or(Type::TEXT_ARRAY, |(_, array)| array.clone())
}

fn is_array(oid_type: &Type) -> bool {
    element_of(oid_type).is_some()
}

/// The element type of an array type.
pub fn element_of(oid_type: &Type) -> Option<Type> {
    ARRAYS.iter().find(|(_, array)| array == oid_type).map(|(element, _)| element.clone())
}

/// The one Arrow type whose values `encode` writes for columns of this Arrow type; batches are
/// cast to it column by column. `None`: no cast leads to text, the values are displayed.
pub fn canonical(data_type: &DataType) -> Option<DataType> {
    Some(match data_type {
        DataType::Int8 | DataType::UInt8 => DataType::Int16,
        DataType::UInt16 => DataType::Int32,
        DataType::UInt32 | DataType::UInt64 => DataType::Int64,
        DataType::Float16 => DataType::Float32,
        DataType::Decimal32(precision, scale) | DataType::Decimal64(precision, scale) => {
            DataType::Decimal128(*precision, *scale)
        }
        DataType::Date64 => DataType::Date32,
        DataType::Time32(_) | DataType::Time64(_) => DataType::Time64(TimeUnit::Microsecond),
        DataType::Timestamp(_, zone) => DataType::Timestamp(TimeUnit::Microsecond, zone.clone()),
        DataType::Interval(_) => DataType::Interval(IntervalUnit::MonthDayNano),
        DataType::Duration(_) => DataType::Duration(TimeUnit::Microsecond),
        DataType::Dictionary(_, values) => canonical(values)?,
        DataType::RunEndEncoded(_, values) => canonical(values.data_type())?,
        DataType::List(item)
        | DataType::LargeList(item)
        | DataType::FixedSizeList(item, _)
        | DataType::ListView(item)
        | DataType::LargeListView(item) => {
            let item = item.as_ref().clone().with_data_type(canonical(item.data_type())?);
            DataType::List(item.into())
        }
        DataType::Struct(_) | DataType::Map(_, _) | DataType::Union(_, _) => return None,
        other => other.clone(),
    })
}

/// The Arrow type that a parameter of this PostgreSQL type is read into; `None` for types
/// that no statement of ours can take.
pub fn arrow_of(oid_type: &Type) -> Option<DataType> {
    Some(match *oid_type {
        Type::BOOL => DataType::Boolean,
        Type::INT2 => DataType::Int16,
        Type::INT4 => DataType::Int32,
        Type::INT8 | Type::OID => DataType::Int64,
        Type::FLOAT4 => DataType::Float32,
        Type::FLOAT8 => DataType::Float64,
        // The scale is that of the value; see `decode`.
        Type::NUMERIC => DataType::Decimal128(38, 10),
        Type::TEXT
        | Type::VARCHAR
        | Type::BPCHAR
        | Type::NAME
        | Type::CHAR
        | Type::UNKNOWN
        | Type::JSON
        | Type::JSONB
        | Type::UUID => DataType::Utf8,
        Type::BYTEA => DataType::Binary,
        Type::DATE => DataType::Date32,
        Type::TIME => DataType::Time64(TimeUnit::Microsecond),
        Type::TIMESTAMP => DataType::Timestamp(TimeUnit::Microsecond, None),
        Type::TIMESTAMPTZ => sql::catalog::timestamptz(),
        Type::INTERVAL => DataType::Interval(IntervalUnit::MonthDayNano),
        _ => {
            let item = arrow_of(&element_of(oid_type)?)?;
            DataType::List(Field::new_list_field(item, true).into())
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(data_type: DataType, sql_type: Option<&str>) -> (u32, i32) {
        let pg_type = PgType::of(&data_type, sql_type);
        (pg_type.oid_type.oid(), pg_type.modifier)
    }

    #[test]
    fn columns_have_the_oids_and_modifiers_of_postgresql() {
        assert_eq!(of(DataType::Decimal128(18, 2), None), (1700, 1_179_654));
        assert_eq!(of(DataType::Utf8, Some("character varying(10)")), (1043, 14));
        assert_eq!(of(DataType::Utf8View, Some("jsonb")), (3802, -1));
        assert_eq!(of(DataType::Utf8, Some("uuid")), (2950, -1));
        assert_eq!(of(DataType::UInt64, None), (20, -1));
        assert_eq!(of(sql::catalog::timestamptz(), None), (1184, -1));
        let texts = DataType::List(Field::new_list_field(DataType::Utf8, true).into());
        assert_eq!(of(texts.clone(), None), (1009, -1));
        assert_eq!(of(texts.clone(), Some("jsonb[]")), (3807, -1));
        assert_eq!(of(DataType::List(Field::new_list_field(texts, true).into()), None), (1009, -1));
        assert_eq!(of(DataType::Dictionary(DataType::Int32.into(), DataType::Utf8.into()), None), (25, -1));
    }
}

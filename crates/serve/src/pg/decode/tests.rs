use arrow::util::display::array_value_to_string;

use super::*;

fn text(oid_type: Type, value: &str, needed: DataType) -> Result<ScalarValue, PgError> {
    decode_parameter(1, &oid_type, Format::Text, Some(value.as_bytes()), &needed)
}

fn binary(oid_type: Type, hex: &str, needed: DataType) -> Result<ScalarValue, PgError> {
    let bytes: Vec<u8> =
        (0..hex.len() / 2).map(|i| u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).unwrap()).collect();
    decode_parameter(1, &oid_type, Format::Binary, Some(&bytes), &needed)
}

fn decimal(precision: u8, scale: i8) -> DataType {
    DataType::Decimal128(precision, scale)
}

fn needs(data_type: DataType) -> Field {
    Field::new("", data_type, true)
}

#[test]
fn the_client_decides_the_type_and_the_statement_where_it_does_not() {
    assert_eq!(parameter_type(0, &needs(DataType::Int32)).unwrap(), Type::INT4);
    assert_eq!(parameter_type(705, &needs(DataType::Null)).unwrap(), Type::TEXT);
    assert_eq!(parameter_type(20, &needs(DataType::Int32)).unwrap(), Type::INT8);
    assert_eq!(parameter_type(600, &needs(DataType::Utf8)).unwrap_err().code, code::FEATURE_NOT_SUPPORTED);
    assert_eq!(
        parameter_type(4_000_000, &needs(DataType::Utf8)).unwrap_err().code,
        code::FEATURE_NOT_SUPPORTED
    );
}

#[test]
fn numbers_in_both_formats_become_what_the_statement_needs() {
    assert_eq!(text(Type::INT4, " 42 ", DataType::Int64).unwrap(), ScalarValue::Int64(Some(42)));
    assert_eq!(binary(Type::INT2, "fff9", DataType::Int64).unwrap(), ScalarValue::Int64(Some(-7)));
    assert_eq!(binary(Type::INT8, "0000000000000005", DataType::Int32).unwrap(), ScalarValue::Int32(Some(5)));
    assert_eq!(
        binary(Type::FLOAT8, "3ff8000000000000", DataType::Float64).unwrap(),
        ScalarValue::Float64(Some(1.5))
    );
    assert_eq!(
        text(Type::FLOAT8, "Infinity", DataType::Float64).unwrap(),
        ScalarValue::Float64(Some(f64::INFINITY))
    );
    assert_eq!(
        text(Type::NUMERIC, "1.005", decimal(18, 2)).unwrap(),
        ScalarValue::Decimal128(Some(101), 18, 2)
    );
    assert_eq!(
        binary(Type::NUMERIC, "000600040000000204d2162e23340d801ed204b0", decimal(38, 2)).unwrap(),
        ScalarValue::Decimal128(Some(1_234_567_890_123_456_789_012), 38, 2)
    );
    assert_eq!(text(Type::NUMERIC, "2.50", DataType::Float64).unwrap(), ScalarValue::Float64(Some(2.5)));
    assert_eq!(
        text(Type::NUMERIC, "2.50", DataType::Null).unwrap(),
        ScalarValue::Decimal128(Some(250), 38, 2)
    );
    assert_eq!(text(Type::BOOL, "on", DataType::Boolean).unwrap(), ScalarValue::Boolean(Some(true)));
}

#[test]
fn moments_in_both_formats() {
    let needed = sql::catalog::timestamptz();
    let utc = |micros| ScalarValue::TimestampMicrosecond(Some(micros), Some("UTC".into()));
    assert_eq!(
        text(Type::TIMESTAMPTZ, "2021-01-01 08:00:00+08", needed.clone()).unwrap(),
        utc(1_609_459_200_000_000)
    );
    assert_eq!(binary(Type::TIMESTAMPTZ, "fffca2fec4bac000", needed.clone()).unwrap(), utc(-876_544));
    // psycopg sends datetimes without zone as timestamp.
    assert_eq!(
        binary(Type::TIMESTAMP, "00025aca30ada000", needed.clone()).unwrap(),
        utc(1_609_459_200_000_000)
    );
    assert_eq!(
        binary(Type::DATE, "fff4dbf8", DataType::Date32).unwrap(),
        ScalarValue::Date32(Some(-719_163))
    );
    assert_eq!(
        binary(Type::TIME, "0000000a7a395290", arrow_of(&Type::TIME).unwrap()).unwrap(),
        ScalarValue::Time64Microsecond(Some(45_000_250_000))
    );
    let interval =
        ScalarValue::IntervalMonthDayNano(Some(IntervalMonthDayNano::new(14, 3, 14_706_789_000_000)));
    assert_eq!(
        binary(Type::INTERVAL, "000000036c97ca88000000030000000e", interval.data_type()).unwrap(),
        interval
    );
    assert_eq!(
        text(Type::INTERVAL, "1 year 2 mons 3 days 04:05:06.789", interval.data_type()).unwrap(),
        interval
    );
    for extreme in ["7fffffffffffffff", "8000000000000000"] {
        let error = binary(Type::TIMESTAMPTZ, extreme, needed.clone()).unwrap_err();
        assert_eq!(error.code, code::DATETIME_OUT_OF_RANGE);
    }
}

#[test]
fn bytes_json_and_uuid() {
    let bytes = |b: &[u8]| ScalarValue::Binary(Some(b.to_vec()));
    assert_eq!(text(Type::BYTEA, "\\xDEad00", DataType::Binary).unwrap(), bytes(b"\xde\xad\0"));
    assert_eq!(text(Type::BYTEA, "a\\\\b\\336", DataType::Binary).unwrap(), bytes(b"a\\b\xde"));
    assert_eq!(text(Type::BYTEA, "\\xabc", DataType::Binary).unwrap_err().code, code::INVALID_TEXT);
    let string = |s: &str| ScalarValue::Utf8(Some(s.to_string()));
    assert_eq!(binary(Type::JSONB, "017b7d", DataType::Utf8).unwrap(), string("{}"));
    assert_eq!(binary(Type::JSONB, "027b7d", DataType::Utf8).unwrap_err().code, code::INVALID_BINARY);
    let uuid = "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11";
    assert_eq!(binary(Type::UUID, "a0eebc999c0b4ef8bb6d6bb9bd380a11", DataType::Utf8).unwrap(), string(uuid));
    assert_eq!(text(Type::UUID, "{A0EEBC999C0B4EF8BB6D6BB9BD380A11}", DataType::Utf8).unwrap(), string(uuid));
}

fn shown(value: ScalarValue) -> String {
    let ScalarValue::List(list) = &value else { panic!("{value:?} is no list") };
    let items = list.value(0);
    let items: Vec<String> = (0..items.len())
        .map(
            |i| if items.is_null(i) { "NULL".to_string() } else { array_value_to_string(&items, i).unwrap() },
        )
        .collect();
    items.join("|")
}

#[test]
fn arrays_of_integers_texts_and_numbers() {
    let list = |item| DataType::List(Arc::new(Field::new_list_field(item, true)));
    let needed = list(DataType::Int64);
    let value = text(Type::INT4_ARRAY, "{1, NULL,-3}", needed.clone()).unwrap();
    assert_eq!(value.data_type(), needed);
    assert_eq!(shown(value), "1|NULL|-3");
    let hex = "00000001000000010000001700000003000000010000000400000001ffffffff00000004fffffffd";
    assert_eq!(shown(binary(Type::INT4_ARRAY, hex, needed.clone()).unwrap()), "1|NULL|-3");
    assert_eq!(shown(binary(Type::INT4_ARRAY, "000000000000000000000017", needed.clone()).unwrap()), "");

    let value = text(Type::TEXT_ARRAY, r#"{a,"b \"c\\",NULL,"NULL", x y ,""}"#, DataType::Null).unwrap();
    assert_eq!(shown(value), r#"a|b "c\|NULL|NULL|x y|"#);
    let value = text(Type::NUMERIC_ARRAY, "{1.5,2.25,3}", DataType::Null).unwrap();
    assert_eq!(shown(value), "1.50|2.25|3.00");

    for broken in ["", "{", "{1,}", "{1", "{{1},{2}}", "{1}x", "{\"a}", "{1,2}}"] {
        assert_eq!(
            text(Type::INT4_ARRAY, broken, needed.clone()).unwrap_err().code,
            code::INVALID_TEXT,
            "{broken}"
        );
    }
    // Cut at every place, a message must be refused and never read beyond its end.
    for length in 0..hex.len() / 2 {
        let error = binary(Type::INT4_ARRAY, &hex[..2 * length], needed.clone()).unwrap_err();
        assert_eq!(error.code, code::INVALID_BINARY, "{length}");
    }
    let million = "0000000100000000000000170fffffff00000001";
    assert_eq!(binary(Type::INT4_ARRAY, million, needed).unwrap_err().code, code::INVALID_BINARY);
}

#[test]
fn null_has_the_type_that_is_needed() {
    let null = |oid_type, needed| decode_parameter(1, &oid_type, Format::Binary, None, &needed).unwrap();
    assert_eq!(null(Type::INT4, DataType::Int64), ScalarValue::Int64(None));
    assert_eq!(null(Type::TEXT, DataType::Null), ScalarValue::Utf8(None));
    assert_eq!(null(Type::NUMERIC, decimal(18, 2)), ScalarValue::Decimal128(None, 18, 2));
}

#[test]
fn errors_name_the_parameter_the_type_and_the_value() {
    let error = text(Type::INT4, "abc", DataType::Int32).unwrap_err();
    assert_eq!(
        (error.code, error.message.as_str()),
        (code::INVALID_TEXT, "parameter $1: invalid input syntax for type int4: \"abc\"")
    );
    assert_eq!(text(Type::INT2, "70000", DataType::Int16).unwrap_err().code, code::NUMERIC_OUT_OF_RANGE);
    assert_eq!(text(Type::INT8, "3000000000", DataType::Int32).unwrap_err().code, code::INVALID_TEXT);
    assert_eq!(text(Type::NUMERIC, "123456", decimal(4, 2)).unwrap_err().code, code::NUMERIC_OUT_OF_RANGE);
    assert_eq!(text(Type::NUMERIC, "NaN", decimal(4, 2)).unwrap_err().code, code::NUMERIC_OUT_OF_RANGE);
    assert_eq!(
        text(Type::TIMESTAMPTZ, "yesterday", sql::catalog::timestamptz()).unwrap_err().code,
        code::INVALID_DATETIME
    );
    assert_eq!(binary(Type::INT4, "0001", DataType::Int32).unwrap_err().code, code::INVALID_BINARY);
    assert_eq!(binary(Type::TEXT, "ff", DataType::Utf8).unwrap_err().code, code::INVALID_ENCODING);
    assert_eq!(text(Type::TEXT, "a\0b", DataType::Utf8).unwrap_err().code, code::INVALID_ENCODING);
}

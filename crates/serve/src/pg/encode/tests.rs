use std::sync::Arc;

use arrow::array::{
    DictionaryArray, IntervalYearMonthArray, LargeListArray, ListArray, StructArray,
    TimestampNanosecondArray, TimestampSecondArray, UInt32Array, UInt64Array,
};
use arrow::datatypes::{Field, Int32Type, IntervalMonthDayNano, Schema};

use super::*;

/// Values of one column as a client gets them: the text, and the binary form in hex.
fn sent(array: ArrayRef, sql_type: Option<&str>) -> Vec<(String, String)> {
    let mut field = Field::new("c", array.data_type().clone(), true);
    if let Some(sql_type) = sql_type {
        field = field.with_metadata([("sql_type".to_string(), sql_type.to_string())].into());
    }
    let schema: SchemaRef = Arc::new(Schema::new(vec![field]));
    let batch = RecordBatch::try_new(Arc::clone(&schema), vec![array]).unwrap();
    let rows = |format| {
        let columns = result_columns(&schema, &[format]).unwrap();
        let encoder = RowEncoder::new(&batch, &columns).unwrap();
        (0..encoder.rows()).map(move |row| {
            let mut out = BytesMut::new();
            encoder.write_row(row, &mut out).unwrap();
            assert_eq!(u32::from_be_bytes(out[1..5].try_into().unwrap()) as usize + 1, out.len());
            assert_eq!(&out[5..7], &[0, 1]);
            let length = i32::from_be_bytes(out[7..11].try_into().unwrap());
            if length < 0 {
                assert_eq!(out.len(), 11);
                return b"<null>".to_vec();
            }
            assert_eq!(length as usize, out.len() - 11);
            out[11..].to_vec()
        })
    };
    let texts = rows(Format::Text).map(|value| String::from_utf8(value).unwrap());
    let binaries = rows(Format::Binary).map(|value| value.iter().map(|b| format!("{b:02x}")).collect());
    texts.zip(binaries).collect()
}

/// Compares with what PostgreSQL 15 printed for the same values (text, then `*_send` in hex).
fn check(array: ArrayRef, sql_type: Option<&str>, postgres: &[(&str, &str)]) {
    let sent = sent(array, sql_type);
    let sent: Vec<(&str, &str)> =
        sent.iter().map(|(text, binary)| (text.as_str(), binary.as_str())).collect();
    assert_eq!(sent, postgres);
}

fn texts(array: ArrayRef) -> Vec<String> {
    sent(array, None).into_iter().map(|(text, _)| text).collect()
}

#[test]
fn floats_have_the_shortest_digits_and_postgresqls_layout() {
    let values = [
        0.0,
        -0.0,
        1.5,
        1e14,
        123456789012345.0,
        1e15,
        1.2345678901234567e19,
        0.0001,
        0.00001,
        1e-7,
        f64::MAX,
        5e-324,
        f64::NAN,
        f64::INFINITY,
        f64::NEG_INFINITY,
        0.1,
        -2.5e-10,
    ];
    check(
        Arc::new(Float64Array::from(values.to_vec())),
        None,
        &[
            ("0", "0000000000000000"),
            ("-0", "8000000000000000"),
            ("1.5", "3ff8000000000000"),
            ("100000000000000", "42d6bcc41e900000"),
            ("123456789012345", "42dc12218377de40"),
            ("1e+15", "430c6bf526340000"),
            ("1.2345678901234567e+19", "43e56a95319d63e1"),
            ("0.0001", "3f1a36e2eb1c432d"),
            ("1e-05", "3ee4f8b588e368f1"),
            ("1e-07", "3e7ad7f29abcaf48"),
            ("1.7976931348623157e+308", "7fefffffffffffff"),
            ("5e-324", "0000000000000001"),
            ("NaN", "7ff8000000000000"),
            ("Infinity", "7ff0000000000000"),
            ("-Infinity", "fff0000000000000"),
            ("0.1", "3fb999999999999a"),
            ("-2.5e-10", "bdf12e0be826d695"),
        ],
    );
    let values = vec![0.0, 1.5, 123456.0, 1234567.0, 1e6, 0.0001, 0.00001, f32::NAN, f32::MAX, 0.1];
    assert_eq!(
        texts(Arc::new(Float32Array::from(values))),
        ["0", "1.5", "123456", "1.234567e+06", "1e+06", "0.0001", "1e-05", "NaN", "3.4028235e+38", "0.1"]
    );
}

#[test]
fn timestamps_before_2000_before_1970_and_before_christ() {
    let micros = vec![
        1609459200000000,
        1609459200500000,
        946684799999999,
        -876544,
        -62135596800000000,
        -63517780800000000,
        327416976550000010,
        100,
    ];
    check(
        Arc::new(TimestampMicrosecondArray::from(micros.clone()).with_timezone("UTC")),
        None,
        &[
            ("2021-01-01 00:00:00+00", "00025aca30ada000"),
            ("2021-01-01 00:00:00.5+00", "00025aca30b54120"),
            ("1999-12-31 23:59:59.999999+00", "ffffffffffffffff"),
            ("1969-12-31 23:59:59.123456+00", "fffca2fec4bac000"),
            ("0001-01-01 00:00:00+00", "ff1fe2ffc59c6000"),
            ("0044-03-15 12:00:00+00 BC", "ff1af9e8fb46d000"),
            ("12345-06-07 08:09:10.00001+00", "0487db00297a158a"),
            ("1970-01-01 00:00:00.0001+00", "fffca2fec4c82064"),
        ],
    );
    let plain = texts(Arc::new(TimestampMicrosecondArray::from(micros)));
    assert_eq!(plain[5], "0044-03-15 12:00:00 BC");
    // Other units are the same moments.
    assert_eq!(
        texts(Arc::new(TimestampNanosecondArray::from(vec![1_609_459_200_500_000_999]))),
        ["2021-01-01 00:00:00.5"]
    );
    assert_eq!(texts(Arc::new(TimestampSecondArray::from(vec![-1]))), ["1969-12-31 23:59:59"]);
}

#[test]
fn dates_times_and_intervals() {
    check(
        Arc::new(Date32Array::from(vec![18628, 0, 10956, -719163, 2932897])),
        None,
        &[
            ("2021-01-01", "00001df7"),
            ("1970-01-01", "ffffd533"),
            ("1999-12-31", "ffffffff"),
            ("0001-12-31 BC", "fff4dbf8"),
            ("10000-01-01", "002c95d4"),
        ],
    );
    check(
        Arc::new(Time64MicrosecondArray::from(vec![0, 86399999999, 45000250000])),
        None,
        &[
            ("00:00:00", "0000000000000000"),
            ("23:59:59.999999", "000000141dd75fff"),
            ("12:30:00.25", "0000000a7a395290"),
        ],
    );
    let interval = |months, days, micros: i64| Some(IntervalMonthDayNano::new(months, days, micros * 1_000));
    check(
        Arc::new(IntervalMonthDayNanoArray::from(vec![
            interval(0, 0, 0),
            interval(14, 3, 14_706_789_000),
            interval(0, -1, 7_384_000_000),
            interval(1, -1, 0),
            interval(-14, 3, 0),
            interval(0, 0, -1_500_000),
            interval(0, 0, 93_600_000_000),
            interval(-14, 1, -3_600_000_000),
            interval(0, 1, 0),
            None,
        ])),
        None,
        &[
            ("00:00:00", "00000000000000000000000000000000"),
            ("1 year 2 mons 3 days 04:05:06.789", "000000036c97ca88000000030000000e"),
            ("-1 days +02:03:04", "00000001b81ee600ffffffff00000000"),
            ("1 mon -1 days", "0000000000000000ffffffff00000001"),
            ("-1 years -2 mons +3 days", "000000000000000000000003fffffff2"),
            ("-00:00:01.5", "ffffffffffe91ca00000000000000000"),
            ("26:00:00", "00000015cafea8000000000000000000"),
            ("-1 years -2 mons +1 day -01:00:00", "ffffffff296c5c0000000001fffffff2"),
            ("1 day", "00000000000000000000000100000000"),
            ("<null>", "3c6e756c6c3e"),
        ],
    );
    assert_eq!(texts(Arc::new(IntervalYearMonthArray::from(vec![14]))), ["1 year 2 mons"]);
    // timestamp '2021-01-03 02:00:00.5' - timestamp '2021-01-01', and the other way round.
    assert_eq!(
        texts(Arc::new(DurationMicrosecondArray::from(vec![180_000_500_000, -180_000_000_000]))),
        ["2 days 02:00:00.5", "-2 days -02:00:00"]
    );
}

#[test]
fn numbers_booleans_and_bytes() {
    check(Arc::new(BooleanArray::from(vec![true, false])), None, &[("t", "01"), ("f", "00")]);
    check(
        Arc::new(Int64Array::from(vec![i64::MIN, 0, 42])),
        None,
        &[
            ("-9223372036854775808", "8000000000000000"),
            ("0", "0000000000000000"),
            ("42", "000000000000002a"),
        ],
    );
    check(Arc::new(Int16Array::from(vec![-7])), None, &[("-7", "fff9")]);
    check(
        Arc::new(Decimal128Array::from(vec![-50, 1]).with_precision_and_scale(18, 2).unwrap()),
        None,
        &[("-0.50", "0001ffff400000021388"), ("0.01", "0001ffff000000020064")],
    );
    check(
        Arc::new(BinaryArray::from(vec![&b"\xde\xad\xbe\xef\0"[..], b""])),
        None,
        &[("\\xdeadbeef00", "deadbeef00"), ("\\x", "")],
    );
}

#[test]
fn unsigned_results_are_int8_and_too_large_ones_are_an_error() {
    check(Arc::new(UInt32Array::from(vec![u32::MAX])), None, &[("4294967295", "00000000ffffffff")]);
    check(Arc::new(UInt64Array::from(vec![7])), None, &[("7", "0000000000000007")]);
    let batch =
        RecordBatch::try_from_iter([("n", Arc::new(UInt64Array::from(vec![u64::MAX])) as ArrayRef)]).unwrap();
    let columns = result_columns(&batch.schema(), &[]).unwrap();
    let error = RowEncoder::new(&batch, &columns).err().unwrap();
    assert_eq!(error.code, code::NUMERIC_OUT_OF_RANGE);
    assert!(error.message.contains("\"n\""), "{}", error.message);
}

#[test]
fn text_jsonb_and_uuid_by_the_type_in_the_metadata() {
    let text: ArrayRef = Arc::new(StringViewArray::from(vec!["{\"a\": 1}"]));
    check(Arc::clone(&text), None, &[("{\"a\": 1}", "7b2261223a20317d")]);
    check(text, Some("jsonb"), &[("{\"a\": 1}", "017b2261223a20317d")]);
    let uuid = "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11";
    let bytes = parse_uuid(uuid).unwrap();
    check(
        Arc::new(LargeStringArray::from(vec![uuid])),
        Some("uuid"),
        &[(uuid, "a0eebc999c0b4ef8bb6d6bb9bd380a11")],
    );
    check(
        Arc::new(FixedSizeBinaryArray::try_from_iter([bytes].into_iter()).unwrap()),
        Some("uuid"),
        &[(uuid, "a0eebc999c0b4ef8bb6d6bb9bd380a11")],
    );
    let dictionary: DictionaryArray<Int32Type> = ["pv", "buy", "pv"].into_iter().collect();
    assert_eq!(texts(Arc::new(dictionary)), ["pv", "buy", "pv"]);
    assert_eq!(texts(arrow::array::new_null_array(&DataType::Null, 1)), ["<null>"]);
}

fn texts_list(items: Vec<Option<&str>>) -> ArrayRef {
    let values: ArrayRef = Arc::new(StringArray::from(items));
    let offsets = arrow::buffer::OffsetBuffer::from_lengths([values.len()]);
    Arc::new(ListArray::new(Arc::new(Field::new_list_field(DataType::Utf8, true)), offsets, values, None))
}

#[test]
fn arrays_quote_what_postgresql_quotes() {
    let odd = [
        Some("a"),
        Some("b c"),
        None,
        Some(""),
        Some("NULL"),
        Some("null"),
        Some("q\"x"),
        Some("back\\slash"),
        Some("{"),
        Some("com,ma"),
    ];
    check(
        texts_list(odd.to_vec()),
        None,
        &[(
            r#"{a,"b c",NULL,"","NULL","null","q\"x","back\\slash","{","com,ma"}"#,
            "0000000100000001000000190000000a00000001000000016100000003622063ffffffff0000000000000004\
             4e554c4c000000046e756c6c000000037122780000000a6261636b5c736c617368000000017b00000006636f6d2c6d61",
        )],
    );
    check(texts_list(vec![]), None, &[("{}", "000000000000000000000019")]);
    check(
        Arc::new(ListArray::from_iter_primitive::<Int32Type, _, _>([Some([Some(1), None, Some(-3)])])),
        None,
        &[(
            "{1,NULL,-3}",
            "00000001000000010000001700000003000000010000000400000001ffffffff00000004fffffffd",
        )],
    );
    assert_eq!(
        texts(Arc::new(LargeListArray::from_iter_primitive::<Float64Type, _, _>([Some([
            Some(1.5),
            Some(f64::NAN)
        ])]))),
        ["{1.5,NaN}"]
    );
}

#[test]
fn arrays_of_arrays_have_dimensions() {
    let inner: ArrayRef = Arc::new(ListArray::from_iter_primitive::<Int32Type, _, _>([
        Some(vec![Some(1), Some(2)]),
        Some(vec![Some(3), None]),
        Some(vec![Some(4)]),
    ]));
    let nested = |inner: ArrayRef| -> ArrayRef {
        let field = Arc::new(Field::new_list_field(inner.data_type().clone(), true));
        let offsets = arrow::buffer::OffsetBuffer::from_lengths([inner.len()]);
        Arc::new(ListArray::new(field, offsets, inner, None))
    };
    check(
        nested(inner.slice(0, 2)),
        None,
        &[(
            "{{1,2},{3,NULL}}",
            "000000020000000100000017000000020000000100000002000000010000000400000001000000040000000200000004\
             00000003ffffffff",
        )],
    );
    let ragged = RecordBatch::try_from_iter([("a", nested(inner))]).unwrap();
    let columns = result_columns(&ragged.schema(), &[Format::Binary]).unwrap();
    let encoder = RowEncoder::new(&ragged, &columns).unwrap();
    let mut out = BytesMut::from(&b"before"[..]);
    assert_eq!(encoder.write_row(0, &mut out).unwrap_err().code, code::FEATURE_NOT_SUPPORTED);
    assert_eq!(&out[..], b"before", "a failed row leaves nothing behind");
}

#[test]
fn structs_are_shown_and_announced_types_are_kept() {
    let fields = vec![Field::new("a", DataType::Int32, true)];
    let array = StructArray::new(fields.into(), vec![Arc::new(Int32Array::from(vec![1])) as ArrayRef], None);
    assert_eq!(texts(Arc::new(array)), ["{a: 1}"]);

    // Announced as int8, delivered as int4.
    let batch = RecordBatch::try_from_iter([("n", Arc::new(Int32Array::from(vec![5])) as ArrayRef)]).unwrap();
    let announced = Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, true)]));
    let columns = result_columns(&announced, &[Format::Binary]).unwrap();
    let mut out = BytesMut::new();
    RowEncoder::new(&batch, &columns).unwrap().write_row(0, &mut out).unwrap();
    assert_eq!(&out[7..], &[0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 5]);
}

#[test]
fn result_formats_are_none_one_or_one_each() {
    let schema: SchemaRef = Arc::new(Schema::new(vec![
        Field::new("a", DataType::Int32, true),
        Field::new("b", DataType::Utf8, true),
    ]));
    let formats = |given: &[Format]| -> Option<Vec<Format>> {
        result_columns(&schema, given).ok().map(|columns| columns.iter().map(|c| c.format).collect())
    };
    assert_eq!(formats(&[]), Some(vec![Format::Text, Format::Text]));
    assert_eq!(formats(&[Format::Binary]), Some(vec![Format::Binary, Format::Binary]));
    assert_eq!(formats(&[Format::Binary, Format::Text]), Some(vec![Format::Binary, Format::Text]));
    assert_eq!(formats(&[Format::Binary, Format::Text, Format::Text]), None);
}

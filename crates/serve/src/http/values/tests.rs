use std::sync::Arc;

use arrow::array::*;
use arrow::datatypes::{Schema, i256};

use super::*;

fn batch(columns: Vec<(Field, ArrayRef)>) -> RecordBatch {
    let (fields, arrays): (Vec<_>, Vec<_>) = columns.into_iter().unzip();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays).unwrap()
}

fn field(name: &str, array: &ArrayRef) -> Field {
    Field::new(name, array.data_type().clone(), true)
}

fn json_of(array: ArrayRef) -> String {
    let batch = batch(vec![(field("v", &array), array)]);
    let rows = JsonRows::new(&batch.schema());
    let mut out = Vec::new();
    for row in 0..batch.num_rows() {
        rows.write_array(&mut out, &batch, row);
    }
    String::from_utf8(out).unwrap()
}

fn csv_of(array: ArrayRef) -> String {
    let batch = batch(vec![(field("v", &array), array)]);
    let mut out = Vec::new();
    for row in 0..batch.num_rows() {
        write_csv_row(&mut out, &batch, 1, row);
    }
    String::from_utf8(out).unwrap()
}

#[test]
fn json_of_each_type() {
    assert_eq!(
        json_of(Arc::new(Int64Array::from(vec![Some(i64::MAX), None]))),
        "[9223372036854775807][null]"
    );
    assert_eq!(
        json_of(Arc::new(Float64Array::from(vec![1.5, f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 0.25]))),
        r#"[1.5]["NaN"]["Infinity"]["-Infinity"][0.25]"#
    );
    assert_eq!(json_of(Arc::new(Float32Array::from(vec![0.1f32]))), "[0.1]");
    let decimals = Decimal128Array::from(vec![-5, 12_345]).with_precision_and_scale(18, 2).unwrap();
    assert_eq!(json_of(Arc::new(decimals)), r#"["-0.05"]["123.45"]"#);
    let wide = Decimal256Array::from(vec![i256::from_i128(7)]).with_precision_and_scale(50, 3).unwrap();
    assert_eq!(json_of(Arc::new(wide)), r#"["0.007"]"#);
    let times = TimestampMicrosecondArray::from(vec![1_511_544_070_000_000, 1]).with_timezone("UTC");
    assert_eq!(json_of(Arc::new(times)), r#"["2017-11-24T17:21:10Z"]["1970-01-01T00:00:00.000001Z"]"#);
    assert_eq!(
        json_of(Arc::new(TimestampMillisecondArray::from(vec![1_500]))),
        r#"["1970-01-01T00:00:01.500"]"#
    );
    assert_eq!(json_of(Arc::new(Date32Array::from(vec![18_871]))), r#"["2021-09-01"]"#);
    assert_eq!(json_of(Arc::new(BooleanArray::from(vec![true]))), "[true]");
    assert_eq!(json_of(Arc::new(BinaryArray::from(vec![&b"\x00\xff"[..]]))), r#"["\\x00ff"]"#);
    assert_eq!(
        json_of(Arc::new(StringArray::from(vec!["a\"b\n\u{1}</script>, 商品"]))),
        "[\"a\\\"b\\n\\u0001</script>, 商品\"]"
    );
    let list = ListArray::from_iter_primitive::<Int32Type, _, _>(vec![Some(vec![Some(1), None]), None]);
    assert_eq!(json_of(Arc::new(list)), "[[1,null]][null]");
    let dictionary: DictionaryArray<Int32Type> = vec![Some("x"), None, Some("x")].into_iter().collect();
    assert_eq!(json_of(Arc::new(dictionary)), r#"["x"][null]["x"]"#);
}

#[test]
fn jsonb_is_embedded_when_it_is_json() {
    let array: ArrayRef = Arc::new(StringArray::from(vec!["{\"a\": [1]}", "not json"]));
    let tagged = field("v", &array).with_metadata([("sql_type".to_string(), "jsonb".to_string())].into());
    let batch = batch(vec![(tagged, array)]);
    let rows = JsonRows::new(&batch.schema());
    let mut out = Vec::new();
    rows.write_object(&mut out, &batch, 0);
    rows.write_object(&mut out, &batch, 1);
    assert_eq!(String::from_utf8(out).unwrap(), r#"{"v":{"a": [1]}}{"v":"not json"}"#);
    assert_eq!(columns_json(&batch.schema())[0]["type"], "jsonb");
}

#[test]
fn csv_cells_can_not_become_formulas() {
    let cases = [
        ("=1+1", "'=1+1"),
        ("+1", "'+1"),
        ("-1", "'-1"),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("\tx", "'\tx"),
        ("\rx", "\"'\rx\""),
        (
            "=HYPERLINK(\"http://evil.example\",\"x\")",
            "\"'=HYPERLINK(\"\"http://evil.example\"\",\"\"x\"\")\"",
        ),
        ("plain", "plain"),
        ("a,b", "\"a,b\""),
        ("line\nbreak", "\"line\nbreak\""),
        ("", "\"\""),
        ("5=5", "5=5"),
    ];
    for (text, expected) in cases {
        assert_eq!(csv_of(Arc::new(StringArray::from(vec![text]))), format!("{expected}\r\n"), "{text:?}");
    }
    // Numbers are not text: a negative one keeps its sign.
    assert_eq!(csv_of(Arc::new(Int32Array::from(vec![Some(-1), None]))), "-1\r\n\r\n");
}

#[test]
fn text_of_a_value_reads_back_as_the_same_value() {
    use datafusion::scalar::ScalarValue;
    let decimals = Decimal128Array::from(vec![-5]).with_precision_and_scale(18, 2).unwrap();
    let arrays: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from(vec![i64::MIN])),
        Arc::new(Float64Array::from(vec![0.1 + 0.2])),
        Arc::new(Float64Array::from(vec![f64::NAN])),
        Arc::new(Float64Array::from(vec![f64::NEG_INFINITY])),
        Arc::new(decimals),
        Arc::new(TimestampMicrosecondArray::from(vec![1_511_544_070_123_456]).with_timezone("UTC")),
        Arc::new(Date32Array::from(vec![18_871])),
        Arc::new(BooleanArray::from(vec![false])),
        Arc::new(StringArray::from(vec!["x'; DROP TABLE y; --"])),
    ];
    for array in arrays {
        let text = plain_text(&array, 0).unwrap();
        let read = ScalarValue::try_from_string(text, array.data_type()).unwrap();
        assert_eq!(read, ScalarValue::try_from_array(&array, 0).unwrap());
    }
}

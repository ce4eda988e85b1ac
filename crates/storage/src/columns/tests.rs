//! What is encoded comes back, whatever the type, nulls and slice; what is damaged harms nothing.

use std::sync::Arc;

use arrow::array::*;
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::datatypes::*;

use super::*;

fn batch_of(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
    RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, array)| (name, array, true)))
        .unwrap()
}

/// Encodes and decodes; the result must be equal, and also encode to the same bytes.
fn check(batch: &RecordBatch) -> usize {
    let block = encode_batch(batch);
    let decoded = decode_batch(&batch.schema(), &block).unwrap_or_else(|error| panic!("{error}: {batch:?}"));
    assert_eq!(decoded, *batch);
    for column in decoded.columns() {
        column.to_data().validate_full().unwrap();
    }
    assert_eq!(encode_batch(&decoded), block);
    block.len()
}

fn null_sometimes<T>(random: &mut fastrand::Rng, percent: u32, value: T) -> Option<T> {
    (random.u32(0..100) >= percent).then_some(value)
}

/// One column of every type, `rows` long, with about `nulls` percent of nulls.
fn every_type(random: &mut fastrand::Rng, rows: usize, nulls: u32) -> RecordBatch {
    macro_rules! column {
        ($array:ty, $value:expr) => {{
            let values: Vec<_> = (0..rows)
                .map(|_| {
                    let value = $value;
                    null_sometimes(random, nulls, value)
                })
                .collect();
            values.into_iter().collect::<$array>()
        }};
    }
    fn text(random: &mut fastrand::Rng) -> String {
        let words = ["pv", "", "add_to_cart", "größe", "a text that is too long to be inlined into a view"];
        words[random.usize(0..words.len())].repeat(random.usize(1..3))
    }
    let few: i64 = random.i64(..);
    let list_values = {
        let total = rows * 2;
        (0..total)
            .map(|_| (text(random), random.u32(0..100) >= nulls))
            .map(|(text, valid)| valid.then_some(text))
            .collect::<StringArray>()
    };
    let list_nulls =
        (nulls > 0).then(|| (0..rows).map(|_| random.u32(0..100) >= nulls).collect::<NullBuffer>());
    let list = ListArray::new(
        Arc::new(Field::new_list_field(DataType::Utf8, true)),
        OffsetBuffer::from_lengths((0..rows).map(|row| if row % 2 == 0 { 0 } else { row % 5 })),
        Arc::new(list_values),
        list_nulls.clone(),
    );
    let fixed_list = FixedSizeListArray::new(
        Arc::new(Field::new_list_field(DataType::Int16, true)),
        3,
        Arc::new(
            (0..rows * 3).map(|number| (number % 7 != 0).then(|| random.i16(..))).collect::<Int16Array>(),
        ),
        list_nulls.clone(),
    );
    let structs = StructArray::new(
        Fields::from(vec![
            Field::new("id", DataType::Int64, true),
            Field::new("tags", list.data_type().clone(), true),
        ]),
        vec![Arc::new(column!(Int64Array, random.i64(..))), Arc::new(list.clone())],
        list_nulls.clone(),
    );
    let map = {
        let keys = (0..rows * 2).map(|_| Some(text(random))).collect::<StringArray>();
        let values = (0..rows * 2).map(|_| null_sometimes(random, nulls, 1.5)).collect::<Float64Array>();
        let fields = Fields::from(vec![
            Field::new("keys", DataType::Utf8, false),
            Field::new("values", DataType::Float64, true),
        ]);
        let entries = StructArray::new(fields.clone(), vec![Arc::new(keys), Arc::new(values)], None);
        let offsets = OffsetBuffer::from_lengths((0..rows).map(|row| row % 3));
        MapArray::new(
            Arc::new(Field::new("entries", DataType::Struct(fields), false)),
            offsets,
            entries,
            list_nulls,
            false,
        )
    };
    let dictionary: DictionaryArray<Int16Type> = {
        let texts = column!(StringArray, text(random));
        texts.iter().collect()
    };
    batch_of(vec![
        ("null", Arc::new(NullArray::new(rows))),
        ("bool", Arc::new(column!(BooleanArray, random.bool()))),
        ("i8", Arc::new(column!(Int8Array, random.i8(..)))),
        ("i16", Arc::new(column!(Int16Array, random.i16(-100..100)))),
        ("i32", Arc::new(column!(Int32Array, random.i32(..)))),
        ("i64", Arc::new(column!(Int64Array, few.wrapping_add(random.i64(0..1000))))),
        ("i64 wide", Arc::new(column!(Int64Array, if random.bool() { i64::MIN } else { i64::MAX }))),
        ("u8", Arc::new(column!(UInt8Array, random.u8(..)))),
        ("u16", Arc::new(column!(UInt16Array, random.u16(..)))),
        ("u32", Arc::new(column!(UInt32Array, random.u32(..)))),
        ("u64", Arc::new(column!(UInt64Array, random.u64(u64::MAX - 5..)))),
        ("f32", Arc::new(column!(Float32Array, random.f32()))),
        ("f64", Arc::new(column!(Float64Array, random.f64() / 0.1))),
        ("date", Arc::new(column!(Date32Array, random.i32(18_000..19_000)))),
        ("date64", Arc::new(column!(Date64Array, random.i64(0..3) * 86_400_000))),
        ("time", Arc::new(column!(Time64MicrosecondArray, random.i64(0..86_400_000_000)))),
        ("time32", Arc::new(column!(Time32MillisecondArray, random.i32(0..86_400_000)))),
        (
            "timestamp",
            Arc::new(
                column!(TimestampMicrosecondArray, 1_600_000_000_000_000 + random.i64(0..100_000))
                    .with_timezone("UTC"),
            ),
        ),
        ("duration", Arc::new(column!(DurationSecondArray, random.i64(..)))),
        ("months", Arc::new(column!(IntervalYearMonthArray, random.i32(0..100)))),
        ("days", Arc::new(column!(IntervalDayTimeArray, IntervalDayTime::new(random.i32(..), 5)))),
        (
            "interval",
            Arc::new(column!(IntervalMonthDayNanoArray, IntervalMonthDayNano::new(1, 2, random.i64(..)))),
        ),
        (
            "decimal",
            Arc::new(
                column!(Decimal128Array, random.i128(-5000..5000)).with_precision_and_scale(18, 2).unwrap(),
            ),
        ),
        (
            "decimal wide",
            Arc::new(
                column!(Decimal128Array, random.i128(-(1 << 100)..1 << 100))
                    .with_precision_and_scale(38, 2)
                    .unwrap(),
            ),
        ),
        (
            "decimal256",
            Arc::new(
                column!(Decimal256Array, i256::from_i128(random.i128(..)))
                    .with_precision_and_scale(76, 2)
                    .unwrap(),
            ),
        ),
        ("utf8", Arc::new(column!(StringArray, text(random)))),
        ("large utf8", Arc::new(column!(LargeStringArray, text(random)))),
        ("utf8 view", Arc::new(column!(StringViewArray, text(random)))),
        ("binary", Arc::new(column!(BinaryArray, vec![random.u8(..); 4]))),
        ("large binary", Arc::new(column!(LargeBinaryArray, vec![random.u8(..); random.usize(0..9)]))),
        ("binary view", Arc::new(column!(BinaryViewArray, vec![random.u8(..); random.usize(0..30)]))),
        ("list", Arc::new(list)),
        ("fixed list", Arc::new(fixed_list)),
        ("struct", Arc::new(structs)),
        ("map", Arc::new(map)),
        ("dictionary", Arc::new(dictionary)),
    ])
}

#[test]
fn every_type_comes_back_with_nulls_and_slices() {
    for seed in 0..60 {
        let mut random = fastrand::Rng::with_seed(seed);
        let rows = [1, 2, 7, 8, 9, 64, 300, 1000][random.usize(0..8)];
        let nulls = [0, 10, 90, 100][random.usize(0..4)];
        let batch = every_type(&mut random, rows, nulls);
        check(&batch);
        let start = random.usize(0..rows);
        let length = random.usize(0..=rows - start);
        check(&batch.slice(start, length));
        check(&batch.slice(start, 0));
    }
}

/// Guards the equality used above: a slice is stored without the rest.
#[test]
fn a_slice_costs_its_own_rows_only() {
    let batch = every_type(&mut fastrand::Rng::with_seed(1), 1000, 0);
    for column in 0..batch.num_columns() {
        let one = batch.project(&[column]).unwrap().slice(500, 1);
        let size = encode_batch(&one).len();
        assert!(size < 420, "{}: {size} bytes for a row", one.schema().field(0).name());
    }
}

fn clicks(rows: usize) -> RecordBatch {
    let mut random = fastrand::Rng::with_seed(7);
    let mut numbers = |limit: i64| (0..rows).map(|_| Some(random.i64(0..limit))).collect::<Int64Array>();
    let (users, items, categories) = (numbers(1_000_000), numbers(4_000_000), numbers(9_000));
    let behaviors = ["pv", "pv", "pv", "buy", "cart", "fav"];
    batch_of(vec![
        ("user_id", Arc::new(users)),
        ("item_id", Arc::new(items)),
        ("category_id", Arc::new(categories)),
        (
            "behavior",
            Arc::new((0..rows).map(|row| Some(behaviors[row * 7 % 11 % 6])).collect::<StringArray>()),
        ),
        (
            "ts",
            Arc::new(TimestampMicrosecondArray::from_iter_values(
                (0..rows).map(|row| 1_511_539_200_000_000 + row as i64 * 1000),
            )),
        ),
    ])
}

/// Guards the size: a single click must not carry a schema.
#[test]
fn small_batches_are_small() {
    let sizes = [1, 10, 1000, 100_000].map(|rows| check(&clicks(rows)));
    assert!(sizes[0] <= 36, "{} bytes for one row", sizes[0]);
    assert!(sizes[1] <= 220, "{} bytes for ten rows", sizes[1]);
    assert!(sizes[2] <= 16 * 1000, "{} bytes for 1000 rows", sizes[2]);
    assert!(sizes[3] <= 16 * 100_000, "{} bytes for 100000 rows", sizes[3]);
}

/// Guards the format: these bytes must stay readable for ever.
#[test]
fn the_bytes_are_those_of_the_documentation() {
    let batch = batch_of(vec![
        ("product_id", Arc::new(Int64Array::from(vec![101, 103, 102]))),
        ("name", Arc::new(StringArray::from(vec![Some("cup"), None, Some("pot")]))),
        ("sold_out", Arc::new(BooleanArray::from(vec![None, None, None]))),
    ]);
    let text: Vec<String> = encode_batch(&batch).iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(text.join(" "), "01 03 03 04 ca 01 00 02 01 05 05 00 03 00 03 63 75 70 70 6f 74 02");
    check(&batch);
}

#[test]
fn batches_without_rows_or_columns() {
    let options = RecordBatchOptions::new().with_row_count(Some(5));
    let none = RecordBatch::try_new_with_options(Arc::new(Schema::empty()), vec![], &options).unwrap();
    check(&none);
    check(&RecordBatch::new_empty(clicks(1).schema()));
}

/// Guards the limit for columns that cost nothing: more rows must still come back.
#[test]
fn many_equal_and_many_null_rows() {
    for rows in [CONSTANT_ROWS_MAX, CONSTANT_ROWS_MAX + 1, 300_000] {
        let batch = batch_of(vec![
            ("same", Arc::new(Int64Array::from(vec![7; rows]))),
            ("null", new_null_array(&DataType::Utf8, rows)),
            (
                "null struct",
                new_null_array(
                    &DataType::Struct(Fields::from(vec![Field::new("a", DataType::Int8, true)])),
                    rows,
                ),
            ),
            ("empty", Arc::new(StringArray::from(vec![""; rows]))),
        ]);
        let size = check(&batch);
        assert!(size < 20_000, "{size} bytes for {rows} rows");
    }
    let huge = DataType::FixedSizeList(Arc::new(Field::new_list_field(DataType::Int8, true)), 100_000);
    check(&batch_of(vec![("huge", new_null_array(&huge, 30))]));
}

#[test]
fn errors_say_what_is_wrong() {
    let batch = clicks(2);
    let block = encode_batch(&batch);
    let error = |schema: &SchemaRef, block: &[u8]| decode_batch(schema, block).unwrap_err().to_string();
    let schema = batch.schema();
    let prefix = "column block is damaged, or of another schema: ";
    assert_eq!(error(&schema, b""), format!("{prefix}it is cut off"));
    assert_eq!(error(&schema, &block[..block.len() - 1]), format!("{prefix}column \"ts\": it is cut off"));
    assert_eq!(
        error(&schema, &[&block[..], b"x"].concat()),
        format!("{prefix}1 bytes follow the last column")
    );
    assert_eq!(
        error(&Arc::new(Schema::empty()), &block),
        format!("{prefix}it has 5 columns, the schema has 0")
    );
    assert_eq!(
        error(&schema, &[&[2], &block[1..]].concat()),
        "column block has format version 2, this program reads version 1; use a newer program"
    );
    let required = Arc::new(Schema::new(vec![Field::new("a", DataType::Int8, false)]));
    let nulls = encode_batch(&batch_of(vec![("a", new_null_array(&DataType::Int8, 3))]));
    assert!(error(&required, &nulls).contains("'a'"));
    let bytes = batch_of(vec![("a", Arc::new(BinaryArray::from(vec![b"\xFF".as_slice()])))]);
    for text_type in [DataType::Utf8, DataType::LargeUtf8, DataType::Utf8View] {
        let text = Arc::new(Schema::new(vec![Field::new("a", text_type, true)]));
        assert!(error(&text, &encode_batch(&bytes)).contains("column \"a\""), "invalid UTF-8 must not pass");
    }
}

/// Guards against panics and runaway memory on damaged input, and against invalid arrays coming out of it.
#[test]
fn damaged_blocks_give_an_error_or_a_valid_batch() {
    let mut random = fastrand::Rng::with_seed(11);
    let mut refused = 0;
    for round in 0..40 {
        let rows = [1, 3, 40, 400][round % 4];
        let nulls = [0, 30][round / 4 % 2];
        let batch = every_type(&mut random, rows, nulls);
        let all = encode_batch(&batch);
        let mut attempt = |schema: &SchemaRef, block: &[u8]| match decode_batch(schema, block) {
            Ok(decoded) => {
                decoded.columns().iter().for_each(|column| column.to_data().validate_full().unwrap())
            }
            Err(_) => refused += 1,
        };
        for _ in 0..60 {
            let mut block = all.clone();
            for _ in 0..random.usize(1..4) {
                let at = random.usize(0..block.len());
                block[at] = if random.bool() { block[at] ^ 1 << random.u32(0..8) } else { random.u8(..) };
            }
            attempt(&batch.schema(), &block);
            attempt(&batch.schema(), &all[..random.usize(0..all.len())]);
        }
        // Alone, a column's own structure is hit more often.
        for column in 0..batch.num_columns() {
            let one = batch.project(&[column]).unwrap();
            let all = encode_batch(&one);
            for _ in 0..60 {
                let mut block = all.clone();
                let at = random.usize(0..block.len().min(20));
                block[at] = random.u8(..);
                attempt(&one.schema(), &block);
                // Of another type.
                let other = batch.schema().field(random.usize(0..batch.num_columns())).clone();
                attempt(&Arc::new(Schema::new(vec![other])), &all);
            }
        }
    }
    assert!(refused > 10_000, "only {refused} damaged blocks were noticed");
}

#[test]
fn unsupported_types_are_known_beforehand() {
    let list = Arc::new(Field::new_list_field(DataType::Int8, true));
    assert!(supports(&DataType::List(Arc::clone(&list))));
    let view = DataType::ListView(list);
    assert!(!supports(&view));
    assert!(!supports(&DataType::Struct(Fields::from(vec![Field::new("a", view, true)]))));
}

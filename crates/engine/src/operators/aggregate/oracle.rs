//! The dumb second implementation that the operators are tested against: it keeps all rows, and computes
//! every result from them anew, as text.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{
    BooleanArray, Decimal128Array, Float64Array, Int32Array, Int64Array, RecordBatch, StringArray,
    TimestampMicrosecondArray,
};
use arrow::compute::SortOptions;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use dataflow::{KeyPart, Operator, StateReader, StateWriter, ZSet};

use super::{AggregateCall, AggregateFunction, Fraction};
use crate::operators::saving;

/// Numbers of the input's columns.
pub const TIME: usize = 0;
pub const KEY: usize = 1;
pub const TEXT: usize = 2;
pub const INT: usize = 3;
pub const FLOAT: usize = 4;
pub const DECIMAL: usize = 5;
pub const BOOL: usize = 6;
pub const FILTER: usize = 7;
pub const DELIMITER: usize = 8;

pub const SECOND: i64 = 1_000_000;

#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// Microseconds, whole seconds.
    pub time: Option<i64>,
    pub key: Option<i64>,
    pub text: Option<String>,
    pub int: Option<i32>,
    pub float: Option<f64>,
    pub decimal: Option<i128>,
    pub bool: Option<bool>,
    pub filter: Option<bool>,
}

pub fn time_type() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some("+00:00".into()))
}

pub fn input() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("time", time_type(), true),
        Field::new("key", DataType::Int64, true),
        Field::new("text", DataType::Utf8, true),
        Field::new("int", DataType::Int32, true),
        Field::new("float", DataType::Float64, true),
        Field::new("decimal", DataType::Decimal128(10, 2), true),
        Field::new("bool", DataType::Boolean, true),
        Field::new("filter", DataType::Boolean, true),
        Field::new("delimiter", DataType::Utf8, false),
    ]))
}

pub fn zset(rows: &[(Row, i64)]) -> ZSet {
    let decimals = Decimal128Array::from_iter(rows.iter().map(|(row, _)| row.decimal));
    let batch = RecordBatch::try_new(
        input(),
        vec![
            Arc::new(
                TimestampMicrosecondArray::from_iter(rows.iter().map(|(row, _)| row.time))
                    .with_timezone("+00:00"),
            ),
            Arc::new(Int64Array::from_iter(rows.iter().map(|(row, _)| row.key))),
            Arc::new(StringArray::from_iter(rows.iter().map(|(row, _)| row.text.as_deref()))),
            Arc::new(Int32Array::from_iter(rows.iter().map(|(row, _)| row.int))),
            Arc::new(Float64Array::from_iter(rows.iter().map(|(row, _)| row.float))),
            Arc::new(decimals.with_precision_and_scale(10, 2).unwrap()),
            Arc::new(BooleanArray::from_iter(rows.iter().map(|(row, _)| row.bool))),
            Arc::new(BooleanArray::from_iter(rows.iter().map(|(row, _)| row.filter))),
            Arc::new(StringArray::from_iter_values(rows.iter().map(|_| "; "))),
        ],
    );
    ZSet::new(batch.unwrap(), rows.iter().map(|(_, weight)| *weight).collect())
}

pub fn call(function: AggregateFunction, arguments: &[usize], output: DataType) -> AggregateCall {
    AggregateCall {
        function,
        arguments: arguments.to_vec(),
        filter: None,
        distinct: false,
        order_by: Vec::new(),
        output: Arc::new(Field::new(format!("{function:?}"), output, true)),
    }
}

/// Calls of every function over every type, plain; the tests add DISTINCT and FILTER.
pub fn calls() -> Vec<AggregateCall> {
    use AggregateFunction::*;
    let list = |item: DataType| DataType::List(Arc::new(Field::new_list_field(item, true)));
    let mut calls = vec![
        call(Count, &[], DataType::Int64),
        call(Count, &[INT], DataType::Int64),
        call(Count, &[TEXT], DataType::Int64),
        call(Sum, &[INT], DataType::Int64),
        call(Sum, &[FLOAT], DataType::Float64),
        call(Sum, &[DECIMAL], DataType::Decimal128(20, 2)),
        call(Avg, &[INT], DataType::Float64),
        call(Avg, &[FLOAT], DataType::Float64),
        call(Avg, &[DECIMAL], DataType::Decimal128(14, 6)),
        call(BoolAnd, &[BOOL], DataType::Boolean),
        call(BoolOr, &[BOOL], DataType::Boolean),
        call(StringAgg, &[TEXT, DELIMITER], DataType::LargeUtf8),
        call(ArrayAgg, &[INT], list(DataType::Int32)),
        call(ArrayAgg, &[TEXT], list(DataType::Utf8)),
    ];
    for column in [TIME, KEY, TEXT, INT, FLOAT, DECIMAL, BOOL] {
        let data_type = input().field(column).data_type().clone();
        calls.push(call(Min, &[column], data_type.clone()));
        calls.push(call(Max, &[column], data_type));
    }
    for column in [TEXT, INT, DECIMAL] {
        let data_type = input().field(column).data_type().clone();
        for fraction in [0.0, 0.4, 1.0] {
            let function = PercentileDisc(Fraction::new(fraction));
            calls.push(call(function, &[column], data_type.clone()));
        }
        calls.push(call(Mode, &[column], data_type.clone()));
        calls.push(call(FirstValue { ignore_nulls: true }, &[column], data_type.clone()));
        let mut last = call(LastValue { ignore_nulls: false }, &[column], data_type);
        last.order_by = vec![(KEY, SortOptions { descending: false, nulls_first: true })];
        calls.push(last);
    }
    for function in [BitAnd, BitOr, BitXor] {
        calls.push(call(function, &[INT], DataType::Int32));
    }
    calls.push(call(Statistic(super::Statistic::VarPop), &[INT], DataType::Float64));
    calls.push(call(ApproxCountDistinct, &[TEXT], DataType::Int64));
    let mut ordered = call(StringAgg, &[TEXT, DELIMITER], DataType::Utf8);
    ordered.order_by = vec![(INT, SortOptions { descending: true, nulls_first: false })];
    calls.push(ordered);
    calls
}

/// A value, NULL included, with the order of arrow's row format.
#[derive(Clone, Debug, PartialEq)]
pub enum Cell {
    Null,
    Time(i64),
    Int(i64),
    Text(String),
    Float(f64),
    Decimal(i128),
    Bool(bool),
}

impl Cell {
    fn of(row: &Row, column: usize) -> Cell {
        match column {
            TIME => row.time.map_or(Cell::Null, Cell::Time),
            KEY => row.key.map_or(Cell::Null, Cell::Int),
            TEXT => row.text.clone().map_or(Cell::Null, Cell::Text),
            INT => row.int.map_or(Cell::Null, |v| Cell::Int(v.into())),
            FLOAT => row.float.map_or(Cell::Null, Cell::Float),
            DECIMAL => row.decimal.map_or(Cell::Null, Cell::Decimal),
            BOOL => row.bool.map_or(Cell::Null, Cell::Bool),
            FILTER => row.filter.map_or(Cell::Null, Cell::Bool),
            _ => Cell::Text("; ".to_owned()),
        }
    }

    fn compare(&self, other: &Cell) -> Ordering {
        match (self, other) {
            (Cell::Null, Cell::Null) => Ordering::Equal,
            (Cell::Null, _) => Ordering::Less,
            (_, Cell::Null) => Ordering::Greater,
            (Cell::Time(a), Cell::Time(b)) | (Cell::Int(a), Cell::Int(b)) => a.cmp(b),
            (Cell::Text(a), Cell::Text(b)) => a.cmp(b),
            (Cell::Float(a), Cell::Float(b)) => a.total_cmp(b),
            (Cell::Decimal(a), Cell::Decimal(b)) => a.cmp(b),
            (Cell::Bool(a), Cell::Bool(b)) => a.cmp(b),
            _ => panic!("a column has one type"),
        }
    }

    pub fn text(&self) -> String {
        match self {
            Cell::Null => "NULL".to_owned(),
            Cell::Time(us) => {
                assert!(us.abs() < 3600 * SECOND && us % SECOND == 0, "the tests use small whole seconds");
                let seconds = (us / SECOND).rem_euclid(3600);
                let hour = if *us < 0 { "1969-12-31T23" } else { "1970-01-01T00" };
                format!("{hour}:{:02}:{:02}Z", seconds / 60, seconds % 60)
            }
            Cell::Int(v) => v.to_string(),
            Cell::Text(v) => v.clone(),
            Cell::Float(v) => format!("{v:?}"),
            Cell::Decimal(v) => decimal_text(*v, 2),
            Cell::Bool(v) => v.to_string(),
        }
    }
}

fn decimal_text(value: i128, scale: u32) -> String {
    let unit = 10i128.pow(scale);
    let sign = if value < 0 { "-" } else { "" };
    format!("{sign}{}.{:0width$}", value.abs() / unit, value.abs() % unit, width = scale as usize)
}

/// The key columns of a row, as the picture shows them.
pub fn key_cells(row: &Row, keys: &[usize]) -> Vec<Cell> {
    keys.iter().map(|key| Cell::of(row, *key)).collect()
}

pub fn texts(cells: &[Cell]) -> Vec<String> {
    cells.iter().map(Cell::text).collect()
}

/// Rows that are there, each as often as its weights say.
fn expanded(rows: &[(Row, i64)]) -> Vec<&Row> {
    let mut sums: BTreeMap<String, (&Row, i64)> = BTreeMap::new();
    for (row, weight) in rows {
        sums.entry(format!("{row:?}")).or_insert((row, 0)).1 += weight;
    }
    assert!(sums.values().all(|(_, weight)| *weight >= 0), "in the end, only what is there was taken away");
    sums.into_values().flat_map(|(row, weight)| std::iter::repeat_n(row, weight as usize)).collect()
}

/// The picture of the result of all groups: a line for each that has rows.
pub fn picture_of(
    groups: &BTreeMap<Vec<String>, Vec<(Row, i64)>>,
    calls: &[AggregateCall],
    global: bool,
) -> String {
    let mut lines: Vec<String> = Vec::new();
    for (key, rows) in groups {
        let rows = expanded(rows);
        if !rows.is_empty() || global {
            let results = calls.iter().map(|call| result(call, &rows));
            lines.push(key.iter().cloned().chain(results).collect::<Vec<_>>().join("  "));
        }
    }
    lines.sort();
    lines.into_iter().map(|line| format!("+ 1  {line}\n")).collect()
}

fn result(call: &AggregateCall, rows: &[&Row]) -> String {
    use AggregateFunction::*;
    let mut rows: Vec<&Row> = rows
        .iter()
        .copied()
        .filter(|row| call.filter.is_none_or(|column| Cell::of(row, column) == Cell::Bool(true)))
        .collect();
    if call.arguments.is_empty() {
        return rows.len().to_string();
    }
    let order = |a: &&Row, b: &&Row| {
        let by = call.order_by.iter().map(|(column, options)| {
            let (a, b) = (Cell::of(a, *column), Cell::of(b, *column));
            match (&a, &b) {
                (Cell::Null, _) | (_, Cell::Null) if options.nulls_first => a.compare(&b),
                (Cell::Null, _) | (_, Cell::Null) => b.compare(&a),
                _ if options.descending => b.compare(&a),
                _ => a.compare(&b),
            }
        });
        let value = Cell::of(a, call.arguments[0]).compare(&Cell::of(b, call.arguments[0]));
        by.fold(Ordering::Equal, Ordering::then).then(value)
    };
    rows.sort_by(order);
    let mut values: Vec<Cell> = rows.iter().map(|row| Cell::of(row, call.arguments[0])).collect();
    if call.distinct {
        values.dedup();
    }
    if call.function == ArrayAgg {
        let texts: Vec<String> = values.iter().map(Cell::text).collect();
        return if texts.is_empty() { "NULL".to_owned() } else { format!("[{}]", texts.join(", ")) };
    }
    if let LastValue { ignore_nulls: false } = call.function {
        return values.last().map_or("NULL".to_owned(), Cell::text);
    }
    values.retain(|value| *value != Cell::Null);
    if call.function == ApproxCountDistinct {
        values.dedup();
        return values.len().to_string();
    }
    if call.function == Count {
        return values.len().to_string();
    }
    if values.is_empty() {
        return "NULL".to_owned();
    }
    let count = values.len();
    let is_true = |value: &Cell| *value == Cell::Bool(true);
    match call.function {
        Min => values.iter().min_by(|a, b| a.compare(b)).unwrap().text(),
        Max => values.iter().max_by(|a, b| a.compare(b)).unwrap().text(),
        FirstValue { .. } => values[0].text(),
        PercentileDisc(fraction) => {
            let place = (fraction.value() * count as f64).ceil() as usize;
            values[place.max(1) - 1].text()
        }
        Mode => {
            let often = |value: &Cell| values.iter().filter(|other| *other == value).count();
            let most = values.iter().map(often).max();
            values.iter().find(|value| Some(often(value)) == most).unwrap().text()
        }
        BitAnd => ints(&values).reduce(|a, b| a & b).unwrap().to_string(),
        BitOr => ints(&values).reduce(|a, b| a | b).unwrap().to_string(),
        BitXor => ints(&values).reduce(|a, b| a ^ b).unwrap().to_string(),
        Statistic(_) => {
            let n = count as i64;
            let (sum, squares) = (ints(&values).sum::<i64>(), ints(&values).map(|v| v * v).sum::<i64>());
            format!("{:?}", (n * squares - sum * sum) as f64 / n as f64 / n as f64)
        }
        BoolAnd => values.iter().all(is_true).to_string(),
        BoolOr => values.iter().any(is_true).to_string(),
        StringAgg => values.iter().map(Cell::text).collect::<Vec<_>>().join("; "),
        Sum | Avg => match &values[0] {
            Cell::Int(_) => {
                let sum: i64 = values.iter().map(|v| if let Cell::Int(v) = v { *v } else { 0 }).sum();
                if call.function == Sum {
                    sum.to_string()
                } else {
                    format!("{:?}", sum as f64 / count as f64)
                }
            }
            Cell::Float(_) => {
                let sum: f64 = values.iter().map(|v| if let Cell::Float(v) = v { *v } else { 0.0 }).sum();
                // Adding -0.0 turns into +0.0 what the standard library starts its sums with.
                let sum = sum + 0.0;
                if call.function == Sum { format!("{sum:?}") } else { format!("{:?}", sum / count as f64) }
            }
            _ => {
                let sum: i128 = values.iter().map(|v| if let Cell::Decimal(v) = v { *v } else { 0 }).sum();
                if call.function == Sum {
                    decimal_text(sum, 2)
                } else {
                    decimal_text(sum * 10_000 / count as i128, 6)
                }
            }
        },
        _ => unreachable!("answered above, or in the random views"),
    }
}

fn ints(values: &[Cell]) -> impl Iterator<Item = i64> {
    values.iter().map(|value| if let Cell::Int(value) = value { *value } else { 0 })
}

/// Now and then the operator's state taken through its bytes, else the operator as it is. Without keys it has but one
/// part.
pub fn sometimes_reopened<O: Operator>(
    operator: O,
    make: impl Fn() -> O,
    keyed: bool,
    rng: &mut fastrand::Rng,
) -> O {
    if rng.u8(..3) > 0 {
        return operator;
    }
    if keyed {
        return saving::reopened(&operator, make, rng);
    }
    let mut out = StateWriter::new();
    operator.save(KeyPart::ALL, &mut out).unwrap();
    let bytes = out.into_bytes();
    let mut new = make();
    new.load(&mut StateReader::new(&bytes)).unwrap();
    assert_eq!(new.state_size().rows, operator.state_size().rows, "rows remembered");
    new
}

/// Bytes that are damaged here and there are an error, or some other state, but no panic.
pub fn survives_damage<O: Operator>(operator: &O, make: impl Fn() -> O, rng: &mut fastrand::Rng) {
    let mut out = StateWriter::new();
    operator.save(KeyPart::ALL, &mut out).unwrap();
    let mut bytes = out.into_bytes();
    for _ in 0..rng.u8(1..4) {
        let at = rng.usize(..bytes.len());
        bytes[at] = if rng.bool() { rng.u8(..) } else { bytes[at].wrapping_add(1) };
    }
    let _ = make().load(&mut StateReader::new(&bytes));
}

/// A small generator: the same seed gives the same case.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub fn below(&mut self, limit: usize) -> usize {
        ((self.next() >> 11) % limit as u64) as usize
    }

    pub fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    pub fn some<T>(&mut self, value: impl FnOnce(&mut Random) -> T) -> Option<T> {
        if self.one_in(6) { None } else { Some(value(self)) }
    }

    /// A row whose values are few enough to meet again. Times are `from_s` and a little later.
    pub fn row(&mut self, from_s: i64) -> Row {
        let text = |random: &mut Random| {
            let length = [0, 1, 2, 3, 4, 5, 7, 8, 9, 13, 14, 15, 40][random.below(13)];
            "xyäbcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuv"
                .chars()
                .take(length)
                .chain(if random.one_in(2) { Some('!') } else { None })
                .collect::<String>()
        };
        Row {
            time: self.some(|random| (from_s + random.below(30) as i64) * SECOND),
            key: self.some(|random| random.below(4) as i64 - 1),
            text: self.some(text),
            int: self.some(|random| random.below(7) as i32 - 3),
            float: self
                .some(|random| if random.one_in(40) { f64::NAN } else { random.below(9) as f64 / 4.0 - 1.0 }),
            decimal: self.some(|random| random.below(900) as i128 - 450),
            bool: self.some(|random| random.one_in(2)),
            filter: self.some(|random| random.one_in(2)),
        }
    }

    /// Some calls, with DISTINCT and FILTER here and there.
    pub fn calls(&mut self) -> Vec<AggregateCall> {
        let menu = calls();
        (0..1 + self.below(5))
            .map(|_| {
                let mut call = menu[self.below(menu.len())].clone();
                if self.one_in(3) {
                    call.filter = Some(FILTER);
                }
                call.distinct = call.order_by.is_empty() && !call.arguments.is_empty() && self.one_in(3);
                call
            })
            .collect()
    }

    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            items.swap(i, self.below(i + 1));
        }
    }
}

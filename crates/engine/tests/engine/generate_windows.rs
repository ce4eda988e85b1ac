//! Random window functions, sessions, DISTINCT ON and first rows of an order.
//!
//! Where ties would let the batch engine choose (ROWS, lag, row_number), the order names all columns; RANGE, GROUPS and
//! ranks are ordered by one column, with ties. The batch engine slides floats by adding and subtracting, which rounds,
//! so sums are of exact types here.

use fastrand::Rng;

use super::generate::{Kind, Table};

/// A query over the table.
pub fn query(table: &Table, filter: &str, rng: &mut Rng) -> String {
    let t = &table.name;
    let columns = table.all_columns();
    let list = columns.join(", ");
    let shapes = if table.events { 9 } else { 6 };
    match rng.u8(..shapes) {
        0 => {
            let over = over(table, &total_order(&columns, rng), rng);
            let frame = frame("ROWS", &|rng: &mut Rng| rng.u8(..4).to_string(), rng);
            let calls = aggregates(table, &frame, &over, rng);
            format!("SELECT {list}, {calls} FROM {t}{filter}")
        }
        1 => {
            let (column, offset) = ranged(table, rng);
            let over = over(table, &format!("{column}{}", direction(rng)), rng);
            let calls = aggregates(table, &frame("RANGE", &offset, rng), &over, rng);
            format!("SELECT {list}, {calls} FROM {t}{filter}")
        }
        2 => {
            let column = &columns[rng.usize(..columns.len())];
            let over = over(table, &format!("{column}{}", direction(rng)), rng);
            let calls = aggregates(
                table,
                &frame("GROUPS", &|rng: &mut Rng| rng.u8(..3).to_string(), rng),
                &over,
                rng,
            );
            format!("SELECT {list}, {calls} FROM {t}{filter}")
        }
        3 => {
            // Several windows in one SELECT. Which of two equal rows gets which result is open, and two windows may differ
            // in it: without a key there is one.
            let most = if table.keyed { 4 } else { 2 };
            let calls: Vec<String> =
                (0..rng.usize(1..most)).map(|i| ranking(table, &columns, i, rng)).collect();
            format!("SELECT {list}, {} FROM {t}{filter}", calls.join(", "))
        }
        4 => {
            let partition = &columns[rng.usize(..columns.len())];
            let order = total_order(&columns, rng);
            format!("SELECT DISTINCT ON ({partition}) {list} FROM {t}{filter} ORDER BY {partition}, {order}")
        }
        5 => {
            let (skip, rows) = (rng.u8(..3), rng.u8(1..6));
            if rng.bool() {
                let order = total_order(&columns, rng);
                return format!("SELECT {list} FROM {t}{filter} ORDER BY {order} LIMIT {rows} OFFSET {skip}");
            }
            let column = &columns[rng.usize(..columns.len())];
            let order = format!("{column}{}", direction(rng));
            format!("SELECT {list} FROM {t}{filter} ORDER BY {order} FETCH FIRST {rows} ROWS WITH TIES")
        }
        6 => {
            let gap = rng.u8(3..40);
            let key = if rng.bool() { " PARTITION BY k" } else { "" };
            format!(
                "SELECT {list}, window_start, window_end FROM SESSION({t}{key}, ts, INTERVAL '{gap} seconds'){filter}"
            )
        }
        7 => {
            // Over the results of windows.
            let call = ["rank()", "row_number()", "count(*)", "sum(n)", "percent_rank()"][rng.usize(..5)];
            let partition = ["PARTITION BY window_start ", "PARTITION BY k ", ""][rng.usize(..3)];
            let order = if call == "row_number()" { "n DESC, k, window_start" } else { "n" };
            format!(
                "SELECT window_start, k, n, {call} OVER ({partition}ORDER BY {order}) AS r FROM (SELECT window_start, window_end, k, count(*) AS n FROM TUMBLE({t}, ts, INTERVAL '1 minute'){filter} GROUP BY window_start, window_end, k) AS w"
            )
        }
        _ => {
            let gap = rng.u8(3..40);
            let calls = "count(*) AS n, sum(k) AS s, min(ts) AS first, max(ts) AS last";
            let window =
                format!("TABLE(SESSION(TABLE {t} PARTITION BY k, DESCRIPTOR(ts), INTERVAL '{gap}' SECONDS))");
            format!(
                "SELECT k, window_start, window_end, {calls} FROM {window}{filter} GROUP BY k, window_start, window_end"
            )
        }
    }
}

fn direction(rng: &mut Rng) -> &'static str {
    ["", " DESC", " NULLS FIRST", " DESC NULLS LAST"][rng.usize(..4)]
}

fn total_order(columns: &[String], rng: &mut Rng) -> String {
    let columns = columns.iter().rev().map(|name| format!("{name}{}", direction(rng)));
    columns.collect::<Vec<_>>().join(", ")
}

fn over(table: &Table, order: &str, rng: &mut Rng) -> String {
    let columns = table.all_columns();
    match rng.u8(..3) {
        0 => format!("ORDER BY {order}"),
        _ => format!("PARTITION BY {} ORDER BY {order}", columns[rng.usize(..columns.len())]),
    }
}

type OffsetText = Box<dyn Fn(&mut Rng) -> String>;

/// A column for RANGE with an offset, and its offsets.
fn ranged(table: &Table, rng: &mut Rng) -> (String, OffsetText) {
    if table.events && rng.bool() {
        return ("ts".into(), Box::new(|rng: &mut Rng| format!("INTERVAL '{} seconds'", rng.u8(..60))));
    }
    let (name, kind) = &table.columns[rng.usize(..table.columns.len())];
    let offset: OffsetText = match kind {
        Kind::Int | Kind::BigInt => Box::new(|rng: &mut Rng| rng.u8(..5).to_string()),
        Kind::Decimal => Box::new(|rng: &mut Rng| format!("{}.{}", rng.u8(..9), rng.u8(..10))),
        Kind::Date => Box::new(|rng: &mut Rng| {
            ["INTERVAL '1 day'", "INTERVAL '1 month'", "INTERVAL '40 days'"][rng.usize(..3)].into()
        }),
        Kind::Time => Box::new(|rng: &mut Rng| format!("INTERVAL '{} minutes'", rng.u8(..90))),
        _ => return ("k".into(), Box::new(|rng: &mut Rng| rng.u8(..4).to_string())),
    };
    (name.clone(), offset)
}

fn frame(unit: &str, offset: &dyn Fn(&mut Rng) -> String, rng: &mut Rng) -> String {
    let start = ["UNBOUNDED PRECEDING", "PRECEDING", "CURRENT ROW"][rng.usize(..3)];
    let end = ["CURRENT ROW", "FOLLOWING", "UNBOUNDED FOLLOWING"][rng.usize(..3)];
    let mut bound = |word: &str| match word {
        "PRECEDING" | "FOLLOWING" => format!("{} {word}", offset(rng)),
        other => other.to_string(),
    };
    format!("{unit} BETWEEN {} AND {}", bound(start), bound(end))
}

fn aggregates(table: &Table, frame: &str, over: &str, rng: &mut Rng) -> String {
    let calls = (0..rng.usize(1..4)).map(|i| {
        let (column, kind) = &table.columns[rng.usize(..table.columns.len())];
        let call = match rng.u8(..7) {
            0 => "count(*)".to_string(),
            1 => format!("count({column})"),
            2 if *kind != Kind::Boolean => format!("min({column})"),
            3 if *kind != Kind::Boolean => format!("max({column})"),
            4 if kind.is_number() && *kind != Kind::Double => format!("sum({column})"),
            5 if matches!(kind, Kind::Int | Kind::Decimal) => format!("avg({column})"),
            _ => "sum(k)".to_string(),
        };
        let filter = if rng.u8(..6) == 0 { " FILTER (WHERE k > 2)" } else { "" };
        format!("{call}{filter} OVER ({over} {frame}) AS a{i}")
    });
    calls.collect::<Vec<_>>().join(", ")
}

fn ranking(table: &Table, columns: &[String], number: usize, rng: &mut Rng) -> String {
    let (x, _) = &table.columns[rng.usize(..table.columns.len())];
    let tied = format!("{}{}", columns[rng.usize(..columns.len())], direction(rng));
    let total = total_order(columns, rng);
    let rows = frame("ROWS", &|rng: &mut Rng| rng.u8(..4).to_string(), rng);
    let (call, order, frame) = match rng.u8(..12) {
        0 => ("row_number()".to_string(), total, ""),
        1 => ("rank()".into(), tied, ""),
        2 => ("dense_rank()".into(), tied, ""),
        3 => ("percent_rank()".into(), tied, ""),
        4 => ("cume_dist()".into(), tied, ""),
        5 => (format!("ntile({})", rng.u8(1..5)), total, ""),
        6 => (format!("lag({x}, {})", rng.u8(..4)), total, ""),
        7 => (format!("lead({x})"), total, ""),
        8 => ("lead(k, 2, -1)".into(), total, ""),
        9 => (format!("first_value({x})"), total, rows.as_str()),
        10 => (format!("last_value({x})"), total, rows.as_str()),
        _ => (format!("nth_value({x}, {})", rng.u8(1..4)), total, rows.as_str()),
    };
    format!("{call} OVER ({} {frame}) AS r{number}", over(table, &order, rng))
}

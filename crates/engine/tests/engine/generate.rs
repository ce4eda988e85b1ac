//! Random tables, rows and views out of what is supported.

use fastrand::Rng;

#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Kind {
    Int,
    BigInt,
    Text,
    Decimal,
    Double,
    Boolean,
    Date,
    Time,
}

impl Kind {
    const ALL: [Kind; 8] = [
        Kind::Int,
        Kind::BigInt,
        Kind::Text,
        Kind::Decimal,
        Kind::Double,
        Kind::Boolean,
        Kind::Date,
        Kind::Time,
    ];

    fn sql(self) -> &'static str {
        match self {
            Kind::Int => "INT",
            Kind::BigInt => "BIGINT",
            Kind::Text => "TEXT",
            Kind::Decimal => "DECIMAL(12,2)",
            Kind::Double => "DOUBLE PRECISION",
            Kind::Boolean => "BOOLEAN",
            Kind::Date => "DATE",
            Kind::Time => "TIMESTAMPTZ",
        }
    }

    pub(super) fn is_number(self) -> bool {
        matches!(self, Kind::Int | Kind::BigInt | Kind::Decimal | Kind::Double)
    }

    /// A literal out of few values, so that groups, ties and join partners happen.
    pub fn literal(self, rng: &mut Rng) -> String {
        if rng.u8(..8) == 0 {
            return "NULL".into();
        }
        match self {
            Kind::Int => rng.i32(-4..5).to_string(),
            Kind::BigInt => {
                let far = rng.u8(..16) == 0;
                if far { "9007199254740993".into() } else { rng.i64(-3..8).to_string() }
            }
            Kind::Text => format!("'{}'", ["", "a", "b", "ab", "ß", "x y", "pv"][rng.usize(..7)]),
            Kind::Decimal => format!("{}.{:02}", rng.i32(-20..40), rng.u8(..100)),
            Kind::Double => ["0.5", "-1.25", "1e10", "3.0", "0.1", "-7.75"][rng.usize(..6)].into(),
            Kind::Boolean => ["true", "false"][rng.usize(..2)].into(),
            Kind::Date => format!("DATE '2024-0{}-1{}'", rng.u8(1..4), rng.u8(..3)),
            Kind::Time => {
                format!("TIMESTAMPTZ '2024-03-01 0{}:{:02}:0{}+00'", rng.u8(..3), rng.u8(..60), rng.u8(..10))
            }
        }
    }
}

/// Rows that came less rows that went, out of a changelog.
const STANDING: &str = "sum(CASE WHEN changelog_op IN (1, 3) THEN 1 ELSE -1 END)";

/// As [`Table::changelog`], of a view, whose columns need not be known.
pub fn changelog_of_view(view: &str) -> (String, String) {
    let definition = format!("WITH c AS CHANGELOG FROM {view} SELECT COALESCE({STANDING}, 0) AS n FROM c");
    (definition, format!("SELECT count(*) AS n FROM {view}"))
}

pub struct Table {
    pub name: String,
    pub columns: Vec<(String, Kind)>,
    pub keyed: bool,
    pub append_only: bool,
    /// Number of the next row; event tables are in order up to their watermark's delay.
    pub next: i64,
    pub events: bool,
}

impl Table {
    pub fn random(rng: &mut Rng, name: &str, events: bool) -> Table {
        let columns = (0..rng.usize(2..6))
            .map(|i| (format!("c{i}"), Kind::ALL[rng.usize(..Kind::ALL.len())]))
            .collect();
        let append_only = events || rng.u8(..3) == 0;
        let keyed = !append_only && rng.bool();
        Table { name: name.into(), columns, keyed, append_only, next: 0, events }
    }

    pub fn create(&self) -> String {
        let mut columns =
            vec![if self.keyed { "k BIGINT PRIMARY KEY".to_string() } else { "k BIGINT".to_string() }];
        columns.extend(self.columns.iter().map(|(n, k)| format!("{n} {}", k.sql())));
        if self.events {
            columns.push("ts TIMESTAMPTZ NOT NULL".into());
            columns.push("WATERMARK FOR ts AS ts - INTERVAL '10 seconds'".into());
        }
        let tail = if self.append_only { " APPEND ONLY" } else { "" };
        format!("CREATE TABLE {} ({}){tail}", self.name, columns.join(", "))
    }

    /// A statement that changes the table.
    pub fn change(&mut self, rng: &mut Rng) -> String {
        let kind = if self.append_only { 0 } else { rng.u8(..6) };
        match kind {
            0..=3 => {
                let rows: Vec<String> = (0..rng.usize(1..12)).map(|_| self.row(rng)).collect();
                format!("INSERT INTO {} VALUES {}", self.name, rows.join(", "))
            }
            4 => {
                let (column, kind) = &self.columns[rng.usize(..self.columns.len())];
                format!(
                    "UPDATE {} SET {column} = {} WHERE {}",
                    self.name,
                    kind.literal(rng),
                    self.condition(rng)
                )
            }
            _ => format!("DELETE FROM {} WHERE {}", self.name, self.condition(rng)),
        }
    }

    fn row(&mut self, rng: &mut Rng) -> String {
        self.next += 1;
        let key = if self.keyed { rng.i64(0..30) } else { rng.i64(0..8) };
        let mut cells = vec![key.to_string()];
        cells.extend(self.columns.iter().map(|(_, k)| k.literal(rng)));
        if self.events {
            // At most 10 seconds behind the newest.
            let second = self.next * 7 + 20 - rng.i64(0..10);
            cells.push(format!("to_timestamp({})", 1_700_000_000 + second));
        }
        format!("({})", cells.join(", "))
    }

    pub(super) fn all_columns(&self) -> Vec<String> {
        let mut names = vec!["k".to_string()];
        names.extend(self.columns.iter().map(|(n, _)| n.clone()));
        names
    }

    pub fn condition(&self, rng: &mut Rng) -> String {
        let (column, kind) = &self.columns[rng.usize(..self.columns.len())];
        match rng.u8(..7) {
            0 => format!("{column} IS NULL"),
            1 => format!("{column} IS NOT NULL"),
            2 => format!("k % 3 = {}", rng.u8(..3)),
            3 => format!("k IN ({}, {}, {})", rng.i64(0..9), rng.i64(0..9), rng.i64(0..30)),
            4 if *kind == Kind::Boolean => column.clone(),
            _ => {
                let operator = ["=", "<>", "<", "<=", ">", ">="][rng.usize(..6)];
                let mut literal = kind.literal(rng);
                if literal == "NULL" {
                    literal = "k::text".into();
                    return format!("COALESCE({column}::text, '') {operator} {literal}");
                }
                format!("{column} {operator} {literal}")
            }
        }
    }

    fn aggregate(&self, rng: &mut Rng, prefix: &str, name: usize) -> String {
        let (column, kind) = &self.columns[rng.usize(..self.columns.len())];
        let x = format!("{prefix}{column}");
        let filter = if rng.u8(..5) == 0 {
            format!(" FILTER (WHERE {prefix}k > {})", rng.i64(0..6))
        } else {
            String::new()
        };
        let call = match rng.u8(..10) {
            0 => "count(*)".to_string(),
            1 => format!("count({x})"),
            2 => format!("count(DISTINCT {x})"),
            3 | 4 if kind.is_number() => format!("sum({x})"),
            5 if kind.is_number() => format!("avg({x})"),
            6 if *kind != Kind::Boolean => format!("min({x})"),
            7 if *kind != Kind::Boolean => format!("max({x})"),
            8 if *kind == Kind::Boolean => format!("bool_and({x})"),
            9 if *kind == Kind::Boolean => format!("bool_or({x})"),
            8 if *kind == Kind::Text => return format!("string_agg({x}, ',' ORDER BY {x}) AS a{name}"),
            9 if *kind == Kind::Int => return format!("array_agg({x} ORDER BY {x}) AS a{name}"),
            _ => "sum(k)".replace('k', &format!("{prefix}k")),
        };
        format!("{call}{filter} AS a{name}")
    }

    pub(super) fn aggregates(&self, rng: &mut Rng, prefix: &str) -> String {
        let mut ordered = false;
        let mut calls = Vec::new();
        for name in 0..rng.usize(1..4) {
            let call = self.aggregate(rng, prefix, name);
            // The batch query can't do two orders at once.
            if !call.contains("ORDER BY") || !std::mem::replace(&mut ordered, true) {
                calls.push(call);
            }
        }
        calls.join(", ")
    }

    pub(super) fn keys(&self, rng: &mut Rng) -> Vec<String> {
        let names = self.all_columns();
        let mut keys: Vec<String> = Vec::new();
        for _ in 0..rng.usize(1..3) {
            let name = &names[rng.usize(..names.len())];
            if !keys.contains(name) {
                keys.push(name.clone());
            }
        }
        keys
    }

    /// A query over this table, or over both.
    pub fn query(&self, other: &Table, rng: &mut Rng) -> String {
        let t = &self.name;
        let filter = if rng.bool() { format!(" WHERE {}", self.condition(rng)) } else { String::new() };
        // Two thirds of the shapes are in the files beside this one.
        match rng.u8(..3) {
            0 => return super::generate_windows::query(self, &filter, rng),
            1 => return self.select(other, rng),
            _ => {}
        }
        let shapes = if self.events { 12 } else { 9 };
        match rng.u8(..shapes) {
            8 => self.join(other, rng),
            0 => {
                let columns = self.all_columns().join(", ");
                format!(
                    "SELECT {columns}, k * 2 + 1 AS e, CASE WHEN k > 3 THEN 'hi' ELSE 'lo' END AS w FROM {t}{filter}"
                )
            }
            1 => {
                let keys = self.keys(rng).join(", ");
                let having = if rng.u8(..4) == 0 { " HAVING count(*) > 1" } else { "" };
                format!(
                    "SELECT {keys}, {} FROM {t}{filter} GROUP BY {keys}{having}",
                    self.aggregates(rng, "")
                )
            }
            2 => format!("SELECT {} FROM {t}{filter}", self.aggregates(rng, "")),
            3 => format!("SELECT DISTINCT {} FROM {t}{filter}", self.keys(rng).join(", ")),
            4 => {
                let (a, b) = (self.condition(rng), other.condition(rng));
                format!(
                    "SELECT k, 'l' AS side FROM {t} WHERE {a} UNION ALL SELECT k, 'r' FROM {} WHERE {b}",
                    other.name
                )
            }
            5 => {
                let (mine, theirs) = (&self.columns[0].0, &other.columns[0].0);
                let extra = if rng.bool() { " AND l.k > 1" } else { "" };
                format!(
                    "SELECT l.k, l.{mine} AS x, r.{theirs} AS y FROM {t} l JOIN {} r ON l.k = r.k{extra}",
                    other.name
                )
            }
            6 => {
                let keys: Vec<String> = vec!["r.k".into()];
                format!(
                    "SELECT {} AS g, {} FROM {t} l JOIN {} r ON l.k = r.k GROUP BY {}",
                    keys[0],
                    self.aggregates(rng, "l."),
                    other.name,
                    keys[0]
                )
            }
            7 => {
                // The order has no ties between different rows.
                let names = self.all_columns();
                let order: Vec<String> = names
                    .iter()
                    .rev()
                    .map(|n| format!("{n}{}", if rng.bool() { " DESC" } else { "" }))
                    .collect();
                let columns = names.join(", ");
                let partition = &names[rng.usize(..names.len())];
                format!(
                    "SELECT {columns}, rn FROM (SELECT {columns}, ROW_NUMBER() OVER (PARTITION BY {partition} ORDER BY {}) AS rn FROM {t}{filter}) WHERE rn <= {}",
                    order.join(", "),
                    rng.u8(1..5)
                )
            }
            9 => {
                let window = [
                    "TUMBLE({t}, ts, INTERVAL '1 minute')",
                    "TUMBLE({t}, ts, INTERVAL '5 minutes', INTERVAL '30 seconds')",
                ];
                let window = window[rng.usize(..2)].replace("{t}", t);
                format!(
                    "SELECT window_start, window_end, {} FROM {window}{filter} GROUP BY window_start, window_end",
                    self.aggregates(rng, "")
                )
            }
            10 => {
                let window =
                    format!("HOP({t}, ts, INTERVAL '30 seconds', INTERVAL '{} seconds')", 30 * rng.u8(1..8));
                let key = self.keys(rng).remove(0);
                format!(
                    "SELECT window_start, {key}, {} FROM {window}{filter} GROUP BY window_start, window_end, {key}",
                    self.aggregates(rng, "")
                )
            }
            _ => {
                let window = format!("CUMULATE({t}, ts, INTERVAL '1 minute', INTERVAL '5 minutes')");
                format!(
                    "SELECT window_start, window_end, {} FROM {window}{filter} GROUP BY window_start, window_end",
                    self.aggregates(rng, "")
                )
            }
        }
    }

    /// A join of any kind with another table, on equal keys, on any predicate, or both.
    fn join(&self, other: &Table, rng: &mut Rng) -> String {
        let (t, u) = (&self.name, &other.name);
        let (mine, theirs) = (&self.columns[0].0, &other.columns[0].0);
        let on = match rng.u8(..5) {
            0 => "l.k = r.k AND l.k % 3 <> 1".to_string(),
            1 => format!("l.k = r.k AND (r.{theirs} IS NULL OR l.{mine} IS NOT NULL)"),
            2 => "l.k < r.k AND l.k > r.k - 3".to_string(),
            3 => "l.k IS NOT DISTINCT FROM r.k".to_string(),
            _ => "l.k = r.k".to_string(),
        };
        let filter = if rng.bool() { format!(" AND {}", self.condition(rng)) } else { String::new() };
        match rng.u8(..15) {
            12 => {
                let kind = ["LEFT", "RIGHT", "FULL", "INNER"][rng.usize(..4)];
                format!("SELECT k, l.{mine} AS x, r.{theirs} AS y FROM {t} l {kind} JOIN {u} r USING (k)")
            }
            13.. => self.gap_fill(rng).unwrap_or_else(|| self.asof_join(other, rng)),
            kind @ 0..=3 => {
                let kind = ["LEFT", "RIGHT", "FULL", "INNER"][kind as usize];
                // Not every predicate can be asked of a full join by the batch engine's planner.
                format!(
                    "SELECT l.k AS a, l.{mine} AS x, r.k AS b, r.{theirs} AS y FROM {t} l {kind} JOIN {u} r ON {on}"
                )
            }
            4 => format!(
                "SELECT l.k, l.{mine} FROM {t} l WHERE EXISTS (SELECT 1 FROM {u} r WHERE {on}){filter}"
            ),
            5 => format!(
                "SELECT l.k, l.{mine} FROM {t} l WHERE NOT EXISTS (SELECT 1 FROM {u} r WHERE {on}){filter}"
            ),
            6 => {
                let not = if rng.bool() { "NOT " } else { "" };
                let some = if rng.bool() { " WHERE k > 2" } else { "" };
                let x = ["k % 4", "NULLIF(k % 4, 1)"][rng.usize(..2)];
                let y = ["k % 5", "NULLIF(k % 5, 4)", "k % 5 + NULLIF(k, 3) - k"][rng.usize(..3)];
                format!("SELECT k, {mine} FROM {t} WHERE {x} {not}IN (SELECT {y} FROM {u}{some}){filter}")
            }
            9..=11 => self.asof_join(other, rng),
            7 => format!(
                "SELECT l.k, r.k AS other FROM {t} l CROSS JOIN (SELECT DISTINCT k FROM {u}) r WHERE l.k <= 4"
            ),
            _ => format!(
                "SELECT k, {mine} FROM {t} l WHERE k = 3 OR EXISTS (SELECT 1 FROM {u} r WHERE r.k = l.k AND r.{theirs} IS NOT NULL)"
            ),
        }
    }

    /// The sum of all changes, and the rows that it has to be.
    pub fn changelog(&self) -> (String, String) {
        let (columns, t) = (self.all_columns().join(", "), &self.name);
        let definition = format!(
            "WITH c AS CHANGELOG FROM {t} SELECT {columns}, {STANDING} AS n FROM c GROUP BY {columns} HAVING {STANDING} <> 0"
        );
        (definition, format!("SELECT {columns}, count(*) AS n FROM {t} GROUP BY {columns}"))
    }

    /// A row for every step between two rows, by a column of times.
    fn gap_fill(&self, rng: &mut Rng) -> Option<String> {
        let mut times = self.columns.iter().filter(|(_, k)| *k == Kind::Time).map(|(name, _)| name.as_str());
        let time = if self.events && rng.bool() { Some("ts") } else { times.next() }?;
        let partition = ["", " PARTITION BY k"][rng.usize(..2)];
        let mut fills = String::new();
        for (name, kind) in self.columns.iter().filter(|(name, _)| name != time) {
            match rng.u8(..3) {
                0 => fills.push_str(&format!(", LOCF({name})")),
                1 if kind.is_number() => fills.push_str(&format!(", INTERPOLATE({name})")),
                _ => {}
            }
        }
        let seconds = [40, 300][rng.usize(..2)];
        Some(format!(
            "SELECT * FROM GAP_FILL({}{partition}, {time}, INTERVAL '{seconds} seconds'{fills})",
            self.name
        ))
    }

    /// Each row beside the nearest one of the other table, by columns of one type.
    fn asof_join(&self, other: &Table, rng: &mut Rng) -> String {
        let mut pairs = vec![("k", "k")];
        for (mine, kind) in self.columns.iter().filter(|(_, k)| !matches!(k, Kind::Text | Kind::Boolean)) {
            let theirs = other.columns.iter().filter(|(_, other)| other == kind);
            pairs.extend(theirs.map(|(theirs, _)| (mine.as_str(), theirs.as_str())));
        }
        if self.events && other.events {
            pairs.extend([("ts", "ts"); 4]);
        }
        let (mine, theirs) = pairs[rng.usize(..pairs.len())];
        let key = ["l.k = r.k AND ", "l.k % 3 = r.k % 3 AND ", "NULLIF(l.k, 2) = NULLIF(r.k, 3) AND ", ""];
        let key = key[rng.usize(..key.len())];
        let kind = ["ASOF JOIN", "ASOF LEFT JOIN"][rng.usize(..2)];
        let operator = [">=", ">", "<=", "<"][rng.usize(..4)];
        let (x, y) = (&self.columns[0].0, &other.columns[0].0);
        let filter = if rng.u8(..3) == 0 { " WHERE l.k <> 5" } else { "" };
        format!(
            "SELECT l.k AS a, l.{x} AS x, r.k AS b, r.{y} AS y FROM {} l {kind} {} r ON {key}l.{mine} {operator} r.{theirs}{filter}",
            self.name, other.name
        )
    }
}

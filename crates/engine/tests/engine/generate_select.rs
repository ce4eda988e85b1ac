//! Random queries: set operations, grouping sets, constants, unnest, and the aggregates that keep more than sums.

use fastrand::Rng;

use super::generate::{Kind, Table};

impl Table {
    /// A query over this table, or over both.
    pub(super) fn select(&self, other: &Table, rng: &mut Rng) -> String {
        let t = &self.name;
        let filter = if rng.bool() { format!(" WHERE {}", self.condition(rng)) } else { String::new() };
        match rng.u8(..10) {
            0..=2 => self.set_operation(other, rng),
            3 => {
                let sets = self.grouping_sets(rng);
                let keys = self.all_columns();
                let (a, b) = (&keys[0], &keys[1]);
                let sets = sets.replace("$a", a).replace("$b", b);
                format!(
                    "SELECT {a}, {b}, GROUPING({a}, {b}) AS g, {} FROM {t}{filter} GROUP BY {sets}",
                    self.aggregates(rng, "")
                )
            }
            4 => {
                let (column, _) = self.column(rng);
                format!(
                    "SELECT k, e, n FROM {t}, unnest(ARRAY[{column}, {column}, NULL]) WITH ORDINALITY AS element(e, n){filter}"
                )
            }
            5 => {
                let series = "generate_series(1, k % 4)";
                match rng.u8(..3) {
                    0 => format!("SELECT k, {series} AS s FROM {t}{filter}"),
                    1 => format!("SELECT {t}.k, s, count(*) AS n FROM {t}, {series} AS s GROUP BY {t}.k, s"),
                    _ => format!(
                        "SELECT {t}.k, s FROM {t} LEFT JOIN LATERAL generate_series(1, {t}.k % 3) AS s ON true"
                    ),
                }
            }
            6 => {
                let condition = self.condition(rng);
                format!(
                    "SELECT k, 0 AS place FROM {t} WHERE {condition} UNION ALL VALUES (1, 1), (1, 1), (NULL, 2) UNION ALL SELECT 7, 7"
                )
            }
            _ => {
                let keys = self.keys(rng).join(", ");
                let calls: Vec<String> =
                    (0..rng.usize(1..4)).map(|i| format!("{} AS b{i}", self.call(rng))).collect();
                match rng.u8(..3) {
                    0 => format!("SELECT {} FROM {t}{filter}", calls.join(", ")),
                    _ => format!("SELECT {keys}, {} FROM {t}{filter} GROUP BY {keys}", calls.join(", ")),
                }
            }
        }
    }

    fn column(&self, rng: &mut Rng) -> (&str, Kind) {
        let (name, kind) = &self.columns[rng.usize(..self.columns.len())];
        (name, *kind)
    }

    /// Sides agree in types: keys, texts of the same kind, conditions.
    fn set_operation(&self, other: &Table, rng: &mut Rng) -> String {
        let operators = ["UNION", "INTERSECT", "INTERSECT ALL", "EXCEPT", "EXCEPT ALL"];
        let side = |table: &Table, rng: &mut Rng| {
            let (column, _) = table.column(rng);
            let filter = if rng.bool() { format!(" WHERE {}", table.condition(rng)) } else { String::new() };
            match rng.u8(..3) {
                0 => format!("SELECT k % 4 AS a, NULL::boolean AS b FROM {}{filter}", table.name),
                1 => format!("SELECT k % 4 AS a, {column} IS NULL::boolean AS b FROM {}{filter}", table.name),
                _ => format!("SELECT k % 4 AS a, k > 3 AS b FROM {}{filter}", table.name),
            }
        };
        let mut query = side(self, rng);
        for _ in 0..rng.usize(1..3) {
            let operator = operators[rng.usize(..operators.len())];
            query = format!("{query} {operator} {}", side(if rng.bool() { self } else { other }, rng));
        }
        query
    }

    fn grouping_sets(&self, rng: &mut Rng) -> &'static str {
        [
            "ROLLUP ($a, $b)",
            "CUBE ($a, $b)",
            "GROUPING SETS (($a, $b), ($b))",
            "GROUPING SETS (($a), ($b), ())",
        ][rng.usize(..4)]
    }

    /// A call whose answer does not depend on the order of rows, over columns where doubles are exact.
    fn call(&self, rng: &mut Rng) -> String {
        let (x, kind) = self.column(rng);
        let filter =
            if rng.u8(..5) == 0 { format!(" FILTER (WHERE k > {})", rng.i64(0..6)) } else { String::new() };
        let fraction = ["0", "0.25", "0.5", "0.9", "1"][rng.usize(..5)];
        let order = if rng.bool() { "" } else { " DESC" };
        let call =
            match rng.u8(..16) {
                0 if kind.is_number() => {
                    format!("percentile_cont({fraction}) WITHIN GROUP (ORDER BY {x}{order})")
                }
                1 if kind.is_number() => format!("median({x})"),
                2 if kind.is_number() => {
                    format!("approx_percentile({fraction}, 0.05) WITHIN GROUP (ORDER BY {x}{order})")
                }
                0..=3 => format!("percentile_disc({fraction}) WITHIN GROUP (ORDER BY {x}{order})"),
                4 | 5 => format!("mode() WITHIN GROUP (ORDER BY {x}{order})"),
                6 => format!("first_value({x} ORDER BY {x}, k)"),
                7 => format!("last_value({x} ORDER BY {x}, k)"),
                8 => format!("count(DISTINCT ({x}, k))"),
                9 => format!("approx_count_distinct({x})"),
                10 => ["bit_and(k)", "bit_or(k)", "bit_xor(k)"][rng.usize(..3)].to_string(),
                11 => ["var_pop(k)", "var_samp(k)", "stddev_pop(k)", "stddev_samp(k)"][rng.usize(..4)]
                    .to_string(),
                12 => "covar_pop(k, k * 2)".to_string(),
                13 => ["regr_count(k, k % 3)", "regr_avgx(k, k % 3)", "regr_sxx(k, k)"][rng.usize(..3)]
                    .to_string(),
                14 => format!("jsonb_agg({x} ORDER BY {x}, k)"),
                _ => format!("array_agg(DISTINCT {x} ORDER BY {x})"),
            };
        format!("{call}{filter}")
    }
}

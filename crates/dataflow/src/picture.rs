//! Text pictures of changes, for tests: data in, text out.
//!
//! ```text
//! + 1  2021-01-01T00:00:00Z  pv  NULL
//! - 1  2021-01-01T00:00:00Z  pv  7
//! ```

use std::collections::BTreeMap;

use arrow::util::display::{ArrayFormatter, FormatOptions};

use crate::ZSet;

/// The consolidated, sorted picture of the sum of `changes`: one line per distinct row,
/// its weight, then its columns separated by two spaces. Empty when all weights cancel out.
pub fn picture(changes: &[ZSet]) -> String {
    let mut sum: BTreeMap<String, i64> = BTreeMap::new();
    for change in changes {
        for (row, text) in row_texts(change).into_iter().enumerate() {
            *sum.entry(text).or_default() += change.weight(row);
        }
    }
    let mut out = String::new();
    for (text, weight) in sum {
        if weight != 0 {
            let sign = if weight > 0 { '+' } else { '-' };
            out.push_str(&format!("{sign} {}  {text}\n", weight.abs()));
        }
    }
    out
}

fn row_texts(change: &ZSet) -> Vec<String> {
    let options = FormatOptions::default().with_null("NULL");
    let formatters: Vec<ArrayFormatter<'_>> = change
        .rows()
        .columns()
        .iter()
        .map(|column| ArrayFormatter::try_new(column, &options).expect("every type prints"))
        .collect();
    (0..change.len())
        .map(|row| formatters.iter().map(|f| f.value(row).to_string()).collect::<Vec<_>>().join("  "))
        .collect()
}

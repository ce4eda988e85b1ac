//! Regular expressions where DataFusion has none: all matches, splitting, the matching part.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, ListBuilder, StringArray, StringBuilder};
use arrow::datatypes::{DataType, Field};
use datafusion::common::{Result, exec_datafusion_err};
use datafusion::logical_expr::ScalarUDF;
use regex::{Regex, RegexBuilder};

use super::plain::{Take, plain, text, text_array};

pub(super) fn all() -> Vec<ScalarUDF> {
    let lists = |types: &[DataType]| DataType::List(Arc::new(Field::new_list_field(text_array(types), true)));
    let takes = &[Take::Text, Take::Text, Take::Text];
    vec![
        plain("regexp_all_matches", takes, lists, all_matches).optional(1).udf(),
        plain("regexp_split_to_array", takes, text_array, split).optional(1).udf(),
        plain("regexp_substr", &[Take::Text, Take::Text], text, part).udf(),
    ]
}

/// Expressions of a column, of which most are the same.
#[derive(Default)]
struct Expressions {
    last: Option<(String, String, Regex)>,
}

impl Expressions {
    fn of(&mut self, pattern: &str, flags: &str) -> Result<&Regex> {
        let known = self.last.as_ref().is_some_and(|(p, f, _)| p == pattern && f == flags);
        if !known {
            let built = RegexBuilder::new(pattern)
                .case_insensitive(flags.contains('i'))
                .multi_line(flags.contains(['m', 'n']))
                .dot_matches_new_line(!flags.contains(['m', 'n', 'p']))
                .ignore_whitespace(flags.contains('x'))
                .build()
                .map_err(|error| exec_datafusion_err!("invalid regular expression: {error}"))?;
            self.last = Some((pattern.to_string(), flags.to_string(), built));
        }
        match &self.last {
            Some((_, _, regex)) => Ok(regex),
            None => Err(exec_datafusion_err!("a regular expression was built")),
        }
    }
}

/// Calls `f` with the text, pattern and flags of each row; `None` when one is NULL.
fn each_row(
    args: &[ArrayRef],
    rows: usize,
    mut f: impl FnMut(Option<(&str, &str, &str)>) -> Result<()>,
) -> Result<()> {
    let columns: Vec<&StringArray> = args.iter().map(|arg| arg.as_string::<i32>()).collect();
    for row in 0..rows {
        if columns.iter().any(|column| column.is_null(row)) {
            f(None)?;
            continue;
        }
        let flags = columns.get(2).map_or("", |flags| flags.value(row));
        f(Some((columns[0].value(row), columns[1].value(row), flags)))?;
    }
    Ok(())
}

/// What `regexp_matches` gives as rows: the groups of each match, or the match when there are none. Only the first
/// match counts without the flag `g`.
fn all_matches(args: &[ArrayRef], rows: usize) -> Result<ArrayRef> {
    let mut builder = ListBuilder::new(ListBuilder::new(StringBuilder::new()));
    let mut expressions = Expressions::default();
    each_row(args, rows, |row| {
        let Some((text, pattern, flags)) = row else {
            builder.append_null();
            return Ok(());
        };
        let regex = expressions.of(pattern, flags)?;
        let limit = if flags.contains('g') { usize::MAX } else { 1 };
        for found in regex.captures_iter(text).take(limit) {
            let first = usize::from(regex.captures_len() > 1);
            for group in found.iter().skip(first) {
                builder.values().values().append_option(group.map(|group| group.as_str()));
            }
            builder.values().append(true);
        }
        builder.append(true);
        Ok(())
    })?;
    Ok(Arc::new(builder.finish()))
}

fn split(args: &[ArrayRef], rows: usize) -> Result<ArrayRef> {
    let mut builder = ListBuilder::new(StringBuilder::new());
    let mut expressions = Expressions::default();
    each_row(args, rows, |row| {
        let Some((text, pattern, flags)) = row else {
            builder.append_null();
            return Ok(());
        };
        // An empty match neither at the start nor at the end cuts anything off.
        let mut start = 0;
        for found in expressions.of(pattern, flags)?.find_iter(text) {
            if found.is_empty() && (found.start() == 0 || found.start() == text.len()) {
                continue;
            }
            builder.values().append_value(&text[start..found.start()]);
            start = found.end();
        }
        builder.values().append_value(&text[start..]);
        builder.append(true);
        Ok(())
    })?;
    Ok(Arc::new(builder.finish()))
}

/// `substring(text FROM pattern)`: the first group of the first match, or the match when there is no group.
fn part(args: &[ArrayRef], rows: usize) -> Result<ArrayRef> {
    let mut builder = StringBuilder::new();
    let mut expressions = Expressions::default();
    each_row(args, rows, |row| {
        let Some((text, pattern, _)) = row else {
            builder.append_null();
            return Ok(());
        };
        let regex = expressions.of(pattern, "")?;
        let found = regex.captures(text).and_then(|found| match regex.captures_len() {
            1 => found.get(0),
            _ => found.get(1),
        });
        builder.append_option(found.map(|found| found.as_str()));
        Ok(())
    })?;
    Ok(Arc::new(builder.finish()))
}

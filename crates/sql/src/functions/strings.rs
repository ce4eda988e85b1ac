//! Texts: `format`, `quote_literal`, `quote_ident`, `like_escape`, and the positions of an array.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, ListArray, StringArray};
use arrow::datatypes::{DataType, Field, Int64Type};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion::common::{Result, exec_err};
use datafusion::logical_expr::ScalarUDF;

use super::plain::{Take, plain, text};

pub(super) fn all() -> Vec<ScalarUDF> {
    let bigints = |_: &[DataType]| DataType::List(Arc::new(Field::new_list_field(DataType::Int64, true)));
    vec![
        plain("format", &[Take::Text, Take::Any], text, format).optional(1).variadic().udf(),
        plain("quote_literal", &[Take::Text], text, |args, _| each(args, literal)).udf(),
        plain("quote_ident", &[Take::Text], text, |args, _| each(args, identifier)).udf(),
        plain("like_escape", &[Take::Text, Take::Text], text, like_escape).udf(),
        plain("array_subscripts", &[Take::Any, Take::Int], bigints, subscripts).optional(1).udf(),
    ]
}

fn each(args: &[ArrayRef], f: impl Fn(&str) -> String) -> Result<ArrayRef> {
    let texts = args[0].as_string::<i32>().iter().map(|text| text.map(&f));
    Ok(Arc::new(texts.collect::<StringArray>()))
}

fn literal(text: &str) -> String {
    let escape = if text.contains('\\') { " E" } else { "" };
    format!("{escape}'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}

/// A name as it is written in SQL. Reserved words are quoted by nobody who calls this for display.
pub(crate) fn identifier(text: &str) -> String {
    let plain = text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
        && text.chars().next().is_some_and(|c| !c.is_ascii_digit());
    if plain { text.to_string() } else { format!("\"{}\"", text.replace('"', "\"\"")) }
}

/// `format('%s of %I', x, y)`: `%s` a value, `%I` a name, `%L` a literal, `%%` a percent sign; `%2$s` takes the second.
fn format(args: &[ArrayRef], rows: usize) -> Result<ArrayRef> {
    let patterns = args[0].as_string::<i32>();
    let mut texts = Vec::with_capacity(rows);
    for row in 0..rows {
        texts.push(match patterns.is_valid(row) {
            true => Some(formatted(patterns.value(row), &args[1..], row)?),
            false => None,
        });
    }
    Ok(Arc::new(StringArray::from(texts)))
}

fn formatted(pattern: &str, values: &[ArrayRef], row: usize) -> Result<String> {
    let (mut out, mut next, mut chars) = (String::new(), 0, pattern.chars().peekable());
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let mut number = String::new();
        while let Some(digit) = chars.next_if(char::is_ascii_digit) {
            number.push(digit);
        }
        let position = match number.is_empty() {
            true => None,
            false if chars.next_if_eq(&'$').is_some() => number.parse::<usize>().ok(),
            false => return exec_err!("widths in format() are not supported"),
        };
        let kind = match chars.next() {
            Some('%') => {
                out.push('%');
                continue;
            }
            Some(kind @ ('s' | 'I' | 'L')) => kind,
            other => return exec_err!("unrecognized format() type specifier \"{}\"", other.unwrap_or(' ')),
        };
        let at = position.unwrap_or(next + 1);
        next = at;
        let Some(value) = at.checked_sub(1).and_then(|at| values.get(at)) else {
            return exec_err!("too few arguments for format()");
        };
        let is_null = value.is_null(row) || value.data_type().is_null();
        let shown = match is_null {
            true => String::new(),
            false => {
                ArrayFormatter::try_new(value.as_ref(), &FormatOptions::default())?.value(row).to_string()
            }
        };
        match (kind, is_null) {
            ('s', _) => out.push_str(&shown),
            ('L', true) => out.push_str("NULL"),
            ('L', false) => out.push_str(&literal(&shown)),
            (_, true) => return exec_err!("null values cannot be formatted as an SQL identifier"),
            _ => out.push_str(&identifier(&shown)),
        }
    }
    Ok(out)
}

/// A pattern of LIKE whose escape character is another one, with backslashes; `x LIKE p ESCAPE e` becomes a call.
fn like_escape(args: &[ArrayRef], _: usize) -> Result<ArrayRef> {
    let (patterns, escapes) = (args[0].as_string::<i32>(), args[1].as_string::<i32>());
    let converted = patterns.iter().zip(escapes.iter()).map(|(pattern, escape)| {
        let (Some(pattern), Some(escape)) = (pattern, escape) else { return Ok(None) };
        let mut escape = escape.chars();
        let (escape, more) = (escape.next(), escape.next());
        if more.is_some() {
            return exec_err!("invalid escape string: it has to be empty or one character");
        }
        let mut out = String::with_capacity(pattern.len());
        let mut chars = pattern.chars();
        while let Some(c) = chars.next() {
            if Some(c) == escape {
                let Some(next) = chars.next() else {
                    return exec_err!("LIKE pattern must not end with escape character");
                };
                out.push('\\');
                out.push(next);
            } else {
                out.extend((c == '\\').then_some('\\'));
                out.push(c);
            }
        }
        Ok(Some(out))
    });
    Ok(Arc::new(converted.collect::<Result<StringArray>>()?))
}

/// 1, 2, ... up to the length of an array; `generate_subscripts` makes rows of it.
fn subscripts(args: &[ArrayRef], rows: usize) -> Result<ArrayRef> {
    let dimension = match args.get(1) {
        Some(dimension) => dimension.as_primitive::<Int64Type>().clone(),
        None => Int64Array::from(vec![1; rows]),
    };
    let Some(arrays) = args[0].as_list_opt::<i32>() else {
        return exec_err!("generate_subscripts takes an array");
    };
    let lists = (0..rows).map(|row| {
        let present = arrays.is_valid(row) && dimension.is_valid(row) && dimension.value(row) == 1;
        present.then(|| (1..=i64::from(arrays.value_length(row))).map(Some))
    });
    Ok(Arc::new(ListArray::from_iter_primitive::<Int64Type, _, _>(lists)))
}

//! Result sets as a table for people, CSV, or one JSON object a row.

use std::io::{Result, Write};

use crate::cli::ResultFormat;

/// A result on its way out. CSV and JSON are written row by row; a table needs all rows for its widths.
pub(super) struct ResultSet {
    names: Vec<String>,
    types: Option<Vec<String>>,
    format: ResultFormat,
    rows: Vec<Vec<Option<String>>>,
    count: u64,
}

impl ResultSet {
    pub(super) fn new(names: Vec<String>, types: Option<Vec<String>>, format: ResultFormat) -> ResultSet {
        let types = types.filter(|types| types.len() == names.len());
        ResultSet { names, types, format, rows: vec![], count: 0 }
    }

    pub(super) fn add(&mut self, row: Vec<Option<String>>, out: &mut dyn Write) -> Result<()> {
        self.count += 1;
        match self.format {
            ResultFormat::Table => {
                self.rows.push(row);
                Ok(())
            }
            ResultFormat::Csv => {
                if self.count == 1 {
                    self.write_csv_header(out)?;
                }
                let fields: Vec<String> =
                    row.iter().map(|value| value.as_deref().map_or(String::new(), quote_csv)).collect();
                writeln!(out, "{}", fields.join(","))
            }
            ResultFormat::Json => {
                let fields: Vec<String> = (self.names.iter().zip(&row).enumerate())
                    .map(|(index, (name, value))| {
                        let type_name = self.types.as_ref().map_or("text", |types| types[index].as_str());
                        let name = serde_json::Value::from(name.as_str());
                        format!("{name}:{}", to_json(value.as_deref(), type_name))
                    })
                    .collect();
                writeln!(out, "{{{}}}", fields.join(","))
            }
        }
    }

    pub(super) fn end(self, out: &mut dyn Write) -> Result<()> {
        match self.format {
            ResultFormat::Table => self.write_table(out),
            ResultFormat::Csv if self.count == 0 => self.write_csv_header(out),
            _ => Ok(()),
        }
    }

    fn write_csv_header(&self, out: &mut dyn Write) -> Result<()> {
        let names: Vec<String> = self.names.iter().map(|name| quote_csv(name)).collect();
        writeln!(out, "{}", names.join(","))
    }

    fn write_table(&self, out: &mut dyn Write) -> Result<()> {
        let cells: Vec<Vec<String>> = self
            .rows
            .iter()
            .map(|row| row.iter().map(|v| v.as_deref().map_or(String::new(), shown)).collect())
            .collect();
        let columns = self.names.len();
        let width = |index: usize| {
            let cells = cells.iter().map(|row| row[index].chars().count());
            cells.chain([self.names[index].chars().count()]).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let numeric: Vec<bool> = (0..columns)
            .map(|index| {
                let mut cells =
                    cells.iter().map(|row| row[index].as_str()).filter(|cell| !cell.is_empty()).peekable();
                cells.peek().is_some() && cells.all(is_number)
            })
            .collect();
        let line = |cells: &[String], right: &dyn Fn(usize) -> bool| -> String {
            let padded = cells.iter().enumerate().map(|(index, cell)| {
                let gap = " ".repeat(widths[index].saturating_sub(cell.chars().count()));
                if right(index) { format!(" {gap}{cell} ") } else { format!(" {cell}{gap} ") }
            });
            padded.collect::<Vec<_>>().join("|").trim_end().to_string()
        };
        writeln!(out, "{}", line(&self.names, &|_| false))?;
        let rule: Vec<String> = widths.iter().map(|width| "-".repeat(width + 2)).collect();
        writeln!(out, "{}", rule.join("+"))?;
        for row in &cells {
            writeln!(out, "{}", line(row, &|index| numeric[index]))?;
        }
        writeln!(out, "({} row{})\n", self.count, if self.count == 1 { "" } else { "s" })
    }
}

/// A value on one line of a terminal: what could move the cursor is shown, not obeyed.
fn shown(value: &str) -> String {
    value
        .chars()
        .flat_map(|c| if c.is_control() { c.escape_default().collect::<Vec<_>>() } else { vec![c] })
        .collect()
}

fn is_number(cell: &str) -> bool {
    cell.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b'-' | b'+' | b'.' | b'e' | b'E'))
        && cell.bytes().any(|byte| byte.is_ascii_digit())
}

fn quote_csv(value: &str) -> String {
    if value.is_empty() || value.contains([',', '"', '\n', '\r']) {
        return format!("\"{}\"", value.replace('"', "\"\""));
    }
    value.to_string()
}

/// Numbers keep their digits; what JSON has no number for (NaN) is text.
fn to_json(value: Option<&str>, type_name: &str) -> String {
    let Some(value) = value else { return "null".to_string() };
    let as_is = match type_name {
        "int2" | "int4" | "int8" | "float4" | "float8" | "numeric" | "json" | "jsonb" => {
            serde_json::from_str::<serde::de::IgnoredAny>(value).is_ok()
        }
        "bool" => return if value == "t" { "true" } else { "false" }.to_string(),
        _ => false,
    };
    if as_is { value.to_string() } else { serde_json::Value::from(value).to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printed(format: ResultFormat, types: Option<&[&str]>) -> String {
        let types = types.map(|types| types.iter().map(|t| t.to_string()).collect());
        let mut result = ResultSet::new(vec!["name".into(), "cnt".into()], types, format);
        let mut out = vec![];
        result.add(vec![Some("a,\"b\"\n".into()), Some("5".into())], &mut out).unwrap();
        result.add(vec![None, Some("123.50".into())], &mut out).unwrap();
        result.end(&mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn tables_line_up() {
        let expected =
            " name    | cnt\n---------+--------\n a,\"b\"\\n |      5\n         | 123.50\n(2 rows)\n\n";
        assert_eq!(printed(ResultFormat::Table, None), expected);
    }

    #[test]
    fn csv_is_quoted_and_null_differs_from_empty() {
        assert_eq!(printed(ResultFormat::Csv, None), "name,cnt\n\"a,\"\"b\"\"\n\",5\n,123.50\n");
        assert_eq!(quote_csv(""), "\"\"");
        let mut out = vec![];
        ResultSet::new(vec!["a".into()], None, ResultFormat::Csv).end(&mut out).unwrap();
        assert_eq!(out, b"a\n");
    }

    #[test]
    fn json_knows_numbers_by_their_type() {
        let expected = "{\"name\":\"a,\\\"b\\\"\\n\",\"cnt\":5}\n{\"name\":null,\"cnt\":123.50}\n";
        assert_eq!(printed(ResultFormat::Json, Some(&["text", "numeric"])), expected);
        assert!(printed(ResultFormat::Json, None).contains("\"cnt\":\"5\""));
        assert_eq!(to_json(Some("NaN"), "float8"), "\"NaN\"");
        assert_eq!(to_json(Some("t"), "bool"), "true");
    }
}

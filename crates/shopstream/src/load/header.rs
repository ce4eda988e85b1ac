//! Whether the first line of a CSV file names its columns, or is a row already.
//!
//! A line in which any cell is the name of a column is a header. Where none is, the file has no header if the line
//! reads as values of the table's first columns, and a type says so: a text column takes anything and proves nothing.

use chrono::NaiveDate;
use serde_json::Value;

use super::times;
use crate::failure::{Failure, Result};

/// A column of the table that rows are sent to.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct TableColumn {
    pub(crate) name: String,
    pub(crate) sql_type: String,
    /// A row without it is rejected.
    pub(crate) required: bool,
}

impl TableColumn {
    /// The columns that rows may give, from the server's description of its tables; `None` when it knows no such
    /// table, which it says better itself when rows come.
    pub(crate) fn of_description(tables: &Value, table: &str) -> Option<Vec<TableColumn>> {
        let table = tables["tables"].as_array()?.iter().find(|described| described["name"] == *table)?;
        let given = table["columns"].as_array()?.iter().filter(|column| column["generated"].is_null());
        given
            .map(|column| {
                Some(TableColumn {
                    name: column["name"].as_str()?.to_string(),
                    sql_type: column["type"].as_str()?.to_lowercase(),
                    required: column["nullable"] == false && column["default"].is_null(),
                })
            })
            .collect()
    }

    /// Whether the cell is a value of the column's type; `None` when any text would be.
    fn fits(&self, cell: &str) -> Option<bool> {
        let sql_type = self.sql_type.as_str();
        let is = |names: &[&str]| names.iter().any(|name| sql_type.starts_with(name));
        if cell.is_empty() {
            return Some(!self.required);
        }
        if sql_type.ends_with("[]") || is(&["text", "varchar", "character", "json", "bytea"]) {
            return None;
        }
        Some(if is(&["bigint", "integer", "smallint"]) {
            cell.parse::<i64>().is_ok()
        } else if is(&["numeric", "decimal", "double", "real"]) {
            cell.parse::<f64>().is_ok_and(f64::is_finite)
        } else if is(&["boolean"]) {
            ["true", "false", "t", "f", "1", "0"].contains(&cell.to_lowercase().as_str())
        } else if is(&["timestamp"]) {
            times::parse(cell).is_some()
        } else if is(&["date"]) {
            NaiveDate::parse_from_str(cell, "%Y-%m-%d").is_ok()
        } else {
            return None;
        })
    }
}

/// What a first line is.
#[derive(Debug, PartialEq)]
pub(crate) enum FirstLine {
    Header,
    /// A row, whose cells are the table's first columns.
    Row(Vec<String>),
}

/// Judges the first line of a file that is loaded without `--columns`.
///
/// # Errors
/// A line that is neither a header nor a row of this table, with the flag that settles it.
pub(crate) fn judge(cells: &[String], columns: &[TableColumn], file: &str, table: &str) -> Result<FirstLine> {
    let names_column = |cell: &String| columns.iter().any(|column| column.name.eq_ignore_ascii_case(cell));
    if cells.iter().any(names_column) {
        return Ok(FirstLine::Header);
    }
    let names: Vec<String> = columns.iter().take(cells.len()).map(|column| column.name.clone()).collect();
    let verdicts: Vec<Option<bool>> =
        cells.iter().zip(columns).map(|(cell, column)| column.fits(cell.trim())).collect();
    let proved = cells.iter().zip(&verdicts).any(|(cell, fits)| !cell.is_empty() && *fits == Some(true));
    let complete =
        cells.len() <= columns.len() && columns[names.len()..].iter().all(|column| !column.required);
    if complete && proved && verdicts.iter().all(|fits| *fits != Some(false)) {
        return Ok(FirstLine::Row(names));
    }
    let shown: String = cells.join(",").chars().take(120).collect();
    let hint = match complete {
        true => format!(
            "if the file has no header, name its columns, for example --columns {}; if it has one, add --header and \
             --columns with the table's names",
            names.join(",")
        ),
        false => format!(
            "if the file has no header, name its {} columns with --columns; the table has {}",
            cells.len(),
            columns.iter().map(|column| column.name.as_str()).collect::<Vec<_>>().join(",")
        ),
    };
    Err(Failure::failed(format!("the first line of {file} names no column of table {table}: {shown}"))
        .hint(hint))
}

/// The cells of a CSV line, without their quotes.
pub(crate) fn cells(line: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(line);
    let mut cells = vec![String::new()];
    let mut quoted = false;
    for character in text.trim_end_matches(['\r', '\n']).chars() {
        match (character, cells.last_mut()) {
            ('"', _) => quoted = !quoted,
            (',', _) if !quoted => cells.push(String::new()),
            (character, Some(cell)) => cell.push(character),
            (_, None) => {}
        }
    }
    cells.into_iter().map(|cell| cell.trim().to_string()).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn columns() -> Vec<TableColumn> {
        let described = json!({"tables": [{"name": "clicks", "columns": [
            {"name": "user_id", "type": "bigint", "nullable": false, "default": null, "generated": null},
            {"name": "day", "type": "date", "nullable": true, "default": null, "generated": "CAST(ts AS DATE)"},
            {"name": "behavior", "type": "text", "nullable": false, "default": null, "generated": null},
            {"name": "ts", "type": "timestamp with time zone", "nullable": false, "default": null, "generated": null},
            {"name": "event_id", "type": "text", "nullable": true, "default": null, "generated": null},
        ]}]});
        assert_eq!(TableColumn::of_description(&described, "other"), None);
        TableColumn::of_description(&described, "clicks").unwrap()
    }

    fn judged(line: &str) -> Result<FirstLine> {
        judge(&cells(line.as_bytes()), &columns(), "x.csv", "clicks")
    }

    #[test]
    fn a_line_with_a_name_is_a_header() {
        for line in ["user_id,behavior,ts", "USER_ID,what,when\r\n", "\"ts\",7"] {
            assert_eq!(judged(line).unwrap(), FirstLine::Header, "{line}");
        }
    }

    #[test]
    fn values_that_fit_the_first_columns_are_a_row() {
        let all = ["user_id", "behavior", "ts", "event_id"];
        let names = |count: usize| all[..count].iter().map(ToString::to_string).collect();
        assert_eq!(judged("1,pv,1511658000\n").unwrap(), FirstLine::Row(names(3)));
        assert_eq!(judged("1,\"a,b\",2017-11-26T01:00:00Z,e-1").unwrap(), FirstLine::Row(names(4)));
    }

    #[test]
    fn anything_else_is_asked_back_with_the_flag_to_give() {
        for line in ["customer,kind,time", "1,pv,never", "1,pv", "1,pv,1511658000,e,x", ",pv,1511658000"] {
            let failure = judged(line).unwrap_err();
            assert!(failure.message.contains("x.csv names no column of table clicks"), "{failure:?}");
            assert!(failure.hint.unwrap().contains("--columns"), "{line}");
        }
        let hint = judged("customer,kind,time").unwrap_err().hint.unwrap();
        assert!(hint.contains("--columns user_id,behavior,ts;"), "{hint}");
        // Only texts: nothing proves that it is a row.
        let texts = [TableColumn { name: "a".into(), sql_type: "text".into(), required: false }];
        assert!(judge(&["x".to_string()], &texts, "x.csv", "t").is_err());
    }
}

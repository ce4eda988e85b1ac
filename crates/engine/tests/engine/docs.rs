//! The examples of docs/sql: every ```` ```sql ```` block is run, page by page, each page on a database of its own.
//!
//! A ```` ```text ```` block right after it holds the answer to its last statement, as psql prints it: a table, a
//! command tag with its notices before it, or an error with its hint. Without one, the statements have to succeed.
//! A block that begins with ```` ```sql,ignore ```` is not run. Rows of a query without ORDER BY are sorted.
//!
//! `UPDATE_DOCS=1 cargo test --workspace --test engine -- docs` writes the answers into the pages; read the diff.

use std::path::{Path, PathBuf};

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{DataType, SchemaRef, TimestampMicrosecondType};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use chrono::DateTime;
use sql::{SqlError, Statement};

use super::harness::{Answer, Harness};

fn pages() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/sql");
    let mut pages: Vec<PathBuf> = std::fs::read_dir(&folder).unwrap().map(|f| f.unwrap().path()).collect();
    pages.retain(|page| page.extension().is_some_and(|e| e == "md"));
    pages.sort();
    assert!(pages.len() >= 5, "the pages are found");
    pages
}

/// A fenced block of a page: the lines between the fences, by number.
struct Block {
    info: String,
    first: usize,
    end: usize,
}

fn blocks(lines: &[&str]) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut open: Option<(String, usize)> = None;
    for (number, line) in lines.iter().enumerate() {
        match (&open, line.strip_prefix("```")) {
            (None, Some(info)) => open = Some((info.trim().to_string(), number + 1)),
            (Some((info, first)), Some("")) => {
                blocks.push(Block { info: info.clone(), first: *first, end: number });
                open = None;
            }
            _ => {}
        }
    }
    assert!(open.is_none(), "a block is not closed");
    blocks
}

/// Runs a page; gives it back with the answers that came.
fn run(text: &str, restarts: bool) -> Result<String, String> {
    let lines: Vec<&str> = text.lines().collect();
    let blocks = blocks(&lines);
    let mut db = Harness::new(1);
    let mut out = Vec::new();
    let mut copied = 0;
    for (number, block) in blocks.iter().enumerate().filter(|(_, block)| block.info == "sql") {
        let sql = lines[block.first..block.end].join("\n");
        let expected = blocks.get(number + 1).filter(|next| {
            let between = lines.get(block.end + 1..next.first.saturating_sub(1)).unwrap_or_default();
            next.info == "text" && between.iter().all(|line| line.trim().is_empty())
        });
        let answer = match db.answers(&sql) {
            Ok(mut answers) => answers.pop().map(|(statement, answer)| shown(&statement.statement, &answer)),
            Err(error) if expected.is_some() => Some(shown_error(&error)),
            Err(error) => return Err(format!("line {}: {sql}\n{}", block.first, shown_error(&error))),
        };
        if restarts {
            db.restart();
        }
        if let Some(expected) = expected {
            out.extend(lines[copied..expected.first].iter().map(ToString::to_string));
            out.push(answer.unwrap_or_default());
            copied = expected.end;
        }
    }
    out.extend(lines[copied..].iter().map(ToString::to_string));
    Ok(out.join("\n") + "\n")
}

fn shown(statement: &Statement, answer: &Answer) -> String {
    match answer {
        Answer::Command { tag, notices } => {
            let notices = notices.iter().map(|n| {
                let hint = n.hint.as_ref().map_or(String::new(), |hint| format!("\nHINT:  {hint}"));
                format!("NOTICE:  {}{hint}", n.message)
            });
            notices.chain([tag.clone()]).collect::<Vec<_>>().join("\n")
        }
        Answer::Rows { schema, batches } => {
            let mut rows: Vec<Vec<String>> = batches.iter().flat_map(cells).collect();
            if matches!(statement, Statement::Query(query) if query.order_by.is_none()) {
                rows.sort();
            }
            table(schema, &rows)
        }
    }
}

fn shown_error(error: &SqlError) -> String {
    let detail = error.detail.as_ref().map_or(String::new(), |detail| format!("\nDETAIL:  {detail}"));
    let hint = error.hint.as_ref().map_or(String::new(), |hint| format!("\nHINT:  {hint}"));
    format!("ERROR:  {}{detail}{hint}", error.message)
}

/// As psql aligns it, without trailing spaces.
fn table(schema: &SchemaRef, rows: &[Vec<String>]) -> String {
    let names: Vec<String> = schema.fields().iter().map(|f| f.name().clone()).collect();
    let widths: Vec<usize> = (0..names.len())
        .map(|c| {
            rows.iter().map(|r| r[c].chars().count()).chain([names[c].chars().count()]).max().unwrap_or(0)
        })
        .collect();
    let right = |c: usize| schema.field(c).data_type().is_numeric();
    let line = |cells: &[String], centred: bool| {
        let padded = cells.iter().enumerate().map(|(c, cell)| match (centred, right(c)) {
            (true, _) => format!(" {cell:^width$} ", width = widths[c]),
            (false, true) => format!(" {cell:>width$} ", width = widths[c]),
            (false, false) => format!(" {cell:<width$} ", width = widths[c]),
        });
        padded.collect::<Vec<_>>().join("|").trim_end().to_string()
    };
    let rule = widths.iter().map(|w| "-".repeat(w + 2)).collect::<Vec<_>>().join("+");
    let count = if rows.len() == 1 { "(1 row)".to_string() } else { format!("({} rows)", rows.len()) };
    let body = rows.iter().map(|row| line(row, false));
    [line(&names, true), rule].into_iter().chain(body).chain([count]).collect::<Vec<_>>().join("\n")
}

fn cells(batch: &RecordBatch) -> Vec<Vec<String>> {
    let options = FormatOptions::default();
    let cell = |column: &dyn Array, row: usize| match column.data_type() {
        _ if column.is_null(row) => String::new(),
        DataType::Boolean => if column.as_boolean().value(row) { "t" } else { "f" }.to_string(),
        DataType::Timestamp(_, zone) => {
            let us = column.as_primitive::<TimestampMicrosecondType>().value(row);
            let time = DateTime::from_timestamp_micros(us).unwrap().format("%Y-%m-%d %H:%M:%S%.f");
            format!("{time}{}", if zone.is_some() { "+00" } else { "" })
        }
        _ => ArrayFormatter::try_new(column, &options).unwrap().value(row).to_string(),
    };
    let rows = 0..batch.num_rows();
    rows.map(|row| batch.columns().iter().map(|column| cell(column.as_ref(), row)).collect()).collect()
}

fn check(restarts: bool) {
    let mut wrong = Vec::new();
    for page in pages() {
        let text = std::fs::read_to_string(&page).unwrap();
        match run(&text, restarts) {
            Err(error) => wrong.push(format!("{}: {error}", page.display())),
            Ok(now) if now == text => {}
            Ok(now) if std::env::var_os("UPDATE_DOCS").is_some() => std::fs::write(&page, now).unwrap(),
            Ok(now) => {
                let differs = text.lines().zip(now.lines()).enumerate().find(|(_, (a, b))| a != b);
                let (line, (written, came)) = differs.unwrap_or((0, ("", "a line more or less")));
                wrong.push(format!(
                    "{}:{}: the page says\n  {written}\nand the answer is\n  {came}",
                    page.display(),
                    line + 1
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{}\n(UPDATE_DOCS=1 writes the answers into the pages)", wrong.join("\n\n"));
}

#[test]
fn examples_give_what_the_pages_say() {
    check(false);
}

#[test]
fn examples_give_the_same_with_a_restart_after_each() {
    if std::env::var_os("UPDATE_DOCS").is_none() {
        check(true);
    }
}

//! CSV and NDJSON files cut at the ends of rows; the server reads the rows themselves.
//!
//! A CSV chunk begins with a line that names the columns, given by `--columns`, copied from the file's first line, or
//! taken from the table, so that every request stands by itself. A line break within quotes does not end a row.

use std::io::BufRead;
use std::path::Path;

use super::{CHUNK_BYTES_MAX, Chunk, Chunks};
use crate::cli::{FileFormat, LoadFlags};
use crate::failure::{Failure, Result};
use crate::load::header::{FirstLine, TableColumn, cells, judge};
use crate::load::input::Input;

/// A quoted value longer than this is taken for a missing quote, and ends at its line; the server says what is
/// wrong with it.
const ROW_BYTES_MAX: usize = 1 << 20;

/// A CSV or NDJSON file, and how it is to be read.
pub(crate) struct TextFile<'a> {
    pub(crate) path: &'a Path,
    pub(crate) format: FileFormat,
    pub(crate) flags: &'a LoadFlags,
    /// Columns of the table, where they decide whether the first line names columns.
    pub(crate) table_columns: Option<Vec<TableColumn>>,
}

/// The rows of a text file, one at a time.
pub(crate) struct Lines {
    reader: Box<dyn BufRead + Send>,
    name: String,
    pub(crate) format: FileFormat,
    /// CSV: the line that names the columns, with its line end.
    pub(crate) header: Vec<u8>,
    /// The file has no such line: its first one is a row, which is read next.
    first_row: Option<Vec<u8>>,
}

impl Lines {
    pub(crate) fn open(input: Input, file: &TextFile<'_>) -> Result<Lines> {
        let TextFile { path, format, flags, table_columns } = file;
        let name = path.display().to_string();
        let mut lines =
            Lines { reader: input.reader, name, format: *format, header: vec![], first_row: None };
        lines.skip_byte_order_mark()?;
        if lines.format == FileFormat::Ndjson {
            lines.refuse_array()?;
            return Ok(lines);
        }
        let mut first = vec![];
        if flags.header || flags.columns.is_none() {
            lines.next(&mut first)?;
        }
        if let Some(columns) = &flags.columns {
            lines.header = header_line(columns);
            return Ok(lines);
        }
        let judged = match table_columns.as_ref().filter(|_| !flags.header && !first.is_empty()) {
            Some(columns) => judge(&cells(&first), columns, &lines.name, &flags.table)?,
            None => FirstLine::Header,
        };
        match judged {
            FirstLine::Header => lines.header = first,
            FirstLine::Row(columns) => {
                lines.header = header_line(&columns);
                lines.first_row = Some(first);
            }
        }
        Ok(lines)
    }

    /// Says how a file without header is read.
    pub(crate) fn announce(&self) {
        if self.first_row.is_some() {
            let columns = String::from_utf8_lossy(&self.header);
            let columns = columns.trim_end();
            eprintln!(
                "note: {} has no header; its columns are taken for {columns} (otherwise give --columns)",
                self.name
            );
        }
    }

    fn skip_byte_order_mark(&mut self) -> Result {
        let start = self.reader.fill_buf().map_err(|error| Failure::io("read", &self.name, &error))?;
        if start.starts_with(b"\xef\xbb\xbf") {
            self.reader.consume(3);
        }
        Ok(())
    }

    fn refuse_array(&mut self) -> Result {
        let start = self.reader.fill_buf().map_err(|error| Failure::io("read", &self.name, &error))?;
        if start.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'[') {
            return Err(Failure::failed(format!(
                "{} holds one JSON array, expected an object per line",
                self.name
            ))
            .hint("`jq -c '.[]' FILE` writes one object per line"));
        }
        Ok(())
    }

    /// Appends the next row with its line end to `row`. False at the end of the file.
    pub(crate) fn next(&mut self, row: &mut Vec<u8>) -> Result<bool> {
        if let Some(first) = self.first_row.take() {
            row.extend_from_slice(&first);
            return Ok(true);
        }
        let start = row.len();
        let mut quotes = 0;
        loop {
            let read = row.len();
            let count = self
                .reader
                .read_until(b'\n', row)
                .map_err(|error| Failure::io("read", &self.name, &error))?;
            if count == 0 {
                break;
            }
            if self.format == FileFormat::Csv {
                quotes += row[read..].iter().filter(|byte| **byte == b'"').count();
            }
            let blank = row[start..].iter().all(|byte| byte.is_ascii_whitespace());
            if blank {
                row.truncate(start);
            } else if quotes % 2 == 0 || row.len() - start > ROW_BYTES_MAX {
                break;
            }
        }
        if row.len() > start && row.last() != Some(&b'\n') {
            row.push(b'\n');
        }
        Ok(row.len() > start)
    }

    pub(crate) fn content_type(&self) -> &'static str {
        match self.format {
            FileFormat::Csv => "text/csv; header=present",
            _ => "application/x-ndjson",
        }
    }
}

fn header_line(columns: &[String]) -> Vec<u8> {
    let names: Vec<String> = columns.iter().map(|name| quote_csv(name.trim())).collect();
    format!("{}\n", names.join(",")).into_bytes()
}

fn quote_csv(name: &str) -> String {
    if name.contains([',', '"', '\n']) {
        format!("\"{}\"", name.replace('"', "\"\""))
    } else {
        name.to_string()
    }
}

pub(crate) struct LineChunks {
    lines: Lines,
    batch_rows: u64,
}

impl LineChunks {
    pub(crate) fn new(lines: Lines, flags: &LoadFlags) -> LineChunks {
        LineChunks { lines, batch_rows: u64::from(flags.batch_rows) }
    }
}

impl Chunks for LineChunks {
    fn next_chunk(&mut self) -> Result<Option<Chunk>> {
        let mut body = self.lines.header.to_vec();
        let mut rows = 0;
        while rows < self.batch_rows && body.len() < CHUNK_BYTES_MAX && self.lines.next(&mut body)? {
            rows += 1;
        }
        Ok((rows > 0).then_some(Chunk { body, rows, due: None }))
    }

    fn content_type(&self) -> &'static str {
        self.lines.content_type()
    }
}

//! COPY table FROM STDIN: a stream of text or CSV, cut at row ends into pieces that are decoded and made
//! durable one after another.
//!
//! ```text
//! CopyData ... --> buffer --[`RowCutter`]--> piece of whole rows --connectors--> DecodedRows --> Database::ingest
//! ```
//!
//! A piece is accepted as a whole; a COPY that ends early keeps the pieces before. Rows that cannot be used go
//! to `rejected_rows` and do not stop the rest.

use std::sync::Arc;

use bytes::{Buf, BytesMut};
use connectors::format::csv::{CsvDecoder, CsvOptions, Header};
use connectors::format::pg_text::{PgTextDecoder, PgTextOptions};
use dataflow::{DecodedRows, RejectedRow};
use engine::{CopyTarget, Database, IngestMeta};
use pgwire::messages::copy::CopyInResponse;
use sql::statement::CopyFormat;
use sql::{SqlError, SqlState, TableDef};

use super::connection::Failure;
use super::errors::{PgError, code};
use super::frontend::{MESSAGE_BYTES_MAX, Message};
use super::wire::{Guard, Interrupt, Wire};

/// A piece is decoded and written when it has grown to this size: large enough that the wait for the disk is
/// small against the work, small enough to stay in memory a hundred times over.
const PIECE_BYTES: usize = 4 * 1024 * 1024;

/// A piece may grow to this size while no row ends in it.
const PIECE_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Reasons that are told to the client; all of them are in `rejected_rows`.
const REASONS_MAX: usize = 5;

/// Takes the client's rows to the end; returns the command tag.
pub async fn receive(
    wire: &mut Wire,
    guard: &Guard,
    db: &Arc<Database>,
    copy: &CopyTarget,
) -> Result<String, Failure> {
    let mut intake = Intake::new(db, copy)?;
    wire.put(CopyInResponse::new(0, copy.columns.len() as i16, vec![0; copy.columns.len()]));
    loop {
        let frame = wire.frame_guarded(guard, MESSAGE_BYTES_MAX).await??;
        let kind = frame.kind;
        match frame.read()? {
            Message::CopyData(data) => {
                intake.buffer.extend_from_slice(&data);
                while intake.buffer.len() >= PIECE_BYTES {
                    let Some(end) = intake.cutter.row_end(&intake.buffer)? else { break };
                    intake.take(wire, guard, end).await?;
                }
            }
            Message::CopyDone => break,
            Message::CopyFail(reason) => {
                let message = format!("COPY from stdin failed: {reason}");
                return Err(PgError::error(code::QUERY_CANCELED, message).into());
            }
            // Drivers pipeline these behind the Execute that began the COPY; PostgreSQL ignores them too.
            Message::Flush | Message::Sync => {}
            Message::Terminate => return Err(Interrupt::Closed.into()),
            _ => {
                let message = format!("unexpected message type 0x{kind:02X} during COPY from stdin");
                return Err(PgError::error(code::PROTOCOL_VIOLATION, message).into());
            }
        }
    }
    let rest = intake.buffer.len();
    intake.take(wire, guard, rest).await?;
    if let Some(warning) = intake.report.warning(&copy.table) {
        wire.put_error(warning);
    }
    Ok(format!("COPY {}", intake.report.accepted))
}

/// One COPY on its way.
struct Intake<'a> {
    db: &'a Database,
    table: &'a str,
    decoder: Decoder,
    cutter: RowCutter,
    /// Bytes of rows that were not taken yet.
    buffer: BytesMut,
    report: Report,
    /// The end mark `\.` of the text format was seen; what follows is not read.
    ended: bool,
}

impl<'a> Intake<'a> {
    fn new(db: &'a Database, copy: &'a CopyTarget) -> Result<Intake<'a>, SqlError> {
        let table = db.table(&copy.table).ok_or_else(|| {
            SqlError::new(SqlState::UndefinedTable, format!("table \"{}\" does not exist", copy.table))
        })?;
        Ok(Intake {
            db,
            table: &copy.table,
            decoder: Decoder::new(&table, copy)?,
            cutter: RowCutter::new(copy.format, copy.delimiter),
            buffer: BytesMut::new(),
            report: Report::default(),
            ended: false,
        })
    }

    /// Decodes the first `end` bytes and makes their rows durable.
    async fn take(&mut self, wire: &mut Wire, guard: &Guard, end: usize) -> Result<(), Failure> {
        let body = self.buffer[..end].to_vec();
        self.buffer.advance(end);
        self.cutter.cut(end);
        if body.is_empty() || self.ended {
            return Ok(());
        }
        self.ended = self.cutter.format == CopyFormat::Text && holds_end_mark(&body);
        // Milliseconds of work, which must not keep other connections waiting.
        let decoder = self.decoder.clone();
        let decoding = tokio::task::spawn_blocking(move || {
            let rows = decoder.decode(&body);
            (rows, body)
        });
        let (rows, body) = wire
            .guarded(guard, decoding)
            .await?
            .map_err(|error| PgError::error(code::INTERNAL, format!("decode rows of COPY: {error}")))?;
        self.decoder.header_is_read();
        let rows_in_piece = rows_read(&rows);
        let meta = IngestMeta { idempotency_key: None, origin: "copy".to_string(), body };
        let receipt = wire.guarded(guard, self.db.ingest(self.table, rows, meta)).await??;
        self.report.add(receipt.accepted, receipt.rejected, rows_in_piece);
        Ok(())
    }
}

/// Rows of a body, the rejected ones included.
fn rows_read(rows: &DecodedRows) -> u64 {
    let last_read = rows.row_numbers.last().copied();
    let last_rejected = rows.rejected.iter().map(|row| row.row_number).max();
    last_read.max(last_rejected).map_or(0, |last| u64::from(last) + 1)
}

/// What became of the rows so far.
#[derive(Default)]
struct Report {
    accepted: u64,
    rejected: u64,
    /// Of the first rejected rows.
    reasons: Vec<String>,
    rows_before: u64,
}

impl Report {
    fn add(&mut self, accepted: u64, rejected: Vec<RejectedRow>, rows_in_piece: u64) {
        self.accepted += accepted;
        self.rejected += rejected.len() as u64;
        for row in rejected.iter().take(REASONS_MAX - self.reasons.len()) {
            let number = self.rows_before + u64::from(row.row_number) + 1;
            let column =
                row.column.as_ref().map(|column| format!(", column \"{column}\"")).unwrap_or_default();
            self.reasons.push(format!("row {number}{column}: {}", row.message));
        }
        self.rows_before += rows_in_piece;
    }

    fn warning(&self, table: &str) -> Option<PgError> {
        if self.rejected == 0 {
            return None;
        }
        let (rows, were) = if self.rejected == 1 { ("row", "was") } else { ("rows", "were") };
        let mut detail = self.reasons.join("\n");
        if self.rejected > self.reasons.len() as u64 {
            detail.push_str(&format!("\nand {} more", self.rejected - self.reasons.len() as u64));
        }
        let message = format!("{} {rows} of table \"{table}\" {were} rejected", self.rejected);
        Some(
            PgError::warning(code::WARNING, message)
                .with_detail(detail)
                .with_hint("SELECT * FROM rejected_rows shows them with their reasons"),
        )
    }
}

#[derive(Clone)]
enum Decoder {
    Text { first: Arc<PgTextDecoder>, rest: Arc<PgTextDecoder> },
    Csv { first: Arc<CsvDecoder>, rest: Arc<CsvDecoder> },
}

impl Decoder {
    fn new(table: &TableDef, copy: &CopyTarget) -> Result<Decoder, SqlError> {
        let schema = table.input_schema();
        let columns = copy
            .columns
            .iter()
            .map(|name| {
                schema.index_of(name).map_err(|_| {
                    let message = format!(
                        "column \"{name}\" of table \"{}\" does not exist or is generated",
                        table.name
                    );
                    SqlError::new(SqlState::UndefinedColumn, message)
                })
            })
            .collect::<Result<Vec<_>, _>>()?;
        // The decoders take each column once.
        if let Some(at) = (1..columns.len()).find(|at| columns[..*at].contains(&columns[*at])) {
            let message = format!("column \"{}\" specified more than once", copy.columns[at]);
            return Err(SqlError::new(SqlState::DuplicateColumn, message));
        }
        let decoder = match copy.format {
            CopyFormat::Text => {
                let decoder = |header| {
                    let (delimiter, null) = (copy.delimiter, copy.null.clone());
                    let options = PgTextOptions { delimiter, null, header, ..PgTextOptions::default() };
                    Arc::new(PgTextDecoder::new(&schema, &columns, options))
                };
                Decoder::Text { first: decoder(copy.header), rest: decoder(false) }
            }
            CopyFormat::Csv => {
                let decoder = |header| {
                    let (delimiter, null) = (copy.delimiter, copy.null.clone());
                    let options = CsvOptions { delimiter, null, header, ..CsvOptions::default() };
                    Arc::new(CsvDecoder::new(&schema, &columns, options))
                };
                let header = if copy.header { Header::Skipped } else { Header::Absent };
                Decoder::Csv { first: decoder(header), rest: decoder(Header::Absent) }
            }
        };
        Ok(decoder)
    }

    fn decode(&self, body: &[u8]) -> DecodedRows {
        match self {
            Decoder::Text { first, .. } => first.decode(body),
            Decoder::Csv { first, .. } => first.decode(body),
        }
    }

    fn header_is_read(&mut self) {
        match self {
            Decoder::Text { first, rest } => *first = Arc::clone(rest),
            Decoder::Csv { first, rest } => *first = Arc::clone(rest),
        }
    }
}

/// Finds where rows end, reading every byte once.
struct RowCutter {
    format: CopyFormat,
    delimiter: u8,
    /// Bytes of the buffer that were looked at.
    seen: usize,
    /// Behind the last row end seen in the buffer, 0 without one.
    last_end: usize,
    /// Behind the last line feed, which inside quotes ends no row.
    last_line: usize,
    csv: CsvState,
    /// Text: an odd number of backslashes stands before the next byte.
    escaped: bool,
}

#[derive(Clone, Copy, PartialEq)]
enum CsvState {
    FieldStart,
    Unquoted,
    Quoted,
    /// Behind a quote inside a quoted field: the field's end, or the first of two.
    QuoteInQuoted,
}

impl RowCutter {
    fn new(format: CopyFormat, delimiter: u8) -> RowCutter {
        RowCutter {
            format,
            delimiter,
            seen: 0,
            last_end: 0,
            last_line: 0,
            csv: CsvState::FieldStart,
            escaped: false,
        }
    }

    /// The end of the last whole row in the buffer; `None` while there is none.
    fn row_end(&mut self, buffer: &[u8]) -> Result<Option<usize>, PgError> {
        match self.format {
            CopyFormat::Text => self.scan_text(buffer),
            CopyFormat::Csv => self.scan_csv(buffer),
        }
        self.seen = buffer.len();
        if self.last_end > 0 {
            return Ok(Some(self.last_end));
        }
        if buffer.len() < PIECE_BYTES_MAX {
            return Ok(None);
        }
        // A quote that is never closed must not swallow the rest; the decoder rejects that line.
        if self.last_line > 0 {
            self.csv = CsvState::FieldStart;
            return Ok(Some(self.last_line));
        }
        let message = format!("COPY: no row ends within {PIECE_BYTES_MAX} bytes");
        Err(PgError::error(code::PROGRAM_LIMIT_EXCEEDED, message)
            .with_hint("check the delimiter and the line ends"))
    }

    fn scan_text(&mut self, buffer: &[u8]) {
        for (at, byte) in buffer.iter().enumerate().skip(self.seen) {
            match byte {
                b'\\' => self.escaped = !self.escaped,
                b'\n' if !self.escaped => self.last_end = at + 1,
                _ => self.escaped = false,
            }
            if *byte == b'\n' {
                self.escaped = false;
                self.last_line = at + 1;
            }
        }
    }

    fn scan_csv(&mut self, buffer: &[u8]) {
        for (at, byte) in buffer.iter().enumerate().skip(self.seen) {
            if *byte == b'\n' {
                self.last_line = at + 1;
            }
            self.csv = match (self.csv, *byte) {
                (CsvState::Quoted, b'"') => CsvState::QuoteInQuoted,
                (CsvState::Quoted, _) => CsvState::Quoted,
                (CsvState::FieldStart, b'"') => CsvState::Quoted,
                (CsvState::QuoteInQuoted, b'"') => CsvState::Quoted,
                (_, b'\n') => {
                    self.last_end = at + 1;
                    CsvState::FieldStart
                }
                (_, byte) if byte == self.delimiter => CsvState::FieldStart,
                _ => CsvState::Unquoted,
            };
        }
    }

    /// The first `end` bytes were taken out of the buffer.
    fn cut(&mut self, end: usize) {
        self.seen -= self.seen.min(end);
        self.last_end = 0;
        self.last_line = 0;
    }
}

/// A line `\.` and nothing else.
fn holds_end_mark(body: &[u8]) -> bool {
    let starts_line = |at: usize| at == 0 || body[at - 1] == b'\n';
    let ends_line = |at: usize| matches!(body.get(at), None | Some(b'\n' | b'\r'));
    let mut from = 0;
    while let Some(found) = body[from..].windows(2).position(|pair| pair == b"\\.") {
        let at = from + found;
        if starts_line(at) && ends_line(at + 2) {
            return true;
        }
        from = at + 2;
    }
    false
}

#[cfg(test)]
mod tests {
    use dataflow::RejectReason;

    use super::*;

    /// Ends of rows found when `text` arrives in pieces of `size` bytes.
    fn row_ends(format: CopyFormat, text: &[u8], size: usize) -> Vec<usize> {
        let mut cutter = RowCutter::new(format, b',');
        let mut ends = Vec::new();
        let mut taken = 0;
        for end in (size..text.len()).step_by(size).chain([text.len()]) {
            if let Some(row_end) = cutter.row_end(&text[taken..end]).unwrap() {
                cutter.cut(row_end);
                taken += row_end;
                ends.push(taken);
            }
        }
        ends
    }

    #[test]
    fn csv_rows_end_outside_of_quotes() {
        let text = b"1,\"a\nb\"\n2,\"say \"\"hi\n\"\"\"\n3,in\"side\n";
        assert_eq!(row_ends(CopyFormat::Csv, text, 1), [8, 24, 34]);
        assert_eq!(row_ends(CopyFormat::Csv, text, 1000), [34]);
        assert_eq!(row_ends(CopyFormat::Csv, b"1,\"open\n", 3), [0; 0]);
    }

    #[test]
    fn text_rows_end_at_line_feeds_that_are_not_escaped() {
        let text = b"1\ta\\\nb\n2\tc\\\\\n3";
        assert_eq!(row_ends(CopyFormat::Text, text, 1), [7, 13]);
        assert_eq!(row_ends(CopyFormat::Text, text, 5), [7, 13]);
    }

    #[test]
    fn the_end_mark_is_a_line_of_its_own() {
        for (body, ends) in [
            (&b"1\n\\.\n2\n"[..], true),
            (b"\\.", true),
            (b"1\n\\.\r\n", true),
            (b"1\t\\.\n", false),
            (b"\\.x\n", false),
            (b"", false),
        ] {
            assert_eq!(holds_end_mark(body), ends, "{body:?}");
        }
    }

    #[test]
    fn an_open_quote_ends_at_a_line_when_the_piece_is_full() {
        let mut buffer = b"1,\"open\n2,b\n".to_vec();
        let line_end = buffer.len();
        buffer.resize(PIECE_BYTES_MAX, b'x');
        let mut cutter = RowCutter::new(CopyFormat::Csv, b',');
        assert_eq!(cutter.row_end(&buffer).unwrap(), Some(line_end));
        let mut cutter = RowCutter::new(CopyFormat::Text, b'\t');
        assert_eq!(
            cutter.row_end(&vec![b'x'; PIECE_BYTES_MAX]).unwrap_err().code,
            code::PROGRAM_LIMIT_EXCEEDED
        );
    }

    #[test]
    fn the_warning_counts_all_and_names_the_first_rows_of_the_whole_copy() {
        let rejected = |row_number| RejectedRow {
            row_number,
            column: Some("price".to_string()),
            reason: RejectReason::WrongType,
            message: "\"x\" is not a number".to_string(),
            raw: vec![],
        };
        let mut report = Report::default();
        assert_eq!(report.warning("t"), None);
        report.add(9, vec![rejected(3)], 10);
        report.add(0, (0..6).map(rejected).collect(), 6);
        let warning = report.warning("orders").unwrap();
        assert_eq!(warning.message, "7 rows of table \"orders\" were rejected");
        let detail = warning.detail.unwrap();
        assert!(
            detail.starts_with("row 4, column \"price\": \"x\" is not a number\nrow 11, column"),
            "{detail}"
        );
        assert!(detail.ends_with("and 2 more"), "{detail}");
    }
}

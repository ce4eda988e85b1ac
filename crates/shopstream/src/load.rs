//! `shopstream load`: files into a table of a running server.
//!
//! ```text
//!   file ──> input (gz, zst) ──> chunks (lines, or Parquet as NDJSON) ──> queue ──> senders (HTTP)
//! ```
//!
//! Resuming is by idempotency alone, there is no state file that could disagree with the server: the key of a
//! request is made of the file's name, the chunk's number and its content, so that a repeated load (after a crash
//! of either side, or by mistake) is answered with what was answered before and counts nothing twice. Chunks are
//! cut by number of rows, which is why a repetition has to use the same `--batch-rows`.
//!
//! Chunks are sent one after another unless `--parallel` says otherwise: a later chunk that overtakes an earlier
//! one moves the watermark and makes honest rows late.

mod header;
mod input;
mod lines;
mod parquet;
mod replay;
mod times;

use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use sha2::{Digest, Sha256};

use self::input::Input;
use crate::cli::{FileFormat, LoadFlags};
use crate::client::{Answer, Client};
use crate::config::{ClientSettings, Config};
use crate::failure::{Failure, Result};
use crate::stop;

/// Rows of one request.
#[derive(Debug, PartialEq)]
pub(crate) struct Chunk {
    pub(crate) body: Vec<u8>,
    pub(crate) rows: u64,
    /// Replay: when to send it, counted from the start.
    pub(crate) due: Option<Duration>,
}

/// Cuts a file into chunks; `None` at its end.
pub(crate) trait Chunks {
    fn next_chunk(&mut self) -> Result<Option<Chunk>>;
    fn content_type(&self) -> &'static str;
}

/// A chunk is cut when it has this many bytes, whatever `--batch-rows` says.
pub(crate) const CHUNK_BYTES_MAX: usize = 8 << 20;

pub fn run(flags: &LoadFlags, config: &Config) -> Result {
    stop::listen()?;
    let client = Client::new(&ClientSettings::new(config)?, flags.client.retry_for);
    let started = Instant::now();
    let mut totals = Answer::default();
    let result = flags.files.iter().try_for_each(|path| load_file(path, flags, &client, &mut totals));
    let seconds = started.elapsed().as_secs_f64();
    // The counts of what arrived are worth knowing in any case.
    println!(
        "{} rows accepted, {} duplicates, {} rejected in {seconds:.1} s ({:.0} rows/s)",
        totals.accepted,
        totals.duplicates,
        totals.rejected,
        (totals.accepted + totals.duplicates + totals.rejected) as f64 / seconds.max(0.001)
    );
    if totals.replayed {
        eprintln!("note: part of this had been loaded before and was not counted again");
    }
    if totals.rejected > 0 {
        for rejection in &totals.rejections {
            eprintln!("rejected: {rejection}");
        }
        eprintln!("hint: `shopstream sql -c 'SELECT * FROM rejected_rows'` shows all of them");
    }
    result
}

fn load_file(path: &Path, flags: &LoadFlags, client: &Client, totals: &mut Answer) -> Result {
    let format = match flags.format {
        Some(format) => format,
        None => format_of_name(path)?,
    };
    if flags.columns.is_some() && format != FileFormat::Csv {
        return Err(Failure::usage(
            "--columns is for CSV files; the rows of other formats name their columns",
        ));
    }
    let input = Input::open(path)?;
    let bar = progress_bar(path, &input);
    let position = input.position();
    let mut chunks: Box<dyn Chunks> = match (format, flags.speed) {
        (FileFormat::Parquet, None) => Box::new(parquet::ParquetChunks::open(path, flags.batch_rows)?),
        (FileFormat::Parquet, Some(_)) => {
            return Err(Failure::usage("--speed replays CSV and NDJSON files, not Parquet"));
        }
        (_, speed) => {
            let asks = format == FileFormat::Csv && flags.columns.is_none() && !flags.header;
            let table_columns = if asks { table_columns(client, &flags.table)? } else { None };
            let file = lines::TextFile { path, format, flags, table_columns };
            match speed {
                None => {
                    let lines = lines::Lines::open(input, &file)?;
                    lines.announce();
                    Box::new(lines::LineChunks::new(lines, flags))
                }
                Some(speed) => Box::new(replay::ReplayChunks::open(input, &file, speed)?),
            }
        }
    };
    let file = path.file_name().map_or("-".into(), |name| name.to_string_lossy());
    let sender = Sender {
        client,
        table: &flags.table,
        content_type: chunks.content_type(),
        file: &file,
        totals: Mutex::new(std::mem::take(totals)),
        failure: Mutex::new(None),
        stopped: AtomicBool::new(false),
    };
    let (queue, receiver) = sync_channel(2);
    let receiver = Mutex::new(receiver);
    let read = std::thread::scope(|scope| {
        for _ in 0..flags.parallel {
            scope.spawn(|| sender.run(&receiver));
        }
        // The queue goes with the reader: senders end when it is empty and closed.
        read_chunks(&mut *chunks, queue, &sender, || bar.set_position(position.bytes()))
    });
    bar.finish_and_clear();
    *totals = sender.totals.into_inner().unwrap_or_default();
    match sender.failure.into_inner().unwrap_or_default() {
        Some(failure) => Err(failure),
        None => read,
    }
}

/// What the server says of the table; `None` when it has no such table.
fn table_columns(client: &Client, table: &str) -> Result<Option<Vec<header::TableColumn>>> {
    Ok(header::TableColumn::of_description(&client.get("/v1/tables")?, table))
}

/// Reads, waits for the time of replayed chunks, and fills the queue.
fn read_chunks(
    chunks: &mut dyn Chunks,
    queue: SyncSender<(u64, Chunk)>,
    sender: &Sender<'_>,
    progress: impl Fn(),
) -> Result {
    let started = Instant::now();
    let mut number = 0;
    while let Some(chunk) = chunks.next_chunk()? {
        if let Some(due) = chunk.due {
            stop::sleep(due.saturating_sub(started.elapsed()));
        }
        if stop::asked() {
            return Err(Failure::failed("stopped before the end of the file")
                .hint("repeat the same command to go on; what is loaded is not counted again"));
        }
        if sender.stopped.load(Ordering::Relaxed) || queue.send((number, chunk)).is_err() {
            return Ok(());
        }
        number += 1;
        progress();
    }
    Ok(())
}

struct Sender<'a> {
    client: &'a Client,
    table: &'a str,
    content_type: &'static str,
    file: &'a str,
    totals: Mutex<Answer>,
    failure: Mutex<Option<Failure>>,
    stopped: AtomicBool,
}

impl Sender<'_> {
    fn run(&self, queue: &Mutex<Receiver<(u64, Chunk)>>) {
        loop {
            let next = match queue.lock() {
                Ok(queue) => queue.recv(),
                Err(_) => return,
            };
            let Ok((number, chunk)) = next else { return };
            // After a failure the queue is emptied without sending, so that the reader is not stuck.
            if self.stopped.load(Ordering::Relaxed) {
                continue;
            }
            let key = chunk_key(self.file, self.table, self.content_type, number, &chunk.body);
            match self.client.post_rows(self.table, self.content_type, &key, &chunk.body) {
                Ok(answer) => {
                    if let Ok(mut totals) = self.totals.lock() {
                        totals.add(answer);
                    }
                }
                Err(failure) => {
                    self.stopped.store(true, Ordering::Relaxed);
                    if let Ok(mut first) = self.failure.lock() {
                        first.get_or_insert(failure);
                    }
                }
            }
        }
    }
}

fn chunk_key(file: &str, table: &str, content_type: &str, number: u64, body: &[u8]) -> String {
    let mut hash = Sha256::new();
    for part in [file, table, content_type] {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part.as_bytes());
    }
    hash.update(body);
    let digest: String = hash.finalize().iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    format!("load-{digest}-{number}")
}

fn format_of_name(path: &Path) -> Result<FileFormat> {
    let name = path.to_string_lossy().to_lowercase();
    let name = name.trim_end_matches(".gz").trim_end_matches(".zst");
    match name.rsplit_once('.').map(|(_, extension)| extension) {
        Some("csv") => Ok(FileFormat::Csv),
        Some("ndjson" | "jsonl" | "json") => Ok(FileFormat::Ndjson),
        Some("parquet") => Ok(FileFormat::Parquet),
        _ => Err(Failure::usage(format!("the format of {} is not known by its name", path.display()))
            .hint("give --format csv, ndjson or parquet")),
    }
}

/// Nothing is drawn when standard error is not a terminal.
fn progress_bar(path: &Path, input: &Input) -> ProgressBar {
    let bar = match input.length {
        Some(length) => ProgressBar::new(length),
        None => ProgressBar::new_spinner(),
    };
    let template = "{msg} [{bar:30}] {bytes}/{total_bytes} {eta}";
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style.progress_chars("=> "));
    }
    bar.set_message(path.display().to_string());
    bar
}

#[cfg(test)]
mod tests;

//! Files read and decoded by several threads, handed on in a fixed order.
//!
//! ```text
//!   file 0 --chunk 0, 1, 2 ...--\   threads: take the next chunk of a file (one at a time per
//!   file 1 --chunk 0, 1, 2 ...--/   file), decode it outside of all locks, put it on the shelf
//!                                                |
//!                    next_batch(): takes each file's chunks in order off the shelf
//! ```
//!
//! The order of batches does not depend on the threads: within a file it is the file's, between
//! files it is [`FileOrder`]. A bounded number of chunks per file waits on the shelf.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;

use arrow::datatypes::SchemaRef;
use dataflow::DecodedRows;

use super::chunks::{ChunkReader, ChunkSettings};
use super::files::{FileBatch, FileFormat, FileOptions, Position};
use crate::Result;

/// How the batches of several files follow each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileOrder {
    /// All of the first file, then all of the second.
    Sequential,
    /// A batch of each file in turn: for files that cover the same time, such as the parts of a
    /// table split by key, so that their event times advance together.
    RoundRobin,
}

/// Batches of some files, decoded ahead by threads of its own.
pub struct ParallelFiles {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    order: FileOrder,
    /// The file whose turn it is.
    turn: usize,
    positions: Vec<Position>,
}

struct Shared {
    shelf: Mutex<Shelf>,
    /// Signalled when a chunk was put on the shelf, taken off it, or a file became free to read.
    changed: Condvar,
    keep_bodies: bool,
    order: FileOrder,
    /// Chunks of one file that are read ahead at most.
    ahead_max: u64,
}

struct Shelf {
    files: Vec<FileState>,
    stopped: bool,
    /// A thread panicked, so that a chunk will never come.
    failed: bool,
}

/// Tells the reader of batches when a thread dies, which would else wait forever.
struct FailureGuard<'a>(&'a Shared);

impl Drop for FailureGuard<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.lock().failed = true;
            self.0.changed.notify_all();
        }
    }
}

struct FileState {
    /// Taken out while a thread reads from it.
    reader: Option<ChunkReader>,
    ended: bool,
    /// Chunks whose reading was begun.
    issued: u64,
    /// Chunks handed on.
    taken: u64,
    ready: BTreeMap<u64, Result<DecodedChunk>>,
}

struct DecodedChunk {
    rows: DecodedRows,
    body: Option<Vec<u8>>,
    end: u64,
}

impl ParallelFiles {
    /// Opens the files at their start; see [`super::FileSource::open`].
    pub fn open(
        paths: &[PathBuf],
        format: FileFormat,
        schema: &SchemaRef,
        columns: &[usize],
        options: &FileOptions,
    ) -> Result<ParallelFiles> {
        let start: Vec<Position> =
            (0..paths.len()).map(|file| Position { file, ..Position::default() }).collect();
        ParallelFiles::open_at(paths, format, schema, columns, options, &start)
    }

    /// Opens the files at the positions that [`ParallelFiles::positions`] gave, one per file.
    ///
    /// # Panics
    /// If there is not one position for each file, in order.
    pub fn open_at(
        paths: &[PathBuf],
        format: FileFormat,
        schema: &SchemaRef,
        columns: &[usize],
        options: &FileOptions,
        positions: &[Position],
    ) -> Result<ParallelFiles> {
        assert!(
            positions.iter().map(|position| position.file).eq(0..paths.len()),
            "one position per file, in order"
        );
        let settings = ChunkSettings {
            format,
            schema: SchemaRef::clone(schema),
            columns: columns.to_vec(),
            chunk_bytes: options.chunk_bytes,
        };
        let mut files = Vec::with_capacity(paths.len());
        for (path, position) in paths.iter().zip(positions) {
            files.push(FileState {
                reader: Some(ChunkReader::open(path, &settings, position.offset)?),
                ended: false,
                issued: 0,
                taken: 0,
                ready: BTreeMap::new(),
            });
        }
        let threads = match options.threads {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            threads => threads,
        };
        let shared = Arc::new(Shared {
            shelf: Mutex::new(Shelf { files, stopped: false, failed: false }),
            changed: Condvar::new(),
            keep_bodies: options.keep_bodies,
            order: options.order,
            ahead_max: 2 * threads as u64,
        });
        let threads = (0..threads)
            .map(|_| {
                let shared = Arc::clone(&shared);
                std::thread::spawn(move || shared.work())
            })
            .collect();
        Ok(ParallelFiles { shared, threads, order: options.order, turn: 0, positions: positions.to_vec() })
    }

    /// The rows that follow, or `None` when all files are read. `FileBatch::next` says of which file
    /// they are.
    pub fn next_batch(&mut self) -> Result<Option<FileBatch>> {
        let mut shelf = self.shared.lock();
        let mut exhausted = 0;
        while exhausted < shelf.files.len() {
            let file = self.turn;
            let state = &mut shelf.files[file];
            let wanted = state.taken;
            if let Some(chunk) = state.ready.remove(&wanted) {
                state.taken += 1;
                if self.order == FileOrder::RoundRobin {
                    self.turn = (file + 1) % shelf.files.len();
                }
                drop(shelf);
                self.shared.changed.notify_all();
                let chunk = chunk?;
                let position = &mut self.positions[file];
                return Ok(Some(FileBatch::new(chunk.rows, chunk.body, chunk.end, position)));
            }
            if state.ended && state.taken == state.issued {
                self.turn = (file + 1) % shelf.files.len();
                exhausted += 1;
                continue;
            }
            assert!(!shelf.failed, "a decoding thread panicked; its message is on standard error");
            shelf = self.shared.wait(shelf);
            exhausted = 0;
        }
        Ok(None)
    }

    /// Per file: where it goes on behind the batches handed on so far.
    pub fn positions(&self) -> &[Position] {
        &self.positions
    }
}

impl Drop for ParallelFiles {
    fn drop(&mut self) {
        self.shared.lock().stopped = true;
        self.shared.changed.notify_all();
        for thread in self.threads.drain(..) {
            // A panic of a decoding thread was printed when it happened; there is no one to tell.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Shelf> {
        self.shelf.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn wait<'a>(&self, shelf: MutexGuard<'a, Shelf>) -> MutexGuard<'a, Shelf> {
        self.changed.wait(shelf).unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// What each thread does until all files are read.
    fn work(&self) {
        let mut buffer = Vec::new();
        let mut shelf = self.lock();
        loop {
            if shelf.stopped || shelf.files.iter().all(|file| file.ended) {
                return;
            }
            let picked = self.pick(&shelf).and_then(|file| {
                let state = &mut shelf.files[file];
                let reader = state.reader.take()?;
                let number = state.issued;
                state.issued += 1;
                Some((file, number, reader))
            });
            let Some((file, number, mut reader)) = picked else {
                shelf = self.wait(shelf);
                continue;
            };
            drop(shelf);
            let chunk = reader.next(&mut buffer);
            shelf = self.lock();
            let state = &mut shelf.files[file];
            match &chunk {
                Ok(Some(_)) => state.reader = Some(reader),
                Ok(None) => {
                    state.issued -= 1;
                    state.ended = true;
                }
                Err(_) => state.ended = true,
            }
            self.changed.notify_all();
            let decoded = match chunk {
                Ok(None) => continue,
                Err(error) => Err(error),
                Ok(Some(chunk)) => {
                    drop(shelf);
                    let _guard = FailureGuard(self);
                    let rows = chunk.decode(&buffer);
                    let body = self.keep_bodies.then(|| std::mem::take(&mut buffer));
                    shelf = self.lock();
                    Ok(DecodedChunk { rows, body, end: chunk.end })
                }
            };
            shelf.files[file].ready.insert(number, decoded);
            self.changed.notify_all();
        }
    }

    /// The file to read from next: one that no thread reads from, with room on the shelf.
    fn pick(&self, shelf: &Shelf) -> Option<usize> {
        let unread = |state: &FileState| state.issued - state.taken;
        let free =
            |state: &FileState| state.reader.is_some() && !state.ended && unread(state) < self.ahead_max;
        let mut open = shelf.files.iter().enumerate().filter(|(_, state)| !state.ended);
        match self.order {
            FileOrder::Sequential => open.next().filter(|(_, state)| free(state)).map(|(file, _)| file),
            FileOrder::RoundRobin => open
                .filter(|(_, state)| free(state))
                .min_by_key(|(_, state)| unread(state))
                .map(|(file, _)| file),
        }
    }
}

//! The thread that writes checkpoints.
//!
//! It gets states from the engine's and the log's thread as they are saved, and at last the [`Draft`] that says what they
//! are. It alone waits for the disk.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender};

use dataflow::{Error, Result, StateReader, StateWriter, Tick};
use sql::RelationId;
use storage::checkpoints::{Blob, BlobReader, CheckpointError, CheckpointWriter, Checkpoints};
use storage::log::{LogReader, Offset};

use super::{HistoryEntry, Manifest, NodeEntry, RelationEntry, SeenEntry, TableEntry};
use crate::circuit::NodeState;
use crate::seen::{SeenPiece, SeenState};
use crate::view_store::{Image, PartId};

/// A file of states of which less than a part in so many is still needed is written anew.
const LIVE_SHARE_MIN: u64 = 2;

/// What the thread is told, each about the checkpoint of this number.
pub enum Save {
    Begin(u64),
    /// The next state.
    State(u64, Vec<u8>),
    /// Who was seen before the record `from`.
    Seen {
        of: u64,
        from: Offset,
        state: SeenState,
    },
    Finish(u64, Box<Draft>),
}

/// Where a state is.
#[derive(Clone, Copy, Debug)]
pub enum Where {
    /// Where the checkpoint before has it.
    Kept(Blob),
    /// The n-th that was told.
    Told(usize),
}

/// A checkpoint that lacks only the places.
pub struct Draft {
    /// All that has no place.
    pub manifest: Manifest,
    pub history: Vec<(Offset, Where)>,
    pub tables: Vec<(RelationId, Tick, Where)>,
    pub nodes: Vec<(NodeState, Vec<Where>)>,
    /// With the number of rows of relations that are read from the log.
    pub relations: Vec<(RelationId, Image, u64)>,
}

/// What was found when the last checkpoint was opened.
#[derive(Default)]
pub struct Restored {
    /// Its number, and the manifest.
    pub last: Option<(u64, Arc<Manifest>)>,
    /// The parts of stores that are where it says.
    pub parts: HashMap<PartId, Blob>,
}

impl Restored {
    /// The record from which on the log was read.
    pub fn start(&self) -> u64 {
        self.last.as_ref().map_or(0, |(_, manifest)| manifest.start.0)
    }
}

pub struct Saver {
    checkpoints: Checkpoints,
    blobs: BlobReader,
    reader: LogReader,
    last: Option<(u64, Arc<Manifest>)>,
    parts: HashMap<PartId, Blob>,
    /// Who was seen since the last checkpoint, told with those that came to nothing, too.
    unsaved: Vec<SeenPiece>,
    /// Bytes of states that were told and are not written yet.
    waiting: Arc<AtomicUsize>,
    running: Option<Running>,
}

struct Running {
    of: u64,
    /// Of its files; `None` when they could not be created.
    number: Option<u64>,
    /// What went wrong first.
    writer: std::result::Result<CheckpointWriter, CheckpointError>,
    told: Vec<Blob>,
    seen: Option<(Offset, SeenState)>,
    draft: Option<Box<Draft>>,
}

impl Saver {
    pub fn new(
        checkpoints: Checkpoints,
        reader: LogReader,
        restored: Restored,
        waiting: Arc<AtomicUsize>,
    ) -> Saver {
        Saver {
            blobs: checkpoints.reader(),
            checkpoints,
            reader,
            last: restored.last,
            parts: restored.parts,
            unsaved: Vec::new(),
            waiting,
            running: None,
        }
    }

    /// Writes what it is told until there is nobody left to tell it anything.
    pub fn run(
        mut self,
        told: &Receiver<Save>,
        done: &Sender<(u64, std::result::Result<Arc<Manifest>, String>)>,
    ) {
        while let Ok(save) = told.recv() {
            if let Some((of, outcome)) = self.take(save) {
                // The engine may have ended.
                let _ = done.send((of, outcome.map_err(|error| error.to_string())));
            }
        }
    }

    fn take(&mut self, save: Save) -> Option<(u64, Result<Arc<Manifest>>)> {
        match save {
            Save::Begin(of) => {
                // The engine began anew.
                self.discard_running();
                let writer = self.checkpoints.begin();
                self.running = Some(Running {
                    of,
                    number: writer.as_ref().ok().map(CheckpointWriter::number),
                    writer,
                    told: Vec::new(),
                    seen: None,
                    draft: None,
                });
            }
            Save::State(of, state) => {
                if let Some(running) = self.running.as_mut().filter(|running| running.of == of) {
                    running.told(&state);
                }
                self.waiting.fetch_sub(state.len(), Ordering::Relaxed);
            }
            Save::Seen { of, from, mut state } => {
                if let Some(piece) = state.piece.take() {
                    if piece.whole {
                        self.unsaved.clear();
                    }
                    self.unsaved.push(piece);
                }
                if let Some(running) = self.running.as_mut().filter(|running| running.of == of) {
                    running.seen = Some((from, state));
                }
            }
            Save::Finish(of, draft) => {
                if let Some(running) = self.running.as_mut().filter(|running| running.of == of) {
                    running.draft = Some(draft);
                }
            }
        }
        let ready = |running: &Running| running.draft.is_some() && running.seen.is_some();
        let running = self.running.take_if(|running| ready(running))?;
        let of = running.of;
        let number = running.number;
        let outcome = self.finish(running);
        if outcome.is_err() {
            number.inspect(|number| self.checkpoints.discard(*number));
        }
        Some((of, outcome))
    }

    /// Writes who was seen since the last checkpoint, with what is about as much of before.
    fn save_seen(
        &mut self,
        newest_us: i64,
        sparse: &BTreeSet<u64>,
        writer: &mut CheckpointWriter,
    ) -> Result<Vec<SeenEntry>> {
        let whole = self.unsaved.first().is_some_and(|piece| piece.whole);
        let before = self.last.iter().filter(|_| !whole).flat_map(|(_, last)| &last.seen);
        let mut kept: Vec<SeenEntry> = before.filter(|e| e.expires_us > newest_us).cloned().collect();
        let mut expires_us = self.unsaved.iter().map(|piece| piece.expires_us).max().unwrap_or(i64::MIN);
        let mut pieces: VecDeque<Vec<u8>> = self.unsaved.iter().map(|piece| piece.bytes.clone()).collect();
        let mut bytes: u64 = pieces.iter().map(|piece| piece.len() as u64).sum();
        while let Some(entry) = kept.pop_if(|entry| entry.pieces.length <= 2 * bytes) {
            let joined = self.blobs.read(&entry.pieces).map_err(unwritten)?;
            pieces_of(&joined)?.into_iter().rev().for_each(|piece| pieces.push_front(piece.to_vec()));
            expires_us = expires_us.max(entry.expires_us);
            bytes += entry.pieces.length;
        }
        for entry in kept.iter_mut().filter(|entry| sparse.contains(&entry.pieces.file)) {
            let pieces = self.blobs.read(&entry.pieces).map_err(unwritten)?;
            entry.pieces = writer.put(&pieces).map_err(unwritten)?;
        }
        if pieces.is_empty() {
            return Ok(kept);
        }
        let mut out = StateWriter::new();
        out.all(pieces.iter(), |out, piece| out.bytes(piece));
        let pieces = writer.put(&out.into_bytes()).map_err(unwritten)?;
        kept.push(SeenEntry { expires_us, pieces });
        Ok(kept)
    }

    fn discard_running(&mut self) {
        let number = self.running.take().and_then(|running| running.number);
        number.inspect(|number| self.checkpoints.discard(*number));
    }

    fn finish(&mut self, running: Running) -> Result<Arc<Manifest>> {
        let Running { writer, told, seen, draft, .. } = running;
        let mut writer = writer.map_err(unwritten)?;
        let (Some(draft), Some((seen_from, seen))) = (draft, seen) else {
            return Err(Error::State("a checkpoint is finished when all is there".into()));
        };
        let Draft { mut manifest, history, tables, nodes, relations } = *draft;
        let sparse = self.sparse_files(&history, &tables, &nodes, &relations);
        let mut place = |at: Where, writer: &mut CheckpointWriter| match at {
            Where::Told(number) => {
                told.get(number).copied().ok_or_else(|| Error::State("a state was not told".into()))
            }
            Where::Kept(blob) if sparse.contains(&blob.file) => {
                let state = self.blobs.read(&blob).map_err(unwritten)?;
                writer.put(&state).map_err(unwritten)
            }
            Where::Kept(blob) => Ok(blob),
        };
        let w = &mut writer;
        for (from, at) in history {
            manifest.history.push(HistoryEntry { from, records: place(at, w)? });
        }
        for (id, as_of, at) in tables {
            manifest.tables.push(TableEntry { id, as_of, state: place(at, w)? });
        }
        for (state, shards) in nodes {
            let shards = shards.into_iter().map(|at| place(at, w)).collect::<Result<_>>()?;
            manifest.nodes.push(NodeEntry { state, shards });
        }
        let mut parts = HashMap::new();
        for (id, image, log_rows) in relations {
            let mut blobs = Vec::with_capacity(image.parts.len());
            for part in &image.parts {
                let blob = match self.parts.get(&part.id) {
                    Some(blob) => place(Where::Kept(*blob), w)?,
                    None => {
                        let mut out = StateWriter::new();
                        part.save(&mut out)?;
                        w.put(&out.into_bytes()).map_err(unwritten)?
                    }
                };
                parts.insert(part.id, blob);
                blobs.push(blob);
            }
            manifest.relations.push(RelationEntry {
                id,
                append_only: image.append_only,
                log_rows,
                parts: blobs,
            });
        }
        manifest.mark = mark_of(&self.reader, manifest.published)?;
        manifest.seen_from = seen_from;
        manifest.seen_head = seen.head;
        manifest.seen = self.save_seen(seen.newest_us, &sparse, &mut writer)?;
        let number = writer.number();
        writer.commit(&manifest.save()).map_err(unwritten)?;
        let manifest = Arc::new(manifest);
        self.unsaved.clear();
        let before = self.last.replace((number, Arc::clone(&manifest)));
        self.parts = parts;
        let kept = before.iter().chain(&self.last);
        let numbers: BTreeSet<u64> = kept.clone().map(|(number, _)| *number).collect();
        let files = kept.flat_map(|(_, manifest)| manifest.blobs()).map(|blob| blob.file).collect();
        self.blobs = self.checkpoints.reader();
        // The checkpoint counts already; what can't be removed now is removed with the next.
        if let Err(error) = self.checkpoints.retain(&numbers, &files) {
            tracing::warn!(%error, "old checkpoints can't be removed");
        }
        Ok(manifest)
    }

    /// Files that hold little that is still needed: it moves to the new one, so that they can go.
    fn sparse_files(
        &self,
        history: &[(Offset, Where)],
        tables: &[(RelationId, Tick, Where)],
        nodes: &[(NodeState, Vec<Where>)],
        relations: &[(RelationId, Image, u64)],
    ) -> BTreeSet<u64> {
        let told = history.iter().map(|(_, at)| at).chain(tables.iter().map(|(_, _, at)| at));
        let told = told.chain(nodes.iter().flat_map(|(_, shards)| shards));
        let kept = told.filter_map(|at| match at {
            Where::Kept(blob) => Some(blob),
            Where::Told(_) => None,
        });
        let parts = relations.iter().flat_map(|(_, image, _)| &image.parts);
        let seen = self.last.iter().flat_map(|(_, last)| &last.seen).map(|entry| &entry.pieces);
        let mut live: BTreeMap<u64, u64> = BTreeMap::new();
        for blob in kept.chain(parts.filter_map(|part| self.parts.get(&part.id))).chain(seen) {
            *live.entry(blob.file).or_default() += blob.length;
        }
        let sparse = |(file, live): &(&u64, &u64)| {
            self.checkpoints.file_bytes(**file).is_some_and(|bytes| **live < bytes / LIVE_SHARE_MIN)
        };
        live.iter().filter(sparse).map(|(file, _)| *file).collect()
    }
}

impl Running {
    fn told(&mut self, state: &[u8]) {
        let Ok(writer) = &mut self.writer else { return };
        match writer.put(state) {
            Ok(blob) => self.told.push(blob),
            Err(error) => self.writer = Err(error),
        }
    }
}

/// The pieces that were written together.
///
/// # Errors
/// When they were not written by this version.
pub fn pieces_of(saved: &[u8]) -> Result<Vec<&[u8]>> {
    let mut saved = StateReader::new(saved);
    let pieces = saved.all(StateReader::bytes)?;
    saved.finish()?;
    Ok(pieces)
}

/// What tells the log's last record before a tick from another one at its place; 0 before the first.
///
/// # Errors
/// When it can't be read, or is not there.
pub fn mark_of(reader: &LogReader, tick: Tick) -> Result<u32> {
    let Some(offset) = tick.0.checked_sub(1) else { return Ok(0) };
    match reader.records(Offset(offset)).next() {
        Some(Ok(record)) => Ok(crc32fast::hash(&record.payload)),
        Some(Err(error)) => Err(Error::State(error.to_string())),
        None => Err(Error::State("the log ends before it".into())),
    }
}

fn unwritten(error: CheckpointError) -> Error {
    Error::State(error.to_string())
}

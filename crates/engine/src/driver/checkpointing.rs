//! The engine's part in checkpoints: it saves node after node between its steps.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender};
use std::time::{Duration, Instant};

use dataflow::{StateWriter, Tick};
use sql::{RelationId, SqlError, SqlState};
use storage::checkpoints::Blob;
use storage::log::Offset;
use tokio::sync::oneshot;

use super::Driver;
use crate::api::CheckpointStatus;
use crate::checkpoint::{Draft, Manifest, Save, Where, probe};
use crate::circuit::NodeId;
use crate::writer::Request;

/// How long the engine saves between two steps at most, but for what can't be divided.
const PIECE: Duration = Duration::from_millis(5);
/// Saved states that may wait for the disk, in bytes; the engine saves no more beyond.
const WAITING_BYTES_MAX: usize = 256 << 20;
/// Work that a start may have to do again: a checkpoint is begun before its time when the engine has worked so long ...
const BUSY_MAX: Duration = Duration::from_secs(1);
/// ... and so many times as long has passed as the last one took.
const DURATIONS_BETWEEN: u32 = 4;
/// A checkpoint that failed is tried again after so long, then after twice as long, and so on: on a full disk each takes
/// space that the log may need.
const RETRY_INTERVAL: Duration = Duration::from_secs(5);
const RETRY_INTERVAL_MAX: Duration = Duration::from_secs(300);

/// The engine's end of checkpoints.
pub struct Checkpointing {
    /// Zero: only when asked.
    interval: Duration,
    saver: Sender<Save>,
    done: Receiver<(u64, Result<Arc<Manifest>, String>)>,
    requests: Sender<Request>,
    /// Bytes of states on their way to the disk.
    waiting_bytes: Arc<AtomicUsize>,
    last: Option<Arc<Manifest>>,
    /// Nodes are not those of the last checkpoint any more.
    rebuilt: bool,
    /// Records came since the last checkpoint began.
    stale: bool,
    status: CheckpointStatus,
    number: u64,
    /// In a row.
    failures: u32,
    began: Instant,
    /// How long the engine worked since.
    busy: Duration,
    running: Option<Running>,
    /// The saver has all of it.
    told: bool,
    asked: Vec<oneshot::Sender<Result<(), SqlError>>>,
    /// Asked while one was running: they get the next.
    asked_later: Vec<oneshot::Sender<Result<(), SqlError>>>,
}

/// A checkpoint whose nodes are being saved.
struct Running {
    draft: Draft,
    /// In an order in which nothing comes before what it reads.
    left: VecDeque<Left>,
    told: usize,
}

#[derive(Clone, Copy)]
enum Left {
    Table(RelationId),
    Node(NodeId),
}

impl Checkpointing {
    #[allow(clippy::type_complexity)]
    pub fn new(
        interval: Duration,
        saver: Sender<Save>,
        done: Receiver<(u64, Result<Arc<Manifest>, String>)>,
        requests: Sender<Request>,
        waiting_bytes: Arc<AtomicUsize>,
        last: Option<Arc<Manifest>>,
    ) -> Checkpointing {
        Checkpointing {
            interval,
            saver,
            done,
            requests,
            waiting_bytes,
            rebuilt: false,
            stale: true,
            status: CheckpointStatus {
                from: last.as_ref().map_or(0, |last| last.start.0),
                ..Default::default()
            },
            last,
            number: 0,
            failures: 0,
            began: Instant::now(),
            busy: Duration::ZERO,
            running: None,
            told: false,
            asked: Vec::new(),
            asked_later: Vec::new(),
        }
    }

    fn is_running(&self) -> bool {
        self.running.is_some() || self.told
    }

    fn is_due(&self) -> bool {
        if !self.asked.is_empty() {
            return true;
        }
        let passed = self.began.elapsed();
        // The next start would do again what the engine did since.
        let much = self.busy >= BUSY_MAX
            && passed >= self.status.last_duration * DURATIONS_BETWEEN
            && self.failures == 0;
        self.stale && !self.interval.is_zero() && (passed >= self.interval || much)
    }

    fn answer(&mut self, outcome: Result<(), &str>) {
        for reply in self.asked.drain(..) {
            let outcome = outcome.map_err(|error| {
                SqlError::new(SqlState::IoError, format!("the checkpoint could not be written: {error}"))
            });
            // Nobody may be waiting any more.
            let _ = reply.send(outcome);
        }
        self.asked.append(&mut self.asked_later);
    }

    /// Begins anew with the next one: what was saved does not belong together any more.
    fn abandon(&mut self) {
        if self.running.take().is_some() {
            self.began = Instant::now().checked_sub(self.interval).unwrap_or(self.began);
        }
    }

    fn tell(&self, save: Save) {
        // The saver ends only after the engine.
        let _ = self.saver.send(save);
    }
}

impl Driver {
    pub fn checkpoint_with(&mut self, checkpointing: Checkpointing) {
        self.statistics.checkpoints = checkpointing.status.clone();
        self.checkpointing = Some(checkpointing);
    }

    /// Somebody waits for the next checkpoint.
    pub(super) fn ask_checkpoint(&mut self, reply: oneshot::Sender<Result<(), SqlError>>) {
        let Some(checkpointing) = &mut self.checkpointing else {
            let _ = reply.send(Err(SqlError::internal("there is nobody to write checkpoints")));
            return;
        };
        match checkpointing.is_running() {
            true => checkpointing.asked_later.push(reply),
            false => checkpointing.asked.push(reply),
        }
    }

    /// Records came.
    pub(super) fn outdate_checkpoint(&mut self) {
        if let Some(checkpointing) = &mut self.checkpointing {
            checkpointing.stale = true;
        }
    }

    /// The engine worked on records.
    pub(super) fn worked(&mut self, duration: Duration) {
        if let Some(checkpointing) = &mut self.checkpointing {
            checkpointing.busy += duration;
        }
    }

    /// Relations or nodes are others now.
    pub(super) fn restructure_checkpoint(&mut self) {
        if let Some(checkpointing) = &mut self.checkpointing {
            checkpointing.rebuilt = true;
            checkpointing.stale = true;
            checkpointing.abandon();
        }
    }

    /// How long until there is something to do for a checkpoint; `None` when nothing is known of.
    pub(super) fn checkpoint_pause(&self) -> Option<Duration> {
        let checkpointing = self.checkpointing.as_ref()?;
        let full = checkpointing.waiting_bytes.load(Ordering::Relaxed) > WAITING_BYTES_MAX;
        if checkpointing.told || (checkpointing.running.is_some() && full) {
            return Some(Duration::from_millis(2));
        }
        if checkpointing.running.is_some() || !checkpointing.asked.is_empty() {
            // Views that are being built are waited for.
            let slowly = self.batching.save_nodes != usize::MAX;
            let waits = self.is_building() || !self.rests();
            let pause = if waits { 10 } else { u64::from(slowly) };
            return Some(Duration::from_millis(pause));
        }
        let wanted = checkpointing.stale && !checkpointing.interval.is_zero();
        wanted.then(|| checkpointing.interval.saturating_sub(checkpointing.began.elapsed()))
    }

    /// Goes on with the checkpoint that is under way, or begins one. Nothing that was fed waits for its step.
    pub(super) fn go_on_with_checkpoint(&mut self) {
        let Some(mut checkpointing) = self.checkpointing.take() else { return };
        if checkpointing.take_done() {
            self.statistics.checkpoints = checkpointing.status.clone();
            self.shared.statistics.write().checkpoints = checkpointing.status.clone();
        }
        let rests = self.rests();
        if !checkpointing.is_running() && checkpointing.is_due() && rests && !self.is_building() {
            self.begin_checkpoint(&mut checkpointing);
        }
        if rests && let Some(mut running) = checkpointing.running.take() {
            match self.save_some(&mut checkpointing, &mut running) {
                Ok(true) => self.finish_checkpoint(&mut checkpointing, running),
                Ok(false) => checkpointing.running = Some(running),
                Err(error) => checkpointing.fail(&error.to_string()),
            }
        }
        self.checkpointing = Some(checkpointing);
    }

    /// Nothing that was fed waits for its step, and nothing that was done for its tick.
    fn rests(&self) -> bool {
        !self.stepper.has_pending() && self.changes.is_empty()
    }

    fn begin_checkpoint(&mut self, checkpointing: &mut Checkpointing) {
        checkpointing.number += 1;
        checkpointing.began = Instant::now();
        checkpointing.busy = Duration::ZERO;
        checkpointing.stale = false;
        let number = checkpointing.number;
        checkpointing.tell(Save::Begin(number));
        // The log's thread is asked after the engine took all records before `next`; it may be further on.
        let saver = checkpointing.saver.clone();
        let _ = checkpointing.requests.send(Request::SaveSeen { of: number, saver });
        let mut watermarks = StateWriter::new();
        if let Err(error) = self.stepper.watermarks.save(&mut watermarks) {
            return checkpointing.fail(&error.to_string());
        }
        let manifest = Manifest {
            start: self.next,
            fed: self.fed,
            seed: self.seed,
            probe: probe(self.seed),
            definitions: self.definitions.clone(),
            unbuilt: self.building.keys().filter(|id| !self.views.contains_key(id)).copied().collect(),
            suspended: Vec::new(),
            statistics: self.statistics.tables.iter().map(|(id, status)| (*id, status.clone())).collect(),
            late_rows: 0,
            watermarks: watermarks.into_bytes(),
            history: Vec::new(),
            tables: Vec::new(),
            nodes: Vec::new(),
            published: Tick(0),
            relations: Vec::new(),
            mark: 0,
            seen_from: self.next,
            seen_head: Vec::new(),
            seen: Vec::new(),
        };
        let tables = self.stepper.keyed_tables().into_iter().map(Left::Table);
        let nodes = self.stepper.circuit.stateful().into_iter().map(Left::Node);
        let left = tables.chain(nodes).collect();
        let draft = Draft {
            manifest,
            history: Vec::new(),
            tables: Vec::new(),
            nodes: Vec::new(),
            relations: Vec::new(),
        };
        let mut running = Running { draft, left, told: 0 };
        let mut kept = checkpointing.last.as_ref().map(|last| last.history.clone()).unwrap_or_default();
        let mut from = checkpointing.last.as_ref().map_or(Offset(0), |last| last.start);
        let mut records = self.save_history(from);
        // Stretches of about the same length are joined, so that there are few and each is written seldom.
        while let Some(before) = kept.pop_if(|before| before.records.length <= 2 * records.len() as u64) {
            from = before.from;
            records = self.save_history(from);
        }
        running.draft.history =
            kept.into_iter().map(|entry| (entry.from, Where::Kept(entry.records))).collect();
        running.draft.history.push((from, checkpointing.told(&mut running.told, records)));
        checkpointing.running = Some(running);
    }

    /// Saves what is left, for a while; true when it is all.
    fn save_some(
        &mut self,
        checkpointing: &mut Checkpointing,
        running: &mut Running,
    ) -> dataflow::Result<bool> {
        let began = Instant::now();
        let last = checkpointing.last.clone();
        let tables: HashMap<RelationId, (Tick, Blob)> =
            last.iter().flat_map(|l| &l.tables).map(|table| (table.id, (table.as_of, table.state))).collect();
        let nodes: HashMap<&str, (Tick, &[Blob])> = match &last {
            Some(last) if !checkpointing.rebuilt => last
                .nodes
                .iter()
                .map(|node| (node.state.signature.as_str(), (node.state.as_of, node.shards.as_slice())))
                .collect(),
            _ => HashMap::new(),
        };
        let mut saved = 0;
        while let Some(left) = running.left.front().copied() {
            if began.elapsed() > PIECE
                || saved == self.batching.save_nodes
                || checkpointing.waiting_bytes.load(Ordering::Relaxed) > WAITING_BYTES_MAX
            {
                return Ok(false);
            }
            match left {
                Left::Table(id) => {
                    let kept = tables.get(&id).filter(|(as_of, _)| {
                        !checkpointing.rebuilt && self.stepper.table_changed(id) <= *as_of
                    });
                    let at = match kept {
                        Some((_, blob)) => Where::Kept(*blob),
                        None => {
                            let mut out = StateWriter::new();
                            self.stepper.save_table(id, &mut out)?;
                            checkpointing.told(&mut running.told, out.into_bytes())
                        }
                    };
                    running.draft.tables.push((id, self.fed, at));
                }
                Left::Node(id) => {
                    let (changed, signature) = self.stepper.circuit.changed(id);
                    let kept = nodes.get(signature).filter(|(as_of, _)| changed <= *as_of);
                    let shards = match kept {
                        Some((_, blobs)) => blobs.iter().map(|blob| Where::Kept(*blob)).collect(),
                        None => {
                            let saved = self.stepper.circuit.save_node(id)?;
                            saved
                                .into_iter()
                                .map(|shard| checkpointing.told(&mut running.told, shard))
                                .collect()
                        }
                    };
                    running.draft.nodes.push((self.stepper.circuit.node_state(id, self.fed), shards));
                }
            }
            running.left.pop_front();
            saved += 1;
        }
        Ok(true)
    }

    /// All nodes are saved: what readers see comes last.
    fn finish_checkpoint(&mut self, checkpointing: &mut Checkpointing, mut running: Running) {
        let manifest = &mut running.draft.manifest;
        manifest.published = self.fed;
        manifest.late_rows = self.statistics.late_rows;
        for (id, status) in &mut manifest.statistics {
            status.rows_late = self.statistics.tables.get(id).map_or(0, |now| now.rows_late);
        }
        let suspended = |(id, view): (&RelationId, &super::RunningView)| Some((*id, view.suspended.clone()?));
        manifest.suspended = self.views.iter().filter_map(suspended).collect();
        running.draft.relations = self.shared.published.images();
        checkpointing.rebuilt = false;
        checkpointing.told = true;
        checkpointing.tell(Save::Finish(checkpointing.number, Box::new(running.draft)));
    }
}

impl Checkpointing {
    /// Hands a state over to be written.
    fn told(&self, count: &mut usize, state: Vec<u8>) -> Where {
        self.waiting_bytes.fetch_add(state.len(), Ordering::Relaxed);
        self.tell(Save::State(self.number, state));
        *count += 1;
        Where::Told(*count - 1)
    }

    /// True when one was finished, or failed.
    fn take_done(&mut self) -> bool {
        let before = (self.status.written, self.status.failed);
        while let Ok((number, outcome)) = self.done.try_recv() {
            if number != self.number {
                continue;
            }
            self.told = false;
            match outcome {
                Ok(manifest) => {
                    self.status = CheckpointStatus {
                        from: manifest.start.0,
                        written: self.status.written + 1,
                        failed: self.status.failed,
                        bytes: manifest.blobs().map(|blob| blob.length).sum(),
                        last_duration: self.began.elapsed(),
                    };
                    self.failures = 0;
                    self.last = Some(manifest);
                    self.answer(Ok(()));
                }
                Err(error) => self.fail(&error),
            }
        }
        (self.status.written, self.status.failed) != before
    }

    fn fail(&mut self, error: &str) {
        tracing::warn!(error, "a checkpoint could not be written; a start would read more of the log");
        self.status.failed += 1;
        self.running = None;
        self.stale = true;
        // What it saved may be gone.
        self.rebuilt = true;
        self.failures += 1;
        let wait = RETRY_INTERVAL * 2u32.saturating_pow(self.failures - 1).min(1000);
        self.began = Instant::now() + wait.min(RETRY_INTERVAL_MAX).saturating_sub(self.interval);
        self.answer(Err(error));
    }
}

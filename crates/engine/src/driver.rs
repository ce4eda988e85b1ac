//! The engine's one loop: durable records in, published ticks out.

mod backfill;
mod building;
mod checkpointing;
mod restoring;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use arrow::array::{ArrayRef, RecordBatch, StringArray, TimestampMicrosecondArray};
use dataflow::{Tick, ZSet};
use parking_lot::RwLock;
use sql::catalog::Object;
use sql::statement::ObjectKind;
use sql::{Catalog, IndexDef, RelationId, SqlError, TableDef, ViewDef};
use storage::log::{Location, LogReader, Offset};

use crate::api::{Batching, CheckpointStatus, TableStatus, ViewStatus};
use crate::circuit::{LateRows, NodeId, StepErrors, StepResult};
use crate::definition::{Install, Redefinition, ViewProperties};
use crate::plan::{Measured, PlanKind, PlanNode, StreamPlan};
use crate::published::{Contents, Publication, Published};
use crate::record::{Definition, Entry, RowsEntry, RowsSchema};
use crate::stepper::Stepper;
use crate::system::{late_rows_table, rejected_rows_table};
use crate::view_store::Store;
use backfill::internal;
use building::BuildThread;
pub use building::{Job, Jobs, Replace, Views};
pub use checkpointing::Checkpointing;

use crate::writer::{LogFacts, Logged, Request, Work, tick_after};

/// What sessions and servers share with the engine's thread.
pub struct Shared {
    pub catalog: RwLock<Arc<Catalog>>,
    pub view_properties: RwLock<Arc<ViewProperties>>,
    pub plans: RwLock<HashMap<RelationId, Arc<StreamPlan>>>,
    pub published: Published,
    pub facts: Arc<LogFacts>,
    pub statistics: RwLock<Statistics>,
    pub jobs: Jobs,
}

/// By view, the figures of each node of its plan; `None` for relations that it only reads.
pub type Measurements = HashMap<RelationId, Vec<Option<Measured>>>;

/// Counters that `/metrics` shows; written once per tick.
#[derive(Clone, Debug, Default)]
pub struct Statistics {
    pub tables: HashMap<RelationId, TableStatus>,
    pub views: HashMap<RelationId, ViewStatus>,
    pub late_rows: u64,
    pub last_tick: Duration,
    pub checkpoints: CheckpointStatus,
}

pub struct Driver {
    stepper: Stepper,
    workers: usize,
    batching: Batching,
    /// The tick that shows all that was fed. Not the number of the next record: a replay passes over definitions.
    fed: Tick,
    shared: Arc<Shared>,
    catalog: Catalog,
    views: BTreeMap<RelationId, RunningView>,
    /// Per table, the records that hold its rows: what a view that is created later reads.
    history: HashMap<RelationId, Vec<(Offset, Location)>>,
    /// Tables whose columns are not those that they were created with.
    altered: HashMap<RelationId, RowsSchema>,
    clocks: Vec<(Offset, i64)>,
    reader: LogReader,
    /// For rows that the engine itself rejects; `None` while replaying, when they are in the log already.
    rejects: Option<Sender<Request>>,
    changes: Publication,
    statistics: Statistics,
    /// When the costlier statistics were taken, and whether ticks came since.
    slow: Instant,
    stale: bool,
    building: BTreeMap<RelationId, BuildThread>,
    /// All that were carried out, in their order.
    definitions: Vec<Definition>,
    /// By which keys are divided into shards.
    seed: u64,
    checkpointing: Option<Checkpointing>,
    /// Ticks at which a step has to end, because something was saved there.
    moments: BTreeSet<Tick>,
    /// As of when the relations were opened: what came before is in them already.
    published_as_of: Option<Tick>,
    /// The record that comes next.
    next: Offset,
}

struct RunningView {
    definition: Arc<ViewDef>,
    plan: Arc<StreamPlan>,
    root: NodeId,
    suspended: Option<String>,
}

/// How often the costlier statistics (state sizes) are taken.
const SLOW_STATISTICS: Duration = Duration::from_secs(1);
/// How often a view that is being built is asked whether it has caught up.
const BUILT_INTERVAL: Duration = Duration::from_millis(10);

impl Driver {
    pub fn new(
        shared: Arc<Shared>,
        reader: LogReader,
        workers: usize,
        batching: Batching,
        seed: u64,
    ) -> Result<Driver, SqlError> {
        let mut driver = Driver {
            stepper: Stepper::new(workers, batching, seed),
            workers,
            batching,
            fed: Tick(0),
            shared,
            catalog: Catalog::default(),
            views: BTreeMap::new(),
            history: HashMap::new(),
            altered: HashMap::new(),
            clocks: Vec::new(),
            reader,
            rejects: None,
            changes: Publication::default(),
            statistics: Statistics::default(),
            slow: Instant::now(),
            stale: false,
            building: BTreeMap::new(),
            definitions: Vec::new(),
            seed,
            checkpointing: None,
            moments: BTreeSet::new(),
            published_as_of: None,
            next: Offset(0),
        };
        driver.add_table(rejected_rows_table())?;
        let late = late_rows_table();
        driver.catalog.tables.insert(late.name.clone(), Arc::clone(&late));
        let store = Store::append_only(late.schema());
        driver.shared.published.add(late.id, late.schema(), Contents::Store(store));
        driver.share_catalog();
        Ok(driver)
    }

    /// Rows that the engine rejects go to the log from now on.
    pub fn go_live(&mut self, requests: Sender<Request>) {
        self.rejects = Some(requests);
    }

    /// Takes records as they become durable, until the log's thread ends.
    pub fn run(mut self, work: Receiver<Work>) {
        loop {
            let next = match self.pause() {
                Some(pause) => work.recv_timeout(pause),
                None => work.recv().map_err(RecvTimeoutError::from),
            };
            match next {
                Ok(first) => self.work(first, &work),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            self.take_built();
            self.go_on_with_checkpoint();
            if self.stale && self.slow.elapsed() >= SLOW_STATISTICS {
                self.refresh_slow_statistics();
            }
        }
        self.stop_building();
    }

    /// How long to wait for work before looking at what else there is to do; `None`: for ever.
    fn pause(&self) -> Option<Duration> {
        let building = self.is_building().then_some(BUILT_INTERVAL);
        let stale = self.stale.then_some(SLOW_STATISTICS);
        [building, stale, self.checkpoint_pause()].into_iter().flatten().min()
    }

    /// Takes all work that there is, as far as one step goes, and shows what it did.
    fn work(&mut self, first: Work, work: &Receiver<Work>) {
        let started = Instant::now();
        let mut last = None;
        let mut measure = Vec::new();
        let mut rows = 0;
        let mut next = Some(first);
        while let Some(work_item) = next {
            match work_item {
                Work::Measure(reply) => measure.push(reply),
                Work::Replace(replace) => self.begin_replacing(*replace),
                Work::Checkpoint(reply) => self.ask_checkpoint(reply),
                Work::Record(logged) => {
                    last = Some(logged.offset);
                    if let Entry::Rows(entry) = &logged.entry {
                        rows += entry.parts.iter().map(|p| p.rows.num_rows()).sum::<usize>();
                    }
                    self.take(*logged);
                }
            }
            next = if rows < self.batching.step_rows { work.try_recv().ok() } else { None };
        }
        if let Some(last) = last {
            self.step();
            self.publish(tick_after(last), started);
            self.shared.facts.backlog_rows.fetch_sub(rows as u64, Ordering::Relaxed);
            self.worked(started.elapsed());
        }
        for reply in measure {
            // Nobody may be waiting any more.
            let _ = reply.send(self.measure());
        }
    }

    fn measure(&self) -> Measurements {
        let measure = |view: &RunningView| self.stepper.circuit.measure(&view.plan);
        self.views.iter().map(|(id, view)| (*id, measure(view))).collect()
    }

    /// One record, live or replayed.
    pub fn take(&mut self, logged: Logged) {
        let Logged { offset, location, entry, install } = logged;
        self.next = Offset(offset.0 + 1);
        self.outdate_checkpoint();
        match entry {
            Entry::Rows(mut entry) => {
                // Rows may have been on their way when a column was added.
                for part in &mut entry.parts {
                    if let Some(rows) = self.altered.get(&part.relation) {
                        match rows.widen(part.rows.clone()) {
                            Ok(wide) => part.rows = wide,
                            Err(error) => {
                                tracing::error!(%error, offset = offset.0, "a record can't be applied")
                            }
                        }
                    }
                }
                if self.stepper.must_step_before(&entry) {
                    self.step();
                }
                self.count(&entry);
                for part in &entry.parts {
                    if let Some(history) = self.history.get_mut(&part.relation) {
                        history.push((offset, location));
                        self.changes.locations.push((part.relation, location));
                    }
                }
                if let Err(error) = self.stepper.feed(&entry, tick_after(offset)) {
                    tracing::error!(%error, offset = offset.0, "a record can't be applied");
                }
                self.fed_at(offset);
            }
            Entry::Clock(now_us) => {
                if self.stepper.must_step_before_clock() {
                    self.step();
                }
                self.clocks.push((offset, now_us));
                self.stepper.feed_clock(now_us);
                self.fed_at(offset);
            }
            Entry::Definition(definition) => {
                self.step();
                self.definitions.push(definition);
                self.restructure_checkpoint();
                if let Some(install) = install
                    && let Err(error) = self.install(install, offset)
                {
                    tracing::error!(%error, "a definition can't be carried out");
                }
            }
        }
    }

    /// A record was fed.
    fn fed_at(&mut self, offset: Offset) {
        self.fed = tick_after(offset);
        if self.moments.remove(&self.fed) {
            self.step();
        }
    }

    /// A record that changes nothing was passed over.
    pub fn passed(&mut self, offset: Offset) {
        self.next = Offset(offset.0 + 1);
    }

    /// A definition that was carried out.
    pub fn remember(&mut self, definition: Definition) {
        self.definitions.push(definition);
    }

    fn count(&mut self, entry: &RowsEntry) {
        let rejected: usize = entry
            .parts
            .iter()
            .filter(|p| p.relation == crate::system::REJECTED_ROWS)
            .map(|p| p.rows.num_rows())
            .sum();
        let status = self.statistics.tables.entry(entry.table).or_default();
        status.rows_accepted += entry.accepted;
        status.rows_duplicate += entry.duplicates;
        if entry.table != crate::system::REJECTED_ROWS {
            status.rows_rejected += rejected as u64;
        }
    }

    /// Carries out a definition; at start, before the records are replayed, `offset` is 0 and there is nothing to read.
    pub fn install(&mut self, install: Install, offset: Offset) -> Result<(), SqlError> {
        match install {
            Install::Nothing => return Ok(()),
            Install::Table(table) => self.add_table(table)?,
            Install::View { view, plan: None } => {
                self.catalog.views.insert(view.name.clone(), view);
            }
            Install::View { view, plan: Some(plan) } => self.add_view(view, plan, offset)?,
            Install::Index(index) => {
                self.add_index(&index)?;
                self.catalog.indexes.insert(index.name.clone(), index);
            }
            Install::Function(function) => {
                self.catalog.functions.insert(function.name.clone(), function);
            }
            Install::ReplaceView(view) => {
                self.catalog.views.insert(view.name.clone(), view);
            }
            Install::Replace(views) => self.replace_views(&views, offset)?,
            Install::CutOver { view, .. } => self.cut_over(view, offset)?,
            Install::Comment { of, text } => match text {
                Some(text) => drop(self.catalog.comments.insert(of, text)),
                None => drop(self.catalog.comments.remove(&of)),
            },
            Install::Redefine(changed) => self.redefine(&changed)?,
            Install::Drop(objects) => objects.iter().for_each(|object| self.drop(object)),
        }
        self.share_catalog();
        Ok(())
    }

    /// Definitions with other names or more columns; views and their state are not touched.
    fn redefine(&mut self, changed: &Redefinition) -> Result<(), SqlError> {
        for table in &changed.tables {
            let rows = RowsSchema::of(table);
            self.stepper.redefine_table(Arc::clone(table))?;
            self.shared.published.redefine(table.id, &rows)?;
            for (_, change) in self.changes.changes.iter_mut().filter(|(id, _)| *id == table.id) {
                *change = change.with_rows(rows.widen(change.rows().clone())?);
            }
            self.altered.insert(table.id, rows);
        }
        for view in &changed.views {
            if let Some(running) = self.views.get_mut(&view.id) {
                running.definition = Arc::clone(view);
            }
            for (own, _) in self.building.values_mut().flat_map(|building| &mut building.views) {
                if own.id == view.id {
                    *own = Arc::clone(view);
                }
            }
        }
        for index in &changed.indexes {
            let old =
                self.catalog.indexes.values().find(|old| old.id == index.id).map(|old| old.name.clone());
            if let (Some(old), Some(id)) =
                (old.filter(|old| *old != index.name), self.catalog.id_of(&index.relation))
            {
                self.shared.published.rename_index(id, &old, &index.name);
            }
        }
        changed.apply(&mut self.catalog);
        // EXPLAIN shows sources by name.
        let names: HashMap<RelationId, &String> = changed
            .tables
            .iter()
            .map(|table| (table.id, &table.name))
            .chain(changed.views.iter().map(|view| (view.id, &view.name)))
            .collect();
        let running = self.views.values_mut().map(|running| &mut running.plan);
        for plan in
            running.chain(self.building.values_mut().flat_map(|b| b.views.iter_mut().map(|(_, plan)| plan)))
        {
            let renamed = |node: &PlanNode| match &node.kind {
                PlanKind::Source { relation, name } => names.get(relation).is_some_and(|new| *new != name),
                _ => false,
            };
            if plan.nodes.iter().any(renamed) {
                for node in &mut Arc::make_mut(plan).nodes {
                    if let PlanKind::Source { relation, name } = &mut node.kind
                        && let Some(new) = names.get(relation)
                    {
                        name.clone_from(new);
                    }
                }
            }
        }
        for table in &changed.tables {
            self.rebuild_readers_of(table.id);
        }
        Ok(())
    }

    fn add_table(&mut self, table: Arc<TableDef>) -> Result<(), SqlError> {
        self.stepper.add_table(Arc::clone(&table))?;
        let contents = if table.append_only && table.primary_key.is_empty() {
            Contents::Log { locations: Arc::default(), rows: 0 }
        } else {
            Contents::Store(Store::view(table.schema(), table.primary_key.clone()).map_err(internal)?)
        };
        self.shared.published.add(table.id, table.schema(), contents);
        self.history.insert(table.id, Vec::new());
        self.catalog.tables.insert(table.name.clone(), table);
        Ok(())
    }

    fn add_index(&mut self, index: &IndexDef) -> Result<(), SqlError> {
        let names = self.catalog.columns(&index.relation);
        let columns = index.columns.iter().map(|c| names.iter().position(|name| name == c)).collect();
        let (Some(id), Some(columns)) = (self.catalog.id_of(&index.relation), columns) else {
            return Err(SqlError::internal("an index is on columns that exist"));
        };
        self.shared.published.create_index(id, &index.name, columns).map_err(internal)?;
        Ok(())
    }

    fn drop(&mut self, object: &Object) {
        let name = object.name.as_str();
        if let Some(id) = self.catalog.id_of_object(object) {
            self.catalog.comments.retain(|(of, _), _| *of != id);
        }
        if object.kind == ObjectKind::Function {
            self.catalog.functions.remove(name);
            return;
        }
        if let Some(table) = self.catalog.tables.remove(name) {
            self.stepper.drop_table(table.id);
            self.history.remove(&table.id);
            self.altered.remove(&table.id);
            self.shared.published.remove(table.id);
            self.statistics.tables.remove(&table.id);
        }
        if let Some(view) = self.catalog.views.remove(name)
            && view.materialized
        {
            self.forget_building(view.id);
            self.views.remove(&view.id);
            self.stepper.circuit.drop_view(view.id);
            self.shared.published.remove(view.id);
            self.statistics.views.remove(&view.id);
        }
        if let Some(index) = self.catalog.indexes.remove(name)
            && let Some(id) = self.catalog.id_of(&index.relation)
        {
            self.shared.published.drop_index(id, name);
        }
    }

    /// Identities below `next_id` were given out before, also to what was dropped since.
    pub fn reserve_ids(&mut self, next_id: u32) {
        self.catalog.next_id = self.catalog.next_id.max(next_id);
        self.share_catalog();
    }

    fn share_catalog(&mut self) {
        let newest = self
            .catalog
            .tables
            .values()
            .map(|t| t.id.0)
            .chain(self.catalog.views.values().map(|v| v.id.0))
            .chain(self.catalog.indexes.values().map(|i| i.id.0))
            .chain(self.catalog.functions.values().map(|f| f.id.0))
            .max()
            .unwrap_or(0);
        self.catalog.next_id = self.catalog.next_id.max(newest + 1).max(crate::system::FIRST_USER_ID);
        let built = self.views.values().map(|v| (&v.definition.name, &v.plan));
        let creating = self.building.values().filter(|building| !building.replaces());
        let all = built.chain(creating.flat_map(|b| b.views.iter().map(|(view, plan)| (&view.name, plan))));
        let properties = all.map(|(name, plan)| (name.clone(), plan.root().properties.clone()));
        *self.shared.view_properties.write() = Arc::new(properties.collect());
        *self.shared.plans.write() = self.views.iter().map(|(id, v)| (*id, Arc::clone(&v.plan))).collect();
        *self.shared.catalog.write() = Arc::new(self.catalog.clone());
    }

    /// Runs the circuit over what was fed; the changes wait for [`Driver::publish`].
    pub fn step(&mut self) {
        if !self.stepper.has_pending() {
            return;
        }
        let (result, tables) = match self.stepper.step(self.fed) {
            Ok(done) => done,
            Err(error) => {
                tracing::error!(%error, "a step failed");
                return;
            }
        };
        let in_already = self.published_as_of.is_some_and(|as_of| self.fed <= as_of);
        if !in_already {
            self.changes.changes.extend(tables);
        }
        let StepResult { changes, late, errors, failed } = result;
        for (id, error) in failed {
            if let Some(view) = self.views.get_mut(&id)
                && view.suspended.is_none()
            {
                tracing::error!(view = view.definition.name, error, "view suspended");
                view.suspended = Some(error);
            }
        }
        if in_already {
            return;
        }
        for (id, view) in self.views.iter().filter(|(_, view)| view.suspended.is_none()) {
            for change in changes.get(&view.root).into_iter().flatten() {
                self.changes.changes.push((*id, change.clone()));
            }
        }
        for rows in late {
            self.record_late(rows);
        }
        for error in errors {
            self.record_errors(error);
        }
    }

    fn names(&self, views: &[RelationId]) -> String {
        let names = views.iter().filter_map(|id| self.views.get(id)).map(|v| v.definition.name.as_str());
        names.collect::<Vec<_>>().join(", ")
    }

    fn record_late(&mut self, late: LateRows) {
        let count = late.rows.num_rows();
        let tables: Vec<&Arc<TableDef>> =
            self.catalog.tables.values().filter(|t| late.tables.contains(&t.id)).collect();
        let relation = tables.iter().map(|t| t.name.as_str()).collect::<Vec<_>>().join(", ");
        for id in &late.tables {
            self.statistics.tables.entry(*id).or_default().rows_late += count as u64;
        }
        self.statistics.late_rows += count as u64;
        let rows: Vec<String> = (0..count).map(|row| crate::system::row_json(&late.rows, row)).collect();
        let same = |text: String| -> ArrayRef { Arc::new(StringArray::from(vec![text; count])) };
        let watermark = TimestampMicrosecondArray::from(vec![late.watermark.0; count]).with_timezone("UTC");
        let columns: Vec<ArrayRef> = vec![
            same(relation),
            same(self.names(&late.views)),
            Arc::new(watermark),
            Arc::new(StringArray::from(rows)),
        ];
        match RecordBatch::try_new(late_rows_table().schema(), columns) {
            Ok(batch) => self.changes.changes.push((crate::system::LATE_ROWS, ZSet::inserts(batch))),
            Err(error) => tracing::error!(%error, count, "late rows can't be recorded"),
        }
    }

    /// Results that became NULL are sampled into `rejected_rows`, through the log like any other row.
    fn record_errors(&mut self, errors: StepErrors) {
        let Some(requests) = &self.rejects else { return };
        let views = self.names(&errors.views);
        match crate::system::expression_errors(&views, &errors.samples, errors.total) {
            Ok(request) => drop(requests.send(Request::Rows(Box::new(request)))),
            Err(error) => tracing::error!(%error, "expression errors can't be recorded"),
        }
    }

    /// Shows readers what the steps since the last tick did. Who waits for the tick finds the counters of at least it.
    pub fn publish(&mut self, tick: Tick, started: Instant) {
        let publication = std::mem::take(&mut self.changes);
        let facts = &self.shared.facts;
        facts.needs_clock.store(self.stepper.watermarks.needs_clock(), Ordering::Relaxed);
        let now_us = self.stepper.watermarks.now_us();
        let due = now_us.and_then(|now_us| self.stepper.circuit.clock_due_us(now_us));
        facts.clock_due_us.store(due.unwrap_or(i64::MAX), Ordering::Relaxed);
        facts.clock_us.store(now_us.unwrap_or(i64::MIN), Ordering::Relaxed);
        self.statistics.last_tick = started.elapsed();
        if self.slow.elapsed() >= SLOW_STATISTICS || self.statistics.views.len() != self.views.len() {
            self.refresh_slow_statistics();
        } else {
            self.stale = true;
            self.refresh_statistics(false);
        }
        let refused = self.shared.published.publish(tick, publication);
        if refused.is_empty() {
            return;
        }
        for (id, error) in refused {
            tracing::error!(relation = id.0, error, "contents refused a change");
            if let Some(view) = self.views.get_mut(&id) {
                view.suspended.get_or_insert(error);
            }
        }
        self.refresh_statistics(false);
    }

    fn refresh_slow_statistics(&mut self) {
        self.slow = Instant::now();
        self.stale = false;
        self.refresh_statistics(true);
    }

    fn refresh_statistics(&mut self, slow: bool) {
        for (id, clock) in &self.stepper.watermarks.tables {
            let status = self.statistics.tables.entry(*id).or_default();
            status.watermark_us = (clock.watermark.0 != i64::MIN).then_some(clock.watermark.0);
            status.max_event_us = clock.max_event_us;
            status.idle = clock.idle;
        }
        for (id, view) in &self.views {
            let status = self.statistics.views.entry(*id).or_default();
            status.suspended.clone_from(&view.suspended);
            let sources = view.plan.root().properties.watermarks.iter();
            let watermarks =
                sources.filter_map(|t| self.stepper.watermarks.tables.get(t)).map(|c| c.watermark.0);
            status.watermark_us = watermarks.min().filter(|w| *w != i64::MIN);
            if slow {
                let (state, busy) = self.stepper.circuit.view_state(*id);
                (status.state_rows, status.state_bytes, status.busy) =
                    (state.rows as u64, state.bytes as u64, busy);
            }
        }
        *self.shared.statistics.write() = self.statistics.clone();
    }
}

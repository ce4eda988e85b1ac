//! A view over rows that are there already: computed in a circuit of its own, record by record as it would have seen
//! them. It is then exactly where it would be had it existed from the beginning.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use dataflow::Tick;
use sql::{RelationId, SqlError, SqlState, ViewDef};
use storage::log::{Location, LogReader, Offset};

use super::{Driver, RunningView};
use crate::api::{Batching, ViewStatus};
use crate::circuit::NodeId;
use crate::plan::{PlanKind, StreamPlan};
use crate::published::Contents;
use crate::record::{Entry, RowsSchema, Schemas, decode};
use crate::stepper::Stepper;
use crate::view_store::Store;
use crate::writer::tick_after;

/// A record that a view reads.
#[derive(Clone, Copy)]
pub(super) enum Past {
    Record(Location),
    Clock(i64),
}

impl Past {
    /// Bytes that are read for it.
    pub fn bytes(&self) -> u64 {
        match self {
            Past::Record(location) => u64::from(location.length),
            Past::Clock(_) => 0,
        }
    }
}

/// A view on its way: all its records before [`Backfill::through`] were taken.
pub(super) struct Backfill {
    pub view: Arc<ViewDef>,
    pub plan: Arc<StreamPlan>,
    /// Tables that it reads, directly or through views.
    pub tables: Vec<RelationId>,
    pub through: Offset,
    pub rows: u64,
    schemas: Schemas,
    stepper: Stepper,
    root: NodeId,
    store: Store,
    tick: Tick,
}

impl Backfill {
    /// Takes one of the view's records.
    pub fn take(&mut self, offset: Offset, past: Past, reader: &LogReader) -> Result<(), SqlError> {
        match past {
            Past::Clock(now_us) => {
                if self.stepper.must_step_before_clock() {
                    self.step()?;
                }
                self.stepper.feed_clock(now_us);
            }
            Past::Record(location) => {
                let record = reader
                    .read_at(location)
                    .map_err(|e| SqlError::new(SqlState::IoError, format!("history can't be read: {e}")))?;
                if let Entry::Rows(entry) =
                    decode(record.kind, record.stream, &record.payload, &self.schemas)?
                {
                    if self.stepper.must_step_before(&entry) {
                        self.step()?;
                    }
                    self.stepper.feed(&entry)?;
                    self.rows += entry.parts.iter().map(|part| part.rows.num_rows() as u64).sum::<u64>();
                }
            }
        }
        // A step has the tick that it had, or would have had, when its last record was new.
        self.tick = tick_after(offset);
        self.through = Offset(offset.0 + 1);
        Ok(())
    }

    /// Computes what was taken.
    pub fn step(&mut self) -> Result<(), SqlError> {
        let (result, _) = self.stepper.step(self.tick)?;
        if let Some((_, error)) = result.failed.first() {
            return Err(SqlError::internal(error.clone()));
        }
        for change in result.changes.get(&self.root).into_iter().flatten() {
            self.store.apply(change).map_err(internal)?;
        }
        Ok(())
    }
}

impl Driver {
    /// An empty view, with all that stands between it and its tables.
    pub(super) fn begin_backfill(
        &self,
        view: &Arc<ViewDef>,
        plan: &Arc<StreamPlan>,
        batching: Batching,
    ) -> Result<Backfill, SqlError> {
        let root_plan = plan.root();
        let key = root_plan.properties.key.clone().unwrap_or_default();
        let store = if root_plan.properties.append_only && (view.emit_on_window_close || key.is_empty()) {
            Store::append_only(Arc::clone(&root_plan.schema))
        } else {
            Store::view(Arc::clone(&root_plan.schema), key).map_err(internal)?
        };
        let mut stepper = Stepper::new(self.workers, batching);
        let tables = self.source_tables(plan);
        let mut schemas = Schemas::new();
        for id in &tables {
            let table = self.catalog.tables.values().find(|t| t.id == *id);
            let table = table.ok_or_else(|| SqlError::internal("a view reads tables that exist"))?;
            schemas.insert(*id, RowsSchema::of(table));
            stepper.add_table(Arc::clone(table))?;
        }
        let mut roots = HashMap::new();
        for below in self.views_below(plan) {
            let running = self.views.get(&below);
            let running = running.ok_or_else(|| SqlError::internal("a view reads views that are there"))?;
            let root = stepper
                .circuit
                .add_view(below, &running.plan, &roots, &mut stepper.watermarks)
                .map_err(internal)?;
            roots.insert(below, root);
        }
        let root =
            stepper.circuit.add_view(view.id, plan, &roots, &mut stepper.watermarks).map_err(internal)?;
        stepper.wake();
        Ok(Backfill {
            view: Arc::clone(view),
            plan: Arc::clone(plan),
            tables,
            through: Offset(0),
            rows: 0,
            schemas,
            stepper,
            root,
            store,
            tick: Tick(0),
        })
    }

    /// The records of these tables, and those of the clock, in order.
    pub(super) fn records_of(&self, tables: &[RelationId], range: Range<Offset>) -> Vec<(Offset, Past)> {
        let mut records: Vec<(Offset, Past)> = Vec::new();
        fn within<'a, T>(all: &'a [(Offset, T)], range: &Range<Offset>) -> &'a [(Offset, T)] {
            let from = all.partition_point(|(offset, _)| *offset < range.start);
            let until = all.partition_point(|(offset, _)| *offset < range.end);
            &all[from..until.max(from)]
        }
        for id in tables {
            let history = self.history.get(id).map_or(&[][..], |history| within(history, &range));
            records.extend(history.iter().map(|(offset, location)| (*offset, Past::Record(*location))));
        }
        records.extend(within(&self.clocks, &range).iter().map(|(offset, now)| (*offset, Past::Clock(*now))));
        records.sort_unstable_by_key(|(offset, _)| *offset);
        // A record with rows of several tables is listed for each.
        records.dedup_by_key(|(offset, _)| *offset);
        records
    }

    /// Puts a view that has taken all records so far into the running circuit, and shows it.
    pub(super) fn adopt(&mut self, mut built: Backfill) -> Result<(), SqlError> {
        built.step()?;
        // Other tables' records moved the clock, too.
        if let Some(now_us) = self.stepper.watermarks.now_us() {
            built.stepper.watermarks.tell_time(now_us);
            built.stepper.wake();
            built.step()?;
        }
        let Backfill { view, plan, stepper, root, store, .. } = built;
        // It may have been renamed since.
        let current = self.catalog.views.values().find(|current| current.id == view.id);
        let view = current.map_or(view, Arc::clone);
        let watermarks = &mut self.stepper.watermarks;
        let root = self.stepper.circuit.adopt(view.id, stepper.circuit, root, watermarks);
        self.shared.published.add(view.id, Arc::clone(&plan.root().schema), Contents::Store(store));
        self.catalog.views.insert(view.name.clone(), Arc::clone(&view));
        self.statistics.views.insert(view.id, ViewStatus::default());
        self.views.insert(view.id, RunningView { definition: view, plan, root, suspended: None });
        Ok(())
    }

    /// Tables that a plan reads, directly or through views.
    pub(super) fn source_tables(&self, plan: &StreamPlan) -> Vec<RelationId> {
        let mut tables = Vec::new();
        for node in &plan.nodes {
            if let PlanKind::Source { relation, .. } = &node.kind {
                match self.views.get(relation) {
                    Some(view) => tables.extend(self.source_tables(&view.plan)),
                    None => tables.push(*relation),
                }
            }
        }
        tables.sort();
        tables.dedup();
        tables
    }

    /// Materialized views that a plan reads, those below them first.
    fn views_below(&self, plan: &StreamPlan) -> Vec<RelationId> {
        let mut found = Vec::new();
        for node in &plan.nodes {
            if let PlanKind::Source { relation, .. } = &node.kind
                && let Some(view) = self.views.get(relation)
            {
                for id in self.views_below(&view.plan).into_iter().chain([*relation]) {
                    if !found.contains(&id) {
                        found.push(id);
                    }
                }
            }
        }
        found
    }
}

pub(super) fn internal(error: dataflow::Error) -> SqlError {
    SqlError::internal(error.to_string())
}

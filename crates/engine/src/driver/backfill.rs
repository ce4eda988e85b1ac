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
use crate::plan::StreamPlan;
use crate::published::{Contents, Replacement};
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

/// Views on their way: all their records before [`Backfill::through`] were taken.
pub(super) struct Backfill {
    pub views: Vec<Built>,
    /// Tables that they read, directly or through views.
    pub tables: Vec<RelationId>,
    pub through: Offset,
    pub rows: u64,
    schemas: Schemas,
    stepper: Stepper,
    tick: Tick,
}

/// A view, and what it has so far.
pub(super) struct Built {
    pub view: Arc<ViewDef>,
    pub plan: Arc<StreamPlan>,
    root: NodeId,
    store: Store,
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
                    self.stepper.feed(&entry, tick_after(offset))?;
                    self.rows += entry.parts.iter().map(|part| part.rows.num_rows() as u64).sum::<u64>();
                }
            }
        }
        // A step has the tick that it had, or would have had, when its last record was new.
        self.tick = tick_after(offset);
        self.through = Offset(offset.0 + 1);
        Ok(())
    }

    /// Takes records, in their order.
    pub fn take_all(&mut self, records: Vec<(Offset, Past)>, reader: &LogReader) -> Result<(), SqlError> {
        records.into_iter().try_for_each(|(offset, past)| self.take(offset, past, reader))
    }

    /// Computes what was taken.
    pub fn step(&mut self) -> Result<(), SqlError> {
        let (result, _) = self.stepper.step(self.tick)?;
        if let Some((_, error)) = result.failed.first() {
            return Err(SqlError::internal(error.clone()));
        }
        for built in &mut self.views {
            for change in result.changes.get(&built.root).into_iter().flatten() {
                built.store.apply(change).map_err(internal)?;
            }
        }
        Ok(())
    }
}

impl Driver {
    /// Empty views, those that are read first, with all that stands between them and their tables.
    pub(super) fn begin_backfill(
        &self,
        views: &[(Arc<ViewDef>, Arc<StreamPlan>)],
        batching: Batching,
    ) -> Result<Backfill, SqlError> {
        let mut stepper = Stepper::new(self.workers, batching, self.seed);
        let own: Vec<RelationId> = views.iter().map(|(view, _)| view.id).collect();
        let tables = self.tables_of(views);
        let mut schemas = Schemas::new();
        for id in &tables {
            let table = self.catalog.tables.values().find(|t| t.id == *id);
            let table = table.ok_or_else(|| SqlError::internal("a view reads tables that exist"))?;
            schemas.insert(*id, RowsSchema::of(table));
            stepper.add_table(Arc::clone(table))?;
        }
        let mut roots = HashMap::new();
        for (_, plan) in views {
            for below in self.views_below(plan, &own) {
                if roots.contains_key(&below) {
                    continue;
                }
                let running = self.views.get(&below);
                let running =
                    running.ok_or_else(|| SqlError::internal("a view reads views that are there"))?;
                let root = stepper.circuit.add_view(below, &running.plan, &roots, &mut stepper.watermarks);
                roots.insert(below, root.map_err(internal)?);
            }
        }
        let mut built = Vec::new();
        for (view, plan) in views {
            let root_plan = plan.root();
            let key = root_plan.properties.key.clone().unwrap_or_default();
            let store = if root_plan.properties.append_only && (view.emit_on_window_close || key.is_empty()) {
                Store::append_only(Arc::clone(&root_plan.schema))
            } else {
                Store::view(Arc::clone(&root_plan.schema), key).map_err(internal)?
            };
            let root = stepper.circuit.add_view(view.id, plan, &roots, &mut stepper.watermarks);
            let root = root.map_err(internal)?;
            roots.insert(view.id, root);
            built.push(Built { view: Arc::clone(view), plan: Arc::clone(plan), root, store });
        }
        stepper.wake();
        let through = Offset(0);
        Ok(Backfill { views: built, tables, through, rows: 0, schemas, stepper, tick: Tick(0) })
    }

    /// The tables that views read, directly or through others.
    pub(super) fn tables_of(&self, views: &[(Arc<ViewDef>, Arc<StreamPlan>)]) -> Vec<RelationId> {
        let own: HashMap<RelationId, &Arc<StreamPlan>> =
            views.iter().map(|(view, plan)| (view.id, plan)).collect();
        let mut tables = Vec::new();
        let mut plans: Vec<&StreamPlan> = views.iter().map(|(_, plan)| plan.as_ref()).collect();
        while let Some(plan) = plans.pop() {
            for relation in plan.sources() {
                let running = self.views.get(&relation).map(|view| view.plan.as_ref());
                match own.get(&relation).map(|plan| plan.as_ref()).or(running) {
                    // Those of its own are looked at anyway.
                    Some(_) if own.contains_key(&relation) => {}
                    Some(plan) => plans.push(plan),
                    None => tables.push(relation),
                }
            }
        }
        tables.sort_unstable();
        tables.dedup();
        tables
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

    /// Puts views that have taken all records so far into the running circuit, and shows them; those of the same number
    /// that are there make room.
    pub(super) fn adopt(&mut self, mut built: Backfill) -> Result<(), SqlError> {
        self.restructure_checkpoint();
        built.step()?;
        // Other tables' records moved the clock, too.
        if let Some(now_us) = self.stepper.watermarks.now_us() {
            built.stepper.watermarks.tell_time(now_us);
            built.stepper.wake();
            built.step()?;
        }
        let Backfill { views, stepper, .. } = built;
        for old in views.iter().filter(|new| self.views.contains_key(&new.view.id)) {
            // Nodes above a replaced view look like those that take their place, and have another state.
            self.stepper.circuit.drop_view(old.view.id);
        }
        let roots: Vec<(RelationId, NodeId)> =
            views.iter().map(|built| (built.view.id, built.root)).collect();
        let roots = self.stepper.circuit.adopt(&roots, stepper.circuit, &mut self.stepper.watermarks);
        for (Built { view, plan, store, .. }, root) in views.into_iter().zip(roots) {
            let schema = Arc::clone(&plan.root().schema);
            if self.views.contains_key(&view.id) {
                let indexes = self.catalog.indexes.values().filter(|index| index.relation == view.name);
                let columns = |names: &[String]| -> Vec<usize> {
                    names.iter().filter_map(|name| view.schema.index_of(name).ok()).collect()
                };
                let indexes = indexes.map(|index| (index.name.clone(), columns(&index.columns))).collect();
                let replacement = Replacement::new(view.id, schema, store, indexes).map_err(internal)?;
                // What its rows did since the last tick is in the new ones.
                self.changes.changes.retain(|(id, _)| *id != view.id);
                self.changes.replacements.push(replacement);
            } else {
                self.shared.published.add(view.id, schema, Contents::Store(store));
            }
            self.catalog.views.insert(view.name.clone(), Arc::clone(&view));
            self.statistics.views.insert(view.id, ViewStatus::default());
            self.views.insert(view.id, RunningView { definition: view, plan, root, suspended: None });
        }
        Ok(())
    }

    /// Materialized views that a plan reads, those below them first, without `except` and what is below only these.
    fn views_below(&self, plan: &StreamPlan, except: &[RelationId]) -> Vec<RelationId> {
        let mut found = Vec::new();
        for relation in plan.sources().filter(|relation| !except.contains(relation)) {
            let Some(view) = self.views.get(&relation) else { continue };
            for id in self.views_below(&view.plan, except).into_iter().chain([relation]) {
                if !found.contains(&id) {
                    found.push(id);
                }
            }
        }
        found
    }
}

pub(super) fn internal(error: dataflow::Error) -> SqlError {
    SqlError::internal(error.to_string())
}

//! Records in, steps of the circuit out: the deterministic heart, used live, at start and for backfill alike.
//!
//! Several records may share a step, and the result must not show it. The one thing that could is lateness: a row is
//! late against the watermark before *its own record*. So a record with a row that some window would refuse now, but
//! would not have refused when the step began, starts a new step.
//!
//! Where a view asks for it ([`crate::circuit::Order`]), the order of records counts, too: joins that give a left row once,
//! with the right rows of its moment, get no right row that came after a left one in the same step.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use arrow::array::Array;
use dataflow::{StateReader, StateWriter, Tick, ZSet};
use sql::{RelationId, SqlError, TableDef};

use crate::api::Batching;
use crate::circuit::{Causes, Circuit, StepResult};
use crate::record::{Part, RowsEntry, RowsSchema};
use crate::table::TableState;
use crate::watermarks::{TableClock, Watermarks};

pub struct Stepper {
    pub circuit: Circuit,
    pub watermarks: Watermarks,
    tables: HashMap<RelationId, Table>,
    pending: HashMap<RelationId, Vec<ZSet>>,
    pending_rows: usize,
    /// So that a long replay's batches stay of bounded size.
    step_rows: usize,
    /// What waits for the next step, also where it changes no row.
    waiting: Waiting,
    /// Some node may have something to do even without rows: time passed, or a view is new.
    dirty: bool,
}

/// The records that share the next step.
#[derive(Default)]
struct Waiting {
    tables: BTreeSet<RelationId>,
    clock: bool,
}

impl Waiting {
    fn may_have_caused(&self, causes: &Causes) -> bool {
        let any = self.clock || !self.tables.is_empty();
        (causes.any && any) || (causes.clock && self.clock) || !self.tables.is_disjoint(&causes.tables)
    }
}

struct Table {
    definition: Arc<TableDef>,
    state: TableState,
    /// As of when the state was opened: records up to this tick are in it already.
    as_of: Option<Tick>,
    /// The tick of the last record with its rows.
    changed: Tick,
}

impl Stepper {
    pub fn new(workers: usize, batching: Batching, seed: u64) -> Stepper {
        Stepper {
            circuit: Circuit::new(workers, batching.part_rows, seed),
            step_rows: batching.step_rows,
            watermarks: Watermarks::default(),
            tables: HashMap::new(),
            pending: HashMap::new(),
            pending_rows: 0,
            waiting: Waiting::default(),
            dirty: false,
        }
    }

    pub fn add_table(&mut self, definition: Arc<TableDef>) -> Result<(), SqlError> {
        let state = TableState::new(&definition).map_err(|e| SqlError::internal(e.to_string()))?;
        if let Some(clock) = TableClock::new(&definition) {
            self.watermarks.tables.insert(definition.id, clock);
        }
        let (as_of, changed) = (None, Tick(0));
        self.tables.insert(definition.id, Table { definition, state, as_of, changed });
        Ok(())
    }

    /// The table has other names or more columns.
    ///
    /// # Errors
    /// When its rows don't fit the definition.
    pub fn redefine_table(&mut self, definition: Arc<TableDef>) -> Result<(), SqlError> {
        let Some(table) = self.tables.remove(&definition.id) else { return Ok(()) };
        let state = table.state.redefined(&definition, &RowsSchema::of(&definition))?;
        self.tables.insert(definition.id, Table { definition, state, ..table });
        Ok(())
    }

    pub fn drop_table(&mut self, id: RelationId) {
        self.tables.remove(&id);
        self.watermarks.tables.remove(&id);
    }

    /// Tables that remember their rows.
    pub fn keyed_tables(&self) -> Vec<RelationId> {
        let keyed = self.tables.iter().filter(|(_, table)| matches!(table.state, TableState::Keyed(_)));
        keyed.map(|(id, _)| *id).collect()
    }

    /// The tick of the last record with rows of the table.
    pub fn table_changed(&self, id: RelationId) -> Tick {
        self.tables.get(&id).map_or(Tick(0), |table| table.changed)
    }

    /// Writes what a table remembers.
    ///
    /// # Errors
    /// When there is no such table, or it can't be saved.
    pub fn save_table(&self, id: RelationId, out: &mut StateWriter) -> dataflow::Result<()> {
        let table = self.tables.get(&id);
        table.ok_or_else(|| dataflow::Error::State(format!("there is no table {}", id.0)))?.state.save(out)
    }

    /// Takes in what a table remembered as of a tick.
    ///
    /// # Errors
    /// When there is no such table, or it can't be read.
    pub fn load_table(&mut self, id: RelationId, as_of: Tick, saved: &[u8]) -> dataflow::Result<()> {
        let table = self.tables.get_mut(&id);
        let table = table.ok_or_else(|| dataflow::Error::State(format!("there is no table {}", id.0)))?;
        let mut saved = StateReader::new(saved);
        table.state.load(&mut saved)?;
        (table.as_of, table.changed) = (Some(as_of), as_of);
        saved.finish()
    }

    /// No record comes any more that is in some state already.
    pub fn end_restoring(&mut self) {
        self.tables.values_mut().for_each(|table| table.as_of = None);
        self.circuit.end_restoring();
    }

    /// Nothing waits for a step: everything is as it was after the last one.
    pub fn rest(&mut self) {
        self.dirty = false;
        self.waiting = Waiting::default();
    }

    pub fn table_state_bytes(&self, id: RelationId) -> u64 {
        self.tables.get(&id).map_or(0, |t| t.state.state_size().bytes as u64)
    }

    /// A view was added: its nodes run in the next step, whatever comes.
    pub fn wake(&mut self) {
        self.dirty = true;
    }

    pub fn has_pending(&self) -> bool {
        self.dirty || self.pending_rows > 0
    }

    /// True when `entry` may not join the rows that wait for the next step.
    pub fn must_step_before(&self, entry: &RowsEntry) -> bool {
        if !self.has_pending() {
            return false;
        }
        self.pending_rows >= self.step_rows
            || entry.parts.iter().any(|part| self.splits(part))
            || self.breaks_order(|right| {
                right.any || entry.parts.iter().any(|part| right.tables.contains(&part.relation))
            })
    }

    /// True when a clock record may not join the rows that wait for the next step.
    pub fn must_step_before_clock(&self) -> bool {
        self.has_pending() && self.breaks_order(|right| right.any || right.clock)
    }

    /// True when what comes may change the right side of a join for whose left side something waits already.
    fn breaks_order(&self, may_change: impl Fn(&Causes) -> bool) -> bool {
        self.circuit
            .orders()
            .any(|order| may_change(&order.right) && self.waiting.may_have_caused(&order.left))
    }

    fn splits(&self, part: &Part) -> bool {
        let probes = self.watermarks.probes(part.relation);
        if probes.is_empty() {
            return false;
        }
        let Some((oldest, _)) = self.event_range(part) else { return false };
        probes.iter().any(|probe| {
            let watermark = self.watermarks.of_group(probe.group);
            let end = probe.grid.first_close_us(oldest).saturating_add(probe.allowed_lateness_us);
            self.watermarks.moved(probe.group) && watermark.closes(end)
        })
    }

    /// Oldest and newest event time of a part; `None` without a watermark or when all are null.
    fn event_range(&self, part: &Part) -> Option<(i64, i64)> {
        let column = self.tables.get(&part.relation)?.definition.watermark.as_ref()?.column;
        let times = crate::operators::microseconds(part.rows.column(column)).ok()?;
        if times.null_count() == times.len() {
            return None;
        }
        Some((arrow::compute::min(&times)?, arrow::compute::max(&times)?))
    }

    /// Takes the rows of the record that is shown at `tick` into the next step.
    pub fn feed(&mut self, entry: &RowsEntry, tick: Tick) -> Result<(), SqlError> {
        self.watermarks.tell_time(entry.arrival_us);
        for part in &entry.parts {
            let range = self.event_range(part);
            let Some(table) = self.tables.get_mut(&part.relation) else { continue };
            self.waiting.tables.insert(part.relation);
            let change = if table.as_of.is_some_and(|as_of| tick <= as_of) {
                // Whoever reads the table is as of then, too.
                None
            } else {
                table.changed = tick;
                Some(table.state.apply(part).map_err(|e| SqlError::internal(e.to_string()))?)
            };
            self.watermarks.on_rows(part.relation, range.map(|(_, newest)| newest), entry.arrival_us);
            if let Some(change) = change.filter(|change| !change.is_empty()) {
                self.pending_rows += change.len();
                self.pending.entry(part.relation).or_default().push(change);
            }
            self.dirty = true;
        }
        Ok(())
    }

    pub fn feed_clock(&mut self, now_us: i64) {
        self.watermarks.on_clock(now_us);
        self.waiting.clock = true;
        self.dirty = true;
    }

    /// Runs the circuit over all that was fed. Gives the change of every table, too.
    pub fn step(&mut self, tick: Tick) -> Result<(StepResult, HashMap<RelationId, ZSet>), SqlError> {
        let mut changes = HashMap::new();
        for (relation, parts) in self.pending.drain() {
            let Some(table) = self.tables.get(&relation) else { continue };
            let change = ZSet::concat(&table.definition.schema(), &parts)
                .map_err(|e| SqlError::internal(e.to_string()))?;
            changes.insert(relation, change);
        }
        self.pending_rows = 0;
        self.waiting = Waiting::default();
        self.dirty = false;
        self.watermarks.mark_step();
        let result = self.circuit.step(tick, changes.clone(), &self.watermarks);
        Ok((result, changes))
    }

    pub fn tables(&self) -> BTreeSet<RelationId> {
        self.tables.keys().copied().collect()
    }
}

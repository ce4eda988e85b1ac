//! Event-time progress: per table, and per set of tables that an operator reads.
//!
//! Everything here is a function of the log's records in their order, one by one: neither the wall clock nor
//! the cut into steps has a say. Clock records, written while a source is quiet, are how time passes.

use std::collections::{BTreeSet, HashMap};

use dataflow::Watermark;
use sql::{RelationId, TableDef};

use crate::plan::Grid;

mod saving;

/// Longest stretch of time that one clock record may add to a source's silence: while the server is
/// down nobody listens, so that time doesn't count as silence.
const QUIET_STEP_MAX_US: i64 = 2_000_000;

/// Progress of one table with a WATERMARK.
#[derive(Clone, Debug)]
pub struct TableClock {
    delay_us: i64,
    idle_timeout_us: Option<i64>,
    max_ahead_us: i64,
    pub watermark: Watermark,
    pub max_event_us: Option<i64>,
    pub idle: bool,
    /// Rows came about when they happened; a replay of old data is not live.
    live: bool,
    last_heard_us: i64,
    quiet_us: i64,
}

impl TableClock {
    /// `None` when the table declares no watermark.
    pub fn new(table: &TableDef) -> Option<TableClock> {
        let definition = table.watermark.as_ref()?;
        Some(TableClock {
            delay_us: definition.delay_us,
            idle_timeout_us: table.options.idle_timeout_us,
            max_ahead_us: table.options.max_ahead_us,
            watermark: Watermark::MIN,
            max_event_us: None,
            idle: false,
            live: false,
            last_heard_us: i64::MIN,
            quiet_us: 0,
        })
    }

    /// Rows of one record, of which the newest has this event time.
    pub fn on_rows(&mut self, max_event_us: Option<i64>, arrival_us: i64) {
        self.idle = false;
        self.quiet_us = 0;
        self.last_heard_us = arrival_us;
        let Some(newest) = max_event_us else { return };
        let newest = self.max_event_us.map_or(newest, |m| m.max(newest));
        self.max_event_us = Some(newest);
        self.live = arrival_us.saturating_sub(newest) < self.max_ahead_us;
        self.watermark = self.watermark.max(Watermark(newest.saturating_sub(self.delay_us)));
    }

    /// Time passed without rows. An idle live source's watermark follows the clock: what it sends next is
    /// stamped about now, so windows before that may close.
    pub fn on_clock(&mut self, now_us: i64) {
        if self.last_heard_us == i64::MIN {
            return;
        }
        let passed = now_us.saturating_sub(self.last_heard_us).clamp(0, QUIET_STEP_MAX_US);
        self.quiet_us += passed;
        self.last_heard_us = self.last_heard_us.max(now_us);
        let Some(timeout) = self.idle_timeout_us else { return };
        if self.quiet_us < timeout {
            return;
        }
        self.idle = true;
        if self.live {
            let follows = now_us.saturating_sub(timeout).saturating_sub(self.delay_us);
            self.watermark = self.watermark.max(Watermark(follows));
        }
    }

    /// True while clock records can still change something: windows of up to `window_us` are open.
    pub fn needs_clock(&self, window_us: i64) -> bool {
        let (Some(timeout), Some(newest)) = (self.idle_timeout_us, self.max_event_us) else { return false };
        let waiting_for_idle = self.quiet_us < timeout;
        let open = self.watermark.0 <= newest.saturating_add(window_us);
        open && (waiting_for_idle || self.live)
    }
}

/// Index of a set of tables whose minimum is some operator's watermark.
pub type GroupIndex = usize;

#[derive(Clone, Debug)]
struct Group {
    tables: BTreeSet<RelationId>,
    watermark: Watermark,
    /// As the operators saw it last.
    stepped: Watermark,
}

/// All clocks, and the minimum over every set of tables that operators ask for.
#[derive(Clone, Debug, Default)]
pub struct Watermarks {
    pub tables: HashMap<RelationId, TableClock>,
    groups: Vec<Group>,
    /// The latest moment that a record told of.
    now_us: Option<i64>,
    /// The moment that the last record told of.
    told_us: Option<i64>,
    probes: HashMap<RelationId, Vec<Probe>>,
}

/// A windowed operator fed by a table: when its windows close and on whose watermark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Probe {
    pub group: GroupIndex,
    pub grid: Grid,
    pub allowed_lateness_us: i64,
}

impl Watermarks {
    pub fn group(&mut self, tables: &BTreeSet<RelationId>) -> GroupIndex {
        if let Some(index) = self.groups.iter().position(|g| g.tables == *tables) {
            return index;
        }
        self.groups.push(Group {
            tables: tables.clone(),
            watermark: Watermark::MIN,
            stepped: Watermark::MIN,
        });
        self.refresh();
        self.groups.len() - 1
    }

    pub fn of_group(&self, group: GroupIndex) -> Watermark {
        self.groups[group].watermark
    }

    /// True when the watermark moved since the last step, so that a row may be late now that was not then.
    pub fn moved(&self, group: GroupIndex) -> bool {
        self.groups[group].watermark != self.groups[group].stepped
    }

    /// The operators are about to see the watermarks as they are now.
    pub fn mark_step(&mut self) {
        for group in &mut self.groups {
            group.stepped = group.watermark;
        }
    }

    /// A view that was built on its own brings the watermark that its operators saw.
    pub fn raise(&mut self, group: GroupIndex, watermark: Watermark) {
        let group = &mut self.groups[group];
        group.watermark = group.watermark.max(watermark);
    }

    /// The tables that hold the group back: those at its minimum.
    pub fn holders(&self, group: GroupIndex) -> Vec<RelationId> {
        let group = &self.groups[group];
        let at =
            |id: &&RelationId| self.tables.get(id).is_some_and(|c| !c.idle && c.watermark <= group.watermark);
        group.tables.iter().filter(at).copied().collect()
    }

    pub fn add_probe(&mut self, probe: Probe) {
        let tables: Vec<RelationId> = self.groups[probe.group].tables.iter().copied().collect();
        for table in tables {
            let probes = self.probes.entry(table).or_default();
            if !probes.contains(&probe) {
                probes.push(probe);
            }
        }
    }

    pub fn probes(&self, table: RelationId) -> &[Probe] {
        self.probes.get(&table).map_or(&[], Vec::as_slice)
    }

    /// The clock: the latest moment at which a record came or a clock record was written. It never goes back.
    pub fn now_us(&self) -> Option<i64> {
        self.now_us
    }

    pub fn tell_time(&mut self, now_us: i64) {
        self.now_us = self.now_us.max(Some(now_us));
        self.told_us = Some(now_us);
    }

    /// When the last record came, which may be before one that was written earlier.
    pub fn told_us(&self) -> Option<i64> {
        self.told_us
    }

    pub fn on_rows(&mut self, table: RelationId, max_event_us: Option<i64>, arrival_us: i64) {
        if let Some(clock) = self.tables.get_mut(&table) {
            let before = (clock.watermark, clock.idle);
            clock.on_rows(max_event_us, arrival_us);
            if (clock.watermark, clock.idle) != before {
                self.refresh();
            }
        }
    }

    pub fn on_clock(&mut self, now_us: i64) {
        self.tell_time(now_us);
        for clock in self.tables.values_mut() {
            clock.on_clock(now_us);
        }
        self.refresh();
    }

    fn refresh(&mut self) {
        for group in &mut self.groups {
            let clocks = || group.tables.iter().filter_map(|id| self.tables.get(id));
            // An idle source holds nobody back, unless all are idle.
            let active = clocks().filter(|c| !c.idle).map(|c| c.watermark).min();
            let watermark = active.or_else(|| clocks().map(|c| c.watermark).min()).unwrap_or(Watermark::MIN);
            group.watermark = group.watermark.max(watermark);
        }
    }

    /// The inputs have ended.
    pub fn finish(&mut self, watermark: Watermark) {
        for clock in self.tables.values_mut() {
            clock.watermark = watermark;
        }
        self.refresh();
    }

    /// True when a clock record would let time pass for some source with open windows.
    pub fn needs_clock(&self) -> bool {
        self.tables.iter().any(|(id, clock)| {
            let probes = self.probes(*id);
            let widest = probes.iter().map(|p| p.grid.period_us.saturating_add(p.allowed_lateness_us)).max();
            widest.is_some_and(|w| clock.needs_clock(w.saturating_mul(2)))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sql::{OnConflict, TableOptions, WatermarkDef};

    const SECOND: i64 = 1_000_000;

    pub fn table(id: u32) -> TableDef {
        TableDef {
            id: RelationId(id),
            name: "t".into(),
            columns: vec![],
            primary_key: vec![],
            append_only: true,
            on_conflict: OnConflict::Overwrite,
            watermark: Some(WatermarkDef { column: 0, delay_us: 5 * SECOND }),
            checks: vec![],
            options: TableOptions::default(),
            connector: None,
            added: Vec::new(),
            sql: String::new(),
        }
    }

    fn clock() -> TableClock {
        TableClock::new(&table(1)).unwrap()
    }

    #[test]
    fn never_goes_back() {
        let mut clock = clock();
        clock.on_rows(Some(100 * SECOND), 100 * SECOND);
        clock.on_rows(Some(50 * SECOND), 101 * SECOND);
        assert_eq!(clock.watermark, Watermark(95 * SECOND));
    }

    #[test]
    fn a_quiet_live_source_follows_the_clock_after_its_timeout() {
        let mut clock = clock();
        clock.on_rows(Some(100 * SECOND), 100 * SECOND);
        for second in 101..130 {
            clock.on_clock(second * SECOND);
        }
        assert_eq!((clock.watermark, clock.idle), (Watermark(95 * SECOND), false));
        for second in 130..200 {
            clock.on_clock(second * SECOND);
        }
        assert_eq!((clock.watermark, clock.idle), (Watermark(164 * SECOND), true));
    }

    #[test]
    fn a_replay_of_old_data_does_not_follow_the_clock() {
        let mut clock = clock();
        clock.on_rows(Some(100 * SECOND), 900_000 * SECOND);
        for second in 900_001..900_100 {
            clock.on_clock(second * SECOND);
        }
        assert_eq!((clock.watermark, clock.idle), (Watermark(95 * SECOND), true));
    }

    #[test]
    fn downtime_is_not_silence() {
        let mut clock = clock();
        clock.on_rows(Some(100 * SECOND), 100 * SECOND);
        clock.on_clock(4_000 * SECOND);
        assert_eq!((clock.watermark, clock.idle), (Watermark(95 * SECOND), false));
    }
}

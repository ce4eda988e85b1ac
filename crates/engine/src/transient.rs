//! The engine without a log: views over replayable inputs, kept in memory.
//!
//! For inputs that are durable elsewhere and can be read again (files), for benchmarks, and to check a pack's
//! statements without a server. The planner, the circuit and the stores are those of the database.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arrow::array::RecordBatch;
use dataflow::{Tick, Watermark, ZSet};
use datafusion::execution::SessionState;
use sql::{Catalog, ParsedStatement, RelationId, SqlError, TableDef};

use crate::api::Batching;
use crate::circuit::NodeId;
use crate::definition::{DefinitionPlanner, Install, ViewProperties};
use crate::plan::{PlanKind, StreamPlan};
use crate::record::{Part, RowsEntry};
use crate::stepper::Stepper;
use crate::view_store::Store;

pub struct Transient {
    base: Arc<SessionState>,
    catalog: Arc<Catalog>,
    properties: ViewProperties,
    stepper: Stepper,
    views: BTreeMap<String, View>,
    tick: Tick,
    late_rows: u64,
    discards: bool,
}

struct View {
    id: RelationId,
    root: NodeId,
    plan: Arc<StreamPlan>,
    results: Results,
}

/// Where the rows of a view go.
enum Results {
    Kept(Box<Store>),
    /// Nowhere, as into a sink that throws them away; only their number is known.
    Discarded {
        rows: i64,
    },
}

impl Results {
    fn apply(&mut self, change: &ZSet) -> Result<(), SqlError> {
        match self {
            Results::Kept(store) => store.apply(change).map(drop).map_err(internal),
            Results::Discarded { rows } => {
                *rows += change.weights().map_or(change.len() as i64, |weights| weights.iter().sum());
                Ok(())
            }
        }
    }
}

impl Transient {
    pub fn new(workers: usize) -> Transient {
        Transient {
            base: Arc::new(sql::planner::session_state(&Default::default())),
            catalog: Arc::new(Catalog { next_id: crate::system::FIRST_USER_ID, ..Default::default() }),
            properties: ViewProperties::default(),
            stepper: Stepper::new(workers, Batching::default(), dataflow::random_state().hash_one("shards")),
            views: BTreeMap::new(),
            tick: Tick(0),
            late_rows: 0,
            discards: false,
        }
    }

    /// The rows of the views that are defined from now on are counted and thrown away.
    pub fn discard_results(&mut self) {
        self.discards = true;
    }

    /// Carries out definitions, before any rows.
    ///
    /// # Errors
    /// The first statement that doesn't parse or plan; other statements than definitions.
    pub fn define(&mut self, sql: &str) -> Result<(), SqlError> {
        sql::parse(sql)?.iter().try_for_each(|statement| self.define_one(statement))
    }

    pub fn define_one(&mut self, statement: &ParsedStatement) -> Result<(), SqlError> {
        let id = RelationId(self.catalog.next_id);
        let planner = DefinitionPlanner { catalog: &self.catalog, views: &self.properties, base: &self.base };
        let install = planner.plan_blocking(statement, id).map_err(|e| e.shifted(statement.offset))?;
        let mut catalog = Catalog::clone(&self.catalog);
        catalog.next_id += 1;
        match install {
            Install::Nothing => {}
            Install::Table(table) => {
                self.stepper.add_table(Arc::clone(&table))?;
                catalog.tables.insert(table.name.clone(), table);
            }
            Install::View { view, plan } => {
                if let Some(plan) = plan {
                    self.add_view(&view.name, id, plan)?;
                }
                catalog.views.insert(view.name.clone(), view);
            }
            Install::Index(index) => {
                catalog.indexes.insert(index.name.clone(), index);
            }
            Install::Function(function) => {
                catalog.functions.insert(function.name.clone(), function);
            }
            Install::ReplaceView(view) => {
                catalog.views.insert(view.name.clone(), view);
            }
            Install::Comment { of, text } => {
                catalog.comments.remove(&of);
                catalog.comments.extend(text.map(|text| (of, text)));
            }
            Install::Replace(_) | Install::CutOver { .. } => {
                return Err(SqlError::unsupported("CREATE OR REPLACE MATERIALIZED VIEW needs a database"));
            }
            Install::Redefine(_) => return Err(SqlError::unsupported("ALTER needs a database")),
            Install::Drop(_) => return Err(SqlError::unsupported("DROP needs a database")),
        }
        self.catalog = Arc::new(catalog);
        Ok(())
    }

    fn add_view(&mut self, name: &str, id: RelationId, plan: Arc<StreamPlan>) -> Result<(), SqlError> {
        let roots: HashMap<RelationId, NodeId> = self.views.values().map(|v| (v.id, v.root)).collect();
        let watermarks = &mut self.stepper.watermarks;
        let root = self.stepper.circuit.add_view(id, &plan, &roots, watermarks).map_err(internal)?;
        self.stepper.wake();
        let promises = &plan.root().properties;
        let schema = Arc::clone(&plan.root().schema);
        let key = promises.key.clone().unwrap_or_default();
        let results = if self.discards {
            Results::Discarded { rows: 0 }
        } else if promises.append_only {
            Results::Kept(Box::new(Store::append_only(schema)))
        } else {
            Results::Kept(Box::new(Store::view(schema, key).map_err(internal)?))
        };
        self.properties.insert(name.to_string(), promises.clone());
        self.views.insert(name.to_string(), View { id, root, plan, results });
        Ok(())
    }

    pub fn table(&self, name: &str) -> Option<&Arc<TableDef>> {
        self.catalog.tables.get(name)
    }

    /// Rows of a table as it stores them; they are counted with the next [`Transient::step`].
    pub fn feed(&mut self, table: &str, rows: RecordBatch) -> Result<(), SqlError> {
        let definition = self.catalog.tables.get(table);
        let definition = definition.ok_or_else(|| SqlError::internal(format!("table \"{table}\" exists")))?;
        let rows = RecordBatch::try_new(definition.schema(), rows.columns().to_vec())
            .map_err(|e| SqlError::internal(e.to_string()))?;
        let accepted = rows.num_rows() as u64;
        let part = Part { relation: definition.id, rows, weights: None };
        let entry = RowsEntry {
            table: definition.id,
            arrival_us: 0,
            request: None,
            accepted,
            duplicates: 0,
            position: None,
            parts: vec![part],
        };
        if self.stepper.must_step_before(&entry) {
            self.step()?;
        }
        self.stepper.feed(&entry, Tick(self.tick.0 + 1))
    }

    pub fn step(&mut self) -> Result<(), SqlError> {
        self.tick.0 += 1;
        let (result, _) = self.stepper.step(self.tick)?;
        if let Some((_, error)) = result.failed.first() {
            return Err(SqlError::internal(error.clone()));
        }
        self.late_rows += result.late.iter().map(|l| l.rows.num_rows() as u64).sum::<u64>();
        for view in self.views.values_mut() {
            for change in result.changes.get(&view.root).into_iter().flatten() {
                view.results.apply(change)?;
            }
        }
        Ok(())
    }

    /// The inputs have ended: every window closes.
    pub fn finish(&mut self) -> Result<(), SqlError> {
        self.step()?;
        self.stepper.watermarks.finish(Watermark::MAX);
        self.stepper.wake();
        self.step()
    }

    /// The rows of a view.
    ///
    /// # Errors
    /// If there is no such view, or its rows are thrown away ([`Transient::discard_results`]).
    pub fn rows(&self, view: &str) -> Result<Vec<RecordBatch>, SqlError> {
        let view =
            self.views.get(view).ok_or_else(|| SqlError::internal(format!("view \"{view}\" exists")))?;
        let Results::Kept(store) = &view.results else {
            return Err(SqlError::internal("the results of this view are thrown away"));
        };
        store.snapshot().batches(None, 65_536).collect::<Result<Vec<_>, _>>().map_err(internal)
    }

    pub fn row_count(&self, view: &str) -> usize {
        self.views.get(view).map_or(0, |v| match &v.results {
            Results::Kept(store) => store.len(),
            Results::Discarded { rows } => *rows as usize,
        })
    }

    /// Names of the tables and views that a view reads.
    pub fn sources(&self, view: &str) -> Vec<String> {
        let nodes = self.views.get(view).map(|v| v.plan.nodes.as_slice()).unwrap_or_default();
        let names = nodes.iter().filter_map(|node| match &node.kind {
            PlanKind::Source { name, .. } => Some(name.clone()),
            _ => None,
        });
        names.collect()
    }

    pub fn explain(&self, view: &str) -> String {
        self.views.get(view).map_or(String::new(), |v| crate::plan::explain(&v.plan))
    }

    /// Rows that windows ignored so far.
    pub fn late_rows(&self) -> u64 {
        self.late_rows
    }
}

fn internal(error: dataflow::Error) -> SqlError {
    SqlError::internal(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{ArrayRef, Int32Array, TimestampMicrosecondArray};

    /// The last order of the day is reported unpaid although no row comes any more.
    #[test]
    fn a_source_that_fell_silent_lets_time_pass_for_patterns() {
        let mut engine = Transient::new(1);
        engine
            .define(
                "CREATE TABLE e (k INT, v INT, ts TIMESTAMPTZ, WATERMARK FOR ts AS ts - INTERVAL '5 seconds') APPEND ONLY;
                 CREATE MATERIALIZED VIEW unpaid AS SELECT * FROM e MATCH_RECOGNIZE (PARTITION BY k ORDER BY ts
                 MEASURES a.ts AS at PATTERN (a NOT b) WITHIN INTERVAL '15 minutes' DEFINE a AS v = 1, b AS v = 2)",
            )
            .unwrap();
        let time = TimestampMicrosecondArray::from(vec![100_000_000]).with_timezone("UTC");
        let columns: Vec<ArrayRef> =
            vec![Arc::new(Int32Array::from(vec![1])), Arc::new(Int32Array::from(vec![1])), Arc::new(time)];
        let schema = engine.table("e").unwrap().schema();
        engine.feed("e", RecordBatch::try_new(schema, columns).unwrap()).unwrap();
        engine.step().unwrap();
        assert_eq!(engine.row_count("unpaid"), 0);
        let mut now_us = 0;
        while engine.stepper.watermarks.needs_clock() {
            now_us += 2_000_000;
            engine.stepper.feed_clock(now_us);
            assert!(now_us < 86_400_000_000, "the wait ends");
        }
        engine.step().unwrap();
        assert_eq!(engine.row_count("unpaid"), 1);
    }
}

//! From what is on disk to an engine that is where the log ends.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use dataflow::{Error, Tick};
use datafusion::execution::SessionState;
use parking_lot::RwLock;
use sql::{RelationId, SqlError, SqlState};
use storage::checkpoints::{Checkpoint, CheckpointError, Checkpoints};
use storage::log::{LogReader, LogRecord, Offset};

use super::log_error;
use crate::api::Batching;
use crate::checkpoint::{Manifest, Restored, mark_of, pieces_of};
use crate::definition::{DefinitionPlanner, Install};
use crate::driver::{Driver, Jobs, Shared, Statistics};
use crate::published::Published;
use crate::record::{Definition, Entry, KIND_DEFINITION, Schemas, decode, schemas};
use crate::seen::Seen;
use crate::writer::{LogFacts, Logged, tick_after};

/// What every attempt to start has.
pub(super) struct Start<'a> {
    pub base: &'a Arc<SessionState>,
    pub reader: &'a LogReader,
    pub facts: &'a Arc<LogFacts>,
    pub workers: usize,
    pub batching: Batching,
}

/// An engine that took all records.
pub(super) struct Started {
    pub shared: Arc<Shared>,
    pub driver: Driver,
    pub seen: Seen,
    pub restored: Restored,
}

impl Start<'_> {
    /// From the newest checkpoint that can be read, or from the log alone.
    ///
    /// # Errors
    /// When the log can't be read, or its definitions don't hold any more.
    pub fn newest(
        &self,
        checkpoints: Option<&Checkpoints>,
        found: Vec<Result<Checkpoint, CheckpointError>>,
    ) -> Result<Started, SqlError> {
        for checkpoint in found {
            let (Ok(checkpoint), Some(checkpoints)) = (&checkpoint, checkpoints) else {
                if let Err(error) = checkpoint {
                    tracing::warn!(%error, "a checkpoint can't be read; the one before is tried");
                }
                continue;
            };
            // A state that says nonsense although its checksum is right must not keep the log from being read.
            let opened = catch_unwind(AssertUnwindSafe(|| self.open_checkpoint(checkpoints, checkpoint)));
            let opened = opened.unwrap_or_else(|_| Err(SqlError::internal("opening it failed")));
            match opened {
                Ok(started) => {
                    let records = self.reader.next_offset().0 - started.restored.start();
                    tracing::info!(
                        checkpoint = checkpoint.number,
                        records,
                        "opened a checkpoint and read the log from there"
                    );
                    return Ok(started);
                }
                Err(error) => {
                    tracing::warn!(%error, number = checkpoint.number, "a checkpoint can't be used; the one before is tried");
                }
            }
        }
        self.read_log()
    }

    fn empty(&self, seed: u64) -> Result<(Arc<Shared>, Driver), SqlError> {
        let shared = Arc::new(Shared {
            catalog: RwLock::default(),
            view_properties: RwLock::default(),
            plans: RwLock::default(),
            published: Published::default(),
            facts: Arc::clone(self.facts),
            statistics: RwLock::new(Statistics::default()),
            jobs: Jobs::default(),
        });
        let driver =
            Driver::new(Arc::clone(&shared), self.reader.clone(), self.workers, self.batching, seed)?;
        Ok((shared, driver))
    }

    fn open_checkpoint(
        &self,
        checkpoints: &Checkpoints,
        checkpoint: &Checkpoint,
    ) -> Result<Started, SqlError> {
        let unusable = |error: Error| SqlError::new(SqlState::DataCorrupted, error.to_string());
        let manifest = Arc::new(Manifest::load(&checkpoint.body).map_err(unusable)?);
        let end = self.reader.next_offset();
        if manifest.moments().last().is_some_and(|tick| *tick > Tick(end.0)) || manifest.seen_from > end {
            return Err(unusable(Error::State("the log ends before it".into())));
        }
        if mark_of(self.reader, manifest.published).map_err(unusable)? != manifest.mark {
            return Err(unusable(Error::State("it is of another log".into())));
        }
        let (shared, mut driver) = self.empty(manifest.seed)?;
        let mut unbuilt = Vec::new();
        for definition in &manifest.definitions {
            driver.reserve_ids(definition.id + 1);
            let install = self.replan(definition, &shared)?;
            match &install {
                Install::View { view, plan: Some(_) } if manifest.unbuilt.contains(&view.id) => {
                    unbuilt.push(install);
                }
                // What was not built was dropped.
                _ => driver.install(install, Offset(0))?,
            }
            driver.remember(definition.clone());
        }
        let mut blobs = checkpoints.reader();
        let parts = driver.restore(&manifest, &mut blobs).map_err(unusable)?;
        let mut seen = Seen::default();
        shared.catalog.read().tables.values().for_each(|table| seen.add_table(table));
        seen.load_head(&manifest.seen_head).map_err(unusable)?;
        for entry in &manifest.seen {
            let pieces = blobs.read(&entry.pieces);
            let pieces = pieces.map_err(|error| unusable(Error::State(error.to_string())))?;
            let pieces = pieces_of(&pieces).map_err(unusable)?;
            pieces.into_iter().try_for_each(|piece| seen.load_piece(piece)).map_err(unusable)?;
        }

        let mut known = Self::schemas(&shared);
        for record in self.reader.records(manifest.start.min(manifest.seen_from)) {
            let record = record.map_err(log_error)?;
            if record.kind == KIND_DEFINITION {
                self.define(&record, &mut driver, &mut seen, &shared)?;
                known = Self::schemas(&shared);
            } else {
                let to_engine = record.offset >= manifest.start;
                take(record, &known, to_engine.then_some(&mut driver), manifest.seen_from, &mut seen)?;
            }
        }
        driver.step();
        driver.end_restoring();
        for install in unbuilt {
            driver.install_at_once(install, end)?;
        }
        let restored = Restored { last: Some((checkpoint.number, manifest)), parts };
        Ok(Started { shared, driver, seen, restored })
    }

    /// Carries out a definition behind the checkpoint, over the rows that are there by then.
    fn define(
        &self,
        record: &LogRecord,
        driver: &mut Driver,
        seen: &mut Seen,
        shared: &Arc<Shared>,
    ) -> Result<(), SqlError> {
        let entry = decode(record.kind, record.stream, &record.payload, &Schemas::default())?;
        let Entry::Definition(definition) = entry else { return Ok(()) };
        driver.step();
        driver.reserve_ids(definition.id + 1);
        let install = self.replan(&definition, shared)?;
        if let Install::Table(table) = &install {
            seen.add_table(table);
        }
        driver.install_at_once(install, record.offset)?;
        driver.remember(definition);
        driver.passed(record.offset);
        Ok(())
    }

    /// First all definitions that still hold, then all rows.
    fn read_log(&self) -> Result<Started, SqlError> {
        let seed = dataflow::random_state().hash_one("shards");
        let (shared, mut driver) = self.empty(seed)?;
        let mut seen = Seen::default();
        for record in self.reader.records(Offset(0)) {
            let record = record.map_err(log_error)?;
            if record.kind != KIND_DEFINITION {
                continue;
            }
            let entry = decode(record.kind, record.stream, &record.payload, &Schemas::default())?;
            let Entry::Definition(definition) = entry else { continue };
            driver.reserve_ids(definition.id + 1);
            let install = self.replan(&definition, &shared)?;
            driver.install(install, Offset(0))?;
            driver.remember(definition);
        }
        shared.catalog.read().tables.values().for_each(|table| seen.add_table(table));
        let known = Self::schemas(&shared);
        for record in self.reader.records(Offset(0)) {
            let record = record.map_err(log_error)?;
            if record.kind != KIND_DEFINITION {
                take(record, &known, Some(&mut driver), Offset(0), &mut seen)?;
            } else {
                driver.passed(record.offset);
            }
        }
        Ok(Started { shared, driver, seen, restored: Restored::default() })
    }

    fn schemas(shared: &Arc<Shared>) -> Schemas {
        schemas(shared.catalog.read().tables.values().cloned())
    }

    fn replan(&self, definition: &Definition, shared: &Arc<Shared>) -> Result<Install, SqlError> {
        let mut statements = sql::parse(&definition.sql)?;
        let statement = statements.pop().ok_or_else(|| SqlError::internal("an empty definition"))?;
        let catalog = Arc::clone(&shared.catalog.read());
        let properties = Arc::clone(&shared.view_properties.read());
        let planner = DefinitionPlanner { catalog: &catalog, views: &properties, base: self.base };
        planner.plan_blocking(&statement, RelationId(definition.id)).map_err(|e| {
            let message = format!("definition in the log no longer holds: {}: {}", definition.sql, e.message);
            SqlError::new(e.state, message)
        })
    }
}

/// Takes rows or the time from the log.
fn take(
    record: LogRecord,
    known: &Schemas,
    driver: Option<&mut Driver>,
    seen_from: Offset,
    seen: &mut Seen,
) -> Result<(), SqlError> {
    let entry = decode(record.kind, record.stream, &record.payload, known)?;
    if let Entry::Rows(rows) = &entry
        && record.offset >= seen_from
    {
        seen.replay(rows, tick_after(record.offset))?;
    }
    if let Some(driver) = driver {
        driver.take(Logged { offset: record.offset, location: record.location, entry, install: None });
    }
    Ok(())
}

//! The engine as a checkpoint has it.

use std::collections::HashMap;
use std::sync::Arc;

use dataflow::{Error, Result, StateReader, StateWriter};
use sql::{RelationId, SqlError};
use storage::checkpoints::{Blob, BlobReader};
use storage::log::{Location, Offset};

use super::Driver;
use crate::checkpoint::{Manifest, probe};
use crate::circuit::NodeState;
use crate::view_store::PartId;

const HISTORY_VERSION: u8 = 1;

impl Driver {
    /// Opens all states. The definitions of the checkpoint were carried out, and nothing else was done before.
    ///
    /// Gives which parts of the stores are where.
    ///
    /// # Errors
    /// When something is missing or can't be read; the engine is then not to be used any more.
    pub fn restore(
        &mut self,
        manifest: &Arc<Manifest>,
        blobs: &mut BlobReader,
    ) -> Result<HashMap<PartId, Blob>> {
        if probe(manifest.seed) != manifest.probe {
            return Err(Error::State("it was written on a machine with another hash function".into()));
        }
        let mut read = |blob: &Blob| blobs.read(blob).map_err(|error| Error::State(error.to_string()));
        for entry in &manifest.history {
            self.load_history(&read(&entry.records)?)?;
        }
        let mut tables: HashMap<RelationId, _> = manifest.tables.iter().map(|t| (t.id, t)).collect();
        for id in self.stepper.keyed_tables() {
            let table = tables.remove(&id).ok_or_else(|| missing("a table", id))?;
            self.stepper.load_table(id, table.as_of, &read(&table.state)?)?;
        }
        let mut watermarks = StateReader::new(&manifest.watermarks);
        self.stepper.watermarks.load(&mut watermarks)?;
        watermarks.finish()?;
        self.stepper.watermarks.mark_step();
        let states: Vec<NodeState> = manifest.nodes.iter().map(|node| node.state.clone()).collect();
        self.stepper
            .circuit
            .load(&states, |number| manifest.nodes[number].shards.iter().map(&mut read).collect())?;
        let mut parts = HashMap::new();
        let mut relations: HashMap<RelationId, _> = manifest.relations.iter().map(|r| (r.id, r)).collect();
        for id in self.shared.published.relations() {
            let relation = relations.remove(&id).ok_or_else(|| missing("a relation", id))?;
            // A global aggregate has a row without any input.
            self.shared.published.empty(id)?;
            for blob in &relation.parts {
                let part = self.shared.published.load(id, relation.append_only, &read(blob)?)?;
                parts.insert(part, *blob);
            }
            self.shared.published.load_count(id, relation.log_rows);
        }
        self.statistics.tables = manifest.statistics.iter().cloned().collect();
        self.statistics.late_rows = manifest.late_rows;
        for (id, error) in &manifest.suspended {
            if let Some(view) = self.views.get_mut(id) {
                view.suspended = Some(error.clone());
            }
        }
        self.fed = manifest.fed;
        self.next = manifest.start;
        self.published_as_of = Some(manifest.published);
        self.moments = manifest.moments();
        // Nothing is new to the nodes: they were opened as they were after their last step.
        self.stepper.rest();
        Ok(parts)
    }

    /// All that was saved after the checkpoint began was passed.
    pub fn end_restoring(&mut self) {
        self.published_as_of = None;
        self.moments.clear();
        self.stepper.end_restoring();
    }

    /// Views that were not there in the checkpoint, and definitions behind it, see the records that are there.
    ///
    /// # Errors
    /// As [`Driver::install`].
    pub fn install_at_once(
        &mut self,
        install: crate::definition::Install,
        offset: Offset,
    ) -> std::result::Result<(), SqlError> {
        let usual = std::mem::replace(&mut self.batching.at_once_bytes, u64::MAX);
        let installed = self.install(install, offset);
        self.batching.at_once_bytes = usual;
        installed
    }

    /// Where tables' records are, from `from` on, and the clock's.
    pub(super) fn save_history(&self, from: Offset) -> Vec<u8> {
        let mut out = StateWriter::new();
        out.u8(HISTORY_VERSION);
        out.all(self.history.iter(), |out, (id, records)| {
            out.u32(id.0);
            let new = &records[records.partition_point(|(offset, _)| *offset < from)..];
            let mut before = 0;
            out.all(new.iter(), |out, (offset, location)| {
                out.count((offset.0 - before) as usize);
                before = offset.0;
                out.count((offset.0 - location.segment) as usize);
                out.count(location.position as usize);
                out.count(location.length as usize);
            });
        });
        let new = &self.clocks[self.clocks.partition_point(|(offset, _)| *offset < from)..];
        out.all(new.iter(), |out, (offset, now_us)| {
            out.u64(offset.0);
            out.i64(*now_us);
        });
        out.into_bytes()
    }

    fn load_history(&mut self, saved: &[u8]) -> Result<()> {
        let mut saved = StateReader::new(saved);
        saved.version(HISTORY_VERSION)?;
        let tables = saved.all(|saved| {
            let id = RelationId(saved.u32()?);
            let mut before = 0;
            let records = saved.all(|saved| {
                let offset = saved.count()? as u64 + before;
                before = offset;
                let segment = offset
                    .checked_sub(saved.count()? as u64)
                    .ok_or_else(|| Error::State("a record before its segment".into()))?;
                let position = saved.count()? as u64;
                let length = u32::try_from(saved.count()?)
                    .map_err(|_| Error::State("a record of more than 4 GiB".into()))?;
                Ok((Offset(offset), Location { segment, position, length }))
            })?;
            Ok((id, records))
        })?;
        for (id, records) in tables {
            // Tables that were dropped since are not there.
            if let Some(history) = self.history.get_mut(&id) {
                let locations = records.iter().map(|(_, location)| (id, *location));
                self.changes.locations.extend(locations);
                history.extend(records);
            }
        }
        let clocks = saved.all(|saved| Ok((Offset(saved.u64()?), saved.i64()?)))?;
        self.clocks.extend(clocks);
        saved.finish()
    }
}

fn missing(what: &str, id: RelationId) -> Error {
    Error::State(format!("{what} of number {} is missing", id.0))
}

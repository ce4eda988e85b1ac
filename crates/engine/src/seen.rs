//! What the log's thread remembers: who was seen before, and where connectors go on.
//!
//! It is saved in pieces, each with what came since the one before, because it may be much and changes little.

use std::collections::HashMap;

use dataflow::{Result, StateReader, StateWriter, Tick};
use sql::{RelationId, SqlError, TableDef};

use crate::dedup::{Answer, DedupSet, Requests};
use crate::record::RowsEntry;

const VERSION: u8 = 1;

#[derive(Default)]
pub struct Seen {
    pub requests: Requests,
    pub dedup: HashMap<RelationId, DedupSet>,
    /// Where the connectors of tables are to go on, behind what is durable.
    pub positions: HashMap<RelationId, String>,
    /// When the newest record came.
    newest_us: i64,
    /// Pieces were saved before, or opened.
    in_pieces: bool,
}

/// What is saved at some record of the log.
pub struct SeenState {
    /// What is small, and changes: it takes the place of the one before.
    pub head: Vec<u8>,
    pub newest_us: i64,
    pub piece: Option<SeenPiece>,
}

/// Requests and ids.
pub struct SeenPiece {
    /// It stands for all pieces before it.
    pub whole: bool,
    /// All in it is forgotten when a record comes at this time.
    pub expires_us: i64,
    pub bytes: Vec<u8>,
}

impl Seen {
    pub fn add_table(&mut self, table: &TableDef) {
        if let Some(set) = DedupSet::new(table) {
            self.dedup.insert(table.id, set);
        }
    }

    /// What came since the last time.
    pub fn save(&mut self) -> SeenState {
        let whole = !self.in_pieces || self.dedup.values().any(DedupSet::is_overflown);
        self.in_pieces = true;
        let mut head = StateWriter::new();
        head.u8(VERSION);
        head.i64(self.newest_us);
        head.all(self.dedup.iter(), |out, (id, set)| {
            out.u32(id.0);
            // With its length, so that sets of tables that were dropped can be passed over.
            let mut own = StateWriter::new();
            set.save_head(&mut own);
            out.bytes(&own.into_bytes());
        });
        head.all(self.positions.iter(), |out, (id, position)| {
            out.u32(id.0);
            out.text(position);
        });
        let mut out = StateWriter::new();
        let mut any = self.requests.save(whole, &mut out);
        out.all(self.dedup.iter_mut(), |out, (id, set)| {
            out.u32(id.0);
            let mut own = StateWriter::new();
            any |= set.save_ids(whole, &mut own);
            out.bytes(&own.into_bytes());
        });
        let windows = self.dedup.values().map(|set| set.window_us().saturating_mul(2));
        let longest = windows.max().unwrap_or(0).max(Requests::WINDOW_US);
        let expires_us = self.newest_us.saturating_add(longest);
        let piece = any.then(|| SeenPiece { whole, expires_us, bytes: out.into_bytes() });
        SeenState { head: head.into_bytes(), newest_us: self.newest_us, piece }
    }

    /// Takes in a head; the tables are known already. The pieces come then, in their order.
    ///
    /// # Errors
    /// When it is not what [`Seen::save`] wrote.
    pub fn load_head(&mut self, head: &[u8]) -> Result<()> {
        let mut saved = StateReader::new(head);
        saved.version(VERSION)?;
        self.newest_us = saved.i64()?;
        for _ in 0..saved.count()? {
            let id = RelationId(saved.u32()?);
            let mut own = StateReader::new(saved.bytes()?);
            if let Some(set) = self.dedup.get_mut(&id) {
                set.load_head(&mut own)?;
                own.finish()?;
            }
        }
        let position =
            |saved: &mut StateReader<'_>| Ok((RelationId(saved.u32()?), saved.text()?.to_string()));
        self.positions = saved.all(position)?.into_iter().collect();
        self.in_pieces = true;
        saved.finish()
    }

    /// # Errors
    /// When it is not what [`Seen::save`] wrote.
    pub fn load_piece(&mut self, piece: &[u8]) -> Result<()> {
        let mut saved = StateReader::new(piece);
        self.requests.load(&mut saved)?;
        for _ in 0..saved.count()? {
            let id = RelationId(saved.u32()?);
            let mut own = StateReader::new(saved.bytes()?);
            if let Some(set) = self.dedup.get_mut(&id) {
                set.load_ids(&mut own)?;
                own.finish()?;
            }
        }
        saved.finish()
    }

    /// A record came at this time.
    pub fn tell_time(&mut self, arrival_us: i64) {
        self.newest_us = self.newest_us.max(arrival_us);
    }

    /// The request that brought the rows, if it had a key, gets this answer again.
    pub fn remember_request(&mut self, entry: &RowsEntry, tick: Tick) {
        let Some(request) = &entry.request else { return };
        let (accepted, duplicates) = (entry.accepted, entry.duplicates);
        let answer = Answer { body_crc: request.body_crc, accepted, duplicates, tick };
        self.requests.remember(entry.table, request, entry.arrival_us, answer);
    }

    /// Learns from a record that is in the log already.
    ///
    /// # Errors
    /// When its ids can't be read.
    pub fn replay(&mut self, entry: &RowsEntry, tick: Tick) -> std::result::Result<(), SqlError> {
        self.tell_time(entry.arrival_us);
        for part in &entry.parts {
            if let (Some(set), None) = (self.dedup.get_mut(&part.relation), &part.weights) {
                set.admit(&part.rows, entry.arrival_us).map_err(|e| SqlError::internal(e.to_string()))?;
            }
        }
        self.remember_request(entry, tick);
        if let Some(position) = &entry.position {
            self.positions.insert(entry.table, position.clone());
        }
        Ok(())
    }
}

//! The body of a checkpoint.

use std::collections::BTreeSet;

use dataflow::{Error, Result, StateReader, StateWriter, Tick};
use sql::RelationId;
use storage::checkpoints::Blob;
use storage::log::Offset;

use crate::api::TableStatus;
use crate::circuit::NodeState;
use crate::record::Definition;

const VERSION: u8 = 1;

/// What a checkpoint holds, and where.
#[derive(Clone, Debug)]
pub struct Manifest {
    /// The record from which on the log is replayed.
    pub start: Offset,
    /// The tick that showed all records before `start`.
    pub fed: Tick,
    /// By which keys are divided into shards.
    pub seed: u64,
    /// A hash by that seed: another machine may hash otherwise.
    pub probe: u64,
    /// All definitions before `start`, in their order.
    pub definitions: Vec<Definition>,
    /// Views that could not be read: they are built anew.
    pub unbuilt: BTreeSet<RelationId>,
    /// Views that stopped, and why.
    pub suspended: Vec<(RelationId, String)>,
    /// Counters of tables; late rows are as of `published`.
    pub statistics: Vec<(RelationId, TableStatus)>,
    pub late_rows: u64,
    pub watermarks: Vec<u8>,
    /// Where tables' records are, and the clock's, in the order of the log.
    pub history: Vec<HistoryEntry>,
    pub tables: Vec<TableEntry>,
    pub nodes: Vec<NodeEntry>,
    /// As of when the relations are.
    pub published: Tick,
    pub relations: Vec<RelationEntry>,
    /// Of the log's record before `published`: a log that was put back from a copy may go on otherwise.
    pub mark: u32,
    /// The record from which on dedup sets and requests are to be told.
    pub seen_from: Offset,
    pub seen_head: Vec<u8>,
    pub seen: Vec<SeenEntry>,
}

/// Records of a stretch of the log, up to the next entry.
#[derive(Clone, Debug)]
pub struct HistoryEntry {
    pub from: Offset,
    pub records: Blob,
}

/// Who was seen in some stretch of the log.
#[derive(Clone, Debug)]
pub struct SeenEntry {
    /// Nothing in it counts when a record comes at this time.
    pub expires_us: i64,
    pub pieces: Blob,
}

/// The rows of a table with a key, for the rows that come.
#[derive(Clone, Debug)]
pub struct TableEntry {
    pub id: RelationId,
    pub as_of: Tick,
    pub state: Blob,
}

#[derive(Clone, Debug)]
pub struct NodeEntry {
    pub state: NodeState,
    /// What its operators remember, shard by shard.
    pub shards: Vec<Blob>,
}

/// What readers see of a relation.
#[derive(Clone, Debug)]
pub struct RelationEntry {
    pub id: RelationId,
    pub append_only: bool,
    /// Number of rows of a relation that is read from the log.
    pub log_rows: u64,
    pub parts: Vec<Blob>,
}

impl Manifest {
    pub fn save(&self) -> Vec<u8> {
        let mut out = StateWriter::new();
        out.u8(VERSION);
        out.u64(self.start.0);
        out.u64(self.fed.0);
        out.u64(self.seed);
        out.u64(self.probe);
        out.all(self.definitions.iter(), |out, definition| {
            out.u32(definition.id);
            out.text(&definition.sql);
        });
        out.all(self.unbuilt.iter(), |out, id| out.u32(id.0));
        out.all(self.suspended.iter(), |out, (id, error)| {
            out.u32(id.0);
            out.text(error);
        });
        out.all(self.statistics.iter(), |out, (id, status)| {
            out.u32(id.0);
            out.u64(status.rows_accepted);
            out.u64(status.rows_duplicate);
            out.u64(status.rows_rejected);
            out.u64(status.rows_late);
        });
        out.u64(self.late_rows);
        out.bytes(&self.watermarks);
        out.all(self.history.iter(), |out, entry| {
            out.u64(entry.from.0);
            save_blob(out, &entry.records);
        });
        out.all(self.tables.iter(), |out, table| {
            out.u32(table.id.0);
            out.u64(table.as_of.0);
            save_blob(out, &table.state);
        });
        out.all(self.nodes.iter(), |out, node| {
            node.state.save(out);
            out.all(node.shards.iter(), save_blob);
        });
        out.u64(self.published.0);
        out.all(self.relations.iter(), |out, relation| {
            out.u32(relation.id.0);
            out.bool(relation.append_only);
            out.u64(relation.log_rows);
            out.all(relation.parts.iter(), save_blob);
        });
        out.u32(self.mark);
        out.u64(self.seen_from.0);
        out.bytes(&self.seen_head);
        out.all(self.seen.iter(), |out, entry| {
            out.i64(entry.expires_us);
            save_blob(out, &entry.pieces);
        });
        out.into_bytes()
    }

    /// # Errors
    /// When the bytes are not those of [`Manifest::save`], or of a later version.
    pub fn load(bytes: &[u8]) -> Result<Manifest> {
        let mut saved = StateReader::new(bytes);
        let version = saved.u8()?;
        if version != VERSION {
            return Err(Error::State(format!("the checkpoint is of version {version}")));
        }
        let id = |saved: &mut StateReader<'_>| Ok(RelationId(saved.u32()?));
        let manifest = Manifest {
            start: Offset(saved.u64()?),
            fed: Tick(saved.u64()?),
            seed: saved.u64()?,
            probe: saved.u64()?,
            definitions: saved
                .all(|saved| Ok(Definition { id: saved.u32()?, sql: saved.text()?.to_string() }))?,
            unbuilt: saved.all(id)?.into_iter().collect(),
            suspended: saved.all(|saved| Ok((id(saved)?, saved.text()?.to_string())))?,
            statistics: saved.all(|saved| {
                let id = id(saved)?;
                let status = TableStatus {
                    rows_accepted: saved.u64()?,
                    rows_duplicate: saved.u64()?,
                    rows_rejected: saved.u64()?,
                    rows_late: saved.u64()?,
                    ..TableStatus::default()
                };
                Ok((id, status))
            })?,
            late_rows: saved.u64()?,
            watermarks: saved.bytes()?.to_vec(),
            history: saved
                .all(|saved| Ok(HistoryEntry { from: Offset(saved.u64()?), records: load_blob(saved)? }))?,
            tables: saved.all(|saved| {
                Ok(TableEntry { id: id(saved)?, as_of: Tick(saved.u64()?), state: load_blob(saved)? })
            })?,
            nodes: saved.all(|saved| {
                Ok(NodeEntry { state: NodeState::load(saved)?, shards: saved.all(load_blob)? })
            })?,
            published: Tick(saved.u64()?),
            relations: saved.all(|saved| {
                Ok(RelationEntry {
                    id: id(saved)?,
                    append_only: saved.bool()?,
                    log_rows: saved.u64()?,
                    parts: saved.all(load_blob)?,
                })
            })?,
            mark: saved.u32()?,
            seen_from: Offset(saved.u64()?),
            seen_head: saved.bytes()?.to_vec(),
            seen: saved.all(|saved| Ok(SeenEntry { expires_us: saved.i64()?, pieces: load_blob(saved)? }))?,
        };
        saved.finish()?;
        Ok(manifest)
    }

    /// Everything that the checkpoint refers to.
    pub fn blobs(&self) -> impl Iterator<Item = &Blob> {
        let nodes = self.nodes.iter().flat_map(|node| &node.shards);
        let relations = self.relations.iter().flat_map(|relation| &relation.parts);
        let tables = self.tables.iter().map(|table| &table.state);
        let history = self.history.iter().map(|entry| &entry.records);
        let seen = self.seen.iter().map(|entry| &entry.pieces);
        history.chain(tables).chain(nodes).chain(relations).chain(seen)
    }

    /// The ticks at which something was saved: a replay's steps end there.
    pub fn moments(&self) -> BTreeSet<Tick> {
        let nodes = self.nodes.iter().map(|node| node.state.as_of);
        let tables = self.tables.iter().map(|table| table.as_of);
        nodes.chain(tables).chain([self.published]).collect()
    }
}

fn save_blob(out: &mut StateWriter, blob: &Blob) {
    out.count(blob.file as usize);
    out.count(blob.position as usize);
    out.count(blob.length as usize);
    out.u32(blob.crc);
}

fn load_blob(saved: &mut StateReader<'_>) -> Result<Blob> {
    Ok(Blob {
        file: saved.count()? as u64,
        position: saved.count()? as u64,
        length: saved.count()? as u64,
        crc: saved.u32()?,
    })
}

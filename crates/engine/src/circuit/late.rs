//! Late rows as their tables hold them.
//!
//! An operator sees a row as the nodes below made it: filtered, computed, once per window. Who looks for a lost row knows
//! the table's. So the way from the operator down to its tables is walked back, by row number:
//!
//! ```text
//!   aggregate: input rows 0 1 2 3        late: 2, 3
//!   expand   :            0 0 1 1        two windows each
//!   filter   :            1     3   <-- rows of the table's change in this step
//! ```
//!
//! A row that several views, or several windows of one view, ignored is one late row. Where the way leads through an
//! operator that makes rows of its own (a join, an aggregate), the operator's row is all there is.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use arrow::array::{Array, RecordBatch, UInt32Array};
use arrow::compute::take_record_batch;
use dataflow::{StepContext, Watermark, ZSet};
use sql::RelationId;

use super::{Circuit, Computation, NodeId, expand, unnest};

/// Rows that were ignored because their window is closed.
pub struct LateRows {
    /// Those that ignored them.
    pub views: Vec<RelationId>,
    /// The table that `rows` are from; several when they are an operator's.
    pub tables: Vec<RelationId>,
    pub rows: RecordBatch,
    pub watermark: Watermark,
}

/// What one operator ignored.
pub(super) struct LateInput {
    /// The operator, and which of its inputs.
    pub node: NodeId,
    pub port: usize,
    pub change: ZSet,
    /// Numbers of the rows in `change`.
    pub rows: UInt32Array,
    pub watermark: Watermark,
}

/// A row of a table's change.
type Origin = (RelationId, u32);

impl Circuit {
    /// What the operators ignored in this step, as rows of tables where that is possible. `outputs` holds the changes of
    /// all nodes, `tables` those of the tables.
    pub(super) fn late_rows(
        &self,
        late: Vec<LateInput>,
        outputs: &HashMap<NodeId, ZSet>,
        tables: &HashMap<RelationId, ZSet>,
    ) -> dataflow::Result<Vec<LateRows>> {
        let mut found = Vec::new();
        let mut ignored_by: BTreeMap<(Watermark, Origin), BTreeSet<RelationId>> = BTreeMap::new();
        for LateInput { node, port, change, rows, watermark } in late {
            let node = self.node(node);
            match self.origins(node.inputs[port], outputs)? {
                Some(origins) => {
                    assert_eq!(origins.len(), change.len(), "every row has its origin");
                    for row in rows.values() {
                        let views = ignored_by.entry((watermark, origins[*row as usize])).or_default();
                        views.extend(&node.users);
                    }
                }
                None => found.push(LateRows {
                    views: node.users.iter().copied().collect(),
                    tables: node.input_tables[port].clone(),
                    rows: take_record_batch(change.rows(), &rows)?,
                    watermark,
                }),
            }
        }
        // Rows of one table that the same views ignored go together.
        let mut together: BTreeMap<(RelationId, Watermark, Vec<RelationId>), Vec<u32>> = BTreeMap::new();
        for ((watermark, (table, row)), views) in ignored_by {
            together.entry((table, watermark, views.into_iter().collect())).or_default().push(row);
        }
        for ((table, watermark, views), rows) in together {
            let change = tables
                .get(&table)
                .ok_or_else(|| dataflow::Error::Operator("late rows have a table".into()))?;
            let rows = take_record_batch(change.rows(), &UInt32Array::from(rows))?;
            found.push(LateRows { views, tables: vec![table], rows, watermark });
        }
        Ok(found)
    }

    /// For each row that the node gave in this step, the row of a table that it was made of. `None` when the node, or one
    /// below it, makes rows of its own.
    fn origins(&self, id: NodeId, outputs: &HashMap<NodeId, ZSet>) -> dataflow::Result<Option<Vec<Origin>>> {
        let node = self.node(id);
        let input = |index: usize| outputs.get(&node.inputs[index]);
        // What is left out of the outputs is an empty change.
        let below = |index: usize| self.origins(node.inputs[index], outputs);
        let of_rows =
            |origins: Vec<Origin>, rows: &[u32]| rows.iter().map(|r| origins[*r as usize]).collect();
        Ok(match &node.computation {
            Computation::Source(table) => {
                let count = outputs.get(&id).map_or(0, ZSet::len);
                Some((0..count as u32).map(|row| (*table, row)).collect())
            }
            Computation::Map(spec) => {
                let Some(origins) = below(0)? else { return Ok(None) };
                let Some(change) = input(0) else { return Ok(Some(Vec::new())) };
                match spec.mask(change.rows(), &mut StepContext::default())? {
                    None => Some(origins),
                    Some(mask) => {
                        let kept = (0..mask.len()).filter(|row| mask.is_valid(*row) && mask.value(*row));
                        Some(of_rows(origins, &kept.map(|row| row as u32).collect::<Vec<_>>()))
                    }
                }
            }
            Computation::Expand(spec) => {
                let Some(origins) = below(0)? else { return Ok(None) };
                let Some(change) = input(0) else { return Ok(Some(Vec::new())) };
                Some(of_rows(origins, &expand::rows_of_windows(spec, change)?))
            }
            Computation::Unnest(spec) => {
                let Some(origins) = below(0)? else { return Ok(None) };
                let Some(change) = input(0) else { return Ok(Some(Vec::new())) };
                Some(of_rows(origins, &unnest::rows_of_elements(spec, change)?))
            }
            Computation::Union => {
                let mut all = Vec::new();
                for index in 0..node.inputs.len() {
                    match below(index)? {
                        Some(origins) => all.extend(origins),
                        None => return Ok(None),
                    }
                }
                Some(all)
            }
            Computation::Single(_) | Computation::Sharded(_) => None,
        })
    }
}

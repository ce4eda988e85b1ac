//! What has to come in order: joins that give a row once, with what the other side holds when it comes, and changelogs.
//!
//! Such a join takes the change of its right side before that of its left one. So a step may hold records of the right
//! side, then records of the left side, and no more: a record that may change the right side begins a new step when one
//! that may have given left rows waits. A changelog tells what each record did and when: after a record that may change its
//! input nothing else joins the step.

use std::collections::BTreeSet;

use sql::RelationId;

use super::{Circuit, NodeId};
use crate::plan::PlanKind;

/// What makes one side of a join change.
#[derive(Clone, Debug, Default)]
pub struct Causes {
    /// Records with rows of these tables.
    pub tables: BTreeSet<RelationId>,
    /// Clock records: they move the watermarks of sources that fell silent.
    pub clock: bool,
    /// Any record, because each tells the time.
    pub any: bool,
}

/// The causes of a join whose result depends on the order of its sides' changes: what may have changed the left side waits
/// for no change of the right one.
#[derive(Clone, Debug)]
pub struct Order {
    pub left: Causes,
    pub right: Causes,
}

impl Circuit {
    /// The orders that have to be kept.
    pub fn orders(&self) -> impl Iterator<Item = &Order> {
        self.nodes.iter().flatten().filter_map(|node| node.order.as_ref())
    }

    /// The order that a node with these inputs depends on.
    pub(super) fn order_of(&self, kind: &PlanKind, inputs: &[NodeId]) -> Option<Order> {
        match (kind, inputs) {
            (PlanKind::Join(spec), [left, right]) if spec.lookup => {
                Some(Order { left: self.causes(*left), right: self.causes(*right) })
            }
            (PlanKind::Changelog { .. }, [input]) => {
                Some(Order { left: self.causes(*input), right: Causes { any: true, ..Causes::default() } })
            }
            _ => None,
        }
    }

    fn causes(&self, id: NodeId) -> Causes {
        let mut causes = Causes::default();
        let mut stack = vec![id];
        while let Some(id) = stack.pop() {
            let node = self.node(id);
            if let super::Computation::Source(table) = &node.computation {
                causes.tables.insert(*table);
            }
            causes.clock |= node.group.is_some();
            causes.any |= node.clocked;
            stack.extend(node.inputs.iter().copied());
        }
        causes
    }
}

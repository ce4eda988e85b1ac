//! What is computed: a query lowered to a graph of incremental operators, before any of them exists.
//!
//! ```text
//!  SELECT text --sql::planner--> DataFusion LogicalPlan --lower--> StreamPlan --circuit--> operators
//! ```
//!
//! A plan is pure data. Nodes with the same signature compute the same rows and are shared, between views
//! too. Every node knows what its rows promise ([`Properties`]); this is what decides the cheaper paths, when
//! state is freed, and what EXPLAIN prints.

mod aggregate;
mod asof_join;
mod changelog;
mod constant;
mod explain;
mod expression;
mod interval_join;
mod join;
mod lookup_join;
mod lower;
mod match_recognize;
mod over;
mod temporal_filter;
mod top_n;
mod unnest;
mod window;

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::compute::SortOptions;
use arrow::datatypes::{FieldRef, SchemaRef};
use datafusion::physical_expr::PhysicalExpr;
use sql::RelationId;

pub use asof_join::AsofJoinPlan;
pub use explain::{Freed, Measured, State, explain, explain_measured, unbounded_state, what};
pub use expression::{MapSpec, evaluate_or_null, physical};
pub use lower::{LowerOptions, Relations, SourceInfo, lower};
pub use match_recognize::MatchPlan;
pub use unnest::{UnnestColumn, UnnestSpec, UnnestWithout};

use crate::operators::aggregate::AggregateSpec;
use crate::operators::hop_aggregate::HopSpec;
use crate::operators::join::{JoinKind, JoinSideTime};
use crate::operators::over::{OverCall, Release};
use crate::operators::temporal_filter::TemporalFilterSpec;
use crate::operators::{Emit, Expiry};

/// Number of a node in its plan; inputs come before the nodes that read them.
pub type NodeIndex = usize;

/// A view's computation as a graph; the last node is the result.
#[derive(Clone)]
pub struct StreamPlan {
    pub nodes: Vec<PlanNode>,
}

impl StreamPlan {
    pub fn root(&self) -> &PlanNode {
        self.nodes.last().expect("a plan has at least its source")
    }

    /// Tables and materialized views that it reads.
    pub fn sources(&self) -> impl Iterator<Item = RelationId> {
        self.nodes.iter().filter_map(|node| match &node.kind {
            PlanKind::Source { relation, .. } => Some(*relation),
            _ => None,
        })
    }

    /// True when rows come or go because time passes.
    pub fn reads_clock(&self) -> bool {
        self.nodes.iter().any(|node| matches!(node.kind, PlanKind::TemporalFilter(_)))
    }
}

#[derive(Clone)]
pub struct PlanNode {
    pub kind: PlanKind,
    pub inputs: Vec<NodeIndex>,
    pub schema: SchemaRef,
    pub properties: Properties,
    /// Equal signatures mean equal results. Built from the text of the whole plan below.
    pub signature: String,
}

#[derive(Clone)]
pub enum PlanKind {
    /// Rows of a table, or of a materialized view (then the circuit links to that view's node).
    Source {
        relation: RelationId,
        name: String,
    },
    /// VALUES, a SELECT without FROM, a series: rows that come once.
    Constant(RecordBatch),
    /// Filter, then projection.
    Map(Arc<MapSpec>),
    /// Each row once per element of its arrays.
    Unnest(Arc<UnnestSpec>),
    /// HOP or CUMULATE without an aggregate directly above: each row once per window.
    Expand(Arc<ExpandSpec>),
    Aggregate(Arc<AggregateSpec>),
    HopAggregate(Arc<AggregateSpec>, HopSpec),
    TopN(Arc<TopNPlan>),
    Over(Arc<OverPlan>),
    /// Rows compared with the clock.
    TemporalFilter(Arc<TemporalFilterSpec>),
    Join(Arc<JoinPlan>),
    AsofJoin(Arc<AsofJoinPlan>),
    MatchRecognize(Arc<MatchPlan>),
    Union,
    /// What happens to the input's rows, which are identified by these columns, if they are.
    Changelog {
        key: Option<Vec<usize>>,
    },
    /// EMIT ON WINDOW CLOSE without aggregation.
    Buffer(Expiry),
}

/// Rows multiplied by their windows.
pub struct ExpandSpec {
    pub kind: sql::window_tvf::WindowKind,
    pub time_column: usize,
}

pub struct TopNPlan {
    pub partition: Vec<usize>,
    pub order: Vec<(usize, SortOptions)>,
    pub limit: usize,
    pub offset: usize,
    pub row_number: Option<FieldRef>,
    pub expiry: Option<Expiry>,
    pub emit: Emit,
    pub append_only: bool,
}

/// Window functions over one PARTITION BY and ORDER BY.
pub struct OverPlan {
    pub partition: Vec<usize>,
    pub order: Vec<(usize, SortOptions)>,
    pub calls: Vec<OverCall>,
    pub release: Release,
    pub emit: Emit,
}

pub struct JoinPlan {
    pub kind: JoinKind,
    pub on: Vec<(usize, usize)>,
    pub null_equals_null: bool,
    /// Over the left columns, then the right ones.
    pub residual: Option<Arc<dyn PhysicalExpr>>,
    /// How long rows of the left and the right side matter.
    pub time: [JoinSideTime; 2],
    /// When rows of a side may become late.
    pub grid: Grid,
    pub emit: Emit,
    /// Left rows meet the right rows of their moment and are forgotten.
    pub lookup: bool,
}

/// What the rows of a node promise.
#[derive(Clone, Debug, Default)]
pub struct Properties {
    /// No retractions ever.
    pub append_only: bool,
    /// Columns that identify a row at any tick; `None` when no such set is known.
    pub key: Option<Vec<usize>>,
    /// Per column: what it says about event time.
    pub time: Vec<Option<TimeKind>>,
    /// Tables whose watermarks, at their minimum, are the node's watermark.
    pub watermarks: BTreeSet<RelationId>,
    /// How far behind the watermark the event times of new rows may be: a join gives its pairs when the second of
    /// two rows came.
    pub delay_us: i64,
    /// Rows appear only when their window is final (EMIT ON WINDOW CLOSE below or here).
    pub closed: bool,
}

/// How a column's values relate to the watermark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeKind {
    /// The column the watermark is declared on.
    Event,
    /// Start of a window of fixed size.
    WindowStart {
        size_us: i64,
        grid: Grid,
    },
    WindowEnd {
        grid: Grid,
    },
    /// End of a session: its last row's time plus the gap. A row at just that time still belongs to it.
    SessionEnd,
    /// Stands for the window bounds of a HOP or CUMULATE whose rows are not multiplied: the column holds the
    /// event time, and the aggregate above expands. `event` is false when the time column has no watermark.
    VirtualStart {
        window: sql::window_tvf::WindowKind,
        event: bool,
    },
    VirtualEnd {
        window: sql::window_tvf::WindowKind,
        event: bool,
    },
}

/// The moments at which windows over a source may close: `offset + k * period`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grid {
    pub period_us: i64,
    pub offset_us: i64,
}

impl Grid {
    /// A window per microsecond: closing times are the event times themselves.
    pub const POINT: Grid = Grid { period_us: 1, offset_us: 0 };

    pub fn of(window: sql::window_tvf::WindowKind) -> Grid {
        use sql::window_tvf::WindowKind::*;
        match window {
            Tumble { size_us, offset_us } => Grid { period_us: size_us, offset_us },
            Hop { slide_us, offset_us, .. } => Grid { period_us: slide_us, offset_us },
            Cumulate { step_us, offset_us, .. } => Grid { period_us: step_us, offset_us },
        }
    }

    /// The end of the first window that closes after a row with this time.
    pub fn first_close_us(self, time_us: i64) -> i64 {
        let since = time_us.saturating_sub(self.offset_us);
        since
            .div_euclid(self.period_us)
            .saturating_add(1)
            .saturating_mul(self.period_us)
            .saturating_add(self.offset_us)
    }
}

impl Properties {
    /// Which of `columns` tells when a group is complete.
    pub fn expiry(&self, columns: &[usize], options: &LowerOptions) -> Option<(Expiry, Grid)> {
        let expiry = |column: usize, add_us: i64| Expiry {
            column,
            add_us,
            allowed_lateness_us: options.allowed_lateness_us,
        };
        let find = |wanted: fn(&TimeKind) -> bool| {
            columns.iter().copied().find(|c| self.time[*c].as_ref().is_some_and(wanted))
        };
        if let Some(column) = find(|t| matches!(t, TimeKind::WindowEnd { .. })) {
            let Some(TimeKind::WindowEnd { grid }) = self.time[column] else { unreachable!("just found") };
            return Some((expiry(column, 0), grid));
        }
        if let Some(column) = find(|t| matches!(t, TimeKind::WindowStart { .. })) {
            let Some(TimeKind::WindowStart { size_us, grid }) = self.time[column] else {
                unreachable!("just found")
            };
            return Some((expiry(column, size_us), grid));
        }
        if let Some(column) = find(|t| matches!(t, TimeKind::SessionEnd)) {
            return Some((expiry(column, 1), Grid::POINT));
        }
        if options.emit == Emit::OnClose {
            // A row stamped exactly at the watermark is still on time.
            return find(|t| matches!(t, TimeKind::Event)).map(|column| (expiry(column, 1), Grid::POINT));
        }
        None
    }
}

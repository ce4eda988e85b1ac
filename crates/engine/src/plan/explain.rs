//! EXPLAIN: operators from the result down, with what they promise, what they keep, and when that is freed.
//!
//! A new kind of node says in [`what`] what it does and in [`state`] what it keeps; the compiler asks for both.

use std::fmt::Write;

use super::{PlanKind, PlanNode, StreamPlan};
use crate::api::Notice;
use crate::operators::join::JoinKind;
use crate::operators::over::Release;
use crate::operators::temporal_filter::Side;
use crate::operators::{Emit, Expiry};

/// What one operator keeps from step to step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    /// In words: `one entry per group (user_id)`.
    pub keeps: String,
    pub freed: Freed,
}

/// When an operator's state gets smaller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freed {
    /// It does not grow with the rows.
    Bounded,
    /// When the watermark has passed what the entry is about.
    ByWatermark,
    /// As time passes.
    ByClock,
    /// When the rows that it stands for are deleted.
    ByDeletes,
}

impl Freed {
    fn words(self) -> &'static str {
        match self {
            Freed::Bounded => "does not grow",
            Freed::ByWatermark => "freed when the watermark passes",
            Freed::ByClock => "freed as time passes",
            Freed::ByDeletes => "freed when rows are deleted",
        }
    }
}

/// Figures of a running operator.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Measured {
    pub rows_in: u64,
    pub rows_out: u64,
    pub busy: std::time::Duration,
    pub state_rows: u64,
    pub state_bytes: u64,
    /// Views that share the operator.
    pub views: usize,
}

/// One line per operator, indented by depth; shared inputs are printed wherever they are read.
pub fn explain(plan: &StreamPlan) -> String {
    explain_measured(plan, &[])
}

/// As [`explain`], with the figures of each node by its number.
pub fn explain_measured(plan: &StreamPlan, measured: &[Option<Measured>]) -> String {
    let mut out = String::new();
    print(plan, plan.nodes.len() - 1, 0, measured, &mut out);
    out
}

fn print(plan: &StreamPlan, index: usize, depth: usize, measured: &[Option<Measured>], out: &mut String) {
    let node = &plan.nodes[index];
    let indent = "  ".repeat(depth);
    let _ = writeln!(out, "{indent}{}", describe(plan, index));
    if let Some(state) = state(plan, index) {
        let _ = writeln!(out, "{indent}    keeps {}; {}", state.keeps, freed_words(node, state.freed));
    }
    if let Some(Some(m)) = measured.get(index) {
        let shared = if m.views > 1 { format!(", shared by {} views", m.views) } else { String::new() };
        let _ = writeln!(
            out,
            "{indent}    rows in {}, rows out {}, time {:.3} ms, state {} rows, {} bytes{shared}",
            m.rows_in,
            m.rows_out,
            m.busy.as_secs_f64() * 1e3,
            m.state_rows,
            m.state_bytes
        );
    }
    for input in &node.inputs {
        print(plan, *input, depth + 1, measured, out);
    }
}

/// Only deletes could free it, and there are none: say so.
fn freed_words(node: &PlanNode, freed: Freed) -> &'static str {
    match freed {
        Freed::ByDeletes if node.properties.append_only => "kept until the view is dropped",
        _ => freed.words(),
    }
}

/// One operator on one line: what it does and what its rows promise.
pub fn describe(plan: &StreamPlan, index: usize) -> String {
    let node = &plan.nodes[index];
    let mut text = what(node);
    let _ = write!(text, " ({}", if node.properties.append_only { "append-only" } else { "updating" });
    if let Some(key) = &node.properties.key {
        let _ = write!(text, ", key=[{}]", names(key, node));
    }
    text.push(')');
    text
}

fn names(columns: &[usize], node: &PlanNode) -> String {
    columns.iter().map(|c| node.schema.field(*c).name().as_str()).collect::<Vec<_>>().join(", ")
}

fn emit(emit: Emit) -> &'static str {
    match emit {
        Emit::Updating => "updating",
        Emit::OnClose => "on window close",
    }
}

/// What the operator does, with its parameters.
pub fn what(node: &PlanNode) -> String {
    match &node.kind {
        PlanKind::Source { name, .. } => format!("source {name}"),
        PlanKind::Map(spec) => {
            let mut text = String::from("map");
            if let Some(filter) = &spec.filter {
                let _ = write!(text, " filter=[{filter}]");
            }
            if spec.projection.is_some() {
                let fields: Vec<&str> = node.schema.fields().iter().map(|f| f.name().as_str()).collect();
                let _ = write!(text, " columns=[{}]", fields.join(", "));
            }
            text
        }
        PlanKind::Constant(rows) => format!("values rows={}", rows.num_rows()),
        PlanKind::Unnest(spec) => {
            let unnested = spec.columns.iter().filter(|c| c.element_of().is_some()).count();
            format!("unnest arrays={unnested}")
        }
        PlanKind::Expand(spec) => format!("expand window={:?}", spec.kind),
        PlanKind::Aggregate(spec) => format!(
            "aggregate by=[{}] calls={} emit={}",
            keys(&spec.keys, &spec.input),
            spec.calls.len(),
            emit(spec.emit)
        ),
        PlanKind::HopAggregate(spec, hop) => format!(
            "window aggregate by=[{}] calls={} {hop:?} emit={}",
            keys(&spec.keys, &spec.input),
            spec.calls.len(),
            emit(spec.emit)
        ),
        PlanKind::TopN(spec) => format!(
            "top-n partition=[{}] limit={} offset={} emit={}",
            names(&spec.partition, node),
            spec.limit,
            spec.offset,
            emit(spec.emit)
        ),
        PlanKind::Over(spec) => {
            let order: Vec<usize> = spec.order.iter().map(|(column, _)| *column).collect();
            let calls: Vec<&str> = spec.calls.iter().map(|call| call.output.name().as_str()).collect();
            format!(
                "over partition=[{}] order=[{}] calls=[{}] emit={}",
                names(&spec.partition, node),
                names(&order, node),
                calls.join(", "),
                emit(spec.emit)
            )
        }
        PlanKind::Join(spec) => {
            let kind = match spec.kind {
                JoinKind::Inner if spec.on.is_empty() => "cross",
                JoinKind::Inner => "inner",
                JoinKind::Left => "left",
                JoinKind::Right => "right",
                JoinKind::Full => "full",
                JoinKind::Semi => "semi",
                JoinKind::Anti => "anti",
                JoinKind::Mark => "mark",
            };
            let mut text = format!("{kind} join keys={}", spec.on.len());
            if let Some(residual) = &spec.residual {
                let _ = write!(text, " filter=[{residual}]");
            }
            if spec.lookup {
                return format!("lookup {text} emit=once");
            }
            text
        }
        PlanKind::AsofJoin(spec) => super::asof_join::what(spec, node),
        PlanKind::MatchRecognize(spec) => super::match_recognize::describe(spec),
        PlanKind::TemporalFilter(spec) => {
            let operator = match spec.side {
                Side::Above { inclusive: false } => ">",
                Side::Above { inclusive: true } => ">=",
                Side::Below { inclusive: false } => "<",
                Side::Below { inclusive: true } => "<=",
            };
            format!("temporal filter [value {operator} {}]", spec.threshold)
        }
        PlanKind::Union => "union all".to_string(),
        PlanKind::Changelog { .. } => "changelog".to_string(),
        PlanKind::Buffer(_) => "buffer until the watermark passes".to_string(),
    }
}

fn keys(columns: &[usize], schema: &arrow::datatypes::SchemaRef) -> String {
    columns.iter().map(|c| schema.field(*c).name().as_str()).collect::<Vec<_>>().join(", ")
}

/// What the operator keeps; `None` if nothing.
pub fn state(plan: &StreamPlan, index: usize) -> Option<State> {
    let node = &plan.nodes[index];
    let by_expiry = |expiry: Option<Expiry>| match expiry {
        Some(_) => Freed::ByWatermark,
        None => Freed::ByDeletes,
    };
    let of_partition = |rows: &str, partition: &[usize]| match partition {
        [] => rows.to_string(),
        columns => format!("{rows} of each partition ({})", names(columns, node)),
    };
    Some(match &node.kind {
        PlanKind::Source { .. }
        | PlanKind::Constant(_)
        | PlanKind::Map(_)
        | PlanKind::Unnest(_)
        | PlanKind::Expand(_)
        | PlanKind::Changelog { .. }
        | PlanKind::Union => return None,
        PlanKind::Aggregate(spec) if spec.keys.is_empty() => {
            State { keeps: "one entry".to_string(), freed: Freed::Bounded }
        }
        PlanKind::Aggregate(spec) => State {
            keeps: format!("one entry per group ({})", keys(&spec.keys, &spec.input)),
            freed: by_expiry(spec.expiry),
        },
        PlanKind::HopAggregate(spec, _) => State {
            keeps: format!("one entry per pane and group ({})", keys(&spec.keys, &spec.input)),
            freed: Freed::ByWatermark,
        },
        PlanKind::TopN(spec) => {
            let kept = if spec.append_only { "the best rows" } else { "all rows" };
            let freed = match spec.partition.is_empty() && spec.append_only {
                true => Freed::Bounded,
                false => by_expiry(spec.expiry),
            };
            State { keeps: of_partition(kept, &spec.partition), freed }
        }
        PlanKind::Over(spec) => match spec.release {
            Release::Never => {
                State { keeps: of_partition("all rows", &spec.partition), freed: Freed::ByDeletes }
            }
            Release::Partition(_) => {
                State { keeps: of_partition("all rows", &spec.partition), freed: Freed::ByWatermark }
            }
            Release::Order(_) => State {
                keeps: of_partition("the rows that frames to come may hold", &spec.partition),
                freed: Freed::ByWatermark,
            },
        },
        PlanKind::TemporalFilter(spec) => State {
            keeps: match spec.side {
                Side::Above { .. } => "rows until they leave".to_string(),
                Side::Below { .. } => "rows until they come".to_string(),
            },
            freed: Freed::ByClock,
        },
        PlanKind::Join(spec) if spec.lookup => {
            State { keeps: "the rows of the right input".to_string(), freed: Freed::ByDeletes }
        }
        PlanKind::AsofJoin(spec) => super::asof_join::state(spec),
        PlanKind::Join(spec) => match (spec.time[0].drop, spec.time[1].drop) {
            (Some(left), Some(right)) if left.add_us == 0 && right.add_us == 0 => State {
                keeps: "the rows of both inputs of open windows".to_string(),
                freed: Freed::ByWatermark,
            },
            (Some(left), Some(right)) => State {
                keeps: format!(
                    "rows of the left input for {} and of the right for {}",
                    sql::duration::display_us(left.add_us),
                    sql::duration::display_us(right.add_us)
                ),
                freed: Freed::ByWatermark,
            },
            _ => State { keeps: "the rows of both inputs".to_string(), freed: Freed::ByDeletes },
        },
        PlanKind::MatchRecognize(spec) => super::match_recognize::state(spec),
        PlanKind::Buffer(_) => {
            State { keeps: "rows ahead of the watermark".to_string(), freed: Freed::ByWatermark }
        }
    })
}

/// State that only grows, because nothing that is deleted ever comes in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unbounded {
    operator: &'static str,
    keeps: String,
    /// Relations whose rows are never deleted and feed the operator.
    sources: Vec<String>,
}

impl Unbounded {
    /// What the creator of the view is told.
    pub fn notice(&self, view: &str) -> Notice {
        let relations = if self.sources.len() == 1 { "relation" } else { "relations" };
        let sources = self.sources.iter().map(|s| format!("\"{s}\"")).collect::<Vec<_>>().join(", ");
        let hint = match self.operator {
            "join" => {
                "say in the join condition how far apart in event time two rows may be, or equate the bounds of windows of both sides"
            }
            "lookup join" => {
                "give the right table a PRIMARY KEY and leave APPEND ONLY out, so that it holds one row per key"
            }
            "asof join" => {
                "declare WATERMARK FOR the compared columns, and APPEND ONLY, on the tables of both sides"
            }
            "window function" => {
                "partition by the bounds of a window of a column with a WATERMARK, or order by that column and add EMIT ON WINDOW CLOSE"
            }
            "pattern" => "order by a column with a WATERMARK and add WITHIN",
            _ => {
                "group by a window of a column with a WATERMARK (TUMBLE, HOP, CUMULATE), or make sure that there are few different keys"
            }
        };
        Notice {
            message: format!(
                "materialized view \"{view}\" keeps state that is never freed: the {} keeps {}, and rows of {relations} {sources} are never deleted",
                self.operator, self.keeps
            ),
            hint: Some(hint.to_string()),
        }
    }
}

/// Operators of the plan that keep state by key over append-only input, with nothing that frees it.
pub fn unbounded_state(plan: &StreamPlan) -> Vec<Unbounded> {
    // The inputs whose rows are kept, and never deleted.
    let growing = |index: usize| {
        let node = &plan.nodes[index];
        let kept = match &node.kind {
            PlanKind::Join(spec) if spec.lookup => &node.inputs[1..],
            _ => &node.inputs[..],
        };
        kept.iter().copied().filter(|input| plan.nodes[*input].properties.append_only)
    };
    let grows = |index: &usize| {
        state(plan, *index).is_some_and(|state| state.freed == Freed::ByDeletes)
            && growing(*index).next().is_some()
    };
    let describe = |index: usize| {
        let node = &plan.nodes[index];
        let operator = match &node.kind {
            PlanKind::Join(spec) if spec.lookup => "lookup join",
            PlanKind::Join(_) => "join",
            PlanKind::AsofJoin(_) => "asof join",
            PlanKind::TopN(_) => "top-n",
            PlanKind::Over(_) => "window function",
            PlanKind::MatchRecognize(_) => "pattern",
            _ => "aggregate",
        };
        let mut sources = Vec::new();
        growing(index).for_each(|input| append_only_sources(plan, input, &mut sources));
        Some(Unbounded { operator, keeps: state(plan, index)?.keeps, sources })
    };
    (0..plan.nodes.len()).filter(grows).filter_map(describe).collect()
}

fn append_only_sources(plan: &StreamPlan, index: usize, found: &mut Vec<String>) {
    let node = &plan.nodes[index];
    if let PlanKind::Source { name, .. } = &node.kind
        && node.properties.append_only
        && !found.contains(name)
    {
        found.push(name.clone());
    }
    node.inputs.iter().for_each(|input| append_only_sources(plan, *input, found));
}

//! EXPLAIN: operators from the result down, with what they promise and keep.

use std::fmt::Write;

use super::{PlanKind, PlanNode, StreamPlan};
use crate::operators::join::JoinKind;
use crate::operators::over::Release;
use crate::operators::temporal_filter::Side;
use crate::operators::{Emit, Expiry};

/// One line per operator, indented by depth; shared inputs are printed where they are first read.
pub fn explain(plan: &StreamPlan) -> String {
    let mut out = String::new();
    print(plan, plan.nodes.len() - 1, 0, &mut out);
    out
}

fn print(plan: &StreamPlan, index: usize, depth: usize, out: &mut String) {
    let node = &plan.nodes[index];
    let _ = writeln!(out, "{}{}", "  ".repeat(depth), describe(node));
    for input in &node.inputs {
        print(plan, *input, depth + 1, out);
    }
}

/// One operator on one line.
pub fn describe(node: &PlanNode) -> String {
    let names = |columns: &[usize], schema: &arrow::datatypes::SchemaRef| {
        columns.iter().map(|c| schema.field(*c).name().as_str()).collect::<Vec<_>>().join(", ")
    };
    let emit = |e: &Emit| match e {
        Emit::Updating => "updating",
        Emit::OnClose => "on window close",
    };
    let mut text = match &node.kind {
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
            "aggregate by=[{}] calls={} emit={} state=one entry per group{}",
            names(&spec.keys, &spec.input),
            spec.calls.len(),
            emit(&spec.emit),
            freed(spec.expiry)
        ),
        PlanKind::HopAggregate(spec, hop) => format!(
            "window aggregate by=[{}] calls={} {:?} emit={} state=one entry per pane and group, freed when the last window over the pane closes",
            names(&spec.keys, &spec.input),
            spec.calls.len(),
            hop,
            emit(&spec.emit)
        ),
        PlanKind::TopN(spec) => format!(
            "top-n partition=[{}] limit={} offset={} emit={} state={}{}",
            names(&spec.partition, &node.schema),
            spec.limit,
            spec.offset,
            emit(&spec.emit),
            if spec.append_only { "the best rows of a partition" } else { "all rows of a partition" },
            freed(spec.expiry)
        ),
        PlanKind::Over(spec) => {
            let order: Vec<usize> = spec.order.iter().map(|(column, _)| *column).collect();
            let calls: Vec<&str> = spec.calls.iter().map(|call| call.output.name().as_str()).collect();
            format!(
                "over partition=[{}] order=[{}] calls=[{}] emit={} state=all rows of a partition{}",
                names(&spec.partition, &node.schema),
                names(&order, &node.schema),
                calls.join(", "),
                emit(&spec.emit),
                match spec.release {
                    Release::Never => ", kept until the view is dropped",
                    Release::Partition(_) => ", freed when the watermark closes the window",
                    Release::Order(_) => ", freed when the watermark has passed all frames that hold the row",
                }
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
                return format!(
                    "lookup {text} emit=once state=the right input, kept until the view is dropped{}",
                    promises(node)
                );
            }
            let until = |side: usize| spec.time[side].drop.map(|e| e.add_us);
            text.push_str(" state=both inputs");
            match (until(0), until(1)) {
                (Some(left), Some(right)) => {
                    let _ = write!(
                        text,
                        ", freed when the watermark is {} past a row of the left and {} past one of the right",
                        seconds(left),
                        seconds(right)
                    );
                }
                _ => text.push_str(", kept until the view is dropped"),
            }
            text
        }
        PlanKind::AsofJoin(spec) => super::asof_join::describe(spec, node),
        PlanKind::MatchRecognize(spec) => super::match_recognize::describe(spec),
        PlanKind::TemporalFilter(spec) => {
            let (operator, kept) = match spec.side {
                Side::Above { inclusive: false } => (">", "rows that are there, freed when they leave"),
                Side::Above { inclusive: true } => (">=", "rows that are there, freed when they leave"),
                Side::Below { inclusive: false } => ("<", "rows that wait, freed when they come"),
                Side::Below { inclusive: true } => ("<=", "rows that wait, freed when they come"),
            };
            format!("temporal filter [value {operator} {}] state={kept}", spec.threshold)
        }
        PlanKind::Union => "union all".to_string(),
        PlanKind::Buffer(_) => "buffer until the watermark passes, then emit and free".to_string(),
    };
    text + &promises(node)
}

fn promises(node: &PlanNode) -> String {
    let mut text = format!(" ({}", if node.properties.append_only { "append-only" } else { "updating" });
    if let Some(key) = &node.properties.key {
        let names: Vec<&str> = key.iter().map(|c| node.schema.field(*c).name().as_str()).collect();
        let _ = write!(text, ", key=[{}]", names.join(", "));
    }
    text.push(')');
    text
}

fn freed(expiry: Option<Expiry>) -> &'static str {
    match expiry {
        Some(_) => ", freed when the watermark closes the window",
        None => ", kept until the view is dropped",
    }
}

fn seconds(us: i64) -> String {
    format!("{} s", us as f64 / 1e6)
}

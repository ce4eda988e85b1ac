//! Lowering: DataFusion's logical plan to a graph of incremental operators.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::common::DFSchema;
use datafusion::logical_expr::{Expr, Limit, LogicalPlan, Projection, TableScan, UserDefinedLogicalNodeCore};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::Column;
use sql::changelog::Changelog;
use sql::session_tvf::SessionTvf;
use sql::window_tvf::WindowTvf;
use sql::{AsofJoin, LookupJoin, MatchRecognize, RelationId, SqlError};

use super::{MapSpec, NodeIndex, PlanKind, PlanNode, Properties, StreamPlan, TimeKind, physical};
use crate::operators::{Emit, Expiry};

#[derive(Clone, Copy, Debug)]
pub struct LowerOptions {
    pub emit: Emit,
    pub allowed_lateness_us: i64,
}

/// A relation that a view may read.
#[derive(Clone, Debug)]
pub struct SourceInfo {
    pub relation: RelationId,
    pub schema: SchemaRef,
    pub properties: Properties,
}

/// What lowering asks of the catalog.
pub trait Relations {
    fn source(&self, name: &str) -> Option<SourceInfo>;
}

/// Lowers an optimized plan.
///
/// # Errors
/// Names the construct that can't be maintained incrementally yet, with a way out as the hint.
pub fn lower(
    plan: &LogicalPlan,
    relations: &dyn Relations,
    options: LowerOptions,
) -> Result<StreamPlan, SqlError> {
    let mut lowering = Lowering::new(relations, options);
    let root = lowering.lower(plan)?;
    let root = lowering.close(root)?;
    Ok(lowering.finish(root))
}

pub(super) struct Lowering<'a> {
    relations: &'a dyn Relations,
    pub(super) options: LowerOptions,
    nodes: Vec<PlanNode>,
    by_signature: HashMap<String, NodeIndex>,
    /// Whether HOP and CUMULATE may stay unexpanded for an aggregate above.
    virtual_windows: bool,
    /// Set when an expression computed with a virtual window bound, which holds no real value.
    pub(super) virtual_misused: bool,
    /// LIMIT of the ROW_NUMBER filter above the window node that is lowered next.
    pub(super) row_number_limit: Option<usize>,
}

impl<'a> Lowering<'a> {
    fn new(relations: &'a dyn Relations, options: LowerOptions) -> Lowering<'a> {
        Lowering {
            relations,
            options,
            nodes: Vec::new(),
            by_signature: HashMap::new(),
            virtual_windows: false,
            virtual_misused: false,
            row_number_limit: None,
        }
    }

    pub(super) fn node(&self, index: NodeIndex) -> &PlanNode {
        &self.nodes[index]
    }

    /// Adds a node, or finds the one that computes the same.
    pub(super) fn add(
        &mut self,
        kind: PlanKind,
        text: String,
        inputs: Vec<NodeIndex>,
        schema: SchemaRef,
        properties: Properties,
    ) -> NodeIndex {
        assert_eq!(properties.time.len(), schema.fields().len(), "one time kind per column of {text}");
        let below: Vec<&str> = inputs.iter().map(|i| self.nodes[*i].signature.as_str()).collect();
        let types: Vec<String> = schema
            .fields()
            .iter()
            .map(|f| format!("{}:{}:{}", f.name(), f.data_type(), f.is_nullable()))
            .collect();
        let signature = format!("{text}->({})<-[{}]", types.join(","), below.join(";"));
        if let Some(index) = self.by_signature.get(&signature) {
            return *index;
        }
        let index = self.nodes.len();
        self.by_signature.insert(signature.clone(), index);
        self.nodes.push(PlanNode { kind, inputs, schema, properties, signature });
        index
    }

    pub(super) fn lower(&mut self, plan: &LogicalPlan) -> Result<NodeIndex, SqlError> {
        match plan {
            LogicalPlan::TableScan(scan) => self.table_scan(scan),
            LogicalPlan::SubqueryAlias(alias) => self.lower(&alias.input),
            LogicalPlan::Projection(projection) => self.projection(projection),
            LogicalPlan::Filter(filter) => self.filter(filter),
            LogicalPlan::Aggregate(aggregate) => self.aggregate(aggregate),
            LogicalPlan::Window(window) => self.window_functions(window),
            LogicalPlan::Join(join) => self.join(join),
            LogicalPlan::Union(union) => {
                let inputs = union.inputs.iter().map(|i| self.lower(i)).collect::<Result<Vec<_>, _>>()?;
                self.union(inputs, schema_of(&union.schema))
            }
            LogicalPlan::Limit(limit) => self.limit(limit),
            // The order of a view's rows is not kept; a reader orders them.
            LogicalPlan::Sort(sort) if sort.fetch.is_none() => self.lower(&sort.input),
            LogicalPlan::Sort(sort) => self.top_n_of_sort(sort, 0, sort.fetch.unwrap_or(usize::MAX)),
            LogicalPlan::Extension(extension) => {
                if let Some(window) = WindowTvf::from_extension(extension) {
                    self.window_tvf(window)
                } else if let Some(pattern) = MatchRecognize::from_extension(extension) {
                    self.match_recognize(pattern)
                } else if let Some(session) = SessionTvf::from_extension(extension) {
                    self.session_tvf(session)
                } else if let Some(join) = AsofJoin::from_extension(extension) {
                    self.asof_join(join)
                } else if let Some(join) = LookupJoin::from_extension(extension) {
                    self.lookup_join(join)
                } else if let Some(changelog) = Changelog::from_extension(extension) {
                    self.changelog(changelog)
                } else {
                    Err(unsupported(extension.node.name()))
                }
            }
            LogicalPlan::Values(values) => self.values(values),
            LogicalPlan::EmptyRelation(empty) => Ok(self.empty_relation(empty)),
            LogicalPlan::Unnest(unnest) => self.unnest(unnest),
            LogicalPlan::Distinct(_) => {
                Err(SqlError::unsupported("DISTINCT ON is not supported in a materialized view yet")
                    .with_hint("use ROW_NUMBER() OVER (PARTITION BY ... ORDER BY ...) and keep row 1"))
            }
            LogicalPlan::Subquery(_) => Err(unsupported("this kind of subquery")),
            other => Err(unsupported(&other.display().to_string())),
        }
    }

    fn table_scan(&mut self, scan: &TableScan) -> Result<NodeIndex, SqlError> {
        let name = scan.table_name.table();
        let source = match self.series(scan)? {
            Some(series) => series,
            None => self.source(name)?,
        };
        let mut node = match &scan.projection {
            Some(columns) => self.select(source, columns)?,
            None => source,
        };
        for filter in &scan.filters {
            node = self.filtered(node, filter, &scan.projected_schema)?;
        }
        Ok(node)
    }

    fn source(&mut self, name: &str) -> Result<NodeIndex, SqlError> {
        let info = self.relations.source(name).ok_or_else(|| {
            SqlError::unsupported(format!("relation \"{name}\" can't be read by a materialized view"))
                .with_hint("read from tables and materialized views; system catalogs are not maintained")
        })?;
        Ok(self.add(
            PlanKind::Source { relation: info.relation, name: name.to_string() },
            // A table that got columns is another source for plans that know them.
            format!("source {} of {}", info.relation.0, info.schema.fields().len()),
            vec![],
            Arc::clone(&info.schema),
            info.properties,
        ))
    }

    fn projection(&mut self, projection: &Projection) -> Result<NodeIndex, SqlError> {
        let input = self.lower(&projection.input)?;
        self.project(input, projection)
    }

    /// The projection over its input, which was lowered already.
    fn project(&mut self, input: NodeIndex, projection: &Projection) -> Result<NodeIndex, SqlError> {
        let expressions = projection
            .expr
            .iter()
            .map(|e| physical(e, projection.input.schema()))
            .collect::<Result<Vec<_>, _>>()?;
        self.map(input, None, Some(expressions), Some(schema_of(&projection.schema)))
    }

    fn limit(&mut self, limit: &Limit) -> Result<NodeIndex, SqlError> {
        let number = |e: &Option<Box<Expr>>, default: usize| match e.as_deref() {
            None => Ok(default),
            Some(Expr::Literal(value, _)) if !value.is_null() => value
                .to_string()
                .parse()
                .map_err(|_| SqlError::unsupported("LIMIT has to be a constant number")),
            Some(Expr::Literal(..)) => Ok(default),
            Some(_) => Err(SqlError::unsupported("LIMIT has to be a constant number")),
        };
        let (skip, fetch) = (number(&limit.skip, 0)?, number(&limit.fetch, usize::MAX)?);
        // Columns that are ordered by but not selected are dropped above the order.
        let (projection, below) = match limit.input.as_ref() {
            LogicalPlan::Projection(projection) => (Some(projection), projection.input.as_ref()),
            other => (None, other),
        };
        let LogicalPlan::Sort(sort) = below else {
            return Err(SqlError::unsupported(
                "LIMIT without ORDER BY has no fixed answer in a materialized view",
            )
            .with_hint("add ORDER BY before LIMIT"));
        };
        let first = self.top_n_of_sort(sort, skip, fetch)?;
        match projection {
            Some(projection) => self.project(first, projection),
            None => Ok(first),
        }
    }

    /// Columns by number, in the given order.
    pub(super) fn select(&mut self, input: NodeIndex, columns: &[usize]) -> Result<NodeIndex, SqlError> {
        let schema = Arc::clone(&self.nodes[input].schema);
        if columns.iter().copied().eq(0..schema.fields().len()) {
            return Ok(input);
        }
        let expressions = columns.iter().map(|c| column(&schema, *c)).collect();
        let output = Arc::new(schema.project(columns).map_err(|e| SqlError::internal(e.to_string()))?);
        self.map(input, None, Some(expressions), Some(output))
    }

    /// Filter, then projection. `output` names and types the projection's columns.
    pub(super) fn map(
        &mut self,
        input: NodeIndex,
        filter: Option<Arc<dyn PhysicalExpr>>,
        projection: Option<Vec<Arc<dyn PhysicalExpr>>>,
        output: Option<SchemaRef>,
    ) -> Result<NodeIndex, SqlError> {
        let node = &self.nodes[input];
        let schema = output.unwrap_or_else(|| Arc::clone(&node.schema));
        let mut properties = node.properties.clone();
        let is_virtual = |c: usize| {
            matches!(
                node.properties.time[c],
                Some(TimeKind::VirtualStart { .. } | TimeKind::VirtualEnd { .. })
            )
        };
        let mut misused = filter.iter().any(|f| columns_of(f).into_iter().any(is_virtual));
        let mut schema = schema;
        if let Some(expressions) = &projection {
            if expressions.len() == node.schema.fields().len()
                && filter.is_none()
                && expressions.iter().enumerate().all(|(i, e)| plain_column(e) == Some(i))
                && schema.fields() == node.schema.fields()
            {
                return Ok(input);
            }
            let sources: Vec<Option<usize>> = expressions.iter().map(plain_column).collect();
            properties.time = sources.iter().map(|s| s.and_then(|c| node.properties.time[c])).collect();
            properties.key = node.properties.key.as_ref().and_then(|key| {
                key.iter().map(|k| sources.iter().position(|s| *s == Some(*k))).collect::<Option<Vec<_>>>()
            });
            misused |= expressions
                .iter()
                .filter(|e| plain_column(e).is_none())
                .any(|e| columns_of(e).into_iter().any(is_virtual));
            // A failing expression gives NULL, so a computed column is nullable whatever the planner says.
            schema = Arc::new(Schema::new(
                schema
                    .fields()
                    .iter()
                    .zip(&sources)
                    .map(|(field, source)| {
                        let nullable = source.is_none_or(|c| node.schema.field(c).is_nullable());
                        Field::clone(field).with_nullable(nullable)
                    })
                    .collect::<Vec<_>>(),
            ));
        }
        self.virtual_misused |= misused;
        let text = format!(
            "map filter={:?} {} columns={:?}",
            filter,
            filter.as_ref().map(ToString::to_string).unwrap_or_default(),
            projection.as_ref().map(|p| p.iter().map(|e| format!("{e} {e:?}")).collect::<Vec<_>>())
        );
        let spec = MapSpec { filter, projection, output: Arc::clone(&schema) };
        Ok(self.add(PlanKind::Map(Arc::new(spec)), text, vec![input], schema, properties))
    }

    pub(super) fn union(&mut self, inputs: Vec<NodeIndex>, schema: SchemaRef) -> Result<NodeIndex, SqlError> {
        let schema = Arc::new(Schema::new(
            schema.fields().iter().map(|f| Field::clone(f).with_nullable(true)).collect::<Vec<_>>(),
        ));
        let mut properties = Properties {
            append_only: true,
            key: None,
            time: self.nodes[inputs[0]].properties.time.clone(),
            closed: true,
            ..Default::default()
        };
        let mut aligned = Vec::with_capacity(inputs.len());
        for input in inputs {
            let node = &self.nodes[input];
            for (ours, theirs) in properties.time.iter_mut().zip(&node.properties.time) {
                let same_use = *ours == *theirs;
                if !same_use {
                    *ours = None;
                }
            }
            properties.append_only &= node.properties.append_only;
            properties.closed &= node.properties.closed;
            properties.delay_us = properties.delay_us.max(node.properties.delay_us);
            properties.watermarks.extend(node.properties.watermarks.iter().copied());
            let from = Arc::clone(&node.schema);
            let expressions = (0..from.fields().len())
                .map(|i| {
                    let wanted = schema.field(i).data_type();
                    let have = column(&from, i);
                    if from.field(i).data_type() == wanted { Ok(have) } else { cast(have, &from, wanted) }
                })
                .collect::<Result<Vec<_>, _>>()?;
            aligned.push(self.map(input, None, Some(expressions), Some(Arc::clone(&schema)))?);
        }
        // An input without a watermark would let event times of unknown order through.
        if aligned.iter().any(|i| self.nodes[*i].properties.watermarks.is_empty()) {
            properties.time.fill(None);
        }
        Ok(self.add(PlanKind::Union, "union".into(), aligned, schema, properties))
    }

    /// Lowers the input of an aggregate with HOP and CUMULATE left unexpanded, if nothing in between
    /// computes with their bounds; `None` if something does or no such window is there.
    pub(super) fn lower_virtual(&mut self, plan: &LogicalPlan) -> Result<Option<NodeIndex>, SqlError> {
        let before = (self.virtual_windows, self.virtual_misused);
        (self.virtual_windows, self.virtual_misused) = (true, false);
        let lowered = self.lower(plan);
        let misused = self.virtual_misused;
        (self.virtual_windows, self.virtual_misused) = before;
        let index = lowered?;
        let has_virtual = self.nodes[index]
            .properties
            .time
            .iter()
            .any(|t| matches!(t, Some(TimeKind::VirtualStart { .. } | TimeKind::VirtualEnd { .. })));
        Ok((has_virtual && !misused).then_some(index))
    }

    pub(super) fn may_stay_virtual(&self) -> bool {
        self.virtual_windows
    }

    /// Lowers below an operator that needs real window bounds.
    pub(super) fn lower_expanded(&mut self, plan: &LogicalPlan) -> Result<NodeIndex, SqlError> {
        let before = std::mem::replace(&mut self.virtual_windows, false);
        let lowered = self.lower(plan);
        self.virtual_windows = before;
        lowered
    }

    /// EMIT ON WINDOW CLOSE of a plan whose rows are not held back by an operator of its own.
    fn close(&mut self, root: NodeIndex) -> Result<NodeIndex, SqlError> {
        let node = &self.nodes[root];
        if self.options.emit == Emit::Updating || node.properties.closed {
            return Ok(root);
        }
        let columns: Vec<usize> = (0..node.schema.fields().len()).collect();
        let Some((expiry, _)) = node.properties.expiry(&columns, &self.options) else {
            return Err(SqlError::new(
                sql::SqlState::InvalidDefinition,
                "EMIT ON WINDOW CLOSE needs a window or a watermark column, and the result has none",
            )
            .with_hint("group by window_start or window_end over a column with WATERMARK FOR, or leave the clause out"));
        };
        self.buffer(root, expiry)
    }

    /// Holds rows back until the watermark passes; what comes out is final.
    pub(super) fn buffer(&mut self, input: NodeIndex, expiry: Expiry) -> Result<NodeIndex, SqlError> {
        let node = &self.nodes[input];
        let (schema, mut properties) = (Arc::clone(&node.schema), node.properties.clone());
        properties.closed = true;
        let text = format!("buffer {expiry:?}");
        Ok(self.add(PlanKind::Buffer(expiry), text, vec![input], schema, properties))
    }

    /// Drops what the root does not reach.
    fn finish(self, root: NodeIndex) -> StreamPlan {
        let mut reached = vec![false; self.nodes.len()];
        reached[root] = true;
        for index in (0..=root).rev() {
            if reached[index] {
                for input in &self.nodes[index].inputs {
                    reached[*input] = true;
                }
            }
        }
        let mut renamed = vec![usize::MAX; self.nodes.len()];
        let mut nodes = Vec::new();
        for (index, mut node) in self.nodes.into_iter().enumerate().take(root + 1) {
            if reached[index] {
                for input in &mut node.inputs {
                    *input = renamed[*input];
                }
                renamed[index] = nodes.len();
                nodes.push(node);
            }
        }
        StreamPlan { nodes }
    }
}

/// The columns of a join by time: our types, the plan's names; with `outer` the right ones may be NULL.
pub(super) fn joined_fields(
    [left, right]: [&PlanNode; 2],
    join: &impl UserDefinedLogicalNodeCore,
    outer: bool,
) -> Vec<Field> {
    let names = schema_of(join.schema());
    let fields = left.schema.fields().iter().map(|field| (field, false));
    let fields = fields.chain(right.schema.fields().iter().map(|field| (field, outer)));
    let named = fields.zip(names.fields()).map(|((ours, nullable), theirs)| {
        Field::clone(ours).with_name(theirs.name()).with_nullable(nullable || ours.is_nullable())
    });
    named.collect()
}

pub(super) fn schema_of(schema: &DFSchema) -> SchemaRef {
    // Metadata and qualifiers differ between views that compute the same; they play no part here.
    Arc::new(Schema::new(
        schema
            .fields()
            .iter()
            .map(|f| Field::new(f.name(), f.data_type().clone(), f.is_nullable()))
            .collect::<Vec<_>>(),
    ))
}

pub(super) fn column(schema: &SchemaRef, index: usize) -> Arc<dyn PhysicalExpr> {
    Arc::new(Column::new(schema.field(index).name(), index))
}

pub(super) fn cast(
    expression: Arc<dyn PhysicalExpr>,
    schema: &SchemaRef,
    to: &DataType,
) -> Result<Arc<dyn PhysicalExpr>, SqlError> {
    datafusion::physical_expr::expressions::cast(expression, schema, to.clone())
        .map_err(|e| sql::planner::from_datafusion(e, ""))
}

/// The column number when the expression is just a column.
pub(super) fn plain_column(expression: &Arc<dyn PhysicalExpr>) -> Option<usize> {
    (expression.as_ref() as &dyn std::any::Any).downcast_ref::<Column>().map(Column::index)
}

pub(super) fn columns_of(expression: &Arc<dyn PhysicalExpr>) -> Vec<usize> {
    datafusion::physical_expr::utils::collect_columns(expression).iter().map(Column::index).collect()
}

fn unsupported(what: &str) -> SqlError {
    SqlError::unsupported(format!("{what} is not supported in a materialized view yet"))
        .with_hint("use CREATE VIEW, which is computed when it is read")
}

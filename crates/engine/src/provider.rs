//! Relations as DataFusion sees them: names and schemas while a query is bound, rows of one tick when it runs.

use std::any::Any;
use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Arc, OnceLock};

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::{FieldRef, Schema, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::{
    CatalogProvider, CatalogProviderList, MemoryCatalogProvider, MemoryCatalogProviderList, SchemaProvider,
    Session, TableProvider,
};
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::datasource::{TableType, ViewTable, source_as_provider};
use datafusion::error::{DataFusionError, Result as DataFusionResult};
use datafusion::execution::{SendableRecordBatchStream, SessionState, SessionStateBuilder, TaskContext};
use datafusion::logical_expr::{Expr, LogicalPlan, TableProviderFilterPushDown};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::{PartitionStream, StreamingTableExec};
use parking_lot::Mutex;
use sql::{Catalog, RelationId, SqlError, SqlFunctions, SqlState};

use crate::definition::ViewProperties;
use crate::key_read::{KeyRead, may_bind};
use crate::pg_catalog::{SystemCatalogs, SystemSchema};
use crate::published::{RelationSnapshot, Snapshot, Wanted};

/// One query's view of the world.
pub struct QueryScope {
    catalog: Arc<Catalog>,
    base: Arc<SessionState>,
    /// Keys of the materialized views, for queries that read rows; `None` while a view is defined.
    views: Option<Arc<ViewProperties>>,
    /// Names of the relations that were looked up while binding, those behind plain views included.
    names: Mutex<BTreeSet<String>>,
    functions: Arc<SqlFunctions>,
    system: Arc<SystemCatalogs>,
    snapshot: OnceLock<Snapshot>,
}

impl fmt::Debug for QueryScope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("QueryScope")
    }
}

impl QueryScope {
    /// To define a view.
    pub fn new(catalog: Arc<Catalog>, base: Arc<SessionState>) -> Arc<QueryScope> {
        QueryScope::with_keys(catalog, base, None)
    }

    /// To read rows, by key where there is one.
    pub fn reading(
        catalog: Arc<Catalog>,
        base: Arc<SessionState>,
        views: Arc<ViewProperties>,
    ) -> Arc<QueryScope> {
        QueryScope::with_keys(catalog, base, Some(views))
    }

    fn with_keys(
        catalog: Arc<Catalog>,
        base: Arc<SessionState>,
        views: Option<Arc<ViewProperties>>,
    ) -> Arc<QueryScope> {
        let functions = Arc::new(SqlFunctions::new(catalog.functions.clone()));
        let properties = views.clone().unwrap_or_default();
        Arc::new(QueryScope {
            system: SystemCatalogs::new(Arc::clone(&catalog), properties),
            functions,
            catalog,
            base,
            views,
            names: Mutex::default(),
            snapshot: OnceLock::new(),
        })
    }

    /// A session state in which the catalog's relations are known.
    pub fn state(self: &Arc<Self>) -> SessionState {
        let schema = Arc::new(RelationSchema { scope: Arc::clone(self) });
        let catalog = MemoryCatalogProvider::new();
        catalog.register_schema("public", schema).expect("a memory catalog takes schemas");
        let system: [(&str, Arc<dyn SchemaProvider>); 2] = [
            ("pg_catalog", Arc::new(SystemSchema::pg_catalog(&self.system))),
            ("information_schema", Arc::new(SystemSchema::information_schema(&self.system))),
        ];
        for (name, schema) in system {
            catalog.register_schema(name, schema).expect("a memory catalog takes schemas");
        }
        let catalogs = MemoryCatalogProviderList::new();
        catalogs.register_catalog("dev".into(), Arc::new(catalog));
        let mut builder = SessionStateBuilder::new_from_existing(SessionState::clone(&self.base))
            .with_catalog_list(Arc::new(catalogs));
        let config = builder.config().get_or_insert_default();
        config.set_extension(Arc::clone(&self.functions));
        // Binding asks what is known of a table beyond its columns.
        config.set_extension(Arc::clone(&self.catalog));
        let mut state = builder.build();
        // The time that now() gives in a statement.
        state.mark_start_execution();
        state
    }

    /// [`QueryScope::state`] for this text: with the functions of the system catalogs, if it may call them.
    pub fn state_for(self: &Arc<Self>, sql: &str) -> SessionState {
        let state = self.state();
        if !sql::planner::mentions_catalogs(sql) {
            return state;
        }
        let mut builder = SessionStateBuilder::new_from_existing(state);
        builder.scalar_functions().get_or_insert_default().extend(self.system.functions());
        builder.build()
    }

    /// What an optimized plan reads.
    ///
    /// # Errors
    /// None that a plan of ours has.
    pub fn wanted(&self, plan: &LogicalPlan) -> DataFusionResult<Wanted> {
        let mut wanted = Wanted::default();
        plan.apply_with_subqueries(|node| {
            if let LogicalPlan::TableScan(scan) = node
                && let Ok(provider) = source_as_provider(&scan.source)
                && let Some(table) = (provider.as_ref() as &dyn Any).downcast_ref::<RelationTable>()
            {
                match table.key_read(&scan.filters) {
                    Some(read) => drop(wanted.keys.insert(read)),
                    None => drop(wanted.scans.insert(table.id)),
                }
            }
            Ok(TreeNodeRecursion::Continue)
        })?;
        Ok(wanted)
    }

    pub fn catalog(&self) -> &Arc<Catalog> {
        &self.catalog
    }

    /// Columns by which rows of the relation are found: its key, then its indexes, most columns first.
    fn paths(&self, name: &str, key: Option<Vec<usize>>, schema: &Schema) -> Vec<Vec<usize>> {
        let mut indexes: Vec<Vec<usize>> = self
            .catalog
            .indexes
            .values()
            .filter(|index| index.relation == name)
            .filter_map(|index| index.columns.iter().map(|column| schema.index_of(column).ok()).collect())
            .collect();
        indexes.sort_by_key(|columns| std::cmp::Reverse(columns.len()));
        key.into_iter().filter(|key| !key.is_empty()).chain(indexes).collect()
    }

    /// Names of all relations that were looked up, those behind plain views included.
    pub fn names(&self) -> Vec<String> {
        self.names.lock().iter().cloned().collect()
    }

    /// SQL functions that were called.
    pub fn calls(&self) -> Vec<String> {
        self.functions.called()
    }

    /// Fixes what the bound query is going to read.
    pub fn set_snapshot(&self, snapshot: Snapshot) {
        assert!(self.snapshot.set(snapshot).is_ok(), "a query reads at one tick");
    }
}

/// A session state with an empty catalog that nobody else sees.
pub fn empty_state(base: &SessionState) -> SessionState {
    let catalog = MemoryCatalogProvider::new();
    catalog
        .register_schema("public", Arc::new(datafusion::catalog::MemorySchemaProvider::new()))
        .expect("a memory catalog takes schemas");
    let catalogs = MemoryCatalogProviderList::new();
    catalogs.register_catalog("dev".into(), Arc::new(catalog));
    SessionStateBuilder::new_from_existing(base.clone()).with_catalog_list(Arc::new(catalogs)).build()
}

#[derive(Debug)]
struct RelationSchema {
    scope: Arc<QueryScope>,
}

#[async_trait]
impl SchemaProvider for RelationSchema {
    fn table_names(&self) -> Vec<String> {
        let catalog = &self.scope.catalog;
        catalog.tables.keys().chain(catalog.views.keys()).cloned().collect()
    }

    fn table_exist(&self, name: &str) -> bool {
        self.scope.catalog.tables.contains_key(name) || self.scope.catalog.views.contains_key(name)
    }

    async fn table(&self, name: &str) -> DataFusionResult<Option<Arc<dyn TableProvider>>> {
        let catalog = &self.scope.catalog;
        if self.table_exist(name) {
            self.scope.names.lock().insert(name.to_string());
        }
        let provider = |id: RelationId, schema: SchemaRef, key: Option<Vec<usize>>| {
            let (keyed, paths) = match &self.scope.views {
                Some(_) => (key.is_some(), self.scope.paths(name, key, &schema)),
                None => (false, Vec::new()),
            };
            let scope = Arc::clone(&self.scope);
            Arc::new(RelationTable { id, schema, keyed, paths, scope }) as Arc<dyn TableProvider>
        };
        if let Some(table) = catalog.tables.get(name) {
            let key = (!table.primary_key.is_empty()).then(|| table.primary_key.clone());
            return Ok(Some(provider(table.id, table.announced_schema(), key)));
        }
        let Some(view) = catalog.views.get(name) else {
            // PostgreSQL looks names up in pg_catalog first.
            return SystemSchema::pg_catalog(&self.scope.system).table(name).await;
        };
        if view.materialized {
            let properties = self.scope.views.as_ref().and_then(|views| views.get(name));
            let key = properties.and_then(|p| p.key.clone()).filter(|key| !key.is_empty());
            return Ok(Some(provider(view.id, Arc::clone(&view.schema), key)));
        }
        let external = |e: sql::SqlError| DataFusionError::External(Box::new(e));
        let query = sql::parse_query(&view.query).map_err(external)?;
        let state = self.scope.state_for(&view.query);
        let plan = sql::planner::bind_query(&state, &query, &view.query).await.map_err(external)?;
        Ok(Some(Arc::new(ViewTable::new(plan, Some(view.query.clone())))))
    }
}

/// A table or materialized view.
pub struct RelationTable {
    id: RelationId,
    schema: SchemaRef,
    /// The first of the paths is the relation's key.
    keyed: bool,
    paths: Vec<Vec<usize>>,
    scope: Arc<QueryScope>,
}

impl RelationTable {
    pub fn id(&self) -> RelationId {
        self.id
    }

    /// Columns that identify a row.
    pub fn key(&self) -> Option<&[usize]> {
        self.paths.first().filter(|_| self.keyed).map(Vec::as_slice)
    }

    pub fn rows_schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn key_read(&self, filters: &[Expr]) -> Option<KeyRead> {
        KeyRead::of_filters(self.id, filters, &self.schema, &self.paths)
    }
}

impl fmt::Debug for RelationTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RelationTable({})", self.id.0)
    }
}

#[async_trait]
impl TableProvider for RelationTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    /// Filters that name keys are wanted, to find the rows by; the query filters again.
    fn supports_filters_pushdown(
        &self,
        filters: &[&Expr],
    ) -> DataFusionResult<Vec<TableProviderFilterPushDown>> {
        let support = |filter: &&Expr| match may_bind(filter, &self.schema, &self.paths) {
            true => TableProviderFilterPushDown::Inexact,
            false => TableProviderFilterPushDown::Unsupported,
        };
        Ok(filters.iter().map(support).collect())
    }

    async fn scan(
        &self,
        _state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> DataFusionResult<Arc<dyn ExecutionPlan>> {
        let snapshot = self.scope.snapshot.get();
        let found = snapshot.and_then(|s| s.found(&self.key_read(filters)?).cloned());
        let rows = match found {
            Some(rows) => Rows::Found(rows),
            None => Rows::All(snapshot.and_then(|s| s.relation(self.id)).cloned().ok_or_else(|| {
                DataFusionError::Internal("a query runs after its snapshot was taken".into())
            })?),
        };
        // Between the planning of the query and its tick a view may have been replaced.
        let there = match &rows {
            Rows::All(snapshot) => Some(snapshot.schema()),
            Rows::Found(batches) => batches.first().map(RecordBatch::schema),
        };
        let fits = |there: SchemaRef| {
            let same = |(own, there): (&FieldRef, &FieldRef)| own.data_type() == there.data_type();
            self.schema.fields().len() <= there.fields().len()
                && self.schema.fields().iter().zip(there.fields()).all(same)
        };
        if !there.is_none_or(fits) {
            let error =
                SqlError::new(SqlState::FeatureNotSupported, "cached plan must not change result type");
            let error = error.with_hint("the relation has other columns now; send the query again");
            return Err(DataFusionError::External(Box::new(error)));
        }
        let schema = match projection {
            Some(columns) => Arc::new(self.schema.project(columns)?),
            None => Arc::clone(&self.schema),
        };
        let partition =
            SnapshotPartition { rows, schema: Arc::clone(&schema), projection: projection.cloned() };
        let exec =
            StreamingTableExec::try_new(schema, vec![Arc::new(partition)], None, vec![], false, limit)?;
        Ok(Arc::new(exec))
    }
}

/// The rows that a scan gives.
#[derive(Clone)]
enum Rows {
    All(RelationSnapshot),
    Found(Vec<RecordBatch>),
}

struct SnapshotPartition {
    rows: Rows,
    schema: SchemaRef,
    projection: Option<Vec<usize>>,
}

impl fmt::Debug for SnapshotPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SnapshotPartition")
    }
}

impl PartitionStream for SnapshotPartition {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _ctx: Arc<TaskContext>) -> SendableRecordBatchStream {
        let projection = self.projection.clone();
        let batches: Box<dyn Iterator<Item = DataFusionResult<RecordBatch>> + Send> = match self.rows.clone()
        {
            Rows::All(snapshot) => {
                let batches = snapshot.batches(projection);
                Box::new(batches.map(|b| b.map_err(|e| DataFusionError::External(Box::new(e)))))
            }
            Rows::Found(batches) => Box::new(batches.into_iter().map(move |batch| match &projection {
                Some(columns) => Ok(batch.project(columns)?),
                None => Ok(batch),
            })),
        };
        // Names may be newer than the rows, and SQL types are not told with each batch.
        let schema = Arc::clone(&self.schema);
        let batches = batches.map(move |batch| {
            let batch = batch?;
            let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
            let columns = batch.columns().to_vec();
            Ok(RecordBatch::try_new_with_options(Arc::clone(&schema), columns, &options)?)
        });
        Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.schema), futures::stream::iter(batches)))
    }
}

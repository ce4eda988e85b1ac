//! Relations as DataFusion sees them: names and schemas while a query is bound, rows of one tick when it runs.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Arc, OnceLock};

use arrow::datatypes::{Field, Schema, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::{
    CatalogProvider, CatalogProviderList, MemoryCatalogProvider, MemoryCatalogProviderList, SchemaProvider,
    Session, TableProvider,
};
use datafusion::datasource::{TableType, ViewTable};
use datafusion::error::{DataFusionError, Result as DataFusionResult};
use datafusion::execution::{SendableRecordBatchStream, SessionState, SessionStateBuilder, TaskContext};
use datafusion::logical_expr::Expr;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::{PartitionStream, StreamingTableExec};
use parking_lot::Mutex;
use sql::{Catalog, RelationId};

use crate::published::{RelationSnapshot, Snapshot};

/// One query's view of the world.
pub struct QueryScope {
    catalog: Arc<Catalog>,
    base: Arc<SessionState>,
    /// Relations that were looked up while binding.
    wanted: Mutex<BTreeSet<RelationId>>,
    /// Their names, and those of plain views.
    names: Mutex<BTreeSet<String>>,
    snapshot: OnceLock<Snapshot>,
}

impl fmt::Debug for QueryScope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("QueryScope")
    }
}

impl QueryScope {
    pub fn new(catalog: Arc<Catalog>, base: Arc<SessionState>) -> Arc<QueryScope> {
        Arc::new(QueryScope {
            catalog,
            base,
            wanted: Mutex::default(),
            names: Mutex::default(),
            snapshot: OnceLock::new(),
        })
    }

    /// A session state in which the catalog's relations are known.
    pub fn state(self: &Arc<Self>) -> SessionState {
        let schema = Arc::new(RelationSchema { scope: Arc::clone(self) });
        let catalog = MemoryCatalogProvider::new();
        catalog.register_schema("public", schema).expect("a memory catalog takes schemas");
        let catalogs = MemoryCatalogProviderList::new();
        catalogs.register_catalog("dev".into(), Arc::new(catalog));
        let base = SessionState::clone(&self.base);
        // Binding asks what is known of a table beyond its columns.
        let config = base.config().clone().with_extension(Arc::clone(&self.catalog));
        let mut state = SessionStateBuilder::new_from_existing(base)
            .with_config(config)
            .with_catalog_list(Arc::new(catalogs))
            .build();
        // The time that now() gives in a statement.
        state.mark_start_execution();
        state
    }

    pub fn wanted(&self) -> BTreeSet<RelationId> {
        self.wanted.lock().clone()
    }

    /// Names of all relations that were looked up, those behind plain views included.
    pub fn names(&self) -> Vec<String> {
        self.names.lock().iter().cloned().collect()
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
        let provider = |id: RelationId, schema: SchemaRef, table_type: TableType| {
            self.scope.wanted.lock().insert(id);
            let scope = Arc::clone(&self.scope);
            Arc::new(RelationTable { id, schema, table_type, scope }) as Arc<dyn TableProvider>
        };
        if let Some(table) = catalog.tables.get(name) {
            return Ok(Some(provider(table.id, announced(table), TableType::Base)));
        }
        let Some(view) = catalog.views.get(name) else { return Ok(None) };
        if view.materialized {
            return Ok(Some(provider(view.id, Arc::clone(&view.schema), TableType::Base)));
        }
        let external = |e: sql::SqlError| DataFusionError::External(Box::new(e));
        let query = sql::parse_query(&view.query).map_err(external)?;
        let state = self.scope.state();
        let plan = sql::planner::bind_query(&state, &query, &view.query).await.map_err(external)?;
        Ok(Some(Arc::new(ViewTable::new(plan, Some(view.query.clone())))))
    }
}

/// The table's schema, with the SQL name of types that Arrow doesn't tell apart from text: clients are told of them.
fn announced(table: &sql::TableDef) -> SchemaRef {
    let schema = table.schema();
    let fields = schema.fields().iter().zip(&table.columns).map(|(field, column)| {
        let field = Field::clone(field);
        match column.sql_type.as_str() {
            "jsonb" | "json" | "uuid" => {
                field.with_metadata([("sql_type".to_string(), column.sql_type.clone())].into_iter().collect())
            }
            _ => field,
        }
    });
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

struct RelationTable {
    id: RelationId,
    schema: SchemaRef,
    table_type: TableType,
    scope: Arc<QueryScope>,
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
        self.table_type
    }

    async fn scan(
        &self,
        _state: &dyn Session,
        projection: Option<&Vec<usize>>,
        _filters: &[Expr],
        limit: Option<usize>,
    ) -> DataFusionResult<Arc<dyn ExecutionPlan>> {
        let snapshot =
            self.scope.snapshot.get().and_then(|s| s.relation(self.id)).ok_or_else(|| {
                DataFusionError::Internal("a query runs after its snapshot was taken".into())
            })?;
        let schema = match projection {
            Some(columns) => Arc::new(self.schema.project(columns)?),
            None => Arc::clone(&self.schema),
        };
        let partition = SnapshotPartition {
            snapshot: snapshot.clone(),
            schema: Arc::clone(&schema),
            projection: projection.cloned(),
        };
        let exec =
            StreamingTableExec::try_new(schema, vec![Arc::new(partition)], None, vec![], false, limit)?;
        Ok(Arc::new(exec))
    }
}

struct SnapshotPartition {
    snapshot: RelationSnapshot,
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
        let batches = self.snapshot.batches(self.projection.clone());
        let batches = batches.map(|b| b.map_err(|e| DataFusionError::External(Box::new(e))));
        Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.schema), futures::stream::iter(batches)))
    }
}

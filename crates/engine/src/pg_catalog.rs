//! The system catalogs as PostgreSQL's clients know them: `pg_catalog` and `information_schema`.
//!
//! ```text
//!   Catalog --facts: oids, keys, types--> tables  (pg_class, pg_attribute, ... and information_schema)
//!                                     \-> functions (format_type, pg_get_viewdef, ...)
//! ```
//!
//! They are written anew for each query that names one, from the same catalog that the query is bound to. What clients
//! send is put into words that DataFusion plans by `sql::planner`'s `compatibility`.
//!
//! Rule: an oid is the relation's id plus [`FIRST_OID`]; it stays for as long as the relation.

mod facts;
mod functions;
mod information_schema;
mod rows;
mod tables;

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use datafusion::catalog::{SchemaProvider, TableProvider};
use datafusion::datasource::MemTable;
use datafusion::error::Result;
use datafusion::logical_expr::ScalarUDF;
use sql::Catalog;

use crate::definition::ViewProperties;
use facts::Facts;
use rows::SystemTable;

/// Numbers below are PostgreSQL's own: types, schemas, roles.
pub const FIRST_OID: i64 = 16_384;

/// The catalogs over one state of the database.
pub struct SystemCatalogs {
    catalog: Arc<Catalog>,
    views: Arc<ViewProperties>,
    facts: OnceLock<Arc<Facts>>,
}

impl SystemCatalogs {
    pub fn new(catalog: Arc<Catalog>, views: Arc<ViewProperties>) -> Arc<SystemCatalogs> {
        Arc::new(SystemCatalogs { catalog, views, facts: OnceLock::new() })
    }

    fn facts(&self) -> &Arc<Facts> {
        self.facts.get_or_init(|| Arc::new(Facts::of(&self.catalog, &self.views)))
    }

    /// Functions that know the catalog.
    pub fn functions(&self) -> Vec<Arc<ScalarUDF>> {
        functions::all(self.facts())
    }
}

/// A schema of system tables.
pub struct SystemSchema {
    catalogs: Arc<SystemCatalogs>,
    tables: fn(&Facts) -> BTreeMap<&'static str, SystemTable>,
}

impl SystemSchema {
    pub fn pg_catalog(catalogs: &Arc<SystemCatalogs>) -> SystemSchema {
        SystemSchema { catalogs: Arc::clone(catalogs), tables: tables::all }
    }

    pub fn information_schema(catalogs: &Arc<SystemCatalogs>) -> SystemSchema {
        SystemSchema { catalogs: Arc::clone(catalogs), tables: information_schema::all }
    }

    fn find(&self, name: &str) -> Option<SystemTable> {
        (self.tables)(self.catalogs.facts()).remove(name)
    }
}

impl std::fmt::Debug for SystemSchema {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SystemSchema")
    }
}

#[async_trait]
impl SchemaProvider for SystemSchema {
    fn table_names(&self) -> Vec<String> {
        (self.tables)(self.catalogs.facts()).into_keys().map(str::to_string).collect()
    }

    fn table_exist(&self, name: &str) -> bool {
        self.find(name).is_some()
    }

    async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>> {
        let Some(table) = self.find(name) else { return Ok(None) };
        let batch = table.into_batch()?;
        Ok(Some(Arc::new(MemTable::try_new(batch.schema(), vec![vec![batch]])?)))
    }
}

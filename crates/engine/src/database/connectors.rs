//! The database's side of its connectors: attaching them, and starting and stopping the threads that read.

use std::collections::BTreeMap;
use std::sync::Arc;

use dataflow::Connectors;
use sql::{SqlError, SqlState, TableDef};

use super::Database;
use crate::api::SourceStatus;

impl Database {
    /// Gives the database its connectors: tables that have one begin to be filled, and CREATE can name them.
    ///
    /// # Errors
    /// When a thread can't be started. A source that can't be opened shows that in its status.
    pub fn attach_connectors(&self, connectors: Arc<dyn Connectors>) -> Result<(), SqlError> {
        self.sources.lock().connectors = Some(connectors);
        let catalog = self.catalog();
        catalog.tables.values().filter(|t| t.connector.is_some()).try_for_each(|t| self.start_source(t))
    }

    pub(super) fn start_source(&self, table: &Arc<TableDef>) -> Result<(), SqlError> {
        let constraints = self.constraints(table)?;
        let stopped = || SqlError::new(SqlState::AdminShutdown, "the database is shutting down");
        let requests = self.requests.lock().clone().ok_or_else(stopped)?;
        self.sources.lock().start(constraints, requests, Arc::clone(&self.shared.facts))
    }

    pub(super) async fn stop_source(&self, table: &str) {
        let Some(running) = self.sources.lock().take(table) else { return };
        // It ends after what it is doing at the moment; that may be waiting for the network.
        let joined = tokio::task::spawn_blocking(move || running.join()).await;
        if joined.is_err() {
            tracing::error!(table, "a source's thread could not be waited for");
        }
    }

    pub(crate) fn source_statuses(&self) -> BTreeMap<String, SourceStatus> {
        self.sources.lock().statuses()
    }
}

//! What a statement may be; the allow-list of the whole product.

use datafusion::sql::sqlparser::ast;

use crate::catalog::{Column, IndexDef, TableDef, ViewDef};
use crate::functions_sql::FunctionDef;

/// One statement of a request.
#[derive(Clone, Debug)]
pub struct ParsedStatement {
    pub statement: Statement,
    /// Its text, without the semicolon.
    pub sql: String,
    /// Character offset of `sql` in the request, for error positions.
    pub offset: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ObjectKind {
    Table,
    View,
    MaterializedView,
    Index,
    Function,
    Source,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CopyFormat {
    /// PostgreSQL's text format: tab-separated, `\N`.
    Text,
    Csv,
}

/// What ALTER does.
#[derive(Clone, Debug, PartialEq)]
pub enum Alteration {
    AddColumn { column: Column, if_not_exists: bool },
    RenameColumn { from: String, to: String },
    RenameTo(String),
}

/// Definitions come with `id` 0 and, for views, with an empty schema and `depends_on`: those are
/// found out when the statement is executed.
#[derive(Clone, Debug)]
pub enum Statement {
    CreateTable {
        table: TableDef,
        if_not_exists: bool,
    },
    CreateView {
        view: ViewDef,
        if_not_exists: bool,
        or_replace: bool,
    },
    Alter {
        /// As it was written: ALTER TABLE may be of a view or an index, too.
        kind: ObjectKind,
        name: String,
        if_exists: bool,
        change: Alteration,
    },
    CreateIndex {
        index: IndexDef,
        if_not_exists: bool,
    },
    CreateFunction {
        function: FunctionDef,
        or_replace: bool,
    },
    /// `COMMENT ON kind name IS text`; on a column, the kind of its relation is not said.
    Comment {
        kind: Option<ObjectKind>,
        name: String,
        column: Option<String>,
        text: Option<String>,
    },
    Drop {
        kind: ObjectKind,
        names: Vec<String>,
        if_exists: bool,
        cascade: bool,
    },
    Insert {
        insert: Box<ast::Insert>,
    },
    Update {
        update: Box<ast::Update>,
    },
    Delete {
        delete: Box<ast::Delete>,
    },
    CopyFrom {
        table: String,
        columns: Vec<String>,
        format: CopyFormat,
        header: bool,
        delimiter: u8,
        null: String,
    },
    Query(Box<ast::Query>),
    Explain {
        analyze: bool,
        statement: Box<ParsedStatement>,
    },
    /// `SHOW words`: TABLES, VIEWS, MATERIALIZED VIEWS, INDEXES, WATERMARKS, JOBS, COLUMNS FROM t,
    /// CREATE TABLE t, or the name of a setting; words in lower case except names.
    Show(Vec<String>),
    Set {
        name: String,
        value: String,
    },
    Reset {
        name: String,
    },
    Flush,
    /// Saves the engine's state, so that a start reads only what came after.
    Checkpoint,
    /// `CANCEL JOB n`, of those that `SHOW JOBS` lists.
    CancelJob(u32),
    /// BEGIN, COMMIT, ROLLBACK, SAVEPOINT, RELEASE: accepted so that drivers work; each statement
    /// commits by itself. The tag is what PostgreSQL would answer.
    Transaction {
        tag: &'static str,
    },
    /// DISCARD ALL, DEALLOCATE, CLOSE: nothing to do here.
    Session {
        tag: &'static str,
    },
}

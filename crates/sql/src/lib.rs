//! SQL without state: dialect, catalog, binding and planning.
//!
//! In reading order: errors with position and SQLSTATE, what a statement may be ([`Statement`]),
//! the parser of the dialect, the catalog, the window table functions, row pattern matching, ASOF joins, and
//! the planner that binds a query with DataFusion.
//!
//! This crate does not know where rows are kept or how views are maintained.

pub mod aggregates;
pub mod asof_join;
pub mod catalog;
pub mod changelog;
pub mod duration;
pub mod error;
pub mod functions;
pub mod functions_sql;
pub mod lookup_join;
pub mod match_recognize;
pub mod parser;
pub mod planner;
pub mod session_tvf;
pub mod statement;
pub mod suggest;
pub mod types;
mod walk;
pub mod window_tvf;

pub use asof_join::AsofJoin;
pub use catalog::{
    Catalog, Column, IndexDef, OnConflict, RelationId, TableDef, TableOptions, ViewDef, WatermarkDef,
};
pub use error::{SqlError, SqlState};
pub use functions_sql::{FunctionDef, SqlFunctions};
pub use lookup_join::LookupJoin;
pub use match_recognize::MatchRecognize;
pub use parser::{parse, parse_expr, parse_query};
pub use planner::{
    PlannerConfig, bind_expr, bind_query, bind_statement, bind_table, checked_physical_expr, from_datafusion,
    optimize_for_streaming, session_context, session_state,
};
pub use session_tvf::SessionTvf;
pub use statement::{ParsedStatement, Statement};
pub use window_tvf::{WindowKind, WindowTvf};

pub type Result<T, E = SqlError> = std::result::Result<T, E>;

/// The name under which clients connect.
pub const DEFAULT_DATABASE: &str = "dev";
/// The schema that everything lives in.
pub const DEFAULT_SCHEMA: &str = "public";

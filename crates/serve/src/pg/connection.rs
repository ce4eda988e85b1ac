//! One client's conversation after its startup: simple and extended queries, one after another.
//!
//! ```text
//!               +-- Query --> each statement answered in order --+--> ReadyForQuery
//! read message -+-- Parse, Bind, Describe, Execute, Close -------+--> (no answer until Sync or Flush)
//!               +-- Sync ------------------------------------------> ReadyForQuery
//!        an error in the middle row: everything up to Sync is skipped
//! ```
//!
//! Transactions are a matter of this file alone: each statement commits by itself, but the status that
//! drivers rely on follows BEGIN, errors and COMMIT as PostgreSQL's does.

use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::{DataType, Field};
use datafusion::scalar::ScalarValue;
use engine::{Notice, Outcome, Session};
use pgwire::messages::data::{NoData, ParameterDescription};
use pgwire::messages::extendedquery::{BindComplete, CloseComplete, ParseComplete, PortalSuspended};
use pgwire::messages::response::{CommandComplete, EmptyQueryResponse, ReadyForQuery, TransactionStatus};
use sql::statement::Statement;
use sql::{ParsedStatement, SqlError};
use tokio::time::Instant;
use tracing::debug;

use super::copy;
use super::decode::{decode_parameter, parameter_type};
use super::encode::{Format, result_columns};
use super::errors::{PgError, Severity, code};
use super::frontend::{Bind, Frame, MESSAGE_BYTES_MAX, Message, Target};
use super::prepared::{Portal, Prepared, Progress, ResultRows, Store, row_description, rows_tag};
use super::startup::{REPORTED, Started, check_setting, put_parameter_status};
use super::wire::{Guard, Interrupt, Wire, server_stops, stopped};
use super::{Backend, Server};

/// Why a message was not carried out.
pub enum Failure {
    Error(PgError),
    Interrupt(Interrupt),
}

impl From<PgError> for Failure {
    fn from(error: PgError) -> Failure {
        Failure::Error(error)
    }
}

impl From<SqlError> for Failure {
    fn from(error: SqlError) -> Failure {
        Failure::Error(error.into())
    }
}

impl From<Interrupt> for Failure {
    fn from(interrupt: Interrupt) -> Failure {
        Failure::Interrupt(interrupt)
    }
}

pub(super) async fn run(wire: Wire, server: &Arc<Server>, started: Started) {
    let backend = Arc::clone(&started.backend);
    debug!(process = backend.process, "Postgres client connected");
    let mut connection = Connection {
        wire,
        server: Arc::clone(server),
        session: started.session,
        backend: started.backend,
        transaction: TransactionStatus::Idle,
        store: Store::default(),
        skips_to_sync: false,
    };
    connection.converse().await;
    server.backends.close(&backend);
    // Queries of open portals end before the last message, which may have to wait for the client.
    connection.store.close_all_portals();
    connection.wire.farewell().await;
    drop(started.place);
    debug!(process = backend.process, "Postgres client left");
}

/// Longest statement. Reading one takes ten times its length of memory, which a message of COPY does not.
const STATEMENT_BYTES_MAX: usize = 16 * 1024 * 1024;

struct Connection {
    wire: Wire,
    server: Arc<Server>,
    session: Session,
    backend: Arc<Backend>,
    transaction: TransactionStatus,
    store: Store,
    /// An extended message failed; those after it are ignored until Sync.
    skips_to_sync: bool,
}

/// What comes after a message.
#[derive(PartialEq)]
enum Next {
    Message,
    End,
}

impl Connection {
    async fn converse(&mut self) {
        let mut stop = self.server.stop.clone();
        loop {
            let frame = tokio::select! {
                biased;
                () = stopped(&mut stop) => Err(server_stops()),
                frame = self.wire.frame(MESSAGE_BYTES_MAX) => frame,
            };
            let next = match frame {
                Ok(Some(frame)) => self.handle_frame(frame).await,
                Ok(None) => Next::End,
                Err(error) => {
                    self.wire.put_error(error);
                    Next::End
                }
            };
            if next == Next::End {
                return;
            }
            // A client that pipelines without reading must not fill the buffer.
            if self.wire.output_is_full() {
                let guard = self.guard();
                if self.wire.flush_guarded(&guard).await == Err(Interrupt::Closed) {
                    return;
                }
            }
        }
    }

    async fn handle_frame(&mut self, frame: Frame) -> Next {
        if self.skips_to_sync && !matches!(frame.kind, b'S' | b'X') {
            return Next::Message;
        }
        let kind = frame.kind;
        if matches!(kind, b'Q' | b'P') && frame.body.len() > STATEMENT_BYTES_MAX {
            let message =
                format!("statement of {} bytes is longer than {STATEMENT_BYTES_MAX} bytes", frame.body.len());
            let error = PgError::error(code::PROGRAM_LIMIT_EXCEEDED, message);
            return self.fail(error.with_hint("use COPY, or several statements").into(), kind);
        }
        let done = match frame.read() {
            Ok(Message::Terminate) => return Next::End,
            Ok(message) => {
                self.backend.begin_statement();
                self.handle(message).await
            }
            Err(error) => Err(Failure::Error(error)),
        };
        match done {
            Ok(()) => {
                if kind == b'Q' {
                    self.ready();
                }
                Next::Message
            }
            Err(failure) => self.fail(failure, kind),
        }
    }

    /// Tells the client what went wrong and where to go on.
    fn fail(&mut self, failure: Failure, kind: u8) -> Next {
        let error = match failure {
            Failure::Error(error) => error,
            Failure::Interrupt(interrupt) => match interrupt.error() {
                Some(error) => error,
                None => return Next::End,
            },
        };
        let fatal = error.severity == Severity::Fatal;
        self.wire.put_error(error);
        if fatal {
            return Next::End;
        }
        self.transaction = self.transaction.to_error_state();
        match kind {
            b'Q' => self.ready(),
            b'P' | b'B' | b'D' | b'E' | b'C' | b'H' => self.skips_to_sync = true,
            _ => {}
        }
        Next::Message
    }

    fn ready(&mut self) {
        // Outside a transaction block each query is a transaction, and portals end with it.
        if self.transaction == TransactionStatus::Idle {
            self.store.close_all_portals();
        }
        self.wire.put(ReadyForQuery::new(self.transaction));
    }

    async fn handle(&mut self, message: Message) -> Result<(), Failure> {
        match message {
            Message::Query(sql) => self.query(&sql).await,
            Message::Parse { name, sql, parameter_oids } => self.parse(name, &sql, &parameter_oids).await,
            Message::Bind(bind) => self.bind(bind),
            Message::Describe(target) => self.describe(target),
            Message::Execute { portal, rows_max } => self.execute(&portal, rows_max).await,
            Message::Close(target) => {
                match target {
                    Target::Statement(name) => {
                        self.store.close_statement(&name);
                    }
                    Target::Portal(name) => self.store.close_portal(&name),
                }
                self.wire.put(CloseComplete::new());
                Ok(())
            }
            Message::Sync => {
                self.skips_to_sync = false;
                self.ready();
                Ok(())
            }
            Message::Flush => {
                let guard = self.guard();
                Ok(self.wire.flush_guarded(&guard).await?)
            }
            // Left over from a COPY that failed while the client was still sending.
            Message::CopyData(_) | Message::CopyDone | Message::CopyFail(_) => Ok(()),
            Message::Terminate => Ok(()),
            Message::Password(_) => {
                Err(PgError::fatal(code::PROTOCOL_VIOLATION, "unexpected password message").into())
            }
        }
    }

    /// What stops the statement that begins now.
    fn guard(&self) -> Guard {
        let milliseconds =
            self.session.setting("statement_timeout").and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
        // A timeout too long for the clock is none.
        let deadline = (milliseconds > 0)
            .then(|| Instant::now().checked_add(Duration::from_millis(milliseconds)))
            .flatten();
        Guard { backend: Arc::clone(&self.backend), stop: self.server.stop.clone(), deadline }
    }

    /// Simple protocol: statements one after another; an error ends all of them.
    async fn query(&mut self, sql: &str) -> Result<(), Failure> {
        self.store.close_portal("");
        self.store.close_statement("");
        let statements = self.session.parse(sql)?;
        if statements.is_empty() {
            self.wire.put(EmptyQueryResponse::new());
        }
        for statement in &statements {
            let guard = self.guard();
            let tag = match self.start(&guard, statement, Vec::new()).await? {
                Outcome::Rows { schema, stream, tag } => {
                    let mut rows = ResultRows::new(result_columns(&schema, &[])?, tag, stream);
                    self.wire.put(row_description(&rows.columns));
                    let (sent, _) = rows.send(&mut self.wire, &guard, usize::MAX).await?;
                    rows_tag(tag, sent)
                }
                Outcome::Command { tag, notices } => {
                    self.notify(notices);
                    tag
                }
                Outcome::CopyIn { copy } => {
                    copy::receive(&mut self.wire, &guard, &self.server.db, &copy).await?
                }
            };
            self.wire.put(CommandComplete::new(tag));
        }
        Ok(())
    }

    async fn parse(&mut self, name: String, sql: &str, parameter_oids: &[u32]) -> Result<(), Failure> {
        self.store.check_statement_name(&name)?;
        let mut statements = self.session.parse(sql)?;
        if statements.len() > 1 {
            let error = PgError::error(
                code::SYNTAX_ERROR,
                "cannot insert multiple commands into a prepared statement",
            );
            return Err(error.with_hint("send them one by one, or together without parameters").into());
        }
        let prepared = match statements.pop() {
            None => Prepared {
                statement: None,
                parameter_types: vec![],
                needed: vec![],
                columns: None,
                bytes: sql.len(),
            },
            Some(statement) => {
                self.check_transaction(&statement)?;
                let guard = self.guard();
                let announced: Vec<Option<DataType>> = parameter_oids
                    .iter()
                    .map(|oid| pgwire::api::Type::from_oid(*oid).as_ref().and_then(super::types::arrow_of))
                    .collect();
                let described =
                    self.wire.guarded(&guard, self.session.describe(&statement, &announced)).await??;
                let mut needed = described.parameters;
                let unused = Arc::new(Field::new("", DataType::Null, true));
                needed.resize(needed.len().max(parameter_oids.len()), unused);
                let given = |i: usize| parameter_oids.get(i).copied().unwrap_or(0);
                let parameter_types = needed
                    .iter()
                    .enumerate()
                    .map(|(i, needed)| parameter_type(given(i), needed))
                    .collect::<Result<Vec<_>, _>>()?;
                let needed = needed.iter().map(|field| field.data_type().clone()).collect();
                Prepared {
                    statement: Some(statement),
                    parameter_types,
                    needed,
                    columns: described.columns,
                    bytes: sql.len(),
                }
            }
        };
        self.store.add_statement(name, prepared)?;
        self.wire.put(ParseComplete::new());
        Ok(())
    }

    fn bind(&mut self, bind: Bind) -> Result<(), Failure> {
        let prepared = Arc::clone(self.store.statement(&bind.statement)?);
        let expected = prepared.parameter_types.len();
        let given = bind.parameters.len();
        if given != expected {
            return Err(violation(format!(
                "bind message supplies {given} parameters, but prepared statement \"{}\" requires {expected}",
                bind.statement
            )));
        }
        if bind.parameter_formats.len() > 1 && bind.parameter_formats.len() != given {
            return Err(violation(format!(
                "bind message has {} parameter formats but {given} parameters",
                bind.parameter_formats.len()
            )));
        }
        if let Some(statement) = &prepared.statement {
            self.check_transaction(statement)?;
        }
        if let Some(columns) = &prepared.columns {
            // Checked here, so that the error comes with the message that caused it.
            result_columns(columns, &bind.result_formats)?;
        }
        let format = |i: usize| {
            bind.parameter_formats.get(i).or(bind.parameter_formats.first()).copied().unwrap_or(Format::Text)
        };
        let parameters = bind
            .parameters
            .iter()
            .enumerate()
            .map(|(i, value)| {
                decode_parameter(
                    i + 1,
                    &prepared.parameter_types[i],
                    format(i),
                    value.as_deref(),
                    &prepared.needed[i],
                )
            })
            .collect::<Result<Vec<_>, _>>()?;
        let bytes = bind.parameters.iter().flatten().map(|value| value.len()).sum();
        let portal = Portal {
            prepared,
            parameters,
            result_formats: bind.result_formats,
            progress: Progress::New,
            bytes,
        };
        self.store.add_portal(bind.portal, portal)?;
        self.wire.put(BindComplete::new());
        Ok(())
    }

    fn describe(&mut self, target: Target) -> Result<(), Failure> {
        let (columns, formats) = match target {
            Target::Statement(name) => {
                let prepared = self.store.statement(&name)?;
                let types = prepared.parameter_types.iter().map(|oid_type| oid_type.oid()).collect();
                let columns = prepared.columns.clone();
                self.wire.put(ParameterDescription::new(types));
                (columns, Vec::new())
            }
            Target::Portal(name) => {
                let portal = self.store.portal(&name)?;
                (portal.prepared.columns.clone(), portal.result_formats.clone())
            }
        };
        match columns {
            Some(schema) => self.wire.put(row_description(&result_columns(&schema, &formats)?)),
            None => self.wire.put(NoData::new()),
        }
        Ok(())
    }

    async fn execute(&mut self, name: &str, rows_max: usize) -> Result<(), Failure> {
        let guard = self.guard();
        let portal = self.store.portal(name)?;
        let prepared = Arc::clone(&portal.prepared);
        let Some(statement) = &prepared.statement else {
            self.wire.put(EmptyQueryResponse::new());
            return Ok(());
        };
        // Taken out while it runs: after an error there is nothing to resume.
        match std::mem::replace(&mut portal.progress, Progress::Done) {
            Progress::New => {
                let parameters = std::mem::take(&mut portal.parameters);
                let formats = portal.result_formats.clone();
                match self.start(&guard, statement, parameters).await? {
                    Outcome::Rows { schema, stream, tag } => {
                        // The client knows the columns as they were described.
                        let announced = prepared.columns.as_ref().unwrap_or(&schema);
                        let rows = ResultRows::new(result_columns(announced, &formats)?, tag, stream);
                        self.send_rows(name, &guard, rows, rows_max).await
                    }
                    Outcome::Command { tag, notices } => {
                        self.notify(notices);
                        self.wire.put(CommandComplete::new(tag));
                        Ok(())
                    }
                    Outcome::CopyIn { copy } => {
                        let tag = copy::receive(&mut self.wire, &guard, &self.server.db, &copy).await?;
                        self.wire.put(CommandComplete::new(tag));
                        Ok(())
                    }
                }
            }
            Progress::Rows(rows) => {
                self.check_transaction(statement)?;
                self.send_rows(name, &guard, rows, rows_max).await
            }
            Progress::Exhausted(tag) => {
                portal.progress = Progress::Exhausted(tag);
                self.wire.put(CommandComplete::new(rows_tag(tag, 0)));
                Ok(())
            }
            Progress::Done => {
                Err(PgError::error(code::PORTAL_DONE, format!("portal \"{name}\" cannot be run")).into())
            }
        }
    }

    async fn send_rows(
        &mut self,
        name: &str,
        guard: &Guard,
        mut rows: ResultRows,
        rows_max: usize,
    ) -> Result<(), Failure> {
        let (sent, suspended) = rows.send(&mut self.wire, guard, rows_max).await?;
        let tag = rows.tag;
        let progress = if suspended { Progress::Rows(rows) } else { Progress::Exhausted(tag) };
        self.store.portal(name)?.progress = progress;
        if suspended {
            self.wire.put(PortalSuspended::new());
        } else {
            self.wire.put(CommandComplete::new(rows_tag(tag, sent)));
        }
        Ok(())
    }

    /// Runs a statement as far as its first row.
    async fn start(
        &mut self,
        guard: &Guard,
        statement: &ParsedStatement,
        parameters: Vec<ScalarValue>,
    ) -> Result<Outcome, Failure> {
        self.check_transaction(statement)?;
        match &statement.statement {
            Statement::Transaction { tag } => {
                let tag: &'static str = tag;
                let tag = self.transact(tag, &statement.sql).to_string();
                return Ok(Outcome::Command { tag, notices: vec![] });
            }
            Statement::Session { tag } => self.close_named(tag, &statement.sql)?,
            Statement::Set { name, value } => check_setting(name, value)?,
            _ => {}
        }
        let outcome = self.wire.guarded(guard, self.session.run(statement, parameters)).await??;
        if let Statement::Set { name, .. } | Statement::Reset { name } = &statement.statement {
            self.report_setting(name);
        }
        Ok(outcome)
    }

    fn check_transaction(&self, statement: &ParsedStatement) -> Result<(), Failure> {
        let ends = matches!(&statement.statement, Statement::Transaction { tag } if ["COMMIT", "ROLLBACK"].contains(tag));
        if self.transaction != TransactionStatus::Error || ends {
            return Ok(());
        }
        let message = "current transaction is aborted, commands ignored until end of transaction block";
        Err(PgError::error(code::FAILED_TRANSACTION, message).with_hint("send ROLLBACK").into())
    }

    /// Follows BEGIN, COMMIT and their kin; returns the tag.
    fn transact(&mut self, tag: &'static str, sql: &str) -> &'static str {
        let before = self.transaction;
        // ROLLBACK [WORK | TRANSACTION] TO ...
        let to_savepoint = sql.split_whitespace().skip(1).take(2).any(|word| word.eq_ignore_ascii_case("to"));
        let outside = before == TransactionStatus::Idle;
        match tag {
            "BEGIN" | "START TRANSACTION" => {
                if !outside {
                    self.warn(code::ACTIVE_TRANSACTION, "there is already a transaction in progress");
                }
                self.transaction = TransactionStatus::Transaction;
            }
            "COMMIT" | "ROLLBACK" if !to_savepoint => {
                if outside {
                    self.warn(code::NO_TRANSACTION, "there is no transaction in progress");
                }
                self.transaction = TransactionStatus::Idle;
                self.store.close_all_portals();
                if before == TransactionStatus::Error {
                    return "ROLLBACK";
                }
            }
            // The statements since the savepoint stay, but what follows runs again.
            "ROLLBACK" if !outside => self.transaction = TransactionStatus::Transaction,
            _ => {}
        }
        tag
    }

    fn notify(&mut self, notices: Vec<Notice>) {
        for notice in notices {
            self.wire.put_error(PgError::notice(notice));
        }
    }

    fn warn(&mut self, code: &'static str, message: &str) {
        self.wire.put_error(PgError::warning(code, message));
    }

    /// DEALLOCATE and DISCARD of what Parse prepared; the engine does the rest.
    fn close_named(&mut self, tag: &str, sql: &str) -> Result<(), PgError> {
        match tag {
            "DEALLOCATE ALL" => self.store.close_all_statements(),
            "DISCARD ALL" => {
                self.store.close_all_statements();
                self.store.close_all_portals();
            }
            "DEALLOCATE" => {
                let word = sql.split_whitespace().last().unwrap_or_default();
                // A quoted name is taken as it is, another one in lower case.
                let name = match word.strip_prefix('"').and_then(|word| word.strip_suffix('"')) {
                    Some(quoted) => quoted.replace("\"\"", "\""),
                    None => word.to_ascii_lowercase(),
                };
                if !self.store.close_statement(&name) {
                    let message = format!("prepared statement \"{name}\" does not exist");
                    return Err(PgError::error(code::UNKNOWN_STATEMENT, message));
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Drivers follow some settings, which they are told when they change.
    fn report_setting(&mut self, name: &str) {
        // What is printed does not depend on these: dates are always ISO, moments in UTC, text in UTF-8.
        if let Some((reported, _)) = REPORTED.iter().find(|(reported, _)| reported.eq_ignore_ascii_case(name))
            && *reported == "application_name"
            && let Some(value) = self.session.setting(reported)
        {
            put_parameter_status(&mut self.wire, reported, value);
        }
    }
}

fn violation(message: String) -> Failure {
    PgError::error(code::PROTOCOL_VIOLATION, message).into()
}

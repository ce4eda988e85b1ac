//! CREATE TABLE: columns, constraints, WATERMARK and the clauses behind the column list.
//!
//! Clauses come in any order. Names are resolved after everything is read, because a constraint may
//! stand before the column it speaks of.

use arrow::datatypes::DataType;
use datafusion::sql::sqlparser::ast;
use datafusion::sql::sqlparser::tokenizer::Token;

use super::StatementParser;
use super::create_view::WithOption;
use crate::catalog::{
    CheckDef, Column, ConnectorDef, OnConflict, RelationId, TableDef, TableOptions, WatermarkDef,
};
use crate::statement::Statement;
use crate::{Result, SqlError, SqlState, duration, suggest, types};

/// Words that end a column's DEFAULT or generation expression.
const COLUMN_CLAUSES: [&str; 10] = [
    "PRIMARY",
    "CHECK",
    "CONSTRAINT",
    "DEFAULT",
    "GENERATED",
    "UNIQUE",
    "REFERENCES",
    "COLLATE",
    "STORED",
    "VIRTUAL",
];

/// Options that any table may have.
const TABLE_OPTIONS: [&str; 4] = ["dedup_key", "dedup_window", "idle_timeout", "max_ahead"];

/// The statement as far as it is read. Names carry the number of their token, for error positions.
#[derive(Default)]
struct Draft {
    columns: Vec<(Column, usize)>,
    primary_key: Option<(Vec<String>, usize)>,
    watermark: Option<(String, i64, usize)>,
    checks: Vec<(Option<String>, String, Option<String>)>,
    append_only: bool,
    on_conflict: Option<(OnConflict, usize)>,
    options: Vec<WithOption>,
    /// `FORMAT x ENCODE y`, with the number of its first token.
    format: Option<((String, String), usize)>,
    /// CREATE SOURCE.
    source: bool,
}

impl StatementParser<'_> {
    /// Reads what follows `CREATE TABLE`.
    pub(super) fn create_table(&mut self) -> Result<Statement> {
        self.table_definition(Draft::default())
    }

    /// Reads what follows `CREATE SOURCE`: a table that only its connector writes to, row after row.
    pub(super) fn create_source(&mut self) -> Result<Statement> {
        self.table_definition(Draft { source: true, ..Draft::default() })
    }

    fn table_definition(&mut self, mut draft: Draft) -> Result<Statement> {
        let if_not_exists = self.if_not_exists();
        let name = self.relation()?;
        if self.peeks("AS") {
            return Err(self.refused("CREATE TABLE AS", 0).with_hint("use CREATE MATERIALIZED VIEW"));
        }
        self.expect_token(&Token::LParen)?;
        loop {
            self.table_element(&mut draft)?;
            if !self.accept_token(&Token::Comma) {
                break;
            }
        }
        self.expect_token(&Token::RParen)?;
        self.table_clauses(&mut draft)?;
        let table = self.finish_table(name, draft)?;
        Ok(Statement::CreateTable { table, if_not_exists })
    }

    fn table_element(&mut self, draft: &mut Draft) -> Result<()> {
        let start = self.index();
        if self.accept(&["WATERMARK", "FOR"]) {
            return self.watermark(draft, start);
        }
        let constraint = match self.accept(&["CONSTRAINT"]) {
            true => Some(self.name()?),
            false => None,
        };
        if self.accept(&["PRIMARY", "KEY"]) {
            let columns = self.name_list()?;
            self.accept(&["NOT", "ENFORCED"]);
            return self.set_primary_key(draft, columns, start);
        }
        if self.peeks("CHECK") && self.tokens.get(self.index() + 1).is_some_and(|t| t.token == Token::LParen)
        {
            let condition = self.check_condition()?;
            draft.checks.push((constraint, condition, None));
            return Ok(());
        }
        let foreign = [("FOREIGN", "KEY"), ("EXCLUDE", "USING")];
        if foreign.iter().any(|(first, second)| self.peeks(first) && self.peeks_nth(1, second)) {
            return Err(self.refused("a FOREIGN KEY or EXCLUDE constraint", start));
        }
        if self.peeks("UNIQUE") && self.tokens.get(self.index() + 1).is_some_and(|t| t.token == Token::LParen)
        {
            return Err(self.refused("a UNIQUE constraint", start).with_hint("declare a PRIMARY KEY"));
        }
        if self.peeks("LIKE") {
            return Err(self.refused("LIKE in CREATE TABLE", start));
        }
        if constraint.is_some() {
            return Err(self.unexpected());
        }
        self.column(draft)
    }

    /// The column of ADD COLUMN: one that rows which are there can have.
    pub(super) fn added_column(&mut self) -> Result<Column> {
        let start = self.index();
        let mut draft = Draft::default();
        self.column(&mut draft)?;
        if draft.primary_key.is_some() {
            return Err(self
                .refused("ADD COLUMN ... PRIMARY KEY", start)
                .with_hint("the key of a table is declared when it is created"));
        }
        if !draft.checks.is_empty() {
            return Err(self
                .refused("ADD COLUMN ... CHECK", start)
                .with_hint("constraints are declared when a table is created"));
        }
        match draft.columns.pop() {
            Some((column, _)) if column.generated.is_none() => Ok(column),
            _ => Err(self
                .refused("ADD COLUMN ... GENERATED", start)
                .with_hint("compute it in a view over the table")),
        }
    }

    fn column(&mut self, draft: &mut Draft) -> Result<()> {
        let start = self.index();
        let name = self.name()?;
        let mut column = Column {
            name: name.clone(),
            // A generated column without a declared type; `bind_table` finds it out.
            data_type: DataType::Null,
            sql_type: String::new(),
            not_null: false,
            default: None,
            generated: None,
        };
        let type_start = self.index();
        if !self.peeks("AS") {
            let parsed = self.parser.parse_data_type();
            let sql_type =
                types::from_ast(&self.lift(parsed)?).map_err(|e| e.at(self.position_of(type_start)))?;
            column.data_type = sql_type.data_type;
            column.sql_type = sql_type.name;
        }
        let mut constraint = None;
        loop {
            let clause = self.index();
            if self.accept(&["CONSTRAINT"]) {
                constraint = Some(self.name()?);
                continue;
            }
            if self.accept(&["NOT", "NULL"]) {
                column.not_null = true;
            } else if self.accept(&["NULL"]) {
                column.not_null = false;
            } else if self.accept(&["PRIMARY", "KEY"]) {
                self.accept(&["NOT", "ENFORCED"]);
                self.set_primary_key(draft, vec![name.clone()], clause)?;
            } else if self.peeks("CHECK") {
                let condition = self.check_condition()?;
                draft.checks.push((constraint.take(), condition, Some(name.clone())));
            } else if self.accept(&["DEFAULT"]) {
                let (_, text) = self.column_expr()?;
                self.set_once(&mut column.default, text, clause)?;
            } else if self.accept(&["GENERATED", "ALWAYS", "AS"]) {
                if self.peeks("IDENTITY") {
                    return Err(self
                        .refused("an IDENTITY column", clause)
                        .with_hint("send the key with the row"));
                }
                let (_, text) = self.column_expr()?;
                self.set_once(&mut column.generated, text, clause)?;
                self.accept(&["STORED"]);
            } else if self.accept(&["AS"]) {
                let (_, text) = self.column_expr()?;
                self.set_once(&mut column.generated, text, clause)?;
                self.accept(&["STORED"]);
            } else if self.peeks("GENERATED") && self.peeks_nth(1, "BY") {
                return Err(self
                    .refused("an IDENTITY column", clause)
                    .with_hint("send the key with the row"));
            } else if self.peeks("UNIQUE") {
                return Err(self.refused("a UNIQUE constraint", clause).with_hint("declare a PRIMARY KEY"));
            } else if self.peeks("REFERENCES") {
                return Err(self.refused("a FOREIGN KEY constraint", clause));
            } else if self.peeks("COLLATE") {
                return Err(self.refused("COLLATE", clause));
            } else {
                break;
            }
            constraint = None;
        }
        let position = self.position_of(start);
        if column.generated.is_some() && column.default.is_some() {
            let message = format!("column \"{name}\" has both a DEFAULT and a generation expression");
            return Err(SqlError::new(SqlState::InvalidDefinition, message).at(position));
        }
        if draft.columns.iter().any(|(other, _)| other.name == name) {
            let message = format!("column \"{name}\" specified more than once");
            return Err(SqlError::new(SqlState::DuplicateColumn, message).at(position));
        }
        draft.columns.push((column, start));
        Ok(())
    }

    /// An expression up to the column's next clause; outer parentheses are dropped from the text.
    fn column_expr(&mut self) -> Result<(ast::Expr, String)> {
        let (expr, text) = self.bounded_expr(|parser, at| {
            let negated = parser.word_at(at, "NOT") && parser.word_at(at + 1, "NULL");
            let after_is = parser.word_at(at - 1, "IS");
            (negated && !after_is) || COLUMN_CLAUSES.iter().any(|word| parser.word_at(at, word))
        })?;
        let text = match &expr {
            ast::Expr::Nested(_) => text[1..text.len() - 1].trim().to_string(),
            _ => text,
        };
        Ok((expr, text))
    }

    fn check_condition(&mut self) -> Result<String> {
        self.expect(&["CHECK"])?;
        self.expect_token(&Token::LParen)?;
        let (_, text) = self.bounded_expr(|_, _| false)?;
        self.expect_token(&Token::RParen)?;
        Ok(text)
    }

    /// `ts AS ts - INTERVAL '5 seconds'`, after `WATERMARK FOR`.
    fn watermark(&mut self, draft: &mut Draft, start: usize) -> Result<()> {
        let column_index = self.index();
        let column = self.name()?;
        self.expect(&["AS"])?;
        let expr_start = self.index();
        let (expr, _) = self.bounded_expr(|parser, at| parser.word_at(at, "WITH"))?;
        if self.peeks("WITH") {
            return Err(self.refused("WATERMARK ... WITH TTL", self.index()));
        }
        let at = self.position_of(expr_start);
        let malformed = || {
            SqlError::new(
                SqlState::InvalidDefinition,
                format!("watermark of column \"{column}\" must be the column less a constant interval"),
            )
            .with_hint(format!("WATERMARK FOR {column} AS {column} - INTERVAL '5 seconds'"))
            .at(at)
        };
        let is_column =
            |expr: &ast::Expr| matches!(expr, ast::Expr::Identifier(ident) if identifier(ident) == column);
        let delay_us = match &expr {
            _ if is_column(&expr) => 0,
            ast::Expr::BinaryOp { left, op: ast::BinaryOperator::Minus, right } if is_column(left) => {
                duration::constant_us(right).map_err(|error| error.at(at))?.ok_or_else(malformed)?
            }
            _ => return Err(malformed()),
        };
        if delay_us < 0 {
            return Err(SqlError::new(
                SqlState::InvalidDefinition,
                "the delay of a watermark must not be negative",
            )
            .at(at));
        }
        if draft.watermark.is_some() {
            return Err(SqlError::new(SqlState::InvalidDefinition, "a table has one WATERMARK")
                .at(self.position_of(start)));
        }
        draft.watermark = Some((column, delay_us, column_index));
        Ok(())
    }

    fn set_primary_key(&self, draft: &mut Draft, columns: Vec<String>, index: usize) -> Result<()> {
        match draft.primary_key.replace((columns, index)) {
            None => Ok(()),
            Some(_) => Err(SqlError::new(SqlState::InvalidDefinition, "a table has one PRIMARY KEY")
                .with_hint("PRIMARY KEY (a, b) after the columns makes a key of several columns")
                .at(self.position_of(index))),
        }
    }

    fn set_once(&self, slot: &mut Option<String>, text: String, index: usize) -> Result<()> {
        match slot.replace(text) {
            None => Ok(()),
            Some(_) => Err(super::errors::near(&self.tokens, index, &self.positions)),
        }
    }

    /// APPEND ONLY, ON CONFLICT and WITH, in any order.
    fn table_clauses(&mut self, draft: &mut Draft) -> Result<()> {
        loop {
            let start = self.index();
            if self.accept(&["APPEND", "ONLY"]) {
                draft.append_only = true;
            } else if self.accept(&["ON", "CONFLICT"]) {
                let action = if self.accept(&["OVERWRITE"]) || self.accept(&["DO", "UPDATE", "FULL"]) {
                    OnConflict::Overwrite
                } else if self.accept(&["DO", "NOTHING"]) {
                    OnConflict::DoNothing
                } else if self.accept(&["DO", "UPDATE", "IF", "NOT", "NULL"]) {
                    OnConflict::DoUpdateIfNotNull
                } else {
                    return Err(self
                        .unexpected()
                        .with_detail("expected OVERWRITE, DO NOTHING or DO UPDATE IF NOT NULL"));
                };
                if self.peeks("WITH") && self.peeks_nth(1, "VERSION") {
                    return Err(self.refused("WITH VERSION COLUMN", self.index()));
                }
                if draft.on_conflict.replace((action, start)).is_some() {
                    return Err(super::errors::near(&self.tokens, start, &self.positions));
                }
            } else if self.peeks("WITH") && draft.options.is_empty() {
                draft.options = self.with_options()?;
            } else if self.accept(&["FORMAT"]) {
                let format = self.name()?.to_ascii_uppercase();
                self.expect(&["ENCODE"])?;
                let encode = self.name()?.to_ascii_uppercase();
                if self.peek_token(&Token::LParen) {
                    return Err(self.refused("a list of options after ENCODE", self.index()));
                }
                if draft.format.replace(((format, encode), start)).is_some() {
                    return Err(super::errors::near(&self.tokens, start, &self.positions));
                }
            } else {
                for clause in
                    ["INCLUDE", "ENCODE", "PARTITION", "PARTITIONED", "INHERITS", "USING", "AS", "TABLESPACE"]
                {
                    if self.peeks(clause) {
                        return Err(self.refused(&format!("{clause} in CREATE TABLE"), start));
                    }
                }
                return Ok(());
            }
        }
    }

    fn finish_table(&self, name: String, draft: Draft) -> Result<TableDef> {
        let known: Vec<String> = draft.columns.iter().map(|(column, _)| column.name.clone()).collect();
        let find = |column: &str, index: usize| {
            known
                .iter()
                .position(|other| other == column)
                .ok_or_else(|| undefined_column(&name, column, &known).at(self.position_of(index)))
        };
        let mut columns: Vec<Column> = Vec::new();
        for (column, index) in draft.columns {
            if column.generated.is_none() && column.data_type == DataType::Null {
                return Err(SqlError::new(
                    SqlState::InvalidDefinition,
                    format!("column \"{}\" of table \"{name}\" has no type", column.name),
                )
                .at(self.position_of(index)));
            }
            columns.push(column);
        }
        if columns.iter().all(|column| column.generated.is_some()) {
            let message = format!("table \"{name}\" has no column that a row could be sent for");
            return Err(SqlError::new(SqlState::InvalidDefinition, message).at(1));
        }

        let mut primary_key = Vec::new();
        let key_index = draft.primary_key.as_ref().map_or(0, |(_, index)| *index);
        for column in draft.primary_key.map(|(names, _)| names).unwrap_or_default() {
            let number = find(&column, key_index)?;
            if primary_key.contains(&number) {
                let message = format!("column \"{column}\" appears twice in the primary key");
                return Err(SqlError::new(SqlState::DuplicateColumn, message).at(self.position_of(key_index)));
            }
            columns[number].not_null = true;
            primary_key.push(number);
        }

        let watermark = match draft.watermark {
            None => None,
            Some((column, delay_us, index)) => {
                let number = find(&column, index)?;
                if !matches!(columns[number].data_type, DataType::Timestamp(_, _) | DataType::Null) {
                    return Err(SqlError::new(
                        SqlState::DatatypeMismatch,
                        format!("watermark column \"{column}\" has type {}", columns[number].sql_type),
                    )
                    .with_hint("a watermark needs a TIMESTAMP or TIMESTAMPTZ column")
                    .at(self.position_of(index)));
                }
                Some(WatermarkDef { column: number, delay_us })
            }
        };

        // Rows of a source are events: nothing takes them back.
        let append_only = draft.append_only || draft.source;
        let on_conflict = self.on_conflict(&name, draft.on_conflict, append_only, !primary_key.is_empty())?;
        let (connector, options) = self.connector(&name, draft.options, draft.format, draft.source)?;
        let options = self.table_options(&name, options, &known)?;
        Ok(TableDef {
            id: RelationId(0),
            checks: named_checks(&name, draft.checks)?,
            name,
            columns,
            primary_key,
            append_only,
            on_conflict,
            watermark,
            options,
            connector,
            added: Vec::new(),
            sql: self.sql.to_string(),
        })
    }

    fn on_conflict(
        &self,
        table: &str,
        written: Option<(OnConflict, usize)>,
        append_only: bool,
        keyed: bool,
    ) -> Result<OnConflict> {
        let invalid = |message: String, index: usize| {
            Err(SqlError::new(SqlState::InvalidDefinition, message).at(self.position_of(index)))
        };
        match written {
            Some((_, index)) if !keyed => {
                invalid(format!("ON CONFLICT of table \"{table}\" needs a PRIMARY KEY"), index)
            }
            Some((OnConflict::Overwrite | OnConflict::DoUpdateIfNotNull, index)) if append_only => {
                invalid(format!("APPEND ONLY table \"{table}\" can't update rows ON CONFLICT"), index)
            }
            Some((action, _)) => Ok(action),
            // The only answer that never changes a row.
            None if append_only && keyed => Ok(OnConflict::DoNothing),
            None => Ok(OnConflict::Overwrite),
        }
    }

    /// Takes the connector and its options out of the WITH list; with a connector, whatever is not the table's is its.
    fn connector(
        &self,
        table: &str,
        written: Vec<WithOption>,
        format: Option<((String, String), usize)>,
        source: bool,
    ) -> Result<(Option<ConnectorDef>, Vec<WithOption>)> {
        let (named, rest): (Vec<_>, Vec<_>) = written.into_iter().partition(|o| o.name == "connector");
        let Some(connector) = named.first() else {
            if source {
                let message = format!("source \"{table}\" has no connector");
                return Err(SqlError::new(SqlState::InvalidDefinition, message)
                    .with_hint("say where its rows come from: WITH (connector = 'nexmark', ...), or use CREATE TABLE")
                    .at(1));
            }
            return match format {
                None => Ok((None, rest)),
                Some((_, index)) => Err(SqlError::new(
                    SqlState::InvalidDefinition,
                    format!("FORMAT of table \"{table}\" has no meaning without a connector"),
                )
                .with_hint("name one: WITH (connector = '...')")
                .at(self.position_of(index))),
            };
        };
        let (own, options): (Vec<_>, Vec<_>) =
            rest.into_iter().partition(|o| TABLE_OPTIONS.contains(&o.name.as_str()));
        let connector = ConnectorDef {
            name: connector.value.to_ascii_lowercase(),
            options: options.into_iter().map(|o| (o.name, o.value)).collect(),
            format: format.map(|(format, _)| format),
            source,
        };
        Ok((Some(connector), own))
    }

    fn table_options(
        &self,
        table: &str,
        written: Vec<WithOption>,
        columns: &[String],
    ) -> Result<TableOptions> {
        let mut options = TableOptions::default();
        for option in &written {
            match option.name.as_str() {
                "dedup_key" => {
                    let number =
                        columns.iter().position(|column| *column == option.value).ok_or_else(|| {
                            undefined_column(table, &option.value, columns)
                                .at(self.position_of(option.value_index))
                        })?;
                    options.dedup_key = Some(number);
                }
                "dedup_window" => options.dedup_window_us = self.option_duration(option)?,
                "idle_timeout" if option.value.eq_ignore_ascii_case("off") => options.idle_timeout_us = None,
                "idle_timeout" => options.idle_timeout_us = Some(self.option_duration(option)?),
                "max_ahead" => options.max_ahead_us = self.option_duration(option)?,
                _ => return Err(self.unknown_option(option, "table", table, &TABLE_OPTIONS)),
            }
        }
        match written.iter().find(|option| option.name == "dedup_window") {
            Some(window) if options.dedup_key.is_none() => {
                Err(self.bad_option(window, "dedup_window has no meaning without dedup_key".to_string()))
            }
            _ => Ok(options),
        }
    }
}

/// Gives unnamed checks the names that PostgreSQL would give them.
fn named_checks(
    table: &str,
    written: Vec<(Option<String>, String, Option<String>)>,
) -> Result<Vec<CheckDef>> {
    let mut checks: Vec<CheckDef> = Vec::new();
    let given: Vec<String> = written.iter().filter_map(|(name, _, _)| name.clone()).collect();
    for (name, condition, column) in written {
        let taken = |name: &str, checks: &[CheckDef]| checks.iter().any(|check| check.name == name);
        let name = match name {
            Some(name) if taken(&name, &checks) => {
                let message = format!("constraint \"{name}\" of table \"{table}\" already exists");
                return Err(SqlError::new(SqlState::DuplicateObject, message).at(1));
            }
            Some(name) => name,
            None => {
                let base = match &column {
                    Some(column) => format!("{table}_{column}_check"),
                    None => format!("{table}_check"),
                };
                (0..)
                    .map(|n| if n == 0 { base.clone() } else { format!("{base}{n}") })
                    .find(|name| !taken(name, &checks) && !given.contains(name))
                    .unwrap_or(base)
            }
        };
        checks.push(CheckDef { name, condition });
    }
    Ok(checks)
}

fn undefined_column(table: &str, column: &str, known: &[String]) -> SqlError {
    let message = format!("column \"{column}\" of table \"{table}\" does not exist");
    let error = SqlError::new(SqlState::UndefinedColumn, message);
    match suggest::closest(column, known.iter().map(String::as_str)) {
        Some(near) => error.with_hint(suggest::did_you_mean(near)),
        None => error,
    }
}

fn identifier(ident: &ast::Ident) -> String {
    match ident.quote_style {
        Some(_) => ident.value.clone(),
        None => ident.value.to_ascii_lowercase(),
    }
}

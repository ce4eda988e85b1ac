//! CREATE dispatch, CREATE VIEW, CREATE INDEX, and the `WITH (...)` lists of tables and views.

use std::sync::Arc;

use arrow::datatypes::Schema;
use datafusion::sql::sqlparser::tokenizer::Token;

use super::StatementParser;
use crate::catalog::{IndexDef, Lateness, RelationId, ViewDef};
use crate::statement::Statement;
use crate::{Result, SqlError, SqlState, duration, suggest};

/// One `key = value` of a WITH list.
pub(super) struct WithOption {
    pub(super) name: String,
    pub(super) value: String,
    /// Number of the key's token.
    pub(super) index: usize,
    /// Number of the value's token.
    pub(super) value_index: usize,
}

impl StatementParser<'_> {
    pub(super) fn create(&mut self) -> Result<Statement> {
        self.expect(&["CREATE"])?;
        let or_replace = self.accept(&["OR", "REPLACE"]);
        let statement = if self.accept(&["MATERIALIZED", "VIEW"]) {
            self.create_view(true, or_replace)
        } else if self.accept(&["VIEW"]) {
            self.create_view(false, or_replace)
        } else if self.peeks("TABLE") && !or_replace {
            self.advance(1);
            self.create_table()
        } else if self.peeks("TABLE") {
            Err(self.refused("CREATE OR REPLACE TABLE", 0))
        } else if self.accept(&["FUNCTION"]) {
            self.create_function(or_replace)
        } else if self.peeks("SOURCE") && !or_replace {
            self.advance(1);
            self.create_source()
        } else if self.peeks("SOURCE") {
            Err(self.refused("CREATE OR REPLACE SOURCE", 0))
        } else if self.accept(&["INDEX"]) {
            self.create_index()
        } else if self.peeks("UNIQUE") && self.peeks_nth(1, "INDEX") {
            Err(self.refused("CREATE UNIQUE INDEX", 0).with_hint("uniqueness is declared with PRIMARY KEY"))
        } else {
            Err(self.refuse_object("CREATE"))
        }?;
        match (&statement, self.emit_on_window_close) {
            (Statement::CreateView { .. }, _) | (_, false) => Ok(statement),
            _ => Err(SqlError::new(SqlState::SyntaxError, "EMIT ON WINDOW CLOSE belongs to a view")
                .at(self.position_of(self.tokens.len()))),
        }
    }

    fn create_view(&mut self, materialized: bool, or_replace: bool) -> Result<Statement> {
        let if_not_exists = self.if_not_exists();
        let name = self.relation()?;
        if self.peek_token(&Token::LParen) {
            return Err(self
                .refused("a list of column names after the view's name", self.index())
                .with_hint("name the columns in the SELECT: SELECT a AS b"));
        }
        let options = self.with_options()?;
        let lateness = self.lateness(&name, options)?;
        self.expect(&["AS"])?;
        let start = self.index();
        self.query_statement()?;
        // What follows the query is an error of its own; take the text only up to there.
        let query = self.text(start, self.index()).to_string();
        Ok(Statement::CreateView {
            view: ViewDef {
                id: RelationId(0),
                name,
                materialized,
                query,
                emit_on_window_close: self.emit_on_window_close,
                lateness,
                schema: Arc::new(Schema::empty()),
                depends_on: Vec::new(),
                calls: Vec::new(),
                sql: self.sql.to_string(),
            },
            if_not_exists,
            or_replace,
        })
    }

    fn lateness(&self, view: &str, options: Vec<WithOption>) -> Result<Lateness> {
        const KNOWN: [&str; 2] = ["late", "allowed_lateness"];
        let mut amend = None;
        let mut allowed_us = None;
        for option in &options {
            match option.name.as_str() {
                "late" => {
                    amend = Some(match option.value.to_lowercase().as_str() {
                        "side" => false,
                        "amend" => true,
                        other => {
                            return Err(self
                                .bad_option(option, format!("late must be 'side' or 'amend', not '{other}'"))
                                .with_hint(
                                    "'amend' keeps closed windows for allowed_lateness and corrects them",
                                ));
                        }
                    });
                }
                "allowed_lateness" => allowed_us = Some(self.option_duration(option)?),
                _ => return Err(self.unknown_option(option, "view", view, &KNOWN)),
            }
        }
        let at_end =
            |error: SqlError| error.at(options.first().map_or(1, |option| self.position_of(option.index)));
        match (amend, allowed_us) {
            (Some(true), Some(allowed_us)) | (None, Some(allowed_us)) => Ok(Lateness { allowed_us }),
            (Some(true), None) => Err(at_end(
                SqlError::new(SqlState::InvalidParameterValue, "late = 'amend' needs allowed_lateness")
                    .with_hint("for example WITH (late = 'amend', allowed_lateness = '10 minutes')"),
            )),
            (Some(false), Some(allowed_us)) if allowed_us > 0 => Err(at_end(
                SqlError::new(
                    SqlState::InvalidParameterValue,
                    "allowed_lateness has no meaning with late = 'side'",
                )
                .with_hint("use late = 'amend'"),
            )),
            _ => Ok(Lateness::default()),
        }
    }

    fn create_index(&mut self) -> Result<Statement> {
        if self.peeks("CONCURRENTLY") {
            return Err(self
                .refused("CREATE INDEX CONCURRENTLY", 0)
                .with_hint("leave CONCURRENTLY out: creating an index never blocks"));
        }
        let if_not_exists = self.if_not_exists();
        let given = match self.peeks("ON") {
            true => None,
            false => Some(self.relation()?),
        };
        self.expect(&["ON"])?;
        let relation = self.relation()?;
        if self.accept(&["USING"]) && !self.accept(&["BTREE"]) {
            return Err(self.refused("this kind of index", self.index()));
        }
        self.expect_token(&Token::LParen)?;
        let mut columns = Vec::new();
        loop {
            let start = self.index();
            columns.push(self.name()?);
            if self.peek_token(&Token::LParen) {
                return Err(self.refused("an index on an expression", start));
            }
            self.accept(&["ASC"]);
            if self.peeks("DESC") {
                return Err(self.refused("DESC in an index", self.index()));
            }
            if !self.accept_token(&Token::Comma) {
                break;
            }
        }
        self.expect_token(&Token::RParen)?;
        for clause in ["INCLUDE", "WHERE", "WITH", "DISTRIBUTED"] {
            if self.peeks(clause) {
                return Err(self.refused(&format!("{clause} in CREATE INDEX"), self.index()));
            }
        }
        let name = given.unwrap_or_else(|| format!("{relation}_{}_idx", columns.join("_")));
        Ok(Statement::CreateIndex {
            index: IndexDef { id: RelationId(0), name, relation, columns, sql: self.sql.to_string() },
            if_not_exists,
        })
    }

    // WITH lists.

    /// `WITH (a = 'x', b.c = 1)`, or nothing.
    pub(super) fn with_options(&mut self) -> Result<Vec<WithOption>> {
        let mut options = Vec::<WithOption>::new();
        if !(self.peeks("WITH")) {
            return Ok(options);
        }
        self.advance(1);
        self.expect_token(&Token::LParen)?;
        loop {
            let index = self.index();
            let mut name = self.name()?;
            while self.accept_token(&Token::Period) {
                name.push('.');
                name.push_str(&self.name()?);
            }
            self.expect_token(&Token::Eq)?;
            let value_index = self.index();
            let value = match self.tokens.get(value_index).map(|token| &token.token) {
                Some(Token::SingleQuotedString(text) | Token::EscapedStringLiteral(text)) => text.clone(),
                Some(Token::Number(digits, _)) => digits.clone(),
                Some(Token::Word(word)) => word.value.clone(),
                _ => return Err(self.unexpected()),
            };
            self.advance(1);
            let option = WithOption { name, value, index, value_index };
            if options.iter().any(|other| other.name == option.name) {
                return Err(self.bad_option(&option, format!("option \"{}\" is given twice", option.name)));
            }
            options.push(option);
            if !self.accept_token(&Token::Comma) {
                break;
            }
        }
        self.expect_token(&Token::RParen)?;
        Ok(options)
    }

    pub(super) fn bad_option(&self, option: &WithOption, message: String) -> SqlError {
        SqlError::new(SqlState::InvalidParameterValue, message).at(self.position_of(option.index))
    }

    pub(super) fn unknown_option(
        &self,
        option: &WithOption,
        kind: &str,
        owner: &str,
        known: &[&str],
    ) -> SqlError {
        let error =
            self.bad_option(option, format!("unknown option \"{}\" of {kind} \"{owner}\"", option.name));
        match suggest::closest(&option.name, known.iter().copied()) {
            Some(near) => error.with_hint(suggest::did_you_mean(near)),
            None => error.with_hint(format!("options of a {kind} are: {}", known.join(", "))),
        }
    }

    /// A length of time that is not negative.
    pub(super) fn option_duration(&self, option: &WithOption) -> Result<i64> {
        let position = self.position_of(option.value_index);
        let us = duration::parse_us(&option.value).map_err(|error| SqlError {
            state: SqlState::InvalidParameterValue,
            message: format!("option \"{}\": {}", option.name, error.message),
            ..error.at(position)
        })?;
        match us >= 0 {
            true => Ok(us),
            false => Err(self.bad_option(option, format!("option \"{}\" must not be negative", option.name))),
        }
    }
}

//! The parser of the dialect: PostgreSQL with RisingWave's streaming clauses and Flink's window
//! functions.
//!
//! ```text
//! request --tokens--> statements --first words--> own parsers (DDL, COPY, SET, SHOW, ...)
//!                                             \-> sqlparser (queries, INSERT, UPDATE, DELETE)
//! ```
//!
//! sqlparser cuts the tokens and reads queries, expressions and types; the statements around them
//! are read here, so that the list of what is allowed is ours. What is not on it is refused by name.
//!
//! Invariant: every error of a statement carries a position within the request.

mod alter;
pub(crate) mod asof_join;
mod commands;
mod copy;
mod create_table;
mod create_view;
mod errors;
mod functions;
pub(crate) mod match_recognize;
pub mod rename;
mod settings;
#[cfg(test)]
mod tests;
pub(crate) mod tokens;

pub(crate) use self::errors::lower_first;

use datafusion::sql::sqlparser::ast;
use datafusion::sql::sqlparser::dialect::PostgreSqlDialect;
use datafusion::sql::sqlparser::parser::{Parser, ParserError};
use datafusion::sql::sqlparser::tokenizer::{Location, Span, Token, TokenWithSpan};

use self::tokens::{Positions, StatementTokens, is_word};
use crate::statement::{ParsedStatement, Statement};
use crate::{Result, SqlError, SqlState};

/// Reads a request of any number of statements.
///
/// # Errors
///
/// The first error of the request, with its position counted in characters from 1.
pub fn parse(sql: &str) -> Result<Vec<ParsedStatement>> {
    tokens::split(sql)?.into_iter().map(parse_one).collect()
}

/// Reads the text of a single query, as kept in [`crate::ViewDef::query`].
pub fn parse_query(sql: &str) -> Result<Box<ast::Query>> {
    let mut statements = parse(sql)?;
    match (statements.pop(), statements.is_empty()) {
        (Some(ParsedStatement { statement: Statement::Query(query), .. }), true) => Ok(query),
        _ => Err(SqlError::new(SqlState::SyntaxError, "a single SELECT is expected")),
    }
}

/// Reads the text of a single expression, as kept for DEFAULT, CHECK and generated columns.
pub fn parse_expr(sql: &str) -> Result<ast::Expr> {
    let mut statements = tokens::split(sql)?;
    let (Some(tokens), true) = (statements.pop(), statements.is_empty()) else {
        return Err(SqlError::new(SqlState::SyntaxError, "a single expression is expected"));
    };
    let offset = tokens.offset;
    let mut parser = StatementParser::new(tokens)?;
    parser.expr().and_then(|expr| parser.end().map(|()| expr)).map_err(|error| error.shifted(offset))
}

fn parse_one(tokens: StatementTokens<'_>) -> Result<ParsedStatement> {
    let (sql, offset) = (tokens.sql.to_string(), tokens.offset);
    let statement = StatementParser::new(tokens)
        .and_then(|mut parser| {
            let statement = parser.statement()?;
            parser.end()?;
            Ok(statement)
        })
        .map_err(|error| error.shifted(offset))?;
    Ok(ParsedStatement { statement, sql, offset })
}

/// Reads one statement. Words are compared by their text, not by sqlparser's keyword table, which
/// does not know all of ours.
pub(crate) struct StatementParser<'a> {
    parser: Parser<'static>,
    /// The same tokens as the parser's.
    tokens: Vec<TokenWithSpan>,
    sql: &'a str,
    offset: usize,
    positions: Positions<'a>,
    emit_on_window_close: bool,
}

impl<'a> StatementParser<'a> {
    fn new(statement: StatementTokens<'a>) -> Result<StatementParser<'a>> {
        static DIALECT: PostgreSqlDialect = PostgreSqlDialect {};
        let positions = Positions::new(statement.sql);
        let mut tokens = statement.tokens;
        let emit_on_window_close = tokens::strip_emit_on_window_close(&mut tokens);
        let tokens = tokens::rewrite_query(tokens, &positions)?;
        let tokens = match_recognize::rewrite(tokens, &positions)?;
        Ok(StatementParser {
            parser: Parser::new(&DIALECT).with_tokens_with_locations(tokens.clone()),
            tokens,
            sql: statement.sql,
            offset: statement.offset,
            positions,
            emit_on_window_close,
        })
    }

    fn statement(&mut self) -> Result<Statement> {
        let first = self.parser.peek_token();
        let word = match &first.token {
            Token::LParen => return self.query_statement(),
            Token::Word(word) if word.quote_style.is_none() => word.value.to_ascii_uppercase(),
            _ => return Err(self.unexpected()),
        };
        match word.as_str() {
            "SELECT" | "WITH" | "VALUES" | "TABLE" => self.query_statement(),
            "INSERT" | "UPDATE" | "DELETE" => self.data_change(&word),
            "CREATE" => self.create(),
            "DROP" => self.drop(),
            "ALTER" => self.alter(),
            "COMMENT" => self.comment(),
            "SHOW" => self.show(),
            "SET" => self.set(),
            "RESET" => self.reset(),
            "FLUSH" => {
                self.parser.next_token();
                Ok(Statement::Flush)
            }
            "CHECKPOINT" => {
                self.parser.next_token();
                Ok(Statement::Checkpoint)
            }
            "CANCEL" => {
                if !self.accept(&["CANCEL", "JOB"]) && !self.accept(&["CANCEL", "JOBS"]) {
                    return Err(self.unexpected());
                }
                let number = self.parser.parse_literal_uint();
                let number = self.lift(number)?;
                Ok(Statement::CancelJob(u32::try_from(number).unwrap_or(u32::MAX)))
            }
            "COPY" => self.copy(),
            "EXPLAIN" => self.explain(),
            "BEGIN" | "START" | "COMMIT" | "END" | "ROLLBACK" | "ABORT" | "SAVEPOINT" | "RELEASE" => {
                self.transaction(&word)
            }
            "DISCARD" | "DEALLOCATE" | "CLOSE" => self.session(&word),
            _ if commands::REFUSED.contains(&word.as_str()) => Err(self.refuse_statement(&word)),
            _ => Err(self.unexpected()),
        }
    }

    fn query_statement(&mut self) -> Result<Statement> {
        let start = self.index();
        let query = self.query()?;
        let refused = match query.body.as_ref() {
            ast::SetExpr::Insert(_) => Some("WITH ... INSERT"),
            ast::SetExpr::Update(_) => Some("WITH ... UPDATE"),
            ast::SetExpr::Delete(_) => Some("WITH ... DELETE"),
            ast::SetExpr::Merge(_) => Some("MERGE"),
            ast::SetExpr::Select(select) if select.into.is_some() => Some("SELECT INTO"),
            _ => None,
        };
        match refused {
            Some(what) => Err(self.refused(what, start)),
            None => Ok(Statement::Query(query)),
        }
    }

    fn data_change(&mut self, word: &str) -> Result<Statement> {
        let start = self.index();
        let token = self.parser.next_token();
        let parsed = match word {
            "INSERT" => self.parser.parse_insert(token),
            "UPDATE" => self.parser.parse_update(token),
            _ => self.parser.parse_delete(token),
        };
        match self.lift(parsed)? {
            ast::Statement::Insert(insert) if insert.on.is_some() => Err(self
                .refused("INSERT ... ON CONFLICT", start)
                .with_hint("ON CONFLICT is a clause of CREATE TABLE")),
            ast::Statement::Insert(insert) if insert.overwrite => {
                Err(self.refused("INSERT OVERWRITE", start))
            }
            ast::Statement::Insert(insert) => Ok(Statement::Insert { insert: Box::new(insert) }),
            ast::Statement::Update(update) => Ok(Statement::Update { update: Box::new(update) }),
            ast::Statement::Delete(delete) => Ok(Statement::Delete { delete: Box::new(delete) }),
            other => Err(SqlError::internal(format!("{word} was read as {other}"))),
        }
    }

    // What sqlparser reads.

    fn lift<T>(&self, parsed: Result<T, ParserError>) -> Result<T> {
        parsed.map_err(|error| errors::from_parser(error, &self.tokens, &self.positions))
    }

    fn query(&mut self) -> Result<Box<ast::Query>> {
        let parsed = self.parser.parse_query();
        self.lift(parsed)
    }

    fn expr(&mut self) -> Result<ast::Expr> {
        let parsed = self.parser.parse_expr();
        self.lift(parsed)
    }

    // Tokens. The cursor is the number of the next token.

    /// sqlparser's cursor: the number of tokens read.
    fn index(&self) -> usize {
        self.parser.index()
    }

    /// The error of a token that does not belong here.
    fn unexpected(&self) -> SqlError {
        errors::near(&self.tokens, self.index(), &self.positions)
    }

    fn at_end(&self) -> bool {
        self.index() >= self.tokens.len()
    }

    fn end(&self) -> Result<()> {
        if self.at_end() { Ok(()) } else { Err(self.unexpected()) }
    }

    fn peeks(&self, word: &str) -> bool {
        self.peeks_nth(0, word)
    }

    fn peeks_nth(&self, n: usize, word: &str) -> bool {
        self.tokens.get(self.index() + n).is_some_and(|token| is_word(&token.token, word))
    }

    fn peek_token(&self, token: &Token) -> bool {
        self.tokens.get(self.index()).is_some_and(|found| found.token == *token)
    }

    /// Reads the words if all of them come next.
    fn accept(&mut self, words: &[&str]) -> bool {
        let found = words.iter().enumerate().all(|(n, word)| self.peeks_nth(n, word));
        if found {
            self.advance(words.len());
        }
        found
    }

    fn expect(&mut self, words: &[&str]) -> Result<()> {
        for word in words {
            if !self.accept(&[word]) {
                return Err(self.unexpected().with_detail(format!("expected {word}")));
            }
        }
        Ok(())
    }

    fn accept_token(&mut self, token: &Token) -> bool {
        let found = self.peek_token(token);
        if found {
            self.advance(1);
        }
        found
    }

    fn expect_token(&mut self, token: &Token) -> Result<()> {
        match self.accept_token(token) {
            true => Ok(()),
            false => Err(self.unexpected().with_detail(format!("expected {token}"))),
        }
    }

    fn advance(&mut self, count: usize) {
        for _ in 0..count {
            self.parser.next_token();
        }
    }

    /// A name: lower case unless quoted.
    fn name(&mut self) -> Result<String> {
        let name = match self.tokens.get(self.index()).map(|token| &token.token) {
            Some(Token::Word(word)) if word.quote_style.is_some() => word.value.clone(),
            Some(Token::Word(word)) => word.value.to_ascii_lowercase(),
            _ => return Err(self.unexpected().with_detail("expected a name")),
        };
        self.advance(1);
        Ok(name)
    }

    /// The name of a relation; `public.t` and `dev.public.t` mean `t`.
    fn relation(&mut self) -> Result<String> {
        let start = self.index();
        let mut parts = vec![self.name()?];
        while self.accept_token(&Token::Period) {
            parts.push(self.name()?);
        }
        let name = parts.pop().unwrap_or_default();
        let known = match parts.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
            [] => true,
            [schema] => *schema == crate::DEFAULT_SCHEMA,
            [database, schema] => *database == crate::DEFAULT_DATABASE && *schema == crate::DEFAULT_SCHEMA,
            _ => false,
        };
        match known {
            true => Ok(name),
            false => Err(SqlError::new(
                SqlState::UndefinedObject,
                format!("schema \"{}\" does not exist", parts.join(".")),
            )
            .with_hint("everything lives in the schema \"public\"")
            .at(self.position_of(start))),
        }
    }

    /// `(a, b)`
    fn name_list(&mut self) -> Result<Vec<String>> {
        self.expect_token(&Token::LParen)?;
        let mut names = vec![self.name()?];
        while self.accept_token(&Token::Comma) {
            names.push(self.name()?);
        }
        self.expect_token(&Token::RParen)?;
        Ok(names)
    }

    fn if_not_exists(&mut self) -> bool {
        self.accept(&["IF", "NOT", "EXISTS"])
    }

    // Texts and positions.

    fn position_of(&self, index: usize) -> usize {
        let start = self.tokens.get(index).map_or(Location::empty(), |token| token.span.start);
        self.positions.character(start)
    }

    /// The text of the tokens from `start` up to, not including, `end`.
    fn text(&self, start: usize, end: usize) -> &'a str {
        let end = end.min(self.tokens.len());
        match (self.tokens.get(start), end.checked_sub(1).and_then(|last| self.tokens.get(last))) {
            (Some(first), Some(last)) if start < end => {
                self.positions.slice(Span::new(first.span.start, last.span.end))
            }
            _ => "",
        }
    }

    /// Reads an expression that ends before the first of: a comma, an unmatched parenthesis, or a
    /// token for which `stop` holds. Returns its text.
    ///
    /// The end is found before parsing, because sqlparser would read `DEFAULT 0 NOT NULL` too far.
    fn bounded_expr(
        &mut self,
        stop: impl Fn(&StatementParser<'_>, usize) -> bool,
    ) -> Result<(ast::Expr, String)> {
        let start = self.index();
        let mut depth = 0usize;
        let mut end = start;
        while let Some(token) = self.tokens.get(end) {
            match token.token {
                Token::LParen | Token::LBracket => depth += 1,
                Token::RParen | Token::RBracket if depth > 0 => depth -= 1,
                Token::RParen => break,
                Token::Comma if depth == 0 => break,
                _ if depth == 0 && end > start && stop(self, end) => break,
                _ => {}
            }
            end += 1;
        }
        let mut inner = StatementParser {
            parser: Parser::new(&PostgreSqlDialect {})
                .with_tokens_with_locations(self.tokens[start..end].to_vec()),
            tokens: self.tokens[start..end].to_vec(),
            sql: self.sql,
            offset: self.offset,
            positions: self.positions.clone(),
            emit_on_window_close: false,
        };
        let expr = match start == end {
            true => return Err(self.unexpected().with_detail("expected an expression")),
            false => inner.expr()?,
        };
        inner.end()?;
        self.advance(end - start);
        Ok((expr, self.text(start, end).to_string()))
    }

    fn word_at(&self, index: usize, word: &str) -> bool {
        self.tokens.get(index).is_some_and(|token| is_word(&token.token, word))
    }

    // Refusals.

    fn refused(&self, what: &str, index: usize) -> SqlError {
        SqlError::unsupported(format!("{what} is not supported")).at(self.position_of(index))
    }
}

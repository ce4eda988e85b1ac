//! DROP, EXPLAIN, transaction and session commands, and the statements that are refused by name.

use datafusion::sql::sqlparser::tokenizer::Token;

use super::tokens::StatementTokens;
use super::{StatementParser, parse_one};
use crate::statement::{ObjectKind, ParsedStatement, Statement};
use crate::{Result, SqlError};

/// First words of statements that exist elsewhere and not here.
pub(super) const REFUSED: [&str; 46] = [
    "ALTER",
    "ANALYZE",
    "ATTACH",
    "CALL",
    "CHECKPOINT",
    "CLUSTER",
    "DECLARE",
    "DESC",
    "DESCRIBE",
    "DETACH",
    "DO",
    "EXECUTE",
    "EXPORT",
    "FETCH",
    "GRANT",
    "IMPORT",
    "INSTALL",
    "KILL",
    "LISTEN",
    "LOAD",
    "LOCK",
    "MERGE",
    "MOVE",
    "NOTIFY",
    "OPTIMIZE",
    "PRAGMA",
    "PREPARE",
    "REASSIGN",
    "RECOVER",
    "REFRESH",
    "REINDEX",
    "RENAME",
    "REPLACE",
    "REVOKE",
    "SECURITY",
    "STOP",
    "SUBSCRIBE",
    "TRUNCATE",
    "UNCACHE",
    "CACHE",
    "UNLISTEN",
    "UNLOAD",
    "USE",
    "VACUUM",
    "MSCK",
    "UNLOCK",
];

/// What may follow CREATE and DROP elsewhere.
const REFUSED_OBJECTS: [&str; 42] = [
    "ACCESS",
    "AGGREGATE",
    "ALERT",
    "CAST",
    "CATALOG",
    "COLLATION",
    "CONNECTION",
    "CONVERSION",
    "DATABASE",
    "DECISION",
    "DOMAIN",
    "EVENT",
    "EXTENSION",
    "EXTERNAL",
    "FOREIGN",
    "GLOBAL",
    "GROUP",
    "LANGUAGE",
    "LOCAL",
    "MACRO",
    "MODEL",
    "OPERATOR",
    "OWNED",
    "POLICY",
    "PROCEDURE",
    "PUBLICATION",
    "ROLE",
    "ROUTINE",
    "RULE",
    "SCHEMA",
    "SECRET",
    "SEQUENCE",
    "SERVER",
    "SINK",
    "STATISTICS",
    "SUBSCRIPTION",
    "TABLESPACE",
    "TEMP",
    "TEMPORARY",
    "TRIGGER",
    "TYPE",
    "USER",
];

impl StatementParser<'_> {
    pub(super) fn drop(&mut self) -> Result<Statement> {
        self.expect(&["DROP"])?;
        let kind = self.object_kind("DROP")?;
        let if_exists = self.accept(&["IF", "EXISTS"]);
        let mut names = Vec::new();
        loop {
            names.push(self.relation()?);
            if kind == ObjectKind::Function {
                self.skip_signature()?;
            }
            if !self.accept_token(&Token::Comma) {
                break;
            }
        }
        let cascade = self.accept(&["CASCADE"]);
        if !cascade {
            self.accept(&["RESTRICT"]);
        }
        Ok(Statement::Drop { kind, names, if_exists, cascade })
    }

    pub(super) fn explain(&mut self) -> Result<Statement> {
        self.expect(&["EXPLAIN"])?;
        let mut analyze = false;
        if self.accept_token(&Token::LParen) {
            loop {
                let start = self.index();
                match self.name()?.as_str() {
                    "analyze" => analyze = self.option_bool()?,
                    "format" if self.accept(&["TEXT"]) => {}
                    "format" => return Err(self.refused("EXPLAIN format other than TEXT", start)),
                    "verbose" | "costs" | "buffers" | "settings" | "timing" | "summary" | "wal"
                    | "generic_plan" => {
                        self.option_bool()?;
                    }
                    _ => return Err(super::errors::near(&self.tokens, start, &self.positions)),
                }
                if !self.accept_token(&Token::Comma) {
                    self.expect_token(&Token::RParen)?;
                    break;
                }
            }
        } else {
            analyze = self.accept(&["ANALYZE"]);
            self.accept(&["VERBOSE"]);
        }
        let start = self.index();
        if self.at_end() || self.peeks("EXPLAIN") {
            return Err(self.unexpected());
        }
        // A name alone is that of a view.
        let of_view = self.accept(&["MATERIALIZED", "VIEW"]) || self.accept(&["VIEW"]);
        let is_name = self.index() + 1 == self.tokens.len() && !self.peeks("FLUSH") && !self.peeks("COMMIT");
        if of_view || is_name {
            let name = self.relation()?;
            let sql = self.text(start, self.index()).to_string();
            let words = ["create", "view"].map(str::to_string).into_iter().chain([name]).collect();
            let statement = ParsedStatement { statement: Statement::Show(words), sql, offset: self.offset };
            return Ok(Statement::Explain { analyze, statement: Box::new(statement) });
        }
        // Parsed anew from the text, because the clauses cut off this statement belong to the inner one.
        let first = self.tokens[start].span.start;
        let sql = &self.sql[self.positions.byte(first)..];
        let offset = self.offset + self.position_of(start) - 1;
        let mut inner = super::tokens::split(sql)?;
        let (Some(tokens), true) = (inner.pop(), inner.is_empty()) else { return Err(self.unexpected()) };
        let tokens = StatementTokens { offset, ..tokens };
        // Errors of the inner statement are counted from the request already; ours are shifted later.
        let statement = parse_one(tokens).map_err(|mut error| {
            error.position = error.position.map(|position| position - self.offset);
            error
        })?;
        self.advance(self.tokens.len() - start);
        Ok(Statement::Explain { analyze, statement: Box::new(statement) })
    }

    pub(super) fn transaction(&mut self, word: &str) -> Result<Statement> {
        let start = self.index();
        self.advance(1);
        let tag = match word {
            "BEGIN" => "BEGIN",
            "START" => {
                self.expect(&["TRANSACTION"])?;
                "START TRANSACTION"
            }
            "COMMIT" | "END" => "COMMIT",
            "ROLLBACK" | "ABORT" => "ROLLBACK",
            "SAVEPOINT" => "SAVEPOINT",
            _ => "RELEASE",
        };
        if self.peeks("PREPARED") {
            return Err(self.refused(&format!("{word} PREPARED"), start));
        }
        match word {
            "SAVEPOINT" => {
                self.name()?;
            }
            "RELEASE" => {
                self.accept(&["SAVEPOINT"]);
                self.name()?;
            }
            _ => {
                if !self.accept(&["TRANSACTION"]) {
                    self.accept(&["WORK"]);
                }
                if word == "ROLLBACK" && self.accept(&["TO"]) {
                    self.accept(&["SAVEPOINT"]);
                    self.name()?;
                }
                self.transaction_modes()?;
            }
        }
        Ok(Statement::Transaction { tag })
    }

    /// Isolation levels and the like, which make no difference: each statement commits by itself.
    fn transaction_modes(&mut self) -> Result<()> {
        const MODES: [&[&str]; 11] = [
            &["ISOLATION", "LEVEL", "SERIALIZABLE"],
            &["ISOLATION", "LEVEL", "REPEATABLE", "READ"],
            &["ISOLATION", "LEVEL", "READ", "COMMITTED"],
            &["ISOLATION", "LEVEL", "READ", "UNCOMMITTED"],
            &["ISOLATION", "LEVEL", "SNAPSHOT"],
            &["READ", "ONLY"],
            &["READ", "WRITE"],
            &["NOT", "DEFERRABLE"],
            &["DEFERRABLE"],
            &["AND", "NO", "CHAIN"],
            &["AND", "CHAIN"],
        ];
        while !self.at_end() {
            if !MODES.iter().any(|mode| self.accept(mode)) {
                return Err(self.unexpected());
            }
            self.accept_token(&Token::Comma);
        }
        Ok(())
    }

    pub(super) fn session(&mut self, word: &str) -> Result<Statement> {
        self.advance(1);
        let tag = match word {
            "DISCARD" => {
                match ["ALL", "PLANS", "SEQUENCES", "TEMP", "TEMPORARY"].iter().find(|w| self.peeks(w)) {
                    Some(&"ALL") => "DISCARD ALL",
                    Some(&"PLANS") => "DISCARD PLANS",
                    Some(&"SEQUENCES") => "DISCARD SEQUENCES",
                    Some(_) => "DISCARD TEMP",
                    None => return Err(self.unexpected()),
                }
            }
            "DEALLOCATE" => {
                if self.peeks("PREPARE") && self.index() + 1 < self.tokens.len() {
                    self.advance(1);
                }
                if self.peeks("ALL") { "DEALLOCATE ALL" } else { "DEALLOCATE" }
            }
            _ if self.peeks("ALL") => "CLOSE CURSOR ALL",
            _ => "CLOSE CURSOR",
        };
        self.name()?;
        Ok(Statement::Session { tag })
    }

    /// `GRANT is not supported`, with the second word where it tells what is meant.
    pub(super) fn refuse_statement(&self, word: &str) -> SqlError {
        let start = self.index();
        let second = match self.tokens.get(start + 1).map(|token| &token.token) {
            Some(Token::Word(second)) if matches!(word, "ALTER" | "REFRESH") => {
                format!(" {}", second.value.to_ascii_uppercase())
            }
            _ => String::new(),
        };
        let error = self.refused(&format!("{word}{second}"), start);
        match word {
            "TRUNCATE" => error.with_hint("use DELETE FROM"),
            "ALTER" => error.with_hint("drop it and create it anew"),
            "REFRESH" => {
                error.with_hint("materialized views are always up to date; FLUSH waits for the last write")
            }
            "DESCRIBE" | "DESC" => error.with_hint("use SHOW COLUMNS FROM"),
            "PREPARE" | "EXECUTE" => error.with_hint("prepare through the driver"),
            "SUBSCRIBE" => error.with_hint("read /v1/views/{view}/changes over HTTP"),
            _ => error,
        }
    }

    /// `CREATE EXTENSION is not supported`; a syntax error when no database has such an object.
    pub(super) fn refuse_object(&self, verb: &str) -> SqlError {
        match self.tokens.get(self.index()).map(|token| &token.token) {
            Some(Token::Word(word))
                if word.quote_style.is_none()
                    && REFUSED_OBJECTS.contains(&word.value.to_ascii_uppercase().as_str()) =>
            {
                let object = word.value.to_ascii_uppercase();
                let table = ["EXTERNAL", "FOREIGN", "TEMP", "TEMPORARY", "GLOBAL", "LOCAL"]
                    .contains(&object.as_str());
                let more = if table && self.peeks_nth(1, "TABLE") { " TABLE" } else { "" };
                self.refused(&format!("{verb} {object}{more}"), 0)
            }
            Some(Token::Word(word)) if word.value.eq_ignore_ascii_case("UNLOGGED") => {
                self.refused(&format!("{verb} UNLOGGED TABLE"), 0)
            }
            _ => self.unexpected(),
        }
    }
}

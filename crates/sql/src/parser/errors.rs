//! Syntax errors as PostgreSQL words them, with position and, for a misspelt keyword, a hint.

use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::parser::ParserError;
use datafusion::sql::sqlparser::tokenizer::{Location, Token, TokenWithSpan};

use super::tokens::Positions;
use crate::{SqlError, SqlState, suggest};

/// Words that a misspelt one may have meant.
pub(super) const KEYWORDS: [&str; 92] = [
    "ALL",
    "ALTER",
    "ALWAYS",
    "ANALYZE",
    "AND",
    "APPEND",
    "AS",
    "ASC",
    "BEGIN",
    "BETWEEN",
    "BY",
    "CASCADE",
    "CASE",
    "CAST",
    "CHECK",
    "CLOSE",
    "COMMIT",
    "CONFLICT",
    "CONSTRAINT",
    "COPY",
    "CREATE",
    "CROSS",
    "DEFAULT",
    "DELETE",
    "DESC",
    "DISTINCT",
    "DROP",
    "ELSE",
    "EMIT",
    "END",
    "EXCEPT",
    "EXISTS",
    "EXPLAIN",
    "FALSE",
    "FILTER",
    "FLUSH",
    "FOR",
    "FROM",
    "FULL",
    "GENERATED",
    "GROUP",
    "HAVING",
    "INDEX",
    "INNER",
    "INSERT",
    "INTERSECT",
    "INTERVAL",
    "INTO",
    "JOIN",
    "KEY",
    "LEFT",
    "LIKE",
    "LIMIT",
    "MATERIALIZED",
    "NOTHING",
    "NULL",
    "OFFSET",
    "ON",
    "ONLY",
    "OR",
    "ORDER",
    "OUTER",
    "OVER",
    "OVERWRITE",
    "PARTITION",
    "PRIMARY",
    "REPLACE",
    "RESET",
    "RESTRICT",
    "RETURNING",
    "RIGHT",
    "ROLLBACK",
    "SELECT",
    "SET",
    "SHOW",
    "STDIN",
    "STORED",
    "TABLE",
    "THEN",
    "TRUE",
    "UNION",
    "UPDATE",
    "USING",
    "VALUES",
    "VIEW",
    "WATERMARK",
    "WHEN",
    "WHERE",
    "WINDOW",
    "WITH",
    "WITHIN",
    "WITHOUT",
];

/// `syntax error at or near "FORM"` for the token at this number; at the end of input without one.
pub(crate) fn near(tokens: &[TokenWithSpan], index: usize, positions: &Positions<'_>) -> SqlError {
    let error = match tokens.get(index) {
        Some(token) if token.token != Token::EOF => SqlError::new(
            SqlState::SyntaxError,
            format!("syntax error at or near \"{}\"", positions.slice(token.span)),
        )
        .at(positions.character(token.span.start)),
        _ => SqlError::new(SqlState::SyntaxError, "syntax error at end of input")
            .at(positions.character(Location::empty())),
    };
    match misspelt(tokens, index) {
        Some(keyword) => error.with_hint(suggest::did_you_mean(keyword)),
        None => error,
    }
}

/// sqlparser's error in PostgreSQL's form.
pub(crate) fn from_parser(
    error: ParserError,
    tokens: &[TokenWithSpan],
    positions: &Positions<'_>,
) -> SqlError {
    let text = match error {
        ParserError::RecursionLimitExceeded => {
            return SqlError::new(SqlState::ConfigurationLimitExceeded, "statement is nested too deeply");
        }
        ParserError::ParserError(text) | ParserError::TokenizerError(text) => text,
    };
    let (message, location) = split_location(&text);
    let index = match location {
        Some(location) => tokens.iter().position(|token| token.span.start == location),
        None => Some(tokens.len()),
    };
    let expected = message.strip_prefix("Expected: ").and_then(|rest| rest.split_once(", found: "));
    match (expected, index) {
        (Some((expected, _)), Some(index)) => {
            let error = near(tokens, index, positions);
            // A list of every possible token helps nobody; short expectations do.
            match expected.len() <= 60 {
                true => error.with_detail(format!("expected {expected}")),
                false => error,
            }
        }
        (_, index) => {
            let message = format!("syntax error: {}", lower_first(message));
            let position = location.or_else(|| tokens.get(index?).map(|token| token.span.start));
            SqlError::new(SqlState::SyntaxError, message)
                .at(positions.character(position.unwrap_or(Location::empty())))
        }
    }
}

/// The keyword that the offending word, or one of the two before it, was meant to be. The parser
/// often takes a misspelt keyword for an alias and stumbles over what follows.
fn misspelt(tokens: &[TokenWithSpan], index: usize) -> Option<&'static str> {
    let suggestion = |at: usize, slips: Option<usize>| match &tokens.get(at)?.token {
        Token::Word(word) if word.quote_style.is_none() && word.keyword == Keyword::NoKeyword => {
            let limit = slips.unwrap_or((word.value.len() / 3).max(1));
            suggest::within(&word.value, KEYWORDS, limit).filter(|found| found.len() > 2)
        }
        _ => None,
    };
    suggestion(index, None)
        .or_else(|| (1..=2).filter_map(|back| index.checked_sub(back)).find_map(|at| suggestion(at, Some(1))))
}

/// Takes sqlparser's ` at Line: 1, Column: 8` off a message.
fn split_location(text: &str) -> (&str, Option<Location>) {
    let parsed = text.rsplit_once(" at Line: ").and_then(|(message, rest)| {
        let (line, column) = rest.split_once(", Column: ")?;
        Some((message, Location::new(line.parse().ok()?, column.parse().ok()?)))
    });
    match parsed {
        Some((message, location)) => (message, Some(location)),
        None => (text, None),
    }
}

/// Messages start in lower case, unless they start with an abbreviation or keyword.
pub(crate) fn lower_first(message: &str) -> String {
    let mut characters = message.chars();
    match (characters.next(), characters.clone().next()) {
        (Some(first), Some(second)) if first.is_uppercase() && !second.is_uppercase() => {
            first.to_lowercase().chain(characters).collect()
        }
        _ => message.to_string(),
    }
}

//! From text to tokens: positions, splitting at semicolons, and the small rewrites that let
//! sqlparser read our dialect.
//!
//! Rewrites drop tokens, and where they put others in their place these stand where the user's stood, so that
//! every token still says a place in the user's text.

use datafusion::sql::sqlparser::dialect::PostgreSqlDialect;
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::tokenizer::{Location, Span, Token, TokenWithSpan, Tokenizer};

use crate::{Result, SqlError, SqlState};

/// Finds characters and bytes from the line and column of a token.
#[derive(Clone, Debug)]
pub(crate) struct Positions<'a> {
    text: &'a str,
    /// Byte offset of each line's start.
    lines: Vec<usize>,
}

impl<'a> Positions<'a> {
    pub(crate) fn new(text: &'a str) -> Positions<'a> {
        let lines = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        Positions { text, lines }
    }

    /// Byte offset; the end of the text for an empty location, which stands for "end of input".
    pub(crate) fn byte(&self, location: Location) -> usize {
        self.byte_at(location.line, location.column)
    }

    pub(crate) fn byte_at(&self, line: u64, column: u64) -> usize {
        let Some(start) = line.checked_sub(1).and_then(|line| self.lines.get(line as usize)) else {
            return self.text.len();
        };
        let rest = &self.text[*start..];
        rest.char_indices()
            .nth(column.saturating_sub(1) as usize)
            .map_or(self.text.len(), |(offset, _)| start + offset)
    }

    /// 1-based character position, as error messages give it.
    pub(crate) fn character(&self, location: Location) -> usize {
        self.character_at(location.line, location.column)
    }

    pub(crate) fn character_at(&self, line: u64, column: u64) -> usize {
        self.text[..self.byte_at(line, column)].chars().count() + 1
    }

    pub(crate) fn slice(&self, span: Span) -> &'a str {
        let (start, end) = (self.byte(span.start), self.byte(span.end));
        self.text.get(start..end.max(start)).unwrap_or_default()
    }
}

/// The tokens of one statement, white space and comments left out, with spans that count from the
/// statement's own start.
#[derive(Debug)]
pub(crate) struct StatementTokens<'a> {
    pub(crate) sql: &'a str,
    /// Characters of the request before `sql`.
    pub(crate) offset: usize,
    pub(crate) tokens: Vec<TokenWithSpan>,
}

/// Splits a request at its semicolons. Empty statements are left out.
pub(crate) fn split(request: &str) -> Result<Vec<StatementTokens<'_>>> {
    let positions = Positions::new(request);
    let dialect = PostgreSqlDialect {};
    let tokens = Tokenizer::new(&dialect, request).tokenize_with_location().map_err(|error| {
        SqlError::new(SqlState::SyntaxError, unterminated(&error.message))
            .at(positions.character(error.location))
    })?;

    let mut statements = Vec::new();
    let mut current: Vec<TokenWithSpan> = Vec::new();
    for token in tokens {
        match token.token {
            Token::Whitespace(_) | Token::EOF => {}
            Token::SemiColon => statements.extend(finish(request, &positions, std::mem::take(&mut current))),
            _ => current.push(token),
        }
    }
    statements.extend(finish(request, &positions, current));
    Ok(statements)
}

fn finish<'a>(
    request: &'a str,
    positions: &Positions<'a>,
    mut tokens: Vec<TokenWithSpan>,
) -> Option<StatementTokens<'a>> {
    let start = tokens.first()?.span.start;
    let end = tokens.last()?.span.end;
    let sql = positions.slice(Span::new(start, end));
    for token in &mut tokens {
        token.span = Span::new(rebased(token.span.start, start), rebased(token.span.end, start));
    }
    let offset = request[..positions.byte(start)].chars().count();
    Some(StatementTokens { sql, offset, tokens })
}

/// The location counted from `origin` instead of from the start of the request.
pub(crate) fn rebased(location: Location, origin: Location) -> Location {
    let line = location.line - origin.line + 1;
    match location.line == origin.line {
        true => Location::new(line, location.column - origin.column + 1),
        false => Location::new(line, location.column),
    }
}

/// "Unterminated string literal" in PostgreSQL's words.
fn unterminated(message: &str) -> String {
    match message {
        "Unterminated string literal" => "unterminated quoted string".to_string(),
        "Unexpected EOF while in a multi-line comment" => "unterminated /* comment".to_string(),
        other if other.starts_with("Expected close delimiter '\"'") => {
            "unterminated quoted identifier".to_string()
        }
        other => super::errors::lower_first(other),
    }
}

/// True for the unquoted word, in any case.
pub(crate) fn is_word(token: &Token, word: &str) -> bool {
    matches!(token, Token::Word(w) if w.quote_style.is_none() && w.value.eq_ignore_ascii_case(word))
}

/// Cuts a trailing `EMIT ON WINDOW CLOSE` off and says whether it was there.
pub(crate) fn strip_emit_on_window_close(tokens: &mut Vec<TokenWithSpan>) -> bool {
    const CLAUSE: [&str; 4] = ["EMIT", "ON", "WINDOW", "CLOSE"];
    let Some(start) = tokens.len().checked_sub(CLAUSE.len()) else { return false };
    let found = tokens[start..].iter().zip(CLAUSE).all(|(token, word)| is_word(&token.token, word));
    if found {
        tokens.truncate(start);
    }
    found
}

/// Turns Flink's `TABLE(TUMBLE(TABLE t, DESCRIPTOR(ts), ...))` into `TUMBLE(t, ts, ...)`, and so for
/// HOP, CUMULATE and SESSION; `SESSION(t PARTITION BY k, ts, ...)` into `SESSION(t, k, ts, ...)`, and GAP_FILL likewise; the frame
/// `SESSION WITH GAP interval` into one that sqlparser takes and the planner knows; `AS CHANGELOG FROM t` into a query; and
/// joins by time into the one that sqlparser knows.
///
/// # Errors
///
/// Joins by time that do not exist.
pub(crate) fn rewrite_query(
    tokens: Vec<TokenWithSpan>,
    positions: &Positions<'_>,
) -> Result<Vec<TokenWithSpan>> {
    // What stands in a token's place, where that is not itself.
    let mut instead: Vec<Option<Vec<Token>>> = vec![None; tokens.len()];
    let drop = || Some(Vec::new());
    let word_at = |at: usize, word: &str| tokens.get(at).is_some_and(|token| is_word(&token.token, word));
    let token_at = |at: usize, token: Token| tokens.get(at).is_some_and(|found| found.token == token);

    for at in 0..tokens.len() {
        if token_at(at, Token::Mul) && aliased_wildcard(&tokens, at) {
            return Err(super::errors::near(&tokens, at + 1, positions));
        }
        super::asof_join::rewrite(&tokens, at, positions, &mut instead)?;
        if (word_at(at, "SESSION") || word_at(at, "GAP_FILL")) && token_at(at + 1, Token::LParen) {
            rewrite_keys(&tokens, at + 1, &mut instead);
        }
        if word_at(at, "AS") && word_at(at + 1, "CHANGELOG") && word_at(at + 2, "FROM") {
            rewrite_changelog(&tokens, at + 1, positions, &mut instead)?;
        }
        if word_at(at, "SESSION") && word_at(at + 1, "WITH") && word_at(at + 2, "GAP") {
            rewrite_session_frame(&tokens, at, &mut instead);
        }
        if !(word_at(at, "TABLE") && token_at(at + 1, Token::LParen)) {
            continue;
        }
        let window = ["TUMBLE", "HOP", "CUMULATE", "SESSION"].iter().any(|name| word_at(at + 2, name));
        if !(window && token_at(at + 3, Token::LParen)) {
            continue;
        }
        let Some(inner_close) = closing(&tokens, at + 3) else { continue };
        if !token_at(inner_close + 1, Token::RParen) {
            continue;
        }
        instead[at] = drop();
        instead[at + 1] = drop();
        instead[inner_close + 1] = drop();
        if word_at(at + 4, "TABLE") {
            instead[at + 4] = drop();
        }
        for inside in at + 4..inner_close {
            if word_at(inside, "DESCRIPTOR") && token_at(inside + 1, Token::LParen) {
                let Some(close) = closing(&tokens, inside + 1) else { continue };
                instead[inside] = drop();
                instead[inside + 1] = drop();
                instead[close] = drop();
            }
        }
    }
    let mut rewritten = Vec::with_capacity(tokens.len());
    for (token, instead) in tokens.into_iter().zip(instead) {
        match instead {
            None => rewritten.push(token),
            Some(others) => {
                rewritten
                    .extend(others.into_iter().map(|other| TokenWithSpan { token: other, span: token.span }));
            }
        }
    }
    Ok(rewritten)
}

/// `SESSION(t PARTITION BY a, b, ...`, and so `GAP_FILL`: the keys become arguments after the table.
fn rewrite_keys(tokens: &[TokenWithSpan], open: usize, instead: &mut [Option<Vec<Token>>]) {
    let Some(close) = closing(tokens, open) else { return };
    let mut depth = 0usize;
    for at in open + 1..close {
        match tokens[at].token {
            Token::LParen => depth += 1,
            Token::RParen => depth = depth.saturating_sub(1),
            _ if depth == 0
                && is_word(&tokens[at].token, "PARTITION")
                && is_word(&tokens[at + 1].token, "BY") =>
            {
                instead[at] = Some(vec![Token::Comma]);
                instead[at + 1] = Some(Vec::new());
            }
            _ => {}
        }
    }
}

/// `CHANGELOG FROM a.b`, which begins at `at`: as `(SELECT * FROM changelog(a.b))`.
fn rewrite_changelog(
    tokens: &[TokenWithSpan],
    at: usize,
    positions: &Positions<'_>,
    instead: &mut [Option<Vec<Token>>],
) -> Result<()> {
    let is_name = |at: usize| matches!(tokens.get(at).map(|t| &t.token), Some(Token::Word(_)));
    let mut last = at + 2;
    while is_name(last) && tokens.get(last + 1).is_some_and(|t| t.token == Token::Period) && is_name(last + 2)
    {
        last += 2;
    }
    if !is_name(last) {
        return Err(super::errors::near(tokens, last, positions));
    }
    let word = |word: &str| Token::make_word(word, None);
    instead[at] = Some(vec![
        Token::LParen,
        Token::make_keyword("SELECT"),
        Token::Mul,
        Token::make_keyword("FROM"),
        word("changelog"),
        Token::LParen,
    ]);
    instead[at + 1] = Some(Vec::new());
    instead[last] = Some(vec![tokens[last].token.clone(), Token::RParen, Token::RParen]);
    Ok(())
}

/// `SESSION WITH GAP interval)`: as a GROUPS frame of an interval, which has no other meaning.
fn rewrite_session_frame(tokens: &[TokenWithSpan], at: usize, instead: &mut [Option<Vec<Token>>]) {
    let mut depth = 0usize;
    for end in at + 3..tokens.len() {
        match tokens[end].token {
            Token::LParen => depth += 1,
            Token::RParen if depth > 0 => depth -= 1,
            Token::RParen => {
                let words = |words: &[&str]| words.iter().map(|word| Token::make_keyword(word)).collect();
                instead[at] = Some(words(&["GROUPS"]));
                instead[at + 1] = Some(words(&["BETWEEN"]));
                instead[at + 2] = Some(Vec::new());
                let mut tail: Vec<Token> = words(&["PRECEDING", "AND", "UNBOUNDED", "FOLLOWING"]);
                tail.push(Token::RParen);
                instead[end] = Some(tail);
                return;
            }
            _ => {}
        }
    }
}

/// True for `SELECT * name`, which sqlparser takes for an alias; most often the name is a misspelt FROM.
fn aliased_wildcard(tokens: &[TokenWithSpan], star: usize) -> bool {
    let Some(before) = star.checked_sub(1).and_then(|before| tokens.get(before)) else { return false };
    let wildcard = matches!(before.token, Token::Comma | Token::Period)
        || ["SELECT", "DISTINCT", "ALL"].iter().any(|word| is_word(&before.token, word));
    let named = match tokens.get(star + 1).map(|token| &token.token) {
        Some(Token::Word(word)) => {
            word.keyword == Keyword::NoKeyword || word.value.eq_ignore_ascii_case("AS")
        }
        _ => false,
    };
    wildcard && named
}

/// Number of the parenthesis that closes the one at `open`.
pub(crate) fn closing(tokens: &[TokenWithSpan], open: usize) -> Option<usize> {
    let mut depth = 0usize;
    for (at, token) in tokens.iter().enumerate().skip(open) {
        match token.token {
            Token::LParen => depth += 1,
            Token::RParen => {
                depth = depth.checked_sub(1)?;
                if depth == 0 {
                    return Some(at);
                }
            }
            _ => {}
        }
    }
    None
}

//! `t MATCH_RECOGNIZE (...)`, which sqlparser reads for other dialects only, and not all of it.
//!
//! ```text
//!   t AS a MATCH_RECOGNIZE ( body ) AS m   ->   match_recognize((SELECT * FROM t AS a), 'body') AS m
//! ```
//!
//! The body is read here for its errors, and read again from the text when the call is planned
//! ([`parse_body`]). The text is padded to its place in the statement, so that what is found in it then still
//! says where it stands.

use datafusion::sql::sqlparser::ast;
use datafusion::sql::sqlparser::dialect::PostgreSqlDialect;
use datafusion::sql::sqlparser::tokenizer::{Location, Span, Token, TokenWithSpan, Tokenizer};

use super::tokens::{Positions, closing, is_word};
use super::{Parser, StatementParser, errors};
use crate::match_recognize::pattern::Pattern;
use crate::{Result, SqlError, SqlState, duration};

/// The name of the function that a MATCH_RECOGNIZE becomes.
pub(crate) const FUNCTION: &str = "match_recognize";
/// Put before the name of a function that FINAL or RUNNING stands before.
pub(crate) const FINAL: &str = "final ";
pub(crate) const RUNNING: &str = "running ";

/// Parentheses in a PATTERN go no deeper.
const DEPTH_MAX: usize = 100;

/// The clauses of a MATCH_RECOGNIZE, names not yet looked up.
#[derive(Debug)]
pub(crate) struct MatchClauses {
    pub(crate) partition_by: Vec<ast::Expr>,
    pub(crate) order_by: Vec<ast::OrderByExpr>,
    pub(crate) measures: Vec<(ast::Expr, ast::Ident)>,
    pub(crate) rows: RowsPerMatch,
    pub(crate) timeout_rows: bool,
    pub(crate) skip: Skip,
    pub(crate) pattern: Pattern,
    pub(crate) pattern_span: Span,
    pub(crate) within: Option<(i64, Span)>,
    pub(crate) subsets: Vec<(ast::Ident, Vec<ast::Ident>)>,
    pub(crate) define: Vec<(ast::Ident, ast::Expr)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RowsPerMatch {
    One,
    All { empty: bool, unmatched: bool },
}

#[derive(Clone, Debug)]
pub(crate) enum Skip {
    PastLastRow,
    ToNextRow,
    ToFirst(ast::Ident),
    ToLast(ast::Ident),
}

/// Turns each MATCH_RECOGNIZE into a call of [`FUNCTION`].
///
/// # Errors
/// Syntax errors of its clauses.
pub(super) fn rewrite(tokens: Vec<TokenWithSpan>, positions: &Positions<'_>) -> Result<Vec<TokenWithSpan>> {
    if !tokens.iter().any(|token| is_word(&token.token, FUNCTION)) {
        return Ok(tokens);
    }
    let mut out: Vec<TokenWithSpan> = Vec::with_capacity(tokens.len() + 16);
    let mut at = 0;
    while at < tokens.len() {
        let word = &tokens[at];
        let opens = tokens.get(at + 1).is_some_and(|token| token.token == Token::LParen);
        let factor = match is_word(&word.token, FUNCTION) && opens {
            true => factor_start(&out),
            false => None,
        };
        let Some(start) = factor else {
            out.push(word.clone());
            at += 1;
            continue;
        };
        let Some(close) = closing(&tokens, at + 1) else {
            return Err(errors::near(&tokens, tokens.len(), positions).with_detail("expected )"));
        };
        let body = Span::new(tokens[at + 1].span.end, tokens[close].span.start);
        let mut parser = body_parser(tokens[at + 2..close].to_vec(), positions);
        // At its end the error names what comes next: the parenthesis.
        let clauses = parser.match_clauses().and_then(|clauses| parser.end().map(|()| clauses));
        clauses.map_err(|error| match parser.at_end() && error.state == SqlState::SyntaxError {
            true => error.at(positions.character(tokens[close].span.start)),
            false => error,
        })?;

        let first = out.get(start).map_or(word.span.start, |token| token.span.start);
        let before = Span::new(first, first);
        let invented = |token: Token, span: Span| TokenWithSpan { token, span };
        let factor = out.split_off(start);
        out.push(invented(Token::make_word(FUNCTION, None), word.span));
        for token in [Token::LParen, Token::LParen, Token::make_keyword("SELECT"), Token::Mul] {
            out.push(invented(token, before));
        }
        out.push(invented(Token::make_keyword("FROM"), before));
        out.extend(factor);
        out.push(invented(Token::RParen, word.span));
        out.push(invented(Token::Comma, word.span));
        out.push(invented(Token::SingleQuotedString(positions.slice(body).to_string()), body));
        out.push(tokens[close].clone());
        at = close + 1;
    }
    Ok(out)
}

/// Where the relation begins that the tokens end with: `t`, `s.t AS a`, `(SELECT ...) a`, `TUMBLE(...)`.
fn factor_start(tokens: &[TokenWithSpan]) -> Option<usize> {
    let word = |at: usize| match &tokens[at].token {
        Token::Word(word) => Some(word),
        _ => None,
    };
    let clause_word = |at: usize| {
        const WORDS: [&str; 9] = ["FROM", "JOIN", "LATERAL", "AS", "ON", "ONLY", "SELECT", "WHERE", "TABLE"];
        WORDS.iter().any(|clause| is_word(&tokens[at].token, clause))
    };
    let mut last = tokens.len().checked_sub(1)?;
    if word(last).is_some() {
        if clause_word(last) {
            return None;
        }
        let before = last.checked_sub(1)?;
        // An alias stands before MATCH_RECOGNIZE when a relation ends before it.
        if is_word(&tokens[before].token, "AS") {
            last = before.checked_sub(1)?;
        } else if tokens[before].token == Token::RParen || (word(before).is_some() && !clause_word(before)) {
            last = before;
        }
    }
    let mut start = match tokens[last].token {
        Token::RParen => {
            let open = opening(tokens, last)?;
            match open.checked_sub(1) {
                Some(name) if word(name).is_some() && !clause_word(name) => name,
                _ => return Some(open),
            }
        }
        Token::Word(_) => last,
        _ => return None,
    };
    while start >= 2 && tokens[start - 1].token == Token::Period && word(start - 2).is_some() {
        start -= 2;
    }
    Some(start)
}

/// Number of the parenthesis that opens the one at `close`.
fn opening(tokens: &[TokenWithSpan], close: usize) -> Option<usize> {
    let mut depth = 0usize;
    for at in (0..=close).rev() {
        match tokens[at].token {
            Token::RParen => depth += 1,
            Token::LParen => {
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

/// Reads the body of a MATCH_RECOGNIZE that stands at `start` of its statement.
///
/// # Errors
/// Syntax errors; there are none in a body that [`rewrite`] let through.
pub(crate) fn parse_body(text: &str, start: Location) -> Result<MatchClauses> {
    let lines = "\n".repeat(start.line.saturating_sub(1) as usize);
    let columns = " ".repeat(start.column.saturating_sub(1) as usize);
    let padded = format!("{lines}{columns}{text}");
    let tokens = Tokenizer::new(&PostgreSqlDialect {}, &padded)
        .tokenize_with_location()
        .map_err(|error| SqlError::new(SqlState::SyntaxError, error.message))?;
    let tokens =
        tokens.into_iter().filter(|t| !matches!(t.token, Token::Whitespace(_) | Token::EOF)).collect();
    let positions = Positions::new(&padded);
    let mut parser = body_parser(tokens, &positions);
    let clauses = parser.match_clauses()?;
    parser.end()?;
    Ok(clauses)
}

/// `FINAL LAST(x)` becomes `"final last"(x)`, which is a call that sqlparser reads.
fn body_parser<'a>(tokens: Vec<TokenWithSpan>, positions: &Positions<'a>) -> StatementParser<'a> {
    let mut read = Vec::with_capacity(tokens.len());
    let mut at = 0;
    while at < tokens.len() {
        let prefix = match &tokens[at].token {
            token if is_word(token, "FINAL") => Some(FINAL),
            token if is_word(token, "RUNNING") => Some(RUNNING),
            _ => None,
        };
        let called = tokens.get(at + 2).is_some_and(|token| token.token == Token::LParen);
        match (prefix, tokens.get(at + 1)) {
            (Some(prefix), Some(TokenWithSpan { token: Token::Word(name), span })) if called => {
                let name = format!("{prefix}{}", name.value.to_lowercase());
                read.push(TokenWithSpan {
                    token: Token::make_word(&name, Some('"')),
                    span: Span::new(tokens[at].span.start, span.end),
                });
                at += 2;
            }
            _ => {
                read.push(tokens[at].clone());
                at += 1;
            }
        }
    }
    StatementParser {
        parser: Parser::new(&PostgreSqlDialect {}).with_tokens_with_locations(read.clone()),
        tokens: read,
        sql: "",
        offset: 0,
        positions: positions.clone(),
        emit_on_window_close: false,
    }
}

impl StatementParser<'_> {
    fn match_clauses(&mut self) -> Result<MatchClauses> {
        let mut partition_by = Vec::new();
        if self.accept(&["PARTITION", "BY"]) {
            partition_by = self.list(|parser| parser.expr())?;
        }
        let mut order_by = Vec::new();
        if self.accept(&["ORDER", "BY"]) {
            order_by = self.list(|parser| {
                let parsed = parser.parser.parse_order_by_expr();
                parser.lift(parsed)
            })?;
        }
        let mut measures = Vec::new();
        if self.accept(&["MEASURES"]) {
            measures = self.list(|parser| {
                let expr = parser.expr()?;
                parser.accept(&["AS"]);
                Ok((expr, parser.ident()?))
            })?;
        }
        let rows = self.rows_per_match()?;
        let timeout_rows = self.accept(&["WITH", "TIMEOUT", "ROWS"]);
        let skip = self.after_match_skip()?;
        // Before PATTERN, ISO has INITIAL and SEEK for windows only.
        self.expect(&["PATTERN"])?;
        let pattern_start = self.index();
        self.expect_token(&Token::LParen)?;
        let pattern = self.alternation(0)?;
        self.expect_token(&Token::RParen)?;
        let pattern_span =
            Span::new(self.tokens[pattern_start].span.start, self.tokens[self.index() - 1].span.end);
        let within = self.within()?;
        let mut subsets = Vec::new();
        if self.accept(&["SUBSET"]) {
            subsets = self.list(|parser| {
                let name = parser.ident()?;
                parser.expect_token(&Token::Eq)?;
                parser.expect_token(&Token::LParen)?;
                let members = parser.list(|parser| parser.ident())?;
                parser.expect_token(&Token::RParen)?;
                Ok((name, members))
            })?;
        }
        let mut define = Vec::new();
        if self.accept(&["DEFINE"]) {
            define = self.list(|parser| {
                let name = parser.ident()?;
                parser.expect(&["AS"])?;
                Ok((name, parser.expr()?))
            })?;
        }
        Ok(MatchClauses {
            partition_by,
            order_by,
            measures,
            rows,
            timeout_rows,
            skip,
            pattern,
            pattern_span,
            within,
            subsets,
            define,
        })
    }

    fn list<T>(&mut self, mut item: impl FnMut(&mut Self) -> Result<T>) -> Result<Vec<T>> {
        let mut items = vec![item(self)?];
        while self.accept_token(&Token::Comma) {
            items.push(item(self)?);
        }
        Ok(items)
    }

    fn ident(&mut self) -> Result<ast::Ident> {
        match self.tokens.get(self.index()) {
            Some(TokenWithSpan { token: Token::Word(word), span }) => {
                let ident =
                    ast::Ident { value: word.value.clone(), quote_style: word.quote_style, span: *span };
                self.advance(1);
                Ok(ident)
            }
            _ => Err(self.unexpected().with_detail("expected a name")),
        }
    }

    fn rows_per_match(&mut self) -> Result<RowsPerMatch> {
        if self.accept(&["ONE", "ROW", "PER", "MATCH"]) {
            return Ok(RowsPerMatch::One);
        }
        if !self.accept(&["ALL", "ROWS", "PER", "MATCH"]) {
            return Ok(RowsPerMatch::One);
        }
        if self.accept(&["OMIT", "EMPTY", "MATCHES"]) {
            return Ok(RowsPerMatch::All { empty: false, unmatched: false });
        }
        if self.accept(&["WITH", "UNMATCHED", "ROWS"]) {
            return Ok(RowsPerMatch::All { empty: true, unmatched: true });
        }
        self.accept(&["SHOW", "EMPTY", "MATCHES"]);
        Ok(RowsPerMatch::All { empty: true, unmatched: false })
    }

    fn after_match_skip(&mut self) -> Result<Skip> {
        if !self.accept(&["AFTER", "MATCH"]) {
            return Ok(Skip::PastLastRow);
        }
        self.expect(&["SKIP"])?;
        if self.accept(&["PAST", "LAST", "ROW"]) {
            return Ok(Skip::PastLastRow);
        }
        self.expect(&["TO"])?;
        if self.accept(&["NEXT", "ROW"]) {
            return Ok(Skip::ToNextRow);
        }
        // FIRST and LAST may be names of variables, too.
        let named = !self.peeks_nth(1, "PATTERN");
        if named && self.accept(&["FIRST"]) {
            return Ok(Skip::ToFirst(self.ident()?));
        }
        if named {
            self.accept(&["LAST"]);
        }
        Ok(Skip::ToLast(self.ident()?))
    }

    fn within(&mut self) -> Result<Option<(i64, Span)>> {
        let start = self.index();
        if !self.accept(&["WITHIN"]) {
            return Ok(None);
        }
        let expr = self.expr()?;
        let span = Span::new(self.tokens[start].span.start, self.tokens[self.index() - 1].span.end);
        let position = self.position_of(start + 1);
        match duration::constant_us(&expr).map_err(|error| error.at(position))? {
            Some(us) if us > 0 => Ok(Some((us, span))),
            _ => Err(SqlError::new(
                SqlState::InvalidParameterValue,
                format!("WITHIN needs a constant interval greater than zero, not {expr}"),
            )
            .with_hint("write WITHIN INTERVAL '15 minutes'")
            .at(position)),
        }
    }

    // PATTERN.

    fn alternation(&mut self, depth: usize) -> Result<Pattern> {
        if depth > DEPTH_MAX {
            return Err(SqlError::new(
                SqlState::ConfigurationLimitExceeded,
                format!("parentheses in PATTERN go deeper than {DEPTH_MAX}"),
            )
            .at(self.position_of(self.index())));
        }
        let (part, mut more) = self.concat(depth)?;
        let mut parts = vec![part];
        while more || self.accept_token(&Token::Pipe) {
            let (part, again) = self.concat(depth)?;
            parts.push(part);
            more = again;
        }
        Ok(if parts.len() == 1 { parts.remove(0) } else { Pattern::Alternation(parts) })
    }

    /// Also says whether a `|` was read at its end: `a?|b` has the token `?|`.
    fn concat(&mut self, depth: usize) -> Result<(Pattern, bool)> {
        let mut parts = Vec::new();
        let mut more = false;
        let mut closed = false;
        while !more && !closed {
            let end = match self.tokens.get(self.index()).map(|token| &token.token) {
                None | Some(Token::RParen | Token::Pipe | Token::Comma) => true,
                Some(Token::Minus) => self.token_at(1, &Token::RBrace),
                _ => false,
            };
            if end {
                break;
            }
            let factor = self.factor(depth)?;
            let (factor, after) = self.quantified(factor)?;
            parts.push(factor);
            more = after == After::Pipe;
            closed = after == After::Dash;
        }
        if parts.is_empty() {
            return Err(self.unexpected().with_detail("expected a pattern variable"));
        }
        Ok((if parts.len() == 1 { parts.remove(0) } else { Pattern::Concat(parts) }, more))
    }

    fn token_at(&self, n: usize, token: &Token) -> bool {
        self.tokens.get(self.index() + n).is_some_and(|found| found.token == *token)
    }

    fn factor(&mut self, depth: usize) -> Result<Pattern> {
        if self.accept_token(&Token::LParen) {
            if self.accept_token(&Token::RParen) {
                return Ok(Pattern::Empty);
            }
            let pattern = self.alternation(depth + 1)?;
            self.expect_token(&Token::RParen)?;
            return Ok(pattern);
        }
        if self.accept_token(&Token::LBrace) {
            self.expect_token(&Token::Minus)?;
            let pattern = self.alternation(depth + 1)?;
            // `{- a? -}` ends with the tokens `?-` and `}`.
            let dash_read =
                self.tokens.get(self.index() - 1).is_some_and(|t| t.token == Token::QuestionMarkDash);
            if !dash_read {
                self.expect_token(&Token::Minus)?;
            }
            self.expect_token(&Token::RBrace)?;
            return Ok(Pattern::Exclude(Box::new(pattern)));
        }
        if self.accept_token(&Token::Caret) {
            return Ok(Pattern::PartitionStart);
        }
        if self.accept_token(&Token::Placeholder("$".to_string())) {
            return Ok(Pattern::PartitionEnd);
        }
        if self.peeks("PERMUTE") && self.token_at(1, &Token::LParen) {
            self.advance(2);
            let parts = self.list(|parser| parser.alternation(depth + 1))?;
            self.expect_token(&Token::RParen)?;
            return Ok(Pattern::Permute(parts));
        }
        if self.accept(&["NOT"]) {
            return self.absent();
        }
        Ok(Pattern::Variable(self.name()?))
    }

    /// What follows NOT: a variable or `(a | b)`.
    fn absent(&mut self) -> Result<Pattern> {
        if !self.accept_token(&Token::LParen) {
            return Ok(Pattern::Absent(vec![self.name()?]));
        }
        let mut names = vec![self.name()?];
        while self.accept_token(&Token::Pipe) {
            names.push(self.name()?);
        }
        self.expect_token(&Token::RParen)?;
        Ok(Pattern::Absent(names))
    }

    fn quantified(&mut self, pattern: Pattern) -> Result<(Pattern, After)> {
        let start = self.index();
        let question_before = |parser: &Self| {
            parser.tokens.get(parser.index().wrapping_sub(1)).map(|token| token.token.clone())
        };
        let (min, max) = if self.accept_token(&Token::Mul) {
            (0, None)
        } else if self.accept_token(&Token::Plus) {
            (1, None)
        } else if self.question() {
            match question_before(self) {
                Some(Token::QuestionPipe) => return Ok((repeat(pattern, 0, Some(1), true), After::Pipe)),
                Some(Token::QuestionMarkDash) => return Ok((repeat(pattern, 0, Some(1), true), After::Dash)),
                _ => (0, Some(1)),
            }
        } else if self.peek_token(&Token::LBrace) && !self.token_at(1, &Token::Minus) {
            self.bounds()?
        } else {
            return Ok((pattern, After::Nothing));
        };
        if matches!(pattern, Pattern::PartitionStart | Pattern::PartitionEnd | Pattern::Absent(_)) {
            return Err(SqlError::new(SqlState::SyntaxError, format!("{pattern} takes no quantifier"))
                .at(self.position_of(start)));
        }
        let greedy = !self.question();
        let after = match question_before(self) {
            Some(Token::QuestionPipe) if !greedy => After::Pipe,
            Some(Token::QuestionMarkDash) if !greedy => After::Dash,
            _ => After::Nothing,
        };
        Ok((repeat(pattern, min, max, greedy), after))
    }

    fn question(&mut self) -> bool {
        self.accept_token(&Token::Question)
            || self.accept_token(&Token::QuestionPipe)
            || self.accept_token(&Token::QuestionMarkDash)
    }

    /// `{n}`, `{n,}`, `{n,m}`, `{,m}`
    fn bounds(&mut self) -> Result<(u32, Option<u32>)> {
        let start = self.index();
        self.expect_token(&Token::LBrace)?;
        let min = self.bound();
        let bounds = if self.accept_token(&Token::Comma) {
            (min.unwrap_or(0), self.bound())
        } else {
            (min.unwrap_or(0), min)
        };
        if self.index() == start + 1 {
            return Err(self.unexpected().with_detail("expected a number"));
        }
        self.expect_token(&Token::RBrace)?;
        match bounds {
            (min, Some(max)) if max < min || max == 0 => Err(SqlError::new(
                SqlState::InvalidParameterValue,
                format!("quantifier {{{min},{max}}} matches nothing"),
            )
            .with_hint("the second bound is greater than zero and not less than the first")
            .at(self.position_of(start))),
            bounds => Ok(bounds),
        }
    }

    fn bound(&mut self) -> Option<u32> {
        let number = match self.tokens.get(self.index()).map(|token| &token.token) {
            Some(Token::Number(digits, _)) => digits.parse().ok()?,
            _ => return None,
        };
        self.advance(1);
        Some(number)
    }
}

/// What a quantifier's last token held besides it.
#[derive(Clone, Copy, PartialEq)]
enum After {
    Nothing,
    Pipe,
    Dash,
}

fn repeat(pattern: Pattern, min: u32, max: Option<u32>, greedy: bool) -> Pattern {
    Pattern::Repeat { pattern: Box::new(pattern), min, max, greedy }
}

//! Joins by time, so that sqlparser reads them: it knows Snowflake's ASOF JOIN only.
//!
//! ```text
//! ASOF LEFT JOIN b ON ...                          ASOF JOIN b MATCH_CONDITION ("asof left") ON ...
//! ASOF JOIN b MATCH_CONDITION (...) ON ...         ASOF JOIN b MATCH_CONDITION ("match left" AND ...) ON ...
//! JOIN b FOR SYSTEM_TIME AS OF a.ts AS x ON ...    ASOF JOIN b AS x MATCH_CONDITION ("history inner" AND a.ts) ON ...
//! JOIN b FOR SYSTEM_TIME AS OF PROCTIME() ON ...   ASOF JOIN b MATCH_CONDITION ("lookup inner") ON ...
//! ```

use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan};

use super::tokens::{Positions, closing, is_word};
use crate::{Result, SqlError, SqlState};

/// How a join by time was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// DuckDB's and RisingWave's: the inequality is in ON.
    On,
    /// Snowflake's: the inequality is in MATCH_CONDITION.
    Match,
    /// The SQL standard's: the right row that held at a time of the left row.
    History,
    /// The right row that is there when the left row comes.
    Lookup,
}

impl Form {
    const ALL: [Form; 4] = [Form::On, Form::Match, Form::History, Form::Lookup];

    fn name(self) -> &'static str {
        match self {
            Form::On => "asof",
            Form::Match => "match",
            Form::History => "history",
            Form::Lookup => "lookup",
        }
    }

    /// The identifier that stands for the form in MATCH_CONDITION; nobody has a column of this name.
    fn mark(self, outer: bool) -> String {
        format!("shopstream {} {}", self.name(), if outer { "left" } else { "inner" })
    }

    /// The form, and whether left rows without partner stay.
    pub(crate) fn of_mark(mark: &str) -> Option<(Form, bool)> {
        let forms = Form::ALL.into_iter().flat_map(|form| [(form, false), (form, true)]);
        forms.into_iter().find(|(form, outer)| form.mark(*outer) == mark)
    }
}

/// What stands in each token's place, where that is not itself.
type Instead = [Option<Vec<Token>>];

const ASOF_USAGE: &str = "write a ASOF [LEFT] JOIN b ON a.key = b.key AND a.time >= b.time";
const TEMPORAL_USAGE: &str =
    "write a [LEFT] JOIN b FOR SYSTEM_TIME AS OF a.time ON a.key = b.key, or AS OF PROCTIME()";

/// Rewrites the join by time that begins at the token, if one does.
///
/// # Errors
///
/// Joins by time that do not exist, and such without a condition.
pub(super) fn rewrite(
    tokens: &[TokenWithSpan],
    at: usize,
    positions: &Positions<'_>,
    instead: &mut Instead,
) -> Result<()> {
    let rewriting = Rewriting { tokens, positions };
    if rewriting.words(at, &["FOR", "SYSTEM_TIME", "AS", "OF"]) {
        return rewriting.temporal(at, instead);
    }
    if rewriting.word(at, "ASOF")
        && ["JOIN", "LEFT", "INNER", "RIGHT", "FULL"].iter().any(|w| rewriting.word(at + 1, w))
    {
        return rewriting.asof(at, instead);
    }
    Ok(())
}

struct Rewriting<'a> {
    tokens: &'a [TokenWithSpan],
    positions: &'a Positions<'a>,
}

impl Rewriting<'_> {
    fn word(&self, at: usize, word: &str) -> bool {
        self.tokens.get(at).is_some_and(|token| is_word(&token.token, word))
    }

    fn words(&self, at: usize, words: &[&str]) -> bool {
        words.iter().enumerate().all(|(offset, word)| self.word(at + offset, word))
    }

    fn error(&self, at: usize, error: SqlError) -> SqlError {
        let token = self.tokens.get(at).or(self.tokens.last());
        match token {
            Some(token) => error.at(self.positions.character(token.span.start)),
            None => error,
        }
    }

    fn syntax(&self, at: usize, message: &str, usage: &str) -> SqlError {
        self.error(at, SqlError::new(SqlState::SyntaxError, message).with_hint(usage))
    }

    fn asof(&self, at: usize, instead: &mut Instead) -> Result<()> {
        let mut join = at + 1;
        let mut kind = None;
        while !self.word(join, "JOIN") {
            for word in ["RIGHT", "FULL"] {
                if self.word(join, word) {
                    let error = SqlError::unsupported(format!("ASOF {word} JOIN is not supported"));
                    return Err(self.error(
                        join,
                        error.with_hint("each left row has one partner at most; write the side whose rows stay first, as in a ASOF LEFT JOIN b"),
                    ));
                }
            }
            if self.word(join, "LEFT") && kind.is_none() {
                kind = Some(true);
            } else if self.word(join, "INNER") && kind.is_none() {
                kind = Some(false);
            } else if !(self.word(join, "OUTER") && kind == Some(true)) {
                return Err(super::errors::near(self.tokens, join, self.positions));
            }
            instead[join] = Some(Vec::new());
            join += 1;
        }
        let clause =
            self.clause(join + 1).ok_or_else(|| self.syntax(at, "ASOF JOIN has no condition", ASOF_USAGE))?;
        if !self.word(clause, "MATCH_CONDITION") {
            self.mark(clause, Form::On, kind.unwrap_or(false), &[], instead);
            return Ok(());
        }
        if self.tokens.get(clause + 1).is_none_or(|token| token.token != Token::LParen) {
            return Err(self.syntax(clause, "MATCH_CONDITION needs a comparison in parentheses", ASOF_USAGE));
        }
        // Snowflake keeps left rows without partner.
        let mark = Token::make_word(&Form::Match.mark(kind.unwrap_or(true)), Some('"'));
        instead[clause + 1] = Some(vec![Token::LParen, mark, Token::make_keyword("AND")]);
        Ok(())
    }

    /// `FOR SYSTEM_TIME AS OF`, which begins at `at`.
    fn temporal(&self, at: usize, instead: &mut Instead) -> Result<()> {
        let join = self.join_before(at).ok_or_else(|| {
            let message = "FOR SYSTEM_TIME AS OF is supported after the right table of a JOIN only";
            self.error(at, SqlError::unsupported(message).with_hint(TEMPORAL_USAGE))
        })?;
        let time = at + 4;
        let is_proctime = self.word(time, "PROCTIME")
            && self.tokens.get(time + 1).is_some_and(|token| token.token == Token::LParen);
        let (form, end) = if is_proctime {
            let close = closing(self.tokens, time + 1).filter(|close| *close == time + 2);
            let close =
                close.ok_or_else(|| self.syntax(time, "PROCTIME() takes no arguments", TEMPORAL_USAGE))?;
            (Form::Lookup, close + 1)
        } else {
            (
                Form::History,
                self.column_end(time).ok_or_else(|| {
                    self.syntax(
                        time,
                        "FOR SYSTEM_TIME AS OF takes a column of the left side, or PROCTIME()",
                        TEMPORAL_USAGE,
                    )
                })?,
            )
        };
        let clause = self.clause(end).filter(|clause| !self.word(*clause, "MATCH_CONDITION"));
        let clause = clause.ok_or_else(|| {
            self.syntax(at, "a join FOR SYSTEM_TIME AS OF needs ON or USING", TEMPORAL_USAGE)
        })?;
        let outer = self.join_kind(join, instead)?;
        instead[join] = Some(vec![Token::make_keyword("ASOF"), Token::make_keyword("JOIN")]);
        let column: Vec<Token> = match form {
            Form::History => self.tokens[time..end].iter().map(|token| token.token.clone()).collect(),
            _ => Vec::new(),
        };
        instead[at..end].fill(Some(Vec::new()));
        self.mark(clause, form, outer, &column, instead);
        Ok(())
    }

    /// Puts MATCH_CONDITION before ON or USING.
    fn mark(&self, clause: usize, form: Form, outer: bool, column: &[Token], instead: &mut Instead) {
        let mark = Token::make_word(&form.mark(outer), Some('"'));
        let mut tokens = vec![Token::make_keyword("MATCH_CONDITION"), Token::LParen, mark];
        if !column.is_empty() {
            tokens.push(Token::make_keyword("AND"));
            tokens.extend_from_slice(column);
        }
        tokens.push(Token::RParen);
        tokens.push(self.tokens[clause].token.clone());
        instead[clause] = Some(tokens);
    }

    /// ON, USING or MATCH_CONDITION of the join whose right side begins at `from`.
    fn clause(&self, from: usize) -> Option<usize> {
        let mut depth = 0usize;
        for at in from..self.tokens.len() {
            match self.tokens[at].token {
                Token::LParen => depth += 1,
                Token::RParen => depth = depth.checked_sub(1)?,
                _ if depth > 0 => {}
                _ if ["ON", "USING", "MATCH_CONDITION"].iter().any(|word| self.word(at, word)) => {
                    return Some(at);
                }
                Token::Comma => return None,
                _ if ["JOIN", "WHERE", "GROUP", "ORDER", "UNION", "SELECT"]
                    .iter()
                    .any(|w| self.word(at, w)) =>
                {
                    return None;
                }
                _ => {}
            }
        }
        None
    }

    /// The JOIN before the table, with or without alias, that ends before `end`.
    fn join_before(&self, end: usize) -> Option<usize> {
        let tokens = self.tokens[..end].iter().enumerate().rev();
        for (at, token) in tokens {
            match &token.token {
                _ if is_word(&token.token, "JOIN") => return (at + 1 < end).then_some(at),
                _ if is_word(&token.token, "FROM") => return None,
                Token::Word(_) | Token::Period => {}
                _ => return None,
            }
        }
        None
    }

    /// Takes `[INNER | LEFT [OUTER]]` before JOIN away; whether left rows without partner stay.
    fn join_kind(&self, join: usize, instead: &mut Instead) -> Result<bool> {
        let before = |back: usize| join.checked_sub(back);
        let is = |back: usize, word: &str| before(back).is_some_and(|at| self.word(at, word));
        for word in ["RIGHT", "FULL", "CROSS", "NATURAL", "ASOF"] {
            let back = if is(1, "OUTER") { 2 } else { 1 };
            if is(back, word) {
                let message = format!("{word} JOIN with FOR SYSTEM_TIME AS OF is not supported");
                return Err(self.error(join - back, SqlError::unsupported(message).with_hint(TEMPORAL_USAGE)));
            }
        }
        let taken: &[usize] = match () {
            () if is(1, "INNER") || is(1, "LEFT") => &[1],
            () if is(1, "OUTER") && is(2, "LEFT") => &[1, 2],
            () => &[],
        };
        for back in taken {
            instead[join - back] = Some(Vec::new());
        }
        Ok(is(1, "LEFT") || taken.len() == 2)
    }

    /// The end of a column's name, with or without its table's.
    fn column_end(&self, from: usize) -> Option<usize> {
        let is_name = |at: usize| matches!(self.tokens.get(at).map(|t| &t.token), Some(Token::Word(_)));
        let mut end = from;
        loop {
            if !is_name(end) {
                return None;
            }
            end += 1;
            match self.tokens.get(end).map(|token| &token.token) {
                Some(Token::Period) => end += 1,
                Some(Token::LParen) => return None,
                _ => return Some(end),
            }
        }
    }
}

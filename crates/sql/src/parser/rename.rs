//! New names in the texts of definitions: what stands for a renamed relation or column is replaced, all else stays as it
//! was written.
//!
//! A relation read under its own name keeps that name inside the query, `FROM orders` becomes `FROM sales AS orders`, so
//! that columns qualified with it go on meaning what they meant.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    self, Expr, FunctionArg, FunctionArgExpr, FunctionArguments, Ident, TableFactor, VisitorMut,
};
use datafusion::sql::sqlparser::dialect::PostgreSqlDialect;
use datafusion::sql::sqlparser::tokenizer::{Span, Token, TokenWithSpan, Tokenizer};

use super::tokens::Positions;
use crate::walk::{for_each_expr, walk};
use crate::{DEFAULT_SCHEMA, Result, SqlError, SqlState};

/// Functions whose first argument is a relation.
const WINDOW_FUNCTIONS: [&str; 5] = ["tumble", "hop", "cumulate", "session", "gap_fill"];

/// The query with another relation in the place of `from`; `None` when it does not read it.
///
/// # Errors
/// When a WITH query has the same name, so that it can't be told which one is meant; when the text is no query.
pub fn relation_in_query(query: &str, from: &str, to: &str) -> Result<Option<String>> {
    let mut parsed = crate::parse_query(query)?;
    let mut found = Relations { from, places: Vec::new(), shadowed: false };
    let _ = walk(parsed.as_mut(), &mut found);
    if found.places.is_empty() {
        return Ok(None);
    }
    if found.shadowed {
        return Err(SqlError::new(
            SqlState::InvalidDefinition,
            format!("its query has a WITH query called \"{from}\" as well"),
        ));
    }
    let edits = found.places.into_iter().map(|(span, keep)| match keep {
        true => (span, format!("{} AS {}", quoted(to), quoted(from))),
        false => (span, quoted(to)),
    });
    Ok(Some(edited(query, edits.collect())))
}

/// The expression with another column in the place of `from`.
///
/// # Errors
/// When the text is no expression.
pub fn column_in_expr(expr: &str, from: &str, to: &str) -> Result<String> {
    let parsed = crate::parse_expr(expr)?;
    let mut spans = Vec::new();
    for_each_expr(&parsed, |expr| {
        let column = match expr {
            Expr::Identifier(column) => Some(column),
            Expr::CompoundIdentifier(parts) => parts.last(),
            _ => None,
        };
        spans.extend(column.filter(|column| name_of(column) == from).map(|column| (column.span, quoted(to))));
    });
    Ok(edited(expr, spans))
}

/// The CREATE statement with another name of what it creates.
///
/// # Errors
/// When the text is not a CREATE statement.
pub fn created(sql: &str, to: &str) -> Result<String> {
    let tokens = tokens(sql)?;
    let passed = |at: usize, words: &[&str]| {
        let all =
            words.iter().enumerate().all(|(n, word)| tokens.get(at + n).is_some_and(|t| is_word(t, word)));
        at + if all { words.len() } else { 0 }
    };
    let kind = passed(passed(1, &["OR", "REPLACE"]), &["MATERIALIZED"]);
    let at = passed(kind + 1, &["IF", "NOT", "EXISTS"]);
    let span = name_at(&tokens, Some(at))?;
    match is_word(&tokens[at], "ON") {
        // An index whose name was not written.
        true => Ok(edited(sql, vec![(Span::new(span.start, span.start), format!("{} ", quoted(to)))])),
        false => Ok(edited(sql, vec![(span, quoted(to))])),
    }
}

/// The CREATE INDEX statement over a relation of another name.
///
/// # Errors
/// When the text is not a CREATE INDEX statement.
pub fn indexed_relation(sql: &str, to: &str) -> Result<String> {
    let tokens = tokens(sql)?;
    let on = tokens.iter().position(|token| is_word(token, "ON"));
    Ok(edited(sql, vec![(name_at(&tokens, on.map(|on| on + 1))?, quoted(to))]))
}

/// The CREATE INDEX statement over a column of another name.
///
/// # Errors
/// When the text is not a CREATE INDEX statement.
pub fn indexed_column(sql: &str, from: &str, to: &str) -> Result<String> {
    let tokens = tokens(sql)?;
    let columns =
        tokens.iter().skip_while(|token| !is_word(token, "ON")).skip_while(|t| t.token != Token::LParen);
    let spans = columns.filter_map(|token| match &token.token {
        Token::Word(word) if name_of(&word.to_ident(token.span)) == from => Some((token.span, quoted(to))),
        _ => None,
    });
    Ok(edited(sql, spans.collect()))
}

struct Relations<'a> {
    from: &'a str,
    /// Where the relation is named, and whether the name has to stay as an alias.
    places: Vec<(Span, bool)>,
    shadowed: bool,
}

impl Relations<'_> {
    fn is_it(&self, names: &[&Ident]) -> Option<Span> {
        match names {
            [name] if name_of(name) == self.from => Some(name.span),
            [schema, name] if name_of(schema) == DEFAULT_SCHEMA && name_of(name) == self.from => {
                Some(Span::new(schema.span.start, name.span.end))
            }
            _ => None,
        }
    }
}

impl VisitorMut for Relations<'_> {
    type Break = ();

    fn pre_visit_query(&mut self, query: &mut ast::Query) -> ControlFlow<()> {
        let named = query.with.iter().flat_map(|with| &with.cte_tables);
        self.shadowed |= named.into_iter().any(|cte| name_of(&cte.alias.name) == self.from);
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<()> {
        match factor {
            TableFactor::Table { name, alias, args: None, .. } => {
                let names: Option<Vec<&Ident>> = name.0.iter().map(|part| part.as_ident()).collect();
                if let Some(span) = names.and_then(|names| self.is_it(&names)) {
                    self.places.push((span, alias.is_none()));
                }
            }
            TableFactor::Table { name, args: Some(arguments), .. } => {
                let function = name.0.last().and_then(|part| part.as_ident());
                if function.is_some_and(|f| WINDOW_FUNCTIONS.contains(&f.value.to_ascii_lowercase().as_str()))
                {
                    self.first_argument(&arguments.args);
                }
            }
            TableFactor::TableFunction { expr: Expr::Function(function), .. } => {
                if let FunctionArguments::List(list) = &function.args {
                    self.first_argument(&list.args);
                }
            }
            _ => {}
        }
        ControlFlow::Continue(())
    }
}

impl Relations<'_> {
    fn first_argument(&mut self, arguments: &[FunctionArg]) {
        let names: Vec<&Ident> = match arguments.first() {
            Some(FunctionArg::Unnamed(FunctionArgExpr::Expr(Expr::Identifier(name)))) => vec![name],
            Some(FunctionArg::Unnamed(FunctionArgExpr::Expr(Expr::CompoundIdentifier(names)))) => {
                names.iter().collect()
            }
            _ => return,
        };
        self.places.extend(self.is_it(&names).map(|span| (span, false)));
    }
}

fn name_of(ident: &Ident) -> String {
    match ident.quote_style {
        Some(_) => ident.value.clone(),
        None => ident.value.to_lowercase(),
    }
}

/// A name as statements write it.
pub(crate) fn quoted(name: &str) -> String {
    let word = name.to_ascii_uppercase();
    match super::errors::KEYWORDS.contains(&word.as_str()) {
        true => format!("\"{name}\""),
        false => crate::functions::quoted_name(name),
    }
}

fn tokens(sql: &str) -> Result<Vec<TokenWithSpan>> {
    let tokens = Tokenizer::new(&PostgreSqlDialect {}, sql).tokenize_with_location();
    let mut tokens = tokens.map_err(|error| SqlError::new(SqlState::SyntaxError, error.to_string()))?;
    tokens.retain(|token| !matches!(token.token, Token::Whitespace(_)));
    Ok(tokens)
}

fn is_word(token: &TokenWithSpan, expected: &str) -> bool {
    matches!(&token.token, Token::Word(word) if word.quote_style.is_none() && word.value.eq_ignore_ascii_case(expected))
}

/// The span of `name` or `schema.name` at this token.
fn name_at(tokens: &[TokenWithSpan], index: Option<usize>) -> Result<Span> {
    let none = || SqlError::internal("a definition names what it defines");
    let index = index.ok_or_else(none)?;
    let first = tokens.get(index).ok_or_else(none)?;
    match (tokens.get(index + 1), tokens.get(index + 2)) {
        (Some(period), Some(name)) if period.token == Token::Period => {
            Ok(Span::new(first.span.start, name.span.end))
        }
        _ => Ok(first.span),
    }
}

/// The text with other words at these places, which do not overlap.
fn edited(text: &str, mut edits: Vec<(Span, String)>) -> String {
    let positions = Positions::new(text);
    edits.sort_by_key(|(span, _)| positions.byte(span.start));
    edits.dedup_by_key(|(span, _)| positions.byte(span.start));
    let mut out = text.to_string();
    for (span, new) in edits.into_iter().rev() {
        out.replace_range(positions.byte(span.start)..positions.byte(span.end), &new);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn relations_keep_the_name_that_columns_are_qualified_with() {
        for (query, expected) in [
            ("SELECT orders.id FROM orders", Some("SELECT orders.id FROM sales AS orders")),
            ("SELECT o.id\nFROM Orders o, other", Some("SELECT o.id\nFROM sales o, other")),
            (
                "SELECT 'orders', orders FROM public.\"orders\" AS x",
                Some("SELECT 'orders', orders FROM sales AS x"),
            ),
            (
                "SELECT * FROM TUMBLE(orders, ts, INTERVAL '1 hour')",
                Some("SELECT * FROM TUMBLE(sales, ts, INTERVAL '1 hour')"),
            ),
            (
                "SELECT 1 FROM a WHERE x IN (SELECT orders FROM orders)",
                Some("SELECT 1 FROM a WHERE x IN (SELECT orders FROM sales AS orders)"),
            ),
            ("SELECT orders FROM a AS orders", None),
        ] {
            assert_eq!(relation_in_query(query, "orders", "sales").unwrap().as_deref(), expected, "{query}");
        }
        let shadowed = "WITH orders AS (SELECT * FROM orders) SELECT * FROM orders";
        assert!(relation_in_query(shadowed, "orders", "sales").is_err());
    }

    #[test]
    fn columns_and_created_names_are_replaced_where_they_stand() {
        assert_eq!(
            column_in_expr("a + \"A\" * f(a) || 'a'", "a", "Order").unwrap(),
            "\"Order\" + \"A\" * f(\"Order\") || 'a'"
        );
        assert_eq!(
            created("create or replace view public.v as select v", "w").unwrap(),
            "create or replace view w as select v"
        );
        assert_eq!(
            created("CREATE INDEX IF NOT EXISTS on t (a)", "w").unwrap(),
            "CREATE INDEX IF NOT EXISTS w on t (a)"
        );
        assert_eq!(created("CREATE VIEW index AS SELECT 1", "w").unwrap(), "CREATE VIEW w AS SELECT 1");
        assert_eq!(
            indexed_relation("CREATE INDEX on_x ON t (a, b)", "u").unwrap(),
            "CREATE INDEX on_x ON u (a, b)"
        );
        assert_eq!(
            indexed_column("CREATE INDEX a ON a (b, a)", "a", "select").unwrap(),
            "CREATE INDEX a ON a (b, \"select\")"
        );
    }
}

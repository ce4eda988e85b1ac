//! CREATE FUNCTION and COMMENT ON.

use datafusion::sql::sqlparser::ast;
use datafusion::sql::sqlparser::tokenizer::Token;

use super::StatementParser;
use crate::catalog::RelationId;
use crate::functions_sql::{Argument, FunctionDef};
use crate::statement::{ObjectKind, Statement};
use crate::{Result, SqlError, SqlState, types};

impl StatementParser<'_> {
    /// After `CREATE [OR REPLACE] FUNCTION`.
    pub(super) fn create_function(&mut self, or_replace: bool) -> Result<Statement> {
        let start = self.index();
        let name = self.relation()?;
        self.expect_token(&Token::LParen)?;
        let mut arguments: Vec<Argument> = Vec::new();
        while !self.accept_token(&Token::RParen) {
            if !arguments.is_empty() {
                self.expect_token(&Token::Comma)?;
            }
            let place = self.index();
            let argument = self.function_argument()?;
            if !argument.name.is_empty() && arguments.iter().any(|other| other.name == argument.name) {
                let message = format!("argument \"{}\" is there twice", argument.name);
                return Err(SqlError::new(SqlState::InvalidDefinition, message).at(self.position_of(place)));
            }
            arguments.push(argument);
        }
        if self.peeks("RETURNS") && (self.peeks_nth(1, "TABLE") || self.peeks_nth(1, "SETOF")) {
            return Err(self
                .refused("a function that returns rows", self.index())
                .with_hint("use CREATE VIEW, or a function that returns one value"));
        }
        self.expect(&["RETURNS"])?;
        let returns = self.type_named(String::new())?;
        let mut strict = false;
        let mut body: Option<String> = None;
        while !self.at_end() {
            let place = self.index();
            if self.accept(&["LANGUAGE"]) {
                let language = match self.tokens.get(self.index()).map(|token| &token.token) {
                    Some(Token::SingleQuotedString(text)) => {
                        let text = text.to_ascii_lowercase();
                        self.advance(1);
                        text
                    }
                    _ => self.name()?,
                };
                if language != "sql" {
                    return Err(self
                        .refused(&format!("LANGUAGE {language}"), place)
                        .with_hint("functions are written in SQL"));
                }
            } else if self.accept(&["STRICT"]) || self.accept(&["RETURNS", "NULL", "ON", "NULL", "INPUT"]) {
                strict = true;
            } else if self.accept(&["IMMUTABLE"])
                || self.accept(&["STABLE"])
                || self.accept(&["VOLATILE"])
                || self.accept(&["LEAKPROOF"])
                || self.accept(&["CALLED", "ON", "NULL", "INPUT"])
                || self.accept(&["PARALLEL", "SAFE"])
                || self.accept(&["PARALLEL", "UNSAFE"])
                || self.accept(&["PARALLEL", "RESTRICTED"])
            {
                // What the body does decides.
            } else if body.is_some() {
                return Err(self.unexpected());
            } else if self.accept(&["RETURN"]) {
                let start = self.index();
                self.expr()?;
                body = Some(self.text(start, self.index()).to_string());
            } else if self.accept(&["AS"]) {
                body = Some(self.quoted_body(&name)?);
            } else {
                return Err(self.unexpected());
            }
        }
        let Some(body) = body else {
            return Err(self
                .unexpected()
                .with_detail("expected the body: RETURN expression, or AS $$ SELECT expression $$"));
        };
        if name.is_empty() {
            return Err(self.unexpected().at(self.position_of(start)));
        }
        let function = FunctionDef {
            id: RelationId(0),
            name,
            arguments,
            returns,
            body,
            strict,
            calls: Vec::new(),
            sql: self.sql.to_string(),
        };
        Ok(Statement::CreateFunction { function, or_replace })
    }

    /// `name type`, or a type alone.
    fn function_argument(&mut self) -> Result<Argument> {
        self.accept(&["IN"]);
        const TWO_WORDS: [(&str, &str); 6] = [
            ("DOUBLE", "PRECISION"),
            ("CHARACTER", "VARYING"),
            ("TIMESTAMP", "WITH"),
            ("TIMESTAMP", "WITHOUT"),
            ("TIME", "WITH"),
            ("TIME", "WITHOUT"),
        ];
        let two = TWO_WORDS.iter().any(|(first, second)| self.peeks(first) && self.peeks_nth(1, second));
        let next = self.tokens.get(self.index() + 1).map(|token| &token.token);
        let alone = matches!(next, Some(Token::Comma | Token::RParen | Token::LParen | Token::LBracket));
        let name = if two || alone { String::new() } else { self.name()? };
        let argument = self.type_named(name)?;
        if self.peeks("DEFAULT") || self.peek_token(&Token::Eq) {
            return Err(self.refused("a default of a function's argument", self.index()));
        }
        Ok(argument)
    }

    fn type_named(&mut self, name: String) -> Result<Argument> {
        let start = self.index();
        let parsed = self.parser.parse_data_type();
        let parsed = self.lift(parsed)?;
        let found = types::from_ast(&parsed).map_err(|error| error.at(self.position_of(start)))?;
        Ok(Argument { name, data_type: found.data_type, sql_type: found.name })
    }

    /// `$$ SELECT expression $$`: the text of the expression.
    fn quoted_body(&mut self, name: &str) -> Result<String> {
        let place = self.index();
        let text = match self.tokens.get(place).map(|token| &token.token) {
            Some(Token::DollarQuotedString(body)) => body.value.clone(),
            Some(Token::SingleQuotedString(body)) => body.clone(),
            _ => {
                return Err(self
                    .unexpected()
                    .with_detail("expected the body in quotes or between $$ and $$"));
            }
        };
        self.advance(1);
        let text = text.trim().trim_end_matches(';').trim();
        let of_body = |error: SqlError| {
            let message = format!("body of function \"{name}\": {}", error.message);
            SqlError { message, position: None, ..error }.at(self.position_of(place))
        };
        let too_much = || {
            let message = format!("function \"{name}\" has to be SELECT and one expression");
            SqlError::unsupported(message)
                .with_hint("functions compute a value from their arguments only; for rows use CREATE VIEW")
                .at(self.position_of(place))
        };
        let words = text.split_whitespace().next().unwrap_or_default();
        if words.eq_ignore_ascii_case("return") {
            return Ok(text[words.len()..].trim().to_string());
        }
        if !words.eq_ignore_ascii_case("select") {
            return Err(too_much());
        }
        let query = crate::parse_query(text).map_err(of_body)?;
        let ast::SetExpr::Select(select) = query.body.as_ref() else { return Err(too_much()) };
        let simple = select.from.is_empty()
            && select.selection.is_none()
            && select.having.is_none()
            && select.distinct.is_none()
            && query.with.is_none()
            && query.order_by.is_none()
            && query.limit_clause.is_none();
        match select.projection.as_slice() {
            [ast::SelectItem::UnnamedExpr(expr) | ast::SelectItem::ExprWithAlias { expr, .. }] if simple => {
                Ok(expr.to_string())
            }
            _ => Err(too_much()),
        }
    }

    /// `COMMENT ON TABLE t IS 'text'`
    pub(super) fn comment(&mut self) -> Result<Statement> {
        self.expect(&["COMMENT", "ON"])?;
        let (kind, name, column) = if self.accept(&["COLUMN"]) {
            let mut parts = vec![self.name()?];
            while self.accept_token(&Token::Period) {
                parts.push(self.name()?);
            }
            let column = parts.pop();
            match parts.as_slice() {
                [name] => (None, name.clone(), column),
                [schema, name] if schema == crate::DEFAULT_SCHEMA => (None, name.clone(), column),
                _ => return Err(self.unexpected().with_detail("expected a column as relation.column")),
            }
        } else {
            let kind = self.object_kind("COMMENT ON")?;
            let name = self.relation()?;
            if kind == ObjectKind::Function {
                self.skip_signature()?;
            }
            (Some(kind), name, None)
        };
        self.expect(&["IS"])?;
        let text = match self.tokens.get(self.index()).map(|token| &token.token) {
            Some(Token::SingleQuotedString(text)) => Some(text.clone()),
            Some(Token::DollarQuotedString(text)) => Some(text.value.clone()),
            _ if self.peeks("NULL") => None,
            _ => return Err(self.unexpected().with_detail("expected a text or NULL")),
        };
        self.advance(1);
        Ok(Statement::Comment { kind, name, column, text })
    }

    /// TABLE, SOURCE, VIEW, MATERIALIZED VIEW, INDEX, FUNCTION
    pub(super) fn object_kind(&mut self, verb: &str) -> Result<ObjectKind> {
        Ok(if self.accept(&["TABLE"]) {
            ObjectKind::Table
        } else if self.accept(&["SOURCE"]) {
            ObjectKind::Source
        } else if self.accept(&["MATERIALIZED", "VIEW"]) {
            ObjectKind::MaterializedView
        } else if self.accept(&["VIEW"]) {
            ObjectKind::View
        } else if self.accept(&["INDEX"]) {
            ObjectKind::Index
        } else if self.accept(&["FUNCTION"]) {
            ObjectKind::Function
        } else {
            return Err(self.refuse_object(verb));
        })
    }

    /// `(integer, text)` behind a function's name; there is one function of a name.
    pub(super) fn skip_signature(&mut self) -> Result<()> {
        if !self.accept_token(&Token::LParen) {
            return Ok(());
        }
        while !self.accept_token(&Token::RParen) {
            self.function_argument()?;
            self.accept_token(&Token::Comma);
        }
        Ok(())
    }
}

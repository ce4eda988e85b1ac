//! SET, RESET and SHOW. Any setting is accepted here; what a setting does is the session's matter.

use datafusion::sql::sqlparser::tokenizer::Token;

use super::StatementParser;
use crate::Result;
use crate::statement::Statement;

impl StatementParser<'_> {
    pub(super) fn set(&mut self) -> Result<Statement> {
        self.expect(&["SET"])?;
        if self.accept(&["SESSION", "CHARACTERISTICS"]) {
            self.expect(&["AS", "TRANSACTION"])?;
            return self.set_to("session characteristics");
        }
        if self.accept(&["SESSION", "AUTHORIZATION"]) {
            return self.set_to("session authorization");
        }
        if !self.accept(&["SESSION"]) {
            self.accept(&["LOCAL"]);
        }
        if self.accept(&["TIME", "ZONE"]) {
            return self.set_to("timezone");
        }
        for (word, name) in [("TRANSACTION", "transaction"), ("NAMES", "client_encoding"), ("ROLE", "role")] {
            if self.accept(&[word]) {
                return self.set_to(name);
            }
        }
        let name = self.setting_name()?;
        if !self.accept(&["TO"]) {
            self.expect_token(&Token::Eq)?;
        }
        self.set_to(&name)
    }

    pub(super) fn reset(&mut self) -> Result<Statement> {
        self.expect(&["RESET"])?;
        let name = match self.accept(&["TIME", "ZONE"]) {
            true => "timezone".to_string(),
            false => self.setting_name()?,
        };
        Ok(Statement::Reset { name })
    }

    pub(super) fn show(&mut self) -> Result<Statement> {
        self.expect(&["SHOW"])?;
        let mut words = Vec::new();
        while !self.at_end() {
            words.push(self.setting_name()?);
        }
        match words.is_empty() {
            true => Err(self.unexpected()),
            false => Ok(Statement::Show(words)),
        }
    }

    fn setting_name(&mut self) -> Result<String> {
        let mut name = self.name()?;
        while self.accept_token(&Token::Period) {
            name.push('.');
            name.push_str(&self.name()?);
        }
        Ok(name)
    }

    /// Takes the rest of the statement as the value: strings without their quotes, list members
    /// joined by ", ".
    fn set_to(&mut self, name: &str) -> Result<Statement> {
        if self.at_end() {
            return Err(self.unexpected());
        }
        let mut value = String::new();
        for token in &self.tokens[self.index()..] {
            let word = match &token.token {
                Token::SingleQuotedString(text) | Token::EscapedStringLiteral(text) => text.clone(),
                Token::Comma => {
                    value.push(',');
                    continue;
                }
                other => other.to_string(),
            };
            if !value.is_empty() && !value.ends_with(['-', '+']) {
                value.push(' ');
            }
            value.push_str(&word);
        }
        self.advance(self.tokens.len() - self.index());
        Ok(Statement::Set { name: name.to_string(), value })
    }
}

//! COPY table FROM STDIN, in the spelling with options in parentheses and in the old one.

use datafusion::sql::sqlparser::tokenizer::Token;

use super::StatementParser;
use crate::statement::{CopyFormat, Statement};
use crate::{Result, SqlError, SqlState};

/// What the options said; the rest is filled in by the format.
#[derive(Default)]
struct CopyOptions {
    csv: bool,
    header: bool,
    delimiter: Option<String>,
    null: Option<String>,
}

impl StatementParser<'_> {
    pub(super) fn copy(&mut self) -> Result<Statement> {
        let start = self.index();
        self.expect(&["COPY"])?;
        if self.peek_token(&Token::LParen) {
            return Err(self
                .refused("COPY TO", start)
                .with_hint("use SELECT; psql's \\g and --csv write files"));
        }
        let table = self.relation()?;
        let columns = match self.peek_token(&Token::LParen) {
            true => self.name_list()?,
            false => Vec::new(),
        };
        if self.peeks("TO") {
            return Err(self
                .refused("COPY TO", start)
                .with_hint("use SELECT; psql's \\g and --csv write files"));
        }
        self.expect(&["FROM"])?;
        if !self.accept(&["STDIN"]) {
            let error = match self.tokens.get(self.index()).map(|token| &token.token) {
                Some(Token::SingleQuotedString(_)) | Some(Token::EscapedStringLiteral(_)) => self
                    .refused("COPY FROM a file of the server", start)
                    .with_hint("send the file from the client: psql's \\copy, or shopstream load"),
                _ if self.peeks("PROGRAM") => self.refused("COPY FROM PROGRAM", start),
                _ => self.unexpected(),
            };
            return Err(error);
        }
        let mut options = CopyOptions::default();
        self.accept(&["WITH"]);
        match self.accept_token(&Token::LParen) {
            true => self.copy_options(&mut options)?,
            false => self.old_copy_options(&mut options)?,
        }
        let delimiter = options.delimiter.unwrap_or(if options.csv { "," } else { "\t" }.to_string());
        let &[delimiter] = delimiter.as_bytes() else {
            return Err(SqlError::new(
                SqlState::InvalidParameterValue,
                "COPY delimiter must be a single one-byte character",
            )
            .at(self.position_of(start)));
        };
        Ok(Statement::CopyFrom {
            table,
            columns,
            format: if options.csv { CopyFormat::Csv } else { CopyFormat::Text },
            header: options.header,
            delimiter,
            null: options.null.unwrap_or(if options.csv { "" } else { "\\N" }.to_string()),
        })
    }

    /// `FORMAT csv, HEADER true, DELIMITER ';', NULL '')`
    fn copy_options(&mut self, options: &mut CopyOptions) -> Result<()> {
        loop {
            let start = self.index();
            let name = self.name()?;
            match name.as_str() {
                "format" => {
                    let format = self.option_text()?;
                    match format.to_lowercase().as_str() {
                        "csv" => options.csv = true,
                        "text" => options.csv = false,
                        other => return Err(self.refused(&format!("COPY format {other}"), start)),
                    }
                }
                "header" => options.header = self.option_bool()?,
                "delimiter" => options.delimiter = Some(self.option_text()?),
                "null" => options.null = Some(self.option_text()?),
                "quote" | "escape" | "encoding" => {
                    let value = self.option_text()?;
                    self.check_fixed_option(&name, &value, start)?;
                }
                "freeze" => {
                    self.option_bool()?;
                }
                other => return Err(self.refused(&format!("COPY option {}", other.to_uppercase()), start)),
            }
            if !self.accept_token(&Token::Comma) {
                return self.expect_token(&Token::RParen);
            }
        }
    }

    /// `CSV HEADER DELIMITER AS ';' NULL AS ''`
    fn old_copy_options(&mut self, options: &mut CopyOptions) -> Result<()> {
        while !self.at_end() {
            let start = self.index();
            let name = self.name()?;
            match name.as_str() {
                "csv" => options.csv = true,
                "header" => options.header = true,
                "delimiter" | "delimiters" | "null" | "quote" | "escape" | "encoding" => {
                    self.accept(&["AS"]);
                    let value = self.option_text()?;
                    match name.as_str() {
                        "null" => options.null = Some(value),
                        "quote" | "escape" | "encoding" => self.check_fixed_option(&name, &value, start)?,
                        _ => options.delimiter = Some(value),
                    }
                }
                "binary" => return Err(self.refused("COPY format binary", start)),
                _ => return Err(super::errors::near(&self.tokens, start, &self.positions)),
            }
        }
        Ok(())
    }

    /// Options that only take the value they have anyway.
    fn check_fixed_option(&self, name: &str, value: &str, start: usize) -> Result<()> {
        let fixed = match name {
            "encoding" => value.eq_ignore_ascii_case("utf8") || value.eq_ignore_ascii_case("utf-8"),
            _ => value == "\"",
        };
        match fixed {
            true => Ok(()),
            false => Err(self.refused(&format!("COPY option {} '{value}'", name.to_uppercase()), start)),
        }
    }

    fn option_text(&mut self) -> Result<String> {
        let text = match self.tokens.get(self.index()).map(|token| &token.token) {
            Some(Token::SingleQuotedString(text) | Token::EscapedStringLiteral(text)) => text.clone(),
            Some(Token::Word(word)) => word.value.clone(),
            _ => return Err(self.unexpected()),
        };
        self.advance(1);
        Ok(text)
    }

    /// A missing value means true.
    pub(super) fn option_bool(&mut self) -> Result<bool> {
        let value = match self.tokens.get(self.index()).map(|token| &token.token) {
            Some(Token::Word(word)) => word.value.to_lowercase(),
            Some(Token::SingleQuotedString(text)) => text.to_lowercase(),
            Some(Token::Number(digits, _)) => digits.clone(),
            _ => return Ok(true),
        };
        let value = match value.as_str() {
            "true" | "on" | "1" | "match" => true,
            "false" | "off" | "0" => false,
            _ => return Err(self.unexpected()),
        };
        self.advance(1);
        Ok(value)
    }
}

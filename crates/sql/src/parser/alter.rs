//! ALTER of tables, sources, views, materialized views and indexes: RENAME, and ADD COLUMN.

use datafusion::sql::sqlparser::tokenizer::Token;

use super::StatementParser;
use crate::statement::{Alteration, ObjectKind, Statement};
use crate::{Result, SqlError};

impl StatementParser<'_> {
    pub(super) fn alter(&mut self) -> Result<Statement> {
        self.expect(&["ALTER"])?;
        let kind = self.object_kind("ALTER")?;
        if kind == ObjectKind::Function {
            return Err(self
                .refused("ALTER FUNCTION", 0)
                .with_hint("use CREATE OR REPLACE FUNCTION, or drop it and create it anew"));
        }
        let if_exists = self.accept(&["IF", "EXISTS"]);
        let name = self.relation()?;
        let start = self.index();
        let change = if self.accept(&["RENAME", "TO"]) {
            Alteration::RenameTo(self.name()?)
        } else if self.accept(&["RENAME"]) {
            self.accept(&["COLUMN"]);
            let from = self.name()?;
            self.expect(&["TO"])?;
            Alteration::RenameColumn { from, to: self.name()? }
        } else if self.accept(&["ADD"]) {
            self.accept(&["COLUMN"]);
            let if_not_exists = self.if_not_exists();
            Alteration::AddColumn { column: self.added_column()?, if_not_exists }
        } else {
            return Err(self.refuse_alteration(start));
        };
        if self.peek_token(&Token::Comma) {
            return Err(self
                .refused("several changes in one ALTER", start)
                .with_hint("write an ALTER statement for each"));
        }
        Ok(Statement::Alter { kind, name, if_exists, change })
    }

    fn refuse_alteration(&self, start: usize) -> SqlError {
        let hint = "ADD COLUMN, RENAME COLUMN and RENAME TO are; for other changes create a table anew and INSERT INTO it";
        match self.tokens.get(start).map(|token| &token.token) {
            Some(Token::Word(word)) => {
                self.refused(&format!("ALTER ... {}", word.value.to_ascii_uppercase()), start).with_hint(hint)
            }
            _ => self.unexpected().with_hint(hint),
        }
    }
}

//! A pack: a folder of SQL files that define tables and views.
//!
//! ```text
//!   tables/*.sql ──┐                               new        -> created
//!                  ├─ parse ─ order by dependency ─ same       -> left alone
//!   views/*.sql  ──┘                               different  -> reported, not touched
//! ```
//!
//! A pack file holds CREATE statements only. Applying a pack twice changes nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use engine::{Database, Outcome};
use sql::{ParsedStatement, SqlError, Statement};

use crate::failure::{Failure, Result};

/// A statement of a pack and where it stands.
#[derive(Debug)]
pub struct PackStatement {
    pub path: PathBuf,
    pub statement: ParsedStatement,
    /// What it creates.
    pub name: String,
    /// Names of tables and views that it may read.
    mentions: BTreeSet<String>,
}

/// Statements in the order in which they can be applied.
#[derive(Debug)]
pub struct Pack {
    pub statements: Vec<PackStatement>,
    texts: BTreeMap<PathBuf, String>,
}

/// What applying a pack did.
#[derive(Debug, Default, PartialEq)]
pub struct Applied {
    pub created: Vec<String>,
    pub unchanged: Vec<String>,
    /// Defined differently in the database: the name and the file.
    pub different: Vec<(String, PathBuf)>,
}

impl Pack {
    /// Reads and parses all files of a pack.
    ///
    /// # Errors
    /// All of the files' syntax errors at once, each as `file:line:column: message`.
    pub fn read(folder: &Path) -> Result<Pack> {
        let mut pack = Pack { statements: vec![], texts: BTreeMap::new() };
        let mut errors = vec![];
        for part in ["tables", "views"] {
            let mut statements = vec![];
            for path in sql_files(&folder.join(part))? {
                let text = std::fs::read_to_string(&path)
                    .map_err(|error| Failure::usage(format!("read {}: {error}", path.display())))?;
                match read_file(&path, &text) {
                    Ok(read) => statements.extend(read),
                    Err(error) => errors.push(locate(&path, &text, &error)),
                }
                pack.texts.insert(path, text);
            }
            pack.statements.extend(in_order(statements)?);
        }
        if !errors.is_empty() {
            return Err(Failure::failed(errors.join("\n")));
        }
        if pack.statements.is_empty() {
            return Err(Failure::usage(format!("pack {} has no SQL files", folder.display()))
                .hint("a pack is a folder with tables/*.sql and views/*.sql"));
        }
        Ok(pack)
    }

    /// Creates what is missing.
    ///
    /// # Errors
    /// All statements that cannot be planned, each as `file:line:column: message`; those before them are applied.
    pub async fn apply(&self, db: &Arc<Database>) -> Result<Applied> {
        let mut applied = Applied::default();
        let mut errors = vec![];
        let session = db.session();
        for item in &self.statements {
            if let Some(existing) = db.relation(&item.name) {
                if same_definition(&existing.sql, &item.statement.sql) {
                    applied.unchanged.push(item.name.clone());
                } else {
                    applied.different.push((item.name.clone(), item.path.clone()));
                }
                continue;
            }
            match session.run(&item.statement, vec![]).await {
                Ok(Outcome::Command { .. }) => applied.created.push(item.name.clone()),
                Ok(_) => errors.push(format!("{}: {} gave rows", item.path.display(), item.name)),
                Err(error) => {
                    errors.push(locate(&item.path, &self.texts[&item.path], &error));
                }
            }
        }
        if errors.is_empty() { Ok(applied) } else { Err(Failure::failed(errors.join("\n"))) }
    }
}

/// The `.sql` files of a folder by name; none if there is no folder.
fn sql_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(vec![]),
        Err(error) => return Err(Failure::usage(format!("read pack folder {}: {error}", folder.display()))),
    };
    let mut files = vec![];
    for entry in entries {
        let path = entry.map_err(|error| Failure::io("read pack folder", folder.display(), &error))?.path();
        if path.extension().is_some_and(|extension| extension == "sql") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn read_file(path: &Path, text: &str) -> Result<Vec<PackStatement>, SqlError> {
    let mut statements = vec![];
    for statement in sql::parse(text)? {
        let name = match &statement.statement {
            Statement::CreateTable { table, .. } => table.name.clone(),
            Statement::CreateView { view, .. } => view.name.clone(),
            Statement::CreateIndex { index, if_not_exists: true } => index.name.clone(),
            Statement::CreateIndex { index, .. } => {
                return Err(SqlError::new(
                    sql::SqlState::InvalidDefinition,
                    format!("index \"{}\" of a pack may exist already", index.name),
                )
                .with_hint("write CREATE INDEX IF NOT EXISTS")
                .at(statement.offset + 1));
            }
            _ => {
                return Err(SqlError::new(
                    sql::SqlState::FeatureNotSupported,
                    "a pack holds only CREATE TABLE, CREATE VIEW, CREATE MATERIALIZED VIEW and CREATE INDEX",
                )
                .at(statement.offset + 1));
            }
        };
        let mut mentions: BTreeSet<String> = words(&statement.sql).map(str::to_lowercase).collect();
        mentions.remove(&name);
        statements.push(PackStatement { path: path.to_path_buf(), statement, name, mentions });
    }
    Ok(statements)
}

/// Puts what is mentioned before what mentions it; otherwise the order stays.
fn in_order(mut waiting: Vec<PackStatement>) -> Result<Vec<PackStatement>> {
    let mut ordered = vec![];
    while !waiting.is_empty() {
        let names: BTreeSet<String> = waiting.iter().map(|item| item.name.clone()).collect();
        let Some(next) = waiting.iter().position(|item| item.mentions.is_disjoint(&names)) else {
            let names: Vec<String> = names.into_iter().collect();
            return Err(Failure::failed(format!("definitions depend on each other: {}", names.join(", "))));
        };
        ordered.push(waiting.remove(next));
    }
    Ok(ordered)
}

/// Equal but for comments, white space and upper or lower case outside quotes.
fn same_definition(left: &str, right: &str) -> bool {
    let tokens = |sql: &str| {
        words(sql)
            .map(|word| if word.starts_with(['\'', '"']) { word.to_string() } else { word.to_lowercase() })
            .filter(|word| word != ";")
            .collect::<Vec<_>>()
    };
    tokens(left) == tokens(right)
}

/// Words, numbers, signs and quoted texts of an SQL text, without comments and white space.
fn words(sql: &str) -> impl Iterator<Item = &str> {
    let mut rest = sql;
    std::iter::from_fn(move || {
        loop {
            rest = rest.trim_start();
            if let Some(comment) = rest.strip_prefix("--") {
                rest = comment.split_once('\n').map_or("", |(_, after)| after);
            } else if let Some(comment) = rest.strip_prefix("/*") {
                rest = comment.split_once("*/").map_or("", |(_, after)| after);
            } else {
                break;
            }
        }
        let first = rest.chars().next()?;
        let length = match first {
            '\'' | '"' => rest[1..].find(first).map_or(rest.len(), |end| end + 2),
            c if c.is_alphanumeric() || c == '_' => {
                rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len())
            }
            c => c.len_utf8(),
        };
        let (word, after) = rest.split_at(length);
        rest = after;
        Some(word)
    })
}

/// `file:line:column: message`, with the hint.
fn locate(path: &Path, text: &str, error: &SqlError) -> String {
    let position = match error.position {
        Some(position) => {
            let before: String = text.chars().take(position.saturating_sub(1)).collect();
            let line = 1 + before.matches('\n').count();
            let column = 1 + before.chars().rev().take_while(|c| *c != '\n').count();
            format!(":{line}:{column}")
        }
        None => String::new(),
    };
    let hint = error.hint.as_ref().map_or(String::new(), |hint| format!("\n  hint: {hint}"));
    format!("{}{position}: {}{hint}", path.display(), error.message)
}

/// Prints what was done, and what is to be done about definitions that differ.
pub fn report(applied: &Applied) {
    for name in &applied.created {
        tracing::info!(name, "created");
    }
    for (name, path) in &applied.different {
        tracing::warn!(
            name,
            file = %path.display(),
            "the definition in the pack differs from the one in the database, which stays in force; to take the \
             new one, DROP the relation (what is derived from it goes with CASCADE) and start again"
        );
    }
    tracing::info!(
        created = applied.created.len(),
        unchanged = applied.unchanged.len(),
        different = applied.different.len(),
        "pack applied"
    );
}

#[cfg(test)]
mod tests;

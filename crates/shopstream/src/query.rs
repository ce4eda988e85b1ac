//! `shopstream sql`: runs SQL over the Postgres wire and prints what comes back.
//!
//! Statements go through the simple protocol, several at once, as psql sends them; values come as PostgreSQL's
//! text. Results go to standard output, everything else to standard error.

mod print;

use std::io::{BufRead, IsTerminal, Read, Write};

use futures::TryStreamExt;
use tokio_postgres::error::{DbError, ErrorPosition};
use tokio_postgres::{AsyncMessage, NoTls, SimpleQueryMessage};

use self::print::ResultSet;
use crate::cli::{ResultFormat, SqlFlags};
use crate::config::{ClientSettings, Config};
use crate::failure::{Failure, Result};

pub fn run(flags: &SqlFlags, config: &Config) -> Result {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::io("start", "the client", &error))?;
    runtime.block_on(async {
        let client = connect(flags, config).await?;
        for sql in &flags.commands {
            execute(&client, sql, flags.format).await?;
        }
        if let Some(path) = &flags.file {
            let sql =
                std::fs::read_to_string(path).map_err(|error| Failure::io("read", path.display(), &error))?;
            execute(&client, &sql, flags.format).await?;
        }
        if !flags.commands.is_empty() || flags.file.is_some() {
            return Ok(());
        }
        if std::io::stdin().is_terminal() {
            return converse(&client, flags.format).await;
        }
        let mut sql = String::new();
        std::io::stdin()
            .read_to_string(&mut sql)
            .map_err(|error| Failure::io("read", "standard input", &error))?;
        execute(&client, &sql, flags.format).await
    })
}

async fn connect(flags: &SqlFlags, config: &Config) -> Result<tokio_postgres::Client> {
    let address = match &flags.server {
        Some(address) => address.clone(),
        None => config.get("pg").unwrap_or_default().to_string(),
    };
    let expected = || {
        Failure::usage(format!("bad server address {address}"))
            .hint("give HOST:PORT of the Postgres interface, or postgres://root@HOST:PORT/dev")
    };
    let mut target = if address.contains("://") {
        address.parse::<tokio_postgres::Config>().map_err(|_| expected())?
    } else {
        let (host, port) = address.rsplit_once(':').ok_or_else(expected)?;
        let mut target = tokio_postgres::Config::new();
        target.host(host.trim_matches(['[', ']'])).port(port.parse().map_err(|_| expected())?);
        target
    };
    if target.get_user().is_none() {
        target.user("root");
    }
    if target.get_dbname().is_none() {
        target.dbname("dev");
    }
    if let Some(token) = ClientSettings::new(config)?.token.filter(|_| target.get_password().is_none()) {
        target.password(token);
    }
    target.application_name("shopstream").connect_timeout(std::time::Duration::from_secs(5));
    let (client, mut connection) =
        target.connect(NoTls).await.map_err(|error| match error.as_db_error() {
            Some(refusal) => {
                Failure::failed(format!("{address} refused the connection: {}", refusal.message()))
            }
            None => Failure::failed(format!("connect to {address}: {}", with_source(&error)))
                .hint("is the server running? --server names its Postgres address"),
        })?;
    tokio::spawn(async move {
        loop {
            match std::future::poll_fn(|context| connection.poll_message(context)).await {
                Some(Ok(AsyncMessage::Notice(notice))) => {
                    let hint = notice.hint().map_or(String::new(), |hint| format!("\nhint: {hint}"));
                    eprintln!("{}: {}{hint}", notice.severity().to_lowercase(), notice.message());
                }
                Some(Ok(_)) => {}
                Some(Err(error)) => {
                    tracing::debug!(%error, "connection ended");
                    return;
                }
                None => return,
            }
        }
    });
    Ok(client)
}

/// The cause stands in the source of tokio_postgres errors.
fn with_source(error: &tokio_postgres::Error) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

/// Runs all statements of `sql` and prints each result as soon as it is complete.
async fn execute(client: &tokio_postgres::Client, sql: &str, format: ResultFormat) -> Result {
    let failed = |error: tokio_postgres::Error| match error.as_db_error() {
        Some(error) => describe(error, sql),
        None => Failure::failed(with_source(&error)),
    };
    // The simple protocol does not tell types; JSON needs them to tell the number 1 from the text 1. Asking for
    // them works for a single statement with rows, the others print text.
    let types = match format {
        ResultFormat::Json => client.prepare(sql).await.ok().map(|statement| {
            statement.columns().iter().map(|column| column.type_().name().to_string()).collect::<Vec<_>>()
        }),
        _ => None,
    };
    let messages = client.simple_query_raw(sql).await.map_err(failed)?;
    let mut messages = std::pin::pin!(messages);
    let mut result: Option<ResultSet> = None;
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    let written = |error: std::io::Error| Failure::io("write to", "standard output", &error);
    loop {
        let message = match messages.try_next().await {
            Ok(Some(message)) => message,
            Ok(None) => break,
            Err(error) => {
                out.flush().map_err(written)?;
                return Err(failed(error));
            }
        };
        match message {
            SimpleQueryMessage::RowDescription(columns) => {
                let names = columns.iter().map(|column| column.name().to_string()).collect();
                result = Some(ResultSet::new(names, types.clone(), format));
            }
            SimpleQueryMessage::Row(row) => {
                if let Some(result) = &mut result {
                    let values = (0..row.len()).map(|index| row.get(index).map(str::to_string)).collect();
                    result.add(values, &mut out).map_err(written)?;
                }
            }
            SimpleQueryMessage::CommandComplete(count) => match result.take() {
                Some(result) => result.end(&mut out).map_err(written)?,
                None if count > 0 => eprintln!("ok, {count} rows"),
                None => eprintln!("ok"),
            },
            _ => {}
        }
    }
    out.flush().map_err(written)
}

/// The error as people need it: message, the line with a caret, detail and hint.
fn describe(error: &DbError, sql: &str) -> Failure {
    let mut message = format!("{} ({})", error.message(), error.code().code());
    if let Some(ErrorPosition::Original(position)) = error.position() {
        message.push_str(&point_at(sql, *position as usize));
    }
    if let Some(detail) = error.detail() {
        message.push_str(&format!("\ndetail: {detail}"));
    }
    Failure { hint: error.hint().map(str::to_string), ..Failure::failed(message) }
}

/// The line of a 1-based character position with a caret under it.
fn point_at(sql: &str, position: usize) -> String {
    let mut start = 0;
    for (index, line) in sql.split('\n').enumerate() {
        let length = line.chars().count();
        if position.saturating_sub(1) <= start + length {
            let column = position.saturating_sub(1).saturating_sub(start);
            let label = format!("line {}: ", index + 1);
            // Tabs stay tabs, so that the caret stands where the terminal puts the character.
            let gap: String = line.chars().take(column).map(|c| if c == '\t' { '\t' } else { ' ' }).collect();
            return format!("\n{label}{line}\n{}{gap}^", " ".repeat(label.len()));
        }
        start += length + 1;
    }
    String::new()
}

/// Statements typed one after another; each ends with a semicolon at the end of a line.
async fn converse(client: &tokio_postgres::Client, format: ResultFormat) -> Result {
    eprintln!("End a statement with ; and the session with Ctrl-D.");
    let mut statement = String::new();
    for line in std::iter::once(Ok(String::new())).chain(std::io::stdin().lock().lines()) {
        let line = line.map_err(|error| Failure::io("read", "standard input", &error))?;
        statement.push_str(&line);
        statement.push('\n');
        if statement.trim_end().ends_with(';') {
            if let Err(failure) = execute(client, &statement, format).await {
                eprintln!("{failure}");
            }
            statement.clear();
        }
        eprint!("{}", if statement.trim().is_empty() { "dev=> " } else { "dev-> " });
    }
    eprintln!();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn carets_stand_under_the_character() {
        let sql = "SELECT 1;\nSELECT é FROM x";
        assert_eq!(point_at(sql, 1), "\nline 1: SELECT 1;\n        ^");
        assert_eq!(point_at(sql, 25), "\nline 2: SELECT é FROM x\n                      ^");
        assert_eq!(point_at(sql, 26), "\nline 2: SELECT é FROM x\n                       ^");
        assert_eq!(point_at(sql, 999), "");
    }
}

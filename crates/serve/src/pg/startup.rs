//! From the first byte to the first ReadyForQuery: encryption wishes, who the client is, which database it
//! wants, and what it must know of the server.

use std::sync::Arc;

use engine::Session;
use pgwire::messages::response::{ReadyForQuery, SslResponse, TransactionStatus};
use pgwire::messages::startup::{
    Authentication, BackendKeyData, NegotiateProtocolVersion, ParameterStatus, SecretKey,
};
use tokio::sync::OwnedSemaphorePermit;
use tracing::info;

use super::errors::{PgError, code};
use super::frontend::{Body, STARTUP_BYTES_MAX, Startup};
use super::wire::Wire;
use super::{Backend, DATABASE, SERVER_VERSION, Server, USER, random_bytes, scram};

/// A client that was let in.
pub struct Started {
    pub session: Session,
    pub backend: Arc<Backend>,
    /// Its place among the `connections_max`.
    pub place: OwnedSemaphorePermit,
}

/// TLS and GSS may each be asked for once.
const ENCRYPTION_WISHES_MAX: usize = 2;

/// `None`: there is no session; what was to be said has been sent.
pub async fn start(wire: &mut Wire, server: &Arc<Server>) -> Option<Started> {
    match try_start(wire, server).await {
        Ok(started) => started,
        Err(error) => {
            info!(code = error.code, reason = error.message, "refused Postgres connection");
            wire.put_error(error);
            wire.flush().await;
            None
        }
    }
}

async fn try_start(wire: &mut Wire, server: &Arc<Server>) -> Result<Option<Started>, PgError> {
    let mut wishes = 0;
    let (minor_version, parameters) = loop {
        match wire.startup().await? {
            None => return Ok(None),
            Some(Startup::Encryption) => {
                wishes += 1;
                if wishes > ENCRYPTION_WISHES_MAX || wire.has_unread_input() {
                    return Err(PgError::fatal(
                        code::PROTOCOL_VIOLATION,
                        "received data after a request for encryption",
                    ));
                }
                wire.put(SslResponse::Refuse);
                if !wire.flush().await {
                    return Ok(None);
                }
            }
            Some(Startup::Cancel { process, secret }) => {
                server.backends.cancel(process, secret);
                return Ok(None);
            }
            Some(Startup::Session { minor_version, parameters }) => break (minor_version, parameters),
        }
    };
    let Ok(place) = Arc::clone(&server.connections).try_acquire_owned() else {
        return Err(PgError::fatal(code::TOO_MANY_CONNECTIONS, "sorry, too many clients already").with_hint(
            format!("at most {} connections are open at once; use a connection pool", server.connections_max),
        ));
    };
    let parameter = |name: &str| parameters.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str());
    let user = parameter("user").unwrap_or_default();
    negotiate(wire, minor_version, &parameters);
    match &server.verifier {
        Some(verifier) => {
            if !authenticate(wire, verifier, user).await? {
                return Ok(None);
            }
        }
        None if user == USER => {}
        None => {
            return Err(PgError::fatal(
                code::INVALID_AUTHORIZATION,
                format!("role \"{user}\" does not exist"),
            )
            .with_hint(format!("use user \"{USER}\"")));
        }
    }
    let database = parameter("database").filter(|name| !name.is_empty()).unwrap_or(user);
    if database != DATABASE {
        return Err(PgError::fatal(
            code::UNKNOWN_DATABASE,
            format!("database \"{database}\" does not exist"),
        )
        .with_hint(format!("use database \"{DATABASE}\"")));
    }
    if parameter("replication").is_some_and(|value| !["false", "off", "no", "0"].contains(&value)) {
        return Err(PgError::fatal(code::FEATURE_NOT_SUPPORTED, "replication connections are not supported"));
    }
    let session = server.db.session();
    for (name, value) in settings(&parameters)? {
        set(&session, &name, &value).await?;
    }
    let backend =
        server.backends.open().map_err(|error| PgError::fatal(code::INTERNAL, error.to_string()))?;
    greet(wire, &session, &backend);
    Ok(Some(Started { session, backend, place }))
}

/// The newest protocol spoken, as clients of PostgreSQL read it: major version in the upper half.
const PROTOCOL_3_0: i32 = 3 << 16;

/// Clients may ask for a newer protocol or for extensions; they are told what there is.
fn negotiate(wire: &mut Wire, minor_version: u16, parameters: &[(String, String)]) {
    let extensions: Vec<String> =
        parameters.iter().map(|(name, _)| name).filter(|name| name.starts_with("_pq_.")).cloned().collect();
    if minor_version > 0 || !extensions.is_empty() {
        wire.put(NegotiateProtocolVersion::new(PROTOCOL_3_0, extensions));
    }
}

/// SCRAM-SHA-256; false when the client is gone.
async fn authenticate(wire: &mut Wire, verifier: &scram::Verifier, user: &str) -> Result<bool, PgError> {
    let refused = || {
        PgError::fatal(code::INVALID_PASSWORD, format!("password authentication failed for user \"{user}\""))
    };
    wire.put(Authentication::SASL(vec![scram::MECHANISM.to_string()]));

    let Some(body) = password_message(wire).await? else { return Ok(false) };
    let mut body = Body::new("SASL", body);
    if body.text()? != scram::MECHANISM {
        return Err(PgError::fatal(
            code::PROTOCOL_VIOLATION,
            "client selected an invalid SASL authentication mechanism",
        ));
    }
    let first = body.value()?.ok_or_else(refused)?;
    let nonce: [u8; 18] =
        random_bytes().map_err(|error| PgError::fatal(code::INTERNAL, error.to_string()))?;
    let exchange = std::str::from_utf8(&first)
        .ok()
        .and_then(|first| scram::begin(verifier, first, &nonce))
        .ok_or_else(|| PgError::fatal(code::PROTOCOL_VIOLATION, "malformed SCRAM message"))?;
    wire.put(Authentication::SASLContinue(exchange.server_first().to_string().into()));

    let Some(last) = password_message(wire).await? else { return Ok(false) };
    let signature = std::str::from_utf8(&last)
        .ok()
        .and_then(|last| exchange.finish(verifier, last))
        // A wrong name is found out only here, so that names cannot be told from passwords.
        .filter(|_| user == USER)
        .ok_or_else(refused)?;
    wire.put(Authentication::SASLFinal(signature.into()));
    Ok(true)
}

async fn password_message(wire: &mut Wire) -> Result<Option<bytes::Bytes>, PgError> {
    match wire.frame(STARTUP_BYTES_MAX).await? {
        None => Ok(None),
        Some(frame) if frame.kind == b'p' => Ok(Some(frame.body)),
        Some(frame) => Err(PgError::fatal(
            code::PROTOCOL_VIOLATION,
            format!("expected SASL response, got message type {}", frame.kind),
        )),
    }
}

/// Settings of the startup message: those named directly and those in `options`.
fn settings(parameters: &[(String, String)]) -> Result<Vec<(String, String)>, PgError> {
    let mut settings = Vec::new();
    for (name, value) in parameters {
        match name.as_str() {
            "user" | "database" | "replication" => {}
            "options" => settings.extend(options(value)?),
            name if name.starts_with("_pq_.") => {}
            name => settings.push((name.to_string(), value.clone())),
        }
    }
    Ok(settings)
}

/// `-c name=value --name=value`; a backslash keeps a space from ending the word.
fn options(text: &str) -> Result<Vec<(String, String)>, PgError> {
    let mut words = vec![String::new()];
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' => words.last_mut().expect("one at least").extend(characters.next()),
            c if c.is_ascii_whitespace() => words.push(String::new()),
            c => words.last_mut().expect("one at least").push(c),
        }
    }
    let mut words = words.into_iter().filter(|word| !word.is_empty());
    let mut settings = Vec::new();
    while let Some(word) = words.next() {
        let assignment = match word.as_str() {
            "-c" => words.next().unwrap_or_default(),
            _ => match word.strip_prefix("--").or_else(|| word.strip_prefix("-c")) {
                Some(rest) => rest.to_string(),
                None => word.clone(),
            },
        };
        let (name, value) =
            assignment.split_once('=').filter(|_| word.starts_with('-')).ok_or_else(|| {
                PgError::fatal(
                    code::SYNTAX_ERROR,
                    format!("invalid command-line argument for server process: {word}"),
                )
            })?;
        settings.push((name.replace('-', "_"), value.to_string()));
    }
    Ok(settings)
}

/// Sets it as a SET statement would; drivers set many that mean nothing here.
async fn set(session: &Session, name: &str, value: &str) -> Result<(), PgError> {
    let fatal = |error: PgError| PgError { severity: super::errors::Severity::Fatal, ..error };
    if !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '.') || name.is_empty() {
        return Err(PgError::fatal(code::SYNTAX_ERROR, format!("invalid setting name \"{name}\"")));
    }
    check_setting(name, value).map_err(fatal)?;
    let sql = format!("SET {name} = '{}'", value.replace('\'', "''"));
    let statements = session.parse(&sql).map_err(|error| fatal(error.into()))?;
    for statement in &statements {
        session.run(statement, Vec::new()).await.map_err(|error| fatal(error.into()))?;
    }
    Ok(())
}

/// Refuses settings that we would not follow and whose disregard would corrupt data.
pub fn check_setting(name: &str, value: &str) -> Result<(), PgError> {
    let value = value.trim_matches(['\'', '"']).to_ascii_lowercase().replace(['-', '_'], "");
    if name.eq_ignore_ascii_case("client_encoding")
        && !["utf8", "unicode", "default", "sqlascii"].contains(&value.as_str())
    {
        return Err(PgError::error(
            code::INVALID_PARAMETER_VALUE,
            format!("client encoding \"{value}\" is not supported"),
        )
        .with_hint("use UTF8"));
    }
    Ok(())
}

/// Settings that clients are told at the start and whenever they change, with the values they begin with.
pub const REPORTED: [(&str, &str); 11] = [
    ("server_version", SERVER_VERSION),
    ("server_encoding", "UTF8"),
    ("client_encoding", "UTF8"),
    ("DateStyle", "ISO, MDY"),
    ("TimeZone", "UTC"),
    ("IntervalStyle", "postgres"),
    ("integer_datetimes", "on"),
    ("standard_conforming_strings", "on"),
    ("is_superuser", "off"),
    ("session_authorization", USER),
    ("application_name", ""),
];

fn greet(wire: &mut Wire, session: &Session, backend: &Backend) {
    wire.put(Authentication::Ok);
    for (name, value) in REPORTED {
        let chosen = (name == "application_name").then(|| session.setting(name)).flatten();
        put_parameter_status(wire, name, chosen.unwrap_or_else(|| value.to_string()));
    }
    wire.put(BackendKeyData::new(backend.process, SecretKey::I32(backend.secret)));
    wire.put(ReadyForQuery::new(TransactionStatus::Idle));
}

/// Longest value that clients are told; names of applications are the only ones they choose.
const STATUS_BYTES_MAX: usize = 1_000;

pub fn put_parameter_status(wire: &mut Wire, name: &str, mut value: String) {
    value.retain(|c| c != '\0');
    let end = (0..=STATUS_BYTES_MAX.min(value.len())).rev().find(|i| value.is_char_boundary(*i)).unwrap_or(0);
    value.truncate(end);
    wire.put(ParameterStatus::new(name.to_string(), value));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_read_in_all_their_spellings() {
        let read = |text: &str| {
            options(text).map(|s| s.into_iter().map(|(n, v)| format!("{n}={v}")).collect::<Vec<_>>())
        };
        assert_eq!(
            read("-c statement_timeout=5s  --lock-timeout=1 -cgeqo=off").unwrap(),
            ["statement_timeout=5s", "lock_timeout=1", "geqo=off"]
        );
        assert_eq!(read(r"-c search_path=a\ b\\c").unwrap(), [r"search_path=a b\c"]);
        assert_eq!(read("").unwrap(), [""; 0]);
        for broken in ["-c", "-c x", "x=1", "--x"] {
            assert_eq!(read(broken).unwrap_err().code, code::SYNTAX_ERROR, "{broken}");
        }
    }

    #[test]
    fn only_utf8_is_spoken() {
        for ok in ["UTF8", "utf-8", "'UTF8'", "Unicode", "SQL_ASCII"] {
            assert_eq!(check_setting("client_encoding", ok), Ok(()), "{ok}");
        }
        assert_eq!(
            check_setting("CLIENT_ENCODING", "LATIN1").unwrap_err().code,
            code::INVALID_PARAMETER_VALUE
        );
        assert_eq!(check_setting("application_name", "LATIN1"), Ok(()));
    }
}

//! `shopstream serve`: opens the database, applies the pack, listens, and stops cleanly.
//!
//! ```text
//!   settings ─ open data directory ─ pack ─ listen (HTTP, Postgres) ─ `ready` lines ─ signal ─ drain ─ shutdown
//! ```

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use engine::Database;
use sql::SqlState;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::config::{Config, ServerSettings};
use crate::failure::{Exit, Failure, Result};
use crate::pack::{self, Pack};
use crate::stop;

/// The last checkpoint gets this long after a signal; without it the next start reads more.
const LAST_CHECKPOINT: Duration = Duration::from_secs(20);
/// Requests get this long to end after a signal; what is acknowledged is on disk anyway.
const DRAIN: Duration = Duration::from_secs(8);

pub fn run(config: &Config) -> Result {
    let settings = ServerSettings::new(config)?;
    // A pack with a mistake is found before anything is started.
    let pack = settings.pack.as_deref().map(Pack::read).transpose()?;
    let db = open(&settings)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("serve")
        .build()
        .map_err(|error| Failure::io("start", "the server's threads", &error))?;
    let result = runtime.block_on(serve(&db, pack, &settings));
    if !settings.checkpoint_interval.is_zero() {
        // The next start has nothing to read then.
        match runtime.block_on(async { tokio::time::timeout(LAST_CHECKPOINT, db.checkpoint()).await }) {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "the last checkpoint could not be written"),
            Err(_) => {
                tracing::warn!("the last checkpoint took too long; the next start reads more of the log")
            }
        }
    }
    // Queries that do not end by themselves are not waited for.
    runtime.shutdown_timeout(Duration::from_secs(1));
    db.shutdown();
    result
}

fn open(settings: &ServerSettings) -> Result<Arc<Database>> {
    let options = engine::Options {
        workers: settings.workers,
        memory_bytes: settings.memory_bytes,
        checkpoint_interval: settings.checkpoint_interval,
        ..engine::Options::new(&settings.data_dir)
    };
    Database::open(options).map_err(|error| {
        let exit = match error.state {
            SqlState::DataCorrupted => Exit::Damaged,
            SqlState::CannotConnectNow => Exit::Busy,
            _ => Exit::Failed,
        };
        let message = format!("open data directory {}: {}", settings.data_dir.display(), error.message);
        Failure { exit, message, hint: error.hint }
    })
}

async fn serve(db: &Arc<Database>, pack: Option<Pack>, settings: &ServerSettings) -> Result {
    let connectors = Arc::new(connectors::source::Registry);
    db.attach_connectors(connectors).map_err(|e| Failure::failed(format!("start the sources: {e}")))?;
    if let Some(pack) = pack {
        pack::report(&pack.apply(db).await?);
    }
    let http = listen("http", settings.http).await?;
    let pg = listen("pg", settings.pg).await?;
    let (http_address, pg_address) = (address(&http)?, address(&pg)?);

    let (stopping, stopped) = watch::channel(false);
    let until = |mut stopped: watch::Receiver<bool>| async move {
        // An error means that the sender is gone, which is a stop as well.
        let _ = stopped.wait_for(|stopped| *stopped).await;
    };
    let mut http = tokio::spawn(serve::http::serve(
        http,
        Arc::clone(db),
        http_config(settings)?,
        until(stopped.clone()),
    ));
    let pg_config = serve::pg::PgConfig { password: settings.tokens.first().cloned(), ..Default::default() };
    let mut pg = tokio::spawn(serve::pg::serve(pg, Arc::clone(db), pg_config, until(stopped)));

    println!("ready  http  http://{http_address}/");
    println!("ready  psql  psql -h {} -p {} -U root dev", pg_address.ip(), pg_address.port());
    tracing::info!(http = %http_address, pg = %pg_address, data_dir = %settings.data_dir.display(), "ready");

    let ended = tokio::select! {
        signal = stop::signal() => {
            signal.map_err(|error| Failure::io("listen for", "signals", &error))?;
            None
        }
        ended = &mut http => Some(("HTTP", ended)),
        ended = &mut pg => Some(("Postgres", ended)),
    };
    if let Some((name, ended)) = ended {
        let reason = match ended {
            Ok(Ok(())) => "it stopped".to_string(),
            Ok(Err(error)) => error.to_string(),
            Err(error) => error.to_string(),
        };
        return Err(Failure::failed(format!("{name} interface: {reason}")));
    }
    tracing::info!("stopping");
    let _ = stopping.send(true);
    let drained = tokio::time::timeout(DRAIN, async {
        let _ = http.await;
        let _ = pg.await;
    });
    if drained.await.is_err() {
        tracing::warn!("requests did not end in time and were cut off");
    }
    Ok(())
}

fn http_config(settings: &ServerSettings) -> Result<serve::http::HttpConfig> {
    let auth = match settings.tokens.is_empty() {
        true => None,
        false => Some(serve::http::Auth::new(&settings.tokens).map_err(Failure::usage)?),
    };
    Ok(serve::http::HttpConfig { auth, ..Default::default() })
}

async fn listen(name: &str, address: SocketAddr) -> Result<TcpListener> {
    TcpListener::bind(address).await.map_err(|error| {
        let failure = Failure::failed(format!("listen on {address} ({name}): {error}"));
        match error.kind() {
            std::io::ErrorKind::AddrInUse => {
                failure.hint(format!("another program uses this address; choose another one with --{name}"))
            }
            _ => failure,
        }
    })
}

fn address(listener: &TcpListener) -> Result<SocketAddr> {
    listener.local_addr().map_err(|error| Failure::io("read", "the address of a socket", &error))
}

/// `shopstream check`: applies the pack to an empty database that is thrown away.
pub fn check(folder: &std::path::Path) -> Result {
    let pack = Pack::read(folder)?;
    let data_dir =
        tempfile::tempdir().map_err(|error| Failure::io("create", "a temporary folder", &error))?;
    let options =
        engine::Options { workers: 1, memory_bytes: 256 << 20, ..engine::Options::new(data_dir.path()) };
    let db = Database::open(options)
        .map_err(|error| Failure::failed(format!("open a temporary database: {}", error.message)))?;
    // Sources are checked like everything else, and read nothing.
    let connectors = Arc::new(connectors::source::CheckOnly);
    db.attach_connectors(connectors).map_err(|e| Failure::failed(format!("check sources: {e}")))?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .map_err(|error| Failure::io("start", "the planner", &error))?;
    let applied = runtime.block_on(pack.apply(&db));
    db.shutdown();
    let applied = applied?;
    println!("{}: {} definitions are good", folder.display(), applied.created.len());
    Ok(())
}

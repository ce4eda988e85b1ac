//! The Postgres wire protocol: psql, drivers and BI tools talk to the database here.
//!
//! ```text
//! TCP -> startup (password, database) -> connection loop -> engine::Session
//!          frontend: bytes -> messages        |  prepared: statements and portals
//!                                             |  copy: COPY FROM STDIN -> Database::ingest
//!          wire: one socket, bounded buffers  |  encode / decode: values
//! ```
//!
//! Rules that hold everywhere in this module:
//! * nothing from the client is trusted: every length is checked, every buffer has a limit;
//! * whatever waits for the engine or the client goes through [`wire::Wire::guarded`], so that the statement's
//!   deadline, a cancel request, a closed socket and the server's end stop it by dropping its future;
//! * a message is written whole or not at all, so that an error can always follow.

mod calendar;
mod connection;
mod copy;
mod decode;
mod encode;
mod errors;
mod frontend;
mod numeric;
mod prepared;
mod scram;
mod startup;
mod types;
mod wire;

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use engine::Database;
use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, Semaphore, watch};
use tracing::{debug, warn};

/// How the Postgres listener behaves.
#[derive(Clone)]
pub struct PgConfig {
    /// Password of the user `root`, asked for by SCRAM-SHA-256. Without one everybody who reaches the
    /// port is let in, and only loopback addresses are listened on. Default: none.
    pub password: Option<String>,
    /// Connections that may be open at once; further ones are told so. Default 100.
    pub connections_max: usize,
    /// How long a client may take to name its database and prove who it is. Default 10 s.
    pub startup_timeout: Duration,
}

impl Default for PgConfig {
    fn default() -> Self {
        PgConfig { password: None, connections_max: 100, startup_timeout: Duration::from_secs(10) }
    }
}

impl std::fmt::Debug for PgConfig {
    /// Without the password, so that a log of the configuration does not tell it.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PgConfig")
            .field("password", &self.password.as_ref().map(|_| "***"))
            .field("connections_max", &self.connections_max)
            .field("startup_timeout", &self.startup_timeout)
            .finish()
    }
}

/// The only database and the only user there are.
pub const DATABASE: &str = "dev";
pub const USER: &str = "root";

/// What drivers decide by which statements they may send.
pub const SERVER_VERSION: &str = "16.6";

/// Connections beyond `connections_max` that are heard before they are refused: cancel requests come over
/// connections of their own, and must work when all others are taken.
const CONNECTIONS_SPARE: usize = 32;

/// How long connections may take to end after `shutdown`.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(5);

/// Pause after a failed accept, which is mostly "too many open files" and does not pass at once.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// Serves clients until `shutdown` completes, then stops their statements and tells them.
///
/// # Errors
/// When the configuration is unsafe, or no random numbers are to be had.
pub async fn serve(
    listener: TcpListener,
    db: Arc<Database>,
    config: PgConfig,
    shutdown: impl Future<Output = ()>,
) -> std::io::Result<()> {
    let address = listener.local_addr()?;
    if config.password.is_none() && !address.ip().is_loopback() {
        return Err(std::io::Error::new(
            std::io::ErrorKind::InvalidInput,
            format!("refusing to listen on {address} without a password; set one, or listen on 127.0.0.1"),
        ));
    }
    let (stopping, stop) = watch::channel(false);
    let server = Arc::new(Server {
        db,
        verifier: match &config.password {
            Some(password) => Some(scram::Verifier::of_password(password, random_bytes()?)),
            None => None,
        },
        connections: Arc::new(Semaphore::new(config.connections_max)),
        connections_max: config.connections_max,
        startup_timeout: config.startup_timeout,
        backends: Backends::default(),
        stop,
    });
    let sockets = Arc::new(Semaphore::new(config.connections_max + CONNECTIONS_SPARE));
    tokio::pin!(shutdown);
    loop {
        let accepted = tokio::select! {
            () = &mut shutdown => break,
            accepted = listener.accept() => accepted,
        };
        let socket = match accepted {
            Ok((socket, _)) => socket,
            Err(error) => {
                warn!(%error, "accept Postgres connection");
                tokio::time::sleep(ACCEPT_RETRY).await;
                continue;
            }
        };
        // Beyond the spare ones nobody is heard: the socket is closed.
        if let Ok(permit) = Arc::clone(&sockets).try_acquire_owned() {
            let server = Arc::clone(&server);
            tokio::spawn(async move {
                serve_socket(socket, &server).await;
                drop(permit);
            });
        }
    }
    // The future may be dropped here without harm: connections then end when they see the sender gone.
    let _ = stopping.send(true);
    let all = u32::try_from(config.connections_max + CONNECTIONS_SPARE).unwrap_or(u32::MAX);
    let _ = tokio::time::timeout(SHUTDOWN_GRACE, sockets.acquire_many(all)).await;
    Ok(())
}

/// What connections share.
struct Server {
    db: Arc<Database>,
    verifier: Option<scram::Verifier>,
    connections: Arc<Semaphore>,
    connections_max: usize,
    startup_timeout: Duration,
    backends: Backends,
    /// True, or its sender gone: the server ends.
    stop: watch::Receiver<bool>,
}

async fn serve_socket(socket: TcpStream, server: &Arc<Server>) {
    if let Err(error) = socket.set_nodelay(true) {
        debug!(%error, "set TCP_NODELAY");
    }
    let mut wire = wire::Wire::new(socket);
    let started = tokio::time::timeout(server.startup_timeout, startup::start(&mut wire, server)).await;
    match started {
        Ok(Some(session)) => connection::run(wire, server, session).await,
        // Refused, gone, or a cancel request that was carried out.
        Ok(None) => {}
        Err(_) => debug!("Postgres client did not finish its startup in time"),
    }
}

/// Open connections by their process number, for cancel requests.
#[derive(Default)]
struct Backends {
    open: Mutex<HashMap<i32, Arc<Backend>>>,
}

/// One connection as a cancel request sees it.
struct Backend {
    process: i32,
    secret: i32,
    cancelled: AtomicBool,
    wake: Notify,
}

impl Backend {
    /// Stops the statement that is running now; one that begins later is not touched.
    fn cancel(&self) {
        self.cancelled.store(true, Ordering::Release);
        self.wake.notify_one();
    }

    /// A new statement begins: a cancel request that came before it was meant for another.
    fn begin_statement(&self) {
        self.cancelled.store(false, Ordering::Release);
    }

    async fn cancelled(&self) {
        loop {
            if self.cancelled.load(Ordering::Acquire) {
                return;
            }
            self.wake.notified().await;
        }
    }
}

impl Backends {
    fn open(&self) -> std::io::Result<Arc<Backend>> {
        let mut open = self.open.lock();
        loop {
            let random: [u8; 8] = random_bytes()?;
            let (process, secret) = random.split_at(4);
            let number = |bytes: &[u8]| bytes.iter().fold(0i32, |value, b| value << 8 | i32::from(*b));
            // Positive, because clients print it as a process number.
            let process = number(process) & i32::MAX;
            if process == 0 || open.contains_key(&process) {
                continue;
            }
            let backend = Arc::new(Backend {
                process,
                secret: number(secret),
                cancelled: AtomicBool::new(false),
                wake: Notify::new(),
            });
            open.insert(process, Arc::clone(&backend));
            return Ok(backend);
        }
    }

    fn close(&self, backend: &Backend) {
        self.open.lock().remove(&backend.process);
    }

    /// Carries out a cancel request; a wrong secret is ignored without an answer, as the protocol wants it.
    fn cancel(&self, process: i32, secret: i32) {
        if let Some(backend) = self.open.lock().get(&process)
            && backend.secret == secret
        {
            backend.cancel();
        }
    }
}

/// Bytes that nobody can guess.
fn random_bytes<const N: usize>() -> std::io::Result<[u8; N]> {
    let mut bytes = [0u8; N];
    getrandom::fill(&mut bytes)
        .map_err(|error| std::io::Error::other(format!("get random bytes: {error}")))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests;

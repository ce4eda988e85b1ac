//! The HTTP interface: rows in, views out, changes pushed, and the live page.
//!
//! In reading order: the accept loop ([`accept`]), what every request passes ([`guard`]: host, origin,
//! token, headers), the table of routes ([`routes`]), then one file per route: [`ingest`], [`views`]
//! (with [`select`]), [`changes`], [`statements`], [`health`], [`page`], [`openapi`]. Shared by them:
//! [`problem`] (errors), [`body`] (bounded receiving), [`values`] (Arrow to JSON and CSV).
//!
//! ```text
//!   socket -> accept -> guard -> route -> body, decode -> Database::ingest -> 202
//!                                      -> select       -> Session::run     -> rows
//!                                      -> changes      -> subscribe        -> events
//! ```
//!
//! Rule: nothing a client can send or hold back makes memory grow without bound; every limit is a
//! field of [`HttpConfig`] or a named constant.

pub mod accept;
pub mod auth;
mod body;
mod changes;
mod decode;
mod guard;
mod health;
mod ingest;
mod metrics;
mod monitor;
mod negotiation;
mod openapi;
mod page;
pub mod problem;
mod routes;
mod select;
mod sse;
mod statements;
mod values;
mod views;

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::middleware;
use engine::Database;
use tokio::net::TcpListener;
use tokio::sync::watch;

pub use auth::{Auth, HostRule};

/// What an operator may set.
#[derive(Clone, Debug)]
pub struct HttpConfig {
    /// Longest request body, in bytes, also after decompression. Default 64 MiB.
    pub body_bytes_max: usize,
    /// Bytes of all request bodies that wait to be durable; beyond it the answer is 429. Default 256 MiB.
    pub inflight_bytes_max: usize,
    /// Connections served at the same time; further ones wait. Default 16,384.
    pub connections_max: usize,
    /// Open event streams. Default 1,024.
    pub streams_max: usize,
    /// Time in which a request's headers must be complete; idle connections end after it. Default 10 s.
    pub header_timeout: Duration,
    /// A client that takes nothing of its answer for this long is dropped. Default 30 s.
    pub write_timeout: Duration,
    /// Longest time a query may run. Default 30 s.
    pub query_timeout: Duration,
    /// Time that requests in progress have when the server stops. Default 5 s.
    pub shutdown_timeout: Duration,
    /// Tokens to ask for. `None` is for loopback only: [`serve`] refuses other addresses without.
    pub auth: Option<Auth>,
    /// Names the server answers to on loopback besides localhost, 127.0.0.1 and [::1].
    pub allowed_hosts: Vec<String>,
}

impl Default for HttpConfig {
    fn default() -> Self {
        HttpConfig {
            body_bytes_max: 64 * 1024 * 1024,
            inflight_bytes_max: 256 * 1024 * 1024,
            connections_max: 16_384,
            streams_max: 1_024,
            header_timeout: Duration::from_secs(10),
            write_timeout: Duration::from_secs(30),
            query_timeout: Duration::from_secs(30),
            shutdown_timeout: Duration::from_secs(5),
            auth: None,
            allowed_hosts: Vec::new(),
        }
    }
}

/// What all handlers share.
pub struct App {
    db: Arc<Database>,
    config: HttpConfig,
    hosts: HostRule,
    budget: body::Budget,
    metrics: metrics::Metrics,
    monitor: Arc<monitor::Monitor>,
    stopping: watch::Receiver<bool>,
    /// Differs from run to run: ticks and entity tags of an earlier run mean nothing.
    run_id: String,
}

impl App {
    fn new(
        db: Arc<Database>,
        config: HttpConfig,
        hosts: HostRule,
        stopping: watch::Receiver<bool>,
    ) -> Arc<App> {
        let started = chrono::Utc::now().timestamp_micros();
        Arc::new(App {
            db,
            budget: body::Budget::new(config.inflight_bytes_max),
            config,
            hosts,
            metrics: metrics::Metrics::default(),
            monitor: Arc::default(),
            stopping,
            run_id: format!("{started:x}"),
        })
    }
}

/// Serves HTTP until `shutdown` completes, then lets requests in progress end.
///
/// # Errors
/// When the listener is not on loopback and no token is configured.
pub async fn serve(
    listener: TcpListener,
    db: Arc<Database>,
    config: HttpConfig,
    shutdown: impl Future<Output = ()> + Send,
) -> io::Result<()> {
    let address = listener.local_addr()?;
    let loopback = address.ip().is_loopback();
    if !loopback && config.auth.is_none() {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!(
                "refusing to listen on {address} without a token: everybody could write; configure one or use 127.0.0.1"
            ),
        ));
    }
    let hosts = if loopback { HostRule::Loopback(config.allowed_hosts.clone()) } else { HostRule::Any };
    let limits = accept::Limits {
        connections_max: config.connections_max,
        header_timeout: config.header_timeout,
        write_timeout: config.write_timeout,
        shutdown_timeout: config.shutdown_timeout,
    };
    let (stop, stopping) = watch::channel(false);
    let app = App::new(Arc::clone(&db), config, hosts, stopping.clone());
    let sampler = tokio::spawn(Arc::clone(&app.monitor).run(db, stopping.clone()));
    let accepting = tokio::spawn(accept::accept(listener, router(app), limits, stopping));
    shutdown.await;
    stop.send_replace(true);
    let (accepting, sampler) = tokio::join!(accepting, sampler);
    accepting.and(sampler).map_err(io::Error::other)
}

/// Completes when the server stops. (Nothing borrowed from the channel stays alive, so that this may
/// stand in a `select!` of a task that moves between threads.)
async fn until_stopped(stopping: &mut watch::Receiver<bool>) {
    let _known = stopping.wait_for(|stopping| *stopping).await.is_ok();
}

/// All routes with everything that requests pass on the way, without sockets.
fn router(app: Arc<App>) -> Router {
    routes::router()
        .fallback(guard::not_found)
        .method_not_allowed_fallback(guard::method_not_allowed)
        .layer(middleware::from_fn_with_state(Arc::clone(&app), guard::guard))
        .with_state(app)
}

#[cfg(test)]
mod tests;

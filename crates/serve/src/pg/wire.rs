//! One client's socket with its two buffers, and the watch over everything that waits.
//!
//! ```text
//! client --bytes--> input  --frontend::next_frame--> messages
//! client <--bytes-- output <--whole messages-------- answers
//! ```
//!
//! Invariants: `output` holds whole messages (the first one perhaps partly sent), so that an error can be
//! appended at any time; it is sent when it passes [`OUTPUT_FLUSH_BYTES`] and before waiting for the client, so
//! that a slow client makes the statement wait instead of filling memory. While a statement runs, what the client
//! pipelines is read up to [`READ_AHEAD_BYTES_MAX`], then left in the kernel.

use std::future::Future;
use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, Interest};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::Instant;

use super::Backend;
use super::errors::{PgError, code};
use super::frontend::{self, Frame, Startup};

/// Answers are collected up to this size before they are sent.
pub const OUTPUT_FLUSH_BYTES: usize = 64 * 1024;

/// Messages read ahead while a statement runs.
const READ_AHEAD_BYTES_MAX: usize = 256 * 1024;

/// Free space made before each read from the socket.
const READ_BYTES: usize = 32 * 1024;

/// How often a socket with a full read-ahead is asked whether it is closed.
const CLOSED_CHECK: Duration = Duration::from_millis(200);

/// How long a last message may take to leave, and how much is read meanwhile.
const FAREWELL: Duration = Duration::from_secs(1);
const FAREWELL_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Why a statement was stopped from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interrupt {
    /// Nobody is there to answer to.
    Closed,
    Cancelled,
    TimedOut,
    ServerStops,
}

impl Interrupt {
    /// What the client is told; `None` when it is gone.
    pub fn error(self) -> Option<PgError> {
        match self {
            Interrupt::Closed => None,
            Interrupt::Cancelled => {
                Some(PgError::error(code::QUERY_CANCELED, "canceling statement due to user request"))
            }
            Interrupt::TimedOut => Some(
                PgError::error(code::QUERY_CANCELED, "canceling statement due to statement timeout")
                    .with_hint("raise it with SET statement_timeout = '60s', or 0 for none"),
            ),
            Interrupt::ServerStops => Some(server_stops()),
        }
    }
}

pub fn server_stops() -> PgError {
    PgError::fatal(code::ADMIN_SHUTDOWN, "terminating connection because the server is shutting down")
}

/// What stops the statement that runs.
pub struct Guard {
    pub backend: Arc<Backend>,
    pub stop: watch::Receiver<bool>,
    pub deadline: Option<Instant>,
}

impl Guard {
    async fn interrupted(&self) -> Interrupt {
        let mut stop = self.stop.clone();
        let deadline = async {
            match self.deadline {
                Some(deadline) => tokio::time::sleep_until(deadline).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = self.backend.cancelled() => Interrupt::Cancelled,
            () = deadline => Interrupt::TimedOut,
            () = stopped(&mut stop) => Interrupt::ServerStops,
        }
    }

    /// The same without waiting; for loops that rarely wait.
    pub fn check(&self) -> Result<(), Interrupt> {
        if self.backend.cancelled.load(Ordering::Acquire) {
            return Err(Interrupt::Cancelled);
        }
        if self.deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            return Err(Interrupt::TimedOut);
        }
        Ok(())
    }
}

/// Completes when the server ends; an error of the channel means that its future was dropped.
pub async fn stopped(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stopping| *stopping).await.is_ok();
}

pub struct Wire {
    socket: TcpStream,
    input: BytesMut,
    output: BytesMut,
}

impl Wire {
    pub fn new(socket: TcpStream) -> Wire {
        Wire { socket, input: BytesMut::new(), output: BytesMut::new() }
    }

    /// Where messages are appended, each of them whole.
    pub fn output(&mut self) -> &mut BytesMut {
        &mut self.output
    }

    /// Appends one of pgwire's messages.
    pub fn put(&mut self, message: impl pgwire::messages::Message) {
        message.encode(&mut self.output).expect("messages written here are below the limits of their kinds");
    }

    pub fn put_error(&mut self, error: PgError) {
        error.write(&mut self.output);
    }

    pub fn output_is_full(&self) -> bool {
        self.output.len() >= OUTPUT_FLUSH_BYTES
    }

    /// The first message; `None` when the client is gone.
    pub async fn startup(&mut self) -> Result<Option<Startup>, PgError> {
        loop {
            if let Some(startup) = frontend::next_startup(&mut self.input)? {
                return Ok(Some(startup));
            }
            if !self.fill().await {
                return Ok(None);
            }
        }
    }

    /// The next message, after all answers were sent; `None` when the client is gone.
    pub async fn frame(&mut self, bytes_max: usize) -> Result<Option<Frame>, PgError> {
        loop {
            if let Some(frame) = frontend::next_frame(&mut self.input, bytes_max)? {
                return Ok(Some(frame));
            }
            if !self.flush().await || !self.fill().await {
                return Ok(None);
            }
        }
    }

    /// True when the client asked for encryption and sent more without waiting for the answer: bytes that
    /// someone in the middle may have put in front of the encrypted ones (CVE-2021-23214).
    pub fn has_unread_input(&self) -> bool {
        !self.input.is_empty()
    }

    async fn fill(&mut self) -> bool {
        self.input.reserve(READ_BYTES);
        matches!(self.socket.read_buf(&mut self.input).await, Ok(bytes) if bytes > 0)
    }

    /// Sends everything; false when the client is gone. Safe to drop in the middle.
    pub async fn flush(&mut self) -> bool {
        send(&self.socket, &mut self.output).await
    }

    /// Sends everything while a statement runs, which a slow client must not keep from being stopped.
    pub async fn flush_guarded(&mut self, guard: &Guard) -> Result<(), Interrupt> {
        let Wire { socket, input, output } = self;
        if output.is_empty() {
            return guard.check();
        }
        tokio::select! {
            biased;
            interrupt = guard.interrupted() => Err(interrupt),
            sent = send(socket, output) => if sent { Ok(()) } else { Err(Interrupt::Closed) },
            () = closed(socket, input) => Err(Interrupt::Closed),
        }
    }

    /// Runs a statement's work until it is done, or stops it by dropping it.
    pub async fn guarded<T>(&mut self, guard: &Guard, work: impl Future<Output = T>) -> Result<T, Interrupt> {
        let Wire { socket, input, .. } = self;
        tokio::select! {
            biased;
            interrupt = guard.interrupted() => Err(interrupt),
            done = work => Ok(done),
            () = closed(socket, input) => Err(Interrupt::Closed),
        }
    }

    /// Like [`Wire::frame`], while a statement runs that takes its input from the client (COPY).
    pub async fn frame_guarded(
        &mut self,
        guard: &Guard,
        bytes_max: usize,
    ) -> Result<Result<Frame, PgError>, Interrupt> {
        tokio::select! {
            biased;
            interrupt = guard.interrupted() => Err(interrupt),
            frame = self.frame(bytes_max) => match frame {
                Ok(Some(frame)) => Ok(Ok(frame)),
                Ok(None) => Err(Interrupt::Closed),
                Err(error) => Ok(Err(error)),
            },
        }
    }

    /// Sends what is left before the connection ends, and reads what the client still sends: a socket that is closed with
    /// unread input is reset by the kernel, and the last message lost with it.
    pub async fn farewell(mut self) {
        let said = async {
            if !self.flush().await || self.socket.shutdown().await.is_err() {
                return;
            }
            let mut unread = 0;
            while unread < FAREWELL_BYTES_MAX && self.fill().await {
                unread += self.input.len();
                self.input.clear();
            }
        };
        let _ = tokio::time::timeout(FAREWELL, said).await;
    }
}

async fn send(socket: &TcpStream, output: &mut BytesMut) -> bool {
    while !output.is_empty() {
        if socket.writable().await.is_err() {
            return false;
        }
        match socket.try_write(output) {
            Ok(0) => return false,
            Ok(sent) => output.advance(sent),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(_) => return false,
        }
    }
    true
}

/// Completes when the client closed its socket; reads ahead meanwhile, up to a limit.
async fn closed(socket: &TcpStream, input: &mut BytesMut) {
    loop {
        let Ok(ready) = socket.ready(Interest::READABLE).await else {
            return;
        };
        if input.len() >= READ_AHEAD_BYTES_MAX {
            if ready.is_read_closed() {
                return;
            }
            tokio::time::sleep(CLOSED_CHECK).await;
            continue;
        }
        input.reserve(READ_BYTES);
        match socket.try_read_buf(input) {
            Ok(0) => return,
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(_) => return,
        }
    }
}

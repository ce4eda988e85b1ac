//! Ctrl-C and SIGTERM for commands that run until they are told to stop.
//!
//! The first signal asks; a second one ends the process at once, for those who cannot wait.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::failure::{Failure, Result};

static ASKED: AtomicBool = AtomicBool::new(false);

/// Exit code of a process ended by Ctrl-C, as shells report it.
const INTERRUPTED: i32 = 130;

/// Listens for signals on a thread of its own. Call once, before any work.
pub fn listen() -> Result {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::io("start", "the signal listener", &error))?;
    std::thread::Builder::new()
        .name("signals".to_string())
        .spawn(move || {
            runtime.block_on(async {
                loop {
                    if let Err(error) = signal().await {
                        tracing::warn!(%error, "cannot listen for signals");
                        return;
                    }
                    if ASKED.swap(true, Ordering::SeqCst) {
                        std::process::exit(INTERRUPTED);
                    }
                }
            })
        })
        .map_err(|error| Failure::io("start", "the signal listener", &error))?;
    Ok(())
}

/// Returns at the next SIGINT or SIGTERM.
pub async fn signal() -> std::io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}

pub fn asked() -> bool {
    ASKED.load(Ordering::SeqCst)
}

/// Sleeps, but wakes within 50 ms of a request to stop. True when asked to stop.
pub fn sleep(duration: Duration) -> bool {
    let end = Instant::now() + duration;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        if asked() || left.is_zero() {
            return asked();
        }
        #[allow(clippy::disallowed_methods, reason = "this is the sleep that wakes on Ctrl-C")]
        std::thread::sleep(left.min(Duration::from_millis(50)));
    }
}

//! Receives request bodies, with a bound on each of: bytes of one body (also when decompressed),
//! bytes of all bodies in progress, time between two pieces, and slowness as a whole.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::header::{CONTENT_ENCODING, CONTENT_LENGTH};
use axum::http::{HeaderMap, HeaderValue};
use connectors::Encoding;
use connectors::pieces::Pieces;
use http_body_util::BodyExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use super::App;
use super::problem::{Problem, ProblemKind};

/// Unit of the budget of bytes in flight.
const BUDGET_UNIT_BYTES: usize = 4096;
/// Time a sender has before its speed counts.
const GRACE: Duration = Duration::from_secs(10);
/// Slower senders are cut off; a phone on a bad network is ten times faster.
const BYTES_PER_SECOND_MIN: usize = 4096;
/// Bodies decompressed at the same time; each may need `body_bytes_max` before it is counted.
const DECOMPRESSIONS_MAX: usize = 4;
/// From here on, work on a body leaves the async threads.
pub const BLOCKING_BYTES_MIN: usize = 256 * 1024;

/// Bounds the memory that bodies take together.
pub struct Budget {
    units: Arc<Semaphore>,
    units_total: usize,
    decompressions: Semaphore,
}

/// A part of the budget, given back when dropped.
#[derive(Default)]
pub struct Share {
    permit: Option<OwnedSemaphorePermit>,
}

impl Budget {
    pub fn new(bytes_max: usize) -> Budget {
        let units_total = (bytes_max / BUDGET_UNIT_BYTES).clamp(1, Semaphore::MAX_PERMITS);
        Budget {
            units: Arc::new(Semaphore::new(units_total)),
            units_total,
            decompressions: Semaphore::new(DECOMPRESSIONS_MAX),
        }
    }

    pub fn bytes_in_flight(&self) -> usize {
        (self.units_total - self.units.available_permits()) * BUDGET_UNIT_BYTES
    }

    /// Grows `share` to cover `bytes`.
    ///
    /// # Errors
    /// The 429 to answer with.
    fn grow(&self, share: &mut Share, bytes: usize) -> Result<(), Problem> {
        let held = share.permit.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        let missing = bytes.div_ceil(BUDGET_UNIT_BYTES).saturating_sub(held);
        if missing == 0 {
            return Ok(());
        }
        let count = u32::try_from(missing).unwrap_or(u32::MAX);
        let more = Arc::clone(&self.units).try_acquire_many_owned(count).map_err(|_| {
            Problem::new(
                ProblemKind::TooManyRequests,
                format!("requests in progress already hold {} MiB", self.bytes_in_flight() / (1024 * 1024)),
            )
            .hint("send this request again in a moment; fewer requests at once are faster")
        })?;
        match &mut share.permit {
            Some(permit) => permit.merge(more),
            None => share.permit = Some(more),
        }
        Ok(())
    }
}

/// A body that was received whole and decompressed.
pub struct Received {
    pub bytes: Vec<u8>,
    /// To be held until the rows are durable.
    pub share: Share,
}

/// Reads, bounds and decompresses a body.
///
/// # Errors
/// 400 (damaged), 408, 413, 415 or 429.
pub async fn receive(app: &App, headers: &HeaderMap, body: Body) -> Result<Received, Problem> {
    let encodings = encodings_of(headers)?;
    let bytes_max = app.config.body_bytes_max;
    let length = headers
        .get(CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.parse::<usize>().ok());
    if length.is_some_and(|length| length > bytes_max) {
        return Err(too_large(bytes_max));
    }
    let mut share = Share::default();
    let mut pieces = Pieces::default();
    let mut body = body;
    let start = Instant::now();
    loop {
        let deadline = start + GRACE + Duration::from_secs((pieces.len() / BYTES_PER_SECOND_MIN) as u64);
        let frame = match tokio::time::timeout_at(deadline, body.frame()).await {
            Ok(Some(frame)) => frame.map_err(|error| {
                Problem::new(ProblemKind::BadRequest, format!("the body ended early: {error}"))
            })?,
            Ok(None) => break,
            Err(_) => {
                return Err(Problem::new(
                    ProblemKind::RequestTimeout,
                    format!("only {} bytes came in {} seconds", pieces.len(), start.elapsed().as_secs()),
                ));
            }
        };
        if let Ok(data) = frame.into_data() {
            if pieces.len() + data.len() > bytes_max {
                return Err(too_large(bytes_max));
            }
            app.budget.grow(&mut share, pieces.len() + data.len())?;
            pieces.push(&data);
        }
    }
    app.metrics.count_body(pieces.len());
    let mut bytes = pieces.into_vec();
    for encoding in encodings {
        let _slot = app.budget.decompressions.acquire().await.expect("the semaphore is never closed");
        bytes = decompress(bytes, encoding, bytes_max).await?;
        app.budget.grow(&mut share, bytes.len())?;
    }
    Ok(Received { bytes, share })
}

async fn decompress(bytes: Vec<u8>, encoding: Encoding, bytes_max: usize) -> Result<Vec<u8>, Problem> {
    // Even a few bytes may decompress for long, so this never runs on the async threads.
    let done = tokio::task::spawn_blocking(move || {
        connectors::decompress_bounded(&bytes, encoding, bytes_max).map_err(|error| match error {
            connectors::Error::TooLarge { .. } => too_large(bytes_max),
            damaged => Problem::new(ProblemKind::BadRequest, damaged.to_string()),
        })
    });
    done.await.map_err(|_| Problem::new(ProblemKind::Internal, "decompressing the body failed"))?
}

fn too_large(bytes_max: usize) -> Problem {
    Problem::new(
        ProblemKind::BodyTooLarge,
        format!("a body may have at most {bytes_max} bytes, also when decompressed"),
    )
    .with("bytes_max", bytes_max)
    .hint("send the rows in several requests")
}

/// The encodings to undo, outermost first.
fn encodings_of(headers: &HeaderMap) -> Result<Vec<Encoding>, Problem> {
    let mut encodings = Vec::new();
    for value in headers.get_all(CONTENT_ENCODING) {
        for name in value_text(value).split(',') {
            match Encoding::of_content_encoding(name) {
                Some(Encoding::Identity) => {}
                Some(encoding) => encodings.push(encoding),
                None => {
                    return Err(Problem::new(
                        ProblemKind::UnsupportedEncoding,
                        format!("content encoding \"{}\" can't be read", name.trim()),
                    )
                    .hint("use gzip, zstd or none"));
                }
            }
        }
    }
    if encodings.len() > 2 {
        return Err(Problem::new(ProblemKind::UnsupportedEncoding, "the body is compressed more than twice"));
    }
    // Content-Encoding lists them in the order they were applied.
    encodings.reverse();
    Ok(encodings)
}

fn value_text(value: &HeaderValue) -> &str {
    value.to_str().unwrap_or("?")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encodings(value: &str) -> Result<Vec<Encoding>, Problem> {
        encodings_of(&HeaderMap::from_iter([(CONTENT_ENCODING, value.parse().unwrap())]))
    }

    #[test]
    fn encodings_are_undone_from_the_outside() {
        assert_eq!(encodings("gzip, zstd").unwrap(), [Encoding::Zstd, Encoding::Gzip]);
        assert_eq!(encodings("identity").unwrap(), []);
        assert_eq!(encodings("br").unwrap_err().kind, ProblemKind::UnsupportedEncoding);
        assert_eq!(encodings("gzip,gzip,gzip").unwrap_err().kind, ProblemKind::UnsupportedEncoding);
    }

    #[test]
    fn the_budget_is_shared_and_given_back() {
        let budget = Budget::new(10 * BUDGET_UNIT_BYTES);
        let mut first = Share::default();
        budget.grow(&mut first, 6 * BUDGET_UNIT_BYTES).unwrap();
        budget.grow(&mut first, 6 * BUDGET_UNIT_BYTES).unwrap();
        assert_eq!(budget.bytes_in_flight(), 6 * BUDGET_UNIT_BYTES);
        let mut second = Share::default();
        let problem = budget.grow(&mut second, 5 * BUDGET_UNIT_BYTES).unwrap_err();
        assert_eq!(problem.kind, ProblemKind::TooManyRequests);
        drop(first);
        budget.grow(&mut second, 10 * BUDGET_UNIT_BYTES).unwrap();
        drop(second);
        assert_eq!(budget.bytes_in_flight(), 0);
    }
}

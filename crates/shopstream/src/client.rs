//! Sends rows to a server over HTTP and keeps trying while it is away.
//!
//! A request is repeated with the same Idempotency-Key until it is answered, so that a row is counted once
//! whether it was the request or the answer that got lost. Requests of one [`Client`] go over kept-alive
//! connections.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::config::ClientSettings;
use crate::failure::{Failure, Result};
use crate::stop;

pub struct Client {
    agent: ureq::Agent,
    server: String,
    token: Option<String>,
    retry_for: Duration,
}

/// What the server answered to a request with rows.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Answer {
    pub accepted: u64,
    pub duplicates: u64,
    pub rejected: u64,
    /// The server had seen the request before and repeated its answer.
    pub replayed: bool,
    /// `row 3, column "price": ...`, at most [`REJECTIONS_SHOWN`].
    pub rejections: Vec<String>,
}

const REJECTIONS_SHOWN: usize = 5;

impl Answer {
    /// Adds up the answers to several requests.
    pub fn add(&mut self, other: Answer) {
        self.accepted += other.accepted;
        self.duplicates += other.duplicates;
        self.rejected += other.rejected;
        self.replayed |= other.replayed;
        self.rejections.extend(other.rejections);
        self.rejections.truncate(REJECTIONS_SHOWN);
    }
}

const BACK_OFF_MIN: Duration = Duration::from_millis(50);
const BACK_OFF_MAX: Duration = Duration::from_secs(2);
/// A request that takes longer is given up and repeated.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);

/// What to do after one try.
enum Try<T> {
    Done(T),
    /// Not answered, or answered with "later": the reason and how long the server asks to wait.
    Again(String, Option<Duration>),
    GiveUp(Failure),
}

impl Client {
    pub fn new(settings: &ClientSettings, retry_for: Duration) -> Client {
        let agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(REQUEST_TIMEOUT))
            .timeout_connect(Some(Duration::from_secs(5)))
            // The server closes idle connections after 10 seconds; a shorter age avoids meeting a closed one.
            .max_idle_age(Duration::from_secs(5))
            .build()
            .new_agent();
        Client { agent, server: settings.server.clone(), token: settings.token.clone(), retry_for }
    }

    /// Posts rows to a table.
    ///
    /// # Errors
    /// An answer that a repetition cannot change (unknown table, bad token), no answer within the time for
    /// retries, or a request to stop while waiting.
    pub fn post_rows(&self, table: &str, content_type: &str, key: &str, body: &[u8]) -> Result<Answer> {
        self.repeat("send rows to", || self.try_post(table, content_type, key, body))
    }

    /// Reads an address of the server, as JSON.
    ///
    /// # Errors
    /// As [`Client::post_rows`].
    pub fn get(&self, path: &str) -> Result<Value> {
        self.repeat("read from", || {
            let response = match self.authorized(self.agent.get(format!("{}{path}", self.server))).call() {
                Ok(response) => response,
                Err(error) => return failed_to_send(error),
            };
            match read(response) {
                Ok((200, _, text)) => match serde_json::from_str(&text) {
                    Ok(value) => Try::Done(value),
                    Err(_) => Try::GiveUp(Failure::failed(format!("{path} of the server is not JSON"))),
                },
                Ok((status, retry_after, text)) => refused(status, retry_after, &text, None),
                Err(reason) => Try::Again(reason, None),
            }
        })
    }

    /// Tries until it is done or given up.
    fn repeat<T>(&self, what: &str, attempt: impl Fn() -> Try<T>) -> Result<T> {
        let started = Instant::now();
        let mut back_off = BACK_OFF_MIN;
        loop {
            let (reason, wait) = match attempt() {
                Try::Done(answer) => return Ok(answer),
                Try::GiveUp(failure) => return Err(failure),
                Try::Again(reason, wait) => (reason, wait),
            };
            let pause = wait.unwrap_or(back_off).max(back_off);
            if started.elapsed() + pause > self.retry_for {
                return Err(Failure::failed(format!(
                    "{what} {}: {reason}, given up after {:.0?}",
                    self.server, self.retry_for
                ))
                .hint("is the server running? --server names it, --retry-for sets how long to wait for it"));
            }
            tracing::debug!(reason, "retry");
            if stop::sleep(pause) {
                return Err(Failure::failed(format!("stopped while waiting for {}: {reason}", self.server)));
            }
            back_off = (back_off * 2).min(BACK_OFF_MAX);
        }
    }

    fn authorized<B>(&self, request: ureq::RequestBuilder<B>) -> ureq::RequestBuilder<B> {
        match &self.token {
            Some(token) => request.header("Authorization", format!("Bearer {token}")),
            None => request,
        }
    }

    fn try_post(&self, table: &str, content_type: &str, key: &str, body: &[u8]) -> Try<Answer> {
        let url = format!("{}/v1/tables/{}/rows", self.server, encode(table));
        let request =
            self.agent.post(&url).header("Content-Type", content_type).header("Idempotency-Key", key);
        let response = match self.authorized(request).send(body) {
            Ok(response) => response,
            Err(error) => return failed_to_send(error),
        };
        let replayed = response.headers().contains_key("idempotency-replayed");
        match read(response) {
            Ok((status, retry_after, text)) => match interpret(status, retry_after, &text, table) {
                Try::Done(answer) => Try::Done(Answer { replayed, ..answer }),
                other => other,
            },
            Err(reason) => Try::Again(reason, None),
        }
    }
}

fn failed_to_send<T>(error: ureq::Error) -> Try<T> {
    match error {
        ureq::Error::BadUri(uri) => Try::GiveUp(Failure::usage(format!("bad server address {uri}"))),
        error => Try::Again(error.to_string(), None),
    }
}

/// Status, how long to wait before the next try, and text of an answer.
fn read(
    mut response: ureq::http::Response<ureq::Body>,
) -> std::result::Result<(u16, Option<Duration>, String), String> {
    let retry_after = response
        .headers()
        .get("retry-after")
        .and_then(|value| value.to_str().ok()?.parse().ok())
        .map(Duration::from_secs);
    let status = response.status().as_u16();
    match response.body_mut().with_config().limit(64 << 20).read_to_string() {
        Ok(text) => Ok((status, retry_after, text)),
        Err(error) => Err(format!("read the answer: {error}")),
    }
}

/// The decision after an answer, apart from sending so that it can be tested.
fn interpret(status: u16, retry_after: Option<Duration>, text: &str, table: &str) -> Try<Answer> {
    let json: Value = serde_json::from_str(text).unwrap_or(Value::Null);
    // A request in which every row was bad is answered with 422 and the same counts.
    if let Some(answer) = read_answer(&json).filter(|_| (200..300).contains(&status) || status == 422) {
        return Try::Done(answer);
    }
    refused(status, retry_after, text, Some(table))
}

/// The decision after an answer that is none.
fn refused<T>(status: u16, retry_after: Option<Duration>, text: &str, table: Option<&str>) -> Try<T> {
    let json: Value = serde_json::from_str(text).unwrap_or(Value::Null);
    let problem = json["detail"].as_str().or(json["title"].as_str()).unwrap_or(text.trim());
    match status {
        200..300 => {
            Try::GiveUp(Failure::failed(format!("answer {status} of the server is not understood: {text}")))
        }
        408 | 425 | 429 | 500 | 502..=504 | 507 => {
            Try::Again(format!("answer {status}: {problem}"), retry_after)
        }
        401 | 403 => Try::GiveUp(
            Failure::failed(format!("the server refused the token: {problem}"))
                .hint("give --auth-token-file with a token that the server knows"),
        ),
        404 if table.is_some() => Try::GiveUp(
            Failure::failed(format!("table {}: {problem}", table.unwrap_or_default()))
                .hint("`shopstream sql -c 'SHOW TABLES'` lists the tables"),
        ),
        _ => Try::GiveUp(Failure::failed(format!("answer {status} of the server: {problem}"))),
    }
}

/// The counts of an answer, `None` when it has none.
fn read_answer(json: &Value) -> Option<Answer> {
    let rejections = json["rejections"].as_array().map_or(&[][..], |list| list.as_slice());
    Some(Answer {
        accepted: json["accepted"].as_u64()?,
        duplicates: json["duplicates"].as_u64()?,
        rejected: json["rejected"].as_u64()?,
        replayed: false,
        rejections: rejections.iter().take(REJECTIONS_SHOWN).map(describe_rejection).collect(),
    })
}

fn describe_rejection(rejection: &Value) -> String {
    let row = rejection["row"].as_u64().map_or(String::new(), |row| format!("row {row} of a request"));
    let column =
        rejection["column"].as_str().map_or(String::new(), |column| format!(", column \"{column}\""));
    format!("{row}{column}: {}", rejection["message"].as_str().unwrap_or("no reason given"))
}

/// Percent-encodes a path segment.
fn encode(segment: &str) -> String {
    segment
        .bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' | b'-' | b'.' => (byte as char).to_string(),
            _ => format!("%{byte:02X}"),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_read_and_bad_rows_described() {
        let text = r#"{"accepted":2,"duplicates":1,"rejected":1,"tick":7,
            "rejections":[{"row":3,"column":"price","reason":"wrong_type","message":"\"abc\" is not a number"}]}"#;
        // 422 is the answer when no row was good.
        for status in [202, 422] {
            let Try::Done(answer) = interpret(status, None, text, "items") else { panic!("is an answer") };
            assert_eq!((answer.accepted, answer.duplicates, answer.rejected), (2, 1, 1));
            assert_eq!(answer.rejections, ["row 3 of a request, column \"price\": \"abc\" is not a number"]);
        }
    }

    #[test]
    fn busy_servers_are_asked_again_and_wrong_requests_are_not() {
        let problem = r#"{"title":"no","detail":"relation \"x\" does not exist"}"#;
        for status in [429, 500, 503, 507] {
            let wait = Some(Duration::from_secs(1));
            assert!(
                matches!(interpret(status, wait, problem, "x"), Try::Again(_, w) if w == wait),
                "{status}"
            );
        }
        for status in [400, 401, 404, 413, 415, 422] {
            assert!(matches!(interpret(status, None, problem, "x"), Try::GiveUp(_)), "{status}");
        }
    }

    #[test]
    fn names_cannot_leave_their_path_segment() {
        assert_eq!(encode("a/../b é"), "a%2F..%2Fb%20%C3%A9");
    }
}

//! What every request passes, whatever its route: host, origin and token are checked before anything
//! is read; afterwards panics become 500, error texts of libraries become problems, and every
//! answer gets its security headers.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Instant;

use axum::extract::{MatchedPath, Request, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, HeaderValue, Method, Uri};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures::FutureExt;

use super::App;
use super::problem::{PROBLEM_JSON, Problem, ProblemKind, closest};
use super::routes::{Access, ROUTES, access_of};

const HEADERS: [(&str, &str); 6] = [
    (
        "content-security-policy",
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
         connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    ),
    ("x-content-type-options", "nosniff"),
    ("referrer-policy", "no-referrer"),
    ("x-frame-options", "DENY"),
    ("cross-origin-resource-policy", "same-origin"),
    ("cross-origin-opener-policy", "same-origin"),
];

pub async fn guard(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let start = Instant::now();
    let method = method_name(request.method());
    let pattern = request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_string());
    let mut response = match admit(&app, pattern.as_deref(), &request) {
        Ok(()) => match AssertUnwindSafe(next.run(request)).catch_unwind().await {
            Ok(response) => response,
            Err(_) => {
                Problem::new(ProblemKind::Internal, "the request made a part of the server fail; see its log")
                    .into_response()
            }
        },
        Err(problem) => problem.into_response(),
    };
    let status = response.status();
    if (status.is_client_error() || status.is_server_error()) && !is_problem(response.headers()) {
        response = problem_of(response).await;
    }
    for (name, value) in HEADERS {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    let route = pattern.as_deref().unwrap_or("unmatched");
    app.metrics.count_answer(route, method, response.status().as_u16(), start.elapsed());
    response
}

fn admit(app: &App, pattern: Option<&str>, request: &Request) -> Result<(), Problem> {
    app.hosts.check(request.headers())?;
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        refuse_foreign_pages(request.headers())?;
    }
    match &app.config.auth {
        Some(auth) if access_of(pattern) == Access::Token => auth.check(request.headers()),
        _ => Ok(()),
    }
}

/// Browsers say when a page of another site sends a request; other clients don't send the header.
fn refuse_foreign_pages(headers: &HeaderMap) -> Result<(), Problem> {
    let site = headers.get("sec-fetch-site").map(HeaderValue::as_bytes);
    match site {
        None | Some(b"same-origin" | b"none") => Ok(()),
        Some(_) => Err(Problem::new(ProblemKind::Forbidden, "pages of other sites can't write here")
            .hint("send the request from a server, or through a proxy of your own site")),
    }
}

/// The methods there are, so that a metric's label can't be made up by a client.
fn method_name(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        Method::PATCH => "PATCH",
        _ => "other",
    }
}

fn is_problem(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).is_some_and(|value| value == PROBLEM_JSON)
}

/// An error that a library answered in plain text, as a problem.
async fn problem_of(response: Response) -> Response {
    const TEXT_BYTES_MAX: usize = 4096;
    let (parts, body) = response.into_parts();
    let text = axum::body::to_bytes(body, TEXT_BYTES_MAX).await.unwrap_or_default();
    let detail = match String::from_utf8_lossy(&text) {
        text if text.is_empty() => "the request was refused".to_string(),
        text => text.into_owned(),
    };
    let mut answer = Problem::new(ProblemKind::of_status(parts.status), detail).into_response();
    if let Some(allow) = parts.headers.get("allow") {
        answer.headers_mut().insert("allow", allow.clone());
    }
    answer
}

pub async fn not_found(uri: Uri) -> Problem {
    let problem = Problem::new(ProblemKind::NotFound, format!("there is nothing at {}", uri.path()));
    match closest(uri.path(), ROUTES.iter().map(|route| route.path)) {
        Some(near) => problem.hint(format!("did you mean {near}?")),
        None => problem.hint("GET /openapi.json lists all addresses"),
    }
}

pub async fn method_not_allowed(method: Method, uri: Uri) -> Problem {
    Problem::new(ProblemKind::MethodNotAllowed, format!("{method} does not fit {}", uri.path()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_of_other_sites_can_not_write() {
        let of = |site: &str| {
            refuse_foreign_pages(&HeaderMap::from_iter([(
                "sec-fetch-site".parse().unwrap(),
                site.parse().unwrap(),
            )]))
        };
        assert!(of("same-origin").is_ok());
        assert!(of("none").is_ok());
        assert!(of("cross-site").is_err());
        assert!(of("same-site").is_err());
        assert!(refuse_foreign_pages(&HeaderMap::new()).is_ok());
    }

    #[tokio::test]
    async fn plain_errors_become_problems() {
        let plain = (axum::http::StatusCode::BAD_REQUEST, "Invalid URL: bad UTF-8").into_response();
        let response = problem_of(plain).await;
        assert!(is_problem(response.headers()));
        assert_eq!(response.status().as_u16(), 400);
    }
}

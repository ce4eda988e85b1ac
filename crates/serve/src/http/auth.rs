//! Who may ask: bearer tokens, and the Host header.
//!
//! Two separate questions. *Tokens* keep strangers out when the server listens to the network. The
//! *Host check* keeps web pages out when it listens on loopback: a page on evil.example can point
//! its own name at 127.0.0.1 (DNS rebinding), but can't change the Host header its visitor's
//! browser sends.

use std::fmt;

use axum::http::HeaderMap;
use axum::http::header::{AUTHORIZATION, HOST};
use base64::Engine;
use sha2::{Digest, Sha256};

use super::problem::{Problem, ProblemKind};

/// The tokens that are accepted. Only their digests are kept, and comparing takes equally long
/// whatever is wrong with a token.
#[derive(Clone)]
pub struct Auth {
    // Invariant: not empty.
    digests: Vec<[u8; 32]>,
}

impl fmt::Debug for Auth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Auth({} tokens)", self.digests.len())
    }
}

impl Auth {
    /// Shortest token accepted: 128 bits as hexadecimal digits or more.
    pub const TOKEN_BYTES_MIN: usize = 16;

    /// # Errors
    /// If there is no token, or one is too short to resist guessing.
    pub fn new<S: AsRef<str>>(tokens: impl IntoIterator<Item = S>) -> Result<Auth, String> {
        let mut digests = Vec::new();
        for (index, token) in tokens.into_iter().enumerate() {
            let token = token.as_ref().trim();
            if token.len() < Self::TOKEN_BYTES_MIN {
                return Err(format!(
                    "token {} is shorter than {} characters; make one with: openssl rand -hex 24",
                    index + 1,
                    Self::TOKEN_BYTES_MIN
                ));
            }
            digests.push(Sha256::digest(token.as_bytes()).into());
        }
        if digests.is_empty() {
            return Err("no token is given; make one with: openssl rand -hex 24".to_string());
        }
        Ok(Auth { digests })
    }

    /// True for one of the tokens.
    pub fn accepts(&self, token: &str) -> bool {
        let digest: [u8; 32] = Sha256::digest(token.as_bytes()).into();
        // Every digest is compared in full, so that the time tells nothing.
        self.digests.iter().fold(false, |found, known| {
            let difference = known.iter().zip(&digest).fold(0u8, |acc, (a, b)| acc | (a ^ b));
            found | (difference == 0)
        })
    }

    /// # Errors
    /// The 401 to answer with.
    pub fn check(&self, headers: &HeaderMap) -> Result<(), Problem> {
        let Some(value) = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()) else {
            return Err(Problem::new(ProblemKind::Unauthorized, "the request carries no token")
                .hint("send the header: Authorization: Bearer <token>"));
        };
        match token_of(value) {
            Some(token) if self.accepts(&token) => Ok(()),
            _ => Err(Problem::new(ProblemKind::Unauthorized, "the token is not known")),
        }
    }
}

/// The token of an `Authorization` header: `Bearer <token>`, or the password of `Basic`.
fn token_of(header: &str) -> Option<String> {
    let (scheme, rest) = header.split_once(' ')?;
    if scheme.eq_ignore_ascii_case("bearer") {
        return Some(rest.trim().to_string());
    }
    if scheme.eq_ignore_ascii_case("basic") {
        let decoded = base64::engine::general_purpose::STANDARD.decode(rest.trim()).ok()?;
        let text = String::from_utf8(decoded).ok()?;
        return text.split_once(':').map(|(_, password)| password.to_string());
    }
    None
}

/// Which names the server answers to.
#[derive(Clone, Debug)]
pub enum HostRule {
    /// Any: the server listens to the network and asks for tokens.
    Any,
    /// Loopback names and these.
    Loopback(Vec<String>),
}

impl HostRule {
    /// # Errors
    /// The 421 to answer with.
    pub fn check(&self, headers: &HeaderMap) -> Result<(), Problem> {
        let HostRule::Loopback(more) = self else {
            return Ok(());
        };
        let host = headers.get(HOST).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let name = host_name(host);
        let known = ["localhost", "127.0.0.1", "[::1]"].iter().any(|known| name.eq_ignore_ascii_case(known))
            || more.iter().any(|known| name.eq_ignore_ascii_case(host_name(known)));
        if known {
            return Ok(());
        }
        Err(Problem::new(ProblemKind::UnknownHost, format!("this server is not called \"{name}\""))
            .hint("use http://localhost, or add the name to the allowed hosts of the configuration"))
    }
}

/// A Host header without its port.
fn host_name(host: &str) -> &str {
    if let Some(end) = host.find(']').filter(|_| host.starts_with('[')) {
        return &host[..=end];
    }
    host.split_once(':').map_or(host, |(name, _)| name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderName;

    fn headers(name: HeaderName, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(name, value.parse().unwrap())])
    }

    #[test]
    fn tokens_come_as_bearer_or_as_the_password() {
        let auth = Auth::new(["0123456789abcdef0123"]).unwrap();
        let basic = base64::engine::general_purpose::STANDARD.encode("me:0123456789abcdef0123");
        assert!(auth.check(&headers(AUTHORIZATION, "Bearer 0123456789abcdef0123")).is_ok());
        assert!(auth.check(&headers(AUTHORIZATION, &format!("Basic {basic}"))).is_ok());
        for wrong in ["Bearer 0123456789abcdef012", "Bearer", "Bearer ", "Basic !!", "Digest x", ""] {
            let problem = auth.check(&headers(AUTHORIZATION, wrong)).unwrap_err();
            assert_eq!(problem.kind, ProblemKind::Unauthorized, "{wrong}");
        }
        assert!(auth.check(&HeaderMap::new()).is_err());
        assert!(!format!("{auth:?}").contains("0123456789abcdef"));
    }

    #[test]
    fn short_tokens_are_refused() {
        assert!(Auth::new(["short"]).unwrap_err().contains("token 1"));
        assert!(Auth::new(Vec::<String>::new()).is_err());
    }

    #[test]
    fn only_loopback_names_pass_on_loopback() {
        let rule = HostRule::Loopback(vec!["shop.test:8080".to_string()]);
        for good in ["localhost", "localhost:8080", "127.0.0.1:1", "[::1]:8080", "LOCALHOST", "shop.test"] {
            assert!(rule.check(&headers(HOST, good)).is_ok(), "{good}");
        }
        for bad in ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "", "[::2]"] {
            assert!(rule.check(&headers(HOST, bad)).is_err(), "{bad}");
        }
        assert!(rule.check(&HeaderMap::new()).is_err());
        assert!(HostRule::Any.check(&HeaderMap::new()).is_ok());
    }
}

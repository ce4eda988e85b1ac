//! SCRAM-SHA-256 (RFC 5802, RFC 7677), the server's side: the client proves that it knows the password,
//! without sending it, and the server that it knows it too.
//!
//! ```text
//! client  n,,n=,r=<client nonce>
//! server  r=<client nonce><server nonce>,s=<salt>,i=<iterations>
//! client  c=biws,r=<both nonces>,p=<proof>
//! server  v=<signature>
//! ```
//!
//! pgwire has it only together with a TLS library, hence this. Without TLS there is no channel binding.
//! Invariant: the password itself is not kept, only keys derived from it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

pub const MECHANISM: &str = "SCRAM-SHA-256";

/// PostgreSQL's default.
const ITERATIONS: u32 = 4_096;

type Key = [u8; 32];

/// What the server keeps of a password.
pub struct Verifier {
    salt: [u8; 16],
    stored_key: Key,
    server_key: Key,
}

impl Verifier {
    pub fn of_password(password: &str, salt: [u8; 16]) -> Verifier {
        let salted = hi(password.as_bytes(), &salt, ITERATIONS);
        Verifier {
            salt,
            stored_key: Sha256::digest(hmac(&salted, b"Client Key")).into(),
            server_key: hmac(&salted, b"Server Key"),
        }
    }
}

/// The exchange after the client's first message.
pub struct Exchange {
    client_first_bare: String,
    server_first: String,
    nonce: String,
}

/// Takes the client's first message; `None` when it is not one that we understand.
pub fn begin(verifier: &Verifier, client_first: &str, server_nonce: &[u8]) -> Option<Exchange> {
    // "y": the client can bind to a channel and believes that we cannot, which is so.
    let bare = client_first.strip_prefix("n,").or_else(|| client_first.strip_prefix("y,"))?;
    // An authorization name between the commas is not used by PostgreSQL's clients.
    let bare = bare.strip_prefix(',')?;
    let client_nonce = bare.split(',').find_map(|part| part.strip_prefix("r="))?;
    if client_nonce.is_empty() {
        return None;
    }
    let nonce = format!("{client_nonce}{}", STANDARD.encode(server_nonce));
    let server_first = format!("r={nonce},s={},i={ITERATIONS}", STANDARD.encode(verifier.salt));
    Some(Exchange { client_first_bare: bare.to_string(), server_first, nonce })
}

impl Exchange {
    pub fn server_first(&self) -> &str {
        &self.server_first
    }

    /// Checks the proof; the answer proves to the client that we know the password too.
    pub fn finish(&self, verifier: &Verifier, client_final: &str) -> Option<String> {
        let (without_proof, proof) = client_final.rsplit_once(",p=")?;
        let mut parts = without_proof.split(',');
        let binding = parts.next()?.strip_prefix("c=")?;
        let nonce = parts.next()?.strip_prefix("r=")?;
        // "n,," and "y,,": no channel binding.
        if !["biws", "eSws"].contains(&binding) || nonce != self.nonce {
            return None;
        }
        let proof: Key = STANDARD.decode(proof).ok()?.try_into().ok()?;
        let signed = format!("{},{},{without_proof}", self.client_first_bare, self.server_first);
        let client_signature = hmac(&verifier.stored_key, signed.as_bytes());
        let mut client_key = proof;
        client_key.iter_mut().zip(client_signature).for_each(|(key, signature)| *key ^= signature);
        let stored_key: Key = Sha256::digest(client_key).into();
        // Compared in the same time wherever they differ.
        let difference = stored_key.iter().zip(verifier.stored_key).fold(0, |bits, (a, b)| bits | (a ^ b));
        (difference == 0)
            .then(|| format!("v={}", STANDARD.encode(hmac(&verifier.server_key, signed.as_bytes()))))
    }
}

fn hmac(key: &[u8], message: &[u8]) -> Key {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    mac.update(message);
    mac.finalize().into_bytes().into()
}

/// PBKDF2 with one block.
fn hi(password: &[u8], salt: &[u8], iterations: u32) -> Key {
    let mut block = hmac(password, &[salt, &1u32.to_be_bytes()].concat());
    let mut result = block;
    for _ in 1..iterations {
        block = hmac(password, &block);
        result.iter_mut().zip(block).for_each(|(r, b)| *r ^= b);
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of RFC 7677: user "user", password "pencil".
    fn rfc_7677() -> (Verifier, Exchange) {
        let salt = STANDARD.decode("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap().try_into().unwrap();
        let verifier = Verifier::of_password("pencil", salt);
        let exchange = Exchange {
            client_first_bare: "n=user,r=rOprNGfwEbeRWgbNEkqO".to_string(),
            server_first:
                "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
                    .to_string(),
            nonce: "rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0".to_string(),
        };
        (verifier, exchange)
    }

    const CLIENT_FINAL: &str = "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
                                p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";

    #[test]
    fn the_example_of_the_rfc_is_accepted_and_signed() {
        let (verifier, exchange) = rfc_7677();
        let answer = exchange.finish(&verifier, CLIENT_FINAL);
        assert_eq!(answer.as_deref(), Some("v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="));
    }

    #[test]
    fn other_proofs_nonces_and_bindings_are_refused() {
        let (verifier, exchange) = rfc_7677();
        for (from, to) in [("p=dHzb", "p=eHzb"), ("r=rOpr", "r=xOpr"), ("c=biws", "c=cD10"), (",p=", ",q=")] {
            assert_eq!(exchange.finish(&verifier, &CLIENT_FINAL.replace(from, to)), None, "{to}");
        }
        let wrong = Verifier::of_password("pencils", verifier.salt);
        assert_eq!(exchange.finish(&wrong, CLIENT_FINAL), None);
    }

    #[test]
    fn the_first_message_must_bring_a_nonce_and_no_channel_binding() {
        let (verifier, _) = rfc_7677();
        let exchange = begin(&verifier, "n,,n=,r=abc", b"xyz").unwrap();
        assert_eq!(exchange.server_first(), "r=abceHl6,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096");
        for message in ["", "n,,n=", "n,,n=,r=", "p=tls-unique,,n=,r=abc", "n=,r=abc"] {
            assert!(begin(&verifier, message, b"xyz").is_none(), "{message}");
        }
    }
}

//! Messages from the client, cut out of the byte stream and read without trusting any length in them.
//!
//! ```text
//! byte  0      type (absent in the first message of a connection)
//!       1..5   length of the message without the type byte, big-endian
//!       5..    body
//! ```
//!
//! pgwire's own decoders read past the end of a malformed body (and into the next message, or
//! panic), so frames are cut here and every field is checked against the body's end.

use bytes::{Buf, Bytes, BytesMut};

use super::encode::Format;
use super::errors::{PgError, code};

/// Longest message of a connected client: a statement, its parameters, a piece of COPY.
pub const MESSAGE_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Longest message before the client has proved who it is; PostgreSQL's limit of a startup packet.
pub const STARTUP_BYTES_MAX: usize = 10_000;

#[derive(Debug, PartialEq)]
pub enum Message {
    Query(String),
    Parse {
        name: String,
        sql: String,
        parameter_oids: Vec<u32>,
    },
    Bind(Bind),
    Describe(Target),
    Execute {
        portal: String,
        rows_max: usize,
    },
    Close(Target),
    Flush,
    Sync,
    Terminate,
    CopyData(Bytes),
    CopyDone,
    CopyFail(String),
    /// Password or SASL message; its shape depends on what was asked for.
    Password(Bytes),
}

#[derive(Debug, PartialEq)]
pub struct Bind {
    pub portal: String,
    pub statement: String,
    pub parameter_formats: Vec<Format>,
    pub parameters: Vec<Option<Bytes>>,
    pub result_formats: Vec<Format>,
}

#[derive(Debug, PartialEq)]
pub enum Target {
    Statement(String),
    Portal(String),
}

/// A whole message: its type, and its body.
#[derive(Debug, PartialEq)]
pub struct Frame {
    pub kind: u8,
    pub body: Bytes,
}

/// The first message of a connection.
#[derive(Debug, PartialEq)]
pub enum Startup {
    /// TLS or GSS encryption is asked for.
    Encryption,
    Cancel {
        process: i32,
        secret: i32,
    },
    Session {
        minor_version: u16,
        parameters: Vec<(String, String)>,
    },
}

/// Cuts the next frame out of `input`, `None` while it is incomplete.
///
/// # Errors
/// Fatal ones: after a wrong length nothing that follows can be understood.
pub fn next_frame(input: &mut BytesMut, bytes_max: usize) -> Result<Option<Frame>, PgError> {
    let Some((&kind, rest)) = input.split_first() else {
        return Ok(None);
    };
    if !b"QPBDECHSXdcfp".contains(&kind) {
        return Err(PgError::fatal(
            code::PROTOCOL_VIOLATION,
            format!("invalid frontend message type {kind}"),
        ));
    }
    let Some(length) = frame_length(rest, bytes_max)? else {
        return Ok(None);
    };
    if input.len() < 1 + length {
        return Ok(None);
    }
    input.advance(5);
    Ok(Some(Frame { kind, body: input.split_to(length - 4).freeze() }))
}

fn frame_length(bytes: &[u8], bytes_max: usize) -> Result<Option<usize>, PgError> {
    let Some(length) = bytes.first_chunk::<4>().map(|length| u32::from_be_bytes(*length) as usize) else {
        return Ok(None);
    };
    if length < 4 {
        return Err(PgError::fatal(code::PROTOCOL_VIOLATION, format!("invalid message length {length}")));
    }
    if length > bytes_max {
        return Err(PgError::fatal(
            code::PROGRAM_LIMIT_EXCEEDED,
            format!("message of {length} bytes is longer than the limit of {bytes_max}"),
        )
        .with_hint("send large inputs with COPY or in several statements"));
    }
    Ok(Some(length))
}

const SSL_REQUEST: u32 = 80_877_103;
const GSS_REQUEST: u32 = 80_877_104;
const CANCEL_REQUEST: u32 = 80_877_102;

/// Reads the first message of a connection, which has no type byte; `None` while it is incomplete.
pub fn next_startup(input: &mut BytesMut) -> Result<Option<Startup>, PgError> {
    let Some(length) = frame_length(input, STARTUP_BYTES_MAX)? else {
        return Ok(None);
    };
    if input.len() < length {
        return Ok(None);
    }
    input.advance(4);
    let mut body = Body::new("startup", input.split_to(length - 4).freeze());
    match body.u32().map_err(as_fatal)? {
        SSL_REQUEST | GSS_REQUEST => Ok(Some(Startup::Encryption)),
        CANCEL_REQUEST => {
            let process = body.u32().map_err(as_fatal)? as i32;
            let secret = body.u32().map_err(as_fatal)? as i32;
            Ok(Some(Startup::Cancel { process, secret }))
        }
        version if version >> 16 == 3 => {
            let mut parameters = Vec::new();
            loop {
                let name = body.text().map_err(as_fatal)?;
                if name.is_empty() {
                    break;
                }
                parameters.push((name, body.text().map_err(as_fatal)?));
            }
            Ok(Some(Startup::Session { minor_version: version as u16, parameters }))
        }
        version => Err(PgError::fatal(
            code::FEATURE_NOT_SUPPORTED,
            format!(
                "unsupported frontend protocol {}.{}: server supports 3.0",
                version >> 16,
                version as u16
            ),
        )),
    }
}

fn as_fatal(error: PgError) -> PgError {
    PgError { severity: super::errors::Severity::Fatal, ..error }
}

impl Frame {
    pub fn read(self) -> Result<Message, PgError> {
        let Frame { kind, body } = self;
        let mut body = Body::new(
            match kind {
                b'Q' => "query",
                b'P' => "parse",
                b'B' => "bind",
                b'D' => "describe",
                b'E' => "execute",
                b'C' => "close",
                _ => "frontend",
            },
            body,
        );
        let message = match kind {
            b'd' => return Ok(Message::CopyData(body.rest)),
            b'p' => return Ok(Message::Password(body.rest)),
            b'Q' => Message::Query(body.text()?),
            b'P' => Message::Parse {
                name: body.text()?,
                sql: body.text()?,
                parameter_oids: body.list(|body| body.u32())?,
            },
            b'B' => Message::Bind(Bind {
                portal: body.text()?,
                statement: body.text()?,
                parameter_formats: body.list(Body::format)?,
                parameters: body.list(Body::value)?,
                result_formats: body.list(Body::format)?,
            }),
            b'D' => Message::Describe(body.target()?),
            b'C' => Message::Close(body.target()?),
            // Zero and less mean all rows.
            b'E' => Message::Execute {
                portal: body.text()?,
                rows_max: usize::try_from(body.u32()? as i32).ok().filter(|n| *n > 0).unwrap_or(usize::MAX),
            },
            b'H' => Message::Flush,
            b'S' => Message::Sync,
            b'X' => Message::Terminate,
            b'c' => Message::CopyDone,
            b'f' => Message::CopyFail(body.text()?),
            other => {
                return Err(PgError::fatal(
                    code::PROTOCOL_VIOLATION,
                    format!("invalid frontend message type {other}"),
                ));
            }
        };
        body.end()?;
        Ok(message)
    }
}

/// The unread rest of a message's body.
pub struct Body {
    kind: &'static str,
    rest: Bytes,
}

impl Body {
    pub fn new(kind: &'static str, rest: Bytes) -> Body {
        Body { kind, rest }
    }

    fn malformed(&self) -> PgError {
        PgError::error(code::PROTOCOL_VIOLATION, format!("invalid message format of {} message", self.kind))
    }

    pub fn u32(&mut self) -> Result<u32, PgError> {
        if self.rest.len() < 4 { Err(self.malformed()) } else { Ok(self.rest.get_u32()) }
    }

    fn u16(&mut self) -> Result<u16, PgError> {
        if self.rest.len() < 2 { Err(self.malformed()) } else { Ok(self.rest.get_u16()) }
    }

    /// Text up to a NUL byte.
    pub fn text(&mut self) -> Result<String, PgError> {
        let length = self.rest.iter().position(|b| *b == 0).ok_or_else(|| self.malformed())?;
        let text = self.rest.split_to(length);
        self.rest.advance(1);
        match std::str::from_utf8(&text) {
            Ok(text) => Ok(text.to_string()),
            Err(error) => Err(PgError::error(
                code::INVALID_ENCODING,
                format!("invalid byte sequence for encoding \"UTF8\" at byte {}", error.valid_up_to() + 1),
            )),
        }
    }

    fn list<T>(&mut self, mut item: impl FnMut(&mut Body) -> Result<T, PgError>) -> Result<Vec<T>, PgError> {
        let count = usize::from(self.u16()?);
        (0..count).map(|_| item(self)).collect()
    }

    fn format(&mut self) -> Result<Format, PgError> {
        match self.u16()? {
            0 => Ok(Format::Text),
            1 => Ok(Format::Binary),
            other => Err(PgError::error(
                code::INVALID_PARAMETER_VALUE,
                format!("unsupported format code: {other}"),
            )),
        }
    }

    /// A value behind its length; -1 is null.
    pub fn value(&mut self) -> Result<Option<Bytes>, PgError> {
        let length = self.u32()? as i32;
        if length == -1 {
            return Ok(None);
        }
        match usize::try_from(length) {
            Ok(length) if length <= self.rest.len() => Ok(Some(self.rest.split_to(length))),
            _ => Err(self.malformed()),
        }
    }

    fn target(&mut self) -> Result<Target, PgError> {
        if self.rest.is_empty() {
            return Err(self.malformed());
        }
        match self.rest.get_u8() {
            b'S' => Ok(Target::Statement(self.text()?)),
            b'P' => Ok(Target::Portal(self.text()?)),
            _ => Err(self.malformed()),
        }
    }

    fn end(&self) -> Result<(), PgError> {
        if self.rest.is_empty() { Ok(()) } else { Err(self.malformed()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, body: &[u8]) -> BytesMut {
        let mut bytes = BytesMut::from(&[kind][..]);
        bytes.extend_from_slice(&(body.len() as u32 + 4).to_be_bytes());
        bytes.extend_from_slice(body);
        bytes
    }

    fn read(kind: u8, body: &[u8]) -> Result<Message, PgError> {
        next_frame(&mut frame(kind, body), MESSAGE_BYTES_MAX).unwrap().unwrap().read()
    }

    const BIND: &[u8] = b"p\0s\0\0\x01\0\x01\0\x02\0\0\0\x02ab\xff\xff\xff\xff\0\x01\0\0";

    #[test]
    fn messages_are_read_field_by_field() {
        assert_eq!(read(b'Q', b"select 1\0"), Ok(Message::Query("select 1".to_string())));
        assert_eq!(
            read(b'P', b"s\0select $1\0\0\x01\0\0\0\x17"),
            Ok(Message::Parse {
                name: "s".to_string(),
                sql: "select $1".to_string(),
                parameter_oids: vec![23]
            })
        );
        assert_eq!(
            read(b'B', BIND),
            Ok(Message::Bind(Bind {
                portal: "p".to_string(),
                statement: "s".to_string(),
                parameter_formats: vec![Format::Binary],
                parameters: vec![Some(Bytes::from_static(b"ab")), None],
                result_formats: vec![Format::Text],
            }))
        );
        assert_eq!(read(b'E', b"\0\0\0\0\x05"), Ok(Message::Execute { portal: String::new(), rows_max: 5 }));
        assert_eq!(
            read(b'E', b"\0\0\0\0\0"),
            Ok(Message::Execute { portal: String::new(), rows_max: usize::MAX })
        );
        assert_eq!(read(b'D', b"Ps\0"), Ok(Message::Describe(Target::Portal("s".to_string()))));
    }

    #[test]
    fn a_body_cut_anywhere_or_too_long_is_an_error_and_harms_nothing_after_it() {
        for length in 0..BIND.len() {
            let mut bytes = frame(b'B', &BIND[..length]);
            bytes.extend_from_slice(&frame(b'S', b""));
            let broken = next_frame(&mut bytes, MESSAGE_BYTES_MAX).unwrap().unwrap().read();
            assert_eq!(broken.unwrap_err().code, code::PROTOCOL_VIOLATION, "{length}");
            let next = next_frame(&mut bytes, MESSAGE_BYTES_MAX).unwrap().unwrap().read();
            assert_eq!(next, Ok(Message::Sync));
        }
        assert_eq!(read(b'S', b"x").unwrap_err().code, code::PROTOCOL_VIOLATION);
        assert_eq!(read(b'Q', b"\xff\0").unwrap_err().code, code::INVALID_ENCODING);
    }

    #[test]
    fn frames_wait_for_their_end_and_wrong_lengths_are_fatal() {
        let whole = frame(b'Q', b"select 1\0");
        for length in 0..whole.len() {
            let mut bytes = BytesMut::from(&whole[..length]);
            assert_eq!(next_frame(&mut bytes, MESSAGE_BYTES_MAX), Ok(None));
            assert_eq!(bytes.len(), length, "nothing is taken");
        }
        let fatal = |bytes: &[u8]| next_frame(&mut BytesMut::from(bytes), 1_000).unwrap_err();
        for bytes in [
            &b"Q\0\0\0\x03"[..],
            b"Q\xff\xff\xff\xff",
            b"Q\0\0\x10\0",
            b"\x16\x03\x01\0\0",
            b"GET / HTTP/1.1",
        ] {
            assert_eq!(fatal(bytes).severity, super::super::errors::Severity::Fatal, "{bytes:?}");
        }
    }

    #[test]
    fn the_first_message_is_a_session_a_cancel_or_a_wish_for_encryption() {
        let startup = |body: &[u8]| {
            let mut bytes = BytesMut::from(&(body.len() as u32 + 4).to_be_bytes()[..]);
            bytes.extend_from_slice(body);
            next_startup(&mut bytes)
        };
        assert_eq!(startup(&80_877_103u32.to_be_bytes()), Ok(Some(Startup::Encryption)));
        assert_eq!(
            startup(b"\x04\xd2\x16\x2e\0\0\0\x07\xff\xff\xff\xff"),
            Ok(Some(Startup::Cancel { process: 7, secret: -1 }))
        );
        assert_eq!(
            startup(b"\0\x03\0\0user\0root\0\0"),
            Ok(Some(Startup::Session {
                minor_version: 0,
                parameters: vec![("user".to_string(), "root".to_string())]
            }))
        );
        assert!(startup(b"\0\x03\0\0user\0root").is_err(), "no end");
        assert!(startup(b"\0\x02\0\0\0").is_err(), "protocol 2");
        assert!(startup(b"\x04\xd2\x16\x2e\0\0").is_err(), "short cancel");
        assert!(next_startup(&mut BytesMut::from(&b"GET / HTTP/1.1\r\n"[..])).is_err(), "length too large");
    }
}

//! The wire form of server-sent events (WHATWG HTML, "Server-sent events").

/// One event. `data` must be one line, which JSON is.
pub fn event(name: &str, id: Option<&str>, data: &[u8]) -> Vec<u8> {
    debug_assert!(!data.contains(&b'\n') && !data.contains(&b'\r'));
    let mut out = Vec::with_capacity(data.len() + name.len() + 64);
    out.extend_from_slice(b"event: ");
    out.extend_from_slice(name.as_bytes());
    if let Some(id) = id {
        out.extend_from_slice(b"\nid: ");
        out.extend_from_slice(id.as_bytes());
    }
    out.extend_from_slice(b"\ndata: ");
    out.extend_from_slice(data);
    out.extend_from_slice(b"\n\n");
    out
}

/// Keeps the connection alive and lets a dead one be noticed.
pub const HEARTBEAT: &[u8] = b": heartbeat\n\n";

/// Asks the reader to wait this long before it reconnects.
pub const RETRY: &[u8] = b"retry: 1000\n\n";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_ends_with_an_empty_line() {
        assert_eq!(event("change", Some("7"), b"{}"), b"event: change\nid: 7\ndata: {}\n\n");
        assert_eq!(event("status", None, b"[1]"), b"event: status\ndata: [1]\n\n");
    }
}

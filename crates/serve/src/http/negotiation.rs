//! Which format an answer has: `?format=` first, then the `Accept` header.

use axum::http::HeaderMap;
use axum::http::header::ACCEPT;

use super::problem::{Problem, ProblemKind};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Json,
    Ndjson,
    Csv,
}

impl Format {
    pub fn name(self) -> &'static str {
        match self {
            Format::Json => "json",
            Format::Ndjson => "ndjson",
            Format::Csv => "csv",
        }
    }

    pub fn content_type(self) -> &'static str {
        match self {
            Format::Json => "application/json",
            Format::Ndjson => "application/x-ndjson",
            Format::Csv => "text/csv; charset=utf-8; header=present",
        }
    }

    fn of_media_type(media_type: &str) -> Option<Format> {
        Some(match media_type {
            "application/json" | "application/*" | "*/*" | "text/html" => Format::Json,
            "application/x-ndjson" | "application/ndjson" | "application/jsonl" => Format::Ndjson,
            "text/csv" | "text/*" => Format::Csv,
            _ => return None,
        })
    }
}

/// # Errors
/// The 400 for an unknown `format`, the 406 when nothing accepted can be given.
pub fn negotiate(headers: &HeaderMap, query: &[(String, String)]) -> Result<Format, Problem> {
    if let Some((_, name)) = query.iter().rfind(|(name, _)| name == "format") {
        return match name.as_str() {
            "json" => Ok(Format::Json),
            "ndjson" => Ok(Format::Ndjson),
            "csv" => Ok(Format::Csv),
            other => Err(Problem::new(
                ProblemKind::InvalidParameter,
                format!("format must be json, ndjson or csv, not \"{other}\""),
            )
            .with("parameter", "format")),
        };
    }
    let Some(accept) = headers.get(ACCEPT).and_then(|value| value.to_str().ok()) else {
        return Ok(Format::Json);
    };
    best_of(accept).ok_or_else(|| {
        Problem::new(ProblemKind::NotAcceptable, format!("none of \"{accept}\" can be given"))
            .hint("accepted are application/json, application/x-ndjson and text/csv")
    })
}

/// The format with the highest `q`; of equals the first.
fn best_of(accept: &str) -> Option<Format> {
    let mut best: Option<(f32, Format)> = None;
    for range in accept.split(',') {
        let mut parts = range.split(';').map(str::trim);
        let media_type = parts.next().unwrap_or_default().to_ascii_lowercase();
        let quality = parts
            .find_map(|part| part.strip_prefix("q="))
            .map_or(1.0, |quality| quality.parse::<f32>().unwrap_or(0.0));
        let Some(format) = Format::of_media_type(&media_type).filter(|_| quality > 0.0) else {
            continue;
        };
        if best.is_none_or(|(known, _)| quality > known) {
            best = Some((quality, format));
        }
    }
    best.map(|(_, format)| format)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(accept: Option<&str>, format: Option<&str>) -> Option<Format> {
        let headers = accept.iter().map(|value| (ACCEPT, value.parse().unwrap())).collect();
        let query: Vec<_> = format.iter().map(|f| ("format".to_string(), f.to_string())).collect();
        negotiate(&headers, &query).ok()
    }

    #[test]
    fn the_parameter_beats_the_header() {
        assert_eq!(given(Some("text/csv"), Some("ndjson")), Some(Format::Ndjson));
        assert_eq!(given(None, Some("xml")), None);
    }

    #[test]
    fn the_header_is_weighed() {
        let browser = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";
        assert_eq!(given(Some(browser), None), Some(Format::Json));
        assert_eq!(given(Some("application/json;q=0.2, text/csv;q=0.9"), None), Some(Format::Csv));
        assert_eq!(given(Some("application/x-ndjson"), None), Some(Format::Ndjson));
        assert_eq!(given(Some("*/*"), None), Some(Format::Json));
        assert_eq!(given(Some("text/csv;q=0, image/png"), None), None);
        assert_eq!(given(None, None), Some(Format::Json));
    }
}

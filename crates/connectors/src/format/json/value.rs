//! One JSON value into one column.

use super::cursor::{Cursor, StringToken, unescape};
use crate::format::column::{Column, Values, narrow};
use crate::format::value::{self, Fault};

/// Appends the value at the cursor and moves behind it.
///
/// On a fault the column may hold a part of the value; the caller truncates it.
#[inline(always)]
pub(super) fn push(column: &mut Column, cursor: &mut Cursor<'_>) -> Result<(), Fault> {
    let first = cursor.peek().ok_or(Fault::Syntax)?;
    match (&mut column.values, first) {
        (Values::Int64(values), b'0'..=b'9' | b'-') => values.push(cursor.integer()?),
        (Values::Text(spans), b'"') => {
            let token = cursor.string()?;
            if token.escaped {
                let raw = &cursor.bytes[token.start..token.end];
                unescape(raw, |piece| spans.bytes.extend_from_slice(piece))
                    .inspect_err(|_| spans.reopen())?;
                spans.close();
            } else {
                spans.push(cursor.bytes, token.start, token.end);
            }
        }
        (Values::Timestamp(values), b'"') => {
            let token = cursor.string()?;
            values.push(with_text(cursor.bytes, token, value::timestamp)?);
        }
        _ => return push_other(column, cursor, first),
    }
    column.mark_valid();
    Ok(())
}

/// The less common pairs of column type and value.
fn push_other(column: &mut Column, cursor: &mut Cursor<'_>, first: u8) -> Result<(), Fault> {
    match (&mut column.values, first) {
        (_, b'n') => {
            cursor.literal(b"null")?;
            column.push_null();
            return Ok(());
        }
        (Values::Json(spans), _) => {
            let start = cursor.at;
            cursor.unrepresentable = false;
            cursor.skip_value()?;
            if std::mem::take(&mut cursor.unrepresentable) {
                return Err(Fault::Unrepresentable);
            }
            spans.push(cursor.bytes, start, cursor.at);
        }
        (_, b'"') => {
            let token = cursor.string()?;
            // The column marks the value itself.
            return with_text(cursor.bytes, token, |text| column.push_text(text));
        }
        (Values::List { .. }, b'[') => return push_array(column, cursor),
        (Values::Boolean(values), b't') => {
            cursor.literal(b"true")?;
            values.append(true);
        }
        (Values::Boolean(values), b'f') => {
            cursor.literal(b"false")?;
            values.append(false);
        }
        (Values::Text(spans), b't' | b'f') => {
            let word: &[u8] = if first == b't' { b"true" } else { b"false" };
            cursor.literal(word)?;
            spans.push(word, 0, word.len());
        }
        (values, b'0'..=b'9' | b'-') => push_number(values, cursor)?,
        (_, b't' | b'f' | b'{' | b'[') => return Err(Fault::WrongType),
        _ => return Err(Fault::Syntax),
    }
    column.mark_valid();
    Ok(())
}

fn push_number(values: &mut Values, cursor: &mut Cursor<'_>) -> Result<(), Fault> {
    let bytes = cursor.bytes;
    match values {
        Values::Int16(values) => {
            values.push(narrow(cursor.integer()?)?);
            return Ok(());
        }
        Values::Int32(values) => {
            values.push(narrow(cursor.integer()?)?);
            return Ok(());
        }
        _ => {}
    }
    let token = cursor.number()?;
    let text = &bytes[token.start..token.end];
    match values {
        Values::Float32(values) => values.push(value::float32(text)?),
        Values::Float64(values) => values.push(value::float64(text)?),
        Values::Decimal { values, precision, scale } => {
            values.push(value::decimal(text, *precision, *scale)?);
        }
        Values::Timestamp(values) if token.plain => {
            values.push(value::epoch_integer(value::integer(text)?)?);
        }
        Values::Timestamp(values) => values.push(value::timestamp(text)?),
        Values::Boolean(values) => match text {
            b"0" => values.append(false),
            b"1" => values.append(true),
            _ => return Err(Fault::WrongType),
        },
        Values::Text(spans) => spans.push(bytes, token.start, token.end),
        _ => return Err(Fault::WrongType),
    }
    Ok(())
}

fn push_array(column: &mut Column, cursor: &mut Cursor<'_>) -> Result<(), Fault> {
    let Values::List { ends, child, .. } = &mut column.values else {
        return Err(Fault::WrongType);
    };
    let start = child.len();
    if let Err(fault) = push_elements(child, cursor) {
        child.truncate(start);
        return Err(fault);
    }
    ends.push(child.len() as i32);
    column.mark_valid();
    Ok(())
}

// Recurses only through columns of lists of lists, as deep as the schema says.
fn push_elements(child: &mut Column, cursor: &mut Cursor<'_>) -> Result<(), Fault> {
    cursor.expect(b'[')?;
    cursor.skip_space();
    if cursor.peek() == Some(b']') {
        cursor.at += 1;
        return Ok(());
    }
    loop {
        let first = cursor.peek().ok_or(Fault::Syntax)?;
        match (&mut child.values, first) {
            (Values::Int64(_) | Values::Text(_) | Values::Timestamp(_), _) => push(child, cursor)?,
            _ => push_other(child, cursor, first)?,
        }
        cursor.skip_space();
        match cursor.peek() {
            Some(b',') => {
                cursor.at += 1;
                cursor.skip_space();
            }
            Some(b']') => {
                cursor.at += 1;
                return Ok(());
            }
            _ => return Err(Fault::Syntax),
        }
    }
}

/// Calls `read` with a string's text.
#[inline(always)]
fn with_text<T>(
    bytes: &[u8],
    token: StringToken,
    read: impl FnOnce(&[u8]) -> Result<T, Fault>,
) -> Result<T, Fault> {
    let raw = &bytes[token.start..token.end];
    if !token.escaped {
        return read(raw);
    }
    let mut text = Vec::with_capacity(raw.len());
    unescape(raw, |piece| text.extend_from_slice(piece))?;
    read(&text)
}

/// Checks that `text` is one JSON value and nothing else: what a `jsonb` column takes from text.
pub(crate) fn check_value(text: &[u8]) -> Result<(), Fault> {
    let mut cursor = Cursor::new(text, 0);
    cursor.skip_space();
    match cursor.skip_value() {
        Err(Fault::Syntax) => return Err(Fault::WrongType),
        other => other?,
    }
    cursor.skip_space();
    if cursor.at != text.len() {
        return Err(Fault::WrongType);
    }
    if cursor.unrepresentable { Err(Fault::Unrepresentable) } else { Ok(()) }
}

/// Appends the one JSON value that `text` is.
pub(crate) fn push_document(column: &mut Column, text: &[u8]) -> Result<(), Fault> {
    check_value(text)?;
    let mut cursor = Cursor::new(text, 0);
    cursor.skip_space();
    push(column, &mut cursor)
}

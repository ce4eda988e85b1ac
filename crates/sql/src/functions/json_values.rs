//! JSON made, taken apart and compared: `jsonb_build_object`, `jsonb_array_elements`, `#>`, `@>`, `?` and others.
//!
//! JSON is kept as text, and parts of it keep their text. What is made here is written like PostgreSQL writes jsonb:
//! a space after `,` and `:`.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Int64Array, ListBuilder, StringArray, StringBuilder, StructArray,
};
use arrow::datatypes::{
    DataType, Decimal128Type, Field, Fields, Float32Type, Float64Type, TimestampMicrosecondType,
};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion::common::{Result, exec_datafusion_err, exec_err};
use datafusion::logical_expr::ScalarUDF;
use serde_json::Value;

use super::json::{Key, get};
use super::plain::{Take, bigint, boolean, plain, text, text_array};

/// The name of the only field of a struct that stands for JSON, to be taken over as it is.
const RAW: &str = "$json";

pub(super) fn all() -> Vec<ScalarUDF> {
    vec![
        plain("json_path", &[Take::Text, Take::TextArray], text, |args, rows| path(args, rows, false)).udf(),
        plain("json_path_text", &[Take::Text, Take::TextArray], text, |args, rows| path(args, rows, true))
            .udf(),
        plain("jsonb_extract_path", &[Take::Text, Take::Text], text, |args, rows| steps(args, rows, false))
            .aliased(&["json_extract_path"])
            .variadic()
            .udf(),
        plain("jsonb_extract_path_text", &[Take::Text, Take::Text], text, |args, rows| {
            steps(args, rows, true)
        })
        .aliased(&["json_extract_path_text"])
        .variadic()
        .udf(),
        plain("jsonb_contains", &[Take::Text, Take::Text], boolean, contains).udf(),
        plain("jsonb_exists", &[Take::Text, Take::Text], boolean, |args, _| exists(args, Names::One)).udf(),
        plain("jsonb_exists_any", &[Take::Text, Take::TextArray], boolean, |a, _| exists(a, Names::Any))
            .udf(),
        plain("jsonb_exists_all", &[Take::Text, Take::TextArray], boolean, |a, _| exists(a, Names::All))
            .udf(),
        plain("jsonb_array_length", &[Take::Text], bigint, array_length)
            .aliased(&["json_array_length"])
            .udf(),
        plain("jsonb_typeof", &[Take::Text], text, type_of).aliased(&["json_typeof"]).udf(),
        plain("jsonb_strip_nulls", &[Take::Text], text, strip_nulls).aliased(&["json_strip_nulls"]).udf(),
        plain("json_elements", &[Take::Text], text_array, |args, _| parts(args, Part::Elements)).udf(),
        plain("json_elements_text", &[Take::Text], text_array, |args, _| parts(args, Part::ElementsText))
            .udf(),
        plain("json_keys", &[Take::Text], text_array, |args, _| parts(args, Part::Keys)).udf(),
        plain("json_values", &[Take::Text], text_array, |args, _| parts(args, Part::Values)).udf(),
        plain("json_values_text", &[Take::Text], text_array, |args, _| parts(args, Part::ValuesText)).udf(),
        plain("jsonb_build_object", &[Take::Any], text, build_object)
            .aliased(&["json_build_object"])
            .optional(1)
            .variadic()
            .udf(),
        plain("jsonb_build_array", &[Take::Any], text, build_array)
            .aliased(&["json_build_array"])
            .optional(1)
            .variadic()
            .udf(),
        to_json(),
        object_of_arrays(),
        raw(),
    ]
}

/// `to_jsonb(x)`; NULL stays NULL.
pub(super) fn to_json() -> ScalarUDF {
    let compute = |args: &[ArrayRef], _| {
        let values = (0..args[0].len()).map(|row| match args[0].is_null(row) {
            true => Ok(None),
            false => json_of(&args[0], row).map(Some),
        });
        Ok(Arc::new(StringArray::from(values.collect::<Result<Vec<_>>>()?)) as ArrayRef)
    };
    plain("to_jsonb", &[Take::Any], text, compute).aliased(&["to_json", "row_to_json", "array_to_json"]).udf()
}

/// The object whose keys and values stand in two arrays.
pub(super) fn object_of_arrays() -> ScalarUDF {
    let compute = |args: &[ArrayRef], _| {
        let (keys, values) = (args[0].as_list_opt::<i32>(), args[1].as_list_opt::<i32>());
        let (Some(keys), Some(values)) = (keys, values) else {
            return exec_err!("an array of keys and one of values are needed");
        };
        let object = |row: usize| -> Result<Option<String>> {
            if keys.is_null(row) || values.is_null(row) {
                return Ok(None);
            }
            let (keys, values) = (keys.value(row), values.value(row));
            let members = (0..keys.len()).map(|i| Ok((key_of(&keys, i)?, json_of(&values, i)?)));
            Ok(Some(object(members.collect::<Result<Vec<_>>>()?)))
        };
        let objects = (0..args[0].len()).map(object).collect::<Result<Vec<_>>>()?;
        Ok(Arc::new(StringArray::from(objects)) as ArrayRef)
    };
    plain("json_object_of_arrays", &[Take::Any, Take::Any], text, compute).udf()
}

/// Stands around a value until the planner knows whether it is JSON.
pub(super) fn element() -> ScalarUDF {
    let compute = |args: &[ArrayRef], _| Ok(Arc::clone(&args[0]));
    plain(super::json::ELEMENT, &[Take::Any], |types| types[0].clone(), compute).udf()
}

/// Says that a text is JSON, to those functions here that would quote a text.
pub(super) fn raw() -> ScalarUDF {
    let compute = |args: &[ArrayRef], _| {
        let nulls = args[0].nulls().cloned();
        let fields = Fields::from(vec![Field::new(RAW, DataType::Utf8, true)]);
        Ok(Arc::new(StructArray::try_new(fields, vec![Arc::clone(&args[0])], nulls)?) as ArrayRef)
    };
    let returns =
        |_: &[DataType]| DataType::Struct(Fields::from(vec![Field::new(RAW, DataType::Utf8, true)]));
    plain("json_raw", &[Take::Text], returns, compute).udf()
}

fn invalid(error: serde_json::Error) -> datafusion::common::DataFusionError {
    exec_datafusion_err!("invalid input syntax for type json: {error}")
}

// Taking apart.

/// The part that the steps lead to.
fn follow<'a>(json: &'a str, steps: impl Iterator<Item = &'a str>) -> Result<Option<&'a str>> {
    let mut at = Some(json);
    for step in steps {
        let Some(json) = at else { break };
        let is_array = json.trim_start().starts_with('[');
        at = match (is_array, step.parse::<i64>()) {
            (true, Ok(number)) => get(json, Key::Element(number)).map_err(invalid)?,
            (true, Err(_)) => None,
            (false, _) => get(json, Key::Member(step)).map_err(invalid)?,
        };
    }
    Ok(at)
}

/// A part as `->>` gives it.
fn plain_text(json: &str) -> Result<Option<String>> {
    let json = json.trim();
    match json.as_bytes().first() {
        Some(b'n') => Ok(None),
        Some(b'"') => serde_json::from_str(json).map(Some).map_err(invalid),
        _ => Ok(Some(json.to_string())),
    }
}

fn append(builder: &mut StringBuilder, found: Option<&str>, as_text: bool) -> Result<()> {
    match found {
        Some(json) if as_text => builder.append_option(plain_text(json)?),
        found => builder.append_option(found.map(str::trim)),
    }
    Ok(())
}

/// `{a,0,"x y"}`, PostgreSQL's text of an array.
fn array_literal(text: &str) -> Vec<String> {
    let inner = text.trim().trim_start_matches('{').trim_end_matches('}');
    if inner.trim().is_empty() {
        return vec![];
    }
    let (mut items, mut item, mut quoted, mut chars) = (vec![], String::new(), false, inner.chars());
    while let Some(c) = chars.next() {
        match c {
            '"' => quoted = !quoted,
            '\\' => item.extend(chars.next()),
            ',' if !quoted => items.push(std::mem::take(&mut item)),
            c if c.is_whitespace() && !quoted && item.is_empty() => {}
            c => item.push(c),
        }
    }
    items.push(item);
    items
}

/// The texts of a row of an array, or of a text that writes one; `None` for NULL.
fn texts_at(array: &ArrayRef, row: usize) -> Option<Vec<String>> {
    if array.is_null(row) {
        return None;
    }
    match array.as_list_opt::<i32>() {
        Some(lists) => {
            let texts = lists.value(row);
            let texts = texts.as_string_opt::<i32>()?;
            Some(texts.iter().flatten().map(ToString::to_string).collect())
        }
        None => Some(array_literal(array.as_string_opt::<i32>()?.value(row))),
    }
}

fn path(args: &[ArrayRef], rows: usize, as_text: bool) -> Result<ArrayRef> {
    let texts = args[0].as_string::<i32>();
    let mut builder = StringBuilder::new();
    for row in 0..rows {
        let found = match texts_at(&args[1], row).filter(|_| texts.is_valid(row)) {
            None => None,
            Some(steps) => {
                let steps: Vec<&str> = steps.iter().map(String::as_str).collect();
                follow(texts.value(row), steps.into_iter())?.map(ToString::to_string)
            }
        };
        append(&mut builder, found.as_deref(), as_text)?;
    }
    Ok(Arc::new(builder.finish()))
}

fn steps(args: &[ArrayRef], rows: usize, as_text: bool) -> Result<ArrayRef> {
    let columns: Vec<&StringArray> = args.iter().map(|arg| arg.as_string::<i32>()).collect();
    let mut builder = StringBuilder::new();
    for row in 0..rows {
        let found = match columns.iter().all(|column| column.is_valid(row)) {
            true => follow(columns[0].value(row), columns[1..].iter().map(|column| column.value(row)))?,
            false => None,
        };
        append(&mut builder, found, as_text)?;
    }
    Ok(Arc::new(builder.finish()))
}

#[derive(Clone, Copy)]
enum Part {
    Elements,
    ElementsText,
    Keys,
    Values,
    ValuesText,
}

fn parts(args: &[ArrayRef], part: Part) -> Result<ArrayRef> {
    let texts = args[0].as_string::<i32>();
    let mut builder = ListBuilder::new(StringBuilder::new());
    for text in texts {
        let Some(json) = text else {
            builder.append_null();
            continue;
        };
        let json = json.trim();
        match part {
            Part::Elements | Part::ElementsText => {
                if !json.starts_with('[') {
                    return exec_err!("cannot extract elements from a JSON value that is not an array");
                }
                for element in super::json::elements(json).map_err(invalid)? {
                    append(builder.values(), Some(element), matches!(part, Part::ElementsText))?;
                }
            }
            _ => {
                if !json.starts_with('{') {
                    return exec_err!("cannot take the members of a JSON value that is not an object");
                }
                for (key, value) in super::json::members(json).map_err(invalid)? {
                    match part {
                        Part::Keys => builder.values().append_option(plain_text(key)?),
                        _ => append(builder.values(), Some(value), matches!(part, Part::ValuesText))?,
                    }
                }
            }
        }
        builder.append(true);
    }
    Ok(Arc::new(builder.finish()))
}

// Asking.

fn parsed(json: &str) -> Result<Value> {
    serde_json::from_str(json).map_err(invalid)
}

fn contains(args: &[ArrayRef], rows: usize) -> Result<ArrayRef> {
    let (left, right) = (args[0].as_string::<i32>(), args[1].as_string::<i32>());
    let answers = (0..rows).map(|row| match left.is_valid(row) && right.is_valid(row) {
        false => Ok(None),
        true => Ok(Some(holds(&parsed(left.value(row))?, &parsed(right.value(row))?, true))),
    });
    Ok(Arc::new(BooleanArray::from(answers.collect::<Result<Vec<_>>>()?)))
}

/// PostgreSQL's `@>`: objects hold their members, arrays their elements in any order and number, and at the top an
/// array holds a plain value that is one of its elements.
fn holds(left: &Value, right: &Value, top: bool) -> bool {
    match (left, right) {
        (Value::Object(left), Value::Object(right)) => {
            right.iter().all(|(key, value)| left.get(key).is_some_and(|own| holds(own, value, false)))
        }
        (Value::Array(left), Value::Array(right)) => {
            right.iter().all(|wanted| left.iter().any(|own| holds(own, wanted, false)))
        }
        (Value::Array(left), plain) if top && !plain.is_object() => left.iter().any(|own| same(own, plain)),
        (left, right) => same(left, right),
    }
}

fn same(left: &Value, right: &Value) -> bool {
    match (left, right) {
        (Value::Number(left), Value::Number(right)) => left == right || left.as_f64() == right.as_f64(),
        (left, right) => left == right,
    }
}

#[derive(Clone, Copy)]
enum Names {
    One,
    Any,
    All,
}

fn exists(args: &[ArrayRef], names: Names) -> Result<ArrayRef> {
    let texts = args[0].as_string::<i32>();
    let mut answers = Vec::with_capacity(texts.len());
    for row in 0..texts.len() {
        let wanted = match names {
            Names::One => {
                let name = args[1].as_string::<i32>();
                name.is_valid(row).then(|| vec![name.value(row).to_string()])
            }
            _ => texts_at(&args[1], row),
        };
        let (Some(wanted), true) = (wanted, texts.is_valid(row)) else {
            answers.push(None);
            continue;
        };
        let json = parsed(texts.value(row))?;
        let has = |name: &String| match &json {
            Value::Object(members) => members.contains_key(name),
            Value::Array(elements) => elements.iter().any(|e| e.as_str() == Some(name.as_str())),
            Value::String(text) => text == name,
            _ => false,
        };
        answers.push(Some(match names {
            Names::One | Names::Any => wanted.iter().any(has),
            Names::All => wanted.iter().all(has),
        }));
    }
    Ok(Arc::new(BooleanArray::from(answers)))
}

fn array_length(args: &[ArrayRef], _: usize) -> Result<ArrayRef> {
    let lengths = args[0].as_string::<i32>().iter().map(|json| match json {
        None => Ok(None),
        Some(json) if json.trim_start().starts_with('[') => {
            Ok(Some(super::json::elements(json.trim()).map_err(invalid)?.len() as i64))
        }
        Some(_) => exec_err!("cannot get array length of a JSON value that is not an array"),
    });
    Ok(Arc::new(Int64Array::from(lengths.collect::<Result<Vec<_>>>()?)))
}

fn type_of(args: &[ArrayRef], _: usize) -> Result<ArrayRef> {
    let types = args[0].as_string::<i32>().iter().map(|json| match json {
        None => Ok(None),
        Some(json) => Ok(Some(match parsed(json)? {
            Value::Null => "null",
            Value::Bool(_) => "boolean",
            Value::Number(_) => "number",
            Value::String(_) => "string",
            Value::Array(_) => "array",
            Value::Object(_) => "object",
        })),
    });
    Ok(Arc::new(StringArray::from(types.collect::<Result<Vec<_>>>()?)))
}

fn strip_nulls(args: &[ArrayRef], _: usize) -> Result<ArrayRef> {
    fn stripped(json: &str) -> Result<String, serde_json::Error> {
        let json = json.trim();
        match json.as_bytes().first() {
            Some(b'{') => {
                let members = super::json::members(json)?.into_iter().filter(|(_, value)| *value != "null");
                let members = members.map(|(key, value)| Ok(format!("{key}: {}", stripped(value)?)));
                Ok(format!("{{{}}}", members.collect::<Result<Vec<_>, serde_json::Error>>()?.join(", ")))
            }
            Some(b'[') => {
                let elements = super::json::elements(json)?.into_iter().map(stripped);
                Ok(format!("[{}]", elements.collect::<Result<Vec<_>, _>>()?.join(", ")))
            }
            _ => Ok(json.to_string()),
        }
    }
    let texts = args[0].as_string::<i32>().iter().map(|json| json.map(stripped).transpose());
    let texts = texts.collect::<Result<Vec<_>, _>>().map_err(invalid)?;
    Ok(Arc::new(StringArray::from(texts)))
}

// Making.

fn quoted(text: &str) -> String {
    Value::String(text.to_string()).to_string()
}

fn object(members: Vec<(String, String)>) -> String {
    let members: Vec<String> =
        members.into_iter().map(|(key, value)| format!("{}: {value}", quoted(&key))).collect();
    format!("{{{}}}", members.join(", "))
}

fn key_of(array: &ArrayRef, row: usize) -> Result<String> {
    if array.is_null(row) {
        return exec_err!("a key of a JSON object must not be NULL");
    }
    Ok(match array.as_string_opt::<i32>() {
        Some(texts) => texts.value(row).to_string(),
        None => shown(array, row)?,
    })
}

fn shown(array: &ArrayRef, row: usize) -> Result<String> {
    Ok(ArrayFormatter::try_new(array.as_ref(), &FormatOptions::default())?.value(row).to_string())
}

/// A value as JSON.
fn json_of(array: &ArrayRef, row: usize) -> Result<String> {
    if array.is_null(row) || array.data_type().is_null() {
        return Ok("null".to_string());
    }
    Ok(match array.data_type() {
        DataType::Boolean => array.as_boolean().value(row).to_string(),
        DataType::Float32 => {
            float(f64::from(array.as_primitive::<Float32Type>().value(row)), &shown(array, row)?)
        }
        DataType::Float64 => {
            let value = array.as_primitive::<Float64Type>().value(row);
            float(value, &value.to_string())
        }
        DataType::Decimal128(..) => array.as_primitive::<Decimal128Type>().value_as_string(row),
        data_type if data_type.is_integer() => shown(array, row)?,
        DataType::Utf8 => quoted(array.as_string::<i32>().value(row)),
        DataType::Timestamp(arrow::datatypes::TimeUnit::Microsecond, zone) => {
            let us = array.as_primitive::<TimestampMicrosecondType>().value(row);
            let time = chrono::DateTime::from_timestamp_micros(us)
                .ok_or_else(|| exec_datafusion_err!("timestamp out of range"))?;
            let zone = if zone.is_some() { "+00:00" } else { "" };
            quoted(&format!("{}{zone}", time.format("%Y-%m-%dT%H:%M:%S%.f")))
        }
        DataType::List(_) => {
            let items = array.as_list::<i32>().value(row);
            let items = (0..items.len()).map(|item| json_of(&items, item)).collect::<Result<Vec<_>>>()?;
            format!("[{}]", items.join(", "))
        }
        DataType::Struct(fields) => {
            let columns = array.as_struct().columns();
            match fields.as_ref() {
                [field] if field.name() == RAW => columns[0].as_string::<i32>().value(row).trim().to_string(),
                fields => {
                    let members = fields.iter().zip(columns);
                    let members =
                        members.map(|(field, column)| Ok((field.name().clone(), json_of(column, row)?)));
                    object(members.collect::<Result<Vec<_>>>()?)
                }
            }
        }
        _ => quoted(&shown(array, row)?),
    })
}

fn float(value: f64, digits: &str) -> String {
    if value.is_finite() { digits.to_string() } else { quoted(digits) }
}

fn build_object(args: &[ArrayRef], rows: usize) -> Result<ArrayRef> {
    if !args.len().is_multiple_of(2) {
        return exec_err!("argument list of jsonb_build_object must have an even number of elements");
    }
    let objects = (0..rows.max(1)).map(|row| {
        let members = args.chunks_exact(2).map(|pair| Ok((key_of(&pair[0], row)?, json_of(&pair[1], row)?)));
        Ok(object(members.collect::<Result<Vec<_>>>()?))
    });
    Ok(Arc::new(StringArray::from(objects.take(rows).collect::<Result<Vec<_>>>()?)))
}

fn build_array(args: &[ArrayRef], rows: usize) -> Result<ArrayRef> {
    let arrays = (0..rows).map(|row| {
        let items = args.iter().map(|arg| json_of(arg, row)).collect::<Result<Vec<_>>>()?;
        Ok(format!("[{}]", items.join(", ")))
    });
    Ok(Arc::new(StringArray::from(arrays.collect::<Result<Vec<_>>>()?)))
}

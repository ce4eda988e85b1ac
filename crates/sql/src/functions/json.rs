//! `->` and `->>` on JSON kept as text.
//!
//! The text is checked, then walked over to the member that is asked for; nothing is built up, and
//! numbers keep the digits they were written with. Of equal keys the last one counts.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, StringBuilder};
use arrow::datatypes::{DataType, Field, FieldRef, Int64Type};
use datafusion::common::{DFSchema, Result, exec_err, internal_err, plan_err};
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult, RawBinaryExpr};
use datafusion::logical_expr::{
    ColumnarValue, Expr, ExprSchemable, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl,
    Signature, Volatility,
};
use datafusion::sql::sqlparser::ast::BinaryOperator;
use serde::de::IgnoredAny;

use super::{answer, arrays};

/// Plans the operators as calls of [`JsonGet`].
#[derive(Debug)]
pub struct JsonOperators;

impl ExprPlanner for JsonOperators {
    fn plan_binary_op(&self, expr: RawBinaryExpr, schema: &DFSchema) -> Result<PlannerResult<RawBinaryExpr>> {
        let get = |answer| ScalarUDF::new_from_impl(JsonGet::new(answer));
        let named = |name: &str| {
            super::json_values::all()
                .into_iter()
                .find(|udf| udf.name() == name)
                .expect("functions of this crate")
        };
        // Arrays have some of the operators, too.
        let is_text = |expr: &Expr| match expr.get_type(schema) {
            Ok(found) => matches!(found, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View),
            Err(_) => false,
        };
        let texts = is_text(&expr.left) && is_text(&expr.right);
        let (function, args) = match expr.op {
            BinaryOperator::Arrow => (get(Answer::Json), vec![expr.left, expr.right]),
            BinaryOperator::LongArrow => (get(Answer::Text), vec![expr.left, expr.right]),
            BinaryOperator::HashArrow => (named("json_path"), vec![expr.left, expr.right]),
            BinaryOperator::HashLongArrow => (named("json_path_text"), vec![expr.left, expr.right]),
            BinaryOperator::Question => (named("jsonb_exists"), vec![expr.left, expr.right]),
            BinaryOperator::QuestionPipe => (named("jsonb_exists_any"), vec![expr.left, expr.right]),
            BinaryOperator::QuestionAnd => (named("jsonb_exists_all"), vec![expr.left, expr.right]),
            BinaryOperator::AtArrow if texts => (named("jsonb_contains"), vec![expr.left, expr.right]),
            BinaryOperator::ArrowAt if texts => (named("jsonb_contains"), vec![expr.right, expr.left]),
            _ => return Ok(PlannerResult::Original(expr)),
        };
        let call = ScalarFunction::new_udf(Arc::new(function), args);
        Ok(PlannerResult::Planned(Expr::ScalarFunction(call)))
    }
}

/// What is given back: JSON (`->`) or the plain value (`->>`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Answer {
    Json,
    Text,
}

#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct JsonGet {
    answer: Answer,
    signature: Signature,
}

impl JsonGet {
    pub(super) fn new(answer: Answer) -> JsonGet {
        JsonGet { answer, signature: Signature::user_defined(Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for JsonGet {
    fn name(&self) -> &str {
        match self.answer {
            Answer::Json => "json_get",
            Answer::Text => "json_get_text",
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, arg_types: &[DataType]) -> Result<Vec<DataType>> {
        let [json, key] = arg_types else { return plan_err!("{} takes a JSON text and a key", self.name()) };
        let is_text = |t: &DataType| {
            matches!(t, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View | DataType::Null)
        };
        let operator = if self.answer == Answer::Json { "->" } else { "->>" };
        if !is_text(json) {
            return plan_err!("Cannot coerce {json} to jsonb for operator {operator}");
        }
        match key {
            key if key.is_integer() => Ok(vec![DataType::Utf8, DataType::Int64]),
            key if is_text(key) => Ok(vec![DataType::Utf8, DataType::Utf8]),
            key => plan_err!("Cannot coerce {key} to a key for operator {operator}"),
        }
    }

    fn return_type(&self, _arg_types: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8)
    }

    fn return_field_from_args(&self, _args: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        let field = Field::new(self.name(), DataType::Utf8, true);
        let sql_type = if self.answer == Answer::Json { "jsonb" } else { "text" };
        Ok(Arc::new(crate::types::with_sql_type(field, sql_type)))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let inputs = arrays(&args.args, args.number_rows)?;
        let [texts, keys] = inputs.as_slice() else {
            return internal_err!("{} takes two arguments", self.name());
        };
        let texts = texts.as_string::<i32>();
        let mut builder = StringBuilder::with_capacity(texts.len(), texts.len() * 8);
        for row in 0..texts.len() {
            if texts.is_null(row) || keys.is_null(row) {
                builder.append_null();
                continue;
            }
            let text = texts.value(row);
            let found = match get(text, key_at(keys, row)) {
                Ok(found) => found,
                Err(error) => return exec_err!("invalid input syntax for type json: {error}"),
            };
            match found {
                None => builder.append_null(),
                Some(value) => self.append(&mut builder, value)?,
            }
        }
        answer(&args.args, Arc::new(builder.finish()))
    }
}

impl JsonGet {
    fn append(&self, builder: &mut StringBuilder, value: &str) -> Result<()> {
        match self.answer {
            Answer::Json => builder.append_value(value),
            Answer::Text if value == "null" => builder.append_null(),
            Answer::Text if value.starts_with('"') => match serde_json::from_str::<String>(value) {
                Ok(text) => builder.append_value(text),
                Err(error) => return exec_err!("invalid input syntax for type json: {error}"),
            },
            Answer::Text => builder.append_value(value),
        }
        Ok(())
    }
}

pub(super) enum Key<'a> {
    Member(&'a str),
    /// From 0, or from the end when negative.
    Element(i64),
}

fn key_at(keys: &ArrayRef, row: usize) -> Key<'_> {
    match keys.data_type() {
        DataType::Int64 => Key::Element(keys.as_primitive::<Int64Type>().value(row)),
        _ => Key::Member(keys.as_string::<i32>().value(row)),
    }
}

/// `to_jsonb`, for planners.
pub(crate) fn to_json_udf() -> Arc<ScalarUDF> {
    Arc::new(super::json_values::to_json())
}

/// The name of the function that stands around a value of which JSON is made, until it is known what it is.
pub(crate) const ELEMENT: &str = "json_element";

/// [`ELEMENT`], for planners.
pub(crate) fn element_udf() -> Arc<ScalarUDF> {
    Arc::new(super::json_values::element())
}

/// The mark of a text that is JSON, for planners.
pub(crate) fn raw_udf() -> Arc<ScalarUDF> {
    Arc::new(super::json_values::raw())
}

/// The object of an array of keys and one of values, for planners.
pub(crate) fn object_of_arrays_udf() -> Arc<ScalarUDF> {
    Arc::new(super::json_values::object_of_arrays())
}

/// The elements of an array, as written.
pub(super) fn elements(text: &str) -> Result<Vec<&str>, serde_json::Error> {
    serde_json::from_str::<IgnoredAny>(text)?;
    Ok(Scanner { text, at: 0 }.elements().collect())
}

/// Names, in quotes, and values of an object, as written; of equal names the last one counts.
pub(super) fn members(text: &str) -> Result<Vec<(&str, &str)>, serde_json::Error> {
    serde_json::from_str::<IgnoredAny>(text)?;
    let mut found: Vec<(&str, &str)> = Vec::new();
    for (name, value) in (Scanner { text, at: 0 }).members() {
        match found.iter_mut().find(|(known, _)| *known == name) {
            Some(known) => known.1 = value,
            None => found.push((name, value)),
        }
    }
    Ok(found)
}

/// The member or element as written, `None` when it is not there.
pub(super) fn get<'a>(text: &'a str, key: Key<'_>) -> Result<Option<&'a str>, serde_json::Error> {
    serde_json::from_str::<IgnoredAny>(text)?;
    let mut scanner = Scanner { text, at: 0 };
    scanner.skip_space();
    Ok(match (scanner.peek(), key) {
        (Some(b'{'), Key::Member(name)) => scanner.member(name),
        (Some(b'['), Key::Element(number)) if number >= 0 => scanner.elements().nth(number as usize),
        (Some(b'['), Key::Element(number)) => {
            let elements: Vec<&str> = scanner.elements().collect();
            elements.len().checked_sub(number.unsigned_abs() as usize).map(|index| elements[index])
        }
        _ => None,
    })
}

/// Walks over a text that is known to be JSON, without looking into what it passes.
struct Scanner<'a> {
    text: &'a str,
    /// Byte offset; only ever stops before ASCII characters.
    at: usize,
}

impl<'a> Scanner<'a> {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn skip_space(&mut self) {
        while self.peek().is_some_and(|byte| byte.is_ascii_whitespace()) {
            self.at += 1;
        }
    }

    /// Passes `[`, `{`, `,` or `:` and the space around it.
    fn skip_mark(&mut self) {
        self.skip_space();
        self.at += 1;
        self.skip_space();
    }

    fn member(mut self, name: &str) -> Option<&'a str> {
        let mut found = None;
        self.skip_mark();
        while self.peek().is_some_and(|byte| byte == b'"') {
            let key = self.value();
            self.skip_mark();
            let value = self.value();
            if is_name(key, name) {
                found = Some(value);
            }
            self.skip_mark();
        }
        found
    }

    fn members(mut self) -> Vec<(&'a str, &'a str)> {
        let mut found = Vec::new();
        self.skip_mark();
        while self.peek().is_some_and(|byte| byte == b'"') {
            let key = self.value();
            self.skip_mark();
            found.push((key, self.value()));
            self.skip_mark();
        }
        found
    }

    fn elements(mut self) -> impl Iterator<Item = &'a str> {
        self.skip_mark();
        std::iter::from_fn(move || {
            if self.peek().is_none_or(|byte| byte == b']') {
                return None;
            }
            let value = self.value();
            self.skip_space();
            if self.peek() == Some(b',') {
                self.skip_mark();
            }
            Some(value)
        })
    }

    /// Passes one value and gives its text.
    fn value(&mut self) -> &'a str {
        let start = self.at;
        let mut depth = 0usize;
        while let Some(byte) = self.peek() {
            match byte {
                b'"' => self.skip_string(),
                b'{' | b'[' => {
                    depth += 1;
                    self.at += 1;
                }
                b'}' | b']' if depth > 0 => {
                    depth -= 1;
                    self.at += 1;
                }
                b',' | b':' | b'}' | b']' if depth == 0 => break,
                byte if depth == 0 && byte.is_ascii_whitespace() => break,
                _ => {
                    self.at += 1;
                    continue;
                }
            }
            if depth == 0 {
                break;
            }
        }
        &self.text[start..self.at]
    }

    fn skip_string(&mut self) {
        self.at += 1;
        while let Some(byte) = self.peek() {
            match byte {
                b'\\' => self.at += 2,
                b'"' => {
                    self.at += 1;
                    return;
                }
                _ => self.at += 1,
            }
        }
    }
}

/// Compares a member's name as written, in quotes, with a plain one.
fn is_name(written: &str, name: &str) -> bool {
    match written.contains('\\') {
        false => written.len() == name.len() + 2 && &written[1..written.len() - 1] == name,
        true => serde_json::from_str::<String>(written).is_ok_and(|written| written == name),
    }
}

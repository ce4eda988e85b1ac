//! From the query string of `GET /v1/views/{view}` to one parameterised SELECT.
//!
//! ```text
//!   ?behavior=pv&cnt.gte=10&order=cnt.desc&limit=5&cursor=...
//!       |           |            |                   |
//!       v           v            v                   v
//!   SELECT "window_start", "behavior", "cnt" FROM "behavior_per_minute"
//!    WHERE "behavior" = $1 AND "cnt" >= $2 AND (<after the cursor's row>)
//!    ORDER BY "cnt" DESC NULLS LAST, <key> LIMIT 6
//! ```
//!
//! Values travel as parameters only, names are checked against the relation and quoted.
//!
//! Pages: the order is always completed by the relation's key, so it is total, and a cursor holds the
//! last row's values in that order; the next page starts after them, whatever came or went in
//! between. A relation without a key is ordered by all its columns, and the cursor counts how many
//! equal rows were given already.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::{DECIMAL128_MAX_PRECISION, DataType, Field};
use datafusion::scalar::ScalarValue;
use engine::RelationInfo;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::problem::{Problem, ProblemKind, closest};
use super::values::{is_nested, is_text, plain_text};

pub const LIMIT_DEFAULT: usize = 100;
pub const LIMIT_MAX: usize = 10_000;
/// Values of one `.in=` list, and conditions of one request.
const VALUES_MAX: usize = 1_000;

/// Parameters that are not filters. A column of such a name is filtered as `limit.eq=5`.
const RESERVED: [&str; 6] = ["order", "limit", "cursor", "select", "wait_tick", "format"];

/// One request for rows, understood.
#[derive(Debug)]
pub struct RowsRequest {
    pub sql: String,
    pub parameters: Vec<ScalarValue>,
    /// Rows of the answer; the statement asks for one more, to know whether there is a next page.
    pub limit: usize,
    /// How many of the first selected columns the answer shows; the rest serves the cursor.
    pub columns_shown: usize,
    // Positions of the order columns in the selected columns.
    order_positions: Vec<usize>,
    fingerprint: String,
    // The relation has no key: equal rows must be counted.
    counts_ties: bool,
    start: Option<Cursor>,
}

/// Where a page ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Cursor {
    /// Of view, filters and order: a cursor is of no use elsewhere.
    #[serde(rename = "f")]
    fingerprint: String,
    /// The last row's values in order, as text; `None` is NULL.
    #[serde(rename = "v")]
    values: Vec<Option<String>>,
    /// Rows equal to the last one in all order columns that were given so far.
    #[serde(rename = "t")]
    ties: u64,
}

impl Cursor {
    fn encode(&self) -> String {
        URL_SAFE_NO_PAD.encode(serde_json::to_vec(self).expect("a cursor holds only text and numbers"))
    }

    fn decode(text: &str) -> Option<Cursor> {
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(text).ok()?).ok()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Comparison {
    Eq,
    Ne,
    Gt,
    Gte,
    Lt,
    Lte,
    In,
    Is,
}

impl Comparison {
    fn of_suffix(suffix: &str) -> Option<Comparison> {
        Some(match suffix {
            "eq" => Comparison::Eq,
            "ne" => Comparison::Ne,
            "gt" => Comparison::Gt,
            "gte" => Comparison::Gte,
            "lt" => Comparison::Lt,
            "lte" => Comparison::Lte,
            "in" => Comparison::In,
            "is" => Comparison::Is,
            _ => return None,
        })
    }

    fn symbol(self) -> &'static str {
        match self {
            Comparison::Eq => "=",
            Comparison::Ne => "<>",
            Comparison::Gt => ">",
            Comparison::Gte => ">=",
            Comparison::Lt => "<",
            Comparison::Lte => "<=",
            Comparison::In => "IN",
            Comparison::Is => "IS",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct OrderColumn {
    column: usize,
    descending: bool,
}

/// Collects parameters while conditions are written.
#[derive(Default)]
struct Parameters(Vec<ScalarValue>);

impl Parameters {
    fn bind(&mut self, value: ScalarValue) -> String {
        self.0.push(value);
        format!("${}", self.0.len())
    }

    /// As [`Parameters::bind`], but a decimal keeps its digits: alone, `$1` would take the column's type
    /// and be rounded to it.
    fn bind_exact(&mut self, value: ScalarValue) -> String {
        let exact = match value.data_type() {
            DataType::Decimal128(precision, scale) => Some((precision, scale)),
            _ => None,
        };
        let placeholder = self.bind(value);
        match exact {
            Some((precision, scale)) => format!("CAST({placeholder} AS DECIMAL({precision}, {scale}))"),
            None => placeholder,
        }
    }
}

impl RowsRequest {
    /// # Errors
    /// The 400 to answer with: it names the parameter.
    pub fn parse(relation: &RelationInfo, query: &[(String, String)]) -> Result<RowsRequest, Problem> {
        let mut parameters = Parameters::default();
        let mut conditions = Vec::new();
        let mut order = Vec::new();
        let mut limit = LIMIT_DEFAULT;
        let mut cursor = None;
        let mut selected: Option<Vec<usize>> = None;
        let mut fingerprint = Sha256::new();
        fingerprint.update(relation.name.as_bytes());
        for (name, value) in query {
            match name.as_str() {
                "order" => order = parse_order(relation, value)?,
                "limit" => limit = parse_limit(value)?,
                "cursor" => cursor = Some(value),
                "select" => selected = Some(parse_columns(relation, "select", value)?),
                "wait_tick" | "format" => {}
                _ => {
                    fingerprint.update([0u8]);
                    fingerprint.update(name.as_bytes());
                    fingerprint.update([1u8]);
                    fingerprint.update(value.as_bytes());
                    conditions.push(parse_filter(relation, name, value, &mut parameters)?);
                }
            }
            if parameters.0.len() > VALUES_MAX {
                return Err(invalid(name, format!("a request can filter by at most {VALUES_MAX} values")));
            }
        }
        let counts_ties = complete_order(relation, &mut order);
        for part in &order {
            fingerprint.update([2u8, u8::from(part.descending)]);
            fingerprint.update(relation.schema.field(part.column).name().as_bytes());
        }
        let fingerprint = hex(&fingerprint.finalize()[..8]);

        let start = match cursor {
            Some(text) => {
                let cursor = Cursor::decode(text)
                    .filter(|cursor| cursor.fingerprint == fingerprint && cursor.values.len() == order.len())
                    .ok_or_else(|| {
                        Problem::new(
                            ProblemKind::InvalidCursor,
                            "the cursor was not given out for this view, these filters and this order",
                        )
                        .hint("send the same parameters as for the page before, or leave the cursor out")
                    })?;
                conditions.push(after_cursor(relation, &order, &cursor, &mut parameters)?);
                Some(cursor)
            }
            None => None,
        };

        let shown = selected.unwrap_or_else(|| (0..relation.schema.fields().len()).collect());
        let columns_shown = shown.len();
        let mut columns = shown;
        let mut order_positions = Vec::new();
        for part in &order {
            let position = columns.iter().position(|column| *column == part.column).unwrap_or_else(|| {
                columns.push(part.column);
                columns.len() - 1
            });
            order_positions.push(position);
        }

        let mut sql = String::from("SELECT ");
        sql.push_str(&columns.iter().map(|column| quoted(relation, *column)).collect::<Vec<_>>().join(", "));
        sql.push_str(" FROM ");
        sql.push_str(&quote(&relation.name));
        if !conditions.is_empty() {
            sql.push_str(" WHERE ");
            sql.push_str(&conditions.join(" AND "));
        }
        if !order.is_empty() {
            sql.push_str(" ORDER BY ");
            let terms: Vec<String> = order
                .iter()
                .map(|part| {
                    let direction = if part.descending { "DESC" } else { "ASC" };
                    format!("{} {direction} NULLS LAST", quoted(relation, part.column))
                })
                .collect();
            sql.push_str(&terms.join(", "));
        }
        sql.push_str(&format!(" LIMIT {}", limit + 1));
        if let Some(cursor) = start.as_ref().filter(|cursor| counts_ties && cursor.ties > 0) {
            sql.push_str(&format!(" OFFSET {}", cursor.ties));
        }
        Ok(RowsRequest {
            sql,
            parameters: parameters.0,
            limit,
            columns_shown,
            order_positions,
            fingerprint,
            counts_ties,
            start,
        })
    }

    /// The cursor behind the last row shown, `None` on the last page. `rows` are all that the
    /// statement gave.
    pub fn next_cursor(&self, rows: &[RecordBatch]) -> Option<String> {
        let total: usize = rows.iter().map(RecordBatch::num_rows).sum();
        if total <= self.limit || self.limit == 0 || self.order_positions.is_empty() {
            return None;
        }
        let values = |index: usize| -> Vec<Option<String>> {
            let (batch, row) = locate(rows, index);
            self.order_positions.iter().map(|position| plain_text(batch.column(*position), row)).collect()
        };
        let last = values(self.limit - 1);
        let mut ties = 0;
        if self.counts_ties {
            while ties < self.limit && values(self.limit - 1 - ties) == last {
                ties += 1;
            }
        }
        let mut ties = ties as u64;
        // The whole page is equal to where the page before ended: those rows count too.
        if let Some(start) =
            self.start.as_ref().filter(|start| ties == self.limit as u64 && start.values == last)
        {
            ties += start.ties;
        }
        Some(Cursor { fingerprint: self.fingerprint.clone(), values: last, ties }.encode())
    }
}

fn locate(rows: &[RecordBatch], mut index: usize) -> (&RecordBatch, usize) {
    for batch in rows {
        if index < batch.num_rows() {
            return (batch, index);
        }
        index -= batch.num_rows();
    }
    panic!("the index is below the number of rows");
}

/// A name as an SQL identifier.
pub fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn quoted(relation: &RelationInfo, column: usize) -> String {
    quote(relation.schema.field(column).name())
}

fn invalid(parameter: &str, detail: impl Into<String>) -> Problem {
    Problem::new(ProblemKind::InvalidParameter, detail).with("parameter", parameter)
}

fn find_column(relation: &RelationInfo, parameter: &str, name: &str) -> Result<usize, Problem> {
    if let Ok(index) = relation.schema.index_of(name) {
        return Ok(index);
    }
    let names = relation.schema.fields().iter().map(|field| field.name().as_str());
    let problem = invalid(parameter, format!("\"{}\" has no column \"{name}\"", relation.name));
    Err(match closest(name, names.clone()) {
        Some(near) => problem.hint(format!("did you mean \"{near}\"?")),
        None => problem.hint(format!("its columns are: {}", names.collect::<Vec<_>>().join(", "))),
    })
}

fn parse_columns(relation: &RelationInfo, parameter: &str, list: &str) -> Result<Vec<usize>, Problem> {
    let mut columns = Vec::new();
    for name in list.split(',').map(str::trim) {
        let column = find_column(relation, parameter, name)?;
        if !columns.contains(&column) {
            columns.push(column);
        }
    }
    Ok(columns)
}

fn parse_limit(value: &str) -> Result<usize, Problem> {
    match value.parse::<usize>() {
        Ok(limit) if (1..=LIMIT_MAX).contains(&limit) => Ok(limit),
        _ => Err(invalid("limit", format!("limit must be a number from 1 to {LIMIT_MAX}, not \"{value}\""))
            .hint("ask for further rows with the cursor")),
    }
}

fn parse_order(relation: &RelationInfo, value: &str) -> Result<Vec<OrderColumn>, Problem> {
    let mut order: Vec<OrderColumn> = Vec::new();
    for term in value.split(',').map(str::trim) {
        let (name, descending) = match term.rsplit_once('.') {
            _ if relation.schema.index_of(term).is_ok() => (term, false),
            Some((name, "desc")) => (name, true),
            Some((name, "asc")) => (name, false),
            _ => (term, false),
        };
        let column = find_column(relation, "order", name)?;
        let field = relation.schema.field(column);
        if is_nested(field.data_type()) {
            return Err(invalid("order", format!("column \"{name}\" has no order: it holds lists or rows")));
        }
        if !order.iter().any(|part| part.column == column) {
            order.push(OrderColumn { column, descending });
        }
    }
    Ok(order)
}

/// Makes the order total; true when that takes all columns, because no key is known.
fn complete_order(relation: &RelationInfo, order: &mut Vec<OrderColumn>) -> bool {
    let keyless = relation.key.is_empty();
    let all: Vec<usize> = (0..relation.schema.fields().len()).collect();
    for column in if keyless { &all } else { &relation.key } {
        let sortable = !is_nested(relation.schema.field(*column).data_type());
        if sortable && !order.iter().any(|part| part.column == *column) {
            order.push(OrderColumn { column: *column, descending: false });
        }
    }
    keyless
}

fn parse_filter(
    relation: &RelationInfo,
    name: &str,
    value: &str,
    parameters: &mut Parameters,
) -> Result<String, Problem> {
    let (column_name, comparison) = match name.rsplit_once('.') {
        _ if relation.schema.index_of(name).is_ok() => (name, Comparison::Eq),
        Some((column, suffix)) => match Comparison::of_suffix(suffix) {
            Some(comparison) => (column, comparison),
            None => (name, Comparison::Eq),
        },
        None => (name, Comparison::Eq),
    };
    if relation.schema.index_of(column_name).is_err()
        && let Some(near) = closest(column_name, RESERVED).filter(|_| !name.contains('.'))
    {
        return Err(invalid(name, format!("there is no parameter and no column \"{name}\""))
            .hint(format!("did you mean \"{near}\"?")));
    }
    let column = find_column(relation, name, column_name)?;
    let field = relation.schema.field(column);
    let left = quoted(relation, column);
    match comparison {
        Comparison::Is => match value {
            "null" => Ok(format!("{left} IS NULL")),
            "notnull" => Ok(format!("{left} IS NOT NULL")),
            _ => Err(invalid(name, format!("{name} must be null or notnull, not \"{value}\""))),
        },
        Comparison::In => {
            let mut placeholders = Vec::new();
            for item in value.split(',') {
                placeholders.push(parameters.bind_exact(parse_value(field, name, item)?));
            }
            Ok(format!("{left} IN ({})", placeholders.join(", ")))
        }
        _ => {
            let placeholder = parameters.bind_exact(parse_value(field, name, value)?);
            Ok(format!("{left} {} {placeholder}", comparison.symbol()))
        }
    }
}

/// Reads a value as the column's type.
fn parse_value(field: &Field, parameter: &str, text: &str) -> Result<ScalarValue, Problem> {
    let data_type = field.data_type();
    if is_nested(data_type) {
        return Err(invalid(
            parameter,
            format!("column \"{}\" can't be compared with a value", field.name()),
        ));
    }
    let wanted = match data_type {
        // More digits than the column holds must not be rounded into another question.
        DataType::Decimal128(precision, scale) => {
            let digits = text.trim().split_once('.').map_or(0, |(_, fraction)| fraction.len());
            let scale_wanted = i8::try_from(digits).unwrap_or(i8::MAX).max(*scale);
            // Both sides of the comparison have to fit into one type.
            let scale_max = DECIMAL128_MAX_PRECISION as i8 - (*precision as i8 - *scale);
            if scale_wanted > scale_max {
                let detail =
                    format!("\"{}\" has more than {scale_max} digits behind the point", shortened(text));
                return Err(invalid(parameter, detail));
            }
            DataType::Decimal128(DECIMAL128_MAX_PRECISION, scale_wanted)
        }
        other => other.clone(),
    };
    let trimmed = if is_text(data_type) { text } else { text.trim() };
    match ScalarValue::try_from_string(trimmed.to_string(), &wanted) {
        Ok(value) if !value.is_null() => Ok(value),
        _ => {
            let expected = super::values::type_name(field);
            let problem =
                invalid(parameter, format!("\"{}\" is not a value of type {expected}", shortened(text)));
            Err(match data_type {
                DataType::Timestamp(_, _) => problem.hint("write times as 2021-09-01T12:00:00Z (a + as %2B)"),
                _ => problem,
            })
        }
    }
}

fn shortened(text: &str) -> String {
    match text.char_indices().nth(80) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_string(),
    }
}

/// The condition for rows behind the cursor's row: lexicographic, NULLs last in both directions.
fn after_cursor(
    relation: &RelationInfo,
    order: &[OrderColumn],
    cursor: &Cursor,
    parameters: &mut Parameters,
) -> Result<String, Problem> {
    let damaged = || Problem::new(ProblemKind::InvalidCursor, "the cursor is damaged");
    let mut values = Vec::new();
    for (part, text) in order.iter().zip(&cursor.values) {
        values.push(match text {
            Some(text) => {
                let data_type = relation.schema.field(part.column).data_type();
                Some(ScalarValue::try_from_string(text.clone(), data_type).map_err(|_| damaged())?)
            }
            None => None,
        });
    }
    let mut alternatives = Vec::new();
    let mut equal_so_far: Vec<String> = Vec::new();
    for (part, value) in order.iter().zip(values) {
        let left = quoted(relation, part.column);
        let (beyond, equal) = match value {
            Some(value) => {
                let placeholder = parameters.bind(value);
                let symbol = if part.descending { "<" } else { ">" };
                let beyond = if relation.schema.field(part.column).is_nullable() {
                    format!("({left} {symbol} {placeholder} OR {left} IS NULL)")
                } else {
                    format!("{left} {symbol} {placeholder}")
                };
                (Some(beyond), format!("{left} = {placeholder}"))
            }
            // Nothing comes behind NULL.
            None => (None, format!("{left} IS NULL")),
        };
        if let Some(beyond) = beyond {
            let mut all = equal_so_far.clone();
            all.push(beyond);
            alternatives.push(format!("({})", all.join(" AND ")));
        }
        equal_so_far.push(equal);
    }
    if relation.key.is_empty() {
        // Rows equal to the last one: some were given already, OFFSET passes over them.
        alternatives.push(format!("({})", equal_so_far.join(" AND ")));
    }
    if alternatives.is_empty() {
        return Ok("false".to_string());
    }
    Ok(format!("({})", alternatives.join(" OR ")))
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests;

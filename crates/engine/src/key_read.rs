//! Reads by key: filters that name rows which a store finds without looking at the others.
//!
//! ```text
//!   WHERE id = 7 AND state IN ('a', 'b')        paths of the relation: (id), (state, city)
//!     -> one key (7) of the path (id); the query filters what comes once more
//! ```
//!
//! Rule: the rows found are a superset of those that the filters keep, at the same tick as the rest of the query.

use std::collections::{BTreeMap, HashSet};

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Schema, SchemaRef};
use dataflow::Result;
use datafusion::logical_expr::expr::{BinaryExpr, InList};
use datafusion::logical_expr::utils::split_conjunction;
use datafusion::logical_expr::{Expr, Operator};
use datafusion::scalar::ScalarValue;
use sql::RelationId;

use crate::row_codec::batch_of;

/// Keys of one read; more of them are read by a scan.
const KEYS_MAX: usize = 1_000;

/// Rows of a relation with these values in these columns: its key, or the columns of an index.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct KeyRead {
    pub relation: RelationId,
    pub columns: Vec<usize>,
    /// Distinct; each has a value per column, of the column's type and not NULL.
    pub keys: Vec<Vec<ScalarValue>>,
}

impl KeyRead {
    /// The read that `filters` allow by the first of `paths` whose columns are all bound to values.
    pub fn of_filters(
        relation: RelationId,
        filters: &[Expr],
        schema: &Schema,
        paths: &[Vec<usize>],
    ) -> Option<KeyRead> {
        let mut bound: BTreeMap<usize, Vec<ScalarValue>> = BTreeMap::new();
        for condition in filters.iter().flat_map(split_conjunction) {
            if let Some((column, values)) = values_of(condition, schema) {
                bound.entry(column).or_insert(values);
            }
        }
        let columns = paths.iter().find(|path| path.iter().all(|column| bound.contains_key(column)))?;
        let mut keys: Vec<Vec<ScalarValue>> = vec![Vec::new()];
        for column in columns {
            let values = &bound[column];
            if keys.len().saturating_mul(values.len()) > KEYS_MAX {
                return None;
            }
            let longer = keys.iter().flat_map(|key| {
                values.iter().map(|value| key.iter().cloned().chain([value.clone()]).collect())
            });
            keys = longer.collect();
        }
        let mut seen = HashSet::new();
        keys.retain(|key| seen.insert(key.clone()));
        Some(KeyRead { relation, columns: columns.clone(), keys })
    }

    /// Each key as a batch of one row.
    pub fn batches<'a>(&'a self, schema: &'a Schema) -> impl Iterator<Item = Result<RecordBatch>> + 'a {
        let columns: SchemaRef =
            schema.project(&self.columns).expect("paths are columns of the relation").into();
        self.keys.iter().map(move |key| key_batch(&columns, key))
    }
}

/// A key as a batch of one row; the schema is that of the key's columns.
pub fn key_batch(columns: &SchemaRef, key: &[ScalarValue]) -> Result<RecordBatch> {
    // Nullable, whatever the column: the same schema serves all stores.
    let arrays =
        key.iter().map(|value| value.to_array_of_size(1)).collect::<std::result::Result<Vec<_>, _>>();
    let arrays = arrays.map_err(|e| dataflow::Error::Operator(e.to_string()))?;
    batch_of(columns, arrays, 1)
}

/// True if the condition may be of use for a read by one of the paths.
pub fn may_bind(condition: &Expr, schema: &Schema, paths: &[Vec<usize>]) -> bool {
    values_of(condition, schema).is_some_and(|(column, _)| paths.iter().flatten().any(|c| *c == column))
}

/// `column = value`, `column IN (values)`, or such conditions on one column joined by OR.
fn values_of(condition: &Expr, schema: &Schema) -> Option<(usize, Vec<ScalarValue>)> {
    match condition {
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::Eq, right }) => {
            let (column, value) = match (left.as_ref(), right.as_ref()) {
                (Expr::Column(column), Expr::Literal(value, _)) => (column, value),
                (Expr::Literal(value, _), Expr::Column(column)) => (column, value),
                _ => return None,
            };
            let index = schema.index_of(&column.name).ok()?;
            Some((index, vec![key_value(value, schema.field(index).data_type())?]))
        }
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::Or, right }) => {
            let (column, mut values) = values_of(left, schema)?;
            let (other, more) = values_of(right, schema)?;
            values.extend(more);
            (column == other).then_some((column, values))
        }
        Expr::InList(InList { expr, list, negated: false }) => {
            let Expr::Column(column) = expr.as_ref() else { return None };
            let index = schema.index_of(&column.name).ok()?;
            let data_type = schema.field(index).data_type();
            let values = list.iter().map(|item| match item {
                Expr::Literal(value, _) => key_value(value, data_type),
                _ => None,
            });
            Some((index, values.collect::<Option<_>>()?))
        }
        _ => None,
    }
}

/// The value as one of the column's type, if equal values have equal bytes there.
pub fn key_value(value: &ScalarValue, data_type: &DataType) -> Option<ScalarValue> {
    // -0.0 equals 0.0 and has other bytes.
    if value.is_null() || data_type.is_floating() || data_type.is_nested() {
        return None;
    }
    if value.data_type() == *data_type {
        return Some(value.clone());
    }
    let cast = value.cast_to(data_type).ok()?;
    (cast.cast_to(&value.data_type()).ok()? == *value).then_some(cast)
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::datatypes::Field;
    use datafusion::prelude::{col, lit};

    fn schema() -> Schema {
        Schema::new(vec![
            Field::new("id", DataType::Int64, false),
            Field::new("state", DataType::Utf8, true),
            Field::new("price", DataType::Float64, true),
        ])
    }

    fn read(filter: Expr) -> Option<String> {
        let paths = vec![vec![0], vec![1, 0], vec![1], vec![2]];
        let read = KeyRead::of_filters(RelationId(7), &[filter], &schema(), &paths)?;
        let keys = read.keys.iter().map(|k| k.iter().map(ToString::to_string).collect::<Vec<_>>().join("+"));
        Some(format!("{:?}: {}", read.columns, keys.collect::<Vec<_>>().join(" ")))
    }

    #[test]
    fn equalities_of_all_columns_of_a_path_make_keys() {
        assert_eq!(read(col("id").eq(lit(7i64))).unwrap(), "[0]: 7");
        assert_eq!(read(lit(7i32).eq(col("id")).and(col("state").eq(lit("a")))).unwrap(), "[0]: 7");
        assert_eq!(
            read(col("state").in_list(vec![lit("a"), lit("b"), lit("a")], false)).unwrap(),
            "[1]: a b"
        );
        let either = col("id").eq(lit(1i64)).or(col("id").eq(lit(2i64)));
        assert_eq!(read(either).unwrap(), "[0]: 1 2");
    }

    #[test]
    fn what_does_not_name_rows_is_scanned() {
        assert_eq!(read(col("id").gt(lit(7i64))), None);
        assert_eq!(read(col("id").in_list(vec![lit(1i64)], true)), None);
        assert_eq!(read(col("id").eq(lit(1i64)).or(col("state").eq(lit("a")))), None);
        assert_eq!(read(col("price").eq(lit(0.0))), None, "0.0 and -0.0 are equal");
        assert_eq!(read(col("id").eq(lit(ScalarValue::Int64(None)))), None);
        assert_eq!(read(col("id").eq(lit(1.5))), None, "no id equals it; the filter above says so");
        let many = (0..1001i64).map(lit).collect();
        assert_eq!(read(col("id").in_list(many, false)), None);
    }
}

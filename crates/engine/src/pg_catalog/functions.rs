//! Functions over the catalogs: `format_type(oid, modifier)`, `pg_get_viewdef(oid)`, `'orders'::regclass`.
//!
//! All of them are small and pure; one implementation computes them row by row from a function on [`Value`]s.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Int64Array, ListArray, StringArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Int32Type, Int64Type};
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

use super::facts::{self, Facts, OWNER, OWNER_NAME};

/// Settings as clients ask for them by `current_setting` and in `pg_settings`.
pub const SETTINGS: [(&str, &str); 12] = [
    ("application_name", ""),
    ("client_encoding", "UTF8"),
    ("datestyle", "ISO, MDY"),
    ("default_transaction_isolation", "read committed"),
    ("integer_datetimes", "on"),
    ("max_identifier_length", "63"),
    ("max_index_keys", "32"),
    ("search_path", "\"$user\", public"),
    ("server_encoding", "UTF8"),
    ("server_version", "16.6"),
    ("server_version_num", "160006"),
    ("timezone", "UTC"),
];

/// An argument or answer.
#[derive(Clone, Debug, PartialEq)]
enum Value {
    Null,
    Bool(bool),
    Int(i64),
    Text(String),
}

impl Value {
    fn int(&self) -> Option<i64> {
        match self {
            Value::Int(value) => Some(*value),
            Value::Text(text) => text.trim().parse().ok(),
            _ => None,
        }
    }

    fn text(&self) -> Option<&str> {
        match self {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }
}

impl From<Option<String>> for Value {
    fn from(text: Option<String>) -> Value {
        text.map_or(Value::Null, Value::Text)
    }
}

type Body = fn(&Facts, &[Value]) -> Value;

/// The type of the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Answer {
    Bool,
    Int,
    Text,
    /// The name of a number, the number of a name.
    Reg,
}

/// Names, the type of the answer, and how it is computed.
const FUNCTIONS: &[(&str, Answer, Body)] = &[
    ("format_type", Answer::Text, |_, v| match v.first().and_then(Value::int) {
        Some(oid) => Value::Text(facts::format_type(oid, v.get(1).and_then(Value::int))),
        None => Value::Null,
    }),
    ("pg_table_is_visible", Answer::Bool, known),
    ("pg_type_is_visible", Answer::Bool, known),
    ("pg_function_is_visible", Answer::Bool, known),
    ("pg_opclass_is_visible", Answer::Bool, known),
    ("pg_relation_is_publishable", Answer::Bool, |_, _| Value::Bool(false)),
    ("pg_is_in_recovery", Answer::Bool, |_, _| Value::Bool(false)),
    ("pg_is_other_temp_schema", Answer::Bool, |_, _| Value::Bool(false)),
    ("row_security_active", Answer::Bool, |_, _| Value::Bool(false)),
    ("has_table_privilege", Answer::Bool, |_, _| Value::Bool(true)),
    ("has_any_column_privilege", Answer::Bool, |_, _| Value::Bool(true)),
    ("has_column_privilege", Answer::Bool, |_, _| Value::Bool(true)),
    ("has_schema_privilege", Answer::Bool, |_, _| Value::Bool(true)),
    ("has_database_privilege", Answer::Bool, |_, _| Value::Bool(true)),
    ("has_function_privilege", Answer::Bool, |_, _| Value::Bool(true)),
    ("has_sequence_privilege", Answer::Bool, |_, _| Value::Bool(true)),
    ("pg_has_role", Answer::Bool, |_, _| Value::Bool(true)),
    ("pg_get_userbyid", Answer::Text, |_, v| match v.first().and_then(Value::int) {
        Some(OWNER) => Value::Text(OWNER_NAME.into()),
        Some(oid) => Value::Text(format!("unknown (OID={oid})")),
        None => Value::Null,
    }),
    ("pg_encoding_to_char", Answer::Text, |_, v| match v.first().and_then(Value::int) {
        Some(6) => Value::Text("UTF8".into()),
        _ => Value::Text(String::new()),
    }),
    ("pg_char_to_encoding", Answer::Int, |_, _| Value::Int(6)),
    ("pg_get_expr", Answer::Text, |_, v| v.first().cloned().unwrap_or(Value::Null)),
    ("pg_get_viewdef", Answer::Text, |facts, v| {
        let oid = v.first().and_then(|v| v.int().or_else(|| facts.oid_of_name(v.text()?)));
        let query = oid.and_then(|oid| facts.relation(oid)?.query.clone());
        query.map(|query| format!("{query};")).into()
    }),
    ("pg_get_indexdef", Answer::Text, |facts, v| {
        let Some(index) = v.first().and_then(Value::int).and_then(|oid| facts.index(oid)) else {
            return Value::Null;
        };
        match v.get(1).and_then(Value::int) {
            None | Some(0) => Value::Text(index.definition.clone()),
            Some(number) => {
                let column = usize::try_from(number - 1).ok().and_then(|n| index.column_names.get(n));
                column.map(|name| facts::quoted(name)).into()
            }
        }
    }),
    ("pg_get_constraintdef", Answer::Text, |facts, v| {
        let Some(number) = v.first().and_then(Value::int).map(|oid| oid - (2i64 << 40)) else {
            return Value::Null;
        };
        let Some(relation) = facts.relation(number / 1_000) else { return Value::Null };
        match usize::try_from(number % 1_000) {
            Ok(0) => Value::Text(relation.key_definition()),
            Ok(check) => relation.checks.get(check - 1).map(|(_, text)| format!("CHECK ({text})")).into(),
            Err(_) => Value::Null,
        }
    }),
    ("pg_get_function_result", Answer::Text, |facts, v| function(facts, v).map(|f| f.returns.clone()).into()),
    ("pg_get_function_arguments", Answer::Text, |facts, v| function(facts, v).map(|f| f.signature()).into()),
    ("pg_get_function_identity_arguments", Answer::Text, |facts, v| {
        function(facts, v).map(|f| f.signature()).into()
    }),
    ("pg_get_functiondef", Answer::Text, |facts, v| function(facts, v).map(|f| f.definition.clone()).into()),
    ("pg_get_partkeydef", Answer::Text, |_, _| Value::Null),
    ("pg_get_statisticsobjdef_columns", Answer::Text, |_, _| Value::Null),
    ("pg_get_serial_sequence", Answer::Text, |_, _| Value::Null),
    ("pg_get_ruledef", Answer::Text, |_, _| Value::Null),
    ("pg_get_triggerdef", Answer::Text, |_, _| Value::Null),
    ("pg_tablespace_location", Answer::Text, |_, _| Value::Null),
    ("obj_description", Answer::Text, |facts, v| {
        let Some(oid) = v.first().and_then(Value::int) else { return Value::Null };
        let of_relation = facts.relation(oid).and_then(|r| r.comment.clone());
        of_relation.or_else(|| facts.functions.iter().find(|f| f.oid == oid)?.comment.clone()).into()
    }),
    ("col_description", Answer::Text, |facts, v| {
        let comment = || {
            let column = usize::try_from(v.get(1)?.int()? - 1).ok()?;
            facts.relation(v.first()?.int()?)?.columns.get(column)?.comment.clone()
        };
        comment().into()
    }),
    ("shobj_description", Answer::Text, |_, _| Value::Null),
    ("pg_relation_size", Answer::Int, |_, _| Value::Int(0)),
    ("pg_total_relation_size", Answer::Int, |_, _| Value::Int(0)),
    ("pg_table_size", Answer::Int, |_, _| Value::Int(0)),
    ("pg_indexes_size", Answer::Int, |_, _| Value::Int(0)),
    ("pg_database_size", Answer::Int, |_, _| Value::Int(0)),
    ("pg_size_pretty", Answer::Text, |_, v| {
        v.first().and_then(Value::int).map(|n| format!("{n} bytes")).into()
    }),
    ("pg_backend_pid", Answer::Int, |_, _| Value::Int(i64::from(std::process::id()))),
    ("quote_ident", Answer::Text, |_, v| v.first().and_then(Value::text).map(facts::quoted).into()),
    ("current_user", Answer::Text, |_, _| Value::Text(OWNER_NAME.into())),
    ("session_user", Answer::Text, |_, _| Value::Text(OWNER_NAME.into())),
    ("user", Answer::Text, |_, _| Value::Text(OWNER_NAME.into())),
    ("current_catalog", Answer::Text, |_, _| Value::Text(sql::DEFAULT_DATABASE.into())),
    ("current_setting", Answer::Text, |_, v| {
        let name = v.first().and_then(Value::text).unwrap_or_default().to_lowercase();
        SETTINGS.iter().find(|(known, _)| *known == name).map(|(_, value)| value.to_string()).into()
    }),
    ("set_config", Answer::Text, |_, v| v.get(1).cloned().unwrap_or(Value::Null)),
    ("regclass", Answer::Reg, |facts, v| match v.first() {
        Some(Value::Int(oid)) => {
            Value::Text(facts.name_of_oid(*oid).map_or_else(|| oid.to_string(), facts::quoted))
        }
        Some(Value::Text(name)) => match name.parse() {
            Ok(oid) => Value::Int(oid),
            Err(_) => facts.oid_of_name(name).or_else(|| catalog_oid(name)).map_or(Value::Null, Value::Int),
        },
        _ => Value::Null,
    }),
    ("to_regclass", Answer::Int, |facts, v| {
        v.first()
            .and_then(Value::text)
            .and_then(|name| facts.oid_of_name(name))
            .map_or(Value::Null, Value::Int)
    }),
    ("regtype", Answer::Reg, |_, v| match v.first() {
        Some(Value::Int(oid)) => Value::Text(facts::format_type(*oid, None)),
        Some(Value::Text(name)) => facts::type_oid_of_name(name).map_or(Value::Null, Value::Int),
        _ => Value::Null,
    }),
    ("regnamespace", Answer::Reg, |_, v| match v.first() {
        Some(Value::Int(facts::PUBLIC)) => Value::Text("public".into()),
        Some(Value::Int(facts::PG_CATALOG)) => Value::Text("pg_catalog".into()),
        Some(Value::Int(facts::INFORMATION_SCHEMA)) => Value::Text("information_schema".into()),
        Some(Value::Int(oid)) => Value::Text(oid.to_string()),
        Some(Value::Text(name)) => match name.as_str() {
            "public" => Value::Int(facts::PUBLIC),
            "pg_catalog" => Value::Int(facts::PG_CATALOG),
            "information_schema" => Value::Int(facts::INFORMATION_SCHEMA),
            _ => Value::Null,
        },
        _ => Value::Null,
    }),
    ("regrole", Answer::Reg, |_, v| match v.first() {
        Some(Value::Int(OWNER)) => Value::Text(OWNER_NAME.into()),
        Some(Value::Text(name)) if name == OWNER_NAME => Value::Int(OWNER),
        _ => Value::Null,
    }),
    ("regproc", Answer::Reg, |facts, v| match v.first() {
        Some(Value::Int(oid)) => {
            let found = facts.functions.iter().find(|f| f.oid == *oid);
            Value::Text(found.map_or_else(|| oid.to_string(), |f| facts::quoted(&f.name)))
        }
        Some(Value::Text(name)) => {
            facts.functions.iter().find(|f| f.name == *name).map_or(Value::Null, |f| Value::Int(f.oid))
        }
        _ => Value::Null,
    }),
];

fn known(_: &Facts, values: &[Value]) -> Value {
    Value::Bool(values.first().is_some_and(|v| *v != Value::Null))
}

fn function<'a>(facts: &'a Facts, values: &[Value]) -> Option<&'a facts::Function> {
    let oid = values.first()?.int()?;
    facts.functions.iter().find(|f| f.oid == oid)
}

/// Catalogs whose own numbers clients compare with.
fn catalog_oid(name: &str) -> Option<i64> {
    match name.trim_start_matches("pg_catalog.") {
        "pg_class" => Some(1_259),
        "pg_type" => Some(1_247),
        "pg_attribute" => Some(1_249),
        "pg_proc" => Some(1_255),
        "pg_namespace" => Some(2_615),
        "pg_constraint" => Some(2_606),
        "pg_trigger" => Some(2_620),
        "pg_database" => Some(1_262),
        _ => None,
    }
}

pub fn all(facts: &Arc<Facts>) -> Vec<Arc<ScalarUDF>> {
    let of_catalog = FUNCTIONS.iter().map(|(name, answer, body)| {
        let signature = Signature::variadic_any(Volatility::Stable);
        let signature = Signature::one_of(
            vec![signature.type_signature, datafusion::logical_expr::TypeSignature::Nullary],
            Volatility::Stable,
        );
        ScalarUDF::new_from_impl(CatalogFunction {
            name,
            answer: *answer,
            body: *body,
            facts: Arc::clone(facts),
            signature,
        })
    });
    let lists = [
        ScalarUDF::new_from_impl(CurrentSchemas { signature: Signature::any(1, Volatility::Stable) }),
        ScalarUDF::new_from_impl(ArraySubscripts { signature: Signature::any(1, Volatility::Immutable) }),
    ];
    of_catalog.chain(lists).map(Arc::new).collect()
}

struct CatalogFunction {
    name: &'static str,
    answer: Answer,
    body: Body,
    facts: Arc<Facts>,
    signature: Signature,
}

impl std::fmt::Debug for CatalogFunction {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

impl PartialEq for CatalogFunction {
    fn eq(&self, other: &CatalogFunction) -> bool {
        self.name == other.name && Arc::ptr_eq(&self.facts, &other.facts)
    }
}

impl Eq for CatalogFunction {}

impl Hash for CatalogFunction {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}

fn is_text(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View)
}

impl ScalarUDFImpl for CatalogFunction {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        Ok(match self.answer {
            Answer::Bool => DataType::Boolean,
            Answer::Int => DataType::Int64,
            Answer::Text => DataType::Utf8,
            Answer::Reg if arguments.first().is_some_and(|t| is_text(t) || t.is_null()) => DataType::Int64,
            Answer::Reg => DataType::Utf8,
        })
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let scalar = args.args.iter().all(|arg| matches!(arg, ColumnarValue::Scalar(_)));
        let rows = if scalar { 1 } else { args.number_rows };
        let columns =
            args.args.iter().map(|arg| normal(&arg.to_array(rows)?)).collect::<Result<Vec<ArrayRef>>>()?;
        let answers = (0..rows).map(|row| {
            let values: Vec<Value> = columns.iter().map(|column| value_at(column, row)).collect();
            (self.body)(&self.facts, &values)
        });
        let array: ArrayRef = match args.return_field.data_type() {
            DataType::Boolean => Arc::new(BooleanArray::from_iter(answers.map(|v| match v {
                Value::Bool(value) => Some(value),
                _ => None,
            }))),
            DataType::Int64 => Arc::new(Int64Array::from_iter(answers.map(|v| v.int()))),
            _ => Arc::new(StringArray::from_iter(answers.map(|v| match v {
                Value::Text(text) => Some(text),
                Value::Int(number) => Some(number.to_string()),
                _ => None,
            }))),
        };
        match scalar {
            true => Ok(ColumnarValue::Scalar(datafusion::scalar::ScalarValue::try_from_array(&array, 0)?)),
            false => Ok(ColumnarValue::Array(array)),
        }
    }
}

/// One of the few types that [`value_at`] reads.
fn normal(array: &ArrayRef) -> Result<ArrayRef> {
    let to = match array.data_type() {
        t if is_text(t) => DataType::Utf8,
        t if t.is_integer() => DataType::Int64,
        DataType::Boolean => return Ok(Arc::clone(array)),
        _ => DataType::Utf8,
    };
    cast(array, &to).map_err(DataFusionError::from)
}

fn value_at(array: &ArrayRef, row: usize) -> Value {
    match array.data_type() {
        _ if array.is_null(row) => Value::Null,
        DataType::Int64 => Value::Int(array.as_primitive::<Int64Type>().value(row)),
        DataType::Boolean => Value::Bool(array.as_boolean().value(row)),
        _ => Value::Text(array.as_string::<i32>().value(row).to_string()),
    }
}

/// `current_schemas(with_implicit)`
#[derive(Debug, PartialEq, Eq, Hash)]
struct CurrentSchemas {
    signature: Signature,
}

impl ScalarUDFImpl for CurrentSchemas {
    fn name(&self) -> &str {
        "current_schemas"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::List(Arc::new(Field::new_list_field(DataType::Utf8, true))))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let implicit = match args.args.first() {
            Some(ColumnarValue::Scalar(datafusion::scalar::ScalarValue::Boolean(value))) => *value,
            _ => None,
        };
        let mut builder = arrow::array::ListBuilder::new(arrow::array::StringBuilder::new());
        if implicit == Some(true) {
            builder.values().append_value("pg_catalog");
        }
        builder.values().append_value("public");
        builder.append(true);
        let list: ArrayRef = Arc::new(builder.finish());
        Ok(ColumnarValue::Scalar(datafusion::scalar::ScalarValue::try_from_array(&list, 0)?))
    }
}

/// `array_subscripts(list)`: 1 to its length, for generate_subscripts.
#[derive(Debug, PartialEq, Eq, Hash)]
struct ArraySubscripts {
    signature: Signature,
}

impl ScalarUDFImpl for ArraySubscripts {
    fn name(&self) -> &str {
        "array_subscripts"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::List(Arc::new(Field::new_list_field(DataType::Int32, true))))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let [list] = args.args.as_slice() else {
            return Err(DataFusionError::Plan("array_subscripts takes one list".into()));
        };
        let list = list.to_array(args.number_rows)?;
        let Some(list) = list.as_any().downcast_ref::<ListArray>() else {
            return Err(DataFusionError::Plan("array_subscripts takes a list".into()));
        };
        let subscripts = (0..list.len()).map(|row| {
            list.is_valid(row).then(|| (1..=list.value_length(row)).map(Some).collect::<Vec<_>>())
        });
        Ok(ColumnarValue::Array(Arc::new(ListArray::from_iter_primitive::<Int32Type, _, _>(subscripts))))
    }
}

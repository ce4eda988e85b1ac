//! The views of `information_schema`, as the SQL standard names them.

use std::collections::BTreeMap;

use sql::{DEFAULT_DATABASE, DEFAULT_SCHEMA};

use super::facts::{Facts, OWNER_NAME, TYPES, type_oid};
use super::rows::{Cell, SystemTable, row};

pub fn all(facts: &Facts) -> BTreeMap<&'static str, SystemTable> {
    BTreeMap::from([
        ("schemata", schemata()),
        ("tables", tables(facts)),
        ("columns", columns(facts)),
        ("views", views(facts)),
        ("table_constraints", table_constraints(facts)),
        ("key_column_usage", key_column_usage(facts)),
        ("check_constraints", check_constraints(facts)),
        ("routines", routines(facts)),
        (
            "referential_constraints",
            SystemTable::empty(
                "constraint_catalog, constraint_schema, constraint_name, unique_constraint_catalog, \
                 unique_constraint_schema, unique_constraint_name, match_option, update_rule, delete_rule",
            ),
        ),
        (
            "constraint_column_usage",
            SystemTable::empty(
                "table_catalog, table_schema, table_name, column_name, constraint_catalog, constraint_schema, \
                 constraint_name",
            ),
        ),
        ("sequences", SystemTable::empty("sequence_catalog, sequence_schema, sequence_name, data_type")),
        (
            "triggers",
            SystemTable::empty(
                "trigger_catalog, trigger_schema, trigger_name, event_manipulation, event_object_schema, \
                 event_object_table, action_statement, action_timing",
            ),
        ),
    ])
}

fn schemata() -> SystemTable {
    let names = ["information_schema", "pg_catalog", DEFAULT_SCHEMA];
    SystemTable::new(
        "catalog_name, schema_name, schema_owner, default_character_set_catalog, default_character_set_schema, \
         default_character_set_name, sql_path",
        names
            .map(|name| {
                row![DEFAULT_DATABASE, name, OWNER_NAME, Cell::Null, Cell::Null, Cell::Null, Cell::Null]
            })
            .to_vec(),
    )
}

fn tables(facts: &Facts) -> SystemTable {
    let rows = facts.relations.iter().map(|r| {
        let kind = match r.kind {
            'r' => "BASE TABLE",
            'm' => "MATERIALIZED VIEW",
            _ => "VIEW",
        };
        row![DEFAULT_DATABASE, DEFAULT_SCHEMA, r.name.clone(), kind, if r.kind == 'r' { "YES" } else { "NO" }]
    });
    SystemTable::new(
        "table_catalog, table_schema, table_name, table_type, is_insertable_into",
        rows.collect(),
    )
}

fn columns(facts: &Facts) -> SystemTable {
    let yes_no = |yes: bool| if yes { "YES" } else { "NO" };
    let rows = facts.relations.iter().flat_map(|r| {
        r.columns.iter().enumerate().map(move |(number, column)| {
            let base = column.sql_type.split('(').next().unwrap_or_default().to_string();
            let array = column.sql_type.ends_with("[]");
            let numeric = base == "numeric" && column.modifier >= 4;
            let bits = match base.as_str() {
                "smallint" => Some(16),
                "integer" => Some(32),
                "bigint" => Some(64),
                "real" => Some(24),
                "double precision" => Some(53),
                _ => None,
            };
            let precision = if numeric { Some((column.modifier - 4) >> 16) } else { bits };
            let scale = match bits {
                _ if numeric => Some((column.modifier - 4) & 0xffff),
                Some(16 | 32 | 64) => Some(0),
                _ => None,
            };
            let length = base.starts_with("character") && column.modifier >= 4;
            let known = TYPES.iter().find(|t| t.oid == type_oid(&column.sql_type));
            let element = column.sql_type.trim_end_matches("[]");
            let udt = match known {
                Some(t) => t.name.to_string(),
                None => {
                    let element = TYPES.iter().find(|t| t.oid == type_oid(element));
                    format!("_{}", element.map_or("text", |t| t.name))
                }
            };
            let times = base.starts_with("time") || base == "interval";
            row![
                DEFAULT_DATABASE,
                DEFAULT_SCHEMA,
                r.name.clone(),
                column.name.clone(),
                number as i64 + 1,
                column.default.clone().filter(|_| !column.generated),
                yes_no(!column.not_null),
                if array { "ARRAY".to_string() } else { base },
                length.then(|| column.modifier - 4),
                precision,
                precision.map(|_| if numeric { 10i64 } else { 2 }),
                scale,
                times.then_some(6i64),
                DEFAULT_DATABASE,
                "pg_catalog",
                udt,
                "NO",
                Cell::Null,
                if column.generated { "ALWAYS" } else { "NEVER" },
                column.default.clone().filter(|_| column.generated),
                yes_no(r.kind == 'r' && !column.generated)
            ]
        })
    });
    SystemTable::new(
        "table_catalog, table_schema, table_name, column_name, ordinal_position int4, column_default, is_nullable, \
         data_type, character_maximum_length int4, numeric_precision int4, numeric_precision_radix int4, \
         numeric_scale int4, datetime_precision int4, udt_catalog, udt_schema, udt_name, is_identity, \
         identity_generation, is_generated, generation_expression, is_updatable",
        rows.collect(),
    )
}

fn views(facts: &Facts) -> SystemTable {
    let views = facts.relations.iter().filter(|r| r.kind == 'v');
    SystemTable::new(
        "table_catalog, table_schema, table_name, view_definition, check_option, is_updatable, is_insertable_into",
        views
            .map(|r| {
                row![DEFAULT_DATABASE, DEFAULT_SCHEMA, r.name.clone(), r.query.clone(), "NONE", "NO", "NO"]
            })
            .collect(),
    )
}

fn table_constraints(facts: &Facts) -> SystemTable {
    let constraint = |table: &str, name: String, kind: &str| {
        row![
            DEFAULT_DATABASE,
            DEFAULT_SCHEMA,
            name,
            DEFAULT_DATABASE,
            DEFAULT_SCHEMA,
            table,
            kind,
            "NO",
            "NO",
            "YES"
        ]
    };
    let mut rows = Vec::new();
    for r in facts.relations.iter().filter(|r| r.kind == 'r') {
        if !r.key.is_empty() {
            rows.push(constraint(&r.name, format!("{}_pkey", r.name), "PRIMARY KEY"));
        }
        rows.extend(r.checks.iter().map(|(name, _)| constraint(&r.name, name.clone(), "CHECK")));
    }
    SystemTable::new(
        "constraint_catalog, constraint_schema, constraint_name, table_catalog, table_schema, table_name, \
         constraint_type, is_deferrable, initially_deferred, enforced",
        rows,
    )
}

fn key_column_usage(facts: &Facts) -> SystemTable {
    let rows = facts.relations.iter().filter(|r| r.kind == 'r').flat_map(|r| {
        r.key.iter().enumerate().map(move |(position, column)| {
            row![
                DEFAULT_DATABASE,
                DEFAULT_SCHEMA,
                format!("{}_pkey", r.name),
                DEFAULT_DATABASE,
                DEFAULT_SCHEMA,
                r.name.clone(),
                r.columns[*column].name.clone(),
                position as i64 + 1,
                Cell::Null
            ]
        })
    });
    SystemTable::new(
        "constraint_catalog, constraint_schema, constraint_name, table_catalog, table_schema, table_name, \
         column_name, ordinal_position int4, position_in_unique_constraint int4",
        rows.collect(),
    )
}

fn check_constraints(facts: &Facts) -> SystemTable {
    let rows = facts.relations.iter().flat_map(|r| {
        let row = |(name, condition): &(String, String)| {
            row![DEFAULT_DATABASE, DEFAULT_SCHEMA, name.clone(), condition.clone()]
        };
        r.checks.iter().map(row).collect::<Vec<_>>()
    });
    SystemTable::new("constraint_catalog, constraint_schema, constraint_name, check_clause", rows.collect())
}

fn routines(facts: &Facts) -> SystemTable {
    let rows = facts.functions.iter().map(|f| {
        row![
            DEFAULT_DATABASE,
            DEFAULT_SCHEMA,
            f.name.clone(),
            "FUNCTION",
            f.returns.clone(),
            "SQL",
            f.body.clone()
        ]
    });
    SystemTable::new(
        "routine_catalog, routine_schema, routine_name, routine_type, data_type, external_language, \
         routine_definition",
        rows.collect(),
    )
}

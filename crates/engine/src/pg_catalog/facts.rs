//! What the catalogs say of each relation, found out once.

use std::collections::BTreeMap;

use sql::{Catalog, RelationId};

use super::FIRST_OID;
use crate::definition::ViewProperties;

/// Schemas, with PostgreSQL's own numbers.
pub const PG_CATALOG: i64 = 11;
pub const PUBLIC: i64 = 2_200;
pub const INFORMATION_SCHEMA: i64 = 13_000;
/// The only role.
pub const OWNER: i64 = 10;
pub const OWNER_NAME: &str = "root";
pub const DATABASE: i64 = 5;

pub struct Facts {
    pub relations: Vec<Relation>,
    pub indexes: Vec<Index>,
    pub functions: Vec<Function>,
    by_oid: BTreeMap<i64, usize>,
}

pub struct Relation {
    pub oid: i64,
    pub name: String,
    /// As pg_class.relkind: `r`, `v` or `m`.
    pub kind: char,
    pub columns: Vec<ColumnFacts>,
    /// Column numbers, from 0.
    pub key: Vec<usize>,
    pub checks: Vec<(String, String)>,
    /// The SELECT of a view.
    pub query: Option<String>,
    pub comment: Option<String>,
}

pub struct ColumnFacts {
    pub name: String,
    pub sql_type: String,
    pub type_oid: i64,
    pub modifier: i64,
    pub not_null: bool,
    pub default: Option<String>,
    pub generated: bool,
    pub comment: Option<String>,
}

pub struct Index {
    pub oid: i64,
    pub name: String,
    pub relation: i64,
    pub relation_name: String,
    /// Column numbers, from 0.
    pub columns: Vec<usize>,
    pub column_names: Vec<String>,
    pub primary: bool,
    /// The statement that makes it.
    pub definition: String,
}

pub struct Function {
    pub oid: i64,
    pub name: String,
    /// Names and types; a name may be empty.
    pub arguments: Vec<(String, String)>,
    pub returns: String,
    pub body: String,
    pub strict: bool,
    pub comment: Option<String>,
    /// The statement that makes it.
    pub definition: String,
}

impl Function {
    /// `price numeric, tax numeric`
    pub fn signature(&self) -> String {
        let argument = |(name, sql_type): &(String, String)| match name.as_str() {
            "" => sql_type.clone(),
            name => format!("{} {sql_type}", quoted(name)),
        };
        self.arguments.iter().map(argument).collect::<Vec<_>>().join(", ")
    }
}

/// Oids of indexes that primary keys stand for: those of their relations, far away from all others.
const KEY_INDEX_OFFSET: i64 = 1 << 40;

impl Facts {
    pub fn of(catalog: &Catalog, views: &ViewProperties) -> Facts {
        let mut relations = Vec::new();
        for table in catalog.tables.values() {
            let columns = table.columns.iter().enumerate().map(|(number, column)| {
                let expression = column.generated.as_ref().or(column.default.as_ref());
                ColumnFacts {
                    name: column.name.clone(),
                    sql_type: column.sql_type.clone(),
                    type_oid: type_oid(&column.sql_type),
                    modifier: type_modifier(&column.sql_type),
                    not_null: column.not_null,
                    default: expression.cloned(),
                    generated: column.generated.is_some(),
                    comment: catalog.comment(table.id, Some(number)).map(str::to_string),
                }
            });
            relations.push(Relation {
                oid: oid_of(table.id),
                name: table.name.clone(),
                kind: 'r',
                columns: columns.collect(),
                key: table.primary_key.clone(),
                checks: table.checks.iter().map(|c| (c.name.clone(), c.condition.clone())).collect(),
                query: None,
                comment: catalog.comment(table.id, None).map(str::to_string),
            });
        }
        for view in catalog.views.values() {
            let columns = view.schema.fields().iter().enumerate().map(|(number, field)| {
                let sql_type = sql::types::field_type_name(field);
                ColumnFacts {
                    name: field.name().clone(),
                    type_oid: type_oid(&sql_type),
                    modifier: type_modifier(&sql_type),
                    sql_type,
                    not_null: false,
                    default: None,
                    generated: false,
                    comment: catalog.comment(view.id, Some(number)).map(str::to_string),
                }
            });
            let properties = views.get(&view.name);
            relations.push(Relation {
                oid: oid_of(view.id),
                name: view.name.clone(),
                kind: if view.materialized { 'm' } else { 'v' },
                columns: columns.collect(),
                key: properties.and_then(|p| p.key.clone()).unwrap_or_default(),
                checks: Vec::new(),
                query: Some(view.query.clone()),
                comment: catalog.comment(view.id, None).map(str::to_string),
            });
        }
        relations.sort_by_key(|relation| relation.oid);
        let by_oid = relations.iter().enumerate().map(|(number, r)| (r.oid, number)).collect();
        let mut facts = Facts { relations, indexes: Vec::new(), functions: functions(catalog), by_oid };
        facts.indexes = facts.find_indexes(catalog);
        facts
    }

    fn find_indexes(&self, catalog: &Catalog) -> Vec<Index> {
        let mut indexes = Vec::new();
        // Keys of views are deduced, not declared; they are shown as indexes are.
        for relation in self.relations.iter().filter(|r| !r.key.is_empty()) {
            let name = format!("{}_pkey", relation.name);
            let column_names: Vec<String> =
                relation.key.iter().map(|c| relation.columns[*c].name.clone()).collect();
            indexes.push(Index {
                oid: relation.oid + KEY_INDEX_OFFSET,
                definition: format!(
                    "CREATE UNIQUE INDEX {} ON public.{} USING btree ({})",
                    quoted(&name),
                    quoted(&relation.name),
                    list(&column_names)
                ),
                name,
                relation: relation.oid,
                relation_name: relation.name.clone(),
                columns: relation.key.clone(),
                column_names,
                primary: relation.kind == 'r',
            });
        }
        for index in catalog.indexes.values() {
            let Some(relation) = self.relations.iter().find(|r| r.name == index.relation) else { continue };
            let position = |name: &String| relation.columns.iter().position(|c| c.name == *name);
            indexes.push(Index {
                oid: oid_of(index.id),
                name: index.name.clone(),
                relation: relation.oid,
                relation_name: relation.name.clone(),
                columns: index.columns.iter().filter_map(position).collect(),
                column_names: index.columns.clone(),
                primary: false,
                definition: format!(
                    "CREATE INDEX {} ON public.{} USING hash ({})",
                    quoted(&index.name),
                    quoted(&relation.name),
                    list(&index.columns)
                ),
            });
        }
        indexes
    }

    pub fn relation(&self, oid: i64) -> Option<&Relation> {
        self.by_oid.get(&oid).map(|number| &self.relations[*number])
    }

    pub fn index(&self, oid: i64) -> Option<&Index> {
        self.indexes.iter().find(|index| index.oid == oid)
    }

    /// The oid of a table, view or index; the name may have its schema before it and be quoted.
    pub fn oid_of_name(&self, name: &str) -> Option<i64> {
        let name = name.strip_prefix("public.").unwrap_or(name);
        let name = match name.strip_prefix('"').and_then(|n| n.strip_suffix('"')) {
            Some(quoted) => quoted.replace("\"\"", "\""),
            None => name.to_lowercase(),
        };
        let relation = self.relations.iter().find(|r| r.name == name).map(|r| r.oid);
        relation.or_else(|| self.indexes.iter().find(|i| i.name == name).map(|i| i.oid))
    }

    pub fn name_of_oid(&self, oid: i64) -> Option<&str> {
        let relation = self.relation(oid).map(|r| r.name.as_str());
        relation.or_else(|| self.index(oid).map(|i| i.name.as_str()))
    }
}

fn functions(catalog: &Catalog) -> Vec<Function> {
    let functions = catalog.functions.values().map(|function| Function {
        oid: oid_of(function.id),
        name: function.name.clone(),
        arguments: function.arguments.iter().map(|a| (a.name.clone(), a.sql_type.clone())).collect(),
        returns: function.returns.sql_type.clone(),
        body: function.body.clone(),
        strict: function.strict,
        comment: catalog.comment(function.id, None).map(str::to_string),
        definition: function.sql.clone(),
    });
    functions.collect()
}

impl Relation {
    /// `PRIMARY KEY (id)`
    pub fn key_definition(&self) -> String {
        let names: Vec<String> = self.key.iter().map(|c| self.columns[*c].name.clone()).collect();
        format!("PRIMARY KEY ({})", list(&names))
    }

    pub fn key_oid(&self) -> i64 {
        self.oid + KEY_INDEX_OFFSET
    }
}

pub fn oid_of(id: RelationId) -> i64 {
    FIRST_OID + i64::from(id.0)
}

/// As PostgreSQL quotes a name: where it has to.
pub fn quoted(name: &str) -> String {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    match name.chars().all(plain) && !name.starts_with(|c: char| c.is_ascii_digit()) && !name.is_empty() {
        true => name.to_string(),
        false => format!("\"{}\"", name.replace('"', "\"\"")),
    }
}

fn list(names: &[String]) -> String {
    names.iter().map(|name| quoted(name)).collect::<Vec<_>>().join(", ")
}

/// A type as the catalogs list it.
pub struct TypeFacts {
    pub oid: i64,
    /// As pg_type.typname.
    pub name: &'static str,
    /// As format_type prints it.
    pub printed: &'static str,
    pub length: i64,
    pub category: char,
    pub array_oid: i64,
}

const fn scalar(
    oid: i64,
    name: &'static str,
    printed: &'static str,
    length: i64,
    category: char,
    array_oid: i64,
) -> TypeFacts {
    TypeFacts { oid, name, printed, length, category, array_oid }
}

/// Types that columns, parameters and the catalogs have.
pub static TYPES: [TypeFacts; 24] = [
    scalar(16, "bool", "boolean", 1, 'B', 1000),
    scalar(17, "bytea", "bytea", -1, 'U', 1001),
    scalar(18, "char", "\"char\"", 1, 'Z', 1002),
    scalar(19, "name", "name", 64, 'S', 1003),
    scalar(20, "int8", "bigint", 8, 'N', 1016),
    scalar(21, "int2", "smallint", 2, 'N', 1005),
    scalar(23, "int4", "integer", 4, 'N', 1007),
    scalar(24, "regproc", "regproc", 4, 'N', 1008),
    scalar(25, "text", "text", -1, 'S', 1009),
    scalar(26, "oid", "oid", 4, 'N', 1028),
    scalar(114, "json", "json", -1, 'U', 199),
    scalar(700, "float4", "real", 4, 'N', 1021),
    scalar(701, "float8", "double precision", 8, 'N', 1022),
    scalar(705, "unknown", "unknown", -2, 'X', 0),
    scalar(1042, "bpchar", "character", -1, 'S', 1014),
    scalar(1043, "varchar", "character varying", -1, 'S', 1015),
    scalar(1082, "date", "date", 4, 'D', 1182),
    scalar(1083, "time", "time without time zone", 8, 'D', 1183),
    scalar(1114, "timestamp", "timestamp without time zone", 8, 'D', 1115),
    scalar(1184, "timestamptz", "timestamp with time zone", 8, 'D', 1185),
    scalar(1186, "interval", "interval", 16, 'T', 1187),
    scalar(1700, "numeric", "numeric", -1, 'N', 1231),
    scalar(2950, "uuid", "uuid", 16, 'U', 2951),
    scalar(3802, "jsonb", "jsonb", -1, 'U', 3807),
];

/// The type named as PostgreSQL prints it, without digits.
fn type_named(printed: &str) -> Option<&'static TypeFacts> {
    let base = printed.split('(').next().unwrap_or_default().trim();
    TYPES.iter().find(|t| t.printed == base || t.name == base)
}

/// The oid of a type by its printed name; text for what is not known.
pub fn type_oid(printed: &str) -> i64 {
    match printed.strip_suffix("[]") {
        // Arrays of arrays have the type of arrays.
        Some(element) => type_named(element.trim_end_matches("[]")).map_or(1009, |t| t.array_oid),
        None => type_named(printed).map_or(25, |t| t.oid),
    }
}

/// The oid of a type by its name in any spelling, `None` for no type.
pub fn type_oid_of_name(name: &str) -> Option<i64> {
    let name = name.trim().strip_prefix("pg_catalog.").unwrap_or(name.trim());
    match name.strip_suffix("[]").or_else(|| name.strip_prefix('_')) {
        Some(element) => type_named(element).map(|t| t.array_oid),
        None => type_named(name).map(|t| t.oid),
    }
}

/// As pg_attribute.atttypmod: digits of a numeric, length of a varchar.
pub fn type_modifier(printed: &str) -> i64 {
    let Some((name, digits)) = printed.split_once('(') else { return -1 };
    let mut digits = digits.trim_end_matches([')', '[', ']']).split(',').map(|d| d.trim().parse::<i64>());
    match (name, digits.next(), digits.next()) {
        ("numeric", Some(Ok(precision)), Some(Ok(scale))) => ((precision << 16) | scale) + 4,
        (_, Some(Ok(length)), None) => length + 4,
        _ => -1,
    }
}

/// `format_type(oid, modifier)`
pub fn format_type(oid: i64, modifier: Option<i64>) -> String {
    let with_modifier = |t: &TypeFacts| match (modifier.filter(|m| *m >= 4), t.name) {
        (Some(m), "numeric") => format!("numeric({},{})", (m - 4) >> 16, (m - 4) & 0xffff),
        (Some(m), "varchar" | "bpchar") => format!("{}({})", t.printed, m - 4),
        _ => t.printed.to_string(),
    };
    if let Some(found) = TYPES.iter().find(|t| t.oid == oid) {
        return with_modifier(found);
    }
    match TYPES.iter().find(|t| t.array_oid == oid && oid != 0) {
        Some(element) => format!("{}[]", with_modifier(element)),
        None if oid == 0 => "-".to_string(),
        None => "???".to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_found_by_their_names_and_printed_again() {
        for printed in [
            "bigint",
            "numeric(18,2)",
            "character varying(10)",
            "timestamp with time zone",
            "uuid[]",
            "jsonb",
            "text[]",
            "double precision",
            "character(3)",
        ] {
            assert_eq!(format_type(type_oid(printed), Some(type_modifier(printed))), printed);
        }
        assert_eq!(type_oid_of_name("pg_catalog.int4"), Some(23));
        assert_eq!(type_oid_of_name("_text"), Some(1009));
        assert_eq!(type_oid_of_name("polygon"), None);
        assert_eq!(quoted("Order"), "\"Order\"");
    }
}

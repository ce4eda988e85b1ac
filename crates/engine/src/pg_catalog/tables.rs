//! The tables of `pg_catalog`, with the columns that clients ask for.

use std::collections::BTreeMap;

use super::facts::{
    DATABASE, Facts, INFORMATION_SCHEMA, Index, OWNER, OWNER_NAME, PG_CATALOG, PUBLIC, Relation, TYPES,
    type_oid,
};
use super::rows::{Cell, SystemTable, row};

type Tables = BTreeMap<&'static str, SystemTable>;

pub fn all(facts: &Facts) -> Tables {
    let mut tables = Tables::from([
        ("pg_namespace", namespaces()),
        ("pg_class", classes(facts)),
        ("pg_attribute", attributes(facts)),
        ("pg_attrdef", defaults(facts)),
        ("pg_type", types()),
        ("pg_index", indexes(facts)),
        ("pg_constraint", constraints(facts)),
        ("pg_proc", procedures(facts)),
        ("pg_description", descriptions(facts)),
        ("pg_tables", table_list(facts)),
        ("pg_views", view_list(facts)),
        ("pg_matviews", materialized_list(facts)),
        ("pg_indexes", index_list(facts)),
        ("pg_stat_user_tables", statistics(facts)),
        ("pg_shdescription", SystemTable::empty("objoid oid, classoid oid, description")),
    ]);
    tables.extend(server());
    tables.extend(sql::planner::EMPTY_CATALOGS.map(|name| (name, SystemTable::empty(empty_columns(name)))));
    tables
}

/// Columns of catalogs without rows, as far as clients name them in outer joins.
fn empty_columns(name: &str) -> &'static str {
    match name {
        "pg_auth_members" => "oid oid, roleid oid, member oid, grantor oid, admin_option bool",
        "pg_collation" => {
            "oid oid, collname, collnamespace oid, collowner oid, collprovider, collisdeterministic bool, collencoding int4, collcollate, collctype, colliculocale, collversion"
        }
        "pg_depend" => {
            "classid oid, objid oid, objsubid int4, refclassid oid, refobjid oid, refobjsubid int4, deptype"
        }
        "pg_enum" => "oid oid, enumtypid oid, enumsortorder float4, enumlabel",
        "pg_extension" => "oid oid, extname, extowner oid, extnamespace oid, extrelocatable bool, extversion",
        "pg_foreign_server" => {
            "oid oid, srvname, srvowner oid, srvfdw oid, srvtype, srvversion, srvoptions text[]"
        }
        "pg_foreign_table" => "ftrelid oid, ftserver oid, ftoptions text[]",
        "pg_inherits" => "inhrelid oid, inhparent oid, inhseqno int4, inhdetachpending bool",
        "pg_opclass" => "oid oid, opcmethod oid, opcname, opcnamespace oid, opcdefault bool",
        "pg_partitioned_table" => "partrelid oid, partstrat, partnatts int2, partdefid oid",
        "pg_range" => "rngtypid oid, rngsubtype oid, rngmultitypid oid",
        "pg_rewrite" => "oid oid, rulename, ev_class oid, ev_type, ev_enabled, is_instead bool",
        "pg_sequence" => {
            "seqrelid oid, seqtypid oid, seqstart int8, seqincrement int8, seqmax int8, seqmin int8, seqcache int8, seqcycle bool"
        }
        "pg_statistic_ext" => {
            "oid oid, stxrelid oid, stxname, stxnamespace oid, stxowner oid, stxkind text[]"
        }
        "pg_tablespace" => "oid oid, spcname, spcowner oid, spcoptions text[]",
        "pg_trigger" => {
            "oid oid, tgrelid oid, tgname, tgfoid oid, tgtype int2, tgenabled, tgisinternal bool, tgconstraint oid"
        }
        _ => "oid oid",
    }
}

fn namespaces() -> SystemTable {
    SystemTable::new(
        "oid oid, nspname, nspowner oid, nspacl text[]",
        vec![
            row![PG_CATALOG, "pg_catalog", OWNER, Cell::Null],
            row![INFORMATION_SCHEMA, "information_schema", OWNER, Cell::Null],
            row![PUBLIC, "public", OWNER, Cell::Null],
        ],
    )
}

fn classes(facts: &Facts) -> SystemTable {
    let has_index = |oid: i64| facts.indexes.iter().any(|index| index.relation == oid);
    let class =
        |oid: i64, name: &str, kind: char, columns: usize, indexed: bool, checks: usize, access: i64| {
            row![
                oid,
                name,
                PUBLIC,
                0i64,
                0i64,
                OWNER,
                access,
                oid,
                0i64,
                0i64,
                -1i64,
                0i64,
                0i64,
                indexed,
                false,
                "p",
                kind.to_string(),
                columns as i64,
                checks as i64,
                kind == 'v',
                false,
                false,
                false,
                false,
                true,
                "d",
                false,
                Cell::Null,
                Cell::Null,
                Cell::Null
            ]
        };
    let relations = facts.relations.iter().map(|r| {
        let access = if r.kind == 'v' { 0 } else { 2 };
        class(r.oid, &r.name, r.kind, r.columns.len(), has_index(r.oid), r.checks.len(), access)
    });
    let indexes = facts
        .indexes
        .iter()
        .map(|i| class(i.oid, &i.name, 'i', i.columns.len(), false, 0, if i.primary { 403 } else { 405 }));
    SystemTable::new(
        "oid oid, relname, relnamespace oid, reltype oid, reloftype oid, relowner oid, relam oid, relfilenode oid, \
         reltablespace oid, relpages int4, reltuples float4, relallvisible int4, reltoastrelid oid, relhasindex bool, \
         relisshared bool, relpersistence, relkind, relnatts int2, relchecks int2, relhasrules bool, \
         relhastriggers bool, relhassubclass bool, relrowsecurity bool, relforcerowsecurity bool, \
         relispopulated bool, relreplident, relispartition bool, relacl text[], reloptions text[], relpartbound",
        relations.chain(indexes).collect(),
    )
}

fn attributes(facts: &Facts) -> SystemTable {
    let attribute = |oid: i64, number: usize, column: &super::facts::ColumnFacts| {
        let length = TYPES.iter().find(|t| t.oid == column.type_oid).map_or(-1, |t| t.length);
        let dimensions = i64::from(column.sql_type.ends_with("[]"));
        row![
            oid,
            column.name.clone(),
            column.type_oid,
            -1i64,
            length,
            number as i64 + 1,
            dimensions,
            -1i64,
            column.modifier,
            false,
            "x",
            "i",
            column.not_null,
            column.default.is_some(),
            false,
            "",
            if column.generated { "s" } else { "" },
            false,
            true,
            0i64,
            0i64,
            "",
            Cell::Null,
            Cell::Null,
            Cell::Null,
            Cell::Null
        ]
    };
    let relations = facts
        .relations
        .iter()
        .flat_map(|r| r.columns.iter().enumerate().map(|(number, column)| attribute(r.oid, number, column)));
    let indexes = facts.indexes.iter().flat_map(|index| {
        let relation = facts.relation(index.relation);
        index.columns.iter().enumerate().filter_map(move |(number, column)| {
            Some(attribute(index.oid, number, &relation?.columns[*column]))
        })
    });
    SystemTable::new(
        "attrelid oid, attname, atttypid oid, attstattarget int4, attlen int2, attnum int2, attndims int4, \
         attcacheoff int4, atttypmod int4, attbyval bool, attstorage, attalign, attnotnull bool, atthasdef bool, \
         atthasmissing bool, attidentity, attgenerated, attisdropped bool, attislocal bool, attinhcount int4, \
         attcollation oid, attcompression, attacl text[], attoptions text[], attfdwoptions text[], attmissingval",
        relations.chain(indexes).collect(),
    )
}

fn defaults(facts: &Facts) -> SystemTable {
    let rows = facts.relations.iter().flat_map(|r| {
        r.columns.iter().enumerate().filter_map(|(number, column)| {
            let default = column.default.clone()?;
            Some(row![r.oid * 10_000 + number as i64, r.oid, number as i64 + 1, default])
        })
    });
    SystemTable::new("oid oid, adrelid oid, adnum int2, adbin", rows.collect())
}

fn types() -> SystemTable {
    let mut rows = Vec::new();
    for t in &TYPES {
        let kind = if t.name == "unknown" { "p" } else { "b" };
        rows.push(type_row(t.oid, t.name, t.length, kind, t.category, 0, t.array_oid));
        if t.array_oid != 0 {
            rows.push(type_row(t.array_oid, &format!("_{}", t.name), -1, "b", 'A', t.oid, 0));
        }
    }
    SystemTable::new(
        "oid oid, typname, typnamespace oid, typowner oid, typlen int2, typbyval bool, typtype, typcategory, \
         typispreferred bool, typisdefined bool, typdelim, typrelid oid, typelem oid, typarray oid, typinput, \
         typoutput, typreceive, typsend, typanalyze, typalign, typstorage, typnotnull bool, typbasetype oid, \
         typtypmod int4, typndims int4, typcollation oid, typdefault, typsubscript, typacl text[]",
        rows,
    )
}

fn type_row(
    oid: i64,
    name: &str,
    length: i64,
    kind: &str,
    category: char,
    element: i64,
    array: i64,
) -> Vec<Cell> {
    let input = if element != 0 { "array_in".to_string() } else { format!("{name}in") };
    row![
        oid,
        name,
        PG_CATALOG,
        OWNER,
        length,
        (1..=8).contains(&length),
        kind,
        category.to_string(),
        false,
        true,
        ",",
        0i64,
        element,
        array,
        input,
        format!("{name}out"),
        format!("{name}recv"),
        format!("{name}send"),
        "-",
        "i",
        "x",
        false,
        0i64,
        -1i64,
        0i64,
        0i64,
        Cell::Null,
        if element != 0 { "array_subscript_handler" } else { "-" },
        Cell::Null
    ]
}

fn indexes(facts: &Facts) -> SystemTable {
    let rows = facts.indexes.iter().map(|index: &Index| {
        let columns: Vec<i64> = index.columns.iter().map(|c| *c as i64 + 1).collect();
        let zeros = vec![0i64; columns.len()];
        let unique = index.name.ends_with("_pkey");
        row![
            index.oid,
            index.relation,
            columns.len() as i64,
            columns.len() as i64,
            unique,
            false,
            index.primary,
            false,
            true,
            false,
            true,
            false,
            true,
            true,
            false,
            columns,
            zeros.clone(),
            zeros.clone(),
            zeros,
            Cell::Null,
            Cell::Null
        ]
    });
    SystemTable::new(
        "indexrelid oid, indrelid oid, indnatts int2, indnkeyatts int2, indisunique bool, indnullsnotdistinct bool, \
         indisprimary bool, indisexclusion bool, indimmediate bool, indisclustered bool, indisvalid bool, \
         indcheckxmin bool, indisready bool, indislive bool, indisreplident bool, indkey int2[], \
         indcollation int2[], indclass int2[], indoption int2[], indexprs, indpred",
        rows.collect(),
    )
}

fn constraints(facts: &Facts) -> SystemTable {
    let row_of =
        |r: &Relation, number: i64, name: String, kind: &str, columns: Cell, index: i64, text: Cell| {
            row![
                (2i64 << 40) + r.oid * 1_000 + number,
                name,
                PUBLIC,
                kind,
                false,
                false,
                true,
                r.oid,
                0i64,
                index,
                0i64,
                0i64,
                " ",
                " ",
                " ",
                true,
                0i64,
                true,
                columns,
                Cell::Null,
                text
            ]
        };
    let mut rows = Vec::new();
    for r in facts.relations.iter().filter(|r| r.kind == 'r') {
        if !r.key.is_empty() {
            let columns = r.key.iter().map(|c| *c as i64 + 1).collect::<Vec<_>>();
            rows.push(row_of(r, 0, format!("{}_pkey", r.name), "p", columns.into(), r.key_oid(), Cell::Null));
        }
        for (number, (name, condition)) in r.checks.iter().enumerate() {
            let condition = condition.as_str().into();
            rows.push(row_of(r, number as i64 + 1, name.clone(), "c", Cell::Null, 0, condition));
        }
    }
    SystemTable::new(
        "oid oid, conname, connamespace oid, contype, condeferrable bool, condeferred bool, convalidated bool, \
         conrelid oid, contypid oid, conindid oid, conparentid oid, confrelid oid, confupdtype, confdeltype, \
         confmatchtype, conislocal bool, coninhcount int4, connoinherit bool, conkey int2[], confkey int2[], conbin",
        rows,
    )
}

fn procedures(facts: &Facts) -> SystemTable {
    let rows = facts.functions.iter().map(|f| {
        let types: Vec<String> =
            f.arguments.iter().map(|(_, sql_type)| type_oid(sql_type).to_string()).collect();
        row![
            f.oid,
            f.name.clone(),
            PUBLIC,
            OWNER,
            14i64,
            100i64,
            0i64,
            0i64,
            0i64,
            "f",
            false,
            false,
            f.strict,
            false,
            "i",
            "s",
            types.len() as i64,
            0i64,
            type_oid(&f.returns),
            types.join(" "),
            f.body.clone(),
            Cell::Null,
            Cell::Null
        ]
    });
    SystemTable::new(
        "oid oid, proname, pronamespace oid, proowner oid, prolang oid, procost float4, prorows float4, \
         provariadic oid, prosupport oid, prokind, prosecdef bool, proleakproof bool, proisstrict bool, \
         proretset bool, provolatile, proparallel, pronargs int2, pronargdefaults int2, prorettype oid, \
         proargtypes, prosrc, probin, proacl text[]",
        rows.collect(),
    )
}

fn descriptions(facts: &Facts) -> SystemTable {
    const CLASS: i64 = 1_259;
    let mut rows = Vec::new();
    for r in &facts.relations {
        rows.extend(r.comment.iter().map(|text| row![r.oid, CLASS, 0i64, text.clone()]));
        for (number, column) in r.columns.iter().enumerate() {
            let number = number as i64 + 1;
            rows.extend(column.comment.iter().map(|text| row![r.oid, CLASS, number, text.clone()]));
        }
    }
    const PROCEDURE_CLASS: i64 = 1_255;
    for f in &facts.functions {
        rows.extend(f.comment.iter().map(|text| row![f.oid, PROCEDURE_CLASS, 0i64, text.clone()]));
    }
    SystemTable::new("objoid oid, classoid oid, objsubid int4, description", rows)
}

fn table_list(facts: &Facts) -> SystemTable {
    let indexed = |oid: i64| facts.indexes.iter().any(|index| index.relation == oid);
    let tables = facts.relations.iter().filter(|r| r.kind == 'r');
    SystemTable::new(
        "schemaname, tablename, tableowner, tablespace, hasindexes bool, hasrules bool, hastriggers bool, rowsecurity bool",
        tables
            .map(|r| {
                row!["public", r.name.clone(), OWNER_NAME, Cell::Null, indexed(r.oid), false, false, false]
            })
            .collect(),
    )
}

fn view_list(facts: &Facts) -> SystemTable {
    let views = facts.relations.iter().filter(|r| r.kind == 'v');
    SystemTable::new(
        "schemaname, viewname, viewowner, definition",
        views.map(|r| row!["public", r.name.clone(), OWNER_NAME, r.query.clone()]).collect(),
    )
}

fn materialized_list(facts: &Facts) -> SystemTable {
    let indexed = |oid: i64| facts.indexes.iter().any(|index| index.relation == oid);
    let views = facts.relations.iter().filter(|r| r.kind == 'm');
    SystemTable::new(
        "schemaname, matviewname, matviewowner, tablespace, hasindexes bool, ispopulated bool, definition",
        views
            .map(|r| {
                row!["public", r.name.clone(), OWNER_NAME, Cell::Null, indexed(r.oid), true, r.query.clone()]
            })
            .collect(),
    )
}

fn index_list(facts: &Facts) -> SystemTable {
    let rows = facts
        .indexes
        .iter()
        .map(|i| row!["public", i.relation_name.clone(), i.name.clone(), Cell::Null, i.definition.clone()]);
    SystemTable::new("schemaname, tablename, indexname, tablespace, indexdef", rows.collect())
}

fn statistics(facts: &Facts) -> SystemTable {
    let rows = facts.relations.iter().filter(|r| r.kind != 'v');
    SystemTable::new(
        "relid oid, schemaname, relname",
        rows.map(|r| row![r.oid, "public", r.name.clone()]).collect(),
    )
}

/// What there is one of: the database, the role, the server's settings.
fn server() -> Vec<(&'static str, SystemTable)> {
    let role = |extra: Vec<Cell>| {
        let mut row = row![OWNER, OWNER_NAME, true, true, true, true, true, false, true, -1i64];
        row.extend(extra);
        vec![row]
    };
    const ROLE: &str = "oid oid, rolname, rolsuper bool, rolinherit bool, rolcreaterole bool, rolcreatedb bool, \
         rolcanlogin bool, rolreplication bool, rolbypassrls bool, rolconnlimit int4, rolpassword, rolvaliduntil";
    let access = |oid: i64, name: &str, kind: &str| row![oid, name, format!("{name}handler"), kind];
    let setting =
        |(name, value): (&str, &str)| row![name, value, Cell::Null, "Shopstream", "", "user", "string"];
    vec![
        ("pg_roles", SystemTable::new(ROLE, role(vec![Cell::Null, Cell::Null]))),
        ("pg_authid", SystemTable::new(ROLE, role(vec![Cell::Null, Cell::Null]))),
        (
            "pg_user",
            SystemTable::new(
                "usename, usesysid oid, usecreatedb bool, usesuper bool, userepl bool, usebypassrls bool, passwd",
                vec![row![OWNER_NAME, OWNER, true, true, false, true, "********"]],
            ),
        ),
        (
            "pg_database",
            SystemTable::new(
                "oid oid, datname, datdba oid, encoding int4, datlocprovider, datistemplate bool, datallowconn bool, \
                 datconnlimit int4, dattablespace oid, datcollate, datctype, daticulocale, datcollversion, datacl text[]",
                vec![row![
                    DATABASE,
                    sql::DEFAULT_DATABASE,
                    OWNER,
                    6i64,
                    "c",
                    false,
                    true,
                    -1i64,
                    1_663i64,
                    "C",
                    "C",
                    Cell::Null,
                    Cell::Null,
                    Cell::Null
                ]],
            ),
        ),
        (
            "pg_am",
            SystemTable::new(
                "oid oid, amname, amhandler, amtype",
                vec![access(2, "heap", "t"), access(403, "btree", "i"), access(405, "hash", "i")],
            ),
        ),
        (
            "pg_language",
            SystemTable::new(
                "oid oid, lanname, lanowner oid, lanispl bool, lanpltrusted bool",
                vec![row![12i64, "internal", OWNER, false, false], row![14i64, "sql", OWNER, false, true]],
            ),
        ),
        (
            "pg_settings",
            SystemTable::new(
                "name, setting, unit, category, short_desc, context, vartype",
                super::functions::SETTINGS.map(setting).to_vec(),
            ),
        ),
        (
            "pg_stat_activity",
            SystemTable::empty(
                "datid oid, datname, pid int4, usesysid oid, usename, application_name, state, query",
            ),
        ),
    ]
}

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, StringArray};
use arrow::datatypes::Schema;
use engine::RelationKind;

use super::*;

fn relation(key: &[usize]) -> RelationInfo {
    RelationInfo {
        name: "hot \"items\"".to_string(),
        kind: RelationKind::MaterializedView,
        schema: Arc::new(Schema::new(vec![
            Field::new("item_id", DataType::Int64, false),
            Field::new("title", DataType::Utf8, true),
            Field::new("price", DataType::Decimal128(18, 2), true),
            Field::new("ts", sql::catalog::timestamptz(), true),
            Field::new("limit", DataType::Int32, true),
        ])),
        key: key.to_vec(),
        sql: String::new(),
    }
}

fn pairs(query: &str) -> Vec<(String, String)> {
    query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| pair.split_once('=').unwrap())
        .map(|(name, value)| (name.to_string(), value.to_string()))
        .collect()
}

fn parse(key: &[usize], query: &str) -> Result<RowsRequest, Problem> {
    RowsRequest::parse(&relation(key), &pairs(query))
}

fn condition(query: &str) -> String {
    let request = parse(&[0], query).unwrap();
    let sql = request.sql.split_once(" WHERE ").unwrap().1;
    sql.split_once(" ORDER BY ").unwrap().0.to_string()
}

fn refused(query: &str) -> Problem {
    parse(&[0], query).unwrap_err()
}

#[test]
fn without_parameters_the_first_page_by_key() {
    let request = parse(&[0], "").unwrap();
    assert_eq!(
        request.sql,
        r#"SELECT "item_id", "title", "price", "ts", "limit" FROM "hot ""items""" ORDER BY "item_id" ASC NULLS LAST LIMIT 101"#
    );
    assert!(request.parameters.is_empty());
    assert_eq!((request.limit, request.columns_shown), (100, 5));
}

#[test]
fn filters_are_bound_never_pasted() {
    let request = parse(&[0], "title=x'; DROP TABLE stock; --&item_id.gte=5").unwrap();
    assert!(!request.sql.contains("DROP"));
    assert_eq!(
        request.parameters,
        vec![ScalarValue::from("x'; DROP TABLE stock; --"), ScalarValue::Int64(Some(5))]
    );
    assert_eq!(condition("title.ne=a&item_id.lt=5"), r#""title" <> $1 AND "item_id" < $2"#);
    assert_eq!(condition("item_id.in=1,2,3"), r#""item_id" IN ($1, $2, $3)"#);
    assert_eq!(condition("title.is=null&ts.is=notnull"), r#""title" IS NULL AND "ts" IS NOT NULL"#);
    assert_eq!(condition("limit.eq=7"), r#""limit" = $1"#);
    assert_eq!(condition("title= a "), r#""title" = $1"#);
}

#[test]
fn decimals_are_compared_with_all_their_digits() {
    let request = parse(&[0], "price.gt=12.345").unwrap();
    assert_eq!(request.parameters, vec![ScalarValue::Decimal128(Some(12_345), 38, 3)]);
    assert!(request.sql.contains(r#"WHERE "price" > CAST($1 AS DECIMAL(38, 3)) ORDER"#), "{}", request.sql);
    let endless = format!("price=1.{}", "3".repeat(23));
    assert!(refused(&endless).detail.contains("more than 22 digits"));
}

#[test]
fn wrong_parameters_are_named() {
    assert_eq!(refused("titel=a").members["hint"], "did you mean \"title\"?");
    assert_eq!(refused("limt=5").members["hint"], "did you mean \"limit\"?");
    assert!(refused("colour=red").members["hint"].as_str().unwrap().starts_with("its columns are: item_id"));
    for wrong in ["item_id=abc", "item_id=1.5", "ts.gt=yesterday", "price=NaN", "limit=0", "limit=10001"] {
        assert_eq!(refused(wrong).kind, ProblemKind::InvalidParameter, "{wrong}");
    }
    for wrong in
        ["limit=-1", "order=nothing", "order=", "select=item_id,nothing", "item_id.in=", "title.is=x"]
    {
        assert_eq!(refused(wrong).kind, ProblemKind::InvalidParameter, "{wrong}");
    }
    assert_eq!(refused("item_id=99999999999999999999").members["parameter"], "item_id");
    let many = (0..VALUES_MAX + 1).map(|n| n.to_string()).collect::<Vec<_>>().join(",");
    assert_eq!(refused(&format!("item_id.in={many}")).kind, ProblemKind::InvalidParameter);
}

#[test]
fn order_and_select() {
    let request = parse(&[0], "order=price.desc,title&select=title").unwrap();
    assert_eq!(
        request.sql,
        "SELECT \"title\", \"price\", \"item_id\" FROM \"hot \"\"items\"\"\" \
         ORDER BY \"price\" DESC NULLS LAST, \"title\" ASC NULLS LAST, \"item_id\" ASC NULLS LAST LIMIT 101"
    );
    assert_eq!(request.columns_shown, 1);
}

fn page(request: &RowsRequest, ids: &[i64], titles: &[Option<&str>]) -> RecordBatch {
    assert_eq!(request.columns_shown, 2);
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("title", Arc::new(StringArray::from(titles.to_vec()))),
        ("item_id", Arc::new(Int64Array::from(ids.to_vec()))),
    ];
    RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(n, a)| (n, a, true))).unwrap()
}

#[test]
fn a_cursor_continues_behind_the_last_row() {
    let query = "order=title.desc&select=title,item_id&limit=2";
    let request = parse(&[0], query).unwrap();
    let rows = [page(&request, &[3], &[Some("c")]), page(&request, &[2, 1], &[Some("b"), Some("a")])];
    let cursor = request.next_cursor(&rows).unwrap();
    let next = parse(&[0], &format!("{query}&cursor={cursor}")).unwrap();
    let sql = next.sql.split_once(" WHERE ").unwrap().1;
    assert_eq!(
        sql.split_once(" ORDER").unwrap().0,
        r#"((("title" < $1 OR "title" IS NULL)) OR ("title" = $1 AND "item_id" > $2))"#
    );
    assert_eq!(next.parameters, vec![ScalarValue::from("b"), ScalarValue::Int64(Some(2))]);
    // The last page has no next one.
    assert_eq!(next.next_cursor(&[page(&request, &[1], &[Some("a")])]), None);
    // Behind NULL only the key decides.
    let rows = [page(&request, &[5, 6, 7], &[None, None, None])];
    let cursor = request.next_cursor(&rows).unwrap();
    let next = parse(&[0], &format!("{query}&cursor={cursor}")).unwrap();
    assert!(next.sql.contains(r#"WHERE (("title" IS NULL AND "item_id" > $1)) ORDER"#), "{}", next.sql);
}

#[test]
fn a_cursor_serves_only_its_own_request() {
    let query = "order=title.desc&select=title,item_id&limit=2";
    let request = parse(&[0], query).unwrap();
    let rows = [page(&request, &[3, 2, 1], &[Some("c"), Some("b"), Some("a")])];
    let cursor = request.next_cursor(&rows).unwrap();
    for other in ["order=title", "order=title.desc&item_id=1", ""] {
        assert_eq!(refused(&format!("{other}&cursor={cursor}")).kind, ProblemKind::InvalidCursor);
    }
    for broken in ["x", "", "e30", &cursor[..cursor.len() / 2]] {
        assert_eq!(refused(&format!("{query}&cursor={broken}")).kind, ProblemKind::InvalidCursor);
    }
    // The page size may change on the way.
    assert!(parse(&[0], &format!("order=title.desc&limit=7&cursor={cursor}")).is_ok());
}

#[test]
fn without_a_key_equal_rows_are_counted() {
    let query = "select=title,item_id&limit=2";
    let mut relation = relation(&[]);
    relation.schema = Arc::new(Schema::new(vec![
        Field::new("title", DataType::Utf8, true),
        Field::new("item_id", DataType::Int64, true),
    ]));
    let parse = |query: &str| RowsRequest::parse(&relation, &pairs(query)).unwrap();
    let first = parse(query);
    let same = [Some("a"), Some("a"), Some("a")];
    let cursor = first.next_cursor(&[page(&first, &[1, 1, 1], &same)]).unwrap();
    let second = parse(&format!("{query}&cursor={cursor}"));
    assert!(second.sql.ends_with(" LIMIT 3 OFFSET 2"), "{}", second.sql);
    let cursor = second.next_cursor(&[page(&second, &[1, 1, 1], &same)]).unwrap();
    let third = parse(&format!("{query}&cursor={cursor}"));
    assert!(third.sql.ends_with(" LIMIT 3 OFFSET 4"), "{}", third.sql);
    let mixed = [Some("a"), Some("b"), Some("c")];
    let cursor = third.next_cursor(&[page(&third, &[1, 1, 1], &mixed)]).unwrap();
    assert!(parse(&format!("{query}&cursor={cursor}")).sql.ends_with(" LIMIT 3 OFFSET 1"));
}

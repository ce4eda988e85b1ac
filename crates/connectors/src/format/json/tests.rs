//! JSON rows: every type, every error, poison, and a dumb decoder as the oracle.

use dataflow::{RejectReason, RejectedRow};
use serde_json::{Map, Value};

use super::*;
use crate::format::picture::{check, picture, schema};

fn decode_text(columns: &str, body: &str) -> DecodedRows {
    decode(&schema(columns), body.as_bytes(), &JsonOptions::default())
}

#[test]
fn an_object_an_array_and_lines_give_the_same_rows() {
    let expected = "0 a=1 b=x\n1 a=2 b=NULL";
    for body in [
        "{\"a\":1,\"b\":\"x\"}\n{\"a\":2,\"b\":null}",
        "\u{feff}  {\"a\":1,\"b\":\"x\"}\r\n\r\n\t{\"b\":null, \"a\" : 2}\r\n",
        "{\"a\":1,\"b\":\"x\"}{\"a\":2,\"b\":null}",
        "[{\"a\":1,\"b\":\"x\"},{\"a\":2,\"b\":null}]",
        " [ {\n\"a\" : 1 ,\n \"b\" : \"x\" } , {\"a\":2,\"b\":null} ] \n",
        "{\n  \"a\": 1,\n  \"b\": \"x\"\n}\n{\n  \"a\": 2,\n  \"b\": null\n}\n",
    ] {
        check(&decode_text("a bigint, b text", body), expected);
    }
    for body in ["", " \r\n", "[]", " [ ] ", "\u{feff}"] {
        check(&decode_text("a bigint, b text", body), "");
    }
}

#[test]
fn every_type_takes_its_spellings() {
    let cases: &[(&str, &[(&str, &str)])] = &[
        ("boolean", &[("true", "true"), ("\"false\"", "false"), ("1", "true"), ("\"0\"", "false")]),
        ("smallint", &[("-32768", "-32768"), ("\"12\"", "12"), ("3.0", "3"), ("1e2", "100")]),
        ("integer", &[("2147483647", "2147483647"), ("-0", "0")]),
        (
            "bigint",
            &[
                ("9223372036854775807", "9223372036854775807"),
                ("-9223372036854775808", "-9223372036854775808"),
                ("12345678", "12345678"),
                ("123456789012345", "123456789012345"),
                ("1234567890123456", "1234567890123456"),
                ("0", "0"),
                ("\"\\u0031\"", "1"),
            ],
        ),
        ("real", &[("0.1", "0.1"), ("\"1e3\"", "1000.0")]),
        ("double", &[("0.1", "0.1"), ("-1.5e300", "-1.5e300"), ("3", "3.0"), ("\"2.5\"", "2.5")]),
        (
            "numeric(18,2)",
            &[
                ("2.55", "2.55"),
                ("-0.01", "-0.01"),
                ("\"10\"", "10.00"),
                ("2.5500", "2.55"),
                ("1e3", "1000.00"),
                ("9999999999999999.99", "9999999999999999.99"),
            ],
        ),
        (
            "text",
            &[
                ("\"\"", ""),
                ("\"caf\u{e9}\"", "caf\u{e9}"),
                ("\"\\u00e9\\n\\\"\\/\"", "\u{e9}\n\"/"),
                ("\"\\ud83d\\ude00\"", "\u{1f600}"),
                ("12.50", "12.50"),
                ("true", "true"),
                ("\"a text that is longer than sixteen bytes\"", "a text that is longer than sixteen bytes"),
            ],
        ),
        (
            "jsonb",
            &[
                ("{\"x\": [1, 2.50, null, \"a\"]}", "{\"x\": [1, 2.50, null, \"a\"]}"),
                ("[]", "[]"),
                ("{}", "{}"),
                ("1.0", "1.0"),
                ("\"s\"", "\"s\""),
                ("true", "true"),
            ],
        ),
        ("bytea", &[("\"\\\\xdead\"", "dead"), ("\"ab\"", "6162")]),
        ("date", &[("\"2021-03-04\"", "2021-03-04")]),
        ("time", &[("\"01:02:03.5\"", "01:02:03.500")]),
        ("timestamp", &[("\"2021-01-01 00:00:00.25\"", "2021-01-01T00:00:00.250")]),
        (
            "timestamptz",
            &[
                ("\"2021-01-01T08:00:00+08:00\"", "2021-01-01T00:00:00Z"),
                ("1511658000", "2017-11-26T01:00:00Z"),
                ("1511658000000", "2017-11-26T01:00:00Z"),
                ("1511658000000000", "2017-11-26T01:00:00Z"),
                ("1511658000.5", "2017-11-26T01:00:00.500Z"),
                ("\"1511658000\"", "2017-11-26T01:00:00Z"),
            ],
        ),
        ("interval", &[("\"1 day 2 hours\"", "1 days 2 hours")]),
        ("bigint[]", &[("[1, null, \"3\"]", "[1, NULL, 3]"), ("[]", "[]"), ("\"{4,5}\"", "[4, 5]")]),
        ("text[]", &[("[\"a\", \"b,c\"]", "[a, b,c]"), ("\"[\\\"x\\\"]\"", "[x]")]),
        ("bigint[][]", &[("[[1],[2,3]]", "[[1], [2, 3]]"), ("\"{{1},{2,3}}\"", "[[1], [2, 3]]")]),
        ("jsonb[]", &[("[{\"a\":1}, 2]", "[{\"a\":1}, 2]")]),
    ];
    for (sql_type, values) in cases {
        for (json, expected) in *values {
            let rows = decode_text(&format!("v {sql_type}, z bigint"), &format!("{{\"v\":{json},\"z\":7}}"));
            assert_eq!(picture(&rows), format!("0 v={expected} z=7\n"), "{sql_type} {json}");
        }
        let rows = decode_text(&format!("v {sql_type}, z bigint"), "{\"v\":null,\"z\":7}\n{\"z\":8}");
        assert_eq!(picture(&rows), "0 v=NULL z=7\n1 v=- z=8\n", "{sql_type}");
    }
}

#[test]
fn every_type_refuses_what_it_cannot_hold() {
    use RejectReason::{InvalidUtf8, Malformed, OutOfRange, WrongType};
    let cases: &[(&str, &str, RejectReason)] = &[
        ("boolean", "2", WrongType),
        ("boolean", "\"maybe\"", WrongType),
        ("smallint", "32768", OutOfRange),
        ("integer", "-2147483649", OutOfRange),
        ("bigint", "9223372036854775808", OutOfRange),
        ("bigint", "1e400", OutOfRange),
        ("bigint", "3.5", WrongType),
        ("bigint", "\"abc\"", WrongType),
        ("bigint", "\"\"", WrongType),
        ("bigint", "true", WrongType),
        ("bigint", "[1]", WrongType),
        ("bigint", "{\"a\":1}", WrongType),
        ("bigint", "NaN", Malformed),
        ("bigint", "Infinity", Malformed),
        ("bigint", "-Infinity", Malformed),
        ("bigint", "\"NaN\"", WrongType),
        ("bigint", "007", Malformed),
        ("bigint", "+1", Malformed),
        ("bigint", "1.", Malformed),
        ("bigint", ".5", Malformed),
        ("bigint", "0x10", Malformed),
        ("bigint", "1 2", Malformed),
        ("bigint", "12345678a", Malformed),
        ("double", "1e400", OutOfRange),
        ("double", "NaN", Malformed),
        ("double", "\"NaN\"", WrongType),
        ("double", "\"Infinity\"", WrongType),
        ("real", "1e39", OutOfRange),
        ("numeric(5,2)", "1000", OutOfRange),
        ("numeric(5,2)", "1.005", OutOfRange),
        ("numeric(5,2)", "\"NaN\"", WrongType),
        ("numeric(5,2)", "1e400", OutOfRange),
        ("text", "{\"a\":1}", WrongType),
        ("text", "[]", WrongType),
        ("text", "\"a\\u0000b\"", InvalidUtf8),
        ("text", "\"\\ud800\"", InvalidUtf8),
        ("text", "\"\\udc00\\ud800\"", InvalidUtf8),
        ("text", "\"\\ud800\\u0041\"", InvalidUtf8),
        ("text", "\"\\x\"", Malformed),
        ("text", "\"\\u12g4\"", Malformed),
        ("text", "\"a\tb\"", Malformed),
        ("text", "'a'", Malformed),
        ("jsonb", "{\"a\":}", Malformed),
        ("jsonb", "[1,]", Malformed),
        ("jsonb", "{\"a\":1,}", Malformed),
        ("jsonb", "\"\\u0000\"", InvalidUtf8),
        ("jsonb", "[\"\\udfff\"]", InvalidUtf8),
        ("bytea", "\"\\\\xabc\"", WrongType),
        ("bytea", "5", WrongType),
        ("date", "\"2021-02-30\"", OutOfRange),
        ("date", "\"today\"", WrongType),
        ("date", "20210101", WrongType),
        ("time", "\"25:00:00\"", OutOfRange),
        ("timestamptz", "\"2021-13-01\"", OutOfRange),
        ("timestamptz", "\"soon\"", WrongType),
        ("timestamptz", "1511658000000000000", OutOfRange),
        ("timestamptz", "1e400", OutOfRange),
        ("timestamptz", "true", WrongType),
        ("interval", "\"often\"", WrongType),
        ("interval", "3", WrongType),
        ("bigint[]", "[1,\"x\"]", WrongType),
        ("bigint[]", "[1,[2]]", WrongType),
        ("bigint[]", "[1", Malformed),
        ("bigint[]", "[1 2]", Malformed),
        ("bigint[]", "7", WrongType),
        ("bigint[]", "\"1,2\"", WrongType),
    ];
    for (sql_type, json, reason) in cases {
        // Between good rows: nothing of the bad row may stick.
        let body = format!("{{\"v\":null,\"z\":1}}\n{{\"z\":2,\"v\":{json}}}\n{{\"v\":null,\"z\":3}}\n");
        let columns = format!("v {sql_type}, z bigint");
        let rows = decode_text(&columns, &body);
        assert_eq!(rows.rejected.len(), 1, "{sql_type} {json}: {}", picture(&rows));
        let rejected = &rows.rejected[0];
        assert_eq!(rejected.reason, *reason, "{sql_type} {json}: {}", rejected.message);
        assert_eq!(rejected.row_number, 1);
        assert_eq!(rejected.raw, format!("{{\"z\":2,\"v\":{json}}}").into_bytes());
        let named = rejected.column.as_deref() == Some("v");
        assert_eq!(named, *reason != Malformed, "{sql_type} {json}: {:?}", rejected.column);
        let text = picture(&rows);
        assert!(text.starts_with("0 v=NULL z=1\n1 !") && text.ends_with("2 v=NULL z=3\n"), "{text}");
        // The same row in an array.
        let body = format!("[{{\"v\":null,\"z\":1}},{{\"z\":2,\"v\":{json}}},{{\"v\":null,\"z\":3}}]");
        let in_array = decode_text(&columns, &body);
        assert_eq!(in_array.rejected[0].reason, *reason, "{sql_type} {json} in an array");
    }
}

#[test]
fn messages_name_the_value_and_the_way_out() {
    check(
        &decode_text(
            "user_id bigint, price numeric(5,2), note text",
            "{\"user_id\":\"one\"}
             {\"price\":1.005}
             {\"userid\":1}
             {\"zzz\":1}
             {\"user_id\":tru}
             nonsense
             [1]
             {\"user_id\":1} trailing
             {\"user_id\":1",
        ),
        "0 ! wrong_type column \"user_id\": \"one\" is not a valid bigint
         1 ! out_of_range column \"price\": 1.005 has more fraction digits than numeric(5,2) keeps
         2 ! unknown_column column \"userid\": no such column; did you mean \"user_id\"?
         3 ! unknown_column column \"zzz\": no such column; columns are user_id, price, note
         4 ! malformed not valid JSON at byte 11, at 'tru}'
         5 ! malformed not valid JSON at byte 0, at 'nonsense'
         6 ! malformed expected a JSON object, found [1]
         7 ! malformed not valid JSON at byte 14: 'trailing' follows the object on its line
         8 ! malformed not valid JSON: the body ends within the row",
    );
}

#[test]
fn keys_in_any_order_case_and_number() {
    let columns = "id bigint, \u{e4} text, UserName text";
    check(
        &decode_text(
            columns,
            "{\"id\":1,\"\u{e4}\":\"x\",\"UserName\":\"u\"}
             {\"\u{c4}\":\"y\",\"USERNAME\":\"v\",\"ID\":2}
             {\"id\":3,\"id\":4,\"id\":\"5\"}
             {\"\\u0069d\":6}
             {}",
        ),
        "0 id=1 \u{e4}=x UserName=u
         1 id=2 \u{e4}=y UserName=v
         2 id=5 \u{e4}=- UserName=-
         3 id=6 \u{e4}=- UserName=-
         4 id=- \u{e4}=- UserName=-",
    );
    // Exact comes before case-insensitive.
    check(&decode_text("a bigint, A bigint", "{\"A\":1,\"a\":2}"), "0 a=2 A=1");
    let options = JsonOptions { ignore_unknown: true, ..JsonOptions::default() };
    let rows = decode(&schema("a bigint"), b"{\"x\":{\"y\":[1]},\"a\":1}\n{\"x\":tru,\"a\":2}", &options);
    check(&rows, "0 a=1\n1 ! malformed not valid JSON at byte 5, at 'tru,\"a\":2}'");
}

#[test]
fn wide_tables_keep_track_of_every_column() {
    let names: Vec<String> = (0..130).map(|i| format!("c{i} bigint")).collect();
    let body = "{\"c129\":1,\"c64\":2,\"c64\":3,\"c0\":4}\n{\"c63\":5}";
    let rows = decode_text(&names.join(", "), body);
    let given: Vec<usize> =
        (0..130).filter(|column| !rows.absent[*column].as_ref().is_some_and(|bits| bits.value(0))).collect();
    assert_eq!(given, [0, 64, 129]);
    assert!(picture(&rows).contains("c63=5 c64=- "));
}

#[test]
fn an_array_goes_on_behind_a_broken_element() {
    check(
        &decode_text("a bigint", "[{\"a\":1},{\"a\":tru},{\"a\":[\"]},\"] x},{\"a\":2} x,7,{\"a\":3}]"),
        "0 a=1
         1 ! malformed not valid JSON at byte 5, at 'tru},{\"a\":[\"]},\"] x},{\"a'
         2 ! malformed not valid JSON at byte 13, at 'x},{\"a\":2} x,7,{\"a\":3}]'
         3 ! malformed not valid JSON: 'x,7,{\"a\":3}]' follows the element instead of a comma
         4 ! malformed expected a JSON object, found 7
         5 a=3",
    );
    for (body, expected) in [
        ("[{\"a\":1},{\"a\":\"x},{\"a\":2}]", "0 a=1\n1 ! malformed not valid JSON at byte 11, at 'a\":2}]'"),
        ("[{\"a\":1},", "0 a=1\n1 ! malformed not valid JSON: the body ends within the row"),
        ("[{\"a\":1}", "0 ! malformed not valid JSON: the array is not closed"),
        ("[", "0 ! malformed not valid JSON: the body ends within the row"),
    ] {
        let lost = "; the rest of the array can't be told apart, so none of it was read";
        check(&decode_text("a bigint", body), &format!("{expected}{lost}"));
    }
    check(
        &decode_text("a bigint", "[{\"a\":1}] {\"a\":2}"),
        "0 a=1\n1 ! malformed not valid JSON: '{\"a\":2}' follows the array; send one array, or objects line by line",
    );
}

#[test]
fn size_depth_and_bytes_are_limited() {
    let options = JsonOptions { row_bytes_max: 20, ..JsonOptions::default() };
    let rows =
        decode(&schema("a text"), b"{\"a\":\"x\"}\n{\"a\":\"xxxxxxxxxxxxxxxxx\"}\n{\"a\":\"y\"}", &options);
    check(&rows, "0 a=x\n1 ! too_large the row is 25 bytes long, more than the 20 allowed\n2 a=y");

    let nested = |depth: usize| format!("{{\"a\":{}{}}}", "[".repeat(depth), "]".repeat(depth));
    let fits = nested(DEPTH_MAX - 1);
    let body = format!("{}\n{}\n{}\n{{\"a\":1}}", fits, nested(DEPTH_MAX + 1), "[".repeat(200_000));
    let rows = decode_text("a jsonb", &body);
    assert_eq!(rows.rejected.len(), 2);
    assert!(rows.rejected.iter().all(|row| row.reason == RejectReason::Malformed));
    assert!(rows.rejected[0].message.contains("deeper than 128"));
    assert_eq!(rows.batch.num_rows(), 2);
    let cut = &rows.rejected[1];
    assert_eq!(cut.raw.len(), RejectedRow::RAW_BYTES_MAX);
    assert!(cut.message.contains("200000 bytes"), "{}", cut.message);

    let rows = decode(
        &schema("a text"),
        b"{\"a\":\"x\"}\n{\"a\":\"\xff\"}\n{\"a\":\xc3}\n{\"a\":\"\xc3\xa9\"}",
        &JsonOptions::default(),
    );
    check(
        &rows,
        "0 a=x
         1 ! invalid_utf8 byte 6 of the row is not valid UTF-8
         2 ! invalid_utf8 byte 5 of the row is not valid UTF-8
         3 a=\u{e9}",
    );
}

#[test]
fn in_line_framing_an_object_ends_with_its_line() {
    let options = JsonOptions { framing: JsonFraming::Lines, ..JsonOptions::default() };
    let rows = decode(
        &schema("a bigint"),
        b"{\"a\":1}\n{\"a\":\n2}\n{\"a\":3} {\"a\":4}\n[{\"a\":5}]\n{\"a\":6}",
        &options,
    );
    let text = picture(&rows);
    let reasons: Vec<&str> = text.lines().map(|line| line.split(' ').nth(1).unwrap()).collect();
    assert_eq!(reasons, ["a=1", "!", "!", "!", "!", "a=6"], "{text}");
}

#[test]
fn raw_ranges_are_the_rows() {
    let body = b" {\"a\":1}\r\n{\"a\":\"x\"}\n\n{\"a\":2} ";
    let rows = decode(&schema("a bigint"), body, &JsonOptions::default());
    let raw: Vec<&[u8]> =
        rows.raw_ranges.iter().map(|range| &body[range.start as usize..range.end as usize]).collect();
    assert_eq!(raw, [b"{\"a\":1}", b"{\"a\":2}"]);
    assert_eq!(rows.row_numbers, [0, 2]);
    assert_eq!(rows.rejected[0].raw, b"{\"a\":\"x\"}");
}

/// Bodies that once broke a JSON decoder somewhere. None may panic, loop or lose a line.
#[test]
fn poison_harms_nothing() {
    let fixed: &[&[u8]] = &[
        b"{",
        b"}",
        b"[",
        b"]",
        b"\"",
        b",",
        b":",
        b"{\"",
        b"{\"a",
        b"{\"a\"",
        b"{\"a\":",
        b"{\"a\":1",
        b"{\"a\":1,",
        b"{\"a\":1,}",
        b"{,}",
        b"{:1}",
        b"{\"a\"1}",
        b"{\"a\":,}",
        b"{\"a\"::1}",
        b"{a:1}",
        b"{'a':1}",
        b"{\"a\":'1'}",
        b"{\"a\":-}",
        b"{\"a\":--1}",
        b"{\"a\":1e}",
        b"{\"a\":1e+}",
        b"{\"a\":1.e5}",
        b"{\"a\":0e0000000000000000001}",
        b"{\"a\":1e999999999999999999999}",
        b"{\"a\":-1e-999999999999999999999}",
        b"{\"a\":nul}",
        b"{\"a\":nulll}",
        b"{\"a\":truefalse}",
        b"{\"b\":\"\\",
        b"{\"b\":\"\\\"}",
        b"{\"b\":\"\\u\"}",
        b"{\"b\":\"\\u12",
        b"{\"b\":\"\\ud83d\\u\"}",
        b"{\"b\":\"\\ud83d\\",
        b"{\"b\":\"\xf0\x9f\x98\"}",
        b"\xff\xfe{\x00\"\x00a\x00",
        b"\xef\xbb\xbf",
        b"\xef\xbb",
        b"\x00",
        b"\x00\x00\x00\n\x00",
        b"{\"a\":1}\x00",
        b"{\"\x00\":1}",
        b"{\"b\":\"\x00\"}",
        b"{\"b\":\"\x7f\"}",
        b"[[[[[[[[[[[[[[[[",
        b"{\"c\":[[[[[[[[[[[[[[",
        b"{\"c\":{\"a\":{\"a\":{\"a\":",
        b"[,]",
        b"[,,,]",
        b"[{},]",
        b"[{}{}]",
        b"[{}",
        b"[1,2",
        b"[\"a\\",
        b"[\"]",
        b"[{\"b\":\"]\"},{\"b\":\"}\"}",
        b"{}{}{}[",
        b"{}\r{}\r\r\n{}",
        b"{\"a\":1}//comment\n/*x*/",
        b"{\"a\":12345678",
        b"{\"a\":1234567812345678",
        b"{\"a\":123456781234567812345678}",
        b"{\"a\":99999999999999999999999999999999999999999}",
        b"{\"\":1}",
        b"{\"\\ud800\":1}",
        b"{\"a\\u0000\":1}",
        b"{\"a\":1,\"a\":\"x\"}",
        b"{\"d\":[1,2,\"}",
        b"{\"d\":[[]]}",
        b"{\"d\":{}}",
        b"\n\n\n}\n]\n{\n",
        b"a,b,c\n1,2,3\n",
        b"<html></html>",
        b"\x1f\x8b\x08\x00",
        b"{\"e\":\"9999-99-99T99:99:99Z\"}",
        b"{\"e\":\"2021-01-01T00:00:00+\"}",
    ];
    assert!(fixed.len() >= 60);
    let schema = schema("a bigint, b text, c jsonb, d bigint[], e timestamptz");
    let mut rng = fastrand::Rng::with_seed(5);
    let try_all = |body: &[u8]| {
        for framing in [JsonFraming::Auto, JsonFraming::Lines] {
            for row_bytes_max in [10, 1 << 20] {
                for ignore_unknown in [false, true] {
                    let options = JsonOptions { framing, row_bytes_max, ignore_unknown };
                    picture(&decode(&schema, body, &options));
                }
            }
        }
    };
    for body in fixed {
        try_all(body);
        // Not silently nothing: only white space, a byte order mark and `[]` hold no rows.
        let rows = decode(&schema, body, &JsonOptions::default());
        assert!(rows.batch.num_rows() + rows.rejected.len() > 0 || *body == b"\xef\xbb\xbf", "{body:?}");
        let mut between = b"{\"a\":1}\n".to_vec();
        between.extend_from_slice(body);
        between.extend_from_slice(b"\n{\"a\":2}\n");
        try_all(&between);
    }
    // And mutations of them.
    for _ in 0..3000 {
        let mut body = fixed[rng.usize(..fixed.len())].to_vec();
        body.extend_from_slice(fixed[rng.usize(..fixed.len())]);
        for _ in 0..rng.usize(..4) {
            let at = rng.usize(..body.len());
            body[at] = *rng.choice(b"{}[]\",:\\\n\r 01ntf\xff\x00e-.").unwrap();
        }
        try_all(&body);
    }
}

#[test]
fn random_rows_equal_a_dumb_decoder() {
    let schema = schema("a bigint, b text, c boolean, d double, e jsonb");
    for seed in 0..300 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let lines: Vec<String> = (0..rng.usize(1..30)).map(|_| random_line(&mut rng)).collect();
        let body = lines.join(*rng.choice(&["\n", "\r\n", "\n\n", "\n \n"]).unwrap());
        let rows = decode(&schema, body.as_bytes(), &JsonOptions::default());
        let expected: String =
            lines.iter().enumerate().map(|(number, line)| dumb_picture(number, line) + "\n").collect();
        let shown: String = picture(&rows)
            .lines()
            .map(|line| match line.split_once(" ! ") {
                Some((number, reason)) => format!("{number} ! {}\n", reason.split(' ').next().unwrap()),
                None => format!("{line}\n"),
            })
            .collect();
        assert_eq!(shown, expected, "seed {seed}:\n{body}");
    }
}

fn random_line(rng: &mut fastrand::Rng) -> String {
    let mut pairs: Vec<String> = Vec::new();
    for name in ["a", "b", "c", "d", "e"] {
        if rng.u8(..10) == 0 {
            continue;
        }
        let value = match (name, rng.u8(..20)) {
            (_, 0) => "null".to_string(),
            (_, 1) => (*rng.choice(&["tru", "\"x", "{", "[1,", "01", "-"]).unwrap()).to_string(),
            (_, 2) => "\"text\"".to_string(),
            ("a", _) => (rng.i64(..) >> rng.u8(..64)).to_string(),
            ("b", _) => serde_json::to_string(&random_text(rng)).unwrap(),
            ("c", _) => rng.bool().to_string(),
            ("d", _) => format!("{}", rng.i32(..) as f64 / 1000.0),
            (_, _) => random_json(rng, 0).to_string(),
        };
        let space = ["", "", " ", "\t"];
        pairs.push(format!(
            "\"{name}\"{}:{}{value}{}",
            rng.choice(&space).unwrap(),
            rng.choice(&space).unwrap(),
            rng.choice(&space).unwrap()
        ));
    }
    if rng.u8(..4) == 0 {
        rng.shuffle(&mut pairs);
    }
    format!("{{{}}}", pairs.join(if rng.bool() { "," } else { ", " }))
}

fn random_text(rng: &mut fastrand::Rng) -> String {
    (0..rng.usize(..40))
        .map(|_| match rng.u8(..8) {
            0 => *rng.choice(&['"', '\\', '\n', '\u{1f600}', '\u{e9}', '/', '{', ',']).unwrap(),
            _ => rng.alphanumeric(),
        })
        .collect()
}

fn random_json(rng: &mut fastrand::Rng, depth: usize) -> Value {
    match rng.u8(..if depth < 3 { 7 } else { 4 }) {
        0 => Value::Bool(rng.bool()),
        1 => Value::from(rng.i32(..)),
        2 | 3 => Value::from(random_text(rng)),
        4 => Value::Array((0..rng.usize(..4)).map(|_| random_json(rng, depth + 1)).collect()),
        _ => (0..rng.usize(..4))
            .map(|_| (random_text(rng), random_json(rng, depth + 1)))
            .collect::<Map<_, _>>()
            .into(),
    }
}

/// What a line should give, by way of a tree.
fn dumb_picture(number: usize, line: &str) -> String {
    let Ok(Value::Object(row)) = serde_json::from_str::<Value>(line) else {
        return format!("{number} ! malformed");
    };
    let mut out = number.to_string();
    for name in ["a", "b", "c", "d", "e"] {
        let shown = match (name, row.get(name)) {
            (_, None) => Some("-".to_string()),
            (_, Some(Value::Null)) => Some("NULL".to_string()),
            ("a", Some(value)) => value.as_i64().map(|number| number.to_string()),
            ("b", Some(value)) => value.as_str().map(str::to_string),
            ("c", Some(value)) => value.as_bool().map(|flag| flag.to_string()),
            ("d", Some(value)) => value.as_f64().map(|number| format!("{number:?}")),
            (_, Some(value)) => Some(value.to_string()),
        };
        match shown {
            Some(shown) => out.push_str(&format!(" {name}={shown}")),
            None => return format!("{number} ! wrong_type"),
        }
    }
    out
}

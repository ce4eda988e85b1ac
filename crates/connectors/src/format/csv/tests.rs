//! CSV and COPY text: fields, quotes, headers, errors, poison, and a dumb decoder as the oracle.

use super::*;
use crate::format::pg_text::{self, PgTextOptions};
use crate::format::picture::{check, picture, schema};

fn decode_text(columns: &str, body: &str, options: &CsvOptions) -> DecodedRows {
    let schema = schema(columns);
    let all: Vec<usize> = (0..schema.fields().len()).collect();
    decode(&schema, &all, body.as_bytes(), options)
}

fn plain(columns: &str, body: &str) -> DecodedRows {
    decode_text(columns, body, &CsvOptions::default())
}

#[test]
fn fields_quotes_and_nulls() {
    check(
        &plain("a bigint, b text", "1,x\r\n\r\n2,\n,\"\"\n3,\"a,\"\"b\"\"\nc\"\r\n\"4\",d"),
        "0 a=1 b=x
         1 a=2 b=NULL
         2 a=NULL b=
         3 a=3 b=a,\"b\"
         c
         4 a=4 b=d",
    );
    check(&plain("a text", "x\n\ny\n"), "0 a=x\n1 a=NULL\n2 a=y");
    check(&plain("a text, b text", ""), "");
    let options = CsvOptions { delimiter: b';', null: "NA".into(), ..CsvOptions::default() };
    check(
        &decode_text("a text, b bigint, c text", ";NA;NA\n\"NA\";1;\"\"\nNA;2;x;\n", &options),
        "0 a= b=NULL c=NULL
         1 a=NA b=1 c=
         2 ! malformed the row has 4 fields, expected 3",
    );
}

#[test]
fn every_type_from_text() {
    let cases = [
        ("boolean", "t", "true"),
        ("smallint", "-12", "-12"),
        ("integer", "+7", "7"),
        ("bigint", "1234567890123456789", "1234567890123456789"),
        ("real", "0.5", "0.5"),
        ("double", "1e-3", "0.001"),
        ("numeric(18,2)", "12.5", "12.50"),
        ("text", "caf\u{e9}", "caf\u{e9}"),
        ("jsonb", "\"{\"\"a\"\":1}\"", "{\"a\":1}"),
        ("bytea", "\\xff00", "ff00"),
        ("date", "2021-01-02", "2021-01-02"),
        ("time", "10:11:12", "10:11:12"),
        ("timestamp", "2021-01-02 03:04:05", "2021-01-02T03:04:05"),
        ("timestamptz", "1511658000", "2017-11-26T01:00:00Z"),
        ("interval", "2 hours", "2 hours"),
        ("bigint[]", "\"{1,2}\"", "[1, 2]"),
    ];
    for (sql_type, text, expected) in cases {
        let columns = format!("v {sql_type}, z bigint");
        let rows = plain(&columns, &format!("{text},1\n,2\n{text},3"));
        let text = format!("0 v={expected} z=1\n1 v=NULL z=2\n2 v={expected} z=3\n");
        assert_eq!(picture(&rows), text, "{sql_type}");
    }
}

#[test]
fn bad_rows_are_rejected_and_the_others_kept() {
    check(
        &plain(
            "a bigint, b smallint, c numeric(5,2)",
            "1,1,1\n2\n3,x,1.005\n4,99999,1\n5,1,1,1\n6,1,\"1\"x\n7,1,a\"b\"\n8,1,NaN\n9,1,1\n",
        ),
        "0 a=1 b=1 c=1.00
         1 ! malformed the row has 1 field, expected 3
         2 ! wrong_type column \"b\": x is not a valid smallint
         3 ! out_of_range column \"b\": 99999 is out of range for smallint
         4 ! malformed the row has 4 fields, expected 3
         5 ! malformed text follows the closing quote of a field; a quote inside a field is doubled
         6 ! malformed a quote stands inside an unquoted field; quote the whole field and double the quote
         7 ! wrong_type column \"c\": NaN is not a valid numeric(5,2)
         8 a=9 b=1 c=1.00",
    );
    let schema = schema("a bigint, b text");
    let body = b"1,x\n2,\xff\n3,a\x00b\n4,\xc3\xa9\n";
    check(
        &decode(&schema, &[0, 1], body, &CsvOptions::default()),
        "0 a=1 b=x
         1 ! invalid_utf8 byte 2 of the row is not valid UTF-8
         2 ! invalid_utf8 byte 3 of the row is NUL, which no text holds
         3 a=4 b=\u{e9}",
    );
    let options = CsvOptions { row_bytes_max: 8, ..CsvOptions::default() };
    check(
        &decode_text("a bigint, b text", "1,x\n2,xxxxxxxxxx\n3,y", &options),
        "0 a=1 b=x\n1 ! too_large the row is 12 bytes long, more than the 8 allowed\n2 a=3 b=y",
    );
}

#[test]
fn a_stray_quote_costs_its_line_only() {
    check(
        &plain("a bigint, b text", "1,\"x\n2,y\n3,z\n"),
        "0 ! malformed a quoted field is not closed\n1 a=2 b=y\n2 a=3 b=z",
    );
    let options = CsvOptions { row_bytes_max: 12, ..CsvOptions::default() };
    check(
        &decode_text("a bigint, b text", "1,\"x\n2,y\n3,z\n4,\"z\"\n", &options),
        "0 ! malformed a quoted field is not closed\n1 a=2 b=y\n2 a=3 b=z\n3 a=4 b=z",
    );
}

#[test]
fn headers_name_the_columns() {
    let names = CsvOptions { header: Header::Names, ..CsvOptions::default() };
    let columns = "a bigint, b text, c bigint";
    check(&decode_text(columns, "\u{feff}B,\"a\"\r\nx,1\r\n", &names), "0 a=1 b=x c=-");
    check(&decode_text(columns, "B,a", &names), "");
    check(
        &decode_text("user_id bigint, b text", "userid,b\n1,x\n2,y", &names),
        "0 ! unknown_column column \"userid\": the header names no column of the table; did you mean \"user_id\"?
         1 ! unknown_column column \"userid\": the header names no column of the table; did you mean \"user_id\"?",
    );
    check(
        &decode_text(columns, "a,a\n1,2", &names),
        "0 ! malformed column \"a\": the header names the column twice",
    );
    let lenient = CsvOptions { ignore_unknown: true, ..names };
    check(&decode_text(columns, "zzz,a\nx,1", &lenient), "0 a=1 b=- c=-");
    let skipped = CsvOptions { header: Header::Skipped, ..CsvOptions::default() };
    let schema = schema(columns);
    check(&decode(&schema, &[2, 0], b"x,y\n1,2\n", &skipped), "0 a=2 b=- c=1");
}

#[test]
fn raw_ranges_are_the_rows() {
    let body = b"1,\"a\nb\"\r\nbad\r\n2,c";
    let rows = decode(&schema("a bigint, b text"), &[0, 1], body, &CsvOptions::default());
    let raw: Vec<&[u8]> =
        rows.raw_ranges.iter().map(|range| &body[range.start as usize..range.end as usize]).collect();
    assert_eq!(raw, [&b"1,\"a\nb\""[..], b"2,c"]);
    assert_eq!(rows.row_numbers, [0, 2]);
    assert_eq!(rows.rejected[0].raw, b"bad");
}

#[test]
fn copy_text() {
    let decode = |body: &[u8], null: &str| {
        let options = PgTextOptions { null: null.into(), ..PgTextOptions::default() };
        pg_text::decode(&schema("a bigint, b text"), &[0, 1], body, &options)
    };
    check(
        &decode(b"1\tx\r\n2\t\\N\n\\N\t\n3\ta\\tb\\\\c\\x41\\101\\q\n4\tcut\\\nline\n\\.\n5\tnever\n", "\\N"),
        "0 a=1 b=x
         1 a=2 b=NULL
         2 a=NULL b=
         3 a=3 b=a\tb\\cAAq
         4 a=4 b=cut
         line",
    );
    check(
        &decode(b"1\tx\ty\nx\ty\n2\t\\xff\n3\t\\0\n4\tz\\", "\\N"),
        "0 ! malformed the row has 3 fields, expected 2
         1 ! wrong_type column \"a\": x is not a valid bigint
         2 ! invalid_utf8 an escape spells bytes that are no UTF-8 text
         3 ! invalid_utf8 an escape spells bytes that are no UTF-8 text
         4 a=4 b=z\\",
    );
    check(&decode(b"1\t\n\tx", ""), "0 a=1 b=NULL\n1 a=NULL b=x");
    check(&decode(b"\\.", "\\N"), "");
}

#[test]
fn poison_harms_nothing() {
    let fixed: &[&[u8]] = &[
        b"\"",
        b"\"\"",
        b"\"\"\"",
        b"\"\"\"\"",
        b",",
        b",,",
        b",\n,",
        b"\n",
        b"\r",
        b"\r\n",
        b"\r\r\n",
        b"\"\r\n",
        b"\"a\"\r",
        b"\"a\"\r\r\n",
        b"a\"",
        b"a\"b",
        b"\"a\"b",
        b"\"a\"\"",
        b"\"a\" ,",
        b"\",\"",
        b"\"\n\"",
        b"1,\"\n\n\n",
        b"\x00",
        b"\xff",
        b"1,\xff\"",
        b"\"\xff\"",
        b"\xef\xbb\xbf",
        b"\xef\xbb",
        b"\\",
        b"\\\\",
        b"\\.",
        b"\\.\n",
        b"\\.x",
        b"\\N",
        b"\\x",
        b"\\xz",
        b"\\x4",
        b"\\777",
        b"\\8",
        b"\\\n",
        b"1,2",
        b"-",
        b"-,-",
        b"+,+",
        b"1e9,1",
        b"99999999999999999999,x",
        b"00000000,1",
        b"12345678,1",
        b"1234567812345678,1",
        b"12345678123456781,1",
        b"1;2",
        b"1\t2",
        b"\t",
        b"\t\t",
        b"\n\n\n",
        b"1,a\n2",
        b"1,a\n2,\"b",
        b"1,\"a\n2,b\n3,\"c\"\n",
        b" 1 , a ",
        b"1,a\r",
        b"\"1\",\"a\"\r\n\"",
        b"{\"a\":1}",
        b"\x1f\x8b",
        b"1,''",
        b"=1+1,x",
    ];
    assert!(fixed.len() >= 60);
    let schema = schema("a bigint, b text");
    let mut rng = fastrand::Rng::with_seed(6);
    let try_all = |body: &[u8]| {
        for row_bytes_max in [5, 1 << 20] {
            for header in [Header::Absent, Header::Skipped, Header::Names] {
                for null in ["", "\\N"] {
                    let options =
                        CsvOptions { header, row_bytes_max, null: null.into(), ..CsvOptions::default() };
                    picture(&decode(&schema, &[1, 0], body, &options));
                    picture(&decode(&schema, &[1], body, &options));
                }
            }
            let options = PgTextOptions { row_bytes_max, ..PgTextOptions::default() };
            picture(&pg_text::decode(&schema, &[0, 1], body, &options));
        }
    };
    for body in fixed {
        try_all(body);
        try_all(&[b"1,good\n", *body, b"\n2,good\n"].concat());
    }
    for _ in 0..3000 {
        let mut body: Vec<u8> = [fixed[rng.usize(..fixed.len())], fixed[rng.usize(..fixed.len())]].concat();
        for _ in 0..rng.usize(..4) {
            let at = rng.usize(..body.len());
            body[at] = *rng.choice(b"\",\n\r\\\t01x\xff\x00").unwrap();
        }
        try_all(&body);
    }
}

/// Random rows, written with random quoting, come back as they were.
#[test]
fn random_rows_come_back() {
    let schema = schema("a bigint, b text, c double, d timestamptz");
    for seed in 0..200 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut body = String::new();
        let mut expected = String::new();
        for number in 0..rng.usize(1..1500) {
            let a = (rng.u8(..9) > 0).then(|| rng.i64(..) >> rng.u8(..64));
            let b: Option<String> = (rng.u8(..9) > 0).then(|| {
                let letters = ['a', 'b', 'c', '\u{e9}', ',', '"', '\n'];
                let plain = rng.u8(..8) > 0;
                (0..rng.usize(..30)).map(|_| letters[rng.usize(..if plain { 4 } else { 7 })]).collect()
            });
            let c = (rng.u8(..9) > 0).then(|| rng.i32(..) as f64 / 100.0);
            let seconds = rng.i64(-60_000_000_000..=90_000_000_000);
            let quoted = |text: String| format!("\"{}\"", text.replace('"', "\"\""));
            let fields = [
                a.map_or(String::new(), |a| {
                    if rng.u8(..20) == 0 { quoted(a.to_string()) } else { a.to_string() }
                }),
                b.clone().map_or(String::new(), |b| {
                    if b.is_empty() || b.contains(['"', ',', '\n']) || rng.u8(..20) == 0 {
                        quoted(b)
                    } else {
                        b
                    }
                }),
                c.map_or(String::new(), |c| c.to_string()),
                seconds.to_string(),
            ];
            body.push_str(&fields.join(","));
            body.push_str(if rng.bool() { "\n" } else { "\r\n" });
            let shown = |text: Option<String>| text.unwrap_or("NULL".into());
            let time = chrono::DateTime::from_timestamp(seconds, 0).unwrap();
            expected.push_str(&format!(
                "{number} a={} b={} c={} d={}\n",
                shown(a.map(|a| a.to_string())),
                shown(b),
                shown(c.map(|c| format!("{c:?}"))),
                time.to_rfc3339_opts(chrono::SecondsFormat::Secs, true)
            ));
        }
        let rows = decode(&schema, &[0, 1, 2, 3], body.as_bytes(), &CsvOptions::default());
        assert_eq!(picture(&rows), expected, "seed {seed}");
    }
}

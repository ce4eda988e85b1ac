//! Files in, chunks out.

use std::io::Write;
use std::path::PathBuf;

use super::header::TableColumn;
use super::lines::{LineChunks, Lines, TextFile};
use super::replay::ReplayChunks;
use super::*;
use crate::cli::ClientFlags;

fn flags(columns: &[&str], header: bool, batch_rows: u32) -> LoadFlags {
    LoadFlags {
        files: vec![],
        table: "t".to_string(),
        format: None,
        columns: (!columns.is_empty()).then(|| columns.iter().map(|c| c.to_string()).collect()),
        header,
        batch_rows,
        parallel: 1,
        speed: None,
        time_column: Some("ts".to_string()),
        rebase_time: false,
        client: ClientFlags::default(),
    }
}

fn write(name: &str, bytes: &[u8]) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    std::fs::write(&path, bytes).unwrap();
    (folder, path)
}

fn bodies(mut chunks: impl Chunks) -> Vec<(String, u64, Option<Duration>)> {
    let mut all = vec![];
    while let Some(chunk) = chunks.next_chunk().unwrap() {
        all.push((String::from_utf8(chunk.body).unwrap(), chunk.rows, chunk.due));
    }
    all
}

fn cut(name: &str, bytes: &[u8], flags: &LoadFlags) -> Vec<(String, u64)> {
    cut_for(name, bytes, flags, None).unwrap()
}

fn cut_for(
    name: &str,
    bytes: &[u8],
    flags: &LoadFlags,
    table_columns: Option<Vec<TableColumn>>,
) -> Result<Vec<(String, u64)>> {
    let (_folder, path) = write(name, bytes);
    let format = format_of_name(&path).unwrap();
    let file = TextFile { path: &path, format, flags, table_columns };
    let lines = Lines::open(Input::open(&path).unwrap(), &file)?;
    Ok(bodies(LineChunks::new(lines, flags)).into_iter().map(|(body, rows, _)| (body, rows)).collect())
}

#[test]
fn a_file_without_header_is_read_by_the_order_of_the_tables_columns() {
    let column = |name: &str, sql_type: &str| TableColumn {
        name: name.to_string(),
        sql_type: sql_type.to_string(),
        required: true,
    };
    let columns = Some(vec![column("id", "bigint"), column("b", "text")]);
    let cut = |bytes: &[u8]| cut_for("x.csv", bytes, &flags(&[], false, 1), columns.clone());
    let rows = [("id,b\n1,pv\n".to_string(), 1), ("id,b\n2,buy\n".to_string(), 1)];
    assert_eq!(cut(b"1,pv\n2,buy\n").unwrap(), rows);
    assert_eq!(cut(b"b,id\npv,1\n").unwrap(), [("b,id\npv,1\n".to_string(), 1)]);
    assert!(cut(b"one,pv\n").unwrap_err().hint.unwrap().contains("--columns id,b;"));
    assert_eq!(cut(b"").unwrap(), []);
}

#[test]
fn every_csv_chunk_names_its_columns() {
    let given = cut("x.csv", b"1,pv\n2,buy\n3,pv", &flags(&["id", "b"], false, 2));
    assert_eq!(given, [("id,b\n1,pv\n2,buy\n".to_string(), 2), ("id,b\n3,pv\n".to_string(), 1)]);
    let copied = cut("x.csv", b"\xef\xbb\xbfid,b\r\n1,pv\r\n\r\n2,buy\r\n", &flags(&[], false, 1));
    assert_eq!(copied, [("id,b\r\n1,pv\r\n".to_string(), 1), ("id,b\r\n2,buy\r\n".to_string(), 1)]);
    let replaced = cut("x.csv", b"i,x\n1,pv\n", &flags(&["id", "b"], true, 5));
    assert_eq!(replaced, [("id,b\n1,pv\n".to_string(), 1)]);
}

#[test]
fn rows_end_outside_quotes() {
    let rows = cut("x.csv", b"a,b\n1,\"two\nlines\"\"\"\n2,x\n", &flags(&[], false, 1));
    assert_eq!(rows, [("a,b\n1,\"two\nlines\"\"\"\n".to_string(), 1), ("a,b\n2,x\n".to_string(), 1)]);
}

#[test]
fn packed_files_are_unpacked_by_content() {
    let text = b"{\"a\":1}\n{\"a\":2}\n";
    let mut gzip = flate2::write::GzEncoder::new(vec![], flate2::Compression::fast());
    gzip.write_all(text).unwrap();
    let zst = zstd::encode_all(&text[..], 1).unwrap();
    for (name, bytes) in
        [("x.ndjson", text.to_vec()), ("x.ndjson.gz", gzip.finish().unwrap()), ("x.jsonl.zst", zst)]
    {
        let rows = cut(name, &bytes, &flags(&[], false, 10));
        assert_eq!(rows, [("{\"a\":1}\n{\"a\":2}\n".to_string(), 2)], "{name}");
    }
}

#[test]
fn arrays_and_unknown_formats_are_refused_with_a_way_out() {
    let (_folder, path) = write("x.json", b" [{\"a\":1}]");
    let flags = flags(&[], false, 1);
    let file = TextFile { path: &path, format: FileFormat::Ndjson, flags: &flags, table_columns: None };
    let failure = Lines::open(Input::open(&path).unwrap(), &file).err().unwrap();
    assert!(failure.hint.unwrap().contains("jq"));
    assert!(format_of_name(Path::new("clicks.log")).unwrap_err().hint.unwrap().contains("--format"));
}

#[test]
fn replay_cuts_by_event_time_and_speed() {
    let (_folder, path) = write("x.csv", b"1,1000\n2,1000\n3,1059\n4,1058\n5,1300\n");
    let flags = flags(&["id", "ts"], false, 100);
    let input = Input::open(&path).unwrap();
    let file = TextFile { path: &path, format: FileFormat::Csv, flags: &flags, table_columns: None };
    let chunks = bodies(ReplayChunks::open(input, &file, 600.0).unwrap());
    // At 600 times a minute is a tenth of a second.
    assert_eq!(
        chunks,
        [
            ("id,ts\n1,1000\n2,1000\n3,1059\n4,1058\n".to_string(), 4, Some(Duration::ZERO)),
            ("id,ts\n5,1300\n".to_string(), 1, Some(Duration::from_millis(500))),
        ]
    );
}

#[test]
fn keys_tell_apart_what_is_different_and_nothing_else() {
    let key = |file: &str, number: u64, body: &[u8]| chunk_key(file, "t", "text/csv", number, body);
    assert_eq!(key("a", 0, b"x"), key("a", 0, b"x"));
    let all = [key("a", 0, b"x"), key("b", 0, b"x"), key("a", 1, b"x"), key("a", 0, b"y")];
    let distinct: std::collections::BTreeSet<_> = all.iter().collect();
    assert_eq!(distinct.len(), all.len());
}

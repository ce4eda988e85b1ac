//! Files: the same rows however they are cut, resumed and spread over threads.

use std::fs;
use std::io::Write;
use std::path::Path;

use super::*;
use crate::format::picture::{picture, schema};
use crate::source::ParallelFiles;

const COLUMNS: &str = "a bigint, b text, c numeric(10,2)";

fn csv_body(seed: u64, rows: usize) -> Vec<u8> {
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut body = Vec::new();
    for row in 0..rows {
        let line = match rng.u8(..20) {
            0 => "broken".to_string(),
            1 => format!("{row},\"quoted \"\"x\"\",\nover lines\",1.50"),
            2 => format!("x,{row},1"),
            3 => format!("{row},{},1", "long".repeat(60)),
            4 => "\"never closed".to_string(),
            5 => String::new(),
            _ => format!("{row},text {},{}.25", rng.u32(..), rng.u16(..)),
        };
        body.extend_from_slice(line.as_bytes());
        body.extend_from_slice(if rng.bool() { b"\n" } else { b"\r\n" });
    }
    body
}

fn ndjson_body(seed: u64, rows: usize) -> Vec<u8> {
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut body = b"\xef\xbb\xbf".to_vec();
    for row in 0..rows {
        let line = match rng.u8(..20) {
            0 => "{\"a\":".to_string(),
            1 => "2}".to_string(),
            2 => format!("{{\"a\":{row},\"b\":\"{}\"}}", "long".repeat(60)),
            3 => "  ".to_string(),
            4 => "\u{feff}{\"a\":1}".to_string(),
            _ => format!("{{\"a\":{row},\"b\":\"{}\",\"c\":{}.5}}", rng.u32(..), rng.u16(..)),
        };
        body.extend_from_slice(line.as_bytes());
        body.push(b'\n');
    }
    body
}

fn csv() -> FileFormat {
    // Short, so that the long rows above are too long and open quotes are given up early.
    FileFormat::Csv(CsvOptions { row_bytes_max: 200, ..CsvOptions::default() })
}

fn ndjson() -> FileFormat {
    FileFormat::Ndjson(JsonOptions { row_bytes_max: 200, ..JsonOptions::default() })
}

/// All rows with their numbers in the file.
fn drain(mut next: impl FnMut() -> Option<FileBatch>) -> Vec<Vec<String>> {
    let mut files: Vec<Vec<String>> = Vec::new();
    while let Some(batch) = next() {
        let file = batch.next.file;
        files.resize(files.len().max(file + 1), Vec::new());
        assert_eq!(batch.first_row as usize, files[file].len());
        let text = picture(&batch.rows);
        // Rows may span lines: a new one begins with its number.
        let mut rows: Vec<String> = Vec::new();
        for line in text.lines() {
            let begins = line.split_once(' ').filter(|(number, _)| number.parse::<usize>() == Ok(rows.len()));
            match (begins, rows.last_mut()) {
                (Some((_, rest)), _) => rows.push(rest.to_string()),
                (None, Some(row)) => row.push_str(line),
                (None, None) => panic!("the first line has a number: {line}"),
            }
        }
        assert_eq!(batch.next.row, batch.first_row + rows.len() as u64);
        files[file].extend(rows);
    }
    files
}

fn options(chunk_bytes: usize) -> FileOptions {
    FileOptions { chunk_bytes, ..FileOptions::default() }
}

fn read(path: &Path, format: FileFormat, chunk_bytes: usize) -> Vec<String> {
    let paths = [path.to_path_buf()];
    let mut source =
        FileSource::open(&paths, format, &schema(COLUMNS), &[0, 1, 2], &options(chunk_bytes)).unwrap();
    drain(|| source.next_batch().unwrap()).pop().unwrap_or_default()
}

#[test]
fn the_same_rows_however_the_file_is_cut() {
    let dir = tempfile::tempdir().unwrap();
    for (format, body) in [(csv(), csv_body(1, 300)), (ndjson(), ndjson_body(2, 300))] {
        let path = dir.path().join("file");
        fs::write(&path, &body).unwrap();
        let whole = read(&path, format.clone(), 1 << 20);
        assert!(whole.len() > 250);
        assert!(whole.iter().any(|row| row.contains("too_large")));
        assert!(whole.iter().any(|row| row.contains("malformed")));
        for chunk_bytes in (1..400).step_by(7).chain([1000, 4096]) {
            assert_eq!(read(&path, format.clone(), chunk_bytes), whole, "{chunk_bytes}");
        }
    }
}

#[test]
fn whole_bodies_and_files_agree() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    let body = csv_body(7, 200);
    fs::write(&path, &body).unwrap();
    let FileFormat::Csv(csv_options) = csv() else { unreachable!() };
    let rows = crate::format::csv::decode(&schema(COLUMNS), &[0, 1, 2], &body, &csv_options);
    let count = rows.batch.num_rows() + rows.rejected.len();
    assert_eq!(read(&path, csv(), 64).len(), count);
}

#[test]
fn reading_resumes_at_every_position() {
    let dir = tempfile::tempdir().unwrap();
    let paths = [dir.path().join("one"), dir.path().join("two.gz"), dir.path().join("three")];
    fs::write(&paths[0], [b"a,b,c\n".to_vec(), csv_body(3, 40)].concat()).unwrap();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&[b"c,b,a\n".to_vec(), csv_body(4, 40)].concat()).unwrap();
    fs::write(&paths[1], gzip.finish().unwrap()).unwrap();
    fs::write(&paths[2], zstd::encode_all(&b"b,a\nx,1"[..], 1).unwrap()).unwrap();
    let FileFormat::Csv(csv_options) = csv() else { unreachable!() };
    let format = FileFormat::Csv(CsvOptions { header: Header::Names, ..csv_options });
    let schema = schema(COLUMNS);
    let mut source = FileSource::open(&paths, format.clone(), &schema, &[], &options(300)).unwrap();
    let mut batches = Vec::new();
    let mut starts = vec![source.position()];
    while let Some(batch) = source.next_batch().unwrap() {
        batches.push((picture(&batch.rows), batch.next));
        starts.push(batch.next);
    }
    assert!(batches.len() > 10);
    assert_eq!(batches.last().unwrap().0, "0 a=1 b=x c=-\n");
    for (at, start) in starts.iter().enumerate() {
        let mut source = FileSource::open(&paths, format.clone(), &schema, &[], &options(300)).unwrap();
        source.seek(*start);
        let mut rest = Vec::new();
        while let Some(batch) = source.next_batch().unwrap() {
            rest.push((picture(&batch.rows), batch.next));
        }
        assert_eq!(rest, batches[at..], "from {start:?}");
    }
}

#[test]
fn threads_change_neither_rows_nor_order() {
    let dir = tempfile::tempdir().unwrap();
    let paths: Vec<_> = (0..3).map(|file| dir.path().join(file.to_string())).collect();
    for (file, path) in paths.iter().enumerate() {
        fs::write(path, csv_body(file as u64, 100 + 150 * file)).unwrap();
    }
    let schema = schema(COLUMNS);
    for order in [FileOrder::Sequential, FileOrder::RoundRobin] {
        let mut first_seen = None;
        for threads in [1, 2, 5] {
            let options = FileOptions { threads, order, keep_bodies: true, ..options(500) };
            let open = || ParallelFiles::open(&paths, csv(), &schema, &[0, 1, 2], &options).unwrap();
            let mut source = open();
            let mut batches = Vec::new();
            let files = drain(|| {
                let batch = source.next_batch().unwrap()?;
                batches.push((batch.next, picture(&batch.rows)));
                for range in &batch.rows.raw_ranges {
                    assert!(!batch.body[range.start as usize..range.end as usize].is_empty());
                }
                Some(batch)
            });
            for (file, rows) in files.iter().enumerate() {
                assert_eq!(*rows, read(&paths[file], csv(), 1 << 20), "file {file}");
            }
            match order {
                FileOrder::Sequential => assert!(batches.is_sorted_by_key(|(next, _)| next.file)),
                FileOrder::RoundRobin => {
                    let start: Vec<usize> = batches[..6].iter().map(|(next, _)| next.file).collect();
                    assert_eq!(start, [0, 1, 2, 0, 1, 2]);
                }
            }
            assert_eq!(*first_seen.get_or_insert_with(|| batches.clone()), batches, "{threads} threads");
            // Stop in the middle, go on with new threads.
            let mut source = open();
            for _ in 0..7 {
                source.next_batch().unwrap();
            }
            let positions = source.positions().to_vec();
            drop(source);
            let mut source =
                ParallelFiles::open_at(&paths, csv(), &schema, &[0, 1, 2], &options, &positions).unwrap();
            let mut rest: Vec<String> = Vec::new();
            while let Some(batch) = source.next_batch().unwrap() {
                rest.push(picture(&batch.rows));
            }
            let mut expected: Vec<String> = batches[7..].iter().map(|(_, text)| text.clone()).collect();
            rest.sort();
            expected.sort();
            assert_eq!(rest, expected);
        }
    }
}

#[test]
fn errors_of_files_are_told_once() {
    let dir = tempfile::tempdir().unwrap();
    let schema = schema(COLUMNS);
    let absent = [dir.path().join("absent.csv")];
    let error = FileSource::open(&absent, csv(), &schema, &[0, 1, 2], &options(100)).err().unwrap();
    assert!(error.to_string().contains("absent.csv"), "{error}");
    let path = dir.path().join("cut.zst");
    let compressed = zstd::encode_all(&csv_body(1, 2000)[..], 1).unwrap();
    fs::write(&path, &compressed[..compressed.len() / 2]).unwrap();
    let mut source = ParallelFiles::open(&[path], csv(), &schema, &[0, 1, 2], &options(1000)).unwrap();
    let error = loop {
        match source.next_batch() {
            Ok(Some(_)) => {}
            Ok(None) => panic!("a cut file has no proper end"),
            Err(error) => break error,
        }
    };
    assert!(error.to_string().contains("cut.zst"), "{error}");
    assert!(source.next_batch().unwrap().is_none());
}

//! Packs in folders, and the pack that is shipped.

use super::*;

fn pack(files: &[(&str, &str)]) -> (tempfile::TempDir, Result<Pack>) {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    let pack = Pack::read(folder.path());
    (folder, pack)
}

#[test]
fn views_come_after_what_they_read() {
    let (_folder, pack) = pack(&[
        ("views/a.sql", "CREATE VIEW a AS SELECT * FROM b; -- c\n"),
        ("views/b.sql", "CREATE VIEW b AS SELECT * FROM c"),
        ("views/c.sql", "CREATE VIEW c AS SELECT 'a' AS x FROM t"),
        ("tables/t.sql", "CREATE TABLE t (x BIGINT)"),
    ]);
    let names: Vec<String> = pack.unwrap().statements.into_iter().map(|item| item.name).collect();
    assert_eq!(names, ["t", "c", "b", "a"]);
}

#[test]
fn circles_are_named() {
    let (_folder, pack) = pack(&[
        ("views/a.sql", "CREATE VIEW a AS SELECT * FROM b"),
        ("views/b.sql", "CREATE VIEW b AS SELECT * FROM a"),
    ]);
    assert_eq!(pack.unwrap_err().message, "definitions depend on each other: a, b");
}

#[test]
fn all_syntax_errors_are_shown_with_their_place() {
    let (_folder, pack) = pack(&[
        ("tables/t.sql", "-- A table.\nCREATE TABLE t (\n  x BIGINT,,\n)"),
        ("views/v.sql", "DELETE FROM t"),
    ]);
    let message = pack.unwrap_err().message;
    assert!(message.contains("t.sql:3:12:"), "{message}");
    assert!(message.contains("v.sql:1:1: a pack holds only CREATE"), "{message}");
}

#[test]
fn definitions_are_compared_by_meaning() {
    let stored = "CREATE TABLE t (x BIGINT, s TEXT DEFAULT 'A  b')";
    assert!(same_definition(
        stored,
        "-- New words.\ncreate table T(\n  x bigint, /* n */ s text default 'A  b'\n);"
    ));
    assert!(!same_definition(stored, "CREATE TABLE t (x BIGINT, s TEXT DEFAULT 'a  b')"));
    assert!(!same_definition(stored, "CREATE TABLE t (x BIGINT, s TEXT)"));
}

#[test]
fn every_file_of_the_shipped_pack_parses_and_is_named_like_its_relation() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../packs/commerce");
    let pack = Pack::read(&folder).unwrap();
    assert!(pack.statements.len() > 20);
    let readme = std::fs::read_to_string(folder.join("README.md")).unwrap();
    for item in &pack.statements {
        assert_eq!(item.path.file_stem().unwrap(), item.name.as_str());
        assert!(readme.contains(&format!("[{}]", item.name)), "packs/commerce/README.md lists {}", item.name);
    }
}

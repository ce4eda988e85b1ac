//! Precedence, errors, and that the manual page is fresh.

use super::*;
use crate::failure::Exit;

fn no_env(_: &str) -> Option<String> {
    None
}

fn file(text: &str) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("shopstream.toml");
    std::fs::write(&path, text).unwrap();
    (folder, path)
}

#[test]
fn flag_beats_variable_beats_file_beats_default() {
    let (_folder, path) = file("\nhttp = \"127.0.0.1:3\"\npg = \"127.0.0.1:3\"\nworkers = 3\n");
    let env = |name: &str| match name {
        "SHOPSTREAM_HTTP" | "SHOPSTREAM_PG" => Some("127.0.0.1:2".to_string()),
        _ => None,
    };
    let config = Config::load(vec![("http", Some("127.0.0.1:1".into()))], &env, Some(&path)).unwrap();
    assert_eq!(config.get("http"), Some("127.0.0.1:1"));
    assert_eq!(config.get("pg"), Some("127.0.0.1:2"));
    assert_eq!(config.get("workers"), Some("3"));
    assert_eq!(config.get("memory"), Some("1GiB"));
    assert_eq!(config.origin("http"), Some(&Origin::Flag("http")));
    assert_eq!(config.origin("pg"), Some(&Origin::Env("SHOPSTREAM_PG".into())));
    assert_eq!(config.origin("workers"), Some(&Origin::File(path, 4)));
    assert_eq!(config.origin("memory"), Some(&Origin::Default));
    let shown = config.show();
    assert!(shown.contains("workers = \"3\""), "{shown}");
    assert!(shown.contains("# --http"), "{shown}");
    shown.parse::<toml::Table>().expect("what is shown can be used as a file");
}

#[test]
fn unknown_key_is_named_with_its_line_and_a_guess() {
    let (_folder, path) = file("# mine\ndata_dri = \"x\"\n");
    let failure = Config::load(vec![], &no_env, Some(&path)).unwrap_err();
    assert_eq!(failure.exit, Exit::Usage);
    assert!(failure.message.ends_with("shopstream.toml:2: unknown setting \"data_dri\""), "{failure}");
    assert_eq!(failure.hint.as_deref(), Some("did you mean data-dir?"));
}

#[test]
fn broken_files_are_named_with_their_line() {
    let (_folder, path) = file("http = \"a\"\nthis is not toml\n");
    let failure = Config::load(vec![], &no_env, Some(&path)).unwrap_err();
    assert!(failure.message.contains("shopstream.toml:2:"), "{failure}");
    let (_folder, path) = file("http = true\n");
    let failure = Config::load(vec![], &no_env, Some(&path)).unwrap_err();
    assert!(failure.message.contains(":1: setting http is boolean"), "{failure}");
    let missing = Config::load(vec![], &no_env, Some(Path::new("/nonexistent/x.toml"))).unwrap_err();
    assert_eq!(missing.exit, Exit::Usage);
}

#[test]
fn bad_values_say_where_they_stand() {
    let env = |name: &str| (name == "SHOPSTREAM_MEMORY").then(|| "lots".to_string());
    let (_folder, path) = file("");
    let config = Config::load(vec![], &env, Some(&path)).unwrap();
    let failure = ServerSettings::new(&config).unwrap_err();
    assert_eq!(
        failure.message,
        "bad value \"lots\" for setting memory (environment variable SHOPSTREAM_MEMORY): expected a size such as \
         512MiB or 2GiB"
    );
}

#[test]
fn other_machines_need_a_token() {
    let (folder, path) = file("http = \"0.0.0.0:8080\"\n");
    let config = Config::load(vec![], &no_env, Some(&path)).unwrap();
    let failure = ServerSettings::new(&config).unwrap_err();
    assert_eq!(failure.exit, Exit::Usage);
    assert!(failure.hint.as_deref().is_some_and(|hint| hint.contains("--auth-token-file")), "{failure}");

    let tokens = folder.path().join("tokens");
    let flags = || vec![("auth-token-file", Some(tokens.display().to_string()))];
    std::fs::write(&tokens, "# keys\n\nshort\n").unwrap();
    let config = Config::load(flags(), &no_env, Some(&path)).unwrap();
    assert!(ServerSettings::new(&config).is_err(), "a short token is refused");
    std::fs::write(&tokens, "# keys\n\n0123456789abcdef0123\n").unwrap();
    let config = Config::load(flags(), &no_env, Some(&path)).unwrap();
    assert_eq!(ServerSettings::new(&config).unwrap().tokens, ["0123456789abcdef0123"]);
    let client = ClientSettings::new(&config).unwrap();
    assert_eq!(client.token.as_deref(), Some("0123456789abcdef0123"));
}

#[test]
fn sizes_and_durations_are_read() {
    assert_eq!(parse_size("2GiB"), Ok(2 << 30));
    assert_eq!(parse_size("512 MiB"), Ok(512 << 20));
    assert_eq!(parse_size("1.5kb"), Ok(1500));
    assert_eq!(parse_size("1073741824"), Ok(1 << 30));
    for bad in ["", "GiB", "-1GiB", "1XiB", "nan", "inf", "0"] {
        assert!(parse_size(bad).is_err(), "{bad}");
    }
    assert_eq!(parse_duration("1h30m"), Ok(Duration::from_secs(5400)));
    assert_eq!(parse_duration("500ms"), Ok(Duration::from_millis(500)));
    assert_eq!(parse_duration("90"), Ok(Duration::from_secs(90)));
    for bad in ["", "s", "1x", "h1", "1h 30m", "99999999999s"] {
        assert!(parse_duration(bad).is_err(), "{bad}");
    }
}

#[test]
fn manual_page_is_fresh() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/reference/config.md");
    let stored = std::fs::read_to_string(path).unwrap_or_default();
    assert!(stored == page(), "docs/reference/config.md is stale: run `cargo xtask gen`");
}

//! What can be typed.

use std::ffi::OsString;

use super::*;

fn typed(line: &str) -> Result<Cli, clap::Error> {
    parse(line.split_whitespace().map(OsString::from))
}

#[test]
fn definitions_are_consistent() {
    command().debug_assert();
}

#[test]
fn lines_from_the_documentation_are_understood() {
    for line in [
        "shopstream serve --data-dir d --http 127.0.0.1:0 --pg 127.0.0.1:0 --pack p --memory 2GiB --workers 2",
        "shopstream load a.csv.gz --table t --format csv --columns a,b,c --server http://127.0.0.1:1",
        "shopstream load a.csv --table t --header --batch-rows 100 --retry-for 2m",
        "shopstream load a.csv --table t --speed 600 --time-column ts --rebase-time",
        "shopstream sql -c SHOW -c SHOW --format json",
        "shopstream sql -f x.sql",
        "shopstream simulate --rate 10 --seed 3 --duration 10s --dry-run",
        "shopstream simulate --backfill 30m --report r.json",
        "shopstream check packs/commerce",
        "shopstream bench w1 --rows 100",
        "shopstream config show --config other.toml",
        "shopstream completions zsh",
        "shopstream demo --data f.csv.gz --speed 60",
        "shopstream --log debug --log-format json serve",
    ] {
        assert!(typed(line).is_ok(), "{line}: {}", typed(line).unwrap_err());
    }
}

#[test]
fn what_makes_no_sense_is_refused() {
    for line in [
        "shopstream",
        "shopstream load --table t",
        "shopstream load a.csv",
        "shopstream load a.csv --table t --speed 0 --time-column ts",
        "shopstream load a.csv --table t --speed 2",
        "shopstream load a.csv --table t --rebase-time",
        "shopstream simulate --rate -1",
        "shopstream simulate --rate NaN",
        "shopstream simulate --late-ratio 1.5",
        "shopstream simulate --dry-run",
        "shopstream simulate --duration 10x",
        "shopstream sevre",
    ] {
        let error = typed(line).expect_err(line);
        assert_eq!(error.exit_code(), 2, "{line}");
    }
}

#[test]
fn columns_are_split_and_do_not_swallow_files() {
    let Command::Load(flags) = typed("shopstream load --columns a,b x.csv --table t").unwrap().command else {
        panic!("is a load");
    };
    assert_eq!(flags.columns.unwrap(), ["a", "b"]);
    assert_eq!(flags.files, [PathBuf::from("x.csv")]);
}

#[test]
fn help_names_the_variable_and_the_default_of_a_setting() {
    let mut command = command();
    let serve = command.find_subcommand_mut("serve").unwrap();
    let help = serve.render_long_help().to_string();
    for expected in
        ["SHOPSTREAM_DATA_DIR", "[default: 127.0.0.1:4566]", "Examples:", "--auth-token-file <FILE>"]
    {
        assert!(help.contains(expected), "{expected} in {help}");
    }
}

#[test]
fn flags_reach_the_settings() {
    let cli = typed("shopstream serve --http 127.0.0.1:9 --log warn").unwrap();
    let given: Vec<_> = cli.settings().into_iter().filter(|(_, value)| value.is_some()).collect();
    assert_eq!(given, [("log", Some("warn".to_string())), ("http", Some("127.0.0.1:9".to_string()))]);
}

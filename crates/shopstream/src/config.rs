//! Settings: one table of them, read from four places, checked once.
//!
//! ```text
//!   flag  >  SHOPSTREAM_* variable  >  shopstream.toml  >  default
//! ```
//!
//! [`Config`] holds what the user wrote, with its origin for error messages; [`ServerSettings`] and
//! [`ClientSettings`] hold what the program needs. The manual page docs/reference/config.md is printed
//! from the same table (`cargo xtask gen`), and a test fails when it is stale.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::failure::{Failure, Result};

/// A setting and its manual entry.
pub struct Setting {
    /// As a flag and in the file; the variable is derived from it.
    pub name: &'static str,
    /// Placeholder in `--help`.
    pub value: &'static str,
    /// Empty: unset.
    pub default: &'static str,
    /// Who reads it.
    pub commands: &'static str,
    /// Meaning, unit, when to change it. The first sentence stands in `-h`.
    pub doc: &'static str,
}

pub const SETTINGS: &[Setting] = &[
    Setting {
        name: "data-dir",
        value: "DIR",
        default: "data",
        commands: "serve, demo",
        doc: "Folder that holds everything the server keeps. It is created when missing and used by one \
              server at a time. Put it on a local disk; an accepted row is forced to this disk before it is \
              acknowledged.",
    },
    Setting {
        name: "http",
        value: "ADDR",
        default: "127.0.0.1:8080",
        commands: "serve, demo; clients without `server` connect to it",
        doc: "Address of the live page and the HTTP interface. Port 0 takes a free one, which the `ready` line \
              names. An address that other machines can reach needs `auth-token-file`.",
    },
    Setting {
        name: "pg",
        value: "ADDR",
        default: "127.0.0.1:4566",
        commands: "serve, demo, sql",
        doc: "Address of the Postgres interface, for psql and every Postgres driver (database dev, user root). \
              Port 0 takes a free one. An address that other machines can reach needs `auth-token-file`.",
    },
    Setting {
        name: "pack",
        value: "DIR",
        default: "",
        commands: "serve, demo",
        doc: "Folder with SQL files to apply at start: tables/*.sql, then views/*.sql in the order of their \
              dependencies. What exists with the same definition is left alone; what differs is reported and \
              not touched.",
    },
    Setting {
        name: "memory",
        value: "SIZE",
        default: "1GiB",
        commands: "serve, demo",
        doc: "Memory for queries, as 512MiB or 2GiB. A query that needs more fails by itself. State of views is \
              not counted yet.",
    },
    Setting {
        name: "workers",
        value: "N",
        default: "0",
        commands: "serve, demo",
        doc: "Number of shards of keyed state; 0 means one per core. Results do not depend on it.",
    },
    Setting {
        name: "checkpoint-interval",
        value: "DURATION",
        default: "10s",
        commands: "serve, demo",
        doc: "How often the state of tables and views is saved while rows come, as 500ms, 10s or 5m; 0 means only at \
              `CHECKPOINT`. A start opens what was saved last and reads the log from there. Under load it is saved \
              sooner, as soon as a second's work would have to be done again.",
    },
    Setting {
        name: "auth-token-file",
        value: "FILE",
        default: "",
        commands: "serve, demo, load, simulate, sql",
        doc: "File with access tokens, one a line; empty lines and lines that start with # are skipped. The \
              server then asks for one of them (HTTP: `Authorization: Bearer TOKEN`, Postgres: as password); \
              clients send the first. Without it everybody who reaches the address may do everything, which \
              is why only loopback addresses are allowed then.",
    },
    Setting {
        name: "server",
        value: "URL",
        default: "",
        commands: "load, simulate",
        doc: "Server to send rows to, as http://127.0.0.1:8080. When unset, the address in `http`.",
    },
    Setting {
        name: "log",
        value: "FILTER",
        default: "info",
        commands: "all",
        doc: "What is logged to standard error: error, warn, info, debug or trace, also per part, as \
              `info,engine=debug`.",
    },
    Setting {
        name: "log-format",
        value: "FORMAT",
        default: "text",
        commands: "all",
        doc: "text for people, json for one JSON object a line.",
    },
];

impl Setting {
    pub fn env(&self) -> String {
        format!("SHOPSTREAM_{}", self.name.replace('-', "_").to_uppercase())
    }
}

/// Where a value comes from.
#[derive(Clone, Debug, PartialEq)]
pub enum Origin {
    Flag(&'static str),
    Env(String),
    File(PathBuf, usize),
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Flag(name) => write!(f, "--{name}"),
            Origin::Env(name) => write!(f, "environment variable {name}"),
            Origin::File(path, line) => write!(f, "{}:{line}", path.display()),
            Origin::Default => f.write_str("default"),
        }
    }
}

/// Values as they were written, each with its origin. Unset settings without default are absent.
#[derive(Debug)]
pub struct Config {
    values: BTreeMap<&'static str, (String, Origin)>,
}

pub const FILE_DEFAULT: &str = "shopstream.toml";

impl Config {
    /// `env` looks up an environment variable; `file` is the `--config` flag.
    ///
    /// # Errors
    /// A file that is asked for but missing, that is not TOML, or that has a key nobody reads.
    pub fn load(
        flags: Vec<(&'static str, Option<String>)>,
        env: &dyn Fn(&str) -> Option<String>,
        file: Option<&Path>,
    ) -> Result<Config> {
        let asked = file.map(Path::to_path_buf).or_else(|| env("SHOPSTREAM_CONFIG").map(PathBuf::from));
        let path = asked.clone().unwrap_or_else(|| PathBuf::from(FILE_DEFAULT));
        let from_file = match std::fs::read_to_string(&path) {
            Ok(text) => read_file(&path, &text)?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && asked.is_none() => BTreeMap::new(),
            Err(error) => {
                return Err(Failure::usage(format!("read configuration file {}: {error}", path.display())));
            }
        };
        let mut values = BTreeMap::new();
        for setting in SETTINGS {
            let flag = flags.iter().find(|(name, value)| *name == setting.name && value.is_some());
            let value = if let Some((name, Some(value))) = flag {
                Some((value.clone(), Origin::Flag(name)))
            } else if let Some(value) = env(&setting.env()) {
                Some((value, Origin::Env(setting.env())))
            } else if let Some((value, line)) = from_file.get(setting.name) {
                Some((value.clone(), Origin::File(path.clone(), *line)))
            } else if !setting.default.is_empty() {
                Some((setting.default.to_string(), Origin::Default))
            } else {
                None
            };
            if let Some((value, origin)) = value.filter(|(value, _)| !value.is_empty()) {
                values.insert(setting.name, (value, origin));
            }
        }
        Ok(Config { values })
    }

    pub fn get(&self, name: &str) -> Option<&str> {
        debug_assert!(SETTINGS.iter().any(|s| s.name == name), "{name} is a setting");
        self.values.get(name).map(|(value, _)| value.as_str())
    }

    pub fn origin(&self, name: &str) -> Option<&Origin> {
        self.values.get(name).map(|(_, origin)| origin)
    }

    /// Reads a value with `parse`; the error names the setting and where the value stands.
    pub fn parse<T>(
        &self,
        name: &'static str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Result<Option<T>> {
        let Some((value, origin)) = self.values.get(name) else { return Ok(None) };
        match parse(value) {
            Ok(parsed) => Ok(Some(parsed)),
            Err(expected) => Err(Failure::usage(format!(
                "bad value \"{value}\" for setting {name} ({origin}): {expected}"
            ))),
        }
    }

    fn required<T>(&self, name: &'static str, parse: impl Fn(&str) -> Result<T, String>) -> Result<T> {
        self.parse(name, parse)?
            .ok_or_else(|| Failure::usage(format!("setting {name} is empty")).hint(format!("give --{name}")))
    }

    /// As a configuration file, each line with the origin of its value. Secrets are files, so none are shown.
    pub fn show(&self) -> String {
        let mut text = String::new();
        for setting in SETTINGS {
            let line = match self.values.get(setting.name) {
                Some((value, origin)) => format!("{} = {:<28} # {origin}", setting.name, quote_toml(value)),
                None => format!("# {} is unset", setting.name),
            };
            text.push_str(&line);
            text.push('\n');
        }
        text
    }
}

fn quote_toml(value: &str) -> String {
    toml::Value::String(value.to_string()).to_string()
}

/// Keys and values of a configuration file with their line numbers.
fn read_file(path: &Path, text: &str) -> Result<BTreeMap<String, (String, usize)>> {
    let line_of = |byte: usize| 1 + text[..byte.min(text.len())].matches('\n').count();
    let table = toml::de::DeTable::parse(text).map_err(|error| {
        let line = error.span().map_or(1, |span| line_of(span.start));
        Failure::usage(format!("{}:{line}: {}", path.display(), error.message()))
    })?;
    let mut values = BTreeMap::new();
    for (key, value) in table.get_ref().iter() {
        let line = line_of(key.span().start);
        let name = key.get_ref().as_ref();
        let known = SETTINGS.iter().any(|setting| setting.name == name);
        if !known {
            let failure = Failure::usage(format!("{}:{line}: unknown setting \"{name}\"", path.display()));
            return Err(failure.hint(match closest(name) {
                Some(meant) => format!("did you mean {meant}?"),
                None => "`shopstream config show` lists the settings".to_string(),
            }));
        }
        let value = match value.get_ref() {
            toml::de::DeValue::String(text) => text.to_string(),
            toml::de::DeValue::Integer(number) => number.to_string(),
            other => {
                return Err(Failure::usage(format!(
                    "{}:{line}: setting {name} is {}, expected a string or a whole number",
                    path.display(),
                    other.type_str()
                )));
            }
        };
        values.insert(name.to_string(), (value, line));
    }
    Ok(values)
}

/// The setting whose name looks most like `name`, if one does.
fn closest(name: &str) -> Option<&'static str> {
    let name = name.to_lowercase().replace('_', "-");
    SETTINGS
        .iter()
        .map(|setting| (strsim::damerau_levenshtein(&name, setting.name), setting.name))
        .min()
        .filter(|(distance, known)| *distance <= 1 + known.len() / 4)
        .map(|(_, known)| known)
}

/// What `serve` needs.
#[derive(Clone, Debug, PartialEq)]
pub struct ServerSettings {
    pub data_dir: PathBuf,
    pub http: SocketAddr,
    pub pg: SocketAddr,
    pub pack: Option<PathBuf>,
    pub memory_bytes: usize,
    pub workers: usize,
    /// Zero: only when asked.
    pub checkpoint_interval: Duration,
    /// Empty: no authentication.
    pub tokens: Vec<String>,
}

impl ServerSettings {
    /// # Errors
    /// Also when an address can be reached from other machines and no tokens are configured.
    pub fn new(config: &Config) -> Result<ServerSettings> {
        let settings = ServerSettings {
            data_dir: config.required("data-dir", |text| Ok(PathBuf::from(text)))?,
            http: config.required("http", parse_address)?,
            pg: config.required("pg", parse_address)?,
            pack: config.parse("pack", |text| Ok(PathBuf::from(text)))?,
            memory_bytes: config.required("memory", parse_size)?,
            workers: config.required("workers", |text| {
                text.parse::<usize>().ok().filter(|n| *n <= 1024).ok_or("expected a number up to 1024".into())
            })?,
            checkpoint_interval: config.required("checkpoint-interval", parse_duration)?,
            tokens: tokens(config)?,
        };
        for (name, address) in [("http", settings.http), ("pg", settings.pg)] {
            if settings.tokens.is_empty() && !address.ip().is_loopback() {
                return Err(Failure::usage(format!(
                    "{name} address {address} can be reached from other machines, and no authentication is \
                     configured"
                ))
                .hint(format!(
                    "give --auth-token-file FILE with a token of your choice in it, or use --{name} 127.0.0.1:{}",
                    address.port()
                )));
            }
        }
        Ok(settings)
    }
}

/// What `load`, `simulate` and `sql` need.
#[derive(Clone, Debug, PartialEq)]
pub struct ClientSettings {
    /// Without a slash at its end.
    pub server: String,
    pub token: Option<String>,
}

impl ClientSettings {
    pub fn new(config: &Config) -> Result<ClientSettings> {
        let server = match config.parse("server", parse_url)? {
            Some(server) => server,
            None => format!("http://{}", config.required("http", parse_address)?),
        };
        Ok(ClientSettings { server, token: tokens(config)?.into_iter().next() })
    }
}

fn tokens(config: &Config) -> Result<Vec<String>> {
    let Some(path) = config.get("auth-token-file") else { return Ok(vec![]) };
    let text = std::fs::read_to_string(path)
        .map_err(|error| Failure::usage(format!("read auth-token-file {path}: {error}")))?;
    let tokens: Vec<String> = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(str::to_string)
        .collect();
    if tokens.is_empty() {
        return Err(Failure::usage(format!("auth-token-file {path} holds no token"))
            .hint("write one token a line, for example the output of `openssl rand -hex 24`"));
    }
    if tokens.iter().any(|token| token.len() < TOKEN_BYTES_MIN) {
        return Err(Failure::usage(format!(
            "auth-token-file {path} holds a token shorter than {TOKEN_BYTES_MIN} characters"
        ))
        .hint("use for example the output of `openssl rand -hex 24`"));
    }
    Ok(tokens)
}

/// Shorter tokens can be guessed.
pub const TOKEN_BYTES_MIN: usize = 16;

fn parse_url(text: &str) -> Result<String, String> {
    if !text.starts_with("http://") {
        return Err("expected http://HOST:PORT".to_string());
    }
    Ok(text.trim_end_matches('/').to_string())
}

pub fn parse_address(text: &str) -> Result<SocketAddr, String> {
    let expected = || format!("expected HOST:PORT such as 127.0.0.1:8080, found {text}");
    text.to_socket_addrs().map_err(|_| expected())?.next().ok_or_else(expected)
}

/// `512MiB`, `2GiB`, `1.5GB`, `1073741824`.
pub fn parse_size(text: &str) -> Result<usize, String> {
    const UNITS: &[(&str, f64)] = &[
        ("kib", 1024.0),
        ("mib", 1048576.0),
        ("gib", 1073741824.0),
        ("tib", 1099511627776.0),
        ("kb", 1e3),
        ("mb", 1e6),
        ("gb", 1e9),
        ("tb", 1e12),
        ("k", 1024.0),
        ("m", 1048576.0),
        ("g", 1073741824.0),
        ("b", 1.0),
    ];
    let lower = text.trim().to_lowercase();
    let (number, unit) = UNITS
        .iter()
        .find_map(|(unit, bytes)| lower.strip_suffix(unit).map(|number| (number.trim(), *bytes)))
        .unwrap_or((lower.as_str(), 1.0));
    match number.parse::<f64>() {
        Ok(number) if number.is_finite() && number > 0.0 && number * unit < 1e15 => {
            Ok((number * unit) as usize)
        }
        _ => Err("expected a size such as 512MiB or 2GiB".to_string()),
    }
}

/// `500ms`, `10s`, `5m`, `1h30m`, `2d`; a bare number is seconds.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let expected = || "expected a duration such as 500ms, 30s, 5m or 1h30m".to_string();
    let text = text.trim();
    if let Ok(seconds) = text.parse::<u32>() {
        return Ok(Duration::from_secs(u64::from(seconds)));
    }
    let mut rest = text;
    let mut total = Duration::ZERO;
    if rest.is_empty() {
        return Err(expected());
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(expected)?;
        let number: u32 = rest[..digits].parse().map_err(|_| expected())?;
        rest = &rest[digits..];
        let letters = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let unit_ms: u64 = match &rest[..letters] {
            "ms" => 1,
            "s" => 1_000,
            "m" | "min" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return Err(expected()),
        };
        total += Duration::from_millis(u64::from(number) * unit_ms);
        rest = &rest[letters..];
    }
    Ok(total)
}

/// The manual page of the settings.
pub fn page() -> String {
    let mut page = String::from(
        "# Settings\n\n<!-- Printed from crates/shopstream/src/config.rs by `cargo xtask gen`; do not edit. -->\n\n\
         A setting can stand in four places. The first that has it wins:\n\n\
         1. the command line: `--data-dir /var/lib/shopstream`\n\
         2. the environment: `SHOPSTREAM_DATA_DIR=/var/lib/shopstream`\n\
         3. the configuration file, `shopstream.toml` in the current folder or the one named by `--config` or\n   \
         `SHOPSTREAM_CONFIG`: `data-dir = \"/var/lib/shopstream\"`\n\
         4. the default\n\n\
         An unknown key in the file is an error (exit code 2). `shopstream config show` prints every setting with its\n\
         value and where the value comes from.\n",
    );
    for setting in SETTINGS {
        let default =
            if setting.default.is_empty() { "unset".to_string() } else { format!("`{}`", setting.default) };
        page.push_str(&format!(
            "\n## {name}\n\n{doc}\n\n| flag | variable | default | read by |\n|---|---|---|---|\n\
             | `--{name} {value}` | `{env}` | {default} | {commands} |\n",
            name = setting.name,
            doc = setting.doc,
            value = setting.value,
            env = setting.env(),
            commands = setting.commands,
        ));
    }
    page
}

#[cfg(test)]
mod tests;

//! The command line: commands, flags, and the examples in `--help`.
//!
//! Flags that are also settings (config.rs) are `Option<String>` here and get their help text from the
//! table of settings, so that flag, environment variable, file and manual page say the same.

use std::path::PathBuf;

use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};

use crate::config::{self, SETTINGS};

#[derive(Debug, Parser)]
#[command(
    name = "shopstream",
    version,
    about = "A streaming database for online shops: events in, SQL views kept up to date, results out.",
    long_about = "A streaming database for online shops: events in, SQL views kept up to date, results out.\n\n\
        Examples:\n  \
        shopstream demo                                    a server with a simulated shop\n  \
        shopstream serve --data-dir data --pack packs/commerce\n  \
        shopstream load clicks.csv.gz --table user_behavior --columns user_id,item_id,category_id,behavior,ts\n  \
        shopstream sql -c 'SELECT * FROM hot_items'",
    after_help = "Every setting can stand on the command line, in a SHOPSTREAM_* environment variable or in \
        shopstream.toml,\nin this order of precedence. Exit codes: 0 ok, 1 failed, 2 usage or configuration, \
        3 data directory busy, 4 damaged data."
)]
pub struct Cli {
    /// Configuration file [default: shopstream.toml, if it exists] [env: SHOPSTREAM_CONFIG]
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    #[command(flatten)]
    pub logging: LoggingFlags,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Runs the server
    #[command(after_long_help = "Examples:\n  \
        shopstream serve --data-dir data --pack packs/commerce\n  \
        shopstream serve --http 127.0.0.1:9000 --pg 127.0.0.1:9001 --memory 4GiB\n  \
        shopstream serve --http 0.0.0.0:8080 --auth-token-file tokens.txt\n\n\
        Prints a line starting with `ready` per address once it answers. Stops on Ctrl-C or SIGTERM: accepted \
        rows are on disk before they are acknowledged, so nothing is lost either way.")]
    Serve(ServeFlags),
    /// Loads files into a table of a running server
    #[command(after_long_help = "Examples:\n  \
        shopstream load orders.ndjson --table orders\n  \
        shopstream load clicks.csv.gz --table user_behavior --columns user_id,item_id,category_id,behavior,ts\n  \
        shopstream load clicks.csv.gz --table user_behavior --speed 600 --time-column ts\n\n\
        A load may be repeated: every chunk carries an Idempotency-Key made of its content and number, so that \
        rows which arrived before a crash of either side are not counted twice. Keep --batch-rows the same when \
        repeating.")]
    Load(LoadFlags),
    /// Runs SQL on a running server and prints the results
    #[command(after_long_help = "Examples:\n  \
        shopstream sql -c 'SHOW TABLES'\n  \
        shopstream sql -f views.sql\n  \
        echo 'SELECT * FROM low_stock' | shopstream sql --format csv")]
    Sql(SqlFlags),
    /// Sends the events of a simulated shop to a running server
    #[command(after_long_help = "Examples:\n  \
        shopstream simulate --rate 200 --seed 7\n  \
        shopstream simulate --rate 1000 --duration 5m --report report.json\n  \
        shopstream simulate --rate 50 --duration 10s --start 2026-01-05T09:00:00Z --dry-run\n\n\
        The same seed, rate and duration give the same events. At the end it prints what it sent, to be \
        compared with what the views say.")]
    Simulate(SimulateFlags),
    /// Parses and plans the SQL files of a pack, without a server
    #[command(after_long_help = "Examples:\n  shopstream check packs/commerce")]
    Check {
        /// Folder with tables/*.sql and views/*.sql
        #[arg(value_name = "PACK")]
        pack: PathBuf,
    },
    /// Measures a named scenario
    Bench(BenchFlags),
    /// Shows the settings in force
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Prints a completion script for a shell
    #[command(
        after_long_help = "Examples:\n  shopstream completions bash > ~/.local/share/bash-completion/completions/shopstream"
    )]
    Completions { shell: clap_complete::Shell },
    /// Starts a server with a simulated shop, or with a file replayed
    #[command(after_long_help = "Examples:\n  shopstream demo\n  \
        shopstream demo --data UserBehavior.csv.gz --speed 600")]
    Demo(DemoFlags),
}

#[derive(Debug, Default, Args)]
pub struct LoggingFlags {
    #[arg(long, global = true)]
    pub log: Option<String>,
    #[arg(long, global = true)]
    pub log_format: Option<String>,
}

#[derive(Debug, Args)]
pub struct ServeFlags {
    #[arg(long)]
    pub data_dir: Option<String>,
    #[arg(long)]
    pub http: Option<String>,
    #[arg(long)]
    pub pg: Option<String>,
    #[arg(long)]
    pub pack: Option<String>,
    #[arg(long)]
    pub memory: Option<String>,
    #[arg(long)]
    pub workers: Option<String>,
    #[arg(long)]
    pub checkpoint_interval: Option<String>,
    #[arg(long)]
    pub auth_token_file: Option<String>,
}

/// How a client reaches the HTTP interface.
#[derive(Debug, Default, Args)]
pub struct ClientFlags {
    #[arg(long)]
    pub server: Option<String>,
    #[arg(long)]
    pub auth_token_file: Option<String>,
    /// Keep trying this long while the server does not answer, e.g. because it restarts
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = config::parse_duration)]
    pub retry_for: std::time::Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum FileFormat {
    Csv,
    Ndjson,
    Parquet,
}

#[derive(Debug, Args)]
pub struct LoadFlags {
    /// Files to load, in this order; .gz and .zst are unpacked, - is standard input
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// Table that receives the rows
    #[arg(long, value_name = "TABLE")]
    pub table: String,
    /// Format of the files [default: by the file's name]
    #[arg(long, value_enum)]
    pub format: Option<FileFormat>,
    /// Columns of a CSV file in their order [default: those that its first line names, else the table's]
    #[arg(long, value_name = "A,B,C", value_delimiter = ',', num_args = 1)]
    pub columns: Option<Vec<String>>,
    /// The first line of a CSV file names columns, even if none of them is the table's
    #[arg(long)]
    pub header: bool,
    /// Rows in a request
    #[arg(long, value_name = "N", default_value_t = 5000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub batch_rows: u32,
    /// Requests under way at once; above 1 chunks may overtake each other, which makes rows late in a table with a watermark
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=16))]
    pub parallel: u32,
    /// Replay: send rows when their time comes, N times as fast as they happened
    #[arg(long, value_name = "N", requires = "time_column", value_parser = parse_factor)]
    pub speed: Option<f64>,
    /// Column with the time of a row, for --speed
    #[arg(long, value_name = "COLUMN", requires = "speed")]
    pub time_column: Option<String>,
    /// Replay: move all times so that the file happens now, never ahead of the clock
    #[arg(long, requires = "speed")]
    pub rebase_time: bool,
    #[command(flatten)]
    pub client: ClientFlags,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ResultFormat {
    Table,
    Csv,
    Json,
}

#[derive(Debug, Args)]
pub struct SqlFlags {
    /// SQL to run; may be repeated
    #[arg(short = 'c', long = "command", value_name = "SQL")]
    pub commands: Vec<String>,
    /// File with SQL to run, after the -c ones
    #[arg(short = 'f', long = "file", value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// Address of the Postgres interface [default: the setting `pg`]
    #[arg(long, value_name = "ADDR")]
    pub server: Option<String>,
    #[arg(long)]
    pub auth_token_file: Option<String>,
    #[arg(long, value_enum, default_value = "table")]
    pub format: ResultFormat,
}

#[derive(Debug, Args)]
pub struct SimulateFlags {
    /// Rows a second, on average over a simulated day
    #[arg(long, value_name = "N", default_value_t = 200.0, value_parser = parse_factor)]
    pub rate: f64,
    /// Number that decides every random choice
    #[arg(long, value_name = "S", default_value_t = 1)]
    pub seed: u64,
    /// Stop after this much simulated time [default: go on until Ctrl-C]
    #[arg(long, value_name = "DURATION", value_parser = config::parse_duration)]
    pub duration: Option<std::time::Duration>,
    /// Simulated seconds per second
    #[arg(long, value_name = "X", default_value_t = 1.0, value_parser = parse_factor)]
    pub speed: f64,
    /// Time of the first event, as 2026-01-05T09:00:00Z [default: now, less --backfill]
    #[arg(long, value_name = "TIME")]
    pub start: Option<String>,
    /// Send this much of the past at once, so that the page has a history
    #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = config::parse_duration, conflicts_with = "start")]
    pub backfill: std::time::Duration,
    /// Items the shop sells
    #[arg(long, value_name = "N", default_value_t = 500, value_parser = clap::value_parser!(u32).range(50..=1_000_000))]
    pub items: u32,
    /// Share of events sent a second time with the same event_id
    #[arg(long, value_name = "RATIO", default_value_t = 0.01, value_parser = parse_ratio)]
    pub duplicate_ratio: f64,
    /// Share of events sent up to 2.5 seconds after they happened, within the watermark's 5 seconds
    #[arg(long, value_name = "RATIO", default_value_t = 0.1, value_parser = parse_ratio)]
    pub disorder_ratio: f64,
    /// Share of page views sent one to five minutes after they happened, behind the watermark
    #[arg(long, value_name = "RATIO", default_value_t = 0.002, value_parser = parse_ratio)]
    pub late_ratio: f64,
    /// Broken rows sent per good page view
    #[arg(long, value_name = "RATIO", default_value_t = 0.001, value_parser = parse_ratio)]
    pub broken_ratio: f64,
    /// Share of visitors whose clock is up to a second off
    #[arg(long, value_name = "RATIO", default_value_t = 0.05, value_parser = parse_ratio)]
    pub skew_ratio: f64,
    /// Write what was sent as JSON to this file
    #[arg(long, value_name = "FILE")]
    pub report: Option<PathBuf>,
    /// Print the rows (table, tab, JSON) instead of sending them; needs --duration
    #[arg(long, requires = "duration")]
    pub dry_run: bool,
    #[command(flatten)]
    pub client: ClientFlags,
}

#[derive(Debug, Args)]
pub struct BenchFlags {
    /// Name of the scenario
    pub name: String,
    /// Arguments of the scenario
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub arguments: Vec<String>,
}

#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Prints every setting, its value and where the value comes from
    Show,
    /// Prints the manual page of the settings as Markdown
    #[command(hide = true)]
    Page,
}

#[derive(Debug, Args)]
pub struct DemoFlags {
    /// Replay this file of user behaviour (CSV without header: user, item, category, behavior, time) instead of the simulator
    #[arg(long, value_name = "FILE")]
    pub data: Option<PathBuf>,
    /// How many times faster than it happened the file is replayed
    #[arg(long, value_name = "N", default_value_t = 600.0, value_parser = parse_factor)]
    pub speed: f64,
    /// Simulated rows a second
    #[arg(long, value_name = "N", default_value_t = 200.0, value_parser = parse_factor)]
    pub rate: f64,
    #[arg(long, value_name = "S", default_value_t = 1)]
    pub seed: u64,
    #[command(flatten)]
    pub serve: ServeFlags,
}

fn parse_factor(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if value.is_finite() && value > 0.0 => Ok(value),
        _ => Err("expected a number above 0".to_string()),
    }
}

fn parse_ratio(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if (0.0..=1.0).contains(&value) => Ok(value),
        _ => Err("expected a number from 0 to 1".to_string()),
    }
}

/// The whole command line, with the settings' documentation put into the help of their flags.
pub fn command() -> clap::Command {
    fn document(mut command: clap::Command) -> clap::Command {
        let ids: Vec<_> = command.get_arguments().map(|arg| arg.get_id().clone()).collect();
        let name = command.get_name().to_string();
        for setting in SETTINGS {
            let id = setting.name.replace('-', "_");
            // `sql --server` is a Postgres address and documents itself.
            let documented = name == "sql" && setting.name == "server";
            if documented || !ids.iter().any(|known| known.as_str() == id) {
                continue;
            }
            let default = if setting.default.is_empty() {
                String::new()
            } else {
                format!(" [default: {}]", setting.default)
            };
            let short =
                setting.doc.split_once(". ").map_or(setting.doc, |(first, _)| first).trim_end_matches('.');
            let tail = format!("{default} [env: {}]", setting.env());
            command = command.mut_arg(&id, |arg| {
                arg.value_name(setting.value)
                    .help(format!("{short}{tail}"))
                    .long_help(format!("{}{tail}", setting.doc))
            });
        }
        let children: Vec<String> = command.get_subcommands().map(|c| c.get_name().to_string()).collect();
        for child in children {
            command = command.mut_subcommand(child, document);
        }
        command
    }
    document(Cli::command())
}

/// Reads the arguments; prints help and usage errors by itself and exits as clap does (0 or 2).
pub fn parse(arguments: impl IntoIterator<Item = std::ffi::OsString>) -> Result<Cli, clap::Error> {
    let mut matches = command().try_get_matches_from(arguments)?;
    Cli::from_arg_matches_mut(&mut matches)
}

impl ServeFlags {
    pub fn settings(&self) -> Vec<(&'static str, Option<String>)> {
        vec![
            ("data-dir", self.data_dir.clone()),
            ("http", self.http.clone()),
            ("pg", self.pg.clone()),
            ("pack", self.pack.clone()),
            ("memory", self.memory.clone()),
            ("workers", self.workers.clone()),
            ("checkpoint-interval", self.checkpoint_interval.clone()),
            ("auth-token-file", self.auth_token_file.clone()),
        ]
    }
}

impl ClientFlags {
    pub fn settings(&self) -> Vec<(&'static str, Option<String>)> {
        vec![("server", self.server.clone()), ("auth-token-file", self.auth_token_file.clone())]
    }
}

impl Cli {
    /// The settings given as flags.
    pub fn settings(&self) -> Vec<(&'static str, Option<String>)> {
        let mut settings =
            vec![("log", self.logging.log.clone()), ("log-format", self.logging.log_format.clone())];
        settings.extend(match &self.command {
            Command::Serve(flags) => flags.settings(),
            Command::Demo(flags) => flags.serve.settings(),
            Command::Load(flags) => flags.client.settings(),
            Command::Simulate(flags) => flags.client.settings(),
            Command::Sql(flags) => vec![("auth-token-file", flags.auth_token_file.clone())],
            _ => vec![],
        });
        settings
    }
}

#[cfg(test)]
mod tests;

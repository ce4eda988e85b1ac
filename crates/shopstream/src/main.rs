//! The program: reads its settings, starts threads, and wires the crates together.
//!
//! In reading order: the command line ([`cli`]), the settings ([`config`]), how commands fail ([`failure`]); the
//! server ([`server`], [`pack`]); the clients [`load`], [`query`] and [`simulate`] over [`client`]; [`demo`] and
//! [`bench`].
//!
//! This is the only crate that reads the environment, and the only one that prints.

mod bench;
mod cli;
mod client;
mod config;
mod demo;
mod failure;
mod load;
mod logging;
mod pack;
mod query;
mod server;
mod simulate;
mod stop;

use std::process::ExitCode;

use crate::cli::{Cli, Command, ConfigCommand};
use crate::config::Config;
use crate::failure::Result;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = match cli::parse(std::env::args_os()) {
        Ok(cli) => cli,
        Err(error) => error.exit(),
    };
    match run(&cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("{failure}");
            failure.exit.into()
        }
    }
}

fn run(cli: &Cli) -> Result {
    if !matches!(cli.command, Command::Serve(_) | Command::Demo(_)) {
        end_quietly_on_closed_pipe();
    }
    let env = |name: &str| std::env::var(name).ok();
    let config = Config::load(cli.settings(), &env, cli.config.as_deref())?;
    logging::start(&config)?;
    match &cli.command {
        Command::Serve(_) => server::run(&config),
        Command::Load(flags) => load::run(flags, &config),
        Command::Sql(flags) => query::run(flags, &config),
        Command::Simulate(flags) => simulate::run(flags, &config),
        Command::Check { pack } => server::check(pack),
        Command::Bench(flags) => bench::run(flags),
        Command::Config(ConfigCommand::Show) => {
            print!("{}", config.show());
            Ok(())
        }
        Command::Config(ConfigCommand::Page) => {
            print!("{}", config::page());
            Ok(())
        }
        Command::Completions { shell } => {
            clap_complete::generate(*shell, &mut cli::command(), "shopstream", &mut std::io::stdout());
            Ok(())
        }
        Command::Demo(flags) => demo::run(flags, &config),
    }
}

/// `shopstream sql ... | head` ends like any other command of a pipe, without a panic about the closed pipe.
fn end_quietly_on_closed_pipe() {
    // SAFETY: sets a signal's disposition to its default before any thread is started.
    #[cfg(unix)]
    unsafe {
        libc::signal(libc::SIGPIPE, libc::SIG_DFL);
    }
}

//! `shopstream demo`: a server with a shop in it, in one command.
//!
//! Server and simulator (or replay) are child processes, as they would be in earnest. They are in process groups of
//! their own, so that Ctrl-C reaches this process only, which ends them in order: first who sends rows, then the
//! server. If this process is killed, the kernel ends them.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use crate::cli::DemoFlags;
use crate::config::Config;
use crate::failure::{Failure, Result};
use crate::stop;

/// Children have this long to end after they are told to.
const END_TIMEOUT: Duration = Duration::from_secs(12);
/// The page shows this much of the past from the beginning.
const BACKFILL: &str = "30m";

pub fn run(flags: &DemoFlags, config: &Config) -> Result {
    stop::listen()?;
    let program = std::env::current_exe().map_err(|error| Failure::io("find", "this program", &error))?;
    let data_dir = match &flags.serve.data_dir {
        Some(folder) => PathBuf::from(folder),
        None => fresh_folder()?,
    };
    let pack = match config.get("pack") {
        Some(pack) => PathBuf::from(pack),
        None => find_pack(&program)?,
    };
    let mut server = Command::new(&program);
    server.arg("serve").arg("--data-dir").arg(&data_dir).arg("--pack").arg(&pack);
    for name in ["http", "pg"] {
        server.arg(format!("--{name}")).arg(free_address(config.get(name).unwrap_or_default()));
    }
    for name in ["memory", "workers", "checkpoint-interval", "auth-token-file", "log-format"] {
        if let Some(value) = config.get(name) {
            server.arg(format!("--{name}")).arg(value);
        }
    }
    // People who watch a demo want to see what matters; --log shows more.
    let log = if config.origin("log") == Some(&crate::config::Origin::Default) {
        "warn"
    } else {
        config.get("log").unwrap_or("warn")
    };
    server.arg("--log").arg(log).stdout(Stdio::piped());
    let mut server = Offspring::start(server, "server")?;
    let result = with_server(&mut server, &program, flags, config, &data_dir);
    server.end();
    result
}

fn with_server(
    server: &mut Offspring,
    program: &Path,
    flags: &DemoFlags,
    config: &Config,
    data_dir: &Path,
) -> Result {
    let Some((page, psql)) = server.wait_ready()? else { return Ok(()) };
    println!("live page   {page}");
    println!("psql        {psql}");
    println!("data        {}", data_dir.display());
    println!("stop        Ctrl-C");

    let mut feeder = Command::new(program);
    let name = match &flags.data {
        Some(file) => {
            feeder.arg("load").arg(file).args(["--table", "user_behavior", "--time-column", "ts"]);
            feeder.args(["--columns", "user_id,item_id,category_id,behavior,ts", "--format", "csv"]);
            feeder.arg("--speed").arg(flags.speed.to_string());
            "replay"
        }
        None => {
            feeder.arg("simulate").arg("--rate").arg(flags.rate.to_string());
            feeder.arg("--seed").arg(flags.seed.to_string()).args(["--backfill", BACKFILL]);
            "simulator"
        }
    };
    feeder.arg("--server").arg(page.trim_end_matches('/'));
    if let Some(file) = config.get("auth-token-file") {
        feeder.arg("--auth-token-file").arg(file);
    }
    let mut feeder = Offspring::start(feeder, name)?;
    let mut fed = false;
    let result = loop {
        if stop::sleep(Duration::from_millis(100)) {
            break Ok(());
        }
        if let Some(status) = server.ended()? {
            break Err(Failure::failed(format!("the server ended ({status})")));
        }
        if let Some(status) = feeder.ended()?.filter(|_| !fed) {
            fed = true;
            if !status.success() {
                break Err(Failure::failed(format!("the {name} ended ({status})")));
            }
            println!("the {name} is done; the server goes on until Ctrl-C");
        }
    };
    feeder.end();
    result
}

/// A child process that does not outlive us.
struct Offspring {
    child: Child,
    name: &'static str,
}

impl Offspring {
    fn start(mut command: Command, name: &'static str) -> Result<Offspring> {
        keep_with_parent(&mut command);
        let child = command
            .stdin(Stdio::null())
            .spawn()
            .map_err(|error| Failure::io("start", format!("the {name}"), &error))?;
        Ok(Offspring { child, name })
    }

    /// The addresses in the `ready` lines; `None` when asked to stop before.
    fn wait_ready(&mut self) -> Result<Option<(String, String)>> {
        let stdout = self.child.stdout.take().ok_or_else(|| Failure::failed("the server has no output"))?;
        let (sender, lines) = channel();
        // Reads to the end, so that the server never writes into a closed pipe.
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(std::result::Result::ok) {
                let _ = sender.send(line);
            }
        });
        let (mut page, mut psql) = (None, None);
        while !stop::asked() {
            let line = match lines.recv_timeout(Duration::from_millis(100)) {
                Ok(line) => line,
                Err(RecvTimeoutError::Timeout) => continue,
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(
                        Failure::failed("the server ended before it was ready").hint("its message is above")
                    );
                }
            };
            if let Some(url) = line.strip_prefix("ready  http  ") {
                page = Some(url.to_string());
            } else if let Some(command) = line.strip_prefix("ready  psql  ") {
                psql = Some(command.to_string());
            }
            if let (Some(page), Some(psql)) = (&page, &psql) {
                return Ok(Some((page.clone(), psql.clone())));
            }
        }
        Ok(None)
    }

    fn ended(&mut self) -> Result<Option<std::process::ExitStatus>> {
        self.child.try_wait().map_err(|error| Failure::io("watch", format!("the {}", self.name), &error))
    }

    /// Asks the child to end and waits for it.
    fn end(&mut self) {
        let asked = Instant::now();
        if matches!(self.child.try_wait(), Ok(None)) {
            terminate(&self.child);
        }
        while matches!(self.child.try_wait(), Ok(None)) {
            if asked.elapsed() > END_TIMEOUT {
                eprintln!("the {} does not end and is killed", self.name);
                let _ = self.child.kill();
                let _ = self.child.wait();
                return;
            }
            #[allow(
                clippy::disallowed_methods,
                reason = "stop::sleep does not wait once a stop is asked for"
            )]
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

fn terminate(child: &Child) {
    if let Ok(pid) = i32::try_from(child.id()) {
        // SAFETY: a plain system call; the child is not yet waited for, so its number is not reused.
        unsafe { libc::kill(pid, libc::SIGTERM) };
    }
}

/// Own process group: signals of the terminal go to the parent. On Linux the kernel ends the child when the
/// parent dies, however it dies.
fn keep_with_parent(command: &mut Command) {
    use std::os::unix::process::CommandExt;
    command.process_group(0);
    #[cfg(target_os = "linux")]
    // SAFETY: prctl is async-signal-safe and touches nothing of ours between fork and exec.
    unsafe {
        command.pre_exec(|| match libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM) {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        });
    }
}

/// The address itself if it is free, else any free port of it: two demos may run side by side.
fn free_address(address: &str) -> String {
    match TcpListener::bind(address) {
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {
            let host = address.rsplit_once(':').map_or("127.0.0.1", |(host, _)| host);
            eprintln!("note: {address} is in use, taking another port");
            format!("{host}:0")
        }
        _ => address.to_string(),
    }
}

/// `target/demo-XXXXXX` in a checkout, a temporary folder elsewhere; it stays for a look afterwards.
fn fresh_folder() -> Result<PathBuf> {
    let parent = if Path::new("target").is_dir() { PathBuf::from("target") } else { std::env::temp_dir() };
    let folder = tempfile::Builder::new()
        .prefix("demo-")
        .tempdir_in(&parent)
        .map_err(|error| Failure::io("create a folder in", parent.display(), &error))?;
    Ok(folder.keep())
}

/// packs/commerce in the current folder or above the program.
fn find_pack(program: &Path) -> Result<PathBuf> {
    let here = PathBuf::from("packs/commerce");
    let candidates = program.ancestors().skip(1).map(|folder| folder.join("packs/commerce"));
    std::iter::once(here)
        .chain(candidates)
        .find(|folder| folder.is_dir())
        .ok_or_else(|| Failure::usage("packs/commerce is not found").hint("give --pack DIR"))
}

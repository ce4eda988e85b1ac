//! A server process of the built binary, on free ports.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

pub struct Server {
    child: Child,
    pub http: String,
    /// Port of the Postgres interface.
    pub pg: u16,
}

/// Where a server listens; kept over restarts by clients that know only one address.
#[derive(Clone, Copy)]
pub struct Ports {
    pub http: u16,
    pub pg: u16,
}

impl Ports {
    pub fn free() -> Ports {
        Ports { http: free_port(), pg: free_port() }
    }
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

impl Server {
    /// Starts with further arguments and waits until it says that it is ready.
    pub fn start_with(data_dir: &Path, arguments: &[&str]) -> Server {
        let ports = Ports::free();
        let mut command = Command::new(env!("CARGO_BIN_EXE_shopstream"));
        command.args(serve_arguments(data_dir, ports)).args(arguments);
        Server::spawn(command, ports).expect("the server ended before it was ready")
    }

    pub fn start_at(data_dir: &Path, ports: Ports) -> Server {
        let mut command = Command::new(env!("CARGO_BIN_EXE_shopstream"));
        command.args(serve_arguments(data_dir, ports));
        Server::spawn(command, ports).expect("the server ended before it was ready")
    }

    /// Runs a command that ends up as the server; `None` when it ends before it is ready.
    pub fn spawn(mut command: Command, ports: Ports) -> Option<Server> {
        let mut child = command
            .env_remove("SHOPSTREAM_CONFIG")
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let ready = lines.find(|l| l.as_ref().is_ok_and(|l| l.contains("psql")));
        if ready.is_none() {
            let _ = child.wait();
            return None;
        }
        // Keep reading, so that the server never waits for us.
        std::thread::spawn(move || lines.for_each(drop));
        Some(Server { child, http: format!("http://127.0.0.1:{}", ports.http), pg: ports.pg })
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Asks it to stop, and gives its exit code.
    pub fn stop(&mut self) -> Option<i32> {
        // SAFETY: a signal to a child that was not waited for yet.
        unsafe { libc::kill(self.child.id() as i32, libc::SIGTERM) };
        let until = Instant::now() + Duration::from_secs(15);
        while Instant::now() < until {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            std::thread::yield_now();
        }
        panic!("the server did not stop within 15 seconds");
    }
}

/// `serve --data-dir ...` for a command line.
pub fn serve_arguments(data_dir: &Path, ports: Ports) -> Vec<std::ffi::OsString> {
    let address = |port: u16| format!("127.0.0.1:{port}");
    let mut arguments: Vec<std::ffi::OsString> = vec!["serve".into(), "--data-dir".into(), data_dir.into()];
    for (name, port) in [("--http", ports.http), ("--pg", ports.pg)] {
        arguments.extend([name.into(), address(port).into()]);
    }
    arguments
}

/// The answer to a statement sent over HTTP.
pub fn sql(server: &str, statement: &str) -> serde_json::Value {
    let body = serde_json::json!({ "sql": statement }).to_string();
    let mut response = ureq::post(format!("{server}/v1/sql"))
        .header("content-type", "application/json")
        .send(&body)
        .unwrap_or_else(|e| panic!("{statement}: {e}"));
    serde_json::from_str(&response.body_mut().read_to_string().unwrap()).unwrap()
}

/// A number in the first row.
pub fn cell(answer: &serde_json::Value, column: usize) -> u64 {
    let cell = &answer["rows"][0][column];
    cell.as_u64().or_else(|| cell.as_str()?.parse().ok()).unwrap_or_else(|| panic!("{answer}"))
}

pub fn number(server: &str, statement: &str) -> u64 {
    cell(&sql(server, statement), 0)
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

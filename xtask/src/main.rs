//! Tasks of development: `cargo xtask tidy` and `cargo xtask gen`.
//!
//! `tidy` is also a test, so that `cargo test` is the judge. No dependencies, so that it builds in a second.

mod tidy;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

fn main() -> ExitCode {
    let task = std::env::args().nth(1).unwrap_or_default();
    let result = match task.as_str() {
        "tidy" => {
            let findings = tidy::findings(&root());
            if findings.is_empty() { Ok(()) } else { Err(findings.join("\n")) }
        }
        "gen" => generate(&root()),
        _ => {
            eprintln!("usage: cargo xtask <tidy | gen>");
            eprintln!("  tidy  file headers, file sizes, names, links between documents");
            eprintln!("  gen   files that are printed from code: docs/reference/config.md");
            return ExitCode::from(2);
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("{message}");
            ExitCode::FAILURE
        }
    }
}

fn root() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().expect("xtask is a folder of the workspace").to_path_buf()
}

/// Writes what the program prints about itself.
fn generate(root: &Path) -> Result<(), String> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_string());
    let output = Command::new(cargo)
        .current_dir(root)
        .args(["run", "-q", "-p", "shopstream", "--", "config", "page"])
        .output()
        .map_err(|error| format!("run shopstream: {error}"))?;
    if !output.status.success() {
        return Err(format!("run shopstream: {}", String::from_utf8_lossy(&output.stderr)));
    }
    let path = root.join("docs/reference/config.md");
    std::fs::write(&path, output.stdout).map_err(|error| format!("write {}: {error}", path.display()))
}

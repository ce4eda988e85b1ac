//! What a reader relies on and no compiler checks.

use std::path::{Path, PathBuf};

/// A file longer than this holds more than one thing.
const LINES_MAX: usize = 900;
/// Names that say nothing about their content.
const EMPTY_NAMES: [&str; 6] = ["utils.rs", "util.rs", "helpers.rs", "common.rs", "misc.rs", "mod.rs"];
const SKIPPED_FOLDERS: [&str; 5] = ["target", ".git", "node_modules", "dist", "work"];

/// Everything that is not tidy, as `file: finding`.
pub fn findings(root: &Path) -> Vec<String> {
    let mut files = vec![];
    collect(root, &mut files);
    files.sort();
    let mut findings = vec![];
    for path in &files {
        let shown = path.strip_prefix(root).unwrap_or(path).display().to_string();
        let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
        if !matches!(extension, "rs" | "sql" | "md") {
            continue;
        }
        let Ok(text) = std::fs::read_to_string(path) else {
            findings.push(format!("{shown}: is not readable as UTF-8"));
            continue;
        };
        let found = match extension {
            "rs" => rust(path, &text),
            "sql" => sql(&shown, &text),
            _ => links(path, &text),
        };
        findings.extend(found.into_iter().map(|finding| format!("{shown}: {finding}")));
    }
    findings.extend(summary(root, &files));
    findings
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        let name = entry.file_name().to_string_lossy().into_owned();
        if path.is_dir() {
            if !SKIPPED_FOLDERS.contains(&name.as_str()) {
                collect(&path, files);
            }
        } else {
            files.push(path);
        }
    }
}

fn rust(path: &Path, text: &str) -> Vec<String> {
    let mut findings = vec![];
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    // The tests of a file are what their name says.
    if !text.starts_with("//!") && name != "tests.rs" {
        findings.push("begins without a //! comment that says what it is".to_string());
    }
    let lines = text.lines().count();
    if lines > LINES_MAX {
        findings.push(format!("has {lines} lines, more than {LINES_MAX}: split it by what it is about"));
    }
    if EMPTY_NAMES.contains(&name.as_str()) {
        findings.push("has a name that says nothing about its content".to_string());
    }
    findings
}

fn sql(shown: &str, text: &str) -> Vec<String> {
    if shown.starts_with("packs") && !text.starts_with("-- ") {
        return vec!["begins without a comment that says which question it answers".to_string()];
    }
    vec![]
}

/// Relative links of a document whose target is not there.
fn links(path: &Path, text: &str) -> Vec<String> {
    let folder = path.parent().unwrap_or(path);
    let mut findings = vec![];
    let mut in_code = false;
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            in_code = !in_code;
        }
        if in_code {
            continue;
        }
        for target in targets(line) {
            let file = target.split('#').next().unwrap_or_default();
            let elsewhere = file.contains("://") || file.starts_with("mailto:");
            if !file.is_empty() && !elsewhere && !folder.join(file).exists() {
                findings.push(format!("links to {file}, which does not exist"));
            }
        }
    }
    findings
}

/// The `target` of each `[text](target)` of a line.
fn targets(line: &str) -> Vec<&str> {
    line.match_indices("](")
        .filter_map(|(at, mark)| line[at + mark.len()..].split_once(')').map(|(target, _)| target))
        .filter(|target| !target.contains(' '))
        .collect()
}

/// Pages of the book that its table of contents does not name.
fn summary(root: &Path, files: &[PathBuf]) -> Vec<String> {
    let docs = root.join("docs");
    let Ok(summary) = std::fs::read_to_string(docs.join("SUMMARY.md")) else {
        return vec!["docs/SUMMARY.md: is missing".to_string()];
    };
    let pages = files.iter().filter_map(|path| path.strip_prefix(&docs).ok());
    pages
        .filter(|page| page.extension().is_some_and(|extension| extension == "md"))
        .map(|page| page.display().to_string())
        .filter(|page| page != "SUMMARY.md" && !summary.contains(&format!("({page})")))
        .map(|page| format!("docs/{page}: is not in docs/SUMMARY.md"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_tree_is_tidy() {
        let findings = findings(&crate::root());
        assert!(findings.is_empty(), "{}", findings.join("\n"));
    }

    #[test]
    fn links_are_found() {
        assert_eq!(targets("see [a](b.md#c) and [d](https://e.f), not (g)"), ["b.md#c", "https://e.f"]);
        let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
        assert_eq!(links(&here, "[a](src/main.rs) [b](src/none.rs) [c](#d)").len(), 1);
        assert_eq!(links(&here, "```\n[b](src/none.rs)\n```\n").len(), 0);
    }

    #[test]
    fn rust_files_need_a_header_and_an_end() {
        assert_eq!(rust(Path::new("a.rs"), "//! It.\n").len(), 0);
        assert_eq!(rust(Path::new("utils.rs"), "fn f() {}\n").len(), 2);
        assert_eq!(rust(Path::new("a.rs"), &format!("//! It.\n{}", "\n".repeat(LINES_MAX))).len(), 1);
    }
}

//! What a reader would stumble over: documents that name files which are gone, file names that say
//! nothing, open ends.

use std::fs;
use std::path::Path;

use anyhow::{Result, bail};

use crate::shape::crates;
use crate::source::files_below;

/// Names that tell nothing about what is inside.
const EMPTY_NAMES: [&str; 8] =
    ["util", "utils", "common", "helper", "helpers", "core", "misc", "manager"];

/// Prints every finding and fails if there is one.
pub(crate) fn check(root: &Path) -> Result<()> {
    let mut findings = Vec::new();
    check_names(root, &mut findings)?;
    check_open_ends(root, &mut findings)?;
    check_references(root, &mut findings)?;
    for finding in &findings {
        println!("{finding}");
    }
    if !findings.is_empty() {
        bail!("{} things to tidy", findings.len());
    }
    println!("tidy");
    Ok(())
}

/// Every Rust file that somebody wrote.
fn rust_files(root: &Path) -> Result<Vec<std::path::PathBuf>> {
    let mut files = Vec::new();
    for name in crates(root)? {
        files.extend(files_below(&root.join(name), &["rs"])?);
    }
    Ok(files)
}

fn check_names(root: &Path, findings: &mut Vec<String>) -> Result<()> {
    for file in rust_files(root)? {
        let relative = file.strip_prefix(root)?;
        let says_nothing = relative.components().any(|component| {
            let name = component.as_os_str().to_string_lossy();
            let stem = name.strip_suffix(".rs").unwrap_or(&name);
            EMPTY_NAMES.contains(&stem)
        });
        if says_nothing {
            findings.push(format!("{}: a name that says nothing", relative.display()));
        }
    }
    Ok(())
}

fn check_open_ends(root: &Path, findings: &mut Vec<String>) -> Result<()> {
    // Put together here, so that this file is not its own finding.
    let marks = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("HO", "LD")];
    for file in rust_files(root)? {
        let text = fs::read_to_string(&file)?;
        for (number, line) in text.lines().enumerate() {
            let Some((_, comment)) = line.split_once("//") else { continue };
            let open = marks.iter().any(|mark| {
                comment
                    .split_whitespace()
                    .any(|word| word.trim_matches(|c: char| !c.is_alphanumeric()) == *mark)
            });
            if open && !comment.contains('#') {
                let place = file.strip_prefix(root)?.display();
                findings.push(format!("{place}:{}: an open end without an issue", number + 1));
            }
        }
    }
    Ok(())
}

/// The documents whose references are promises to the reader.
fn documents(root: &Path) -> Result<Vec<std::path::PathBuf>> {
    let mut documents: Vec<_> = ["README.md", "ARCHITECTURE.md", "docs/testing.md"]
        .iter()
        .map(|name| root.join(name))
        .collect();
    documents.extend(files_below(&root.join("docs/learn"), &["md"])?);
    for name in crates(root)? {
        documents.push(root.join(&name).join("README.md"));
        documents.extend(files_below(&root.join(&name).join("examples"), &["md"])?);
    }
    documents.retain(|path| path.is_file());
    Ok(documents)
}

fn check_references(root: &Path, findings: &mut Vec<String>) -> Result<()> {
    for document in documents(root)? {
        let text = fs::read_to_string(&document)?;
        let beside = document.parent().unwrap_or(root);
        for (number, line) in text.lines().enumerate() {
            for named in file_references(line) {
                if !root.join(named).exists() && !beside.join(named).exists() {
                    let place = document.strip_prefix(root)?.display();
                    findings.push(format!("{place}:{}: there is no {named}", number + 1));
                }
            }
        }
    }
    Ok(())
}

/// What stands in backticks or as a link's target and looks like the path of a file of ours.
fn file_references(line: &str) -> Vec<&str> {
    let quoted = line.split('`').skip(1).step_by(2);
    let linked = line.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    quoted
        .chain(linked)
        .filter_map(|text| text.split(['#', ':']).next())
        .filter(|text| {
            let path = Path::new(text);
            let known = path.extension().is_some_and(|extension| {
                ["rs", "md", "toml", "proto"].iter().any(|ours| extension == *ours)
            });
            known
                && text.contains('/')
                && !text.contains(['*', '<', '{', ' ', '…', '$'])
                && !path.is_absolute()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_paths_in_backticks_and_link_targets() {
        let line =
            "see `raft/src/log.rs`, `Term`, [formats](docs/formats.md#frames) and `NNNN-*.md`";
        assert_eq!(file_references(line), ["raft/src/log.rs", "docs/formats.md"]);
        assert_eq!(file_references("at `raft/src/quorum.rs:12`"), ["raft/src/quorum.rs"]);
        assert!(file_references("https://example.com/a.md and `a.rs`").is_empty());
        assert!(file_references("[there](https://example.com/a.md)").is_empty());
    }
}

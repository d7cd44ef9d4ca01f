//! The project's own chores: code generation, checks, shape.
//!
//! `cargo xtask COMMAND`, from anywhere in the workspace. Each command is a module; this file only
//! tells them apart.

#![expect(clippy::print_stdout, reason = "a command-line program answers on standard output")]

mod codegen;
mod shape;
mod source;
mod tidy;

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

const USAGE: &str = "\
Usage: cargo xtask COMMAND

Commands:
  codegen           write the Rust code of the .proto files
  codegen --check   fail if the committed code differs from what codegen would write
  shape             print sizes of functions and files, crate by crate
  tidy              check file names, file references in the documents, and open ends
  ci                run .ci/run, what the public workflow runs";

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let root = workspace_root()?;
    match arguments.as_slice() {
        ["codegen"] => codegen::write(&root),
        ["codegen", "--check"] => codegen::check(&root),
        ["shape"] => shape::print(&root),
        ["tidy"] => tidy::check(&root),
        ["ci"] => ci(&root),
        [] | ["help" | "--help" | "-h"] => {
            println!("{USAGE}");
            Ok(())
        }
        other => bail!("no such command: {}\n\n{USAGE}", other.join(" ")),
    }
}

/// The directory above this crate's own.
fn workspace_root() -> Result<PathBuf> {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    Ok(own.parent().context("xtask lies in the workspace")?.to_owned())
}

fn ci(root: &Path) -> Result<()> {
    let script = root.join(".ci/run");
    let status = Command::new(&script)
        .current_dir(root)
        .status()
        .with_context(|| format!("cannot run {}", script.display()))?;
    ensure!(status.success(), ".ci/run failed: {status}");
    Ok(())
}

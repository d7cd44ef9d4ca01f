//! A script file: comments, blocks of commands, and under each `---` the output that they gave when it was written.

use std::fmt::Write as _;
use std::path::PathBuf;

use super::command::{self, Scene};

/// One run of commands and its output.
struct Block {
    /// Comments and commands, as they stand.
    input: Vec<String>,
    output: String,
}

/// Where a script lies.
pub(crate) fn path(family: &str, name: &str) -> PathBuf {
    directory(family).join(name)
}

/// Where the scripts of a family lie.
pub(crate) fn directory(family: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/scripts").join(family)
}

/// Runs a script and compares its output with what the file says; with `UPDATE_SCRIPTS=1` writes it there instead.
pub(crate) fn check(family: &str, name: &str) {
    let path = path(family, name);
    let text = std::fs::read_to_string(&path)
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    assert!(text.starts_with("# "), "{family}/{name} does not begin by saying why it exists");
    let blocks = parse(&text);
    let mut scene = Scene::default();
    let mut rewritten = String::new();
    let mut differences = String::new();
    for block in &blocks {
        let output = run(&mut scene, &block.input, &format!("{family}/{name}"));
        if output != block.output {
            let Block { input, output: expected } = block;
            let input = input.join("\n");
            write!(differences, "\n{input}\n--- expected\n{expected}--- found\n{output}").unwrap();
        }
        for line in &block.input {
            rewritten.push_str(line);
            rewritten.push('\n');
        }
        write!(rewritten, "---\n{output}\n").unwrap();
    }
    if std::env::var_os("UPDATE_SCRIPTS").is_some() {
        write_file(&path, rewritten.trim_end());
        return;
    }
    assert!(
        differences.is_empty(),
        "{family}/{name} gave other output (UPDATE_SCRIPTS=1 rewrites it):\n{differences}"
    );
}

#[expect(clippy::disallowed_methods, reason = "scripts are real files")]
fn write_file(path: &std::path::Path, text: &str) {
    std::fs::write(path, format!("{text}\n")).unwrap();
}

/// Blocks are input lines up to `---`, then output lines up to an empty line.
fn parse(text: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut lines = text.lines();
    loop {
        let input: Vec<String> =
            lines.by_ref().take_while(|line| *line != "---").map(str::to_owned).collect();
        if !input.iter().any(|line| is_command(line)) {
            return blocks;
        }
        let mut output = String::new();
        for line in lines.by_ref().take_while(|line| !line.is_empty()) {
            output.push_str(line);
            output.push('\n');
        }
        blocks.push(Block { input, output });
    }
}

fn is_command(line: &str) -> bool {
    !line.trim().is_empty() && !line.starts_with('#')
}

fn run(scene: &mut Scene, input: &[String], script: &str) -> String {
    let mut output = String::new();
    for line in input.iter().filter(|line| is_command(line)) {
        let said =
            command::run(scene, line).unwrap_or_else(|error| panic!("{script}: {line}: {error}"));
        for text in said {
            output.push_str(text.trim_end());
            output.push('\n');
        }
    }
    if output.is_empty() {
        output.push_str("ok\n");
    }
    output
}

//! The program: what it shows, and what it keeps.
#![expect(clippy::disallowed_methods, reason = "it looks at what the program has left alone")]

use std::path::Path;
use std::process::{Command, Output};

fn run(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_event-sourcing")).args(arguments).output().unwrap()
}

/// What it shows on a directory.
fn shown_on(directory: &Path) -> String {
    let output = run(&["--data", directory.to_str().unwrap()]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_second_run_on_a_directory_goes_on_where_the_first_has_ended() {
    let parent = tempfile::tempdir().unwrap();
    let directory = parent.path().join("new").join("log");
    let first = shown_on(&directory);
    assert!(first.contains("has 0 events so far"), "{first}");
    assert!(first.contains("opened for Ada             account-ada@0, position 1"), "{first}");
    assert!(first.contains("recorded now, at position 4"), "{first}");
    let second = shown_on(&directory);
    assert!(second.contains("has 2012 events so far"), "{second}");
    assert!(second.contains("refused: the account is open already"), "{second}");
    assert!(second.contains("at version 1, position 2     €100.00"), "{second}");
    assert!(!second.contains("recorded now"), "{second}");
}

#[test]
fn memory_needs_no_directory_and_takes_none() {
    let output = run(&["--backend", "memory"]);
    assert!(output.status.success());
    assert!(String::from_utf8(output.stdout).unwrap().starts_with("The log is in memory."));
    let output = run(&["--backend", "memory", "--data", "here"]);
    assert!(!output.status.success());
    assert!(String::from_utf8(output.stderr).unwrap().contains("it takes no --data"));
}

#[test]
fn a_directory_that_holds_something_else_is_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file");
    std::fs::write(&file, "mine").unwrap();
    let output = run(&["--data", file.to_str().unwrap()]);
    assert!(!output.status.success());
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("could not be opened"), "{said}");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "mine");
}

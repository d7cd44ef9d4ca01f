//! An event store's directory, from the command line.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use event_sourcing::store::journal::{JournalStore, JournalStoreOptions};
use event_sourcing::{
    Append, EventStore as _, EventStoreExt as _, EventType, Expected, NewEvent, StreamName, Version,
};
use futures::executor::block_on;
use serde_json::{Value, json};

const LATTICE: &str = env!("CARGO_BIN_EXE_lattice");

fn run(noun: &[&str], directory: &Path, rest: &[&str]) -> Output {
    Command::new(LATTICE).args(noun).arg(directory).args(rest).output().unwrap()
}

fn text(output: &Output) -> String {
    let stderr = String::from_utf8_lossy(&output.stderr);
    format!("{}{stderr}", String::from_utf8_lossy(&output.stdout))
}

fn json_of(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", text(output)))
}

#[test]
fn events_are_appended_and_read() {
    let directory = tempfile::tempdir().unwrap();
    let store = &directory.path().join("store");
    let append = |rest: &[&str]| run(&["events", "append"], store, rest);
    let opened = append(&[
        "account-1",
        "account.opened",
        r#"{"owner":"ann"}"#,
        "--expect",
        "no-stream",
        "--label",
        "owner:ann",
    ]);
    assert_eq!((opened.status.code(), text(&opened)), (Some(0), "position 1, version 0\n".into()));
    let id = "5ad0a4c6-21d4-4b3c-8b1e-0e6a8f3b7c11";
    let deposit =
        ["account-1", "account.deposited", r#"{"cents":500}"#, "--id", id, "--expect", "0"];
    assert_eq!(text(&append(&deposit)), "position 2, version 1\n");
    // The answer was lost, and the writer asks again.
    assert_eq!(text(&append(&deposit)), "position 2, version 1, recorded before\n");
    let late = append(&["account-1", "account.closed", "{}", "--expect", "0"]);
    assert_eq!(late.status.code(), Some(6), "{}", text(&late));
    assert!(text(&late).contains("see the event at 2"), "{}", text(&late));
    let taken =
        append(&["account-2", "account.opened", "--fail-if-label", "owner:ann", "--after", "0"]);
    assert_eq!(taken.status.code(), Some(6), "{}", text(&taken));
    let no_json = append(&["account-2", "account.opened", "nothing"]);
    assert_eq!(no_json.status.code(), Some(1), "{}", text(&no_json));
    assert_eq!(append(&["", "account.opened"]).status.code(), Some(2));

    let read = |rest: &[&str]| run(&["events", "read"], store, rest);
    let stream = json_of(&read(&["account-1", "-o", "json"]));
    let events = stream["events"].as_array().unwrap();
    assert_eq!(events.len(), 2);
    assert_eq!(events[0]["data"], json!({ "owner": "ann" }));
    assert_eq!((&events[1]["id"], &events[1]["version"]), (&json!(id), &json!(1)));
    let lines = text(&read(&["-o", "jsonl", "--backward"]));
    let positions: Vec<Value> = lines
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["position"].clone())
        .collect();
    assert_eq!(positions, [2, 1]);
    let deposits = text(&read(&["--type", "account.deposited", "--from", "1"]));
    assert!(deposits.contains(r#"{"cents":500}"#) && !deposits.contains("opened"), "{deposits}");
    assert!(!text(&read(&["--label", "owner:bob"])).contains("account.opened"));
    assert_eq!(read(&["account-9"]).status.code(), Some(7));
    let tail = text(&run(&["events", "tail"], store, &["-n", "1"]));
    assert!(tail.contains("deposited") && !tail.contains("opened"), "{tail}");
    let stats = json_of(&run(&["events", "stats"], store, &["-o", "json"]));
    let stat = |name: &str| {
        let stats = stats["stats"].as_array().unwrap();
        stats.iter().find(|stat| stat["name"] == name).unwrap()["value"].clone()
    };
    assert_eq!((stat("head"), stat("account.opened")), (json!(2), json!(1)));
    assert_eq!(stat("chain").as_str().map(str::len), Some(64));
}

#[test]
fn streams_are_listed_with_what_was_decided_about_them() {
    let directory = tempfile::tempdir().unwrap();
    let store = JournalStore::open(&JournalStoreOptions::new(directory.path())).unwrap();
    let name = |name: &str| StreamName::new(name).unwrap();
    let event = || NewEvent::json(EventType::new("thing.happened").unwrap(), "{}");
    for stream in ["cut", "deleted", "whole"] {
        let events = [event(), event(), event()];
        block_on(store.append(Append::to(name(stream), Expected::NoStream, events))).unwrap();
    }
    block_on(store.truncate_before(name("cut"), Version(2))).unwrap();
    block_on(store.delete(name("deleted"), Expected::Any)).unwrap();
    // A directory belongs to one process at a time.
    let busy = run(&["events", "streams"], directory.path(), &[]);
    assert_eq!(busy.status.code(), Some(1), "{}", text(&busy));
    store.close();
    drop(store);

    let streams = json_of(&run(&["events", "streams"], directory.path(), &["-o", "json"]));
    let found: Vec<Value> = streams["streams"]
        .as_array()
        .unwrap()
        .iter()
        .map(|stream| json!([stream["stream"], stream["events"], stream["last"], stream["state"]]))
        .collect();
    let expected = json!([["cut", 1, 2, ""], ["deleted", 0, 2, "deleted"], ["whole", 3, 2, ""]]);
    assert_eq!(Value::from(found), expected);
    let system = text(&run(&["events", "streams"], directory.path(), &["--system"]));
    assert!(system.contains("$$cut"), "{system}");
    let some = text(&run(&["events", "streams"], directory.path(), &["--prefix", "wh"]));
    assert!(some.contains("whole") && !some.contains("cut"), "{some}");
}

#[test]
fn a_program_that_knows_too_little_is_told_so() {
    let directory = tempfile::tempdir().unwrap();
    let store = &directory.path().join("store");
    for (event_type, schema) in [("account.opened", "2"), ("account.closed", "1")] {
        let done = run(&["events", "append"], store, &["a", event_type, "{}", "--schema", schema]);
        assert!(done.status.success(), "{}", text(&done));
    }
    let check = |known: &str| {
        let file = directory.path().join("known.json");
        fs::write(&file, known).unwrap();
        run(&["check", "schema"], store, &["--known", file.to_str().unwrap(), "-o", "json"])
    };
    let enough = check(r#"{"account.opened":3,"account.closed":1}"#);
    assert_eq!((enough.status.code(), json_of(&enough)["gaps"].clone()), (Some(0), json!(0)));
    let gaps = check(r#"{"account.opened":1}"#);
    assert_eq!((gaps.status.code(), json_of(&gaps)["gaps"].clone()), (Some(9), json!(2)));
    assert_eq!(check("[]").status.code(), Some(1));
    let alone = run(&["check", "schema"], store, &[]);
    assert_eq!(alone.status.code(), Some(0));
    assert!(text(&alone).contains("account.opened  2"), "{}", text(&alone));
}

#[test]
fn damage_is_reported_with_its_place() {
    let directory = tempfile::tempdir().unwrap();
    let store = &directory.path().join("store");
    for number in 0..20 {
        let data = format!(r#"{{"number":{number}}}"#);
        assert!(run(&["events", "append"], store, &["s", "counted", &data]).status.success());
    }
    let sound = run(&["check", "events"], store, &[]);
    assert_eq!(sound.status.code(), Some(0), "{}", text(&sound));
    assert!(text(&sound).contains("20 events") && text(&sound).ends_with("\nsound\n"));

    let log = fs::read_dir(store.join("log")).unwrap().map(|entry| entry.unwrap().path());
    let segment =
        log.filter(|path| path.extension().is_some_and(|end| end == "seg")).min().unwrap();
    let mut bytes = fs::read(&segment).unwrap();
    let at = bytes.windows(12).position(|window| window == br#"{"number":3}"#).unwrap();
    bytes[at + 10] = b'4';
    fs::write(&segment, bytes).unwrap();
    let damaged = run(&["check", "events"], store, &["-o", "json"]);
    assert_eq!(damaged.status.code(), Some(9), "{}", text(&damaged));
    let report = json_of(&damaged);
    assert_eq!((&report["sound"], &report["events"]), (&json!(false), &json!(19)));
    assert!(report["problems"].to_string().contains('4'), "{report}");
    // What is around it can be read.
    let behind = text(&run(&["events", "read"], store, &["--from", "5"]));
    assert!(behind.contains(r#"{"number":19}"#), "{behind}");
    let refused = run(&["events", "append"], store, &["s", "counted"]);
    assert_eq!(refused.status.code(), Some(1), "{}", text(&refused));
}

/// Every file below a directory, with what is in it.
fn files(directory: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            let content = fs::read(&path).unwrap();
            found.insert(path, content);
        }
    }
    found
}

#[test]
fn looking_at_a_store_leaves_it_as_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let store = &directory.path().join("store");
    for number in 0..3 {
        let data = format!(r#"{{"number":{number}}}"#);
        assert!(run(&["events", "append"], store, &["s", "counted", &data]).status.success());
    }
    // A crash has left an append that nobody was answered, and a file that was being made.
    let segment = store.join("log/00000000000000000001.seg");
    let mut bytes = fs::read(&segment).unwrap();
    let end = bytes.iter().rposition(|byte| *byte != 0).unwrap();
    bytes[end + 9..end + 13].copy_from_slice(b"torn");
    fs::write(&segment, bytes).unwrap();
    fs::write(store.join("index/00000000000000000009.idx.tmp"), "half of it").unwrap();
    let before = files(store);

    let check = run(&["check", "events"], store, &[]);
    assert_eq!(check.status.code(), Some(0), "{}", text(&check));
    assert!(text(&check).contains("torn at the end: ") && text(&check).ends_with("\nsound\n"));
    let report = json_of(&run(&["check", "events"], store, &["-o", "json"]));
    assert!(report["torn_bytes"].as_u64().unwrap() > 0, "{report}");
    for noun in
        [["check", "schema"], ["events", "read"], ["events", "streams"], ["events", "stats"]]
    {
        assert_eq!(run(&noun, store, &[]).status.code(), Some(0));
    }
    assert_eq!(files(store), before);

    assert!(run(&["events", "append"], store, &["s", "counted"]).status.success());
    let check = run(&["check", "events"], store, &[]);
    assert!(
        !text(&check).contains("torn") && text(&check).contains("4 events"),
        "{}",
        text(&check)
    );
}

#[test]
fn looking_makes_no_store() {
    let directory = tempfile::tempdir().unwrap();
    for noun in [["events", "read"], ["events", "stats"], ["check", "events"]] {
        let none = run(&noun, directory.path(), &[]);
        assert_eq!(none.status.code(), Some(7), "{}", text(&none));
    }
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
}

//! The query side, and handlers that are given what was meant instead of bytes.

#![expect(clippy::disallowed_methods, reason = "the edge is tested as it runs")]

use std::time::Duration;

use event_sourcing::clock::SystemClock;
use event_sourcing::cqrs::{AnswerError, Answers, Question};
use event_sourcing::projection::{MemorySink, SinkError, Worker};
use event_sourcing::testing::projected;
use event_sourcing::{Codec, DomainEvent, EventContent, domain_events};
use serde::{Deserialize, Serialize};

use super::*;

struct SumOf(&'static str);

impl Question for SumOf {
    type Answer = Option<u64>;

    fn answer(&self, view: &View) -> Result<Option<u64>, SinkError> {
        view.get(&SUMS, self.0)
    }
}

#[test]
fn a_question_is_answered_from_what_its_asker_has_written() {
    let (store, _) = store();
    let sink: Arc<dyn Sink> = Arc::new(MemorySink::new());
    let log: Arc<dyn EventStore> = store.clone();
    let time = Arc::new(SystemClock);
    let (worker, handle) = Worker::new(log, Arc::clone(&sink), sums("1"), time).unwrap();
    let answers = Answers::new(ReadModel::new(sink, "sums"), handle.clone());
    assert_eq!(answers.ask(&SumOf("s-1")).unwrap().answer, None);
    let position = append(&*store, &[("s-1", "added", 5)]);
    let early = block_on(answers.ask_after(SumOf("s-1"), position, Duration::from_millis(10)));
    assert!(matches!(early, Err(AnswerError::Wait(_))), "nobody is at work yet: {early:?}");
    let running = std::thread::spawn(|| worker.run_blocking());
    let bound = Duration::from_secs(20);
    for number in 1..20 {
        let position = append(&*store, &[("s-1", "added", 1)]);
        let answer = block_on(answers.ask_after(SumOf("s-1"), position, bound)).unwrap();
        assert_eq!((answer.answer, answer.position), (Some(5 + number), position));
    }
    handle.stop();
    running.join().unwrap().unwrap();
}

#[derive(Debug, Serialize, Deserialize)]
struct Opened {
    owner: String,
}

#[derive(Debug, Serialize, Deserialize)]
struct Closed {}

impl EventContent for Opened {
    const TYPE: &'static str = "opened";
}

impl EventContent for Closed {
    const TYPE: &'static str = "closed";
}

domain_events! {
    /// What happens to a door.
    #[derive(Debug)]
    enum Door {
        Opened(Opened),
        Closed(Closed),
    }
}

#[test]
fn handlers_are_given_contents_in_any_format() {
    const OWNERS: Table<str, String> = Table::new("owners");
    let one_type = Projection::new("doors", "1").on_content(|tx, opened: &Opened, event| {
        Ok(tx.put(&OWNERS, event.stream.as_str(), &opened.owner)?)
    });
    let all_types = Projection::new("doors", "1").on_domain(|tx, door: &Door, event| match door {
        Door::Opened(opened) => Ok(tx.put(&OWNERS, event.stream.as_str(), &opened.owner)?),
        Door::Closed(_) => {
            tx.remove(&OWNERS, event.stream.as_str());
            Ok(())
        }
    });
    let events = || {
        let opened =
            |owner: &str, codec| Door::Opened(Opened { owner: owner.to_owned() }).encode(codec);
        let closed = Door::Closed(Closed {}).encode(Codec::Json);
        [
            ("a", opened("ada", Codec::Json).unwrap()),
            ("b", opened("bob", Codec::Postcard).unwrap()),
            ("a", closed.unwrap()),
        ]
    };
    let view = projected(one_type, events());
    assert_eq!(view.get(&OWNERS, "a").unwrap().as_deref(), Some("ada"));
    assert_eq!(view.get(&OWNERS, "b").unwrap().as_deref(), Some("bob"));
    let view = projected(all_types, events());
    assert_eq!(view.scan(&OWNERS, 9).unwrap(), [("b".to_owned(), "bob".to_owned())]);
}

//! What a page says, and what it does not let others say.

use super::*;
use crate::check::{Ask, History, Limits, Register, Reply, Verdict, linearizable};

fn ms(at: u64) -> Duration {
    Duration::from_millis(at)
}

/// A read of what was there before an acknowledged write.
fn stale_read() -> Story {
    let mut history = History::new();
    let write = history.call(2, ms(100), Ask::Write(4));
    history.done(write, ms(150), Reply::Done);
    let over = history.call(1, ms(1_100), Ask::Write(7));
    let lost = history.call(2, ms(1_150), Ask::Write(9));
    history.done(over, ms(1_198), Reply::Done);
    let read = history.call(3, ms(1_200), Ask::Read);
    history.done(read, ms(1_204), Reply::Value(4));
    history.gave_up(lost, ms(1_300));
    let Verdict::Violation(why) = linearizable(&Register, &history, Limits::default()) else {
        panic!("4 was overwritten")
    };
    Story::of(&Register, &history, &why)
}

#[test]
fn the_sentence_says_who_read_what_although_what_was_acknowledged() {
    let story = stale_read();
    assert_eq!(
        story.sentence,
        "Client 3 read x = 4 at 1.204 s, although client 1 wrote x = 7, acknowledged at 1.198 s, before client 3 \
         asked (at 1.200 s)."
    );
    let reasons = [
        "The answer was right after client 2 wrote x = 4, until client 1 wrote x = 7, acknowledged at 1.198 s.",
        "With x = 7 (after client 1 wrote x = 7, acknowledged at 1.198 s) the answer would have been another.",
        "What it could also have met, and where the answer would have been another: x = 9.",
    ];
    assert_eq!(story.reasons, reasons);
    let looks: Vec<Look> = story.bars.iter().map(|bar| bar.look).collect();
    assert_eq!(looks, [Look::Fits(1), Look::Fits(2), Look::Open(None), Look::Impossible]);
    assert_eq!(
        story.bars[1].detail.join("; "),
        "client 1 wrote x = 7; called at 1.100 s; answered at 1.198 s; place 2 in the order: x = 4 before, x = 7 after"
    );
}

#[test]
fn a_page_stands_alone_and_shows_every_operation() {
    let spans = |label: &str| {
        let span =
            |from, until| Span { column: "n1".to_owned(), label: label.to_owned(), from, until };
        vec![span(ms(0), None), span(ms(1_150), Some(ms(1_201))), span(ms(1_160), Some(ms(1_160)))]
    };
    let page = Page {
        title: "Seed 7".to_owned(),
        found: "linearizability: a stale read".to_owned(),
        story: stale_read(),
        facts: vec![("replay".to_owned(), "simulate --seed 7".to_owned())],
        faults: spans("crash"),
        leaders: spans("leads"),
    };
    let html = page.html();
    for part in ["Client 3 read x = 4 at 1.204 s", "read → 4", "write 9", "crash", "leads"] {
        assert!(html.contains(part), "{part}");
    }
    assert_eq!(html.matches("class=\"op fits\" tabindex").count(), 2);
    assert_eq!(html.matches("class=\"op impossible\" tabindex").count(), 1);
    for foreign in ["<script", "http:", "https:", "src=", "url(", "@import", "<link", " on"] {
        let found = html.find(foreign).filter(|_| foreign != " on");
        assert_eq!(found, None, "{foreign}");
    }
    let elements = |name: &str| {
        (
            html.matches(&format!("<{name}>")).count() + html.matches(&format!("<{name} ")).count(),
            html.matches(&format!("</{name}>")).count(),
        )
    };
    for name in ["div", "span", "b", "bdi", "ul", "li", "p", "table", "tr", "td", "dl", "main"] {
        let (opened, closed) = elements(name);
        assert_eq!(opened, closed, "{name}");
    }
    for tip in
        ["n1 crash, from 1.150 s to 1.201 s", "n1 crash, at 1.160 s", "n1 leads, from 0.000 s on"]
    {
        assert!(html.contains(tip), "{tip}");
    }
}

#[test]
fn hostile_values_stay_text() {
    let hostile = "\"><script>alert(1)</script><img src=x onerror='x'>&amp;\u{202e}\u{7}";
    let mut story = stale_read();
    story.sentence = hostile.to_owned();
    story.reasons = vec![hostile.to_owned()];
    for bar in &mut story.bars {
        bar.label = hostile.repeat(100);
        bar.detail = vec![hostile.to_owned()];
    }
    let (column, label) = (hostile.to_owned(), hostile.to_owned());
    let span = Span { column, label, from: ms(0), until: None };
    let page = Page {
        title: hostile.to_owned(),
        found: hostile.to_owned(),
        story,
        facts: vec![(hostile.to_owned(), hostile.to_owned())],
        faults: vec![span.clone()],
        leaders: vec![span],
    };
    let html = page.html();
    assert!(!html.contains("<script") && !html.contains("<img") && !html.contains("onerror='"));
    assert!(!html.contains('\u{202e}') && !html.contains('\u{7}'));
    assert!(html.contains("&quot;&gt;&lt;script&gt;alert(1)"), "it is shown");
    assert!(html.len() < 60_000, "and cut: {}", html.len());
}

#[test]
fn a_page_of_nothing_is_a_page() {
    let html = Page { found: "progress: nothing".to_owned(), ..Page::default() }.html();
    assert!(html.contains("<h1>progress: nothing</h1>") && html.contains("No client had asked"));
}

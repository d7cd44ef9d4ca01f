//! The format of a trace, fixed.
#![cfg(test)]

use lattice_trace::{
    Cause, Envelope, LINE_LENGTH_MAX, Map, ReadError, TraceReader, TraceWriter, VERSION, kind,
};

fn event(seq: u64, kind: &str) -> Envelope<'_, Map<String, lattice_trace::Value>> {
    let fields = Map::from_iter([("term".to_owned(), 3.into()), ("for".to_owned(), "n2".into())]);
    let cause = Cause { node: 2, seq: 9 };
    Envelope { v: VERSION, seq, node: 1, t_mono_ns: 150, t_wall: 1_700, cause, kind, fields }
}

#[test]
fn the_names_of_the_kinds_are_fixed() {
    assert_eq!(
        kind::ALL.join(" "),
        "role term vote message_sent message_delivered message_dropped appended truncated \
         committed applied snapshot membership ring gossip cache event projection fault process \
         client_invoke client_ok client_fail client_info"
    );
}

#[test]
fn an_event_is_one_line_of_json() {
    let mut writer = TraceWriter::new(Vec::new(), 1_000);
    writer.write(&event(7, kind::VOTE)).unwrap();
    let text = String::from_utf8(writer.finish().unwrap()).unwrap();
    assert_eq!(
        text,
        "{\"v\":1,\"seq\":7,\"node\":1,\"t_mono_ns\":150,\"t_wall\":1700,\
         \"cause\":{\"node\":2,\"seq\":9},\"kind\":\"vote\",\"for\":\"n2\",\"term\":3}\n"
    );
}

#[test]
fn what_was_written_is_read_back() {
    let mut writer = TraceWriter::new(Vec::new(), 10_000);
    for seq in 1..=3 {
        writer.write(&event(seq, kind::TERM)).unwrap();
    }
    let bytes = writer.finish().unwrap();
    let records: Vec<_> = TraceReader::new(bytes.as_slice()).map(Result::unwrap).collect();
    assert_eq!(records.len(), 3);
    assert_eq!(records[2].seq, 3);
    assert_eq!(records[2].cause, Cause { node: 2, seq: 9 });
    assert_eq!(records[2].fields["for"], "n2");
}

#[test]
fn a_writer_stops_at_its_limit_and_counts_what_it_dropped() {
    let mut writer = TraceWriter::new(Vec::new(), 250);
    for seq in 1..=5 {
        writer.write(&event(seq, kind::TERM)).unwrap();
    }
    assert_eq!(writer.dropped(), 3);
    let bytes = writer.finish().unwrap();
    assert!(bytes.len() <= 250);
    assert_eq!(TraceReader::new(bytes.as_slice()).filter(Result::is_ok).count(), 2);
}

#[test]
fn a_bad_line_is_an_error_that_names_it() {
    let mut reader = TraceReader::new(&b"\n{\"v\":1}\n"[..]);
    assert!(matches!(reader.next(), Some(Err(ReadError::Malformed { line: 2, .. }))));
    assert!(reader.next().is_none());

    let other = "{\"v\":2,\"seq\":1,\"node\":1,\"t_mono_ns\":0,\"t_wall\":0,\
                 \"cause\":{\"node\":0,\"seq\":0},\"kind\":\"term\"}";
    let error = TraceReader::new(other.as_bytes()).next().unwrap().unwrap_err();
    assert_eq!(error.to_string(), "line 1 has version 2, and only 1 is known");

    let long = vec![b'x'; usize::try_from(LINE_LENGTH_MAX).unwrap() + 1];
    let error = TraceReader::new(long.as_slice()).next().unwrap();
    assert!(matches!(error, Err(ReadError::TooLong { line: 1 })));
}

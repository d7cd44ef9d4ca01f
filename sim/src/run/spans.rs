//! The faults of a run as spans of time, for the page of a violation: those of its schedule, and the nodes that ended
//! themselves.

use std::collections::BTreeMap;
use std::time::Duration;

use lattice_trace::kind;

use crate::check::Band;
use crate::fault::{Fault, Schedule};
use crate::process::{Address, Process};
use crate::world::World;

/// The faults of a schedule, which end when everything is healed, and the times in which nodes had ended themselves as
/// far as the trace tells of them.
pub(super) fn faults<P: Process>(world: &World<P>, schedule: &Schedule) -> Vec<Band> {
    let mut spans: Vec<Band> = schedule.iter().flat_map(spans_of).collect();
    let mut down: BTreeMap<u64, usize> = BTreeMap::new();
    let mut healed = Duration::MAX;
    for record in world.records() {
        let detail = record.fields.get("detail").and_then(|detail| detail.as_str());
        let at = record.fields.get("at_ns").and_then(|at| at.as_u64()).unwrap_or_default();
        let at = Duration::from_nanos(at);
        match (record.kind, detail.unwrap_or_default()) {
            (kind::FAULT, "heal") => healed = at,
            (kind::PROCESS, "start") => {
                if let Some(span) = down.remove(&record.node) {
                    spans[span].until = Some(at);
                }
            }
            (kind::PROCESS, detail) if detail.starts_with("stopped: ") => {
                down.insert(record.node, spans.len());
                let column = Address(record.node).to_string();
                spans.push(Band { column, label: detail.to_owned(), from: at, until: None });
            }
            _ => {}
        }
    }
    for span in &mut spans {
        span.until = span.until.map(|until| until.min(healed.max(span.from)));
    }
    spans
}

/// A fault, on each node that it hits or on the network.
fn spans_of(fault: &Fault) -> Vec<Band> {
    let mut label = fault.kind.to_string();
    for (from, to) in &fault.cuts {
        label.push_str(&format!(" {from}→{to}"));
    }
    let (from, until) = (fault.at, Some(fault.at.saturating_add(fault.lasts)));
    let span = |column: String| Band { column, label: label.clone(), from, until };
    match fault.nodes.as_slice() {
        [] => vec![span("network".to_owned())],
        nodes => nodes.iter().map(|node| span(node.to_string())).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::FaultKind;
    use crate::process::{Context, Event};
    use crate::recorder::TraceKeep;
    use crate::world::WorldOptions;

    /// Ends itself as soon as its timer rings.
    struct Mortal(bool);

    impl Process for Mortal {
        type Message = ();

        fn handle(&mut self, event: Event<()>, context: &mut Context<'_, ()>) {
            if event == Event::Timer {
                context.stop("it was time");
            }
        }

        fn deadline(&self) -> Option<Duration> {
            self.0.then_some(Duration::ZERO)
        }
    }

    #[test]
    fn faults_last_until_their_end_and_those_who_stop_until_they_start() {
        let ms = Duration::from_millis;
        let keep = TraceKeep::Last(1_000);
        let mut world = World::new(WorldOptions { keep, ..WorldOptions::new(1) });
        world.add(Address(1), |_, boot| Mortal(boot.boot == 1));
        world.run_until(ms(100));
        world.restart(Address(1));
        world.run_until(ms(1_000));
        world.note_fault(Address(0), "heal");
        let fault = |at, kind, lasts| Fault { lasts, ..Fault::new(at, kind) };
        let mut schedule = Schedule::default();
        schedule.push(fault(ms(200), FaultKind::Loss, ms(300)));
        schedule.push(fault(ms(900), FaultKind::PartitionFull, ms(5_000)));
        schedule[1].cuts = vec![(Address(1), Address(2))];
        schedule.push(fault(ms(400), FaultKind::SyncError, Duration::ZERO));
        schedule[2].nodes = vec![Address(1)];
        let spans = faults(&world, &schedule);
        let told: Vec<(&str, &str, Duration, Option<Duration>)> = spans
            .iter()
            .map(|span| (span.column.as_str(), span.label.as_str(), span.from, span.until))
            .collect();
        assert_eq!(
            told,
            [
                ("network", "loss", ms(200), Some(ms(500))),
                ("network", "partition-full n1→n2", ms(900), Some(ms(1_000))),
                ("n1", "sync-error", ms(400), Some(ms(400))),
                ("n1", "stopped: it was time", ms(0), Some(ms(100))),
            ]
        );
    }
}

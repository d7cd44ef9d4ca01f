//! Numbers without a gap (dcb.events): every invoice has the number after the last one's, however many are written at once.
//!
//! A sequence of a database leaves gaps where a transaction failed; the tax office does not like them. Here the number is decided on the
//! invoices there are, and if somebody else was faster it is decided again.
//!
//! `cargo run -p event-sourcing --example dcb_invoice_number`
#![expect(clippy::print_stdout, reason = "an example that prints what happens")]

use std::convert::Infallible;
use std::error::Error;

use event_sourcing::condition::{Query, QueryItem};
use event_sourcing::error::InvalidName;
use event_sourcing::snapshot::Snapshots;
use event_sourcing::testing::given;
use event_sourcing::{
    Boundary, Decider, DomainStore, EventContent, Labels, MemoryStore, domain_events,
};
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct InvoiceWritten {
    number: u64,
    cents: u64,
}

impl EventContent for InvoiceWritten {
    const TYPE: &'static str = "invoice.written";

    fn labels(&self, labels: &mut Labels) {
        labels.add(format!("invoice:{}", self.number));
    }
}

domain_events! {
    /// What happens to invoices.
    #[derive(Clone, Debug, PartialEq)]
    enum InvoiceEvent {
        Written(InvoiceWritten),
    }
}

/// Gives out numbers: its boundary is all invoices.
struct Numbering;

#[derive(Debug)]
struct Write {
    cents: u64,
}

impl Decider for Numbering {
    const NAME: &'static str = "invoice-numbering";

    type Id = ();
    /// The last number.
    type State = u64;
    type Command = Write;
    type Event = InvoiceEvent;
    type Rejection = Infallible;

    fn boundary((): &()) -> Result<Boundary, InvalidName> {
        let item = QueryItem::of([InvoiceWritten::TYPE], [""; 0])?;
        Ok(Boundary::query(Query::item(item)))
    }

    fn initial((): &()) -> u64 {
        0
    }

    fn evolve(last: &mut u64, InvoiceEvent::Written(invoice): &InvoiceEvent) {
        *last = invoice.number;
    }

    fn decide(last: &u64, &Write { cents }: &Write) -> Result<Vec<InvoiceEvent>, Infallible> {
        Ok(vec![InvoiceWritten { number: last + 1, cents }.into()])
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let written = |number, cents| InvoiceEvent::from(InvoiceWritten { number, cents });
    given::<Numbering>([]).when(Write { cents: 5 }).then_events([written(1, 5)]);
    given::<Numbering>([written(1, 5), written(2, 9)])
        .when(Write { cents: 7 })
        .then_events([written(3, 7)]);

    // Four clerks, ten invoices each. With snapshots only the last few invoices are read for a number.
    let store = MemoryStore::default();
    let snapshots = Snapshots::every(10);
    let mut numbers: Vec<u64> = std::thread::scope(|scope| {
        let clerks: Vec<_> = (0..4)
            .map(|clerk| {
                let (store, snapshots) = (&store, &snapshots);
                scope.spawn(move || {
                    (0..10)
                        .map(|_| {
                            let write = store.execute::<Numbering>(Write { cents: clerk }).on(());
                            let done = write.snapshots(snapshots).retry(100).wait();
                            done.expect("a hundred attempts are enough for four").state
                        })
                        .collect::<Vec<u64>>()
                })
            })
            .collect();
        clerks.into_iter().flat_map(|clerk| clerk.join().expect("no clerk panics")).collect()
    });
    numbers.sort_unstable();
    println!("forty invoices, numbered {} to {}", numbers[0], numbers[39]);
    assert_eq!(numbers, (1..=40).collect::<Vec<u64>>());
    Ok(())
}

//! A counter that survives crashes, and a client that counts what it was told. Its bug can be planted: to acknowledge
//! before the disk has done its work.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::Path;
use std::time::Duration;

use lattice_journal::{Disk as _, DiskFile, OpenMode};
use lattice_sim::{
    Address, Boot, Context, Event, Process, Scenario, SimDisk, Step, Violation, World,
};

pub(crate) const NODES: [Address; 2] = [Address(1), Address(2)];
const CLIENT: Address = Address(9);
const RETRY: Duration = Duration::from_millis(50);
const RECORD: u64 = 8;

#[derive(Clone, Copy, Debug)]
pub(crate) enum Message {
    /// Make the count at least this.
    CountTo(u64),
    Counted(u64),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bug {
    None,
    AckBeforeSync,
    PanicAtTen,
    Deaf,
}

/// Appends one record a step and counts the unbroken ones.
#[derive(Debug)]
pub(crate) struct Counter {
    file: Option<Box<dyn DiskFile>>,
    count: u64,
    bug: Bug,
    waiting: BTreeMap<u64, Address>,
}

impl Counter {
    fn open(disk: &SimDisk, bug: Bug) -> Self {
        let file = Self::open_file(disk).ok();
        let (mut count, mut record) = (0u64, [0; 8]);
        while file.as_ref().is_some_and(|file| {
            file.read_at(&mut record, count * RECORD).unwrap() == 8
                && u64::from_le_bytes(record) == count + 1
        }) {
            count += 1;
        }
        Self { file, count, bug, waiting: BTreeMap::new() }
    }

    fn open_file(disk: &SimDisk) -> std::io::Result<Box<dyn DiskFile>> {
        let path = Path::new("counter");
        let file = match disk.open(path, OpenMode::ReadWrite) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                disk.open(path, OpenMode::CreateNew)?
            }
            other => other?,
        };
        // A process that was killed may have left its last records in the cache only: they count, so they are synced.
        file.sync_data()?;
        disk.sync_dir(Path::new(""))?;
        Ok(file)
    }

    fn count_to(&mut self, from: Address, number: u64, context: &mut Context<'_, Message>) {
        let Some(file) = &self.file else {
            return;
        };
        while self.count < number {
            let record = (self.count + 1).to_le_bytes();
            if file.write_at(&record, self.count * RECORD).is_err() {
                return; // The disk is full: the client tries again.
            }
            self.count += 1;
        }
        if let Err(error) = file.sync_data() {
            return context.stop(error.to_string());
        }
        if self.bug == Bug::PanicAtTen {
            assert!(number != 10, "planted: ten is too much");
        }
        match self.bug {
            Bug::AckBeforeSync => context.send(from, Message::Counted(number)),
            Bug::Deaf if context.boot() > 1 => {}
            _ => {
                self.waiting.insert(number, from);
                context.complete_after_disk(number);
            }
        }
    }
}

#[derive(Debug, Default)]
pub(crate) struct Client {
    pub(crate) acknowledged: BTreeMap<Address, u64>,
    next: Option<Duration>,
    pub(crate) quiet: bool,
}

#[derive(Debug)]
pub(crate) enum Machine {
    Counter(Counter),
    Client(Client),
}

impl Process for Machine {
    type Message = Message;

    fn handle(&mut self, event: Event<Message>, context: &mut Context<'_, Message>) {
        match (self, event) {
            (Self::Counter(node), Event::Start) if node.file.is_none() => {
                context.stop("the disk is unusable");
            }
            (Self::Counter(node), Event::Receive { from, message: Message::CountTo(number) }) => {
                node.count_to(from, number, context);
            }
            (Self::Counter(node), Event::Completed(number)) => {
                if let Some(client) = node.waiting.remove(&number) {
                    context.send(client, Message::Counted(number));
                }
            }
            (Self::Client(client), Event::Receive { from, message: Message::Counted(number) }) => {
                let known = client.acknowledged.entry(from).or_default();
                *known = number.max(*known);
            }
            (Self::Client(client), Event::Start | Event::Timer) if !client.quiet => {
                for node in NODES {
                    let known = client.acknowledged.get(&node).copied().unwrap_or_default();
                    context.send(node, Message::CountTo(known + 1));
                }
                client.next = Some(context.now() + RETRY);
            }
            _ => {}
        }
    }

    fn deadline(&self) -> Option<Duration> {
        match self {
            Self::Client(client) if !client.quiet => client.next,
            _ => None,
        }
    }
}

#[derive(Debug)]
pub(crate) struct Counting(pub(crate) Bug);

impl Counting {
    fn client(world: &World<Machine>) -> &Client {
        match world.process(CLIENT) {
            Some(Machine::Client(client)) => client,
            other => panic!("the client is never harmed: {other:?}"),
        }
    }

    fn check(&self, world: &World<Machine>) -> Result<(), Violation> {
        let client = Self::client(world);
        for (address, process) in world.processes() {
            let Machine::Counter(node) = process else { continue };
            let known = client.acknowledged.get(&address).copied().unwrap_or_default();
            if node.count < known {
                let detail = format!("{address} has {} and acknowledged {known}", node.count);
                return Err(Violation::new("acknowledged counts are kept", detail));
            }
        }
        Ok(())
    }
}

impl Scenario for Counting {
    type Process = Machine;

    fn build(&mut self, world: &mut World<Machine>) {
        let bug = self.0;
        world.add(CLIENT, |_, _| Machine::Client(Client::default()));
        for node in NODES {
            world.add(node, move |disk, _: Boot| Machine::Counter(Counter::open(disk, bug)));
        }
        world.run_until(Duration::ZERO);
    }

    fn check_step(&mut self, world: &World<Machine>, _: &Step) -> Result<(), Violation> {
        self.check(world)
    }

    fn progress(&self, world: &World<Machine>) -> u64 {
        Self::client(world).acknowledged.values().sum()
    }

    fn quiesce(&mut self, world: &mut World<Machine>) {
        if let Some(Machine::Client(client)) = world.process_mut(CLIENT) {
            client.quiet = true;
        }
    }

    fn converged(&mut self, world: &World<Machine>) -> Result<(), Violation> {
        for node in NODES {
            if !world.is_up(node) {
                return Err(Violation::new("everybody is up", format!("{node} is not")));
            }
        }
        self.check(world)
    }
}

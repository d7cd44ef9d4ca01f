//! The smallest processes: a server that answers every number, and a client that sends one every 10 ms.

use std::time::Duration;

use lattice_sim::{Address, Context, Event, Process, World, WorldOptions};

pub(crate) const SERVER: Address = Address(1);
pub(crate) const CLIENT: Address = Address(2);
pub(crate) const PERIOD: Duration = Duration::from_millis(10);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Message {
    Ping(u64),
    Pong(u64),
}

#[derive(Debug, Default)]
pub(crate) struct Server {
    /// What arrived, in order, and when by the server's own clock.
    pub(crate) heard: Vec<(u64, Duration)>,
}

#[derive(Debug, Default)]
pub(crate) struct Client {
    pub(crate) sent: u64,
    /// What was answered, in order.
    pub(crate) answers: Vec<u64>,
    next: Option<Duration>,
}

#[derive(Debug)]
pub(crate) enum Echo {
    Server(Server),
    Client(Client),
}

impl Process for Echo {
    type Message = Message;

    fn handle(&mut self, event: Event<Message>, context: &mut Context<'_, Message>) {
        match (self, event) {
            (Self::Server(server), Event::Receive { from, message: Message::Ping(number) }) => {
                server.heard.push((number, context.now()));
                context.send(from, Message::Pong(number));
            }
            (Self::Client(client), Event::Start | Event::Timer) => {
                client.sent += 1;
                context.send(SERVER, Message::Ping(client.sent));
                client.next = Some(context.now() + PERIOD);
            }
            (Self::Client(client), Event::Receive { message: Message::Pong(number), .. }) => {
                client.answers.push(number);
            }
            _ => {}
        }
    }

    fn deadline(&self) -> Option<Duration> {
        match self {
            Self::Server(_) => None,
            Self::Client(client) => client.next,
        }
    }
}

pub(crate) fn world_of(options: WorldOptions) -> World<Echo> {
    let mut world = World::new(options);
    world.add(SERVER, |_, _| Echo::Server(Server::default()));
    world.add(CLIENT, |_, _| Echo::Client(Client::default()));
    world
}

pub(crate) fn world(seed: u64) -> World<Echo> {
    world_of(WorldOptions::new(seed))
}

pub(crate) fn server(world: &World<Echo>) -> &Server {
    match world.process(SERVER) {
        Some(Echo::Server(server)) => server,
        other => panic!("no server is up: {other:?}"),
    }
}

pub(crate) fn client(world: &World<Echo>) -> &Client {
    match world.process(CLIENT) {
        Some(Echo::Client(client)) => client,
        other => panic!("no client is up: {other:?}"),
    }
}

/// The numbers that the server has heard.
pub(crate) fn heard(world: &World<Echo>) -> Vec<u64> {
    server(world).heard.iter().map(|(number, _)| *number).collect()
}

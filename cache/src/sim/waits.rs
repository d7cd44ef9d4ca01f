//! Clients that wait, and leases, as the model has them.

use std::collections::BTreeMap;

use super::model::{Model, Name, Touch, shard_of};
use super::reply::{Answer, show_bytes};
use crate::store::SHARDS;

/// What a client waits for.
#[derive(Clone, Debug)]
pub(super) enum Wanted {
    /// `BLPOP` or `BRPOP`: an element of the first of these lists that has one.
    Element { keys: Vec<Vec<u8>>, left: bool },
    /// `BLMOVE`: an element for another list.
    Moved { from: Vec<u8>, to: Vec<u8> },
    /// `GETORLOCK … WAIT`: a value.
    Loaded(Vec<u8>),
}

#[derive(Clone, Debug)]
pub(super) struct Waiter {
    pub(super) client: usize,
    pub(super) database: u8,
    pub(super) wanted: Wanted,
    /// On the monotonic clock, in microseconds.
    pub(super) until_us: Option<u64>,
}

impl Waiter {
    /// As text.
    pub(super) fn show(&self) -> String {
        let keys: Vec<String> = self.keys().iter().map(|key| show_bytes(key)).collect();
        let (client, database, keys) = (self.client, self.database, keys.join(" "));
        format!("client {client}, who waits for {keys} in database {database}")
    }

    /// The keys that it waits for.
    pub(super) fn keys(&self) -> &[Vec<u8>] {
        match &self.wanted {
            Wanted::Element { keys, .. } => keys,
            Wanted::Moved { from: key, .. } | Wanted::Loaded(key) => std::slice::from_ref(key),
        }
    }

    /// Tries to serve it.
    pub(super) fn attempt(&self, model: &mut Model) -> Option<Answer> {
        let at = |key: &Vec<u8>| (self.database, key.clone());
        match &self.wanted {
            Wanted::Element { keys, left } => {
                let key = keys.iter().find(|key| model.is_live(&at(key)))?;
                let element = model.pop(&at(key), *left)?;
                Some(Answer::List(vec![Answer::bulk(key), Answer::Bulk(element)]))
            }
            Wanted::Moved { from, to } => model.move_element(&at(from), &at(to)).map(Answer::Bulk),
            Wanted::Loaded(key) => {
                let value = Answer::bulk(model.text(&at(key))?);
                Some(Answer::List(vec![Answer::bulk("hit"), value, Answer::Null]))
            }
        }
    }

    /// What it is answered if it waits in vain.
    pub(super) fn nothing(&self) -> Answer {
        match self.wanted {
            Wanted::Loaded(_) => {
                Answer::List(vec![Answer::bulk("wait"), Answer::Null, Answer::Integer(0)])
            }
            _ => Answer::Null,
        }
    }
}

/// A lease that was granted.
#[derive(Clone, Debug)]
pub(super) struct Lease {
    pub(super) token: Vec<u8>,
    pub(super) until_us: u64,
}

/// What serving those who wait has come to.
#[derive(Debug, Default)]
pub(super) struct Settled {
    /// Who gets what.
    pub(super) served: Vec<(usize, Answer)>,
    /// What changed, in order.
    pub(super) touches: Vec<Touch>,
    /// Whether what one got made something for another.
    pub(super) is_chained: bool,
}

#[derive(Debug, Default)]
pub(super) struct Waits {
    /// Oldest first.
    pub(super) waiters: Vec<Waiter>,
    pub(super) leases: BTreeMap<Name, Lease>,
    /// What was answered to some of them already, and is not yet seen.
    pub(super) answered: Vec<(usize, Answer)>,
}

impl Waits {
    pub(super) fn is_waiting(&self, client: usize) -> bool {
        self.waiters.iter().any(|waiter| waiter.client == client)
    }

    /// Serves whoever can be served after `touches`, as the node is to do it: shard by shard, key by key, oldest first, and then on
    /// with what serving has changed.
    pub(super) fn settle(&mut self, model: &mut Model) -> Settled {
        let served = std::mem::take(&mut self.answered);
        let mut settled = Settled { served, ..Settled::default() };
        let mut is_first = true;
        loop {
            let mut touches = std::mem::take(&mut model.touches);
            if touches.is_empty() {
                return settled;
            }
            let served_before = settled.served.len();
            self.void(&touches);
            touches.sort_by_key(|touch| match touch {
                Touch::Written(name) | Touch::Removed(name) => shard_of(&name.1),
                Touch::Flushed(_) | Touch::Swapped(_) => SHARDS,
            });
            for touch in &touches {
                match touch {
                    Touch::Written(name) => {
                        self.serve(model, name, &mut settled.served);
                        self.ask_again(name, &mut settled.served);
                    }
                    Touch::Removed(name) => self.ask_again(name, &mut settled.served),
                    Touch::Swapped(database) | Touch::Flushed(database) => {
                        let waiters = self.waiters.iter().filter(|it| it.database == *database);
                        let mut keys: Vec<Vec<u8>> =
                            waiters.flat_map(|it| it.keys().to_vec()).collect();
                        keys.sort();
                        keys.dedup();
                        for key in keys {
                            let name = (*database, key);
                            self.serve(model, &name, &mut settled.served);
                            self.ask_again(&name, &mut settled.served);
                        }
                    }
                }
            }
            settled.is_chained |= !is_first && settled.served.len() > served_before;
            is_first = false;
            settled.touches.extend(touches);
        }
    }

    fn serve(&mut self, model: &mut Model, name: &Name, served: &mut Vec<(usize, Answer)>) {
        while model.is_live(name) {
            let waits =
                |waiter: &Waiter| waiter.database == name.0 && waiter.keys().contains(&name.1);
            let Some(at) = self.waiters.iter().position(waits) else { return };
            let Some(answer) = self.waiters[at].attempt(model) else { return };
            let waiter = self.waiters.remove(at);
            served.push((waiter.client, answer));
        }
    }

    /// Those who wait for somebody to load a key wait in vain.
    fn ask_again(&mut self, name: &Name, served: &mut Vec<(usize, Answer)>) {
        let waits = |waiter: &Waiter| {
            waiter.database == name.0
                && matches!(&waiter.wanted, Wanted::Loaded(key) if *key == name.1)
        };
        let ended = self.waiters.extract_if(.., |waiter| waits(waiter));
        served.extend(ended.map(|waiter| (waiter.client, waiter.nothing())));
    }

    /// A command was to remove a key, which may not have been there.
    pub(super) fn forget(&mut self, name: &Name) {
        self.leases.remove(name);
        let mut answered = std::mem::take(&mut self.answered);
        self.ask_again(name, &mut answered);
        self.answered = answered;
    }

    /// Leases that a change makes worthless.
    fn void(&mut self, touches: &[Touch]) {
        for touch in touches {
            match touch {
                Touch::Written(name) | Touch::Removed(name) => _ = self.leases.remove(name),
                Touch::Flushed(database) | Touch::Swapped(database) => {
                    self.leases.retain(|name, _| name.0 != *database);
                }
            }
        }
    }
}

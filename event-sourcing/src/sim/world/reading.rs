//! Pages and streams against the model's.

use super::*;
use crate::event::Recorded;
use crate::read::{Direction, Page, ReadError};
use crate::store::StreamInfo;

impl World {
    /// The head and the chain, after every step.
    pub(super) fn check_head(&mut self) -> Outcome {
        let (head, chain) = self.store.with(|log| (log.reader().head(), log.chain_head()));
        self.checked += 1;
        if head != self.model.head() {
            let detail = format!("{head} of {}", self.model.head());
            return Err(broken("readers see what is durable, and all of it", detail));
        }
        match chain {
            Some(chain) if chain.position == head => Ok(()),
            chain => Err(broken("the hash chain is at the head", format!("{chain:?} {head}"))),
        }
    }

    pub(super) fn check_chain(&mut self) -> Outcome {
        let chain = self.store.with(|log| log.chain_head());
        let expected = self.chain_head();
        self.checked += 1;
        if chain.is_none_or(|chain| chain.hash != expected) {
            return Err(broken("the hash chain is over all leaves in order", format!("{chain:?}")));
        }
        Ok(())
    }

    /// Reads a page, or page after page; or looks at a stream.
    pub(super) fn read(&mut self) -> Outcome {
        if self.draw.chance(25) {
            return self.look_at_a_stream();
        }
        let mut read = self.draw.read(self.model.head(), self.clock.now());
        let expected = self.model.read(&read);
        let is_whole = self.draw.chance(60);
        let mut seen: Vec<Arc<Recorded>> = Vec::new();
        self.tell(format!("{:?} from {:?}", read.source, read.from));
        loop {
            self.checked += 1;
            let page = match (self.ask(&read), &expected) {
                (Ok(page), Ok(_)) => page,
                (Err(ReadError::Io(_)), _) => return self.disk_failed("a reader"),
                (Err(found), Err(expected)) if format!("{found:?}") == format!("{expected:?}") => {
                    return Ok(());
                }
                (found, expected) => {
                    let detail = format!("{read:?}\nfound: {found:?}\nexpected: {expected:?}");
                    return Err(broken("pages are the model's", detail));
                }
            };
            let Page { events, next, scanned, head } = page;
            seen.extend(events);
            let expected = expected.as_ref().expect("it was read");
            let within = |position: Position| match (next, read.direction) {
                (None, _) => true,
                (Some(_), Direction::Forward) => position <= scanned,
                (Some(_), Direction::Backward) => position >= scanned,
            };
            let so_far: Vec<_> =
                expected.iter().filter(|event| within(event.position)).cloned().collect();
            if seen != so_far || head != self.model.head() {
                let places = |events: &[Arc<Recorded>]| -> Vec<u64> {
                    events.iter().map(|event| event.position.0).collect()
                };
                let detail = format!(
                    "{read:?}\nfound: {:?}\nexpected: {:?}",
                    places(&seen),
                    places(&so_far)
                );
                return Err(broken("pages are the model's", detail));
            }
            match next {
                Some(next) if is_whole => read.from = next,
                _ => return Ok(()),
            }
        }
    }

    fn ask(&self, read: &crate::read::Read) -> Result<Page, ReadError> {
        let reader = self.store.reader().expect("the log is open");
        reader.read(read)
    }

    fn look_at_a_stream(&mut self) -> Outcome {
        let mut stream = self.draw.stream();
        if self.draw.chance(30) {
            stream = stream.metadata_stream().expect("it describes none itself");
        }
        let view = self.model.view();
        let of_it = |event: &&Arc<Recorded>| event.stream == stream;
        let last = self.model.events.iter().rfind(of_it);
        let expected = last.map(|last| {
            let first = self.model.events.iter().filter(of_it).find(|event| view.shows(event));
            StreamInfo {
                last: last.version,
                last_position: last.position,
                first: first.map_or(last.version.next(), |first| first.version),
                retention: view.retention(&stream),
            }
        });
        let reader = self.store.reader().expect("the log is open");
        self.checked += 1;
        match reader.stream(&stream) {
            Ok(found) if found == expected => Ok(()),
            Err(ReadError::Io(_)) => self.disk_failed("a reader"),
            found => {
                let detail = format!("{stream}\nfound: {found:?}\nexpected: {expected:?}");
                Err(broken("streams are the model's", detail))
            }
        }
    }
}

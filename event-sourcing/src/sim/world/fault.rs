//! What befalls a run: crashes, failing syncs, full disks, damaged files; and what must be there afterwards.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use lattice_journal::{Disk, OpenMode};

use super::*;
use crate::condition::Expected;
use crate::event::{EventType, NewEvent};
use crate::read::ReadError;
use crate::store::TypeCount;
use crate::store::journal::EventLog;

impl World {
    pub(super) fn strike(&mut self) -> Outcome {
        if self.armed {
            return Ok(());
        }
        match self.draw.below(6) {
            0 if self.faults.power => {
                let calls = self.draw.below(30);
                self.tell(format!("the power will fail after {calls} calls"));
                self.disk.crash_after_calls(calls);
                self.armed = true;
            }
            1 if self.faults.kill => {
                self.tell("killed".to_owned());
                return self.restart();
            }
            2 if self.faults.sync => {
                let nth = 1 + self.draw.below(3);
                self.tell(format!("sync {nth} will fail"));
                self.disk.fail_sync_at(nth);
                self.armed = true;
                self.note(Sometimes::SyncFailed);
            }
            3 if self.faults.full => match self.disk.capacity() {
                None => {
                    let room = self.draw.below(3) * 4096;
                    self.disk.set_capacity(Some(self.disk.used() + room));
                }
                Some(_) => self.disk.set_capacity(None),
            },
            4 if self.faults.files => self.damage_index(),
            5 => {
                self.tell("closed and opened".to_owned());
                return self.close_and_open();
            }
            _ => {}
        }
        Ok(())
    }

    fn names(&self, directory: &str, suffix: &str) -> Vec<PathBuf> {
        let names = self.disk.list(Path::new(directory)).unwrap_or_default();
        let ours = names.into_iter().filter(|name| name.ends_with(suffix));
        ours.map(|name| Path::new(directory).join(name)).collect()
    }

    /// Damages an index file under the log that uses it.
    fn damage_index(&mut self) {
        let names = self.names("store/index", ".idx");
        if names.is_empty() {
            return;
        }
        let path = self.draw.of(&names).clone();
        self.damage(&path, 3);
        self.note(Sometimes::IndexDamaged);
        self.tell(format!("{} is damaged", path.display()));
    }

    fn damage(&mut self, path: &Path, bytes: usize) {
        let file = self.disk.open(path, OpenMode::Read);
        let length = file.and_then(|file| file.length()).unwrap_or(0);
        if length > 0 {
            let at = self.draw.below(length);
            let noise: Vec<u8> =
                (0..bytes).map(|it| 0xa5 ^ u8::try_from(it).unwrap_or(0)).collect();
            self.disk.damage(path, &noise, at).expect("the file is there");
        }
    }

    /// While the log is closed: files that nothing depends on get lost.
    fn lose_files(&mut self) {
        if !self.faults.files {
            return;
        }
        for (directory, suffix, event) in [
            ("store/index", ".idx", Sometimes::IndexDamaged),
            ("store/log", ".seal", Sometimes::SealLost),
        ] {
            for path in self.names(directory, suffix) {
                match self.draw.below(10) {
                    0 => drop(self.disk.remove(&path)),
                    1 => self.damage(&path, 3),
                    _ => continue,
                }
                self.note(event);
            }
        }
    }

    fn lose_users(&mut self) {
        for follower in &mut self.followers {
            follower.lose(&self.coverage);
        }
        self.projector.lose();
        self.rewritten.clear();
    }

    fn close_and_open(&mut self) -> Outcome {
        self.lose_users();
        let log = self.store.replace(None).expect("the log is open");
        if let Err(error) = log.close() {
            return Err(broken("a log can be closed", error.to_string()));
        }
        self.lose_files();
        self.open(true)
    }

    /// Everything in memory is lost, and at times what was not synced.
    pub(super) fn restart(&mut self) -> Outcome {
        self.lose_users();
        drop(self.store.replace(None));
        let by_power = self.armed || (self.faults.power && self.draw.chance(50));
        if by_power {
            self.disk.crash();
            self.note(Sometimes::Crashed);
        } else {
            self.disk.kill();
            self.note(Sometimes::Killed);
        }
        self.disk.clear_failing_syncs();
        self.disk.set_capacity(None);
        self.armed = false;
        self.lose_files();
        self.open(true)
    }

    /// Opens the log, at times with the power failing on the way, and looks at all of it.
    pub(super) fn open(&mut self, again: bool) -> Outcome {
        let log = loop {
            let fails = again && self.faults.power && self.draw.chance(25);
            if fails {
                self.disk.crash_after_calls(self.draw.below(8));
            }
            match EventLog::open(Arc::new(self.disk.clone()), &self.options) {
                Ok(log) if fails => {
                    // The calls were enough, or errors of files that nothing depends on were passed over.
                    drop(log);
                    self.disk.crash();
                }
                Ok(log) => break log,
                Err(_) if fails => {
                    self.note(Sometimes::CrashedWhileOpening);
                    self.disk.crash();
                }
                Err(error) => {
                    return Err(broken("a log can be opened", format!("{error:?}")));
                }
            }
        };
        if let Some(failure) = log.failure() {
            return Err(broken("no damage is seen where there is none", failure.to_string()));
        }
        let head = log.reader().head();
        self.store.replace(Some(log));
        self.stale = false;
        self.resolve(head)?;
        self.tell(format!("open at {head}"));
        self.check_everything()
    }

    /// Of the group without an answer some appends are there, from the first on, each as a whole.
    fn resolve(&mut self, head: Position) -> Outcome {
        if let Some((now, appends)) = self.pending.take() {
            // What has no answer is asked for again before long.
            for append in &appends {
                for _ in 0..3 {
                    self.tried.push(append.clone());
                }
            }
            let before = self.model.head();
            let mut staged = self.model.clone();
            let mut left = appends.iter();
            while staged.head() < head
                && let Some(append) = left.next()
            {
                // What it is answered was looked at when it was staged.
                drop(staged.append(append, now));
            }
            let lacks =
                left.any(|append| staged.clone().append(append, now).is_ok_and(|it| !it.repeated));
            if head > before && head == staged.head() {
                self.note(if lacks {
                    Sometimes::UnknownInPart
                } else {
                    Sometimes::UnknownRecorded
                });
                self.accept(staged, &appends);
            } else if head == before {
                self.note(Sometimes::UnknownLost);
            }
            if head == self.model.head() && self.draw.chance(60) {
                self.check_recorded()?;
                self.note(Sometimes::UnknownRepeated);
                for append in appends {
                    let (answer, _) = futures::channel::oneshot::channel();
                    self.drain(vec![(append, answer)])?;
                }
                return Ok(());
            }
        }
        if head != self.model.head() {
            let detail = format!("the log ends at {head}, and {} is durable", self.model.head());
            return Err(broken("what was acknowledged is there, and nothing else", detail));
        }
        Ok(())
    }

    /// Every event in its place, whether it is visible or not.
    pub(super) fn check_recorded(&mut self) -> Outcome<BTreeMap<(EventType, u32), u64>> {
        let reader = self.store.reader().expect("the log is open");
        let view = self.model.view();
        let mut counts = BTreeMap::new();
        for event in &self.model.events {
            self.checked += 1;
            match reader.recorded(event.position) {
                Ok(Some(found)) if found == *event => {
                    let kind = (event.event.event_type.clone(), event.event.schema);
                    *counts.entry(kind).or_default() += 1;
                }
                Ok(None) if self.scavenged && !view.shows(event) => {}
                found => {
                    let detail = format!("{event:?}\nfound: {found:?}");
                    return Err(broken("every event is in its place", detail));
                }
            }
        }
        Ok(counts)
    }

    pub(super) fn check_everything(&mut self) -> Outcome {
        let counts = self.check_recorded()?;
        self.check_chain()?;
        let reader = self.store.reader().expect("the log is open");
        if !self.stale {
            let types = reader.types().map_err(|error| broken("types", format!("{error:?}")))?;
            let expected: Vec<TypeCount> = counts
                .into_iter()
                .map(|((event_type, schema), count)| TypeCount { event_type, schema, count })
                .collect();
            if types != expected {
                let detail = format!("{types:?}\nexpected: {expected:?}");
                return Err(broken("types are counted as they are", detail));
            }
        }
        for (append, committed) in &self.ledger {
            let first = usize::try_from(committed.first.0 - 1).expect("it is small");
            let written = self.model.events[first..].iter().zip(&append.events);
            let same = written.clone().all(|(known, (stream, event))| {
                known.stream == *stream && known.event.data == event.data
            });
            let last = committed.first.0 + u64::try_from(append.events.len()).expect("small") - 1;
            if !same || last != committed.last.0 {
                let detail = format!("{append:?} {committed:?}");
                return Err(broken("acknowledged appends are there as acknowledged", detail));
            }
        }
        self.verify()
    }

    fn verify(&mut self) -> Outcome {
        let verified = self.store.with(|log| log.verify());
        let verified =
            verified.map_err(|error| broken("a log is verified", format!("{error:?}")))?;
        self.checked += 1;
        // An index file may have been damaged on purpose.
        let unsound = verified
            .problems
            .iter()
            .find(|problem| !matches!(problem, crate::store::journal::Problem::IndexFile { .. }));
        match unsound {
            Some(problem) => Err(broken("a sound log is found sound", format!("{problem:?}"))),
            None => Ok(()),
        }
    }

    /// The end: everybody arrives, everything is compared, and then at times a segment is damaged.
    pub(super) fn end(&mut self) -> Outcome {
        self.restart()?;
        let head = self.model.head();
        for number in 0..self.followers.len() {
            for _ in 0..20_000 {
                let follower = &mut self.followers[number];
                if follower.has_ended() || follower.position() == head {
                    break;
                }
                follower.step(&self.store, &self.model, &self.coverage)?;
            }
            let follower = &self.followers[number];
            if !follower.has_ended() && follower.position() != head {
                let detail = format!("{} of {head}", follower.position());
                return Err(broken("subscribers arrive", detail));
            }
        }
        for _ in 0..20_000 {
            let clock = Arc::clone(&self.clock);
            let store = Arc::clone(&self.store);
            let standing = self.projector.step(&store, &*clock, &self.model, &self.coverage)?;
            if standing == Standing::Waits {
                break;
            }
        }
        for _ in 0..20 {
            self.read()?;
        }
        self.check_everything()?;
        if self.faults.segment { self.damage_segment() } else { Ok(()) }
    }

    /// Bytes of a complete segment are damaged: no wrong answer is given, what is lost is reported, and the rest is there.
    fn damage_segment(&mut self) -> Outcome {
        let log = self.store.replace(None).expect("the log is open");
        drop(log);
        self.disk.kill();
        let mut segments = self.names("store/log", ".seg");
        segments.pop();
        if segments.is_empty() {
            return self.open(false);
        }
        let path = self.draw.of(&segments).clone();
        self.damage(&path, 64);
        if self.draw.chance(50) {
            for name in self.names("store/index", ".idx") {
                drop(self.disk.remove(&name));
            }
        }
        let mut log = match EventLog::open(Arc::new(self.disk.clone()), &self.options) {
            Ok(log) => log,
            // The chain cannot be continued over what is lost; the directory is as it was.
            Err(error) => {
                return Err(broken("a damaged log can be opened", format!("{error:?}")));
            }
        };
        let mut lost = 0;
        for event in &self.model.events {
            match log.reader().recorded(event.position) {
                Ok(Some(found)) if found == *event => {}
                Ok(None) if self.scavenged => {}
                Err(ReadError::Damaged { first, last })
                    if first <= event.position && event.position <= last =>
                {
                    lost += 1;
                }
                found => {
                    let detail = format!("{event:?}\nfound: {found:?}");
                    return Err(broken("no wrong answer comes from a damaged segment", detail));
                }
            }
        }
        let verified = log.verify();
        let sound = verified.as_ref().is_ok_and(crate::store::journal::Verification::is_sound);
        if lost > 0 {
            self.note(Sometimes::SegmentDamaged);
            if sound {
                return Err(broken("damage is reported", format!("{} is", path.display())));
            }
        }
        if !log.damage().is_empty() {
            let event = NewEvent::json(EventType::new("t").expect("the name is valid"), "1");
            let stream = StreamName::new("after").expect("the name is valid");
            let append = Append::to(stream, Expected::Any, [event]);
            if log.stage(append, self.clock.now()).is_ok() {
                return Err(broken("a damaged log takes no appends", "it took one"));
            }
        }
        self.tell(format!("{lost} events are lost"));
        Ok(())
    }
}

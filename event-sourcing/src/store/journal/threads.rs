//! The threads of a store: begun one by one, and waited for together.

use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, JoinHandle, ThreadId};

use super::error::OpenError;

type Run = Box<dyn FnOnce() + Send>;

/// Begins a thread of this name.
pub(super) type Spawn<'a> = dyn FnMut(&str, Run) -> io::Result<JoinHandle<()>> + 'a;

/// Begins a thread of this process.
pub(super) fn spawn(name: &str, run: Run) -> io::Result<JoinHandle<()>> {
    Builder::new().name(name.to_owned()).spawn(run)
}

/// Threads that were begun.
#[derive(Debug, Default)]
pub(super) struct Threads {
    ids: Mutex<Vec<ThreadId>>,
    /// Held by whoever waits for them, so that others who wait are done when all have ended.
    running: Mutex<Vec<JoinHandle<()>>>,
}

impl Threads {
    /// Begins one more.
    pub(super) fn begin(
        &self,
        spawn: &mut Spawn<'_>,
        name: &str,
        run: impl FnOnce() + Send + 'static,
    ) -> Result<(), OpenError> {
        let thread = spawn(name, Box::new(run)).map_err(|source| OpenError::Io {
            operation: "beginning a thread",
            path: name.into(),
            source,
        })?;
        lock(&self.ids).push(thread.thread().id());
        lock(&self.running).push(thread);
        Ok(())
    }

    /// Waits until all have ended. Does nothing in one of them, for that would wait for itself.
    pub(super) fn join(&self) {
        if lock(&self.ids).contains(&std::thread::current().id()) {
            return;
        }
        for thread in lock(&self.running).drain(..) {
            if thread.join().is_err() {
                tracing::error!("a thread of the store has panicked");
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing panics while it is held, and so what is in it is whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
#[cfg(feature = "sim")]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc::channel;

    use futures::executor::block_on;
    use lattice_sim::SimDisk;

    use super::*;
    use crate::clock::SystemClock;
    use crate::read::ReadError;
    use crate::store::EventStore;
    use crate::store::journal::{JournalStore, JournalStoreOptions};

    fn options() -> JournalStoreOptions {
        JournalStoreOptions::new("store")
    }

    fn open(disk: &SimDisk) -> Arc<JournalStore> {
        let clock = Arc::new(SystemClock);
        Arc::new(JournalStore::open_on(Arc::new(disk.clone()), clock, &options()).unwrap())
    }

    #[test]
    fn a_thread_that_does_not_begin_leaves_none_behind() {
        // Two that read, and those for index files, space and appends.
        for begun in 0..5 {
            let disk = SimDisk::new(1);
            let alive = Arc::new(AtomicUsize::new(0));
            let mut left = begun;
            let opened = JournalStore::open_with(
                Arc::new(disk.clone()),
                Arc::new(SystemClock),
                &options(),
                &mut |name, run| {
                    if left == 0 {
                        return Err(io::ErrorKind::WouldBlock.into());
                    }
                    left -= 1;
                    let counted = Arc::clone(&alive);
                    counted.fetch_add(1, Ordering::SeqCst);
                    spawn(
                        name,
                        Box::new(move || {
                            run();
                            counted.fetch_sub(1, Ordering::SeqCst);
                        }),
                    )
                },
            );
            assert!(matches!(opened, Err(OpenError::Io { .. })), "after {begun}");
            assert_eq!((left, alive.load(Ordering::SeqCst)), (0, 0), "after {begun}");
            open(&disk).close();
        }
    }

    #[test]
    fn whoever_closes_beside_another_waits_as_well() {
        let (go_on, wait) = channel::<()>();
        let threads = Threads::default();
        threads.begin(&mut spawn, "waits", move || wait.recv().unwrap()).unwrap();
        let ended = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            let closers: Vec<_> = (0..2)
                .map(|_| {
                    scope.spawn(|| {
                        threads.join();
                        // Whether the thread has ended: its end of the channel is gone.
                        ended.fetch_add(usize::from(go_on.send(()).is_err()), Ordering::SeqCst);
                    })
                })
                .collect();
            // The one that has the handles is waiting for the thread, or will.
            while threads.running.try_lock().is_ok_and(|running| !running.is_empty()) {
                std::thread::yield_now();
            }
            go_on.send(()).unwrap();
            closers.into_iter().for_each(|closer| closer.join().unwrap());
        });
        assert_eq!(ended.load(Ordering::SeqCst), 2);
    }

    #[test]
    fn a_store_can_be_closed_in_a_thread_of_its_own() {
        let store = open(&SimDisk::new(1));
        let (done, closed) = channel();
        let inner = Arc::clone(&store);
        let asked = store.ask_disk(move |_| {
            inner.close();
            done.send(()).unwrap();
            Ok(())
        });
        closed.recv().unwrap();
        block_on(asked).unwrap();
        store.close();
        let answer = block_on(store.types());
        assert!(matches!(answer, Err(ReadError::Closed)), "{answer:?}");
    }

    #[test]
    fn closing_ends_a_verification_and_a_pass_for_space() {
        let store = open(&SimDisk::new(1));
        // Both reading threads are busy until the store is closed.
        let (go_on, wait) = (Arc::new(Mutex::new(Vec::new())), Arc::clone(&store.readers));
        let busy: Vec<_> = (0..2)
            .map(|_| {
                let (started, is_busy) = channel();
                let wait = Arc::clone(&wait);
                lock(&go_on).push(is_busy);
                store.ask_disk(move |log| {
                    started.send(()).unwrap();
                    let stopped = log.verify_until(None, &|| {
                        while !wait.is_closed() {
                            std::thread::yield_now();
                        }
                        true
                    });
                    stopped.map(drop)
                })
            })
            .collect();
        lock(&go_on).drain(..).for_each(|is_busy| is_busy.recv().unwrap());
        store.close();
        for answer in busy {
            assert!(matches!(block_on(answer), Err(ReadError::Closed)));
        }
        let space = block_on(store.scavenge(true));
        assert!(space.is_err(), "{space:?}");
    }
}

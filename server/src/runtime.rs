//! A thread that runs one current-thread tokio runtime.
//!
//! A node has two: one for Raft and its peers, one for clients. Clients' work can then never delay a heartbeat, and
//! neither pays for work stealing between threads.

use std::io;
use std::thread;
use std::time::Duration;

use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

/// How long tasks that block a thread may hold up the end of the runtime.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(1);

/// A runtime on a thread of its own. It ends, tasks and all, when this is dropped.
#[derive(Debug)]
pub(crate) struct RuntimeThread {
    handle: Handle,
    stop: oneshot::Sender<()>,
    ended: oneshot::Receiver<()>,
}

impl RuntimeThread {
    /// Starts a thread of this name.
    pub(crate) fn start(name: &str) -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().thread_name(name).build()?;
        let handle = runtime.handle().clone();
        let (stop, stopping) = oneshot::channel::<()>();
        let (end, ended) = oneshot::channel();
        thread::Builder::new().name(name.into()).spawn(move || {
            // Both an order to stop and the loss of whoever could give it end the runtime.
            let _stop_or_dropped = runtime.block_on(stopping);
            runtime.shutdown_timeout(SHUTDOWN_TIMEOUT);
            let _nobody_waits = end.send(());
        })?;
        Ok(Self { handle, stop, ended })
    }

    pub(crate) fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Ends the runtime and waits until it has ended.
    pub(crate) async fn stop(self) {
        let _already_stopped = self.stop.send(());
        let _gone_either_way = self.ended.await;
    }
}

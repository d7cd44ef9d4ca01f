//! Accepts connections, up to a limit, as a stream that the gRPC server reads.
//!
//! At the limit new connections wait in the kernel's queue until one closes. The limit leaves files to the log, for a
//! log that cannot open a file stops its node: no number of clients may do that. A connection that says nothing gives
//! its place back after a while. An error of `accept` costs a pause and a line in the log, not the server.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use rustix::process::{Resource, getrlimit};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::Sleep;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::server::{Connected, TcpConnectInfo};

use crate::authority::AuthorityFilter;

/// How long to wait after an error of `accept`.
const PAUSE: Duration = Duration::from_millis(200);

/// A connection that gives its place back when it closes.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: TcpStream,
    filter: AuthorityFilter,
    /// What was read and is not let through yet. Empty once the filter is done.
    held: Vec<u8>,
    /// So many of them may be let through.
    released: usize,
    /// When the connection ends if it has not begun to speak HTTP/2.
    end: Option<Pin<Box<Sleep>>>,
    _place: OwnedSemaphorePermit,
}

/// Connections of a port: at most `most` at a time, and at most one for every `files_each` files that this process may
/// open.
pub(crate) fn connections_max(most: usize, files_each: usize) -> usize {
    let files = getrlimit(Resource::Nofile)
        .current
        .map_or(usize::MAX, |files| usize::try_from(files).unwrap_or(usize::MAX));
    most.min(files / files_each).max(1)
}

/// Connections of `listener`, at most `limit` at a time. Each ends that does not speak HTTP/2 after `patience`. The
/// stream ends when it is dropped.
pub(crate) fn connections(
    listener: std::net::TcpListener,
    limit: usize,
    patience: Duration,
) -> io::Result<ReceiverStream<io::Result<Connection>>> {
    listener.set_nonblocking(true)?;
    let listener = TcpListener::from_std(listener)?;
    let (sender, receiver) = mpsc::channel(1);
    tokio::spawn(accept(listener, Arc::new(Semaphore::new(limit)), patience, sender));
    Ok(ReceiverStream::new(receiver))
}

/// The same for a server that takes them one by one.
#[derive(Debug)]
pub(crate) struct Accepted(pub(crate) ReceiverStream<io::Result<Connection>>);

impl axum::serve::Listener for Accepted {
    type Io = Connection;
    type Addr = ();

    async fn accept(&mut self) -> (Connection, ()) {
        loop {
            match self.0.next().await {
                Some(Ok(connection)) => return (connection, ()),
                Some(Err(_logged)) => {}
                None => std::future::pending().await,
            }
        }
    }

    fn local_addr(&self) -> io::Result<()> {
        Ok(())
    }
}

async fn accept(
    listener: TcpListener,
    places: Arc<Semaphore>,
    patience: Duration,
    sender: mpsc::Sender<io::Result<Connection>>,
) {
    loop {
        let place = tokio::select! {
            place = Arc::clone(&places).acquire_owned() => place.expect("never closed"),
            () = sender.closed() => return,
        };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = sender.closed() => return,
        };
        match accepted {
            Ok((stream, _address)) => {
                // Only a latency optimisation: a socket that refuses it is about to fail anyway.
                let _refused = stream.set_nodelay(true);
                let connection = Connection::new(stream, place, patience);
                if sender.send(Ok(connection)).await.is_err() {
                    return;
                }
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

impl Connection {
    fn new(stream: TcpStream, place: OwnedSemaphorePermit, patience: Duration) -> Self {
        Self {
            stream,
            filter: AuthorityFilter::new(),
            held: Vec::new(),
            released: 0,
            end: Some(Box::pin(tokio::time::sleep(patience))),
            _place: place,
        }
    }

    /// Fails once the time to begin is over.
    fn poll_end(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        if let Some(end) = &mut self.end {
            if self.filter.is_http2() {
                self.end = None;
            } else if end.as_mut().poll(cx).is_ready() {
                return Err(io::ErrorKind::TimedOut.into());
            }
        }
        Ok(())
    }

    /// Reads until something is released, or the stream ends.
    fn poll_release(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut piece = [0; 4096];
        while self.released == 0 {
            let mut buffer = ReadBuf::new(&mut piece);
            std::task::ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buffer))?;
            let read = buffer.filled();
            if read.is_empty() {
                self.released = self.held.len();
                break;
            }
            self.held.extend_from_slice(read);
            self.released = self.filter.release(&mut self.held);
        }
        Poll::Ready(Ok(()))
    }
}

impl Connected for Connection {
    type ConnectInfo = TcpConnectInfo;

    fn connect_info(&self) -> TcpConnectInfo {
        self.stream.connect_info()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.poll_end(cx)?;
        if self.held.is_empty() && self.filter.is_done() {
            return Pin::new(&mut self.stream).poll_read(cx, buffer);
        }
        std::task::ready!(self.poll_release(cx))?;
        let count = self.released.min(buffer.remaining());
        buffer.put_slice(&self.held[..count]);
        self.held.drain(..count);
        self.released -= count;
        if self.held.is_empty() && self.filter.is_done() {
            self.held = Vec::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buffer)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, buffers)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

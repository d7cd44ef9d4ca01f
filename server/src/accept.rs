//! Accepts connections, up to a limit, as a stream that the gRPC server reads.
//!
//! At the limit new connections wait in the kernel's queue until one closes. An error of `accept` (most often: no file
//! descriptor is left) costs a pause and a line in the log, not the server.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
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
    _place: OwnedSemaphorePermit,
}

/// Connections of `listener`, at most `limit` at a time. Ends when the stream is dropped.
pub(crate) fn connections(
    listener: std::net::TcpListener,
    limit: usize,
) -> io::Result<ReceiverStream<io::Result<Connection>>> {
    listener.set_nonblocking(true)?;
    let listener = TcpListener::from_std(listener)?;
    let (sender, receiver) = mpsc::channel(1);
    tokio::spawn(accept(listener, Arc::new(Semaphore::new(limit)), sender));
    Ok(ReceiverStream::new(receiver))
}

async fn accept(
    listener: TcpListener,
    places: Arc<Semaphore>,
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
                if sender.send(Ok(Connection::new(stream, place))).await.is_err() {
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
    fn new(stream: TcpStream, place: OwnedSemaphorePermit) -> Self {
        Self {
            stream,
            filter: AuthorityFilter::new(),
            held: Vec::new(),
            released: 0,
            _place: place,
        }
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

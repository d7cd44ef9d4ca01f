//! Listening: ports and paths are taken once, and what arrives is handed to the workers in turn.
//!
//! A port is bound without `SO_REUSEPORT`: a second server on it is refused by the operating system, where it would else get half of
//! the connections.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tokio_rustls::TlsAcceptor;

use super::worker::{Worker, setting};
use super::{BindError, HandOver};
use crate::clients::Origin;
use crate::totals::Counter;

/// Connections that the operating system holds for us until they are accepted.
const BACKLOG: i32 = 1024;

/// How long accepting pauses when no descriptor is left.
const BREATHER: Duration = Duration::from_millis(50);

/// The longest that keepalive may be set to, in seconds: what Linux takes.
const KEEPALIVE_MAX_S: u64 = 32_767;

/// What listens.
#[derive(Debug)]
pub(super) enum Listener {
    /// On a port, in the clear.
    Tcp(TcpListener),
    /// On a port, encrypted.
    Tls(TcpListener, TlsAcceptorHandle),
    /// On a path.
    Unix(UnixListener),
}

/// A TLS acceptor that can be shown.
#[derive(Clone)]
pub(super) struct TlsAcceptorHandle(pub(super) TlsAcceptor);

impl std::fmt::Debug for TlsAcceptorHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TlsAcceptor").finish_non_exhaustive()
    }
}

/// A connection that a worker is to serve.
pub(super) struct Accepted {
    pub(super) stream: Stream,
    pub(super) origin: Origin,
    pub(super) tls: Option<TlsAcceptor>,
}

/// A connection's socket, which no runtime watches yet.
pub(super) enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// A listener that a runtime watches.
pub(super) enum Watched {
    Tcp(tokio::net::TcpListener),
    Tls(tokio::net::TcpListener, TlsAcceptor),
    Unix(tokio::net::UnixListener),
}

impl Listener {
    /// Has the current runtime watch it.
    pub(super) fn watch(self) -> io::Result<Watched> {
        Ok(match self {
            Self::Tcp(listener) => Watched::Tcp(tokio::net::TcpListener::from_std(listener)?),
            Self::Tls(listener, acceptor) => {
                Watched::Tls(tokio::net::TcpListener::from_std(listener)?, acceptor.0)
            }
            Self::Unix(listener) => Watched::Unix(tokio::net::UnixListener::from_std(listener)?),
        })
    }
}

/// Takes a port.
pub(super) fn bind_tcp(address: SocketAddr) -> Result<TcpListener, BindError> {
    let bind = || {
        let domain = Domain::for_address(address);
        let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
        // Lets a restarted server have its port although old connections linger in the kernel; not two servers at once.
        socket.set_reuse_address(true)?;
        if address.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        Ok(TcpListener::from(socket))
    };
    bind().map_err(|source: io::Error| match source.kind() {
        io::ErrorKind::AddrInUse => BindError::AddressInUse { address, source },
        _ => BindError::Address { address, source },
    })
}

/// Takes a path. A socket that a server which is gone has left there is replaced; anything else is left alone.
pub(super) fn bind_unix(path: &Path, mode: Option<u32>) -> Result<UnixListener, BindError> {
    let failed = |source| BindError::UnixSocket { path: path.to_owned(), source };
    let is_socket = std::fs::symlink_metadata(path).is_ok_and(|meta| meta.file_type().is_socket());
    if is_socket && UnixStream::connect(path).is_err() {
        remove_socket(path).map_err(failed)?;
    }
    let listener = UnixListener::bind(path).map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    if let Some(mode) = mode {
        let permissions = std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(path, permissions).map_err(failed)?;
    }
    Ok(listener)
}

#[expect(clippy::disallowed_methods, reason = "the edge owns the path of its socket")]
fn remove_socket(path: &Path) -> io::Result<()> {
    std::fs::remove_file(path)
}

/// The path of a socket, removed when the server is gone.
#[derive(Debug)]
pub(super) struct SocketPath(pub(super) PathBuf);

impl Drop for SocketPath {
    fn drop(&mut self) {
        // Whoever removed it before has done us no harm.
        let _ = remove_socket(&self.0);
    }
}

/// Accepts connections for ever and hands them to the workers in turn.
pub(super) async fn accept(listener: Watched, worker: Arc<Worker>, hand_over: HandOver) {
    let mut is_short = false;
    loop {
        match next(&listener).await {
            Ok(accepted) => {
                is_short = false;
                admit(accepted, &worker, &hand_over);
            }
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(error) => {
                // Most likely no descriptor is left. Said once, until it works again.
                if !std::mem::replace(&mut is_short, true) {
                    tracing::warn!(%error, "connections cannot be accepted at the moment");
                }
                tokio::time::sleep(BREATHER).await;
            }
        }
    }
}

/// The next connection, taken away from the runtime that watches the listener: another may serve it.
async fn next(listener: &Watched) -> io::Result<Accepted> {
    match listener {
        Watched::Tcp(listener) => {
            let (stream, peer) = listener.accept().await?;
            Ok(accepted_tcp(stream.into_std()?, peer, None))
        }
        Watched::Tls(listener, acceptor) => {
            let (stream, peer) = listener.accept().await?;
            Ok(accepted_tcp(stream.into_std()?, peer, Some(acceptor.clone())))
        }
        Watched::Unix(listener) => {
            let (stream, _) = listener.accept().await?;
            let stream = stream.into_std()?;
            let local = stream.local_addr().ok();
            let path = local.as_ref().and_then(|address| address.as_pathname());
            let address = format!("{}:0", path.map_or("".into(), Path::to_string_lossy));
            let origin = Origin {
                address: address.clone(),
                local_address: address,
                descriptor: i64::from(stream.as_raw_fd()),
                is_unix: true,
            };
            Ok(Accepted { stream: Stream::Unix(stream), origin, tls: None })
        }
    }
}

fn accepted_tcp(stream: TcpStream, peer: SocketAddr, tls: Option<TlsAcceptor>) -> Accepted {
    let local = stream.local_addr();
    let origin = Origin {
        address: peer.to_string(),
        local_address: local.map_or_else(|_| String::new(), |address| address.to_string()),
        descriptor: i64::from(stream.as_raw_fd()),
        is_unix: false,
    };
    Accepted { stream: Stream::Tcp(stream), origin, tls }
}

fn admit(mut accepted: Accepted, worker: &Worker, hand_over: &HandOver) {
    let shared = &worker.shared;
    if !shared.may_enter() {
        worker.tally.add(Counter::ConnectionsRejected, 1);
        let words = b"-ERR max number of clients reached\r\n";
        match &mut accepted.stream {
            // One who speaks TLS would not understand.
            Stream::Tcp(stream) if accepted.tls.is_none() => dismiss(stream, words),
            Stream::Tcp(_) => {}
            Stream::Unix(stream) => dismiss(stream, words),
        }
        return;
    }
    let keepalive_s = setting(&shared.engine.settings.tcp_keepalive);
    let prepared = match &accepted.stream {
        Stream::Tcp(stream) => prepare(stream, keepalive_s),
        Stream::Unix(_) => Ok(()),
    };
    if let Err(error) = prepared {
        tracing::debug!(%error, "a connection was gone at once");
        shared.has_left();
    } else if !hand_over.give(accepted) {
        shared.has_left();
    }
}

/// Sets a socket up. `keepalive_s` is after how many seconds of silence the other side is asked whether it is there; 0 for never.
fn prepare(stream: &TcpStream, keepalive_s: usize) -> io::Result<()> {
    // Replies are written whole: waiting for more to send with them would only delay them.
    stream.set_nodelay(true)?;
    if keepalive_s == 0 {
        return Ok(());
    }
    let keepalive_s = (keepalive_s as u64).min(KEEPALIVE_MAX_S);
    let keepalive = TcpKeepalive::new()
        .with_time(Duration::from_secs(keepalive_s))
        .with_interval(Duration::from_secs((keepalive_s / 3).max(1)))
        .with_retries(3);
    SockRef::from(stream).set_tcp_keepalive(&keepalive)
}

/// Writes as much of `bytes` as a socket takes at once: for those who are not let in.
fn dismiss(stream: &mut impl io::Write, bytes: &[u8]) {
    // They are not let in whether they read this or not.
    let _ = stream.write(bytes);
}

//! Listening: ports and paths are taken once, and what arrives is handed to the workers in turn.
//!
//! A port is bound without `SO_REUSEPORT`: a second server on it is refused by the operating system, where it would else get half of
//! the connections.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tokio_rustls::TlsAcceptor;

use super::connection::dismiss;
use super::worker::Shared;
use super::{BindError, HandOver};

/// Connections that the operating system holds for us until they are accepted.
const BACKLOG: i32 = 1024;

/// How long accepting pauses when no descriptor is left.
const BREATHER: Duration = Duration::from_millis(50);

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
pub(super) enum Accepted {
    Tcp(TcpStream, SocketAddr),
    Tls(TcpStream, SocketAddr, TlsAcceptor),
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
pub(super) async fn accept(listener: Watched, shared: Arc<Shared>, hand_over: HandOver) {
    let mut is_short = false;
    loop {
        match next(&listener).await {
            Ok(accepted) => {
                is_short = false;
                admit(accepted, &shared, &hand_over);
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
            Ok(Accepted::Tcp(stream.into_std()?, peer))
        }
        Watched::Tls(listener, acceptor) => {
            let (stream, peer) = listener.accept().await?;
            Ok(Accepted::Tls(stream.into_std()?, peer, acceptor.clone()))
        }
        Watched::Unix(listener) => {
            let (stream, _) = listener.accept().await?;
            Ok(Accepted::Unix(stream.into_std()?))
        }
    }
}

fn admit(mut accepted: Accepted, shared: &Shared, hand_over: &HandOver) {
    if !shared.may_enter() {
        let words = b"-ERR max number of clients reached\r\n";
        match &mut accepted {
            Accepted::Tcp(stream, _) => dismiss(stream, words),
            Accepted::Unix(stream) => dismiss(stream, words),
            // One who speaks TLS would not understand.
            Accepted::Tls(..) => {}
        }
        return;
    }
    if let Err(error) = prepare(&accepted) {
        tracing::debug!(%error, "a connection was gone at once");
        shared.has_left();
        return;
    }
    if !hand_over.give(accepted) {
        shared.has_left();
    }
}

fn prepare(accepted: &Accepted) -> io::Result<()> {
    let (Accepted::Tcp(stream, _) | Accepted::Tls(stream, _, _)) = accepted else {
        return Ok(());
    };
    // Replies are written whole: waiting for more to send with them would only delay them.
    stream.set_nodelay(true)?;
    let keepalive = TcpKeepalive::new()
        .with_time(Duration::from_secs(300))
        .with_interval(Duration::from_secs(100))
        .with_retries(3);
    SockRef::from(stream).set_tcp_keepalive(&keepalive)
}

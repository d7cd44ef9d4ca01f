//! Connections that come in: how many, from whom, how often, and for how long before they have
//! shown who they are.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use futures::Stream;
use futures::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;
use tonic::body::Body;
use tonic::codegen::{Service, http};
use tonic::transport::Server;
use tonic::transport::server::Connected;

use super::link::{CONNECTION_WINDOW, STREAM_WINDOW};
use super::{Shared, TARGET, lock};

/// Headers of a call, all together; a peer sends a handful of short ones.
const HEADERS_MAX: u32 = 16 << 10;
/// After a failed accept (no file descriptor left, say), before the next one.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Addresses whose handshakes are counted at a time.
const RATED_ADDRESSES_MAX: usize = 4096;

/// Serves `service` on a listener until the transport closes.
pub(super) async fn serve<S>(shared: Arc<Shared>, listener: TcpListener, service: S)
where
    S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible>
        + Clone
        + Send
        + 'static,
    S::Future: Send,
{
    let closed = shared.closed();
    let node = shared.identity.node;
    let server = Server::builder()
        .http2_keepalive_interval(Some(shared.timing.keep_alive))
        .http2_keepalive_timeout(Some(shared.timing.keep_alive_answer))
        .http2_max_header_list_size(HEADERS_MAX)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_concurrent_streams(shared.limits.streams);
    let served = server.serve_with_incoming_shutdown(service, incoming(shared, listener), closed);
    if let Err(error) = served.await {
        tracing::error!(target: TARGET, %node, "No longer accepting peers: {error}");
    }
}

/// The connections that a listener accepts.
fn incoming(
    shared: Arc<Shared>,
    listener: TcpListener,
) -> impl Stream<Item = io::Result<Guarded>> + Send {
    futures::stream::unfold((shared, listener), |(shared, listener)| async move {
        let guarded = accept(&shared, &listener).await;
        Some((Ok(guarded), (shared, listener)))
    })
}

/// The next connection for which there is room.
async fn accept(shared: &Shared, listener: &TcpListener) -> Guarded {
    loop {
        match listener.accept().await {
            Ok((stream, remote)) => {
                let slot = Arc::clone(&shared.connections).try_acquire_owned().ok();
                let share = shared.strangers.take(remote.ip());
                if let (Some(slot), Some(share)) = (slot, share) {
                    // Without it messages are late, not lost.
                    let _ = stream.set_nodelay(true);
                    return Guarded::new(shared, stream, remote, slot, share);
                }
                shared.connections_refused.fetch_add(1, Ordering::Relaxed);
            }
            Err(error) => {
                if shared.complaints.passes() {
                    let node = shared.identity.node;
                    tracing::warn!(target: TARGET, %node, "Cannot accept a connection: {error}");
                }
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// The connection that a request came on, in the request's extensions. One that nobody admits ends
/// after the time for a handshake: the peers' service admits with the greeting, another one on the
/// same port once it knows whom it serves.
#[derive(Clone, Debug)]
pub struct Connection {
    remote: SocketAddr,
    /// Its place among those of its address that nobody has admitted yet.
    stranger: Arc<Mutex<Option<Share>>>,
}

impl Connection {
    /// The other end's address.
    pub(super) fn address(&self) -> IpAddr {
        self.remote.ip()
    }

    /// The other end has shown who it is: the connection may stay.
    pub fn admit(&self) {
        drop(lock(&self.stranger).take());
    }
}

/// A socket that fails when the transport closes, or if nobody has admitted the connection in time.
/// Without it, a client that says nothing, or nothing of sense, would keep its place for ever.
struct Guarded {
    stream: TcpStream,
    connection: Connection,
    /// Resolves to the reason to fail.
    end: BoxFuture<'static, io::ErrorKind>,
    ended: Option<io::ErrorKind>,
    _slot: OwnedSemaphorePermit,
}

impl Guarded {
    fn new(
        shared: &Shared,
        stream: TcpStream,
        remote: SocketAddr,
        slot: OwnedSemaphorePermit,
        share: Share,
    ) -> Self {
        let stranger = Arc::new(Mutex::new(Some(share)));
        let connection = Connection { remote, stranger: Arc::clone(&stranger) };
        let (closed, limit) = (shared.closed(), shared.timing.handshake);
        let end = Box::pin(async move {
            let late = async {
                tokio::time::sleep(limit).await;
                if lock(&stranger).is_none() {
                    std::future::pending::<()>().await;
                }
            };
            tokio::select! {
                () = closed => io::ErrorKind::ConnectionAborted,
                () = late => io::ErrorKind::TimedOut,
            }
        });
        Self { stream, connection, end, ended: None, _slot: slot }
    }

    fn check(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        if self.ended.is_none()
            && let Poll::Ready(reason) = self.end.as_mut().poll(context)
        {
            self.ended = Some(reason);
        }
        self.ended.map_or(Ok(()), |reason| Err(reason.into()))
    }
}

impl Drop for Guarded {
    /// Requests that came on it may still know the connection.
    fn drop(&mut self) {
        self.connection.admit();
    }
}

impl Connected for Guarded {
    type ConnectInfo = Connection;

    fn connect_info(&self) -> Connection {
        self.connection.clone()
    }
}

impl AsyncRead for Guarded {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check(context)?;
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Guarded {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.check(context)?;
        Pin::new(&mut self.stream).poll_write(context, buffer)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.check(context)?;
        Pin::new(&mut self.stream).poll_write_vectored(context, buffers)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check(context)?;
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// Places of a kind of which each address holds a few at most, so that none can take them all. There is an entry for each address that
/// holds one: as many as there are places.
#[derive(Debug)]
pub(super) struct Shares {
    each_max: usize,
    held: Mutex<BTreeMap<IpAddr, usize>>,
}

/// A place that an address holds until this is dropped.
#[derive(Debug)]
pub(super) struct Share {
    shares: Arc<Shares>,
    address: IpAddr,
}

impl Shares {
    pub(super) fn new(each_max: usize) -> Arc<Self> {
        Arc::new(Self { each_max, held: Mutex::default() })
    }

    /// A place for this address, unless it has its share.
    pub(super) fn take(self: &Arc<Self>, address: IpAddr) -> Option<Share> {
        let mut held = lock(&self.held);
        let count = held.get(&address).copied().unwrap_or_default();
        if count >= self.each_max {
            return None;
        }
        held.insert(address, count + 1);
        Some(Share { shares: Arc::clone(self), address })
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        if let Entry::Occupied(mut held) = lock(&self.shares.held).entry(self.address) {
            *held.get_mut() -= 1;
            if *held.get() == 0 {
                held.remove();
            }
        }
    }
}

/// How many handshakes each address may begin: a bucket of tokens for each that has used some.
#[derive(Debug)]
pub(super) struct HandshakeRates {
    per_second: u32,
    buckets: BTreeMap<IpAddr, Bucket>,
}

#[derive(Debug)]
struct Bucket {
    tokens: f64,
    filled: Instant,
}

impl HandshakeRates {
    /// `per_second` in the long run, twice that at once.
    pub(super) fn new(per_second: u32) -> Self {
        Self { per_second, buckets: BTreeMap::new() }
    }

    /// Takes a token; says whether there was one.
    pub(super) fn take(&mut self, address: IpAddr, now: Instant) -> bool {
        let (rate, capacity) = (f64::from(self.per_second), 2.0 * f64::from(self.per_second));
        if self.buckets.len() >= RATED_ADDRESSES_MAX && !self.buckets.contains_key(&address) {
            // An address whose bucket is full again need not be remembered.
            self.buckets.retain(|_, bucket| bucket.at(now, rate) < capacity);
            if self.buckets.len() >= RATED_ADDRESSES_MAX {
                return false;
            }
        }
        let bucket =
            self.buckets.entry(address).or_insert(Bucket { tokens: capacity, filled: now });
        bucket.tokens = bucket.at(now, rate).min(capacity);
        bucket.filled = now;
        let allowed = bucket.tokens >= 1.0;
        if allowed {
            bucket.tokens -= 1.0;
        }
        allowed
    }
}

impl Bucket {
    fn at(&self, now: Instant, rate: f64) -> f64 {
        self.tokens + now.saturating_duration_since(self.filled).as_secs_f64() * rate
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn an_address_that_comes_too_often_has_to_wait_and_harms_no_other() {
        let (now, one, two) = (Instant::now(), [127, 0, 0, 1], [127, 0, 0, 2]);
        let mut rates = HandshakeRates::new(5);
        let mut take = |address: [u8; 4], now| rates.take(IpAddr::from(address), now);
        assert!((0..10).all(|_| take(one, now)));
        assert!(!take(one, now));
        assert!(take(two, now));
        let later = now + Duration::from_millis(210);
        assert!(take(one, later) && !take(one, later), "one more after a fifth of a second");
    }

    #[test]
    fn an_address_that_holds_its_share_gets_no_more_and_takes_none_from_others() {
        let shares = Shares::new(2);
        let [one, two] = [[127_u8, 0, 0, 1], [127, 0, 0, 2]].map(IpAddr::from);
        let held = [one, one].map(|address| shares.take(address).unwrap());
        assert!(shares.take(one).is_none());
        assert!(shares.take(two).is_some());
        let [first, second] = held;
        drop(first);
        let third = shares.take(one);
        assert!(third.is_some() && shares.take(one).is_none());
        drop((third, second));
        assert!(lock(&shares.held).is_empty(), "nobody is remembered for nothing");
    }

    #[test]
    fn the_number_of_addresses_that_are_remembered_is_bounded() {
        let now = Instant::now();
        let mut rates = HandshakeRates::new(1);
        let address = |number: usize| {
            IpAddr::from(Ipv4Addr::from(u32::try_from(number).unwrap().to_be_bytes()))
        };
        assert!((0..RATED_ADDRESSES_MAX).all(|number| rates.take(address(number), now)));
        assert!(!rates.take(address(RATED_ADDRESSES_MAX), now));
        assert!(rates.take(address(RATED_ADDRESSES_MAX), now + Duration::from_secs(2)));
        assert_eq!(rates.buckets.len(), 1);
    }
}

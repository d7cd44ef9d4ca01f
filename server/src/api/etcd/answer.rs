//! The clients' port as one service, and the last thing that happens to an answer there.
//!
//! An answer keeps its room (see [`super::range`]) until its body is gone, which is after the handler that took it. And
//! the refusals that the gRPC library makes by itself are put as etcd's clients know them from etcd's own library: a
//! message above the limit would else come as `OUT_OF_RANGE`, which they read as a revision that is compacted.
//!
//! Nearly all requests are for `KV`. They do not take the way through the library's router, which costs about as much as carrying
//! them out.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use http_body::{Body as HttpBody, Frame, SizeHint};
use tonic::body::Body;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::codegen::http::{HeaderMap, HeaderValue, Request, Response};
use tonic::codegen::{Bytes, Service};
use tonic::{Code, Status};

use super::{DECODE_MAX, SERVICES, range::Room};

/// Put into the extensions of an answer: the room that it takes.
#[derive(Clone, Debug)]
pub(super) struct Takes(pub(super) Arc<Room>);

/// The paths of `KV`'s methods begin with this.
const KV: &str = "/etcdserverpb.KV/";

/// What the clients' port serves.
#[derive(Clone, Debug)]
pub(crate) struct ClientPort<K, O> {
    /// `KV`.
    pub(crate) kv: K,
    /// All else.
    pub(crate) others: O,
}

/// An answer under way.
#[derive(Debug)]
pub(crate) struct Finishing<K, O> {
    path: Option<PathAndQuery>,
    answer: Answering<K, O>,
}

#[derive(Debug)]
enum Answering<K, O> {
    Kv(K),
    Other(O),
}

impl<K, O> Service<Request<Body>> for ClientPort<K, O>
where
    K: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
    O: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
    K::Future: Unpin,
    O::Future: Unpin,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Finishing<K::Future, O::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        ready!(self.kv.poll_ready(cx))?;
        self.others.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let path = request.uri().path_and_query().cloned();
        let answer = if request.uri().path().starts_with(KV) {
            Answering::Kv(self.kv.call(request))
        } else {
            Answering::Other(self.others.call(request))
        };
        Finishing { path, answer }
    }
}

impl<K, O> Future for Finishing<K, O>
where
    K: Future<Output = Result<Response<Body>, Infallible>> + Unpin,
    O: Future<Output = Result<Response<Body>, Infallible>> + Unpin,
{
    type Output = Result<Response<Body>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Ok(response) = ready!(match &mut self.answer {
            Answering::Kv(answer) => Pin::new(answer).poll(cx),
            Answering::Other(answer) => Pin::new(answer).poll(cx),
        });
        let path = self.path.as_ref().map_or("", PathAndQuery::path);
        Poll::Ready(Ok(finish(path, response)))
    }
}

fn finish(path: &str, mut response: Response<Body>) -> Response<Body> {
    reword(path, response.headers_mut());
    match response.extensions_mut().remove::<Takes>() {
        Some(Takes(room)) => response.map(|body| Body::new(Roomy { body, _room: room })),
        None => response,
    }
}

/// A body with the room that it takes.
struct Roomy {
    body: Body,
    _room: Arc<Room>,
}

impl HttpBody for Roomy {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The library's own refusals, in the words of etcd's library. Ours begin as all of etcd's do.
fn reword(path: &str, headers: &mut HeaderMap) {
    let Some(status) = Status::from_header_map(headers) else {
        return;
    };
    let (code, message) = match status.code() {
        Code::OutOfRange if !status.message().starts_with("etcdserver:") => (
            Code::ResourceExhausted,
            format!("grpc: received message larger than max ({DECODE_MAX} bytes)"),
        ),
        Code::Unimplemented if status.message().is_empty() => {
            (Code::Unimplemented, unknown_method(path))
        }
        _ => return,
    };
    // A path may hold what a header may not: the code says enough then.
    if let Ok(message) = HeaderValue::from_str(&message) {
        headers.insert(Status::GRPC_STATUS, HeaderValue::from(i32::from(code)));
        headers.insert(Status::GRPC_MESSAGE, message);
    }
}

fn unknown_method(path: &str) -> String {
    let (service, method) = path.trim_start_matches('/').split_once('/').unwrap_or((path, ""));
    if SERVICES.contains(&service) {
        format!("unknown method {method} for service {service}")
    } else {
        format!("unknown service {service}")
    }
}

#[cfg(test)]
mod tests {
    use super::super::range::RangeReads;
    use super::*;

    /// Answers every request with a body, and says what is left of the way.
    #[derive(Clone)]
    struct Says(&'static str);

    impl Service<Request<Body>> for Says {
        type Response = Response<Body>;
        type Error = Infallible;
        type Future = std::future::Ready<Result<Response<Body>, Infallible>>;

        fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, _request: Request<Body>) -> Self::Future {
            let mut response = Response::new(Body::empty());
            response.headers_mut().insert("said-by", HeaderValue::from_static(self.0));
            std::future::ready(Ok(response))
        }
    }

    #[tokio::test]
    async fn requests_for_keys_take_the_short_way_and_all_others_the_router() {
        let mut port = ClientPort { kv: Says("kv"), others: Says("router") };
        for (path, by) in [
            ("/etcdserverpb.KV/Put", "kv"),
            ("/etcdserverpb.KV/Unheard", "kv"),
            ("/etcdserverpb.KVV/Put", "router"),
            ("/grpc.health.v1.Health/Check", "router"),
            ("/", "router"),
        ] {
            let request = Request::builder().uri(path).body(Body::empty()).unwrap();
            let Ok(response) = port.call(request).await;
            assert_eq!(response.headers()["said-by"], by, "{path}");
        }
    }

    #[tokio::test]
    async fn an_answer_keeps_its_room_until_its_body_is_gone() {
        const WEIGHT: usize = 1 << 20;
        let reads = Arc::new(RangeReads::with_budget(WEIGHT));
        let mut room = reads.room();
        room.grow_to(WEIGHT).unwrap();
        let mut response = Response::new(Body::new(axum::body::Body::from("answer")));
        response.extensions_mut().insert(Takes(Arc::new(room)));
        let response = finish("/", response);
        assert!(reads.room().grow_to(WEIGHT).is_err(), "taken");
        let (head, body) = response.into_parts();
        drop(head);
        assert!(reads.room().grow_to(WEIGHT).is_err(), "still taken");
        drop(body);
        assert!(reads.room().grow_to(WEIGHT).is_ok(), "given back");
    }

    #[test]
    fn only_the_librarys_own_refusals_are_reworded() {
        for status in [
            Status::out_of_range("etcdserver: mvcc: required revision is a future revision"),
            Status::unimplemented("not yet"),
            Status::invalid_argument(""),
        ] {
            let mut headers = HeaderMap::new();
            status.add_header(&mut headers).unwrap();
            let before = headers.clone();
            reword("/etcdserverpb.KV/Range", &mut headers);
            assert_eq!(headers, before, "{status}");
        }
    }

    #[test]
    fn unknown_methods_and_services_are_named() {
        for (path, text) in [
            ("/etcdserverpb.KV/Txn", "unknown method Txn for service etcdserverpb.KV"),
            ("/etcdserverpb.Watch/Watch", "unknown service etcdserverpb.Watch"),
            ("/", "unknown service /"),
        ] {
            assert_eq!(unknown_method(path), text);
        }
    }
}

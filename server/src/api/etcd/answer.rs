//! The last thing that happens to an answer on the clients' port.
//!
//! An answer keeps its room (see [`super::range`]) until its body is gone, which is after the handler that took it. And
//! the refusals that the gRPC library makes by itself are put as etcd's clients know them from etcd's own library: a
//! message above the limit would else come as `OUT_OF_RANGE`, which they read as a revision that is compacted.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderValue};
use axum::middleware::Next;
use axum::response::Response;
use http_body::{Body as HttpBody, Frame, SizeHint};
use tonic::{Code, Status};

use super::{DECODE_MAX, SERVICES, range::Room};

/// Put into the extensions of an answer: the room that it takes.
#[derive(Clone, Debug)]
pub(super) struct Takes(pub(super) Arc<Room>);

/// Passes a request on, and finishes the answer.
pub(crate) async fn finish(request: Request, next: Next) -> Response {
    let uri = request.uri().clone();
    let mut response = next.run(request).await;
    reword(uri.path(), response.headers_mut());
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
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
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
    use axum::Router;
    use axum::routing::get;
    use tonic::codegen::Service as _;

    use super::super::range::RangeReads;
    use super::*;

    #[tokio::test]
    async fn an_answer_keeps_its_room_until_its_body_is_gone() {
        const WEIGHT: usize = 1 << 20;
        let reads = Arc::new(RangeReads::with_budget(WEIGHT));
        let ranges = Arc::clone(&reads);
        let handler = move || async move {
            let mut room = ranges.room();
            room.grow_to(WEIGHT).unwrap();
            let mut response = Response::new(Body::from("answer"));
            response.extensions_mut().insert(Takes(Arc::new(room)));
            response
        };
        let mut router =
            Router::new().route("/", get(handler)).layer(axum::middleware::from_fn(finish));
        let response = router.call(Request::new(Body::empty())).await.unwrap();
        assert!(reads.room().grow_to(WEIGHT).is_err(), "taken");
        let (head, body) = response.into_parts();
        drop(head);
        assert!(reads.room().grow_to(WEIGHT).is_err(), "still taken");
        let bytes = axum::body::to_bytes(body, 100).await.unwrap();
        assert_eq!(&bytes[..], b"answer");
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

//! A layer that keeps the responses of an axum application: `GET`s are answered from the cache, and one request at a time makes a
//! response that is missing.
//!
//! `cargo run -p distributed-cache --example axum_response_cache`
#![expect(clippy::print_stdout, reason = "an example that prints what happens")]

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::{Method, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use distributed_cache::cache::{Cache, Load};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// The most of a response that is kept.
const BODY_MAX: usize = 1 << 20;

/// What cannot be kept is answered as it is.
enum NotKept {
    Response(Box<Response>),
    Broken,
}

/// Answers successful `GET`s from the cache. The head of what is kept is the content type alone.
async fn cached(State(cache): State<Cache>, request: Request, next: Next) -> Response {
    if request.method() != Method::GET || request.headers().contains_key(header::AUTHORIZATION) {
        return next.run(request).await;
    }
    let key = format!("response:{}", request.uri());
    let how = Load::for_ttl(Duration::from_secs(30)).stale(Duration::from_secs(30));
    let load = || async move {
        let response = next.run(request).await;
        if response.status() != StatusCode::OK {
            return Err(NotKept::Response(Box::new(response)));
        }
        let (head, body) = response.into_parts();
        let kind = head.headers.get(header::CONTENT_TYPE);
        let mut kept = kind.map_or(Vec::new(), |kind| kind.as_bytes().to_vec());
        kept.push(b'\n');
        kept.extend(to_bytes(body, BODY_MAX).await.map_err(|_too_large| NotKept::Broken)?);
        Ok(Some(kept))
    };
    match cache.get_or_load_async(key.as_bytes(), &how, load).await {
        Ok(kept) => {
            let kept = kept.unwrap_or_default();
            let end = kept.iter().position(|byte| *byte == b'\n').unwrap_or(0);
            let body = kept.get(end + 1..).unwrap_or_default().to_vec();
            ([(header::CONTENT_TYPE, kept[..end].to_vec())], Body::from(body)).into_response()
        }
        Err(NotKept::Response(response)) => *response,
        Err(NotKept::Broken) => StatusCode::BAD_GATEWAY.into_response(),
    }
}

async fn fetch(address: std::net::SocketAddr, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut response = String::new();
    stream.read_to_string(&mut response).await?;
    Ok(response)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let cache = Cache::builder().memory_limit(64 << 20).build();
    let made = Arc::new(AtomicU32::new(0));
    let counter = Arc::clone(&made);
    let slow_page = move || async move {
        counter.fetch_add(1, Ordering::SeqCst);
        tokio::time::sleep(Duration::from_millis(50)).await;
        "a page that takes its time"
    };
    let application = Router::new()
        .route("/page", get(slow_page))
        .layer(from_fn_with_state(cache.clone(), cached));
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let server = tokio::spawn(async move { axum::serve(listener, application).await });

    let requests: Vec<_> =
        (0..20).map(|_| tokio::spawn(async move { fetch(address, "/page").await })).collect();
    for request in requests {
        let response = request.await??;
        assert!(response.starts_with("HTTP/1.1 200"), "{response}");
        assert!(response.contains("content-type: text/plain"), "{response}");
        assert!(response.ends_with("a page that takes its time"), "{response}");
    }
    println!("20 requests at once, the page was made {} time", made.load(Ordering::SeqCst));
    assert_eq!(made.load(Ordering::SeqCst), 1);

    let missing = fetch(address, "/missing").await?;
    assert!(missing.starts_with("HTTP/1.1 404"), "{missing}");
    assert_eq!(cache.len(), 1, "errors are not kept");
    assert_eq!(cache.invalidate_prefix(b"response:/page"), 1);
    fetch(address, "/page").await?;
    println!("after an invalidation: {} times", made.load(Ordering::SeqCst));
    assert_eq!(made.load(Ordering::SeqCst), 2);
    server.abort();
    Ok(())
}

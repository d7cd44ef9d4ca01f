//! Sessions of a web application, kept in the cache: a cookie names one, each use prolongs it, and signing out ends it.
//!
//! `cargo run -p distributed-cache --example axum_sessions`
#![expect(clippy::print_stdout, reason = "an example that prints what happens")]

use std::error::Error;
use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use distributed_cache::cache::{Cache, Typed};
use rand_core::Rng as _;
use rand_core::SeedableRng as _;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// How long a session lives without being used.
const IDLE: Duration = Duration::from_secs(1800);

#[derive(Debug, Serialize, Deserialize)]
struct Session {
    user: String,
    visits: u32,
}

#[derive(Clone)]
struct Sessions {
    kept: Typed<Session>,
}

/// A name that nobody can guess: 128 bits of the operating system's randomness.
fn new_name() -> std::io::Result<String> {
    use std::io::Read as _;
    let mut seed = [0; 32];
    #[expect(clippy::disallowed_methods, reason = "where randomness comes from")]
    std::fs::File::open("/dev/urandom")?.read_exact(&mut seed)?;
    let mut random = rand_chacha::ChaCha20Rng::from_seed(seed);
    Ok(format!("{:016x}{:016x}", random.next_u64(), random.next_u64()))
}

fn name_in(headers: &HeaderMap) -> Option<String> {
    let cookies = headers.get(header::COOKIE)?.to_str().ok()?;
    let mut cookies = cookies.split("; ");
    cookies.find_map(|cookie| cookie.strip_prefix("session=")).map(str::to_owned)
}

async fn sign_in(State(sessions): State<Sessions>, user: String) -> Response {
    let session = Session { user, visits: 0 };
    let Ok(name) = new_name() else { return StatusCode::SERVICE_UNAVAILABLE.into_response() };
    match sessions.kept.set(&name, &session, Some(IDLE)) {
        Ok(()) => {
            let cookie = format!("session={name}; HttpOnly; SameSite=Lax");
            ([(header::SET_COOKIE, cookie)], "welcome").into_response()
        }
        Err(_full) => StatusCode::SERVICE_UNAVAILABLE.into_response(),
    }
}

async fn visit(State(sessions): State<Sessions>, headers: HeaderMap) -> Response {
    let name = name_in(&headers).unwrap_or_default();
    let Ok(Some(mut session)) = sessions.kept.get(&name) else {
        return (StatusCode::UNAUTHORIZED, "who are you?").into_response();
    };
    session.visits += 1;
    if sessions.kept.set(&name, &session, Some(IDLE)).is_err() {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    }
    format!("{}, visit {}", session.user, session.visits).into_response()
}

async fn sign_out(State(sessions): State<Sessions>, headers: HeaderMap) -> &'static str {
    sessions.kept.delete(&name_in(&headers).unwrap_or_default());
    "bye"
}

async fn request(
    address: SocketAddr,
    line: &str,
    cookie: &str,
    body: &str,
) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    let length = body.len();
    let request = format!(
        "{line} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncookie: {cookie}\r\n\
         content-length: {length}\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes()).await?;
    let mut response = String::new();
    stream.read_to_string(&mut response).await?;
    Ok(response)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let cache = Cache::builder().memory_limit(64 << 20).background().build();
    let application = Router::new()
        .route("/sign-in", post(sign_in))
        .route("/", get(visit))
        .route("/sign-out", post(sign_out))
        .with_state(Sessions { kept: cache.typed("session") });
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let server = tokio::spawn(async move { axum::serve(listener, application).await });

    let welcome = request(address, "POST /sign-in", "", "ada").await?;
    let cookie = welcome.lines().find_map(|line| line.strip_prefix("set-cookie: "));
    let cookie = cookie.and_then(|cookie| cookie.split(';').next()).ok_or("no cookie")?.to_owned();
    for visit in 1..=3 {
        let page = request(address, "GET /", &cookie, "").await?;
        let last = page.lines().last().unwrap_or_default().to_owned();
        println!("{last}");
        assert_eq!(last, format!("ada, visit {visit}"));
    }
    let stranger = request(address, "GET /", "session=guessed", "").await?;
    assert!(stranger.starts_with("HTTP/1.1 401"), "{stranger}");
    request(address, "POST /sign-out", &cookie, "").await?;
    let after = request(address, "GET /", &cookie, "").await?;
    println!("after signing out: {}", after.lines().next().unwrap_or_default());
    assert!(after.starts_with("HTTP/1.1 401"), "{after}");
    assert!(cache.is_empty());
    server.abort();
    Ok(())
}

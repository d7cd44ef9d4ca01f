//! A client that is at home with any of the nodes.
//!
//! It stays with the endpoint that answered last and goes to the next one when that fails. All that it sends may be sent
//! twice without harm (a put of the same value, a delete, a read), so it tries again whatever went wrong, for a while.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use lattice::client::{Client, ClientError};
use lattice::proto::etcdserverpb::{DeleteRangeRequest, PutRequest, RangeRequest, RangeResponse};
use lattice::url::Url;
use tokio::sync::Mutex;

/// One attempt. An election takes a second or two, and a request waits for it.
const ATTEMPT: Duration = Duration::from_secs(5);
/// All attempts together.
const PATIENCE: Duration = Duration::from_secs(30);
/// Between two attempts.
const PAUSE: Duration = Duration::from_millis(100);

/// A client of all the endpoints. Clones share the connection.
#[derive(Clone, Debug)]
pub struct KvClient {
    endpoints: Arc<Vec<Url>>,
    current: Arc<Mutex<Client>>,
}

impl KvClient {
    /// Connects to the first endpoint that answers.
    pub async fn connect(endpoints: Vec<Url>) -> Result<Self> {
        let client = Client::connect(&endpoints, ATTEMPT).await?;
        Ok(Self { endpoints: Arc::new(endpoints), current: Arc::new(Mutex::new(client)) })
    }

    /// The endpoint that the client is connected to.
    pub async fn endpoint(&self) -> Url {
        self.current.lock().await.endpoint().clone()
    }

    /// Sets a key.
    pub async fn put(&self, key: &str, value: &str) -> Result<()> {
        let request = PutRequest {
            key: key.to_owned().into(),
            value: value.to_owned().into(),
            ..PutRequest::default()
        };
        let put = |client: Client| {
            let request = request.clone();
            async move { client.put(request).await.map(drop) }
        };
        self.again_and_again(put).await.with_context(|| format!("cannot put {key}"))
    }

    /// The value of a key.
    pub async fn get(&self, key: &str) -> Result<Option<String>> {
        let request = RangeRequest { key: key.to_owned().into(), ..RangeRequest::default() };
        Ok(self.range(request, key).await?.into_values().next())
    }

    /// All keys that begin with `prefix`, which is not empty and ends with an ASCII letter or sign.
    pub async fn list(&self, prefix: &str) -> Result<BTreeMap<String, String>> {
        let mut end = prefix.as_bytes().to_vec();
        if let Some(last) = end.last_mut() {
            *last += 1;
        }
        let request = RangeRequest {
            key: prefix.to_owned().into(),
            range_end: end.into(),
            ..RangeRequest::default()
        };
        self.range(request, prefix).await
    }

    /// Deletes a key.
    pub async fn delete(&self, key: &str) -> Result<()> {
        let request =
            DeleteRangeRequest { key: key.to_owned().into(), ..DeleteRangeRequest::default() };
        let delete = |client: Client| {
            let request = request.clone();
            async move { client.delete_range(request).await.map(drop) }
        };
        self.again_and_again(delete).await.with_context(|| format!("cannot delete {key}"))
    }

    async fn range(&self, request: RangeRequest, what: &str) -> Result<BTreeMap<String, String>> {
        let range = |client: Client| {
            let request = request.clone();
            async move { client.range(request).await }
        };
        let response: RangeResponse =
            self.again_and_again(range).await.with_context(|| format!("cannot read {what}"))?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ok(response.kvs.iter().map(|kv| (text(&kv.key), text(&kv.value))).collect())
    }

    async fn again_and_again<T, Answer>(&self, request: impl Fn(Client) -> Answer) -> Result<T>
    where
        Answer: Future<Output = Result<T, ClientError>>,
    {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let client = self.current.lock().await.clone();
            let error = match request(client.clone()).await {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            if Instant::now() > deadline {
                bail!(error);
            }
            tokio::time::sleep(PAUSE).await;
            self.go_on_from(client.endpoint()).await;
        }
    }

    /// Moves to the next endpoint that can be connected to, unless another task has moved already.
    async fn go_on_from(&self, failed: &Url) {
        let mut current = self.current.lock().await;
        if current.endpoint() != failed {
            return;
        }
        let after = self.endpoints.iter().position(|url| url == failed).map_or(0, |at| at + 1);
        let mut others = self.endpoints.to_vec();
        others.rotate_left(after % self.endpoints.len());
        if let Ok(client) = Client::connect(&others, ATTEMPT).await {
            *current = client;
        }
    }
}

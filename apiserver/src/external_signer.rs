//! `--service-account-signing-endpoint`: who signs tokens of ServiceAccounts in place of this server, and tells it by
//! which keys they are verified. gRPC on a unix socket.

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use async_trait::async_trait;
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use generic::authn::service_account::{Claims, KeyError, PublishedKeys, TokenKeys, TokenSigner, VerifyingKey};
use hyper_util::rt::TokioIo;
use prometheus::{Gauge, HistogramVec, IntCounterVec, Registry};
use proto::externaljwt::{
    FetchKeysRequest, FetchKeysResponse, MetadataRequest, SignJwtRequest,
    external_jwt_signer_client::ExternalJwtSignerClient,
};
use runtime::{
    flags::format_duration,
    metrics::{Stability, counter_vec, float_gauge, histogram_vec},
};
use serde::Deserialize;
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint, Uri};

/// Time that keys may take.
const KEYS_WITHIN: Duration = Duration::from_secs(60);
/// Time that anything else may take.
const WITHIN: Duration = Duration::from_secs(10);
/// Pause between attempts to reach a signer that is not there yet.
const PAUSE: Duration = Duration::from_millis(200);
/// Time after which keys are asked for again that could not be had.
const AGAIN: Duration = Duration::from_secs(10);
/// Shortest time between two questions for keys: anybody may send a token of an unknown one.
const UNKNOWN: Duration = Duration::from_millis(100);
/// Longest id of a key.
const LONGEST_ID: usize = 1024;
/// Shortest life of tokens that a signer has to allow, seconds.
const SHORTEST_LIFE: i64 = 600;

/// Why a signer is of no use.
#[derive(Debug, thiserror::Error)]
pub enum SignerError {
    /// It does not answer, or answers wrongly.
    #[error("while setting up external-jwt-plugin: {0}")]
    Setup(String),
    /// It allows too short lives only.
    #[error("max token life supported by external-jwt-plugin ({0}s) is less than acceptable (min {SHORTEST_LIFE}s)")]
    TooShort(i64),
    /// The flags want longer lives than it allows.
    #[error(
        "service-account-max-token-expiration cannot be set longer than the token expiration supported by \
         service-account-signing-endpoint: {} > {}", format_duration(*.0), format_duration(*.1)
    )]
    TooLong(Duration, Duration),
    /// A metric name is taken.
    #[error("metrics: {0}")]
    Metrics(#[from] prometheus::Error),
}

struct SignerMetrics {
    fetched: Gauge,
    data: Gauge,
    fetches: IntCounterVec,
    signings: IntCounterVec,
    seconds: HistogramVec,
}

impl SignerMetrics {
    fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        use Stability::Alpha;
        let name = |name: &str| format!("apiserver_externaljwt_{name}");
        let buckets = [0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];
        Ok(Self {
            fetched: float_gauge(
                registry,
                Alpha,
                &name("fetch_keys_success_timestamp"),
                "Unix Timestamp in seconds of the last successful FetchKeys request",
            )?,
            data: float_gauge(
                registry,
                Alpha,
                &name("fetch_keys_data_timestamp"),
                "Unix Timestamp in seconds of the last successful FetchKeys data_timestamp value returned by the \
                 external signer",
            )?,
            fetches: counter_vec(
                registry,
                Alpha,
                &name("fetch_keys_request_total"),
                "Total attempts at syncing supported JWKs",
                &["code"],
            )?,
            signings: counter_vec(
                registry,
                Alpha,
                &name("sign_request_total"),
                "Total attempts at signing JWT",
                &["code"],
            )?,
            seconds: histogram_vec(
                registry,
                Alpha,
                &name("request_duration_seconds"),
                "Request duration and time for calls to external-jwt-signer",
                &["method", "code"],
                &buckets,
            )?,
        })
    }
}

/// Why a call failed: the code for metrics, and the text.
struct Failure {
    code: String,
    why: String,
}

impl Failure {
    fn own(why: String) -> Self {
        Self { code: "unknown-non-grpc".into(), why }
    }

    fn what(mut self, what: &str) -> Self {
        self.why = format!("{what}: {}", self.why);
        self
    }
}

fn code_of<T>(outcome: &Result<T, Failure>) -> String {
    outcome.as_ref().err().map_or_else(|| "OK".to_owned(), |failure| failure.code.clone())
}

/// Keys as they are known.
struct Known {
    all: Arc<Vec<VerifyingKey>>,
    /// Ids of those that are not published, by which nothing new is signed.
    hidden: Vec<String>,
    next: Instant,
    asked: Instant,
}

/// The signer.
pub(crate) struct ExternalSigner {
    client: ExternalJwtSignerClient<Channel>,
    metrics: SignerMetrics,
    known: ArcSwap<Known>,
    /// Held by who asks for keys; others wait for what it gets.
    asking: Mutex<()>,
}

/// A header of a token.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
#[derive(Default)]
struct Header {
    alg: String,
    kid: String,
    typ: String,
}

impl Header {
    fn parse(text: &str) -> Result<Self, String> {
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(text).map_err(|error| format!("while unwrapping header: {error}"))?;
        let header: Self =
            serde_json::from_slice(&bytes).map_err(|error| format!("while parsing header JSON: {error}"))?;
        match () {
            () if header.typ != "JWT" => Err("bad type".into()),
            () if header.kid.is_empty() => Err("key id missing".into()),
            () if header.kid.len() > LONGEST_ID => Err("key id longer than 1 kb".into()),
            () if !matches!(header.alg.as_str(), "RS256" | "ES256" | "ES384" | "ES512") => {
                Err(format!("bad signing algorithm {:?}", header.alg))
            }
            () => Ok(header),
        }
    }
}

fn read(answer: FetchKeysResponse, now: Instant) -> Result<(Known, f64), String> {
    let FetchKeysResponse { keys, data_timestamp, refresh_hint_seconds } = answer;
    let hint = u64::try_from(refresh_hint_seconds).ok().filter(|hint| *hint > 0);
    let hint = hint.ok_or_else(|| format!("found invalid refresh hint ({refresh_hint_seconds}s)"))?;
    if keys.is_empty() {
        return Err("found no keys".into());
    }
    let stamp = data_timestamp.filter(|stamp| (0..1_000_000_000).contains(&stamp.nanos));
    let stamp = stamp.ok_or("invalid data timestamp: invalid nil Timestamp")?;
    let (mut all, mut hidden) = (Vec::with_capacity(keys.len()), Vec::new());
    for key in keys {
        if key.key_id.is_empty() || key.key_id.len() > LONGEST_ID {
            return Err(format!("found invalid public key id {:?}", key.key_id));
        }
        if key.key.is_empty() {
            return Err("found empty public key".into());
        }
        let parsed = VerifyingKey::from_spki(&key.key);
        let parsed = parsed.map_err(|error| format!("while parsing external public keys: {error}"))?;
        if key.exclude_from_oidc_discovery {
            hidden.push(key.key_id.clone());
        }
        all.push(parsed.named(key.key_id));
    }
    // A year is longer than any server waits.
    let next = now + Duration::from_secs(hint.min(365 * 24 * 3600));
    let known = Known { all: Arc::new(all), hidden, next, asked: now };
    #[allow(clippy::cast_precision_loss)]
    let data = stamp.seconds as f64 + f64::from(stamp.nanos) / 1e9;
    Ok((known, data))
}

impl ExternalSigner {
    /// Reaches the signer and asks for its keys, which are followed until `stop`. Answers the longest life of tokens
    /// too, which is `wanted` if the flags want one.
    pub(crate) async fn start(
        socket: PathBuf,
        wanted: Duration,
        registry: &Registry,
        stop: &CancellationToken,
    ) -> Result<(Arc<Self>, Duration), SignerError> {
        let connector = tower::service_fn(move |_: Uri| {
            let path = socket.clone();
            async move { tokio::net::UnixStream::connect(path).await.map(TokioIo::new) }
        });
        let channel =
            Endpoint::from_static("http://localhost").connect_timeout(WITHIN).connect_with_connector_lazy(connector);
        let now = Instant::now();
        let none = Known { all: Arc::default(), hidden: Vec::new(), next: now, asked: now };
        let signer = Arc::new(Self {
            client: ExternalJwtSignerClient::new(channel),
            metrics: SignerMetrics::register(registry)?,
            known: ArcSwap::from_pointee(none),
            asking: Mutex::default(),
        });
        signer.first_keys().await?;
        let mut client = signer.client.clone();
        let allowed = signer.within("Metadata", WITHIN, client.metadata(MetadataRequest {})).await;
        let allowed = allowed.map_err(|failure| SignerError::Setup(failure.why))?.max_token_expiration_seconds;
        if allowed < SHORTEST_LIFE {
            return Err(SignerError::TooShort(allowed));
        }
        let longest = Duration::from_secs(u64::try_from(allowed).unwrap_or_default());
        if wanted > longest {
            return Err(SignerError::TooLong(wanted, longest));
        }
        tokio::spawn(stop.clone().run_until_cancelled_owned(Arc::clone(&signer).follow()));
        Ok((signer, if wanted.is_zero() { longest } else { wanted }))
    }

    /// The keys at the start: the signer may start at the same time.
    async fn first_keys(&self) -> Result<(), SignerError> {
        let until = Instant::now() + KEYS_WITHIN;
        loop {
            let Err(failure) = self.fetch().await else { return Ok(()) };
            if failure.code != "Unavailable" || Instant::now() + PAUSE > until {
                let why =
                    format!("while initially filling key cache: while performing initial cache fill: {}", failure.why);
                return Err(SignerError::Setup(why));
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn follow(self: Arc<Self>) {
        let mut next = self.known.load().next;
        loop {
            tokio::time::sleep_until(next.into()).await;
            next = match self.fetch().await {
                Ok(()) => self.known.load().next,
                Err(failure) => {
                    tracing::error!(
                        "when syncing supported public keys(Stale set of keys will be supported): {}",
                        failure.why
                    );
                    Instant::now() + AGAIN
                }
            };
        }
    }

    async fn within<T>(
        &self,
        method: &str,
        longest: Duration,
        call: impl Future<Output = Result<tonic::Response<T>, tonic::Status>>,
    ) -> Result<T, Failure> {
        let start = Instant::now();
        let failed = |code: tonic::Code, why: &str| Failure {
            code: format!("{code:?}"),
            why: format!("rpc error: code = {code:?} desc = {why}"),
        };
        let outcome = match tokio::time::timeout(longest, call).await {
            Ok(Ok(answer)) => Ok(answer.into_inner()),
            Ok(Err(status)) => Err(failed(status.code(), status.message())),
            Err(_) => Err(failed(tonic::Code::DeadlineExceeded, "context deadline exceeded")),
        };
        let path = format!("/v1.ExternalJWTSigner/{method}");
        let seconds = self.metrics.seconds.with_label_values(&[path.as_str(), code_of(&outcome).as_str()]);
        seconds.observe(start.elapsed().as_secs_f64());
        outcome
    }

    /// Asks for the keys. Who asks at the same time shares the answer.
    async fn fetch(&self) -> Result<(), Failure> {
        let came = Instant::now();
        let _turn = self.asking.lock().await;
        let known = self.known.load();
        if known.asked > came && !known.all.is_empty() {
            return Ok(());
        }
        let mut client = self.client.clone();
        let answer = self.within("FetchKeys", KEYS_WITHIN, client.fetch_keys(FetchKeysRequest {})).await;
        let answer = answer.map_err(|failure| failure.what("while getting externally supported jwt signing keys"));
        let outcome = answer.and_then(|answer| read(answer, Instant::now()).map_err(Failure::own));
        self.metrics.fetches.with_label_values(&[code_of(&outcome).as_str()]).inc();
        let (known, data) = outcome.map_err(|failure| failure.what("while fetching token verification keys"))?;
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        self.metrics.fetched.set(now.as_secs_f64());
        self.metrics.data.set(data);
        self.known.store(Arc::new(known));
        Ok(())
    }

    async fn signed(&self, claims: &Claims) -> Result<String, Failure> {
        let claims = serde_json::to_vec(claims).map_err(|error| Failure::own(error.to_string()))?;
        let claims = BASE64_URL_SAFE_NO_PAD.encode(claims);
        let mut client = self.client.clone();
        let request = SignJwtRequest { claims: claims.clone() };
        let answer = self.within("Sign", WITHIN, client.sign(request)).await;
        let answer = answer.map_err(|failure| failure.what("while signing jwt"))?;
        let wrong = |why: String| Failure::own(format!("while validating header: {why}"));
        let header = Header::parse(&answer.header).map_err(wrong)?;
        self.keys(&header.kid).await;
        if self.known.load().hidden.contains(&header.kid) {
            let kid = header.kid;
            return Err(wrong(format!("key used for signing JWT (kid: {kid}) is excluded from OIDC discovery docs")));
        }
        if answer.signature.is_empty() {
            return Err(Failure::own("empty signature returned".into()));
        }
        Ok(format!("{}.{claims}.{}", answer.header, answer.signature))
    }
}

#[async_trait]
impl TokenSigner for ExternalSigner {
    async fn sign(&self, claims: &Claims) -> Result<String, KeyError> {
        let outcome = self.signed(claims).await;
        self.metrics.signings.with_label_values(&[code_of(&outcome).as_str()]).inc();
        outcome.map_err(|failure| KeyError::Signer(failure.why))
    }
}

#[async_trait]
impl TokenKeys for ExternalSigner {
    async fn keys(&self, id: &str) -> Arc<Vec<VerifyingKey>> {
        let known = self.known.load_full();
        let is_known = id.is_empty() || known.all.iter().any(|key| key.id() == id);
        if is_known {
            return Arc::clone(&known.all);
        }
        tokio::time::sleep_until((known.asked + UNKNOWN).into()).await;
        if let Err(failure) = self.fetch().await {
            tracing::error!(err = failure.why, "Error while syncing keys");
        }
        Arc::clone(&self.known.load().all)
    }

    fn published(&self) -> PublishedKeys {
        let known = self.known.load();
        let shown = known.all.iter().filter(|key| !known.hidden.iter().any(|id| id == key.id()));
        PublishedKeys {
            keys: shown.cloned().collect(),
            max_age: known.next.saturating_duration_since(Instant::now()).as_secs(),
        }
    }
}

#[cfg(test)]
mod tests {
    use proto::externaljwt::Key;

    use super::*;

    #[test]
    fn headers_say_what_is_needed_and_no_more() {
        let of = |text: &str| Header::parse(&BASE64_URL_SAFE_NO_PAD.encode(text)).map(|header| header.kid);
        assert_eq!(of(r#"{"alg":"ES256","kid":"a","typ":"JWT"}"#), Ok("a".into()));
        for (text, why) in [
            (r#"{"alg":"ES256","kid":"a"}"#, "bad type"),
            (r#"{"alg":"ES256","typ":"JWT"}"#, "key id missing"),
            (r#"{"alg":"none","kid":"a","typ":"JWT"}"#, "bad signing algorithm \"none\""),
            (r#"{"alg":"ES256","kid":"a","typ":"JWT","jku":"x"}"#, "while parsing header JSON"),
            ("", "while parsing header JSON"),
        ] {
            let told = of(text).unwrap_err();
            assert!(told.starts_with(why), "{text}: {told}");
        }
        assert!(Header::parse("!").is_err());
    }

    #[test]
    fn keys_that_are_wrong_are_refused_whole() {
        let key = rcgen::KeyPair::generate().unwrap();
        let spki = rcgen::PublicKeyData::subject_public_key_info(&key);
        let answer = |id: &str, key: &[u8], refresh_hint_seconds| FetchKeysResponse {
            keys: vec![Key { key_id: id.into(), key: key.to_vec(), exclude_from_oidc_discovery: true }],
            data_timestamp: Some(prost_types::Timestamp { seconds: 5, nanos: 500_000_000 }),
            refresh_hint_seconds,
        };
        let now = Instant::now();
        let (known, data) = read(answer("a", &spki, 60), now).map_err(|why| panic!("{why}")).unwrap();
        assert_eq!((known.all[0].id(), known.hidden.len(), data), ("a", 1, 5.5));
        assert_eq!(known.all[0].jwk()["kid"], "a");
        assert_eq!(known.next, now + Duration::from_secs(60));
        for (answer, why) in [
            (answer("a", &spki, 0), "found invalid refresh hint (0s)"),
            (answer("", &spki, 1), "found invalid public key id \"\""),
            (answer("a", &[], 1), "found empty public key"),
            (answer("a", b"x", 1), "while parsing external public keys"),
            (FetchKeysResponse { keys: Vec::new(), ..answer("a", &spki, 1) }, "found no keys"),
            (FetchKeysResponse { data_timestamp: None, ..answer("a", &spki, 1) }, "invalid data timestamp"),
        ] {
            let told = read(answer, now).err().unwrap_or_default();
            assert!(told.starts_with(why), "{why}: {told}");
        }
    }
}

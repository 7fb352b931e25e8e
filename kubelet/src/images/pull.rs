//! Having an image on the node before a container starts.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, Secret};
use parking_lot::Mutex;
use tokio::sync::Semaphore;

use super::{Credential, Keyring, Providers, PullSecret, Records, Reference, Source, parse};
use crate::backoff::BackOff;
use crate::config::KubeletConfiguration;
use crate::cri::{Cri, CriError, v1};
use crate::events::{EventType, Events};
use crate::metrics::{METRICS, size_label};
use crate::pods::{self, Role};
use crate::rate::Rate;
use crate::spec::ImageUser;
use crate::start_times::StartTimes;

const INITIAL: Duration = Duration::from_secs(10);
const MAX: Duration = Duration::from_secs(300);
const UNAVAILABLE: &str = "RegistryUnavailable";
const SIGNATURE: &str = "SignatureValidationFailed";

/// An image that is not there, as the container's waiting state shows it.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[error("{message}")]
pub struct ImageError {
    /// Waiting reason.
    pub reason: &'static str,
    /// Waiting message.
    pub message: String,
}

impl ImageError {
    fn new(reason: &'static str, message: impl Into<String>) -> Self {
        Self { reason, message: message.into() }
    }
}

/// When an image is pulled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PullPolicy {
    /// Before every start.
    Always,
    /// When absent.
    IfNotPresent,
    /// Never.
    Never,
}

impl PullPolicy {
    /// The policy of an image; the API has filled it in, static Pods may lack it.
    pub fn of(policy: Option<&str>, image: &str) -> Self {
        match policy {
            Some("Always") => Self::Always,
            Some("Never") => Self::Never,
            Some("IfNotPresent") => Self::IfNotPresent,
            _ if parse(image).is_ok_and(|reference| reference.normalized.ends_with(":latest")) => Self::Always,
            _ => Self::IfNotPresent,
        }
    }
}

impl PullPolicy {
    /// Counts a request for an image.
    fn count(self, present: &str, pull: &str) {
        let policy = match self {
            Self::Always => "always",
            Self::IfNotPresent => "ifnotpresent",
            Self::Never => "never",
        };
        METRICS.images.requests.with_label_values(&[present, policy, pull]).inc();
    }
}

/// Whether an image is there.
enum Presence {
    Absent,
    /// Others may use it.
    Foreign,
    Usable(Pulled),
}

impl Presence {
    fn label(&self) -> &'static str {
        if matches!(self, Self::Absent) { "false" } else { "true" }
    }
}

/// An image that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pulled {
    /// What containers are created with.
    pub reference: String,
    /// The user it asks for.
    pub user: ImageUser,
}

/// `(Pod UID, image)`
type Key = (String, String);

/// Pulls images, a few at a time.
pub struct Images {
    cri: Cri,
    events: Events,
    turns: Arc<Semaphore>,
    rate: Rate,
    backoff: BackOff<Key>,
    failures: Mutex<HashMap<Key, (Timestamp, ImageError)>>,
    files: Vec<PathBuf>,
    providers: Option<Providers>,
    records: Arc<Records>,
    starts: Arc<StartTimes>,
}

impl Images {
    /// Uses the configuration's limits; `files` and `providers` have the node's own registry credentials.
    pub fn new(
        cri: Cri,
        events: Events,
        config: &KubeletConfiguration,
        files: Vec<PathBuf>,
        providers: Option<Providers>,
        records: Records,
        starts: Arc<StartTimes>,
    ) -> Self {
        let parallel = match (config.serialize_image_pulls, config.max_parallel_image_pulls) {
            (true, _) => 1,
            (false, Some(limit)) => usize::try_from(limit).unwrap_or(1).max(1),
            (false, None) => Semaphore::MAX_PERMITS,
        };
        Self {
            cri,
            events,
            turns: Arc::new(Semaphore::new(parallel)),
            rate: Rate::new(config.registry_pull_qps, config.registry_burst),
            backoff: BackOff::new(INITIAL, MAX),
            failures: Mutex::default(),
            files,
            providers,
            records: Arc::new(records),
            starts,
        }
    }

    /// Makes sure that an image is there, by its policy.
    pub async fn ensure(
        &self,
        pod: &Pod,
        container: (&str, Role),
        image: &str,
        policy: PullPolicy,
        secrets: &[Arc<Secret>],
        sandbox: &v1::PodSandboxConfig,
    ) -> Result<Pulled, ImageError> {
        let reference = parse(image).map_err(|error| {
            let message = format!("Failed to apply default image tag {image:?}: {error}");
            self.events.container(pod, container, EventType::Warning, "InspectFailed", message.as_str());
            ImageError::new("InvalidImageName", message)
        })?;
        if policy == PullPolicy::Always {
            policy.count("unknown", "true");
        } else {
            match self.usable(&reference, secrets).await {
                Ok(Presence::Usable(pulled)) => {
                    policy.count("true", "false");
                    let text =
                        format!("Container image {image:?} already present on machine and can be accessed by the pod");
                    self.events.container(pod, container, EventType::Normal, "Pulled", text);
                    return Ok(pulled);
                }
                // One that is not for this Pod is as good as absent.
                Ok(presence) if policy == PullPolicy::Never => {
                    policy.count(presence.label(), "unknown");
                    let text = format!("Container image {image:?} is not present with pull policy of Never");
                    self.events.container(pod, container, EventType::Warning, "ErrImageNeverPull", text.as_str());
                    return Err(ImageError::new("ErrImageNeverPull", text));
                }
                Ok(presence) => policy.count(presence.label(), "true"),
                Err(error) => {
                    policy.count("unknown", "unknown");
                    let text = format!("Failed to inspect image {image:?}: {}", error.message());
                    self.events.container(pod, container, EventType::Warning, "InspectFailed", text.as_str());
                    return Err(ImageError::new("ImageInspectError", text));
                }
            }
        }
        let key = (pods::uid(pod).to_owned(), reference.normalized.clone());
        self.check_backoff(pod, container, image, &key)?;
        let result = self.pull(pod, container, image, &reference, secrets, sandbox).await;
        let now = Timestamp::now();
        match &result {
            Ok(_) => {
                self.failures.lock().remove(&key);
                self.backoff.forget(|other| *other == key);
            }
            Err(error) => {
                self.backoff.next(key.clone(), now, now);
                self.failures.lock().insert(key, (now, error.clone()));
            }
        }
        result
    }

    fn check_backoff(&self, pod: &Pod, container: (&str, Role), image: &str, key: &Key) -> Result<(), ImageError> {
        let Some((failed, last)) = self.failures.lock().get(key).cloned() else { return Ok(()) };
        if self.backoff.left(key, failed, Timestamp::now()).is_none() {
            return Ok(());
        }
        let text = format!("Back-off pulling image {image:?}");
        self.events.container(pod, container, EventType::Normal, "BackOff", text.as_str());
        Err(ImageError::new("ImagePullBackOff", format!("{text}: {}: {}", last.reason, last.message)))
    }

    /// Whether an image is there, and for a Pod with these Secrets.
    async fn usable(&self, reference: &Reference, secrets: &[Arc<Secret>]) -> Result<Presence, CriError> {
        let Some(pulled) = self.present(&reference.normalized).await? else { return Ok(Presence::Absent) };
        let foreign = self.must_pull(reference, &pulled.reference, secrets).await;
        Ok(if foreign { Presence::Foreign } else { Presence::Usable(pulled) })
    }

    async fn present(&self, image: &str) -> Result<Option<Pulled>, CriError> {
        let wanted = v1::ImageSpec { image: image.to_owned(), ..v1::ImageSpec::default() };
        let found = self.cri.image_status(wanted, false).await?.image;
        Ok(found.map(|image| Pulled {
            reference: image.id,
            user: ImageUser { uid: image.uid.map(|uid| uid.value), name: image.username },
        }))
    }

    async fn pull(
        &self,
        pod: &Pod,
        container: (&str, Role),
        image: &str,
        reference: &Reference,
        secrets: &[Arc<Secret>],
        sandbox: &v1::PodSandboxConfig,
    ) -> Result<Pulled, ImageError> {
        let queued = Instant::now();
        self.events.container(pod, container, EventType::Normal, "Pulling", format!("Pulling image {image:?}"));
        let fail = |error: String| {
            let text = format!("Failed to pull image {image:?}: {error}");
            self.events.container(pod, container, EventType::Warning, "Failed", text);
            classify(image, error)
        };
        let Ok(_turn) = self.turns.acquire().await else { return Err(fail("the kubelet is stopping".to_owned())) };
        if !self.rate.take() {
            return Err(fail("pull QPS exceeded".to_owned()));
        }
        let (started, began) = (Instant::now(), Timestamp::now());
        let (pulled, size) = self.recorded(reference, secrets, sandbox).await.map_err(fail)?;
        self.starts.pulled(pods::uid(pod), began, Timestamp::now());
        METRICS.images.pull.with_label_values(&[size_label(size)]).observe(started.elapsed().as_secs_f64());
        let text = format!(
            "Successfully pulled image {image:?} in {} ({} including waiting). Image size: {size} bytes.",
            short(started.elapsed()),
            short(queued.elapsed())
        );
        self.events.container(pod, container, EventType::Normal, "Pulled", text);
        Ok(pulled)
    }

    /// A pull that is remembered, also when nobody waits for its end.
    async fn recorded(
        &self,
        reference: &Reference,
        secrets: &[Arc<Secret>],
        sandbox: &v1::PodSandboxConfig,
    ) -> Result<(Pulled, u64), String> {
        let image = reference.normalized.clone();
        let begun = self.write(move |records| records.begin(&image)).await;
        begun.map_err(|error| format!("failed to record image pull intent: {error}"))?;
        let mut intent = Begun { records: &self.records, image: &reference.normalized, ended: false };
        let source = self.try_credentials(reference, secrets, sandbox).await?;
        let (pulled, size) = self.inspect(&reference.normalized).await.map_err(|error| error.message())?;
        intent.ended = true;
        let (image, id) = (reference.normalized.clone(), pulled.reference.clone());
        if let Err(error) = self.write(move |records| records.end(&image, Some((&id, source)))).await {
            tracing::error!(image = reference.normalized, %error, "a pull is not recorded");
        }
        Ok((pulled, size))
    }

    /// Whether an image that is there is not for a Pod with these Secrets unless it pulls it.
    async fn must_pull(&self, reference: &Reference, id: &str, secrets: &[Arc<Secret>]) -> bool {
        let own: Vec<PullSecret> = secrets.iter().flat_map(|secret| pull_secrets(secret, reference)).collect();
        let (reference, id) = (reference.clone(), id.to_owned());
        let asked = self.write(move |records| records.must_pull(&reference, &id, &own)).await;
        asked.unwrap_or_else(|error| {
            tracing::error!(%error, "records of images");
            true
        })
    }

    async fn write<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Records) -> std::io::Result<T> + Send + 'static,
    ) -> std::io::Result<T> {
        let records = Arc::clone(&self.records);
        tokio::task::spawn_blocking(move || work(&records)).await.map_err(std::io::Error::other)?
    }

    /// Takes up what an earlier kubelet left.
    pub async fn recover(&self) {
        let images = match self.cri.list_images().await {
            Ok(images) => images,
            Err(error) => {
                tracing::error!(%error, "images for the records of pulls");
                return;
            }
        };
        let images = images.into_iter().map(|image| {
            let names = image.repo_tags.iter().chain(&image.repo_digests).cloned().collect();
            (image.id, names)
        });
        let images: Vec<(String, Vec<String>)> = images.collect();
        if let Err(error) = self.write(move |records| records.recover(&images)).await {
            tracing::error!(%error, "records of pulls");
        }
    }

    /// Forgets images that are not there any more, as of some time.
    pub async fn forget_absent(&self, present: HashSet<String>, until: Timestamp) {
        let pruned = self.write(move |records| records.retain(|id| present.contains(id), until)).await;
        if let Err(error) = pruned {
            tracing::error!(%error, "records of images that are gone");
        }
    }

    /// One call per matching credential until one works; without any an anonymous one. Answers whose it was.
    async fn try_credentials(
        &self,
        reference: &Reference,
        secrets: &[Arc<Secret>],
        sandbox: &v1::PodSandboxConfig,
    ) -> Result<Source, String> {
        let files: Vec<_> = self.files.iter().map(PathBuf::as_path).collect();
        let mut credentials = Keyring::new(secrets.iter().map(AsRef::as_ref), &[]).lookup(reference);
        let mut own = match &self.providers {
            Some(providers) => providers.lookup(reference).await,
            None => Vec::new(),
        };
        own.extend(Keyring::new(std::iter::empty(), &files).lookup(reference));
        for one in own {
            if !credentials.contains(&one) {
                credentials.push(one);
            }
        }
        let known: Vec<PullSecret> = secrets.iter().flat_map(|secret| pull_secrets(secret, reference)).collect();
        let source = |credential: &Credential| {
            let hash = credential.hash();
            let secret = known.iter().find(|secret| secret.credential_hash == hash);
            secret.map_or(Source::Node, |secret| Source::Secret(secret.clone()))
        };
        let mut tries: Vec<(Option<v1::AuthConfig>, Source)> = credentials
            .into_iter()
            .map(|found| (source(&found), found))
            .map(|(from, one)| (Some(one.into()), from))
            .collect();
        if tries.is_empty() {
            tries.push((None, Source::Node));
        }
        let mut errors = Vec::new();
        for (auth, source) in tries {
            let image = v1::ImageSpec { image: reference.normalized.clone(), ..v1::ImageSpec::default() };
            match self.cri.pull_image(image, auth, Some(sandbox.clone())).await {
                Ok(_) => return Ok(source),
                Err(error) => errors.push(error.message()),
            }
        }
        Err(match errors.as_slice() {
            [one] => one.clone(),
            many => format!("[{}]", many.join(", ")),
        })
    }

    async fn inspect(&self, image: &str) -> Result<(Pulled, u64), CriError> {
        let wanted = v1::ImageSpec { image: image.to_owned(), ..v1::ImageSpec::default() };
        let found = self.cri.image_status(wanted, false).await?.image.ok_or(CriError::Incomplete("image"))?;
        let user = ImageUser { uid: found.uid.map(|uid| uid.value), name: found.username };
        Ok((Pulled { reference: found.id, user }, found.size))
    }

    /// Forgets a Pod's failures.
    pub fn forget(&self, uid: &str) {
        self.backoff.forget(|(other, _)| other == uid);
        self.failures.lock().retain(|(other, _), _| other != uid);
    }
}

/// An intent whose pull may be given up.
struct Begun<'a> {
    records: &'a Arc<Records>,
    image: &'a str,
    ended: bool,
}

impl Drop for Begun<'_> {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        let (records, image) = (Arc::clone(self.records), self.image.to_owned());
        tokio::task::spawn_blocking(move || {
            if let Err(error) = records.end(&image, None) {
                tracing::error!(image, %error, "a pull that failed is not forgotten");
            }
        });
    }
}

/// What a Secret has for an image.
fn pull_secrets(secret: &Secret, reference: &Reference) -> Vec<PullSecret> {
    let of = |text: &Option<String>| text.clone().unwrap_or_default();
    let meta = &secret.metadata;
    let one = |credential: Credential| PullSecret {
        uid: of(&meta.uid),
        namespace: of(&meta.namespace),
        name: of(&meta.name),
        credential_hash: credential.hash(),
    };
    Keyring::new(std::iter::once(secret), &[]).lookup(reference).into_iter().map(one).collect()
}

fn classify(image: &str, error: String) -> ImageError {
    if let Some(rest) = error.strip_prefix(UNAVAILABLE) {
        let text = format!("image pull failed for {image} because the registry is unavailable{rest}");
        return ImageError::new(UNAVAILABLE, text);
    }
    if let Some(rest) = error.strip_prefix(SIGNATURE) {
        let text = format!("image pull failed for {image} because the signature validation failed{rest}");
        return ImageError::new(SIGNATURE, text);
    }
    ImageError::new("ErrImagePull", error)
}

/// Go's notation, cut to milliseconds.
fn short(elapsed: Duration) -> String {
    crate::config::Span(Duration::from_millis(u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX))).to_string()
}

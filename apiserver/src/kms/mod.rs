//! Key management services, version 2: values are sealed with keys made of a seed, and a plugin seals the seed.
//!
//! The plugin is asked when its key changes, and for seeds that are not known; not for values.

mod metrics;
mod plugin;
#[cfg(test)]
mod tests;

use std::{collections::HashMap, fmt, sync::Arc, time::Duration};

use arc_swap::ArcSwapOption;
use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use prost::Message;
use proto::kmsobject::{EncryptedDekSourceType, EncryptedObject};
use ring::{
    aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    hkdf,
    rand::{SecureRandom, SystemRandom},
};
use runtime::clock::Clock;
use storage::encrypted::Envelope;
use tokio_util::sync::CancellationToken;

pub(crate) use self::metrics::KmsMetrics;
use self::plugin::{Plugin, Sealed};

/// Bytes of a seed, and of what distinguishes the key of a value.
const SEED: usize = 32;
const INFO: usize = 32;
/// How often a plugin is asked how it is: well, and not well.
const WELL: Duration = Duration::from_secs(60);
const ILL: Duration = Duration::from_secs(10);
/// How long values are sealed with a seed after the plugin was last well.
const VALID: Duration = Duration::from_secs(3 * 60);
/// Opened seeds that are kept.
const MOST_SEEDS: usize = 1000;
/// Time that plugins have at the start.
const START: Duration = Duration::from_secs(10);
const START_PAUSE: Duration = Duration::from_millis(200);

/// A seed, opened and sealed.
#[derive(Clone)]
struct Source {
    seed: [u8; SEED],
    sealed: Sealed,
}

/// What values are sealed with now.
struct Current {
    source: Arc<Source>,
    until: Duration,
}

/// A service of one name.
pub(crate) struct KeyService {
    name: String,
    prefix: Vec<u8>,
    plugin: Plugin,
    current: ArcSwapOption<Current>,
    seeds: Mutex<HashMap<Sealed, [u8; SEED]>>,
    /// What was wrong with the plugin when it was last asked.
    health: Mutex<Result<(), String>>,
    clock: Arc<dyn Clock>,
}

impl fmt::Debug for KeyService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyService").field("name", &self.name).finish_non_exhaustive()
    }
}

fn random<const N: usize>() -> Result<[u8; N], String> {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).map_err(|_| "there is no randomness".to_owned())?;
    Ok(bytes)
}

struct KeyLength;

impl hkdf::KeyType for KeyLength {
    fn len(&self) -> usize {
        SEED
    }
}

/// The key of one value.
fn derived(seed: &[u8; SEED], info: &[u8]) -> Option<LessSafeKey> {
    let mut key = [0; SEED];
    let from = hkdf::Prk::new_less_safe(hkdf::HKDF_SHA256, seed);
    from.expand(&[info], KeyLength).ok()?.fill(&mut key).ok()?;
    gcm(&key)
}

fn gcm(key: &[u8]) -> Option<LessSafeKey> {
    UnboundKey::new(&AES_256_GCM, key).ok().map(LessSafeKey::new)
}

fn open_gcm(key: &LessSafeKey, place: &str, sealed: &[u8]) -> Option<Bytes> {
    let (nonce, sealed) = sealed.split_first_chunk::<NONCE_LEN>()?;
    let mut plain = sealed.to_vec();
    let nonce = Nonce::assume_unique_for_key(*nonce);
    let length = key.open_in_place(nonce, Aad::from(place.as_bytes()), &mut plain).ok()?.len();
    plain.truncate(length);
    Some(plain.into())
}

impl KeyService {
    /// The service of a plugin. It seals nothing until [`Self::refresh`] has found it well.
    pub(crate) fn new(name: &str, endpoint: &str, timeout: Duration, clock: Arc<dyn Clock>) -> Result<Self, String> {
        Ok(Self {
            name: name.to_owned(),
            prefix: format!("k8s:enc:kms:v2:{name}:").into_bytes(),
            plugin: Plugin::new(name, endpoint, timeout)?,
            current: ArcSwapOption::empty(),
            seeds: Mutex::default(),
            health: Mutex::new(Err("the plugin has not been asked yet".into())),
            clock,
        })
    }

    /// Tells of itself from now on.
    pub(crate) fn measure(&self, metrics: KmsMetrics) {
        // Whoever was told first is told.
        self.plugin.metrics.get_or_init(|| metrics);
    }

    /// Asks how the plugin is, and takes another seed if its key has changed.
    pub(crate) async fn refresh(&self) -> Result<(), String> {
        let outcome = self.renew().await;
        *self.health.lock() = outcome.clone();
        outcome
    }

    async fn renew(&self) -> Result<(), String> {
        let began = self.clock.elapsed();
        let id = self.plugin.status().await?;
        let known = self.current.load_full().filter(|current| current.source.sealed.key_id == id);
        let source = match known {
            Some(current) => Arc::clone(&current.source),
            None => {
                let seed = random::<SEED>()?;
                let sealed = self.plugin.encrypt(&seed).await?;
                // What cannot be opened again must not seal anything.
                if self.plugin.decrypt(&sealed).await? != seed {
                    return Err("decrypted seed does not match the one that was encrypted".into());
                }
                self.remember(sealed.clone(), seed);
                Arc::new(Source { seed, sealed })
            }
        };
        self.current.store(Some(Arc::new(Current { source, until: began + VALID })));
        Ok(())
    }

    fn remember(&self, sealed: Sealed, seed: [u8; SEED]) {
        let mut seeds = self.seeds.lock();
        if seeds.len() >= MOST_SEEDS {
            seeds.clear();
        }
        seeds.insert(sealed, seed);
        if let Some(metrics) = self.plugin.metrics.get() {
            metrics.knows(&self.name, seeds.len());
        }
    }

    async fn seed(&self, sealed: Sealed) -> Result<[u8; SEED], String> {
        let known = self.seeds.lock().get(&sealed).copied();
        if let Some(seed) = known {
            return Ok(seed);
        }
        let opened =
            self.plugin.decrypt(&sealed).await.map_err(|why| format!("failed to decrypt DEK, error: {why}"))?;
        let seed =
            <[u8; SEED]>::try_from(opened.as_slice()).map_err(|_| "the data key has another length".to_owned())?;
        self.remember(sealed, seed);
        Ok(seed)
    }

    /// What is wrong with the plugin.
    pub(crate) fn health(&self) -> Result<(), String> {
        let wrong = |why: String| format!("kms-provider {:?}: {why}", self.name);
        self.health.lock().clone().map_err(wrong)
    }

    /// Keeps asking how the plugin is, until `stop`.
    pub(crate) async fn follow(self: Arc<Self>, stop: CancellationToken) {
        loop {
            let pause = if self.health.lock().is_ok() { WELL } else { ILL };
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.clock.sleep(pause) => {}
            }
            if let Err(why) = self.refresh().await {
                tracing::error!(name = %self.name, err = why, "KMS plugin is not healthy");
            }
        }
    }

    /// Asks for the first time, for as long as a plugin may take to start.
    pub(crate) async fn start(&self) -> Result<(), String> {
        let end = self.clock.elapsed() + START;
        loop {
            match self.refresh().await {
                Ok(()) => return Ok(()),
                Err(why) if self.clock.elapsed() >= end => {
                    return Err(format!("kms plugin {:?} is not ready: {why}", self.name));
                }
                Err(_) => self.clock.sleep(START_PAUSE).await,
            }
        }
    }
}

#[async_trait]
impl Envelope for KeyService {
    fn prefix(&self) -> &[u8] {
        &self.prefix
    }

    fn seal(&self, key: &str, value: &[u8]) -> Result<Bytes, String> {
        let current = self.current.load_full().ok_or_else(|| format!("KMS plugin {:?} is not ready", self.name))?;
        if self.clock.elapsed() > current.until {
            return Err(format!("the key of KMS plugin {:?} expired, because the plugin is not well", self.name));
        }
        let (info, nonce) = (random::<INFO>()?, random::<NONCE_LEN>()?);
        let fail = || "the value cannot be encrypted".to_owned();
        let derived = derived(&current.source.seed, &info).ok_or_else(fail)?;
        let mut sealed = value.to_vec();
        let place = Aad::from(key.as_bytes());
        derived
            .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), place, &mut sealed)
            .map_err(|_| fail())?;
        let Sealed { ciphertext, key_id, annotations } = &current.source.sealed;
        let object = EncryptedObject {
            encrypted_data: [info.as_slice(), &nonce, &sealed].concat(),
            key_id: key_id.clone(),
            encrypted_dek_source: ciphertext.clone(),
            annotations: annotations.clone().into_iter().collect(),
            encrypted_dek_source_type: EncryptedDekSourceType::HkdfSha256XnonceAesGcmSeed.into(),
        };
        if let Some(metrics) = self.plugin.metrics.get() {
            metrics.used(&self.name, key_id, true);
        }
        let mut out = self.prefix.clone();
        object.encode(&mut out).map_err(|error| error.to_string())?;
        Ok(out.into())
    }

    async fn open(&self, key: &str, sealed: &[u8]) -> Result<Bytes, String> {
        let stored = sealed.strip_prefix(self.prefix.as_slice()).ok_or("the value is of another provider")?;
        let object = EncryptedObject::decode(stored).map_err(|error| format!("no encrypted object: {error}"))?;
        let is_seed = object.encrypted_dek_source_type == i32::from(EncryptedDekSourceType::HkdfSha256XnonceAesGcmSeed);
        let source = Sealed {
            ciphertext: object.encrypted_dek_source,
            key_id: object.key_id,
            annotations: object.annotations.into_iter().collect(),
        };
        if let Some(metrics) = self.plugin.metrics.get() {
            metrics.used(&self.name, &source.key_id, false);
        }
        let seed = self.seed(source).await?;
        let data = object.encrypted_data.as_slice();
        let plain = match is_seed {
            true => data
                .split_first_chunk::<INFO>()
                .and_then(|(info, sealed)| open_gcm(&derived(&seed, info)?, key, sealed)),
            false => gcm(&seed).and_then(|whole| open_gcm(&whole, key, data)),
        };
        plain.ok_or_else(|| "the stored value was changed, or is not at its place".to_owned())
    }

    fn is_current(&self, sealed: &[u8]) -> bool {
        let stored =
            sealed.strip_prefix(self.prefix.as_slice()).and_then(|stored| EncryptedObject::decode(stored).ok());
        let current = self.current.load_full();
        stored.zip(current).is_some_and(|(object, current)| {
            object.key_id == current.source.sealed.key_id
                && object.encrypted_dek_source == current.source.sealed.ciphertext
        })
    }
}

//! Node ports: one `RangeAllocation` with a bitmap, changed by compare-and-swap, as upstream keeps it.

use std::{
    collections::{HashMap, HashSet},
    ops::RangeInclusive,
    sync::Arc,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use machinery::{ApiError, ApiResult, Reason, field::Path};
use rand::Rng;
use serde_json::{Value, json};
use storage::contract::{Expect, Store, Written};

use super::{invalid, needs_node_ports, spec, text};

const ATTEMPTS: usize = 32;
const RANDOM_TRIES: usize = 32;

/// Allocates node ports.
pub struct NodePorts {
    /// `--service-node-port-range`.
    pub range: RangeInclusive<u16>,
    /// Where the bitmap is kept.
    pub store: Arc<dyn Store>,
    /// Its key.
    pub key: String,
}

/// The ports in use, bit by offset in the range.
struct Bitmap(Vec<u8>);

impl Bitmap {
    fn get(&self, offset: usize) -> bool {
        self.0.get(self.byte(offset)).is_some_and(|b| b & (1 << (offset % 8)) != 0)
    }

    /// Big-endian: the first offsets stand in the last byte.
    fn byte(&self, offset: usize) -> usize {
        self.0.len().wrapping_sub(1 + offset / 8)
    }

    fn set(&mut self, offset: usize, used: bool) {
        let at = self.byte(offset);
        if let Some(byte) = self.0.get_mut(at) {
            if used { *byte |= 1 << (offset % 8) } else { *byte &= !(1 << (offset % 8)) }
        }
    }
}

impl NodePorts {
    fn size(&self) -> usize {
        usize::from(self.range.end() - self.range.start()) + 1
    }

    fn offset(&self, port: u16) -> Option<usize> {
        self.range.contains(&port).then(|| usize::from(port - self.range.start()))
    }

    fn port(&self, offset: usize) -> u16 {
        self.range.start() + u16::try_from(offset).unwrap_or(0)
    }

    async fn load(&self) -> ApiResult<(Bitmap, Expect)> {
        let fail = |e: storage::contract::StoreError| ApiError::internal(e);
        let (found, _) = self.store.get(&self.key).await.map_err(fail)?;
        let length = self.size().div_ceil(8);
        let Some(kv) = found else { return Ok((Bitmap(vec![0; length]), Expect::Absent)) };
        let object: Value = serde_json::from_slice(&kv.value).unwrap_or_default();
        let mut data = STANDARD.decode(text(&object, "/data")).unwrap_or_default();
        while data.len() < length {
            data.insert(0, 0);
        }
        Ok((Bitmap(data), Expect::Revision(kv.mod_revision)))
    }

    async fn save(&self, bitmap: &Bitmap, expect: Expect) -> ApiResult<bool> {
        let object = json!({
            "kind": "RangeAllocation",
            "apiVersion": "v1",
            "metadata": {},
            "range": format!("{}-{}", self.range.start(), self.range.end()),
            "data": STANDARD.encode(&bitmap.0),
        });
        let value = Bytes::from(object.to_string());
        let written = self.store.put(&self.key, value, expect, None).await.map_err(ApiError::internal)?;
        Ok(matches!(written, Written::Done { .. }))
    }

    /// Fills blank node ports; answers what was newly reserved.
    pub(super) async fn assign(&self, service: &mut Value, kept: &[u16], dry_run: bool) -> ApiResult<Vec<u16>> {
        let wants_health =
            text(service, "/spec/type") == "LoadBalancer" && text(service, "/spec/externalTrafficPolicy") == "Local";
        let explicit = super::held_ports(service).iter().any(|p| !kept.contains(p));
        if dry_run || !(needs_node_ports(service) || explicit || wants_health) {
            return Ok(Vec::new());
        }
        for _ in 0..ATTEMPTS {
            let (mut bitmap, expect) = self.load().await?;
            let mut filled = service.clone();
            let taken = self.fill(&mut filled, kept, &mut bitmap, wants_health)?;
            if taken.is_empty() || self.save(&bitmap, expect).await? {
                *service = filled;
                return Ok(taken);
            }
        }
        Err(ApiError::internal("failed to allocate a nodePort: too many conflicts"))
    }

    fn fill(&self, service: &mut Value, kept: &[u16], bitmap: &mut Bitmap, wants_health: bool) -> ApiResult<Vec<u16>> {
        let mut taken: Vec<u16> = Vec::new();
        // The node ports given to the protocols of one port number are the same.
        let mut by_number: Vec<(i64, String, u16)> = Vec::new();
        let count = service.pointer("/spec/ports").and_then(Value::as_array).map_or(0, Vec::len);
        for at in 0..count {
            let read = |service: &Value, key: &str| {
                service.pointer(&format!("/spec/ports/{at}/{key}")).cloned().unwrap_or_default()
            };
            let asked = u16::try_from(read(service, "nodePort").as_u64().unwrap_or(0)).unwrap_or(0);
            let number = read(service, "port").as_i64().unwrap_or(0);
            let protocol = read(service, "protocol").as_str().unwrap_or("").to_owned();
            if asked == 0 && !needs_node_ports(service) {
                continue;
            }
            let shared = by_number.iter().find(|(n, p, _)| *n == number && *p != protocol).map(|(.., port)| *port);
            let port = match (asked, shared) {
                (0, Some(port)) => port,
                (0, None) => {
                    let port = self.any(bitmap)?;
                    taken.push(port);
                    port
                }
                (asked, _) if kept.contains(&asked) || taken.contains(&asked) => asked,
                (asked, _) => {
                    self.given(service, at, asked, bitmap)?;
                    taken.push(asked);
                    asked
                }
            };
            service["spec"]["ports"][at]["nodePort"] = json!(port);
            by_number.push((number, protocol, port));
        }
        if wants_health {
            let present = service.pointer("/spec/healthCheckNodePort").and_then(Value::as_u64).unwrap_or(0);
            if present == 0 {
                let port = self.any(bitmap)?;
                taken.push(port);
                spec(service).insert("healthCheckNodePort".into(), json!(port));
            }
        }
        Ok(taken)
    }

    fn given(&self, service: &Value, at: usize, port: u16, bitmap: &mut Bitmap) -> ApiResult<()> {
        let path = Path::new("spec").child("ports").index(at).child("nodePort");
        let Some(offset) = self.offset(port) else {
            let detail = format!(
                "provided port is not in the valid range. The range of valid ports is {}-{}",
                self.range.start(),
                self.range.end()
            );
            return Err(invalid(service, &path, json!(port), &detail));
        };
        if bitmap.get(offset) {
            return Err(invalid(service, &path, json!(port), "provided port is already allocated"));
        }
        bitmap.set(offset, true);
        Ok(())
    }

    /// A free port, from the upper part of the range while it has one.
    fn any(&self, bitmap: &mut Bitmap) -> ApiResult<u16> {
        let size = self.size();
        let reserved = (size / 32).clamp(16, 128).min(size / 2);
        for _ in 0..RANDOM_TRIES {
            let offset = rand::rng().random_range(reserved..size);
            if !bitmap.get(offset) {
                bitmap.set(offset, true);
                return Ok(self.port(offset));
            }
        }
        match (reserved..size).chain(0..reserved).find(|o| !bitmap.get(*o)) {
            Some(offset) => {
                bitmap.set(offset, true);
                Ok(self.port(offset))
            }
            None => Err(ApiError::new(
                500,
                Reason::InternalError,
                "Internal error occurred: failed to allocate a nodePort: range is full",
            )),
        }
    }

    /// Marks the ports that are used, and gives back those that nobody was seen with for some time. Answers those that
    /// were not marked.
    pub(super) async fn repair(
        &self,
        used: &HashSet<u16>,
        leaks: &mut HashMap<u16, u8>,
        sightings: u8,
    ) -> ApiResult<Vec<u16>> {
        for _ in 0..ATTEMPTS {
            let (mut bitmap, expect) = self.load().await?;
            let mut seen = leaks.clone();
            let difference = compare(&self.range, &mut bitmap, used, &mut seen, sightings);
            if !difference.changed || self.save(&bitmap, expect).await? {
                *leaks = seen;
                return Ok(difference.marked);
            }
        }
        Err(ApiError::internal("node ports are not repaired: too many conflicts"))
    }

    /// Gives ports back. A failure leaves them taken, which is logged.
    pub(super) async fn release(&self, ports: &[u16]) {
        if ports.is_empty() {
            return;
        }
        for _ in 0..ATTEMPTS {
            let outcome = async {
                let (mut bitmap, expect) = self.load().await?;
                ports.iter().filter_map(|p| self.offset(*p)).for_each(|o| bitmap.set(o, false));
                self.save(&bitmap, expect).await
            };
            match outcome.await {
                Ok(true) => return,
                Ok(false) => {}
                Err(error) => {
                    tracing::warn!(?ports, %error, "node ports are not released");
                    return;
                }
            }
        }
    }
}

/// What was not as it had to be.
#[derive(Debug, Default, PartialEq, Eq)]
struct Difference {
    /// Whether the bitmap is another one now.
    changed: bool,
    /// Ports that Services have and that were not marked.
    marked: Vec<u16>,
}

/// Compares the bitmap with the ports that Services have. A port is given back when it was
/// without a Service as many looks as `sightings`.
fn compare(
    range: &RangeInclusive<u16>,
    bitmap: &mut Bitmap,
    used: &HashSet<u16>,
    leaks: &mut HashMap<u16, u8>,
    sightings: u8,
) -> Difference {
    let mut difference = Difference::default();
    let mut leaked = HashMap::new();
    for (offset, port) in range.clone().enumerate() {
        match (bitmap.get(offset), used.contains(&port)) {
            (false, true) => {
                bitmap.set(offset, true);
                difference.changed = true;
                difference.marked.push(port);
            }
            (true, false) => {
                let times = leaks.get(&port).copied().unwrap_or(0).saturating_add(1);
                if times >= sightings {
                    tracing::warn!(port, "node port is given back: no Service has it");
                    bitmap.set(offset, false);
                    difference.changed = true;
                } else {
                    leaked.insert(port, times);
                }
            }
            _ => {}
        }
    }
    *leaks = leaked;
    difference
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_agree_with_services_after_a_while() {
        let range = 30000..=30015;
        let mut bitmap = Bitmap(vec![0; 2]);
        let mut leaks = HashMap::new();
        bitmap.set(3, true);
        let used = HashSet::from([30005]);
        let mut look = |bitmap: &mut Bitmap| compare(&range, bitmap, &used, &mut leaks, 3);
        let marked = Difference { changed: true, marked: vec![30005] };
        assert_eq!(look(&mut bitmap), marked, "a port that is used is marked at once");
        assert!(bitmap.get(5));
        assert!(!look(&mut bitmap).changed && bitmap.get(3), "one that nobody has may be on its way to a Service");
        assert!(look(&mut bitmap).changed && !bitmap.get(3));
        assert!(!look(&mut bitmap).changed);
    }
}

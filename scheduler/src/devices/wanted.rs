//! What claims ask for, made ready for the search.

use std::{collections::BTreeMap, sync::Arc};

use controller::{Cached, ObjectKey};
use k8s_openapi::{
    api::resource::v1::{
        CapacityRequirements, DeviceClaim, DeviceConstraint, DeviceSelector, DeviceTaint, DeviceToleration,
        ExactDeviceRequest,
    },
    apimachinery::pkg::api::resource::Quantity,
};
use semantics::taints::tolerates_device;

use super::selector::{Selector, Selectors};
use crate::objects::{DeviceClassView, DeviceView};

/// How many devices a request wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    All,
    Exactly(usize),
}

/// A request, or one of its alternatives.
#[derive(Clone, Debug)]
pub(super) struct Want {
    /// Name of the request.
    pub(super) request: Box<str>,
    /// Name in results: of the request, and of the alternative if it is one.
    pub(super) name: Box<str>,
    pub(super) class: Arc<Cached<DeviceClassView>>,
    pub(super) mode: Mode,
    pub(super) admin: bool,
    pub(super) tolerations: Vec<DeviceToleration>,
    pub(super) capacity: BTreeMap<String, Quantity>,
    /// Expressions, and how errors call them.
    selectors: Vec<(String, Arc<Selector>)>,
}

/// A claim without devices.
#[derive(Clone, Debug)]
pub(super) struct WantedClaim {
    pub(super) key: ObjectKey,
    pub(super) uid: Box<str>,
    /// Each request with its alternatives.
    pub(super) requests: Vec<Vec<Want>>,
    pub(super) spec: Arc<DeviceClaim>,
}

/// Where classes and compiled expressions are found.
pub(super) struct Sources<'a> {
    pub(super) class: &'a dyn Fn(&str) -> Option<Arc<Cached<DeviceClassView>>>,
    pub(super) selectors: &'a Selectors,
}

/// A request in one form.
struct Asked<'a> {
    name: String,
    class: &'a str,
    mode: Option<&'a str>,
    count: Option<i64>,
    admin: bool,
    selectors: &'a [DeviceSelector],
    tolerations: &'a [DeviceToleration],
    capacity: Option<&'a CapacityRequirements>,
}

impl<'a> Asked<'a> {
    fn exactly(name: &str, request: &'a ExactDeviceRequest) -> Self {
        Self {
            name: name.to_owned(),
            class: &request.device_class_name,
            mode: request.allocation_mode.as_deref(),
            count: request.count,
            admin: request.admin_access == Some(true),
            selectors: request.selectors.as_deref().unwrap_or_default(),
            tolerations: request.tolerations.as_deref().unwrap_or_default(),
            capacity: request.capacity.as_ref(),
        }
    }
}

impl WantedClaim {
    /// Reads a claim; the error is why no node will do.
    pub(super) fn new(
        key: ObjectKey,
        uid: &str,
        spec: &Arc<DeviceClaim>,
        sources: &Sources<'_>,
    ) -> Result<Self, String> {
        let mut requests = Vec::new();
        for request in spec.requests.iter().flatten() {
            let name = &request.name;
            let alternatives: Vec<Asked<'_>> = match (&request.exactly, request.first_available.as_deref()) {
                (Some(exactly), _) => vec![Asked::exactly(name, exactly)],
                (None, Some(list)) if !list.is_empty() => list
                    .iter()
                    .map(|sub| Asked {
                        name: format!("{name}/{}", sub.name),
                        class: &sub.device_class_name,
                        mode: sub.allocation_mode.as_deref(),
                        count: sub.count,
                        admin: false,
                        selectors: sub.selectors.as_deref().unwrap_or_default(),
                        tolerations: sub.tolerations.as_deref().unwrap_or_default(),
                        capacity: sub.capacity.as_ref(),
                    })
                    .collect(),
                _ => return Err(format!("request {name}: unknown request type")),
            };
            let wants: Result<Vec<Want>, String> =
                alternatives.into_iter().map(|asked| want(&key, name, asked, sources)).collect();
            requests.push(wants?);
        }
        Ok(Self { key, uid: uid.into(), requests, spec: Arc::clone(spec) })
    }

    pub(super) fn constraints(&self) -> &[DeviceConstraint] {
        self.spec.constraints.as_deref().unwrap_or_default()
    }
}

fn want(key: &ObjectKey, request: &str, asked: Asked<'_>, sources: &Sources<'_>) -> Result<Want, String> {
    let name = asked.name;
    if asked.class.is_empty() {
        return Err(format!("request {name}: unsupported request type"));
    }
    let class = (sources.class)(asked.class)
        .ok_or_else(|| format!("request {name}: device class {} does not exist", asked.class))?;
    let mode = match asked.mode {
        Some("All") => Mode::All,
        None | Some("" | "ExactCount") => Mode::Exactly(usize::try_from(asked.count.unwrap_or(1)).unwrap_or(0).max(1)),
        Some(other) => return Err(format!("claim {key}, request {name}: unsupported count mode {other}")),
    };
    let mut selectors = Vec::new();
    let of_class = (format!("class {}", asked.class), class.selectors.as_slice());
    for (origin, list) in [of_class, (format!("claim {key}"), asked.selectors)] {
        for (at, selector) in list.iter().enumerate() {
            let origin = format!("{origin}: selector #{at}");
            let Some(expression) = selector.cel.as_ref() else {
                return Err(format!("{origin}: CEL expression empty (unsupported selector type?)"));
            };
            let compiled = sources.selectors.compile(&expression.expression);
            selectors.push((origin.clone(), compiled.map_err(|e| format!("{origin}: CEL compile error: {e}"))?));
        }
    }
    Ok(Want {
        request: request.into(),
        name: name.into(),
        mode,
        admin: asked.admin,
        tolerations: asked.tolerations.to_vec(),
        capacity: asked.capacity.and_then(|c| c.requests.clone()).unwrap_or_default(),
        class,
        selectors,
    })
}

impl Want {
    /// Whether a device is what is wanted, taken or not.
    pub(super) fn selects(&self, device: &DeviceView) -> Result<bool, String> {
        for (origin, selector) in &self.selectors {
            match selector.selects(device) {
                Ok(true) => {}
                Ok(false) => return Ok(false),
                Err(text) => return Err(format!("{origin}: CEL runtime error: {text}")),
            }
        }
        Ok(true)
    }

    /// Whether a list of request names means this one; an empty list means all.
    pub(super) fn is_among(&self, requests: Option<&Vec<String>>) -> bool {
        requests.is_none_or(|names| {
            names.is_empty() || names.iter().any(|name| **name == *self.request || **name == *self.name)
        })
    }

    /// Whether the taints of a device are tolerated.
    pub(super) fn tolerates(&self, device: &DeviceView) -> bool {
        let repels = |taint: &&DeviceTaint| matches!(taint.effect.as_str(), "NoSchedule" | "NoExecute");
        device.taints.iter().filter(repels).all(|taint| self.tolerations.iter().any(|t| tolerates_device(t, taint)))
    }
}

//! Claims of devices, slices of what drivers offer, classes of devices.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, LazyLock},
};

use cel::{Budget, Program, Type, Val};
use controller::{Cached, Index, Viewed, claim::controller_of};
use k8s_openapi::api::{
    core::v1::NodeSelector as ApiNodeSelector,
    resource::v1::{
        AllocatedDeviceStatus, AllocationResult, CapacityRequestPolicy, Counter, Device, DeviceAttribute,
        DeviceClaim as ApiDeviceClaim, DeviceClass, DeviceClassConfiguration, DeviceSelector, DeviceTaint,
        ResourceClaim, ResourceSlice,
    },
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use machinery::quantity::Quantity;

use super::NodeSelector;

/// Keeps a claim while devices are allocated for it.
pub(crate) const CLAIM_FINALIZER: &str = "resource.kubernetes.io/delete-protection";

/// Annotation of claims that were made for extended resources.
pub(crate) const EXTENDED_CLAIM: &str = "resource.kubernetes.io/extended-resource-claim";

/// A claim of devices.
#[derive(Clone, Debug, Default)]
pub(crate) struct DeviceClaimView {
    pub(crate) spec: Arc<ApiDeviceClaim>,
    pub(crate) allocation: Option<Arc<AllocationResult>>,
    /// Nodes where the allocated devices can be used; `None` for all.
    pub(crate) nodes: Option<Arc<NodeSelector>>,
    /// UIDs of those that use it.
    pub(crate) reserved_for: Vec<Box<str>>,
    /// What drivers say of the allocated devices.
    pub(crate) devices: Vec<AllocatedDeviceStatus>,
    pub(crate) terminating: bool,
    /// UID of the Pod it was made for.
    pub(crate) owner: Option<Box<str>>,
    /// Whether it was made for extended resources of that Pod.
    pub(crate) extended: bool,
}

/// Index of the claims that were made for extended resources, by the UID of the Pod.
pub(crate) const EXTENDED_OF: &str = "extended-of";

fn extended_of(claim: &Cached<DeviceClaimView>) -> Vec<String> {
    claim.owner.iter().filter(|_| claim.extended).map(|uid| uid.to_string()).collect()
}

impl Viewed for DeviceClaimView {
    type Object = ResourceClaim;

    const INDICES: &'static [Index<Self>] = &[Index { name: EXTENDED_OF, keys: extended_of }];

    fn project(claim: ResourceClaim) -> Self {
        let status = claim.status.unwrap_or_default();
        let owner = controller_of(claim.metadata.owner_references.as_deref());
        Self {
            spec: Arc::new(claim.spec.devices.unwrap_or_default()),
            nodes: status.allocation.as_ref().and_then(|a| a.node_selector.as_ref()).map(|s| Arc::new(readable(s))),
            allocation: status.allocation.map(Arc::new),
            reserved_for: status.reserved_for.into_iter().flatten().map(|user| user.uid.into()).collect(),
            devices: status.devices.unwrap_or_default(),
            terminating: claim.metadata.deletion_timestamp.is_some(),
            owner: owner.map(|owner| owner.uid.as_str().into()),
            extended: claim.metadata.annotations.iter().flatten().any(|(k, v)| k == EXTENDED_CLAIM && v == "true"),
        }
    }
}

/// A class of devices.
#[derive(Clone, Debug, Default)]
pub(crate) struct DeviceClassView {
    pub(crate) selectors: Vec<DeviceSelector>,
    pub(crate) config: Vec<DeviceClassConfiguration>,
    /// The extended resource that its devices stand for.
    pub(crate) resource: Option<Box<str>>,
    pub(crate) created: Option<Time>,
}

impl Viewed for DeviceClassView {
    type Object = DeviceClass;

    fn project(class: DeviceClass) -> Self {
        let spec = class.spec;
        Self {
            selectors: spec.selectors.unwrap_or_default(),
            config: spec.config.unwrap_or_default(),
            resource: spec.extended_resource_name.filter(|name| !name.is_empty()).map(Into::into),
            created: class.metadata.creation_timestamp,
        }
    }
}

/// Which device: a driver, one of its pools, a name in that.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct DeviceId {
    pub(crate) driver: Box<str>,
    pub(crate) pool: Box<str>,
    pub(crate) device: Box<str>,
}

/// Where devices can be used.
#[derive(Clone, Debug)]
pub(crate) enum Reach {
    Everywhere,
    Node(Box<str>),
    Nodes(Arc<NodeSelector>, Arc<ApiNodeSelector>),
    /// Each device says for itself.
    PerDevice,
}

impl Reach {
    fn of(name: Option<String>, selector: Option<ApiNodeSelector>, all: bool) -> Option<Self> {
        if let Some(name) = name.filter(|n| !n.is_empty()) {
            return Some(Self::Node(name.into()));
        }
        if all {
            return Some(Self::Everywhere);
        }
        let selector = selector?;
        Some(Self::Nodes(Arc::new(readable(&selector)), Arc::new(selector)))
    }
}

/// A selector as nodes are matched with; one that cannot be read selects nothing.
fn readable(selector: &ApiNodeSelector) -> NodeSelector {
    serde_json::to_value(selector).and_then(serde_json::from_value).unwrap_or_default()
}

/// A capacity of a device.
#[derive(Clone, Debug)]
pub(crate) struct CapacityOf {
    pub(crate) value: Quantity,
    pub(crate) policy: Option<CapacityRequestPolicy>,
}

/// Amounts of a set of counters.
#[derive(Clone, Debug, Default)]
pub(crate) struct Counters {
    pub(crate) set: Box<str>,
    pub(crate) amounts: Vec<(Box<str>, Quantity)>,
}

impl Counters {
    fn of(set: String, counters: BTreeMap<String, Counter>) -> Self {
        let amounts = counters.into_iter().map(|(name, counter)| (name.into(), amount(&counter.value.0)));
        Self { set: set.into(), amounts: amounts.collect() }
    }
}

/// A device.
#[derive(Clone, Debug)]
pub(crate) struct DeviceView {
    pub(crate) id: DeviceId,
    pub(crate) attributes: BTreeMap<String, DeviceAttribute>,
    pub(crate) capacity: BTreeMap<String, CapacityOf>,
    /// What expressions see: attributes and capacities by domain.
    pub(crate) seen: Seen,
    /// Several claims can have a part of it.
    pub(crate) shareable: bool,
    pub(crate) taints: Vec<DeviceTaint>,
    pub(crate) consumes: Vec<Counters>,
    /// Its own reach, if the slice leaves that to devices.
    pub(crate) reach: Option<Reach>,
    pub(crate) binding_conditions: Option<Vec<String>>,
    pub(crate) failure_conditions: Option<Vec<String>>,
    pub(crate) binds_to_node: bool,
}

/// Names of a domain with their values.
type Domains = HashMap<Box<str>, Vec<(Val<'static>, Val<'static>)>>;

/// See [`DeviceView::seen`].
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    pub(crate) attributes: Domains,
    pub(crate) capacity: Domains,
}

/// A part of a pool.
#[derive(Clone, Debug)]
pub(crate) struct SliceView {
    pub(crate) driver: Box<str>,
    pub(crate) pool: Box<str>,
    pub(crate) generation: i64,
    /// How many slices the pool has in all.
    pub(crate) slices: i64,
    pub(crate) reach: Option<Reach>,
    pub(crate) devices: Vec<Arc<DeviceView>>,
    pub(crate) counters: Vec<Counters>,
}

/// A quantity that the API server has checked.
pub(crate) fn amount(text: &str) -> Quantity {
    Quantity::parse(text).unwrap_or_else(|_| Quantity::from_units(0, machinery::quantity::Format::DecimalSi))
}

impl Viewed for SliceView {
    type Object = ResourceSlice;

    fn project(slice: ResourceSlice) -> Self {
        let spec = slice.spec;
        let (driver, pool) = (spec.driver, spec.pool);
        let devices = spec.devices.into_iter().flatten().map(|d| Arc::new(device(&driver, &pool.name, d))).collect();
        let per_device = spec.per_device_node_selection == Some(true);
        let reach = Reach::of(spec.node_name, spec.node_selector, spec.all_nodes == Some(true));
        Self {
            devices,
            driver: driver.into(),
            pool: pool.name.into(),
            generation: pool.generation,
            slices: pool.resource_slice_count,
            reach: if per_device { Some(Reach::PerDevice) } else { reach },
            counters: spec.shared_counters.into_iter().flatten().map(|c| Counters::of(c.name, c.counters)).collect(),
        }
    }
}

fn device(driver: &str, pool: &str, device: Device) -> DeviceView {
    let attributes = device.attributes.unwrap_or_default();
    let capacity: BTreeMap<String, CapacityOf> = device
        .capacity
        .into_iter()
        .flatten()
        .map(|(name, c)| (name, CapacityOf { value: amount(&c.value.0), policy: c.request_policy }))
        .collect();
    let mut seen = Seen::default();
    for (name, attribute) in &attributes {
        if let Some(value) = value_of(attribute) {
            put(&mut seen.attributes, driver, name, value);
        }
    }
    for (name, capacity) in &capacity {
        put(&mut seen.capacity, driver, name, Val::Quantity(capacity.value));
    }
    let consumes = device.consumes_counters.into_iter().flatten();
    DeviceView {
        id: DeviceId { driver: driver.into(), pool: pool.into(), device: device.name.into() },
        attributes,
        capacity,
        seen,
        shareable: device.allow_multiple_allocations == Some(true),
        taints: device.taints.unwrap_or_default(),
        consumes: consumes.map(|c| Counters::of(c.counter_set, c.counters)).collect(),
        reach: Reach::of(device.node_name, device.node_selector, device.all_nodes == Some(true)),
        binding_conditions: device.binding_conditions.filter(|c| !c.is_empty()),
        failure_conditions: device.binding_failure_conditions.filter(|c| !c.is_empty()),
        binds_to_node: device.binds_to_node == Some(true),
    }
}

/// Files a value under its domain: a name without one belongs to the driver.
fn put(domains: &mut Domains, driver: &str, name: &str, value: Val<'static>) {
    let (domain, id) = name.split_once('/').unwrap_or((driver, name));
    domains.entry(domain.into()).or_default().push((Val::text(id), value));
}

/// Makes versions of text.
static VERSION: LazyLock<Option<Program>> =
    LazyLock::new(|| Program::compile("semver(text)", &[("text", &Type::String)]).ok());

/// Steps that the reading of a version may take.
const VERSION_BUDGET: u64 = 10_000;

fn value_of(attribute: &DeviceAttribute) -> Option<Val<'static>> {
    if let Some(value) = attribute.bool {
        return Some(Val::Bool(value));
    }
    if let Some(value) = attribute.int {
        return Some(Val::Int(value));
    }
    if let Some(value) = &attribute.string {
        return Some(Val::text(value.as_str()));
    }
    let version = attribute.version.as_deref()?;
    let program = VERSION.as_ref()?;
    program.run(&[("text", Val::text(version))], &mut Budget::new(VERSION_BUDGET)).ok()
}

impl DeviceView {
    /// An attribute by its full name, `domain/id`.
    pub(crate) fn attribute(&self, name: &str) -> Option<&DeviceAttribute> {
        self.attributes.get(name).or_else(|| {
            let id = name.strip_prefix(&*self.id.driver)?.strip_prefix('/')?;
            self.attributes.get(id)
        })
    }

    /// A capacity by its name, with or without the driver as its domain.
    pub(crate) fn capacity(&self, name: &str) -> Option<(&str, &CapacityOf)> {
        let found = self.capacity.get_key_value(name).or_else(|| {
            let id = name.strip_prefix(&*self.id.driver)?.strip_prefix('/')?;
            self.capacity.get_key_value(id)
        });
        found.map(|(name, capacity)| (name.as_str(), capacity))
    }
}

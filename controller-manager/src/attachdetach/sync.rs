//! One look at a node: what is there, what is wanted, and the writes that bring the one to the other.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use ::controller::{Cached, EventRecorder, EventType, ObjectKey, Outcome, Reconcile, ReconcileError};
use client::{ApiErrorExt, Scope};
use k8s_openapi::api::{
    core::v1::Node as ApiNode,
    storage::v1::{VolumeAttachment, VolumeAttachmentSource, VolumeAttachmentSpec},
};
use kube::{
    Api, Client,
    api::{DeleteParams, PostParams, Preconditions},
};
use parking_lot::Mutex;
use prometheus::HistogramVec;
use runtime::clock::Clock;
use serde_json::{Value, json};

use super::{
    CONTROLLER, KEEPS_TERMINATED, MANAGED, Picture, annotated,
    metrics::Metrics,
    plan::{Action, Attachment, Force, MAX_UNMOUNT, Node, Volume, Wanted, plan},
    pods_on,
    views::AttachmentView,
};
use crate::{
    StartError,
    context::{Context, now},
    nodelifecycle::{eviction::reference, is_out_of_service, is_ready},
    views::{NodeView, PodView},
    volumes::is_bound,
};

/// How long a driver is given to attach a volume before that is told.
const PATIENCE: Duration = Duration::from_secs(2 * 60);
/// When to look again after another node was given a volume.
const RIVAL: Duration = Duration::from_secs(1);

/// What is remembered of a volume on a node.
type OnNode = (String, Volume);

/// See the module.
pub(super) struct Reconciler {
    client: Client,
    recorder: EventRecorder,
    picture: Picture,
    clock: Arc<dyn Clock>,
    can_force: bool,
    metrics: Metrics,
    operations: HistogramVec,
    /// Since when volumes that are attached have not been wanted.
    unwanted: Mutex<HashMap<OnNode, Duration>>,
    /// What Pods were told of a volume.
    told: Mutex<HashMap<OnNode, HashSet<(String, String)>>>,
}

/// A node as the plan sees it.
pub(super) fn seen(node: Option<&NodeView>) -> Option<(bool, bool, Vec<String>, Vec<String>)> {
    let node = node?;
    let status = node.status.as_ref();
    let in_use = status.and_then(|s| s.volumes_in_use.clone()).unwrap_or_default();
    let attached = status.and_then(|s| s.volumes_attached.as_ref()).into_iter().flatten();
    Some((is_ready(node), is_out_of_service(node), in_use, attached.map(|volume| volume.name.clone()).collect()))
}

fn state(node: Option<&NodeView>) -> Node {
    let exists = node.is_some();
    let (is_ready, is_out_of_service, in_use, reported) = seen(node).unwrap_or_default();
    Node { exists, is_ready, is_out_of_service, in_use, reported }
}

/// A volume that Pods want, and who they are.
struct Use {
    wanted: Wanted,
    /// One node only can have it.
    is_exclusive: bool,
    pods: Vec<Arc<Cached<PodView>>>,
}

impl Reconciler {
    pub(super) fn new(
        client: Client,
        recorder: EventRecorder,
        picture: Picture,
        context: &Context,
    ) -> Result<Self, StartError> {
        Ok(Self {
            client,
            recorder,
            picture,
            clock: Arc::clone(&context.clock),
            can_force: !context.options.attach.disable_force_detach_on_timeout,
            metrics: Metrics::new(&context.registry)?,
            operations: context.metrics.storage_operations.clone(),
            unwanted: Mutex::default(),
            told: Mutex::default(),
        })
    }

    /// Volumes that Pods of a node want attached.
    fn uses(&self, name: &str, node: Option<&NodeView>) -> Vec<Use> {
        let mut uses: Vec<Use> = Vec::new();
        if !node.is_some_and(|node| annotated(node, MANAGED)) {
            return uses;
        }
        let keeps = node.is_some_and(|node| annotated(node, KEEPS_TERMINATED));
        for pod in pods_on(&self.picture, name).into_iter().filter(|pod| keeps || !pod.phase.is_terminal()) {
            for (_, claim) in &pod.claims {
                let Some((volume, pv, is_exclusive)) = self.volume_of(&ObjectKey::new(&pod.key.namespace, claim))
                else {
                    continue;
                };
                if let Some(known) = uses.iter_mut().find(|known| known.wanted.volume == volume) {
                    known.pods.push(Arc::clone(&pod));
                    continue;
                }
                let others = self.picture.attachments.by_index(AttachmentView::BY_VOLUME, &pv);
                let is_elsewhere = is_exclusive && others.iter().any(|other| other.node != name);
                let wanted = Wanted { volume, name: pv, is_elsewhere };
                uses.push(Use { wanted, is_exclusive, pods: vec![Arc::clone(&pod)] });
            }
        }
        uses
    }

    /// The volume of a claim, if it is one that is attached; its name; whether one node only can have it.
    fn volume_of(&self, claim: &ObjectKey) -> Option<(Volume, String, bool)> {
        let claim = self.picture.claims.get(claim)?;
        let name = claim.spec.as_ref()?.volume_name.clone().filter(|name| is_bound(&claim) && !name.is_empty())?;
        let pv = self.picture.volumes.get(&ObjectKey::cluster(&name))?;
        let volume = csi(&pv.view)?;
        let driver = self.picture.drivers.get(&ObjectKey::cluster(&volume.driver));
        if driver.is_some_and(|driver| !driver.attaches) {
            return None;
        }
        let modes = pv.view.spec().and_then(|spec| spec.access_modes.as_deref()).unwrap_or_default();
        let is_exclusive = !modes.is_empty() && !modes.iter().any(|m| m == "ReadWriteMany" || m == "ReadOnlyMany");
        Some((volume, name, is_exclusive))
    }

    /// Attachments on a node that are this controller's: of volumes that exist, or that the node reports.
    fn attachments(&self, name: &str, node: &Node) -> Vec<(Attachment, Arc<Cached<AttachmentView>>)> {
        let reported: HashMap<String, Volume> = node
            .reported
            .iter()
            .filter_map(|name| Volume::parse(name))
            .map(|volume| (volume.attachment_name(name), volume))
            .collect();
        let all = self.picture.attachments.by_index(AttachmentView::BY_NODE, name);
        let own = all.into_iter().filter_map(|view| {
            let pv = self.picture.volumes.get(&ObjectKey::cluster(&view.volume));
            let of_pv = pv.and_then(|pv| csi(&pv.view)).filter(|v| v.attachment_name(name) == view.key.name);
            let volume = of_pv.or_else(|| reported.get(&view.key.name).cloned())?;
            let attachment =
                Attachment { volume, uid: view.uid.clone(), is_attached: view.is_attached, is_going: view.is_going };
            Some((attachment, view))
        });
        own.collect()
    }

    /// Whether no other node is being given a volume that only one can have.
    fn may_attach(&self, node: &str, wanted: &Wanted, uses: &[Use]) -> bool {
        let is_exclusive = uses.iter().any(|used| used.wanted == *wanted && used.is_exclusive);
        !is_exclusive || self.picture.claims_of_nodes.claim(&wanted.name, node, self.clock.elapsed())
    }

    /// Tells Pods something of a volume, each of them once as long as it holds.
    fn tell(&self, node: &str, used: &Use, kind: EventType, reason: &str, text: &str) {
        let mut told = self.told.lock();
        let known = told.entry((node.to_owned(), used.wanted.volume.clone())).or_default();
        for pod in &used.pods {
            if known.insert((pod.uid.clone(), text.to_owned())) {
                self.recorder.event(&reference(&pod.key, &pod.uid), kind, reason, text);
            }
        }
    }

    /// Who has a volume that another node wants.
    fn conflict(&self, node: &str, used: &Use) -> String {
        let claim = self.picture.volumes.get(&ObjectKey::cluster(&used.wanted.name)).and_then(|v| v.claim());
        let users: Vec<Arc<Cached<PodView>>> = claim
            .map(|claim| {
                let pods = self.picture.pods.in_namespace(&claim.namespace);
                let uses = |pod: &PodView| pod.claims.iter().any(|(_, name)| *name == claim.name);
                pods.into_iter().filter(|p| !p.node.is_empty() && p.node != node && uses(p)).collect()
            })
            .unwrap_or_default();
        let mut names: Vec<&str> = users.iter().map(|pod| pod.key.name.as_str()).collect();
        names.sort_unstable();
        let why = if names.is_empty() {
            "Volume is already exclusively attached to one node and can't be attached to another".to_owned()
        } else {
            format!("Volume is already used by pod(s) {}", names.join(", "))
        };
        format!("Multi-Attach error for volume {:?} {why}", used.wanted.name)
    }

    async fn attach(&self, node: &str, wanted: &Wanted) -> Result<(), ReconcileError> {
        let attachment = VolumeAttachment {
            metadata: kube::core::ObjectMeta {
                name: Some(wanted.volume.attachment_name(node)),
                ..kube::core::ObjectMeta::default()
            },
            spec: VolumeAttachmentSpec {
                attacher: wanted.volume.driver.clone(),
                node_name: node.to_owned(),
                source: VolumeAttachmentSource {
                    persistent_volume_name: Some(wanted.name.clone()),
                    inline_volume_spec: None,
                },
            },
            status: None,
        };
        let api: Api<VolumeAttachment> = Api::all(self.client.clone());
        match api.create(&PostParams::default(), &attachment).await {
            Err(error) if !error.is_already_exists() => Err(error.into()),
            _ => Ok(()),
        }
    }

    async fn detach(&self, node: &str, attachment: &Attachment, force: Option<Force>) -> Result<(), ReconcileError> {
        if let Some(force) = force {
            tracing::warn!(node, volume = attachment.volume.unique_name(), reason = force.reason(), "Force detach");
            self.metrics.forced.with_label_values(&[force.reason()]).inc();
        }
        let api: Api<VolumeAttachment> = Api::all(self.client.clone());
        let preconditions = Preconditions { uid: Some(attachment.uid.clone()), resource_version: None };
        let params = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
        match api.delete(&attachment.volume.attachment_name(node), &params).await {
            Err(error) if !error.is_not_found() && !error.is_conflict() => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// Brings the node's status up to date.
    async fn report(&self, name: &str, node: &Node, report: &BTreeSet<String>) -> Result<(), ReconcileError> {
        let current: BTreeSet<String> = node.reported.iter().cloned().collect();
        // What is attached in other ways is not touched.
        let foreign = current.iter().filter(|name| Volume::parse(name).is_none()).cloned();
        let wanted: BTreeSet<String> = report.iter().cloned().chain(foreign).collect();
        if !node.exists || wanted == current {
            return Ok(());
        }
        let list: Vec<Value> = wanted.iter().map(|name| json!({"name": name, "devicePath": ""})).collect();
        let list = if list.is_empty() { Value::Null } else { Value::Array(list) };
        let api: Api<ApiNode> = Api::all(self.client.clone());
        let patch = json!({"status": {"volumesAttached": list}});
        match client::merge_patch(&api, name, Scope::Status, &patch).await {
            Err(error) if !error.is_not_found() => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// Remembers since when volumes have not been wanted; forgets those that are gone or wanted.
    fn note(&self, node: &str, unwanted: &BTreeSet<Volume>, wanted: &BTreeSet<Volume>) {
        let elapsed = self.clock.elapsed();
        let mut since = self.unwanted.lock();
        since.retain(|(at, volume), _| at != node || unwanted.contains(volume));
        for volume in unwanted {
            since.entry((node.to_owned(), volume.clone())).or_insert(elapsed);
        }
        drop(since);
        self.told.lock().retain(|(at, volume), _| at != node || wanted.contains(volume));
    }

    /// Whole seconds since an attachment was made.
    fn age(&self, view: &AttachmentView) -> Duration {
        let seconds = now(&*self.clock).0.as_second() - view.created.map_or(0, |t| t.as_second());
        Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
    }

    /// Notes how long it took to attach a volume, when that is seen for the first time.
    fn measure(&self, node: &str, used: &Use, view: &AttachmentView, text: &str) {
        let known = self.told.lock();
        let told = known.get(&(node.to_owned(), used.wanted.volume.clone()));
        if told.is_some_and(|told| told.iter().any(|(_, said)| said == text)) {
            return;
        }
        let plugin = format!("kubernetes.io/csi:{}", view.attacher);
        let labels = [plugin.as_str(), "volume_attach", "success", "false"];
        self.operations.with_label_values(&labels).observe(self.age(view).as_secs_f64());
    }

    /// What drivers say of attachments that Pods wait for; the time after which to look again.
    fn follow(
        &self,
        name: &str,
        uses: &[Use],
        there: &[(Attachment, Arc<Cached<AttachmentView>>)],
    ) -> Option<Duration> {
        let mut again: Option<Duration> = None;
        for (attachment, view) in there {
            if let Some(error) = view.detach_error.as_ref().filter(|_| view.is_going) {
                tracing::warn!(node = name, attachment = view.key.name, error, "A volume cannot be detached");
            }
            let Some(used) = uses.iter().find(|used| used.wanted.volume == attachment.volume) else { continue };
            let pv = &used.wanted.name;
            if view.is_going {
                continue;
            }
            if view.is_attached {
                let text = format!("AttachVolume.Attach succeeded for volume {pv:?}");
                self.measure(name, used, view, &text);
                self.tell(name, used, EventType::Normal, "SuccessfulAttachVolume", &text);
                continue;
            }
            let failed = |why: &str| {
                let text = format!("AttachVolume.Attach failed for volume {pv:?} : {why}");
                self.tell(name, used, EventType::Warning, "FailedAttachVolume", &text);
            };
            if let Some(error) = &view.attach_error {
                failed(error);
                continue;
            }
            let age = self.age(view);
            if age < PATIENCE {
                let left = PATIENCE - age;
                again = Some(again.map_or(left, |known| known.min(left)));
            } else {
                let Volume { driver, handle } = &attachment.volume;
                failed(&format!(
                    "timed out waiting for external-attacher of {driver} CSI driver to attach volume {handle}"
                ));
            }
        }
        again
    }
}

/// The volume of a CSI driver.
fn csi(volume: &crate::volumes::VolumeView) -> Option<Volume> {
    let source = volume.spec()?.csi.as_ref()?;
    Some(Volume { driver: source.driver.clone(), handle: source.volume_handle.clone() })
}

impl Reconcile for Reconciler {
    type Key = String;

    async fn reconcile(&self, name: &String) -> Result<Outcome, ReconcileError> {
        let view = self.picture.nodes.get(&ObjectKey::cluster(name));
        let view = view.as_ref().map(|node| &node.view);
        let node = state(view);
        let uses = self.uses(name, view);
        let there = self.attachments(name, &node);
        let wanted: Vec<Wanted> = uses.iter().map(|used| used.wanted.clone()).collect();
        let attachments: Vec<Attachment> = there.iter().map(|(attachment, _)| attachment.clone()).collect();
        let names: BTreeSet<Volume> = wanted.iter().map(|want| want.volume.clone()).collect();
        let unwanted = attachments.iter().map(|a| a.volume.clone()).filter(|v| !names.contains(v)).collect();
        self.note(name, &unwanted, &names);
        let attached = attachments.iter().filter(|attachment| attachment.is_attached);
        let there_are = attached.map(|attachment| attachment.volume.driver.as_str());
        self.metrics.set(name, wanted.iter().map(|want| want.volume.driver.as_str()), there_are);
        let elapsed = self.clock.elapsed();
        let waited = |volume: &Volume| {
            let since = self.unwanted.lock().get(&(name.clone(), volume.clone())).copied();
            since.map_or(Duration::ZERO, |since| elapsed.saturating_sub(since))
        };
        let decided = plan(&node, &wanted, &attachments, waited, self.can_force);
        let mut again = self.follow(name, &uses, &there);
        if self.can_force {
            let waits = decided.waiting.iter().map(|volume| MAX_UNMOUNT.saturating_sub(waited(volume)));
            let due = waits.filter(|left| !left.is_zero()).min();
            again = [again, due].into_iter().flatten().min();
        }
        // A node is not told of a volume any more before that is taken away.
        self.report(name, &node, &decided.report).await?;
        for action in &decided.actions {
            match action {
                Action::Attach(wanted) if self.may_attach(name, wanted, &uses) => {
                    let attached = self.attach(name, wanted).await;
                    if attached.is_err() {
                        self.picture.claims_of_nodes.settled(&wanted.name, name);
                    }
                    attached?;
                }
                Action::Detach(attachment, force) => self.detach(name, attachment, *force).await?,
                Action::Attach(wanted) | Action::Refuse(wanted) => {
                    if let Some(used) = uses.iter().find(|used| used.wanted == *wanted) {
                        let text = self.conflict(name, used);
                        self.tell(name, used, EventType::Warning, "FailedAttachVolume", &text);
                    }
                    if matches!(action, Action::Attach(_)) {
                        again = Some(again.map_or(RIVAL, |known| known.min(RIVAL)));
                    }
                }
            }
        }
        tracing::debug!(controller = CONTROLLER, node = name, actions = decided.actions.len(), "looked at a node");
        Ok(again.map_or(Outcome::Done, Outcome::After))
    }
}

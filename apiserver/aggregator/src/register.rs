//! Local APIServices: one for each group version that this server answers itself.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use api::discovery::{CUSTOM_GROUP_PRIORITY, Discovery, VERSION_PRIORITY};
use generic::{projection::Projection, resource::Resource, user::User, verbs::context::Moment};
use machinery::{ApiResult, meta};
use serde_json::{Value, json};

use crate::{
    condition::Availability,
    view::{AUTOMANAGED, Definition, View},
};

/// The group of APIServices has none itself: it is what they are read by.
const OWN_GROUP: &str = "apiregistration.k8s.io";
/// Pause before a failed round.
const RETRY: Duration = Duration::from_secs(1);
/// Values of [`AUTOMANAGED`].
const BUILT_IN: &str = "onstart";
const DEFINED: &str = "true";

/// A group version that needs an APIService.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Wanted {
    group: String,
    version: String,
    group_priority: i32,
    version_priority: i32,
    /// Value of the label.
    managed: &'static str,
}

impl Wanted {
    fn spec(&self) -> Value {
        let mut spec = json!({
            "version": self.version,
            "groupPriorityMinimum": self.group_priority,
            "versionPriority": self.version_priority,
        });
        if !self.group.is_empty() {
            spec["group"] = json!(self.group);
        }
        spec
    }
}

/// What is done to an APIService.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    Create(Wanted),
    Update(Wanted),
    Delete(String),
    /// Only the condition is missing.
    Mark(String),
}

/// Keeps the local APIServices.
pub(crate) struct Register {
    pub(crate) api_services: Arc<Resource>,
    pub(crate) views: Arc<Projection<View>>,
    pub(crate) definitions: Arc<Projection<Definition>>,
    /// The built-in groups.
    pub(crate) discovery: Discovery,
    /// Set when all local APIServices have been there once.
    pub(crate) complete: Arc<AtomicBool>,
}

impl Register {
    /// Runs for ever.
    pub(crate) async fn run(self) {
        let (mut services, mut definitions) = (self.views.changes(), self.definitions.changes());
        self.views.synced().await;
        self.definitions.synced().await;
        let built_in = built_in(&self.discovery);
        loop {
            let outcome = self.round(&built_in).await;
            if let Err(error) = &outcome {
                tracing::warn!(%error, "local APIServices are not up to date");
            } else {
                self.complete.store(true, Ordering::Release);
            }
            tokio::select! {
                changed = services.changed() => if changed.is_err() { return },
                changed = definitions.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(RETRY), if outcome.is_err() => {}
            }
        }
    }

    async fn round(&self, built_in: &BTreeMap<String, Wanted>) -> ApiResult<()> {
        let mut wanted = built_in.clone();
        for definition in self.definitions.all() {
            add_defined(&mut wanted, &definition);
        }
        let present = self.views.all().into_iter().map(|view| (view.metadata.name.clone(), view)).collect();
        for step in plan(&wanted, &present) {
            self.act(step).await?;
        }
        Ok(())
    }

    async fn act(&self, step: Step) -> ApiResult<()> {
        match step {
            Step::Create(wanted) => self.create(&wanted).await,
            Step::Update(wanted) => self.rewrite(&wanted).await,
            Step::Mark(name) => mark(&self.api_services, &name, None, &Availability::local()).await,
            Step::Delete(name) => {
                let Some(stored) = self.api_services.starting_point("", &name).await? else { return Ok(()) };
                // Whoever was first: the next round looks again.
                let _removed_or_changed = self.api_services.remove("", &name, stored.revision).await?;
                Ok(())
            }
        }
    }

    async fn create(&self, wanted: &Wanted) -> ApiResult<()> {
        let moment = Moment::now();
        let mut object = json!({
            "apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService",
            "metadata": {
                "name": format!("{}.{}", wanted.version, wanted.group),
                "uid": uuid::Uuid::new_v4().to_string(),
                "creationTimestamp": moment.text,
                "labels": {AUTOMANAGED: wanted.managed},
            },
            "spec": wanted.spec(),
        });
        self.api_services.strategy.defaults(&mut object);
        let strategy = &self.api_services.strategy;
        moment.with_context(&User::server(), |context| strategy.prepare_create(&mut object, context));
        let object = Availability::local().applied(&object, &moment.text).unwrap_or(object);
        self.api_services.insert(&object).await.map(|_| ())
    }

    async fn rewrite(&self, wanted: &Wanted) -> ApiResult<()> {
        let name = format!("{}.{}", wanted.version, wanted.group);
        let Some(mut stored) = self.api_services.starting_point("", &name).await? else { return Ok(()) };
        stored.object["spec"] = wanted.spec();
        let labels = meta::metadata_mut(&mut stored.object).entry("labels").or_insert_with(|| json!({}));
        labels[AUTOMANAGED] = json!(wanted.managed);
        let now = Moment::now().text;
        let object = Availability::local().applied(&stored.object, &now).unwrap_or(stored.object);
        self.api_services.replace(&object, stored.revision).await.map(|_| ())
    }
}

/// Writes the condition of an APIService unless it stands there. With `uid`, only of that object.
pub(crate) async fn mark(
    api_services: &Resource,
    name: &str,
    uid: Option<&str>,
    availability: &Availability,
) -> ApiResult<()> {
    let present = api_services.starting_point("", name).await?;
    let correct = |stored: &Value| {
        let is_meant = uid.is_none_or(|uid| meta::uid(stored) == uid);
        is_meant.then(|| availability.applied(stored, &Moment::now().text)).flatten()
    };
    api_services.amend(present, correct).await
}

fn built_in(discovery: &Discovery) -> BTreeMap<String, Wanted> {
    let mut all = BTreeMap::new();
    for group in discovery.groups().iter().filter(|group| group.name != OWN_GROUP) {
        // Earlier versions are preferred.
        let count = i32::try_from(group.versions.len()).unwrap_or(i32::MAX);
        for (at, version) in (0..).zip(&group.versions) {
            let wanted = Wanted {
                group: group.name.clone(),
                version: version.name.clone(),
                group_priority: group.priority.clamp(1, 20_000),
                version_priority: if group.name.is_empty() { 1 } else { VERSION_STEP * (count - at) },
                managed: BUILT_IN,
            };
            all.insert(format!("{}.{}", version.name, group.name), wanted);
        }
    }
    all
}

/// Distance between the priorities of two built-in versions.
const VERSION_STEP: i32 = 15;

fn add_defined(wanted: &mut BTreeMap<String, Wanted>, definition: &Definition) {
    for version in definition.spec.versions.iter().filter(|version| version.served) {
        wanted.entry(format!("{}.{}", version.name, definition.spec.group)).or_insert_with(|| Wanted {
            group: definition.spec.group.clone(),
            version: version.name.clone(),
            group_priority: CUSTOM_GROUP_PRIORITY,
            version_priority: VERSION_PRIORITY,
            managed: DEFINED,
        });
    }
}

fn plan(wanted: &BTreeMap<String, Wanted>, present: &BTreeMap<String, Arc<View>>) -> Vec<Step> {
    let mut steps = Vec::new();
    for (name, wanted) in wanted {
        match present.get(name) {
            None => steps.push(Step::Create(wanted.clone())),
            // One that somebody made for a server of theirs is theirs.
            Some(view) if !view.metadata.labels.contains_key(AUTOMANAGED) => {
                if view.spec.service.is_none() && !is_marked(view) {
                    steps.push(Step::Mark(name.clone()));
                }
            }
            Some(view) if !is_right(view, wanted) => steps.push(Step::Update(wanted.clone())),
            Some(view) if !is_marked(view) => steps.push(Step::Mark(name.clone())),
            Some(_) => {}
        }
    }
    for (name, view) in present.iter().filter(|(name, _)| !wanted.contains_key(*name)) {
        if view.metadata.labels.contains_key(AUTOMANAGED) && view.metadata.deletion_timestamp.is_none() {
            steps.push(Step::Delete(name.clone()));
        } else if view.spec.service.is_none() && !is_marked(view) {
            steps.push(Step::Mark(name.clone()));
        }
    }
    steps
}

fn is_right(view: &View, wanted: &Wanted) -> bool {
    let spec = &view.spec;
    view.metadata.labels.get(AUTOMANAGED).is_some_and(|value| value == wanted.managed)
        && spec.service.is_none()
        && (spec.group_priority_minimum, spec.version_priority) == (wanted.group_priority, wanted.version_priority)
}

fn is_marked(view: &View) -> bool {
    view.status.conditions.iter().any(|c| c.kind == "Available" && c.status == "True" && c.reason == "Local")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(
        name: &str,
        label: Option<&str>,
        priorities: (i32, i32),
        service: bool,
        marked: bool,
    ) -> (String, Arc<View>) {
        let mut view = View::default();
        view.metadata.name = name.into();
        if let Some(label) = label {
            view.metadata.labels.insert(AUTOMANAGED.into(), label.into());
        }
        view.spec.service = service.then(Default::default);
        (view.spec.group_priority_minimum, view.spec.version_priority) = priorities;
        if marked {
            view.status.conditions =
                vec![crate::view::Seen { kind: "Available".into(), status: "True".into(), reason: "Local".into() }];
        }
        (name.to_owned(), Arc::new(view))
    }

    #[test]
    fn local_services_are_kept() {
        let apps = Wanted {
            group: "apps".into(),
            version: "v1".into(),
            group_priority: 17_800,
            version_priority: 15,
            managed: BUILT_IN,
        };
        let wanted = BTreeMap::from([("v1.apps".to_owned(), apps.clone())]);
        let steps = |present: Vec<(String, Arc<View>)>| plan(&wanted, &present.into_iter().collect());
        assert_eq!(steps(vec![]), [Step::Create(apps.clone())]);
        assert_eq!(steps(vec![view("v1.apps", Some("onstart"), (17_800, 15), false, true)]), []);
        assert_eq!(steps(vec![view("v1.apps", Some("onstart"), (1, 15), false, true)]), [Step::Update(apps)]);
        let good = view("v1.apps", Some("onstart"), (17_800, 15), false, true);
        let others = [
            (view("v1.gone.com", Some("true"), (1000, 100), false, true), vec![Step::Delete("v1.gone.com".into())]),
            (view("v1.own.com", None, (1000, 100), true, false), vec![]),
            (view("v1.odd.com", None, (1000, 100), false, false), vec![Step::Mark("v1.odd.com".into())]),
        ];
        for (other, expected) in others {
            assert_eq!(steps(vec![good.clone(), other]), expected);
        }
    }

    #[test]
    fn built_in_groups() {
        let all = built_in(&Discovery::new(Vec::new()));
        assert_eq!((all["v1."].group_priority, all["v1."].version_priority), (18_000, 1));
        assert!(all["v2.autoscaling"].version_priority > all["v1.autoscaling"].version_priority);
        assert!(!all.contains_key("v1.apiregistration.k8s.io"));
    }
}

//! Which plugin runs where: defaults, changed by `multiPoint` and by the single extension points.

use crate::framework::PluginId;

use super::file::{PluginFile, PluginsFile, PointFile};

/// An extension point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Point {
    PreEnqueue,
    QueueSort,
    PreFilter,
    Filter,
    PostFilter,
    PreScore,
    Score,
    Reserve,
    Permit,
    PreBind,
    Bind,
    PostBind,
}

use Point::{
    Bind, Filter, Permit, PostBind, PostFilter, PreBind, PreEnqueue, PreFilter, PreScore, QueueSort, Reserve, Score,
};

pub(super) const POINTS: [Point; 12] =
    [PreEnqueue, QueueSort, PreFilter, Filter, PostFilter, PreScore, Score, Reserve, Permit, PreBind, Bind, PostBind];

impl Point {
    /// As the file names it.
    pub(super) fn name(self) -> &'static str {
        match self {
            PreEnqueue => "preEnqueue",
            QueueSort => "queueSort",
            PreFilter => "preFilter",
            Filter => "filter",
            PostFilter => "postFilter",
            PreScore => "preScore",
            Score => "score",
            Reserve => "reserve",
            Permit => "permit",
            PreBind => "preBind",
            Bind => "bind",
            PostBind => "postBind",
        }
    }

    /// As metrics name it.
    pub(crate) fn label(self) -> &'static str {
        match self {
            PreEnqueue => "PreEnqueue",
            QueueSort => "QueueSort",
            PreFilter => "PreFilter",
            Filter => "Filter",
            PostFilter => "PostFilter",
            PreScore => "PreScore",
            Score => "Score",
            Reserve => "Reserve",
            Permit => "Permit",
            PreBind => "PreBind",
            Bind => "Bind",
            PostBind => "PostBind",
        }
    }

    fn of(self, file: &PluginsFile) -> &PointFile {
        match self {
            PreEnqueue => &file.pre_enqueue,
            QueueSort => &file.queue_sort,
            PreFilter => &file.pre_filter,
            Filter => &file.filter,
            PostFilter => &file.post_filter,
            PreScore => &file.pre_score,
            Score => &file.score,
            Reserve => &file.reserve,
            Permit => &file.permit,
            PreBind => &file.pre_bind,
            Bind => &file.bind,
            PostBind => &file.post_bind,
        }
    }
}

/// The extension points of a plugin, and its default weight.
pub(crate) fn points_of(plugin: PluginId) -> (&'static [Point], i32) {
    use PluginId as P;
    match plugin {
        P::SchedulingGates => (&[PreEnqueue], 0),
        P::PrioritySort => (&[QueueSort], 0),
        P::NodeUnschedulable | P::NodeName => (&[Filter], 0),
        P::TaintToleration => (&[Filter, PreScore, Score], 3),
        P::NodeAffinity => (&[PreFilter, Filter, PreScore, Score], 2),
        P::NodePorts | P::VolumeRestrictions | P::NodeVolumeLimits | P::VolumeZone | P::NodeDeclaredFeatures => {
            (&[PreFilter, Filter], 0)
        }
        P::NodeResourcesFit => (&[PreFilter, Filter, PreScore, Score], 1),
        P::VolumeBinding => (&[PreFilter, Filter, Reserve, PreBind], 0),
        P::PodTopologySpread | P::InterPodAffinity => (&[PreFilter, Filter, PreScore, Score], 2),
        P::DynamicResources => (&[PreEnqueue, PreFilter, Filter, PostFilter, Score, Reserve, PreBind], 2),
        P::DefaultPreemption => (&[PreEnqueue, PostFilter], 0),
        P::NodeResourcesBalancedAllocation => (&[PreScore, Score], 1),
        P::ImageLocality => (&[Score], 1),
        P::DefaultBinder => (&[Bind], 0),
        P::Extender => (&[], 0),
    }
}

/// All plugins with their weights, as a file would list them.
pub(super) fn default_plugins() -> PluginsFile {
    let entry = |plugin: &PluginId| PluginFile {
        name: plugin.name().to_owned(),
        weight: Some(points_of(*plugin).1).filter(|w| *w > 0),
    };
    let enabled = PluginId::ALL.iter().map(entry).collect();
    PluginsFile { multi_point: PointFile { enabled, ..PointFile::default() }, ..PluginsFile::default() }
}

/// A plugin at a point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Enabled {
    pub(super) plugin: PluginId,
    pub(super) weight: i32,
}

/// The plugins of one profile.
#[derive(Clone, Debug)]
pub(super) struct Points(Vec<(Point, Vec<Enabled>)>);

impl Points {
    /// Works out a profile's plugins; all that is wrong otherwise.
    pub(super) fn of(file: &PluginsFile) -> Result<Self, Vec<String>> {
        let mut problems = Vec::new();
        let mut multi: Vec<Enabled> = Vec::new();
        let clears = |set: &PointFile| set.disabled.iter().any(|p| p.name == "*");
        if !clears(&file.multi_point) {
            multi.extend(PluginId::ALL.iter().map(|p| Enabled { plugin: *p, weight: points_of(*p).1 }));
        }
        let disabled = |set: &PointFile, plugin: PluginId| set.disabled.iter().any(|p| p.name == plugin.name());
        multi.retain(|e| !disabled(&file.multi_point, e.plugin));
        for enabled in named(&file.multi_point.enabled, "multiPoint", &mut problems) {
            match multi.iter_mut().find(|e| e.plugin == enabled.plugin) {
                Some(known) if enabled.weight > 0 => known.weight = enabled.weight,
                Some(_) => {}
                None => multi.push(with_weight(enabled)),
            }
        }
        let mut all = Vec::new();
        for point in POINTS {
            let set = point.of(file);
            named(&set.disabled, point.name(), &mut problems);
            let own = named(&set.enabled, point.name(), &mut problems);
            for enabled in own.iter().filter(|e| !points_of(e.plugin).0.contains(&point)) {
                let (plugin, point) = (enabled.plugin, point.name());
                problems.push(format!("plugin {:?} does not extend {point} plugin", plugin.name()));
            }
            let by_multi: Vec<Enabled> = multi
                .iter()
                .filter(|e| points_of(e.plugin).0.contains(&point) && !clears(set) && !disabled(set, e.plugin))
                .copied()
                .collect();
            let in_multi = |e: &Enabled| by_multi.iter().any(|m| m.plugin == e.plugin);
            let weigh = |e: &Enabled| {
                let inherited = by_multi.iter().find(|m| m.plugin == e.plugin).copied();
                if e.weight > 0 { *e } else { inherited.unwrap_or_else(|| with_weight(*e)) }
            };
            // Those that are named here come first, then the ones of multiPoint, then the rest.
            let mut list: Vec<Enabled> = own.iter().filter(|e| in_multi(e)).map(weigh).collect();
            list.extend(by_multi.iter().filter(|m| !own.iter().any(|e| e.plugin == m.plugin)));
            list.extend(own.iter().filter(|e| !in_multi(e)).map(weigh));
            all.push((point, list));
        }
        let points = Self(all);
        points.check(&mut problems);
        if problems.is_empty() { Ok(points) } else { Err(problems) }
    }

    /// The plugins at a point, in the order in which they run.
    pub(super) fn at(&self, point: Point) -> &[Enabled] {
        self.0.iter().find(|(p, _)| *p == point).map_or(&[], |(_, list)| list.as_slice())
    }

    fn has(&self, point: Point, plugin: PluginId) -> bool {
        self.at(point).iter().any(|e| e.plugin == plugin)
    }

    fn check(&self, problems: &mut Vec<String>) {
        if !self.has(QueueSort, PluginId::PrioritySort) {
            problems.push("one queue sort plugin required for profile".into());
        }
        if !self.has(Bind, PluginId::DefaultBinder) {
            problems.push("at least one bind plugin is needed for profile".into());
        }
        // What a plugin prepares is of use only to itself, and it cannot do without.
        for (first, second) in [(PreFilter, Filter), (PreScore, Score), (Reserve, PreBind)] {
            for plugin in PluginId::ALL {
                let extends = |point| points_of(*plugin).0.contains(&point);
                let both = extends(first) && extends(second);
                if both && self.has(first, *plugin) != self.has(second, *plugin) {
                    problems.push(format!(
                        "plugin {:?} has to be enabled in both {} and {} or in neither",
                        plugin.name(),
                        first.name(),
                        second.name()
                    ));
                }
            }
        }
    }
}

fn with_weight(enabled: Enabled) -> Enabled {
    let default = points_of(enabled.plugin).1.max(1);
    Enabled { weight: if enabled.weight > 0 { enabled.weight } else { default }, ..enabled }
}

/// Plugins by name; unknown names and repeated ones are problems.
fn named(list: &[PluginFile], point: &str, problems: &mut Vec<String>) -> Vec<Enabled> {
    let mut found: Vec<Enabled> = Vec::new();
    for entry in list.iter().filter(|e| e.name != "*") {
        let Some(plugin) = PluginId::find(&entry.name) else {
            problems.push(format!("plugins.{point}: {:?} does not exist", entry.name));
            continue;
        };
        if found.iter().any(|e| e.plugin == plugin) {
            problems.push(format!("plugin {:?} already registered as {:?}", entry.name, point));
            continue;
        }
        found.push(Enabled { plugin, weight: entry.weight.unwrap_or(0) });
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> PluginsFile {
        serde_yaml::from_str(text).unwrap()
    }

    fn names(points: &Points, point: Point) -> Vec<(&'static str, i32)> {
        points.at(point).iter().map(|e| (e.plugin.name(), e.weight)).collect()
    }

    #[test]
    fn defaults() {
        let points = Points::of(&PluginsFile::default()).unwrap();
        assert_eq!(
            names(&points, Score),
            [
                ("TaintToleration", 3),
                ("NodeAffinity", 2),
                ("NodeResourcesFit", 1),
                ("PodTopologySpread", 2),
                ("InterPodAffinity", 2),
                ("DynamicResources", 2),
                ("NodeResourcesBalancedAllocation", 1),
                ("ImageLocality", 1),
            ]
        );
        let filters: Vec<&str> = names(&points, Filter).into_iter().map(|(n, _)| n).collect();
        assert_eq!(filters[..4], ["NodeUnschedulable", "NodeName", "TaintToleration", "NodeAffinity"]);
    }

    #[test]
    fn a_specific_point_overrides_weight_and_order() {
        let points = Points::of(&file(
            "score: {enabled: [{name: ImageLocality, weight: 7}], disabled: [{name: NodeAffinity}]}\n\
             preScore: {disabled: [{name: NodeAffinity}]}",
        ))
        .unwrap();
        let score = names(&points, Score);
        assert_eq!(score[0], ("ImageLocality", 7));
        assert!(!score.iter().any(|(n, _)| *n == "NodeAffinity"));
        assert!(names(&points, Filter).iter().any(|(n, _)| *n == "NodeAffinity"));
    }

    #[test]
    fn star_clears() {
        let points = Points::of(&file(
            "multiPoint: {disabled: [{name: '*'}], enabled: [{name: PrioritySort}, {name: DefaultBinder}, \
             {name: NodeResourcesFit}]}",
        ))
        .unwrap();
        assert_eq!(names(&points, Filter), [("NodeResourcesFit", 1)]);
    }

    #[test]
    fn mistakes_are_told() {
        let unknown = Points::of(&file("score: {enabled: [{name: Nope}]}")).unwrap_err();
        assert_eq!(unknown, ["plugins.score: \"Nope\" does not exist"]);
        let wrong = Points::of(&file("filter: {enabled: [{name: ImageLocality}]}")).unwrap_err();
        assert_eq!(wrong, ["plugin \"ImageLocality\" does not extend filter plugin"]);
        let half = Points::of(&file("filter: {disabled: [{name: NodePorts}]}")).unwrap_err();
        assert_eq!(half, ["plugin \"NodePorts\" has to be enabled in both preFilter and filter or in neither"]);
        let none = Points::of(&file("queueSort: {disabled: [{name: '*'}]}")).unwrap_err();
        assert_eq!(none, ["one queue sort plugin required for profile"]);
    }
}

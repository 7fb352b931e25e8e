//! What was found out about nodes for one Pod, kept for the next Pods that are like it.
//!
//! Some filters and scores depend on nothing but the Pod's template and the node itself. Their result for a node holds
//! until that node changes, so that of a hundred replicas only the first costs a look at every node.

use std::{collections::VecDeque, sync::Arc};

use crate::{
    cluster::{Cluster, NodeIx},
    framework::{Denial, PluginId},
    objects::Template,
};

/// Templates whose results are kept.
const KEPT: usize = 8;
/// Templates that are remembered to have been seen: results are kept from the second Pod on.
const SEEN: usize = 64;

type Verdict = Option<(PluginId, Denial)>;

/// Results for one template. A version of 0 marks what is not known.
#[derive(Debug, Default)]
pub(crate) struct Memo {
    template: Arc<Template>,
    verdicts: Vec<(u64, Verdict)>,
    scores: Vec<(u64, i64)>,
}

impl Memo {
    /// What the filters of the node itself say.
    pub(crate) fn verdict(&mut self, cluster: &Cluster, node: NodeIx, find: impl FnOnce() -> Verdict) -> Verdict {
        kept(&mut self.verdicts, cluster, node, find)
    }

    /// The score that the node gets for itself.
    pub(crate) fn score(&mut self, cluster: &Cluster, node: NodeIx, find: impl FnOnce() -> i64) -> i64 {
        kept(&mut self.scores, cluster, node, find)
    }
}

fn kept<T: Clone + Default>(all: &mut Vec<(u64, T)>, cluster: &Cluster, node: NodeIx, find: impl FnOnce() -> T) -> T {
    if all.len() <= node.at() {
        all.resize_with(cluster.nodes.slots().max(node.at() + 1), Default::default);
    }
    let version = cluster.version(node);
    match all.get_mut(node.at()) {
        Some((at, known)) if *at == version => known.clone(),
        Some(entry) => {
            *entry = (version, find());
            entry.1.clone()
        }
        None => find(),
    }
}

/// The results that are kept, the latest used first.
#[derive(Debug, Default)]
pub(crate) struct Memos {
    kept: VecDeque<Memo>,
    seen: VecDeque<Arc<Template>>,
}

impl Memos {
    /// The results for a template, if it was seen before.
    pub(crate) fn of(&mut self, template: &Arc<Template>) -> Option<&mut Memo> {
        if let Some(at) = self.kept.iter().position(|m| Arc::ptr_eq(&m.template, template)) {
            let memo = self.kept.remove(at)?;
            self.kept.push_front(memo);
            return self.kept.front_mut();
        }
        if !self.seen.iter().any(|t| Arc::ptr_eq(t, template)) {
            self.seen.truncate(SEEN - 1);
            self.seen.push_front(Arc::clone(template));
            return None;
        }
        self.kept.truncate(KEPT - 1);
        self.kept.push_front(Memo { template: Arc::clone(template), ..Memo::default() });
        self.kept.front_mut()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugins::testing::{Fixture, pod_view};

    #[test]
    fn results_hold_until_the_node_changes() {
        let mut fixture = Fixture::new();
        fixture.node("a", |n| n);
        fixture.node("b", |n| n);
        let pod = pod_view("p", |p| p);
        let mut memos = Memos::default();
        assert!(memos.of(&pod.template).is_none(), "seen for the first time");
        let (a, b) = (fixture.cluster.nodes.find("a").unwrap(), fixture.cluster.nodes.find("b").unwrap());
        let mut ask =
            |fixture: &Fixture, node, fresh| memos.of(&pod.template).unwrap().score(&fixture.cluster, node, || fresh);
        assert_eq!((ask(&fixture, a, 1), ask(&fixture, b, 2)), (1, 2));
        assert_eq!((ask(&fixture, a, 3), ask(&fixture, b, 4)), (1, 2));
        fixture.bound("x", "a", |p| p);
        assert_eq!((ask(&fixture, a, 5), ask(&fixture, b, 6)), (5, 2));
        fixture.node("b", |n| n.label("new", "label"));
        assert_eq!(ask(&fixture, b, 7), 7);
    }

    #[test]
    fn few_are_kept() {
        let mut memos = Memos::default();
        let pods: Vec<_> = (0..20).map(|n| pod_view("p", |p| p.label("n", &n.to_string()))).collect();
        for _ in 0..2 {
            for pod in &pods {
                memos.of(&pod.template);
            }
        }
        assert_eq!(memos.kept.len(), KEPT);
        assert!(memos.of(&pods[19].template).is_some());
    }
}

//! Pods that wait for room which preemption is making on a node.

use std::{collections::HashMap, sync::Arc};

use crate::objects::PodView;

/// Pods by the node that is nominated for them.
#[derive(Debug, Default)]
pub(crate) struct Nominations {
    by_node: HashMap<Box<str>, Vec<Arc<PodView>>>,
    by_pod: HashMap<Arc<str>, Box<str>>,
}

impl Nominations {
    /// Notes the node of a Pod; an empty name takes the nomination back.
    pub(crate) fn set(&mut self, pod: &Arc<PodView>, node: &str) {
        self.remove(&pod.uid);
        if !node.is_empty() {
            self.by_node.entry(node.into()).or_default().push(Arc::clone(pod));
            self.by_pod.insert(Arc::clone(&pod.uid), node.into());
        }
    }

    /// A newer state of a Pod came. Its own word counts, unless it says nothing and a nomination made here is not
    /// written yet.
    pub(crate) fn update(&mut self, old: Option<&PodView>, pod: &Arc<PodView>) {
        let said_before = old.map_or("", |p| &*p.nominated_node);
        if pod.nominated_node.is_empty()
            && said_before.is_empty()
            && let Some(node) = self.by_pod.get(&pod.uid).cloned()
        {
            self.set(pod, &node);
        } else {
            let node = pod.nominated_node.clone();
            self.set(pod, &node);
        }
    }

    pub(crate) fn remove(&mut self, uid: &str) {
        let Some(node) = self.by_pod.remove(uid) else { return };
        if let Some(pods) = self.by_node.get_mut(&node) {
            pods.retain(|p| *p.uid != *uid);
            if pods.is_empty() {
                self.by_node.remove(&node);
            }
        }
    }

    /// The node of a Pod.
    pub(crate) fn node_of(&self, uid: &str) -> Option<&str> {
        self.by_pod.get(uid).map(|n| &**n)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.by_node.is_empty()
    }

    /// Whether Pods are to come to a node.
    pub(crate) fn any_on(&self, node: &str) -> bool {
        self.by_node.contains_key(node)
    }

    /// Pods that are to come to a node.
    pub(crate) fn on(&self, node: &str) -> &[Arc<PodView>] {
        self.by_node.get(node).map_or(&[], Vec::as_slice)
    }
}

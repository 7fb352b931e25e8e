//! Pods on nodes, grouped by what placing others depends on: their template.

use std::{collections::HashMap, sync::Arc};

use super::nodes::NodeIx;
use crate::objects::Template;

/// Name of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct GroupIx(usize);

/// Pods of a group on one node.
#[derive(Clone, Copy, Debug, Default)]
struct Places {
    all: i64,
    living: i64,
}

#[derive(Debug)]
pub(crate) struct Group {
    pub(crate) template: Arc<Template>,
    places: HashMap<NodeIx, Places>,
}

impl Group {
    /// Nodes with how many Pods of the group they have: all, and those not being deleted.
    pub(crate) fn places(&self) -> impl Iterator<Item = (NodeIx, i64, i64)> {
        self.places.iter().map(|(node, p)| (*node, p.all, p.living))
    }
}

/// What happened to the set of groups.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Grouped {
    /// The group was there and stays.
    Same(GroupIx),
    /// The group is new.
    Came(GroupIx),
    /// The group had no other Pods.
    Left(GroupIx),
}

/// All groups with Pods on nodes.
#[derive(Debug, Default)]
pub(crate) struct Groups {
    slots: Vec<Option<Group>>,
    free: Vec<GroupIx>,
    /// By the address of the template, of which there is one for equal ones.
    by_template: HashMap<usize, GroupIx>,
}

fn address(template: &Arc<Template>) -> usize {
    Arc::as_ptr(template).addr()
}

impl Groups {
    pub(crate) fn iter(&self) -> impl Iterator<Item = (GroupIx, &Group)> {
        self.slots.iter().enumerate().filter_map(|(at, g)| g.as_ref().map(|g| (GroupIx(at), g)))
    }

    pub(crate) fn add(&mut self, template: &Arc<Template>, node: NodeIx, terminating: bool) -> Grouped {
        let known = self.by_template.get(&address(template)).copied();
        let group = known.unwrap_or_else(|| {
            let fresh = Group { template: Arc::clone(template), places: HashMap::new() };
            let at = self.free.pop().unwrap_or_else(|| {
                self.slots.push(None);
                GroupIx(self.slots.len() - 1)
            });
            self.slots[at.0] = Some(fresh);
            self.by_template.insert(address(template), at);
            at
        });
        if let Some(Some(entry)) = self.slots.get_mut(group.0) {
            let places = entry.places.entry(node).or_default();
            places.all += 1;
            places.living += i64::from(!terminating);
        }
        if known.is_some() { Grouped::Same(group) } else { Grouped::Came(group) }
    }

    pub(crate) fn remove(&mut self, template: &Arc<Template>, node: NodeIx, terminating: bool) -> Option<Grouped> {
        let group = *self.by_template.get(&address(template))?;
        let slot = self.slots.get_mut(group.0)?;
        let entry = slot.as_mut()?;
        let places = entry.places.get_mut(&node)?;
        places.all -= 1;
        places.living -= i64::from(!terminating);
        if places.all <= 0 {
            entry.places.remove(&node);
        }
        if !entry.places.is_empty() {
            return Some(Grouped::Same(group));
        }
        *slot = None;
        self.by_template.remove(&address(template));
        self.free.push(group);
        Some(Grouped::Left(group))
    }
}

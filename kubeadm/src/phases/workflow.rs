//! A tree of phases and the ways through it: all of it, all but what is skipped, or one member.

use std::{future::Future, pin::Pin};

use crate::error::{Error, Result, fail};

/// A phase in progress.
pub type Running<'a> = Pin<Box<dyn Future<Output = Result<()>> + 'a>>;

/// One phase. `C` is what the phases of a workflow share.
pub struct Phase<C: 'static> {
    /// Its name among its siblings.
    pub name: &'static str,
    /// What it does, in one line.
    pub short: &'static str,
    /// The work before that of its children.
    pub run: Option<for<'a> fn(&'a mut C) -> Running<'a>>,
    /// Its members.
    pub children: &'static [Phase<C>],
    /// Whether it only runs the siblings and is no step of the workflow.
    pub all: bool,
}

impl<C> Phase<C> {
    /// A phase without members.
    pub const fn leaf(name: &'static str, short: &'static str, run: for<'a> fn(&'a mut C) -> Running<'a>) -> Self {
        Self { name, short, run: Some(run), children: &[], all: false }
    }

    /// A phase with members.
    pub const fn group(name: &'static str, short: &'static str, children: &'static [Self]) -> Self {
        Self { name, short, run: None, children, all: false }
    }

    /// The same with work before that of the members.
    #[must_use]
    pub const fn first(mut self, run: for<'a> fn(&'a mut C) -> Running<'a>) -> Self {
        self.run = Some(run);
        self
    }

    /// The member that stands for all of its siblings.
    pub const fn all(short: &'static str) -> Self {
        Self { name: "all", short, run: None, children: &[], all: true }
    }
}

/// Which phases to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selection<'a> {
    /// All but these (full names; a group stands for its members).
    Except(&'a [String]),
    /// The one with this path.
    Only(&'a [String]),
}

/// Full names of the phases in order.
pub fn names<C>(phases: &[Phase<C>]) -> Vec<String> {
    let mut all = Vec::new();
    collect(phases, "", &mut |name, _| all.push(name.to_owned()));
    all
}

/// The lines that help shows.
pub fn outline<C>(phases: &[Phase<C>]) -> String {
    let mut rows = Vec::new();
    let mut indent = |phases: &[Phase<C>]| {
        for phase in phases {
            rows.push((phase.name.to_owned(), phase.short));
            for child in phase.children {
                rows.push((format!("  /{}", child.name), child.short));
            }
        }
    };
    indent(phases);
    let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    rows.iter().map(|(name, short)| format!("{name:width$} {short}\n")).collect()
}

fn collect<C>(phases: &[Phase<C>], parent: &str, visit: &mut impl FnMut(&str, &Phase<C>)) {
    for phase in phases {
        let name = if parent.is_empty() { phase.name.to_owned() } else { format!("{parent}/{}", phase.name) };
        visit(&name, phase);
        collect(phase.children, &name, visit);
    }
}

/// Checks the names of phases to skip.
pub fn check_skipped<C>(phases: &[Phase<C>], skipped: &[String]) -> Result<()> {
    let known = names(phases);
    match skipped.iter().find(|name| !known.contains(name)) {
        Some(name) => fail!("invalid phase name: {name}"),
        None => Ok(()),
    }
}

/// Whether a phase is among skipped ones, by itself or by its group.
pub fn is_skipped(skipped: &[String], name: &str) -> bool {
    let group = name.split('/').next().unwrap_or(name);
    skipped.iter().any(|s| s == name || s == group)
}

/// Runs the selected phases in order.
pub async fn run<C>(phases: &'static [Phase<C>], selection: Selection<'_>, context: &mut C) -> Result<()> {
    match selection {
        Selection::Except(skipped) => {
            check_skipped(phases, skipped)?;
            for phase in phases {
                tree(phase, skipped, context).await?;
            }
            Ok(())
        }
        Selection::Only(path) => only(phases, path, context).await,
    }
}

async fn tree<C>(phase: &'static Phase<C>, skipped: &[String], context: &mut C) -> Result<()> {
    if is_skipped(skipped, phase.name) {
        return Ok(());
    }
    step(phase, phase.name, context).await?;
    for child in phase.children.iter().filter(|child| !child.all) {
        let name = format!("{}/{}", phase.name, child.name);
        if !is_skipped(skipped, &name) {
            step(child, &name, context).await?;
        }
    }
    Ok(())
}

async fn only<C>(phases: &'static [Phase<C>], path: &[String], context: &mut C) -> Result<()> {
    let unknown = || Error::new(format!("invalid phase name: {}", path.join("/")));
    let (first, rest) = path.split_first().ok_or_else(unknown)?;
    let phase = phases.iter().find(|phase| phase.name == first).ok_or_else(unknown)?;
    let [member] = rest else {
        return if rest.is_empty() && phase.children.is_empty() {
            step(phase, phase.name, context).await
        } else {
            Err(unknown())
        };
    };
    let child = phase.children.iter().find(|child| child.name == member).ok_or_else(unknown)?;
    if child.all {
        return tree(phase, &[], context).await;
    }
    step(child, &format!("{}/{}", phase.name, child.name), context).await
}

async fn step<C>(phase: &'static Phase<C>, name: &str, context: &mut C) -> Result<()> {
    let Some(work) = phase.run else { return Ok(()) };
    work(context).await.map_err(|cause| Error::new(format!("error execution phase {name}: {cause}")))
}

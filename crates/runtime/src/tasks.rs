//! Owned tasks: every spawned future has a name and a group, and a group can be stopped and waited for.

use std::{
    collections::BTreeMap,
    sync::{Arc, Weak},
    time::Duration,
};

use parking_lot::Mutex;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::Instrument;

#[derive(Debug)]
struct Inner {
    path: String,
    token: CancellationToken,
    tracker: TaskTracker,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    closed: bool,
    next: u64,
    running: BTreeMap<u64, String>,
    children: Vec<Weak<Inner>>,
}

/// A set of named tasks with one cancellation token. Cheap to clone.
#[derive(Clone, Debug)]
pub struct TaskGroup(Arc<Inner>);

impl TaskGroup {
    /// A group without a parent.
    pub fn new(name: &str) -> Self {
        Self::with_token(name.to_owned(), CancellationToken::new())
    }

    /// A group that `token` stops.
    pub fn with_token(path: String, token: CancellationToken) -> Self {
        Self(Arc::new(Inner { path, token, tracker: TaskTracker::new(), state: Mutex::default() }))
    }

    /// A group inside this one: stopped with it, or alone.
    pub fn child(&self, name: &str) -> Self {
        let child = Self::with_token(format!("{}/{name}", self.0.path), self.0.token.child_token());
        let mut state = self.0.state.lock();
        state.children.retain(|c| c.strong_count() > 0);
        state.children.push(Arc::downgrade(&child.0));
        if state.closed {
            child.close();
        }
        child
    }

    /// Cancelled when the group stops.
    pub fn token(&self) -> &CancellationToken {
        &self.0.token
    }

    /// Runs a future until it ends. It is expected to watch [`TaskGroup::token`]. After [`TaskGroup::stop`] began, no
    /// task is taken any more.
    pub fn spawn<F>(&self, name: impl Into<String>, future: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let name = name.into();
        let mut state = self.0.state.lock();
        if state.closed {
            tracing::debug!(group = %self.0.path, task = %name, "task refused, the group is stopping");
            return;
        }
        let id = state.next;
        state.next += 1;
        let span = tracing::debug_span!("task", name = %name);
        state.running.insert(id, name);
        drop(state);
        let entry = Entry { group: Arc::downgrade(&self.0), id };
        // Each layer around a future holds it twice: where it waits and where it runs.
        let future = Box::pin(future);
        self.0.tracker.spawn(
            async move {
                future.await;
                drop(entry);
            }
            .instrument(span),
        );
    }

    /// Runs a future that may be dropped at any await point once the group stops.
    pub fn spawn_cancellable<F>(&self, name: impl Into<String>, future: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let token = self.0.token.clone();
        let future = Box::pin(future);
        self.spawn(name, async move {
            token.run_until_cancelled(future).await;
        });
    }

    /// Names of what runs, with the path of the group.
    pub fn running(&self) -> Vec<String> {
        let state = self.0.state.lock();
        let mut names: Vec<String> = state.running.values().map(|n| format!("{}/{n}", self.0.path)).collect();
        let children: Vec<_> = state.children.iter().filter_map(Weak::upgrade).collect();
        drop(state);
        for child in children {
            names.extend(Self(child).running());
        }
        names
    }

    /// Stops the group: cancels, takes no more tasks, waits for at most `deadline`; returns who did not finish.
    pub async fn stop(&self, deadline: Duration) -> Vec<String> {
        self.0.token.cancel();
        self.close();
        // The deadline ends the waiting, not the tasks: what is left is told by name.
        let _finished = tokio::time::timeout(deadline, self.wait()).await.is_ok();
        self.running()
    }

    fn close(&self) {
        let mut state = self.0.state.lock();
        state.closed = true;
        let children: Vec<_> = state.children.iter().filter_map(Weak::upgrade).collect();
        drop(state);
        self.0.tracker.close();
        children.into_iter().for_each(|c| Self(c).close());
    }

    async fn wait(&self) {
        self.0.tracker.wait().await;
        let children: Vec<_> = self.0.state.lock().children.iter().filter_map(Weak::upgrade).collect();
        for child in children {
            Box::pin(Self(child).wait()).await;
        }
    }
}

/// Takes the task out of the list when it ends, also by panic or by being dropped.
struct Entry {
    group: Weak<Inner>,
    id: u64,
}

impl Drop for Entry {
    fn drop(&mut self) {
        if let Some(group) = self.group.upgrade() {
            group.state.lock().running.remove(&self.id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn stop_names_who_stays() {
        let root = TaskGroup::new("root");
        let child = root.child("workers");
        let token = child.token().clone();
        child.spawn("polite", async move { token.cancelled().await });
        root.spawn("stubborn", std::future::pending());
        child.spawn_cancellable("dropped", std::future::pending());
        assert_eq!(root.running().len(), 3);
        assert_eq!(root.stop(Duration::from_millis(200)).await, ["root/stubborn"]);
        child.spawn("late", async {});
        assert_eq!(child.running(), Vec::<String>::new());
    }

    #[tokio::test]
    async fn a_child_stops_alone() {
        let root = TaskGroup::new("root");
        let child = root.child("one");
        child.spawn_cancellable("x", std::future::pending());
        assert!(child.stop(Duration::from_secs(5)).await.is_empty());
        assert!(!root.token().is_cancelled());
    }
}

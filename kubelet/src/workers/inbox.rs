//! What a Pod's task is told.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::pods;
use crate::status::Verdict;

/// Ends a Pod for another reason than its deletion.
#[derive(Clone, Debug, Default)]
pub struct StopRequest {
    /// Seconds, where they differ from the Pod's own.
    pub grace: Option<i64>,
    /// Status that replaces what the containers say.
    pub verdict: Option<Verdict>,
}

#[derive(Default)]
struct Inner {
    pod: Option<Arc<Pod>>,
    gone: bool,
    stop: Option<StopRequest>,
    dirty: bool,
}

/// A snapshot of the inbox.
#[derive(Clone, Debug)]
pub(super) struct Orders {
    pub pod: Arc<Pod>,
    /// Deleted, dropped by its source, finished or evicted.
    pub stop: bool,
    pub grace: i64,
    pub verdict: Option<Verdict>,
}

/// Shared between the registry and the task.
#[derive(Default)]
pub(super) struct Inbox {
    inner: Mutex<Inner>,
    wake: Notify,
}

impl Inbox {
    /// A new version of the Pod; whether it gives the task anything to do.
    pub(super) fn update(&self, pod: Arc<Pod>, matters: bool) {
        if matters {
            self.change(|inner| inner.pod = Some(pod));
        } else {
            self.inner.lock().pod = Some(pod);
        }
    }

    /// The source does not have it any more.
    pub(super) fn remove(&self) {
        self.change(|inner| inner.gone = true);
    }

    /// End it; of several requests the shortest grace and the first verdict count.
    pub(super) fn stop(&self, request: StopRequest) {
        self.change(|inner| {
            let known = inner.stop.get_or_insert_default();
            known.grace = match (known.grace, request.grace) {
                (Some(a), Some(b)) => Some(a.min(b)),
                (a, b) => a.or(b),
            };
            known.verdict = known.verdict.take().or(request.verdict);
        });
    }

    /// Look again.
    pub(super) fn nudge(&self) {
        self.change(|_| {});
    }

    fn change(&self, change: impl FnOnce(&mut Inner)) {
        let mut inner = self.inner.lock();
        change(&mut inner);
        inner.dirty = true;
        drop(inner);
        self.wake.notify_one();
    }

    /// The present orders; changes after this call are seen by [`Inbox::changed`].
    pub(super) fn read(&self, last: &Arc<Pod>) -> Orders {
        let mut inner = self.inner.lock();
        inner.dirty = false;
        Self::orders(&inner, last)
    }

    fn orders(inner: &Inner, last: &Arc<Pod>) -> Orders {
        let pod = inner.pod.clone().unwrap_or_else(|| Arc::clone(last));
        let stop = inner.gone || inner.stop.is_some() || pods::is_deleting(&pod) || is_over(&pod);
        Orders {
            grace: grace(&pod, inner.stop.as_ref()),
            verdict: inner.stop.as_ref().and_then(|request| request.verdict.clone()),
            stop,
            pod,
        }
    }

    /// Returns at once if something changed since the last read.
    pub(super) async fn changed(&self) {
        self.until(|inner| inner.dirty).await;
    }

    /// Returns when the Pod is to end.
    pub(super) async fn stopped(&self, last: &Arc<Pod>) {
        self.until(|inner| Self::orders(inner, last).stop).await;
    }

    /// Returns when the grace is shorter than it was.
    pub(super) async fn shortened(&self, last: &Arc<Pod>, than: i64) {
        self.until(|inner| Self::orders(inner, last).grace < than).await;
    }

    async fn until(&self, reached: impl Fn(&Inner) -> bool) {
        loop {
            let notified = self.wake.notified();
            if reached(&self.inner.lock()) {
                // Another wait in the same task may have taken this wake-up's place.
                self.wake.notify_one();
                return;
            }
            notified.await;
        }
    }
}

/// The Pod ended in the API's view; static Pods never do.
fn is_over(pod: &Pod) -> bool {
    !pods::is_static(pod) && pods::is_terminal_phase(pods::phase(pod))
}

/// The shortest of all that was asked for, at least a second.
fn grace(pod: &Pod, request: Option<&StopRequest>) -> i64 {
    let asked = [pod.metadata.deletion_grace_period_seconds, request.and_then(|request| request.grace)];
    let shortest = asked.into_iter().flatten().min();
    shortest.or(pods::spec(pod).termination_grace_period_seconds).unwrap_or(30).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(deletion: Option<i64>) -> Arc<Pod> {
        let mut pod = Pod::default();
        pod.metadata.deletion_grace_period_seconds = deletion;
        pod.spec.get_or_insert_default().termination_grace_period_seconds = Some(60);
        Arc::new(pod)
    }

    #[test]
    fn grace_only_shrinks_and_is_never_zero() {
        let inbox = Inbox::default();
        let first = pod(None);
        assert_eq!(inbox.read(&first).grace, 60);
        assert!(!inbox.read(&first).stop);
        inbox.stop(StopRequest { grace: Some(10), verdict: None });
        inbox.stop(StopRequest { grace: Some(20), verdict: None });
        assert_eq!(inbox.read(&first).grace, 10);
        inbox.update(pod(Some(0)), true);
        assert_eq!(inbox.read(&first).grace, 1);
        assert!(inbox.read(&first).stop);
    }
}

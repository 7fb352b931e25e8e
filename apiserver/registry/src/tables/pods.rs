//! Pods: the state that one word has to tell.

use machinery::{meta, time::parse};
use serde_json::{Value, json};
use time::OffsetDateTime;

use super::cells::{NONE, age, condition, is_true, list, name, number, text, text_or};

pub(super) const COLUMNS: &str =
    "Name(s,n) Ready(s) Status(s) Restarts(s) Age(s) | IP(s) Node(s) Nominated Node(s) Readiness Gates(s)";

pub(super) fn cells(pod: &Value, now: OffsetDateTime) -> Vec<Value> {
    let state = State::of(pod);
    let gates = list(pod, "/spec/readinessGates");
    let total = gates.len();
    let open = gates.filter(|g| is_true(pod, text(g, "/conditionType"))).count();
    let ip = match text(pod, "/status/podIPs/0/ip") {
        "" => text_or(pod, "/status/podIP", NONE),
        ip => ip,
    };
    vec![
        name(pod),
        json!(format!("{}/{}", state.ready, state.total)),
        json!(state.reason),
        json!(state.restarts_text(now)),
        age(pod, now),
        json!(ip),
        json!(text_or(pod, "/spec/nodeName", NONE)),
        json!(text_or(pod, "/status/nominatedNodeName", NONE)),
        json!(if total == 0 { NONE.to_owned() } else { format!("{open}/{total}") }),
    ]
}

struct State {
    ready: usize,
    total: usize,
    reason: String,
    restarts: i64,
    last_restart: Option<OffsetDateTime>,
}

fn is_sidecar(pod: &Value, container: &str) -> bool {
    list(pod, "/spec/initContainers").any(|c| c["name"] == container && c["restartPolicy"] == "Always")
}

/// How an ended container is called.
fn ended(terminated: &Value) -> String {
    match (text(terminated, "/reason"), number(terminated, "/signal")) {
        ("", 0) => format!("ExitCode:{}", number(terminated, "/exitCode")),
        ("", signal) => format!("Signal:{signal}"),
        (reason, _) => reason.to_owned(),
    }
}

impl State {
    fn of(pod: &Value) -> Self {
        let mut state = Self {
            ready: 0,
            total: list(pod, "/spec/containers").len()
                + list(pod, "/spec/initContainers").filter(|c| c["restartPolicy"] == "Always").count(),
            reason: text_or(pod, "/status/reason", text(pod, "/status/phase")).to_owned(),
            restarts: 0,
            last_restart: None,
        };
        if condition(pod, "PodScheduled").is_some_and(|c| c["reason"] == "SchedulingGated") {
            state.reason = "SchedulingGated".into();
        }
        let initializing = state.walk_init(pod);
        if !initializing || is_true(pod, "Initialized") {
            state.walk_containers(pod, initializing);
        }
        if meta::is_deleting(pod) {
            let finished = matches!(text(pod, "/status/phase"), "Succeeded" | "Failed");
            if text(pod, "/status/reason") == "NodeLost" {
                state.reason = "Unknown".into();
            } else if !finished {
                state.reason = "Terminating".into();
            }
        }
        state
    }

    fn count(&mut self, status: &Value) {
        self.restarts += number(status, "/restartCount");
        if let Ok(at) = parse(text(status, "/lastState/terminated/finishedAt")) {
            self.last_restart = self.last_restart.max(Some(at));
        }
    }

    /// Whether an init container is still on its way.
    fn walk_init(&mut self, pod: &Value) -> bool {
        let total = list(pod, "/spec/initContainers").len();
        for (at, status) in list(pod, "/status/initContainerStatuses").enumerate() {
            self.count(status);
            let sidecar = is_sidecar(pod, text(status, "/name"));
            if let Some(terminated) = status.pointer("/state/terminated") {
                if number(terminated, "/exitCode") == 0 {
                    continue;
                }
                self.reason = format!("Init:{}", ended(terminated));
            } else if sidecar && status["started"] == true {
                if status["ready"] == true {
                    self.ready += 1;
                }
                continue;
            } else {
                self.reason = match text(status, "/state/waiting/reason") {
                    "" | "PodInitializing" => format!("Init:{at}/{total}"),
                    reason => format!("Init:{reason}"),
                };
            }
            return true;
        }
        false
    }

    fn walk_containers(&mut self, pod: &Value, initializing: bool) {
        // Restarts of ordinary init containers no longer count once the Pod runs.
        self.restarts = 0;
        self.last_restart = None;
        for status in list(pod, "/status/initContainerStatuses").filter(|s| is_sidecar(pod, text(s, "/name"))) {
            self.count(status);
        }
        let mut running = false;
        let mut error = String::new();
        for status in list(pod, "/status/containerStatuses").rev() {
            self.count(status);
            let waiting = text(status, "/state/waiting/reason");
            if !waiting.is_empty() {
                self.reason = waiting.to_owned();
            } else if let Some(terminated) = status.pointer("/state/terminated") {
                self.reason = ended(terminated);
                if number(terminated, "/exitCode") != 0 {
                    error.clone_from(&self.reason);
                }
            } else if status["ready"] == true && status.pointer("/state/running").is_some() {
                running = true;
                self.ready += 1;
            }
        }
        if self.reason == "Completed" && !initializing {
            if running && is_true(pod, "Ready") {
                self.reason = "Running".into();
            } else if !error.is_empty() {
                self.reason = error;
            } else if running {
                self.reason = "NotReady".into();
            }
        }
    }

    fn restarts_text(&self, now: OffsetDateTime) -> String {
        match self.last_restart {
            Some(at) if self.restarts > 0 => {
                format!("{} ({} ago)", self.restarts, machinery::duration::human((now - at).whole_seconds()))
            }
            _ => self.restarts.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(pod: Value) -> String {
        State::of(&pod).reason
    }

    #[test]
    fn one_word_states() {
        assert_eq!(status(json!({"status": {"phase": "Pending"}})), "Pending");
        let waiting = json!({"status": {"phase": "Pending", "containerStatuses": [{"state": {"waiting": {"reason": "ContainerCreating"}}}]}});
        assert_eq!(status(waiting), "ContainerCreating");
        let crashed = json!({"status": {"phase": "Failed", "containerStatuses": [{"state": {"terminated": {"exitCode": 1, "reason": "Error"}}}]}});
        assert_eq!(status(crashed), "Error");
        let init = json!({"spec": {"initContainers": [{"name": "a"}, {"name": "b"}]}, "status": {"phase": "Pending",
            "initContainerStatuses": [{"name": "a", "state": {"terminated": {"exitCode": 0}}}, {"name": "b", "state": {"waiting": {"reason": "PodInitializing"}}}]}});
        assert_eq!(status(init), "Init:1/2");
        let going = json!({"metadata": {"deletionTimestamp": "2024-01-01T00:00:00Z"}, "status": {"phase": "Running"}});
        assert_eq!(status(going), "Terminating");
    }

    #[test]
    fn restarts_tell_when() {
        let pod = json!({"spec": {"containers": [{}]}, "status": {"phase": "Running", "containerStatuses": [{
            "restartCount": 3, "ready": true, "state": {"running": {}},
            "lastState": {"terminated": {"finishedAt": "2024-01-01T00:00:00Z"}}}]}});
        let state = State::of(&pod);
        let now = parse("2024-01-01T00:05:00Z").expect("time");
        assert_eq!(state.restarts_text(now), "3 (5m ago)");
        assert_eq!((state.ready, state.total), (1, 1));
    }
}

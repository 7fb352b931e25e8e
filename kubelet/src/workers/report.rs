//! What a Pod's task tells: its status, the last words of its containers.

use std::sync::Arc;

use jiff::Timestamp;

use super::actor::Actor;
use crate::cri::{ContainerRecord, PodView, RecordState, labels};
use crate::metrics::METRICS;
use crate::pods::{self, Role};
use crate::probes::PodState;
use crate::status::{self, StatusInput};

const MAX_MESSAGE_BYTES: u64 = 4096;
const MAX_LOG_BYTES: usize = 2048;
const MAX_LOG_LINES: u64 = 80;
/// Termination messages of one Pod together.
const ALL_MESSAGES: usize = 12_288;

impl Actor {
    /// Computes and publishes the status, and shows the view to probes.
    pub(super) async fn publish(&mut self, view: &Arc<PodView>, terminal: bool) {
        self.read_messages(view).await;
        let services = Arc::clone(&self.services);
        let previous = services.statuses.get(self.uid()).or_else(|| self.pod.status.clone());
        let probes = services.probes.of(&self.pod, view);
        let facts = services.facts.get();
        let mut status = status::compute(&StatusInput {
            pod: &self.pod,
            view,
            previous: previous.as_ref(),
            waiting: &self.waiting,
            messages: &self.messages,
            readiness: &probes,
            node: &facts,
            runtime: &services.runtime_name,
            started: self.seen,
            now: Timestamp::now(),
            terminal,
            ready_to_start: services.settings.features.ready_to_start,
            verdict: self.verdict.as_ref(),
            actuated: &services.resizes.actuated(self.uid()),
            restarting_all: self.restarting_all,
            resize: &services.resizes.conditions(self.uid()),
        });
        if !self.reported_start && status.phase.as_deref() == Some("Running") {
            self.reported_start = true;
            METRICS.pod_start.observe(Timestamp::now().duration_since(self.seen).as_secs_f64());
        }
        if terminal && pods::is_static(&self.pod) {
            status.phase = previous.and_then(|previous| previous.phase).or(status.phase);
        }
        services.statuses.set(&self.pod, status);
        let state = PodState { pod: Arc::clone(&self.pod), view: Arc::clone(view), ips: self.ips(view) };
        self.probe_state.send_replace(Some(state));
    }

    /// Reads the last words of containers that ended since the last look.
    async fn read_messages(&mut self, view: &PodView) {
        self.messages.retain(|id, _| view.containers.iter().any(|record| record.id == *id));
        let count = pods::all_containers(&self.pod).count().max(1);
        for record in view.containers.iter().filter(|record| record.state == RecordState::Exited) {
            if !self.messages.contains_key(&record.id) {
                self.count_end(record);
                let mut text = self.last_words(record).await;
                text.truncate(text.floor_char_boundary(ALL_MESSAGES / count));
                self.messages.insert(record.id.clone(), text);
            }
        }
    }

    /// Counts the end of a container, if it ended before this kubelet's eyes.
    fn count_end(&self, record: &ContainerRecord) {
        if i128::from(record.finished_at) < self.services.started.as_nanosecond() {
            return;
        }
        let role = pods::find_container(&self.pod, &record.name).map_or(Role::Regular, |(_, role)| role);
        let labels = [role.metric(), &record.exit_code.to_string(), &record.reason];
        METRICS.pods.terminated.with_label_values(&labels).inc();
    }

    async fn last_words(&self, record: &ContainerRecord) -> String {
        let Some(wanted) = record.annotations.get(labels::TERMINATION_PATH) else { return String::new() };
        let mount = record.mounts.iter().find(|mount| mount.container_path == *wanted);
        let dir = self.services.paths.container(self.uid(), &record.name);
        if let Some(path) =
            mount.map(|mount| std::path::PathBuf::from(&mount.host_path)).filter(|path| path.starts_with(&dir))
        {
            let read = tokio::task::spawn_blocking(move || read_end(&path));
            match read.await {
                Ok(Ok(text)) if !text.is_empty() => return text,
                _ => {}
            }
        }
        let fallback =
            record.annotations.get(labels::TERMINATION_POLICY).is_some_and(|policy| policy == "FallbackToLogsOnError");
        if !fallback || record.exit_code == 0 || record.reason == "ContainerCannotRun" || record.log_path.is_empty() {
            return String::new();
        }
        match crate::logs::tail_bytes(std::path::Path::new(&record.log_path), MAX_LOG_LINES, MAX_LOG_BYTES).await {
            Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            Err(error) => format!("Error on reading termination message from logs: {error}"),
        }
    }
}

/// The last bytes of a file the container could write to.
fn read_end(path: &std::path::Path) -> std::io::Result<String> {
    use std::io::{Read, Seek, SeekFrom};
    let mut file = std::fs::File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(MAX_MESSAGE_BYTES)))?;
    let mut bytes = Vec::new();
    file.take(MAX_MESSAGE_BYTES).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

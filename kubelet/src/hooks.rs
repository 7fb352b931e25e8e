//! postStart and preStop hooks.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, HTTPGetAction, LifecycleHandler, Pod};

use crate::cri::{Cri, PodView};
use crate::events::{EventType, Events};
use crate::metrics::METRICS;
use crate::pods;
use crate::probes::http::{self, HTTP_TO_HTTPS, Target};
use crate::probes::resolve_port;
use crate::workers::plan::role_of;

const USER_AGENT: &str = "kube-lifecycle/1.36";
const HTTP_DEADLINE: Duration = Duration::from_secs(30);
const ALIVE_CHECK: Duration = Duration::from_millis(500);

/// Runs hooks.
pub struct Hooks {
    cri: Cri,
    events: Events,
}

impl Hooks {
    /// Commands go through the runtime.
    pub fn new(cri: Cri, events: Events) -> Self {
        Self { cri, events }
    }

    /// Runs one hook; the error is its message.
    pub async fn run(&self, pod: &Pod, container: &Container, id: &str, hook: &LifecycleHandler) -> Result<(), String> {
        let place = format!("for Container {:?} in Pod {:?} failed", container.name, pods::describe(pod));
        if let Some(action) = &hook.exec {
            let command: Vec<String> = action.command.clone().unwrap_or_default();
            let shown = format!("[{}]", command.join(" "));
            return match self.cri.exec_sync(id, command, Duration::ZERO).await {
                Ok(answer) if answer.exit_code == 0 => Ok(()),
                Ok(answer) => {
                    let mut output = answer.stdout;
                    output.extend_from_slice(&answer.stderr);
                    let error = format!("command terminated with exit code {}", answer.exit_code);
                    let text = String::from_utf8_lossy(&output);
                    Err(format!("Exec lifecycle hook ({shown}) {place} - error: {error}, message: {text:?}"))
                }
                Err(error) => Err(format!("Exec lifecycle hook ({shown}) {place} - error: {error}, message: \"\"")),
            };
        }
        if let Some(action) = &hook.http_get {
            let path = action.path.as_deref().unwrap_or("/");
            let result = tokio::time::timeout(HTTP_DEADLINE, self.http(pod, container, action)).await;
            let error = match result {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(error)) => error,
                Err(_) => "context deadline exceeded".to_owned(),
            };
            return Err(format!("HTTP lifecycle hook ({path}) {place} - error: {error}"));
        }
        if let Some(action) = &hook.sleep {
            let seconds = action.seconds;
            let time = Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
            return tokio::select! {
                () = tokio::time::sleep(time) => Ok(()),
                () = self.until_dead(id) => {
                    METRICS.pods.short_sleeps.inc();
                    let error = "container terminated before sleep hook finished";
                    Err(format!("Sleep lifecycle hook ({seconds}) {place} - error: {error}"))
                }
            };
        }
        Err(format!("Cannot run handler: invalid handler: {hook:?}"))
    }

    async fn until_dead(&self, id: &str) {
        let running = crate::cri::v1::ContainerState::ContainerRunning as i32;
        loop {
            tokio::time::sleep(ALIVE_CHECK).await;
            match self.cri.container_status(id, false).await {
                Ok(answer) if answer.status.as_ref().is_some_and(|status| status.state != running) => return,
                Err(error) if error.is_not_found() => return,
                _ => {}
            }
        }
    }

    async fn http(&self, pod: &Pod, container: &Container, action: &HTTPGetAction) -> Result<(), String> {
        let host = match action.host.clone().filter(|host| !host.is_empty()) {
            Some(host) => host,
            None => self.pod_ip(pod).await?,
        };
        let port = resolve_port(&action.port, container)?;
        let tls = action.scheme.as_deref().is_some_and(|scheme| scheme.eq_ignore_ascii_case("https"));
        let path = action.path.clone().unwrap_or_else(|| "/".to_owned());
        let target = Target { tls, host, port, path };
        let mut headers = http::headers(action.http_headers.as_deref().unwrap_or_default(), USER_AGENT);
        match http::get(&target, &headers).await {
            Err(error) if tls && error == HTTP_TO_HTTPS => {
                headers.remove(::http::header::AUTHORIZATION);
                http::get(&Target { tls: false, ..target.clone() }, &headers).await?;
                METRICS.pods.hook_fallbacks.inc();
                let text = format!(
                    "request to HTTPS lifecycle hook {}:{} got HTTP response, retry with HTTP succeeded",
                    target.host, target.port
                );
                let about = (container.name.as_str(), role_of(pod, &container.name));
                self.events.container(pod, about, EventType::Warning, "LifecycleHTTPFallback", text);
                Ok(())
            }
            // The status of the answer does not matter.
            other => other.map(drop),
        }
    }

    async fn pod_ip(&self, pod: &Pod) -> Result<String, String> {
        let view = PodView::read(&self.cri, pods::uid(pod)).await.map_err(|error| error.to_string())?;
        view.ips().first().cloned().ok_or_else(|| "failed to find networking container".to_owned())
    }
}

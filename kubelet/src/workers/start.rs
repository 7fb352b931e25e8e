//! Starting sandboxes and containers.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::IpAddr;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, ImageVolumeSource, Pod, Secret, Volume};
use rand::Rng;

use super::plan::role_of;
use crate::cri::{CriError, PodView, RecordState, v1};
use crate::env;
use crate::events::EventType;
use crate::images::{ImageError, PullPolicy};
use crate::metrics::METRICS;
use crate::net::{self, dns, hosts};
use crate::pods::{self, Role};
use crate::services::{RestartKey, Services};
use crate::spec::{ContainerInputs, Extras, SandboxInputs, SpecError, container_config, sandbox_config};
use crate::volumes::{Mounted, Ready};

/// A container that did not start, as its waiting state shows it.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[error("failed to start container {container:?}: {reason}: {message}")]
pub(super) struct StartError {
    pub container: String,
    pub reason: String,
    pub message: String,
    /// When another try makes sense, if that is known.
    pub retry_after: Option<std::time::Duration>,
}

/// What all containers of one round share.
pub(super) struct Round<'a> {
    pub services: &'a Services,
    pub pod: &'a Pod,
    pub view: &'a PodView,
    pub sandbox_id: &'a str,
    pub sandbox: &'a v1::PodSandboxConfig,
    pub mounted: &'a Mounted,
    pub secrets: &'a [Arc<Secret>],
    pub ips: &'a [IpAddr],
}

impl Services {
    /// The sandbox's configuration; warnings about DNS become events.
    pub(super) async fn sandbox(&self, pod: &Pod, attempt: u32) -> Result<v1::PodSandboxConfig, SpecError> {
        let host = match self.settings.resolv_conf.as_str() {
            "" => None,
            path => tokio::fs::read_to_string(path).await.ok().map(|text| dns::parse(&text)),
        };
        let (dns, warnings) = dns::of_pod(pod, host.as_ref(), &self.settings.dns);
        for warning in warnings {
            self.events.pod(pod, EventType::Warning, warning.reason, warning.message);
        }
        let log_directory = self.paths.logs_of(pod);
        let users = self.users(pod).await.map_err(SpecError::new)?;
        let groups = self.volumes.extra_groups(pod);
        let inputs = SandboxInputs {
            attempt,
            log_directory: &log_directory,
            dns,
            groups: &groups,
            users: &users,
            settings: &self.settings,
        };
        sandbox_config(pod, inputs)
    }

    /// Makes a sandbox and answers its id.
    pub(super) async fn create_sandbox(&self, pod: &Pod, config: &v1::PodSandboxConfig) -> Result<String, String> {
        let logs = self.paths.logs_of(pod);
        make_dir(&logs).map_err(|error| error.to_string())?;
        let handler = self.handler(pod).await?;
        let start = Instant::now();
        let result = self.cri.run_pod_sandbox(config.clone(), &handler).await;
        METRICS.pods.sandbox_duration.with_label_values(&[&handler]).observe(start.elapsed().as_secs_f64());
        if result.is_err() {
            METRICS.pods.sandbox_errors.with_label_values(&[&handler]).inc();
        }
        result.map_err(|error| error.to_string())
    }

    /// How the runtime runs the Pod.
    async fn handler(&self, pod: &Pod) -> Result<String, String> {
        let class = pods::spec(pod).runtime_class_name.as_deref().filter(|class| !class.is_empty());
        let Some(class) = class else { return Ok(String::new()) };
        let found = self.objects.runtime_handler(class).await;
        found.map_err(|error| format!("Failed to create sandbox for pod {:?}: {error}", pods::describe(pod)))
    }

    /// User ids of the Pod.
    async fn users(&self, pod: &Pod) -> Result<v1::UserNamespace, String> {
        let own = pods::spec(pod).host_users == Some(false);
        let handler = if own { self.handler(pod).await? } else { String::new() };
        self.user_namespaces.of(pod, &handler, &self.health.features().0)
    }

    fn restart_key(pod: &Pod, container: &Container) -> RestartKey {
        let shape = serde_json::json!([container.image, container.resources]).to_string();
        (pods::uid(pod).to_owned(), container.name.clone(), shape)
    }
}

fn make_dir(path: &Path) -> io::Result<()> {
    fs::create_dir_all(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))
}

impl Round<'_> {
    /// Starts one container, telling the world how it went.
    pub(super) async fn start(&self, container: &Container, role: Role) -> Result<(), StartError> {
        self.back_off(container, role)?;
        METRICS.started_containers.with_label_values(&[role.metric()]).inc();
        let result = Box::pin(self.try_start(container, role)).await;
        if let Err(error) = &result {
            METRICS.started_containers_errors.with_label_values(&[role.metric(), &error.reason]).inc();
        }
        result
    }

    fn error(&self, container: &Container, reason: &str, message: impl Into<String>) -> StartError {
        let (container, reason) = (container.name.clone(), reason.to_owned());
        StartError { container, reason, message: message.into(), retry_after: None }
    }

    /// A container that ended waits before it runs again.
    fn back_off(&self, container: &Container, role: Role) -> Result<(), StartError> {
        let exited = self.view.newest(&container.name).filter(|record| record.state == RecordState::Exited);
        let Some(record) = exited else { return Ok(()) };
        let (pod, now) = (self.pod, Timestamp::now());
        let finished = Timestamp::from_nanosecond(i128::from(record.finished_at)).unwrap_or(now);
        let key = Services::restart_key(pod, container);
        if let Some((left, delay)) = self.services.restarts.left(&key, finished, now) {
            let place = format!("container {} in pod {}", container.name, pods::describe(pod));
            let text = format!("Back-off restarting failed {place}");
            self.services.events.container(pod, (&container.name, role), EventType::Warning, "BackOff", text);
            let delay = crate::config::Span(delay);
            let message =
                format!("back-off {delay} restarting failed container={} pod={}", container.name, pods::describe(pod));
            return Err(StartError { retry_after: Some(left), ..self.error(container, "CrashLoopBackOff", message) });
        }
        self.services.restarts.next(key, finished, now);
        Ok(())
    }

    async fn try_start(&self, container: &Container, role: Role) -> Result<(), StartError> {
        let image = Box::pin(self.image(container, role)).await?;
        let fail = |reason: &str, message: String| self.failed(container, role, reason, message);
        let (services, pod) = (self.services, self.pod);
        let restart_count = self.restart_count(container);
        let config = Box::pin(self.config(container, role, restart_count, &image)).await;
        let config = config.map_err(|error| fail("CreateContainerConfigError", error))?;
        let request = v1::CreateContainerRequest {
            pod_sandbox_id: self.sandbox_id.to_owned(),
            config: Some(config),
            sandbox_config: Some(self.sandbox.clone()),
        };
        let id = services.cri.create_container(request).await;
        let volumes = u64::try_from(self.image_volumes_of(container).count()).unwrap_or(0);
        let counter = if id.is_ok() { &METRICS.images.volumes_mounted } else { &METRICS.images.volume_errors };
        counter.inc_by(volumes);
        let id = id.map_err(|error| fail("CreateContainerError", error.message()))?;
        let about = (container.name.as_str(), role);
        services.events.container(pod, about, EventType::Normal, "Created", "Container created");
        if let Err(error) = services.cri.start_container(&id).await {
            return Err(fail("RunContainerError", error.message().replace(&id, &container.name)));
        }
        if role != Role::Ephemeral {
            let resources = container.resources.clone().unwrap_or_default();
            services.resizes.told(pods::uid(pod), &container.name, resources);
        }
        services.events.container(pod, about, EventType::Normal, "Started", "Container started");
        self.link_log(container, &id, restart_count);
        self.post_start(container, role, &id).await
    }

    fn failed(&self, container: &Container, role: Role, reason: &str, message: String) -> StartError {
        let about = (container.name.as_str(), role);
        self.services.events.container(self.pod, about, EventType::Warning, "Failed", format!("Error: {message}"));
        self.error(container, reason, message)
    }

    async fn image(&self, container: &Container, role: Role) -> Result<crate::images::Pulled, StartError> {
        let image = container.image.as_deref().unwrap_or_default();
        let policy = PullPolicy::of(container.image_pull_policy.as_deref(), image);
        let about = (container.name.as_str(), role);
        let ensured = self.services.images.ensure(self.pod, about, image, policy, self.secrets, self.sandbox).await;
        ensured.map_err(|ImageError { reason, message }| {
            let text = format!("Error: {reason}");
            self.services.events.container(self.pod, about, EventType::Warning, "Failed", text);
            self.error(container, reason, message)
        })
    }

    /// One more than the newest record, or than the newest log if no record is left.
    fn restart_count(&self, container: &Container) -> i32 {
        if let Some(record) = self.view.newest(&container.name) {
            return record.restart_count.saturating_add(1);
        }
        let dir = self.services.paths.logs_of(self.pod).join(&container.name);
        let entries = fs::read_dir(dir).into_iter().flatten().flatten();
        let numbers = entries.filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            name.split_once(".log")?.0.parse::<i32>().ok()
        });
        numbers.max().map_or(0, |newest| newest.saturating_add(1))
    }

    async fn config(
        &self,
        container: &Container,
        role: Role,
        restart_count: i32,
        image: &crate::images::Pulled,
    ) -> Result<v1::ContainerConfig, String> {
        let (services, pod) = (self.services, self.pod);
        let node = services.facts.get();
        let empty_dirs = services.volumes.empty_dirs(pods::uid(pod));
        let inputs = env::Inputs { objects: &*services.objects, node: &node, ips: self.ips, empty_dirs: &empty_dirs };
        let env = env::build(pod, container, &inputs).await.map_err(|error| error.to_string())?;
        let target_id = self.target(container, role)?;
        let image_volumes = self.image_volumes(container, role).await?;
        let etc_hosts = self.write_hosts(container).await.map_err(|error| error.to_string())?;
        let termination_log = self.termination_log(container).map_err(|error| error.to_string())?;
        let logs = services.paths.logs_of(pod).join(&container.name);
        make_dir(&logs).map_err(|error| {
            format!("create container log directory for container {} failed: {error}", container.name)
        })?;
        let extras = self.extras(container).await?;
        let handlers = services.health.features().0;
        let recursive = handlers.iter().any(|handler| {
            handler.name.is_empty() && handler.features.is_some_and(|features| features.recursive_read_only_mounts)
        });
        let seccomp_dir = services.paths.seccomp();
        let options = self.sandbox.linux.as_ref().and_then(|linux| linux.security_context.as_ref());
        let options = options.and_then(|context| context.namespace_options.as_ref());
        let users = options.and_then(|options| options.userns_options.clone()).unwrap_or_default();
        let inputs = ContainerInputs {
            restart_count,
            image: (&image.reference, &image.user),
            env,
            mounted: self.mounted,
            volumes: &services.volumes,
            image_volumes: &image_volumes,
            etc_hosts: etc_hosts.as_deref(),
            termination_log: termination_log.as_deref(),
            target_id,
            extras,
            recursive_read_only: recursive,
            groups: &services.volumes.extra_groups(pod),
            users: &users,
            seccomp_dir: &seccomp_dir,
            node: &node,
            settings: &services.settings,
        };
        container_config(pod, container, inputs).await.map_err(|error| error.to_string())
    }

    /// What the container has for itself.
    async fn extras(&self, container: &Container) -> Result<Extras, String> {
        let (services, uid) = (self.services, pods::uid(self.pod));
        let devices = services.allot.devices.options(uid, &container.name).await;
        Ok(Extras {
            devices: devices.map_err(|error| error.to_string())?,
            cdi: services.claims.cdi(self.pod, container),
            cpus: services.allot.cpus.of(uid, &container.name).map(|cpus| cpus.to_string()),
            memory_nodes: services.allot.memory.nodes(uid, &container.name),
            exclusive: services.allot.cpus.exclusive(uid, &container.name).is_some(),
        })
    }

    /// The container whose processes an ephemeral container joins.
    fn target(&self, container: &Container, role: Role) -> Result<Option<String>, String> {
        if role != Role::Ephemeral {
            return Ok(None);
        }
        let own = pods::ephemeral_containers(self.pod).iter().find(|own| own.name == container.name);
        let Some(name) = own.and_then(|own| own.target_container_name.as_deref()).filter(|name| !name.is_empty())
        else {
            return Ok(None);
        };
        match self.view.newest(name) {
            Some(record) => Ok(Some(record.id.clone())),
            None => Err(format!("unable to find target container {name}")),
        }
    }

    /// Volumes of a container that are images.
    fn image_volumes_of(&self, container: &Container) -> impl Iterator<Item = (&Volume, &ImageVolumeSource)> {
        let volumes = pods::spec(self.pod).volumes.iter().flatten();
        let is_used = |volume: &Volume| container.volume_mounts.iter().flatten().any(|mount| mount.name == volume.name);
        volumes.filter(move |volume| is_used(volume)).filter_map(|volume| Some((volume, volume.image.as_ref()?)))
    }

    async fn image_volumes(
        &self,
        container: &Container,
        role: Role,
    ) -> Result<BTreeMap<String, v1::ImageSpec>, String> {
        let mut out = BTreeMap::new();
        for (volume, source) in self.image_volumes_of(container) {
            METRICS.images.volumes_requested.inc();
            let image = source.reference.as_deref().unwrap_or_default();
            let policy = PullPolicy::of(source.pull_policy.as_deref(), image);
            let about = (container.name.as_str(), role);
            let pulled = self.services.images.ensure(self.pod, about, image, policy, self.secrets, self.sandbox).await;
            let pulled = pulled.map_err(|error| {
                METRICS.images.volume_errors.inc();
                error.to_string()
            })?;
            let spec = v1::ImageSpec {
                image: pulled.reference,
                user_specified_image: image.to_owned(),
                ..v1::ImageSpec::default()
            };
            out.insert(volume.name.clone(), spec);
        }
        debug_assert!(out.keys().all(|name| matches!(self.mounted.get(name), Some(Ready::Image) | None)));
        Ok(out)
    }

    /// Writes the hosts file, unless the container brings its own.
    async fn write_hosts(&self, container: &Container) -> io::Result<Option<PathBuf>> {
        if container.volume_mounts.iter().flatten().any(|mount| mount.mount_path == "/etc/hosts") {
            return Ok(None);
        }
        let aliases = pods::spec(self.pod).host_aliases.as_deref().unwrap_or_default();
        let text = if pods::host_network(self.pod) {
            hosts::from_node(&tokio::fs::read_to_string("/etc/hosts").await?, aliases)
        } else {
            let (host, domain) = net::host_and_domain(self.pod, &self.services.settings.dns.domain);
            hosts::managed(self.ips, &host, &domain, aliases)
        };
        let path = self.services.paths.etc_hosts(pods::uid(self.pod));
        tokio::fs::write(&path, text).await?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644))?;
        Ok(Some(path))
    }

    /// An empty file that the container may write its last words to.
    fn termination_log(&self, container: &Container) -> io::Result<Option<PathBuf>> {
        if container.termination_message_path.as_deref() == Some("") {
            return Ok(None);
        }
        let dir = self.services.paths.container(pods::uid(self.pod), &container.name);
        fs::create_dir_all(&dir)?;
        let path = dir.join(format!("{:08x}", rand::rng().random::<u32>()));
        drop(fs::File::create(&path)?);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o666))?;
        Ok(Some(path))
    }

    fn link_log(&self, container: &Container, id: &str, restart_count: i32) {
        let paths = &self.services.paths;
        let log = paths.logs_of(self.pod).join(&container.name).join(format!("{restart_count}.log"));
        let link = paths.log_link(pods::name(self.pod), pods::namespace(self.pod), &container.name, id);
        if let Err(error) = symlink(&log, &link)
            && error.kind() != io::ErrorKind::AlreadyExists
        {
            tracing::warn!(link = %link.display(), %error, "log link");
        }
    }

    async fn post_start(&self, container: &Container, role: Role, id: &str) -> Result<(), StartError> {
        let Some(hook) = container.lifecycle.as_ref().and_then(|lifecycle| lifecycle.post_start.as_ref()) else {
            return Ok(());
        };
        let Err(message) = self.services.hooks.run(self.pod, container, id, hook).await else { return Ok(()) };
        let about = (container.name.as_str(), role);
        self.services.events.container(
            self.pod,
            about,
            EventType::Warning,
            "FailedPostStartHook",
            "PostStartHook failed",
        );
        if let Err(error) = self.kill_by_id(container, id).await {
            tracing::warn!(pod = pods::describe(self.pod), container = container.name, %error, "stop after a failed hook");
        }
        Err(self.error(container, "PostStartHookError", message))
    }

    async fn kill_by_id(&self, container: &Container, id: &str) -> Result<(), CriError> {
        let view = PodView::read(&self.services.cri, pods::uid(self.pod)).await?;
        let Some(record) = view.containers.iter().find(|record| record.id == id) else { return Ok(()) };
        debug_assert_eq!(role_of(self.pod, &record.name), role_of(self.pod, &container.name));
        let grace = pods::termination_grace(self.pod);
        self.services.kill_container(self.pod, record, "FailedPostStartHook", grace).await
    }
}

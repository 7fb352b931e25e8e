//! What is looked at and made before anything runs.

use std::path::Path;
use std::time::Duration;

use runtime::Runtime;
use spans::{Service, Tracer};

use crate::allot::Allotter;
use crate::config::{self, KubeletConfiguration, Logging};
use crate::cpus::{CpuLayout, Cpus};
use crate::cri::{Cri, CriError, v1};
use crate::devices::Devices;
use crate::gc::ImagePolicy;
use crate::kubelet::KubeletError;
use crate::memory::Memory;
use crate::options::KubeletFlags;
use crate::paths::Paths;
use crate::platform::{CgroupDriver, CgroupVersion, Platform, tuning};

const DRIVER_TRIES: u32 = 3;

/// The runtime's driver, or the configured one where the runtime cannot say.
pub(crate) async fn cgroup_driver(cri: &Cri, config: &KubeletConfiguration) -> Result<CgroupDriver, CriError> {
    let configured = match config.cgroup_driver.as_str() {
        "systemd" => CgroupDriver::Systemd,
        _ => CgroupDriver::Cgroupfs,
    };
    let mut last = None;
    for attempt in 0..DRIVER_TRIES {
        if attempt > 0 {
            tokio::time::sleep(Duration::from_secs(2)).await;
        }
        match cri.runtime_config().await {
            Ok(answer) => {
                let systemd = v1::CgroupDriver::Systemd as i32;
                let said = answer.linux.map(|linux| linux.cgroup_driver == systemd);
                return Ok(match said {
                    Some(true) => CgroupDriver::Systemd,
                    Some(false) => CgroupDriver::Cgroupfs,
                    None => configured,
                });
            }
            Err(error) if error.is_unimplemented() => return Ok(configured),
            Err(error) => last = Some(error),
        }
    }
    last.map_or(Ok(configured), Err)
}

/// What the file says of logs, where flags say nothing.
fn logs(config: &KubeletConfiguration, runtime: &Runtime) {
    // It was found valid before.
    let Ok(logging) = Logging::read(&config.logging) else { return };
    if let Some(verbosity) = logging.verbosity.filter(|_| !runtime.given("v")) {
        runtime::logging::set_verbosity(verbosity);
    }
    let format = (!runtime.given("logging-format")).then_some(logging.format);
    let modules = (!runtime.given("vmodule")).then_some(logging.modules);
    runtime::logging::set_form(format, modules);
}

/// Settings of the process itself.
pub(crate) fn process(
    flags: &KubeletFlags,
    config: &KubeletConfiguration,
    runtime: &Runtime,
) -> Result<(), KubeletError> {
    take_lock(flags, runtime)?;
    logs(config, runtime);
    tuning::share_memory();
    if let Err(error) = tuning::set_oom_score(config.oom_score_adj) {
        tracing::error!(%error, "failed to apply OOM adjustment");
    }
    if let Err(error) = tuning::set_max_open_files(u64::try_from(config.max_open_files).unwrap_or(0)) {
        tracing::error!(%error, "failed to set the number of open files");
    }
    tuning::kernel(config.protect_kernel_defaults).map_err(KubeletError::Machine)
}

/// Takes the lock file, if there is to be one; whoever else wants it may end this process.
fn take_lock(flags: &KubeletFlags, runtime: &Runtime) -> Result<(), KubeletError> {
    let Some(path) = &flags.lock_file else {
        if flags.exit_on_lock_contention {
            let text = "cannot exit on lock file contention: no lock file specified";
            return Err(KubeletError::Machine(text.to_owned()));
        }
        return Ok(());
    };
    let fail = |source| KubeletError::Files { path: path.clone(), source };
    tracing::info!(path = %path.display(), "acquiring file lock");
    tuning::lock(path).map_err(fail)?;
    if flags.exit_on_lock_contention {
        tracing::info!(path = %path.display(), "watching for inotify events");
        let (contended, stop) = (runtime::inotify::contention(path).map_err(fail)?, runtime.shutdown.clone());
        runtime.tasks.spawn_cancellable("lock contention", async move {
            contended.await;
            tracing::info!("The lock file is wanted by another process, exiting");
            stop.cancel();
        });
    }
    Ok(())
}

/// Moves the kubelet into the control group that it shall be in.
pub(crate) fn own_group(config: &KubeletConfiguration, platform: &dyn Platform) -> Result<(), KubeletError> {
    let path = &config.kubelet_cgroups;
    if path.is_empty() {
        return Ok(());
    }
    platform.join_cgroup(path).map_err(|source| KubeletError::Files { path: path.into(), source })
}

/// Refuses machines that the configuration does not want.
pub(crate) fn check_machine(config: &KubeletConfiguration, platform: &dyn Platform) -> Result<(), KubeletError> {
    if platform.cgroup_version() == CgroupVersion::V1 && config.fail_cgroup_v1 {
        let text = "kubelet is configured to not run on a host using cgroup v1. cgroup v1 support is unsupported and will be removed in a future release";
        return Err(KubeletError::Machine(text.to_owned()));
    }
    let swaps = std::fs::read_to_string("/proc/swaps").unwrap_or_default();
    if config.fail_swap_on && swaps.lines().count() > 1 {
        let text = format!(
            "running with swap on is not supported, please disable swap or set --fail-swap-on flag to false. /proc/swaps contents: {swaps:?}"
        );
        return Err(KubeletError::Machine(text));
    }
    Ok(())
}

/// The kubelet's own directories.
pub(crate) fn make_directories(paths: &Paths, platform: &dyn Platform) -> Result<(), KubeletError> {
    use std::os::unix::fs::PermissionsExt;
    let root = paths.root().to_owned();
    let wanted = [
        (root.clone(), 0o750),
        (paths.pods(), 0o750),
        (root.join("plugins"), 0o750),
        (root.join("plugins_registry"), 0o750),
        (root.join("pod-resources"), 0o750),
        (root.join("checkpoints"), 0o700),
        (root.join("device-plugins"), 0o750),
        (paths.pod_logs().to_owned(), 0o750),
        (paths.container_logs().to_owned(), 0o755),
    ];
    for (path, mode) in wanted {
        let made = std::fs::create_dir_all(&path)
            .and_then(|()| std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)));
        made.map_err(|source| KubeletError::Files { path, source })?;
    }
    platform.make_shared(&root).map_err(|source| KubeletError::Files { path: root, source })
}

/// Sends traces, if the configuration says where.
pub(crate) fn tracer(config: &KubeletConfiguration, node: &str, runtime: &Runtime) -> Result<Tracer, KubeletError> {
    let Some(wanted) = config::tracing(config).map_err(KubeletError::Machine)? else { return Ok(Tracer::off()) };
    let service = Service { name: "kubelet", instance: String::new(), host: node.to_owned() };
    let started = Tracer::start(&wanted, &service, &runtime.tasks);
    started.map_err(|error| KubeletError::Machine(util::chain(&error).to_string()))
}

/// What containers can have for themselves.
pub(crate) fn allotter(config: &KubeletConfiguration, paths: &Paths) -> Result<Allotter, String> {
    let layout = CpuLayout::read(Path::new("/sys/devices/system"));
    let devices = Devices::open(paths.root().join("device-plugins"));
    let cpus = Cpus::open(config, paths.root(), layout.clone())?;
    let memory = Memory::open(config, paths.root(), Path::new("/sys/devices/system"))?;
    Allotter::new(config, devices, cpus, memory, &layout)
}

/// User ids of a Pod that has its own.
pub(crate) fn ids_per_pod(config: &KubeletConfiguration) -> u32 {
    let configured = config.user_namespaces.as_ref().and_then(|own| u32::try_from(own.ids_per_pod).ok());
    configured.filter(|ids| *ids > 0).unwrap_or(65_536)
}

/// When images are removed.
pub(crate) fn image_policy(config: &KubeletConfiguration) -> ImagePolicy {
    let percent = |value: i32| u64::try_from(value).unwrap_or(0).min(100);
    ImagePolicy {
        high: percent(config.image_gc_high_threshold_percent),
        low: percent(config.image_gc_low_threshold_percent),
        min_age: config.image_minimum_gc_age.0,
        max_age: config.image_maximum_gc_age.0,
    }
}

//! What operators see of the daemons beside the API server: command lines, pages, metrics, logs, leases, the end.

use std::{
    path::PathBuf,
    process::{Command, Output},
};

use harness::{
    ApiServer,
    process::{Process, binary, free_port},
    server::{ADMIN_TOKEN, NOBODY_TOKEN, http_get},
    wait_until,
};
use http::{HeaderMap, Request};
use http_body_util::BodyExt;
use k8s_openapi::api::coordination::v1::Lease;
use kube::{Api, Client, Config, config::KubeConfigOptions};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;

use super::status;

fn run(program: &str, arguments: &[&str]) -> Output {
    Command::new(binary(program)).args(arguments).output().expect("a program")
}

#[test]
fn command_lines_that_cannot_be_are_refused() {
    let directory = tempfile::TempDir::new().expect("temporary directory");
    let file = directory.path().join("migration.yaml");
    let migration = "apiVersion: controllermanager.config.k8s.io/v1\nkind: LeaderMigrationConfiguration\n";
    std::fs::write(&file, migration).expect("a file");
    let migration = format!("--leader-migration-config={}", file.display());
    let root = format!("--root-dir={}", directory.path().display());
    let (manager, scheduler, kubelet, proxy) = ("kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy");
    let cases: &[(&str, &[&str], &str)] = &[
        (manager, &["--port=10252"], "Error: unknown flag: --port\n"),
        (manager, &["--pod-eviction-timeout=5m"], "Error: unknown flag: --pod-eviction-timeout\n"),
        (manager, &["x"], "Error: \"kube-controller-manager\" does not take any arguments, got [\"x\"]"),
        (manager, &["--controllers=nonesuch"], "\\\"nonesuch\\\" is not in the list of known controllers"),
        (manager, &["--cloud-provider=aws"], "unknown cloud provider"),
        (manager, &["--pvclaimbinder-sync-period=0"], "--pvclaimbinder-sync-period must be greater than 0"),
        (
            manager,
            &[
                "--cluster-signing-cert-file=a",
                "--cluster-signing-key-file=b",
                "--cluster-signing-legacy-unknown-cert-file=c",
                "--cluster-signing-legacy-unknown-key-file=d",
            ],
            "cannot specify --cluster-signing-legacy-unknown-cert-file and other --cluster-signing-*-file flags",
        ),
        (
            manager,
            &["--pv-recycler-pod-template-filepath-nfs=/no/such/file"],
            "could not create recycler pod from file",
        ),
        (manager, &["--enable-leader-migration", &migration], "leaderName must be set for migration"),
        (
            manager,
            &["--node-sync-period=1m", "--cloud-provider=aws"],
            "Flag --node-sync-period has been deprecated, This flag is currently no-op and will be deleted.\n",
        ),
        (
            manager,
            &["--allow_untagged_cloud", "--cloud-provider=aws"],
            "Flag --allow-untagged-cloud has been deprecated, This flag is deprecated and will be removed",
        ),
        (scheduler, &["--log-text-split-stream"], "Forbidden: Feature LoggingAlphaOptions is disabled"),
        (
            scheduler,
            &["--logging-format=json", "--vmodule=a=1"],
            "vmodule: Forbidden: Only supported for text log format",
        ),
        (scheduler, &["--logging-format=xml"], "\"command failed\" err=\"format: Invalid value"),
        (scheduler, &["--feature-gates=WatchListClient"], "missing bool value for WatchListClient"),
        (scheduler, &["--feature-gates=InOrderInformers=false"], "feature is locked to true"),
        (kubelet, &["--container-runtime=docker"], "Error: unknown flag: --container-runtime\n"),
        (kubelet, &["--exit-on-lock-contention", &root], "no lock file specified"),
        (
            kubelet,
            &["--experimental-mounter-path=/m", "--exit-on-lock-contention", &root],
            "Flag --experimental-mounter-path has been deprecated, will be removed in 1.25 or later. in favor of using CSI.\n",
        ),
        (proxy, &["--proxy-mode=userspace"], "userspace"),
    ];
    for (program, arguments, text) in cases {
        let output = run(program, arguments);
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!((output.status.code(), told.contains(text)), (Some(1), true), "{program} {arguments:?}: {told}");
    }
    for program in [manager, scheduler, kubelet, proxy] {
        let help = run(program, &["--help"]);
        let text = String::from_utf8_lossy(&help.stdout).into_owned();
        assert_eq!((help.status.code(), text.contains("Logs flags:")), (Some(0), true), "{program}: {text}");
        let version = run(program, &["--version"]);
        assert!(version.status.success() && version.stdout.starts_with(b"Kubernetes v1.36."), "{program}: {version:?}");
    }
}

/// A daemon that asks a server.
struct Daemon {
    process: Process,
    url: String,
    log: PathBuf,
}

impl Daemon {
    fn start(server: &ApiServer, program: &str, more: &[&str]) -> Self {
        let kubeconfig = server.kubeconfig_file(ADMIN_TOKEN).display().to_string();
        let (port, log) = (free_port(), server.path().join(format!("{program}.log")));
        let mut arguments = vec!["--bind-address=127.0.0.1".to_owned(), format!("--secure-port={port}")];
        let flags = ["kubeconfig", "authentication-kubeconfig", "authorization-kubeconfig"];
        arguments.extend(flags.map(|flag| format!("--{flag}={kubeconfig}")));
        arguments.extend(more.iter().map(|flag| (*flag).to_owned()));
        let process = Process::start(&binary(program), &arguments, log.clone());
        Self { process, url: format!("https://127.0.0.1:{port}"), log }
    }

    /// A client of the daemon's own pages.
    async fn client(&self, server: &ApiServer, token: &str) -> Client {
        let mut kubeconfig = server.kubeconfig(token);
        for cluster in kubeconfig.clusters.iter_mut().filter_map(|named| named.cluster.as_mut()) {
            cluster.server = Some(self.url.clone());
        }
        let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await;
        Client::try_from(config.expect("a configuration")).expect("a client")
    }

    async fn wait_healthy(&self, client: &Client) {
        wait_until("the daemon to be healthy", || async {
            let asked = client.request_text(http_get("/healthz")).await;
            asked.map(|_| ()).map_err(|error| format!("{error}: {}", self.output()))
        })
        .await;
    }

    fn output(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    fn tell(&self, signal: Signal) {
        let id = i32::try_from(self.process.id()).expect("a process id");
        kill(Pid::from_raw(id), signal).expect("a signal");
    }

    async fn wait_ended(&mut self) -> i32 {
        let mut look = || self.process.ended();
        wait_until("the daemon to end", move || std::future::ready(look().ok_or_else(|| "it runs".to_owned()))).await
    }
}

async fn page(client: &Client, method: &str, path: &str, accept: &str) -> (u16, HeaderMap, String) {
    let mut request = Request::builder().method(method).uri(path);
    if !accept.is_empty() {
        request = request.header("accept", accept);
    }
    let answer = client.send(request.body(kube::client::Body::empty()).expect("a request")).await.expect("an answer");
    let (parts, body) = answer.into_parts();
    let bytes = body.collect().await.expect("a body").to_bytes();
    (parts.status.as_u16(), parts.headers, String::from_utf8_lossy(&bytes).into_owned())
}

async fn pages_are_served(client: &Client, component: &str, key: &str) {
    let (_, headers, config) = page(client, "GET", "/configz", "").await;
    let config: Value = serde_json::from_str(&config).expect("JSON");
    assert!(config[key]["kind"].is_string() && config[key]["apiVersion"].is_string(), "{config}");
    assert_eq!(headers["cache-control"], "no-cache, private");
    let (_, _, text) = page(client, "GET", "/statusz", "").await;
    assert!(text.starts_with(&format!("\n{component} statusz\nWarning: This endpoint is not meant to be")), "{text}");
    let wanted = "application/json;v=v1beta1;g=config.k8s.io;as=Flagz";
    let (_, _, flags) = page(client, "GET", "/flagz", wanted).await;
    let flags: Value = serde_json::from_str(&flags).expect("JSON");
    assert_eq!((&flags["kind"], &flags["metadata"]["name"]), (&Value::from("Flagz"), &Value::from(component)));
    assert_eq!(flags["flags"]["bind-address"], "127.0.0.1");
    assert_eq!(page(client, "GET", "/flagz", "application/json").await.0, 406);
    let (code, _, told) = page(client, "GET", "/debug/flags/v", "").await;
    assert_eq!((code, told.as_str()), (406, "unsupported http method"));
    let (_, _, index) = page(client, "GET", "/debug/pprof/", "").await;
    assert!(index.contains("goroutine"), "{index}");
    let (code, _, profile) = page(client, "GET", "/debug/pprof/profile?seconds=1", "").await;
    assert!(code == 200 && profile.starts_with("processor time: "), "{profile}");
}

/// What every daemon with clients, queues or a lease counts.
const COMMON: &[&str] = &[
    "# HELP kubernetes_build_info [BETA] ",
    "version_info{binary=\"1.36\"",
    "kubernetes_feature_enabled{name=\"WatchListClient\",stage=\"BETA\"} 1",
    "registered_metrics_total{",
    "process_cpu_seconds_total ",
    "go_goroutines ",
    "go_memstats_sys_bytes ",
    "# TYPE go_gc_duration_seconds summary",
    "rest_client_requests_total{code=\"200\"",
    "rest_client_request_duration_seconds_bucket{host=",
    "rest_client_request_size_bytes_bucket{host=",
    "rest_client_exec_plugin_ttl_seconds +Inf",
    "rest_client_transport_cache_entries ",
    "rest_client_transport_create_calls_total{result=\"miss\"} ",
    "leader_election_master_status{name=",
    "authentication_token_cache_request_total{status=\"miss\"} ",
    "apiserver_delegated_authn_request_total{code=\"201\"} ",
    "informer_queued_items{group=\"\"",
    "# TYPE apiserver_client_certificate_expiration_seconds histogram",
];

async fn wait_for_metrics(client: &Client, wanted: &[&str]) -> String {
    wait_until("all metrics to be there", || async {
        let (_, _, text) = page(client, "GET", "/metrics", "").await;
        let missing: Vec<_> = COMMON.iter().chain(wanted).filter(|name| !text.contains(**name)).collect();
        if missing.is_empty() { Ok(text) } else { Err(format!("{missing:?} in {text}")) }
    })
    .await
}

#[tokio::test]
async fn the_controller_manager_shows_what_it_does_and_keeps_its_lease() {
    let server = ApiServer::start().await;
    let mut daemon = Daemon::start(&server, "kube-controller-manager", &["--logging-format=json", "-v=2"]);
    let client = daemon.client(&server, ADMIN_TOKEN).await;
    daemon.wait_healthy(&client).await;
    pages_are_served(&client, "kube-controller-manager", "kubecontrollermanager.config.k8s.io").await;
    wait_for_metrics(
        &client,
        &[
            "workqueue_depth{name=\"deployment\"} ",
            "running_managed_controllers{manager=\"kube-controller-manager\",name=\"deployment-controller\"} 1",
            "leader_election_master_status{name=\"kube-controller-manager\"} 1",
        ],
    )
    .await;
    let (_, _, checks) = page(&client, "GET", "/healthz?verbose", "").await;
    assert!(checks.contains("[+]leaderElection ok\n") && checks.contains("[+]deployment-controller ok\n"), "{checks}");
    assert_eq!(page(&client, "GET", "/readyz", "").await.0, 404);
    let nobody = daemon.client(&server, NOBODY_TOKEN).await;
    let refused = nobody.request_text(http_get("/metrics")).await.map_err(status).expect_err("forbidden");
    assert_eq!(refused["code"], 403);
    let first = daemon.output().lines().next().map(str::to_owned).unwrap_or_default();
    assert!(first.starts_with("{\"ts\":1") && first.contains(",\"msg\":\"FLAG: --"), "{first}");
    daemon.tell(Signal::SIGTERM);
    assert_eq!(daemon.wait_ended().await, 0);
    let leases: Api<Lease> = Api::namespaced(server.admin().await, "kube-system");
    let lease = leases.get("kube-controller-manager").await.expect("a lease").spec.expect("a record");
    assert!(lease.holder_identity.is_some_and(|holder| holder.contains('_')), "it is not handed back");
    assert_eq!((lease.lease_duration_seconds, lease.lease_transitions), (Some(15), Some(0)));
}

#[tokio::test]
async fn the_scheduler_shows_what_it_does_and_hands_its_lease_back() {
    let server = ApiServer::start().await;
    let more = ["--feature-gates=LoggingAlphaOptions=true", "--log-text-split-stream", "-v=1"];
    let mut daemon = Daemon::start(&server, "kube-scheduler", &more);
    let client = daemon.client(&server, ADMIN_TOKEN).await;
    daemon.wait_healthy(&client).await;
    pages_are_served(&client, "kube-scheduler", "componentconfig").await;
    wait_for_metrics(
        &client,
        &["leader_election_master_status{name=\"kube-scheduler\"} 1", "scheduler_pending_pods{queue=\"active\"} 0"],
    )
    .await;
    assert_eq!(page(&client, "DELETE", "/metrics", "").await.2, "metrics reset\n");
    let (_, _, text) = page(&client, "GET", "/metrics", "").await;
    assert!(!text.contains("registered_metrics_total{") && !text.contains("scheduler_pending_pods{"), "{text}");
    assert!(text.contains("go_info{"), "Go's own stay: {text}");
    assert_eq!(page(&client, "DELETE", "/metrics/slis", "").await.2, "metrics reset\n");
    let log = daemon.output();
    assert!(log.contains("] FLAG: --log-text-split-stream=\"true\"\n"), "{log}");
    assert!(log.contains("] \"Golang settings\" GOGC=\"\" GOMAXPROCS=\"\" GOTRACEBACK=\"\"\n"), "{log}");
    daemon.tell(Signal::SIGINT);
    assert_eq!(daemon.wait_ended().await, 0);
    let leases: Api<Lease> = Api::namespaced(server.admin().await, "kube-system");
    let lease = leases.get("kube-scheduler").await.expect("a lease").spec.expect("a record");
    assert_eq!((lease.holder_identity.as_deref(), lease.lease_duration_seconds), (Some(""), Some(1)));
}

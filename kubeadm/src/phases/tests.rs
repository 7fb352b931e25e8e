use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use super::{
    cluster_info, init, join, mark, reset, summary, upload,
    upload_certs::{decrypt, encrypt, files, new_key},
    wait,
    workflow::{self, Phase, Selection},
};
use crate::{
    config::{
        ClusterConfiguration, NodeRegistration, Taint,
        component::ComponentConfig,
        defaults::{self, Detect, GivenInit},
    },
    discovery,
    etcd::{Listed, initial_cluster},
    host::{Host, recorder::Recorder},
    kubelet::{self, Taints},
    token,
};

type Log = Mutex<Vec<&'static str>>;

fn note<'a>(log: &'a mut Log, name: &'static str) -> workflow::Running<'a> {
    log.get_mut().unwrap().push(name);
    Box::pin(async { Ok(()) })
}

static TREE: &[Phase<Log>] = &[
    Phase::leaf("one", "", |c| note(c, "one")),
    Phase::group(
        "two",
        "",
        &[
            Phase::all(""),
            Phase::leaf("a", "", |c| note(c, "a")),
            Phase::leaf("b", "", |_| Box::pin(async { crate::error::fail!("broken") })),
        ],
    )
    .first(|c| note(c, "two")),
];

async fn walked(selection: Selection<'_>) -> (Vec<&'static str>, String) {
    let mut log = Log::default();
    let outcome = workflow::run(TREE, selection, &mut log).await;
    (log.into_inner().unwrap(), outcome.err().map(|e| e.to_string()).unwrap_or_default())
}

#[tokio::test]
async fn ways_through_phases() {
    let text = |words: &[&str]| words.iter().map(|w| (*w).to_owned()).collect::<Vec<_>>();
    let broken = "error execution phase two/b: broken".to_owned();
    assert_eq!(walked(Selection::Except(&[])).await, (vec!["one", "two", "a"], broken.clone()));
    assert_eq!(walked(Selection::Except(&text(&["two"]))).await, (vec!["one"], String::new()));
    assert_eq!(walked(Selection::Except(&text(&["one", "two/b"]))).await, (vec!["two", "a"], String::new()));
    assert_eq!(walked(Selection::Except(&text(&["three"]))).await.1, "invalid phase name: three");
    assert_eq!(walked(Selection::Only(&text(&["two", "all"]))).await, (vec!["two", "a"], broken));
    assert_eq!(walked(Selection::Only(&text(&["two", "a"]))).await, (vec!["a"], String::new()));
    assert_eq!(walked(Selection::Only(&text(&["two"]))).await.1, "invalid phase name: two");
}

#[test]
fn phases_in_order() {
    let top = |names: Vec<String>| names.into_iter().filter(|n| !n.contains('/')).collect::<Vec<_>>().join(" ");
    assert_eq!(
        top(workflow::names(init::PHASES)),
        "preflight certs kubeconfig etcd control-plane kubelet-start wait-control-plane upload-config upload-certs \
         mark-control-plane bootstrap-token kubelet-finalize addon show-join-command"
    );
    assert_eq!(
        top(workflow::names(join::PHASES)),
        "preflight control-plane-prepare check-etcd kubelet-start etcd-join kubelet-wait-bootstrap control-plane-join \
         wait-control-plane"
    );
    assert_eq!(top(workflow::names(reset::PHASES)), "preflight remove-etcd-member cleanup-node");
}

async fn started(host: Arc<Recorder>) -> init::Init {
    let cluster = ClusterConfiguration { encryption_algorithm: "ECDSA-P256".into(), ..ClusterConfiguration::default() };
    let given = GivenInit { cluster, ..GivenInit::default() };
    let config = defaults::complete(&*host, given, Detect::Host).await.unwrap();
    init::Init::new(host, config, "/usr/bin".into())
}

/// The file phases of `init` leave exactly these files with these rights.
#[tokio::test(flavor = "multi_thread")]
async fn files_of_init() {
    let host = Arc::new(Recorder::new().with_program("kubelet", "/usr/bin/kubelet"));
    let mut init = started(host.clone()).await;
    let skipped: Vec<String> = [
        "preflight",
        "wait-control-plane",
        "upload-config",
        "upload-certs",
        "mark-control-plane",
        "bootstrap-token",
        "addon",
        "show-join-command",
    ]
    .map(ToOwned::to_owned)
    .into();
    workflow::run(init::PHASES, Selection::Except(&skipped), &mut init).await.unwrap();
    let in_etc: Vec<String> =
        host.files().into_iter().filter(|f| f.starts_with("/etc/kubernetes/") && !f.contains("/pki/")).collect();
    assert_eq!(
        in_etc,
        [
            "/etc/kubernetes/admin.conf",
            "/etc/kubernetes/controller-manager.conf",
            "/etc/kubernetes/kubelet.conf",
            "/etc/kubernetes/manifests/etcd.yaml",
            "/etc/kubernetes/manifests/kube-apiserver.yaml",
            "/etc/kubernetes/manifests/kube-controller-manager.yaml",
            "/etc/kubernetes/manifests/kube-scheduler.yaml",
            "/etc/kubernetes/scheduler.conf",
            "/etc/kubernetes/super-admin.conf",
        ]
    );
    for file in &in_etc {
        assert_eq!(host.mode(file), Some(0o600), "{file}");
    }
    assert_eq!(host.mode("/etc/kubernetes/pki"), Some(0o700));
    assert_eq!(host.mode("/var/lib/etcd"), Some(0o700));
    assert_eq!(host.text("/var/lib/kubelet/kubeadm-flags.env"), "KUBELET_KUBEADM_ARGS=\"\"\n");
    assert_eq!(
        host.text("/var/lib/kubelet/instance-config.yaml"),
        "containerRuntimeEndpoint: \"unix:///var/run/containerd/containerd.sock\"\n"
    );
    let config = host.text("/var/lib/kubelet/config.yaml");
    assert!(config.contains("containerRuntimeEndpoint: unix:///var/run/containerd/containerd.sock\n"), "{config}");
    assert_eq!(host.done(), ["start /usr/bin/kubeadm supervise-kubelet /usr/bin/kubelet"]);
    let admin = crate::kubeconfig::certificate_facts(&*host, "/etc/kubernetes/admin.conf".as_ref()).unwrap();
    assert_eq!(admin.subject.common_name, "kubernetes-admin");
    assert_eq!(admin.subject.organizations, ["kubeadm:cluster-admins"]);
    let order = host.said();
    let lines =
        ["[certs]", "[kubeconfig]", "[etcd]", "[control-plane]", "[kubelet-start]"].map(|w| order.find(w).unwrap());
    assert!(lines.is_sorted());
}

#[test]
fn arguments_of_the_kubelet() {
    let host = Recorder::new();
    let mut node = NodeRegistration {
        name: "other".into(),
        taints: Some(vec![Taint { key: "a".into(), value: "b".into(), effect: "NoSchedule".into(), time_added: None }]),
        kubelet_extra_args: vec![crate::config::Arg { name: "v".into(), value: "\"4\"".into() }],
        ..NodeRegistration::default()
    };
    assert_eq!(
        kubelet::environment_file(&host, &node, Taints::ByKubelet),
        "KUBELET_KUBEADM_ARGS=\"--hostname-override=other --register-with-taints=a=b:NoSchedule --v=\\\"4\\\"\"\n"
    );
    node.name = "node".into();
    node.kubelet_extra_args.clear();
    assert_eq!(kubelet::environment_file(&host, &node, Taints::ByKubeadm), "KUBELET_KUBEADM_ARGS=\"\"\n");
    let words = kubelet::variable_words("KUBELET_KUBEADM_ARGS=\"--a=b --c=\\\"d\\\"\"\n", "KUBELET_KUBEADM_ARGS");
    assert_eq!(words, ["--a=b", "--c=\"d\""]);
}

#[test]
fn a_kubelet_is_stopped_by_its_own_pid_only() {
    let config = "--config=/var/lib/kubelet/config.yaml";
    let host = Recorder::new()
        .with_file("/var/lib/kubelet/kubeadm-supervisor.pid", "7\n")
        .with_file("/var/lib/kubelet/kubelet.pid", "8\n")
        .with_process(7, &["/usr/bin/sleep", "1"])
        .with_process(8, &["/usr/bin/kubelet", config]);
    kubelet::stop(&host).unwrap();
    assert_eq!(host.done(), ["stop 8 Gracefully"]);
    assert!(host.files().is_empty());
}

#[test]
fn signatures_of_cluster_info() {
    let token = token::Token::parse("abcdef.0123456789abcdef").unwrap();
    let signed = discovery::signature(&token, "text");
    let (header, rest) = signed.split_once("..").unwrap();
    assert_eq!(header, "eyJhbGciOiJIUzI1NiIsImtpZCI6ImFiY2RlZiJ9");
    assert_eq!(rest.len(), 43);
    assert_ne!(signed, discovery::signature(&token, "text2"));
}

#[test]
fn uploaded_certificates_are_sealed() {
    let host = Recorder::new();
    let key = new_key(&host);
    assert_eq!(key.len(), 64);
    let sealed = encrypt(&host, &key, b"secret").unwrap();
    assert_eq!(sealed.len(), 12 + 6 + 16);
    assert_eq!(decrypt(&key, &sealed).unwrap(), b"secret");
    let wrong = decrypt(&new_key(&host), &sealed).unwrap_err().to_string();
    assert_eq!(wrong, "error decoding secret data with provided key: cipher: message authentication failed");
    assert!(decrypt(&key, b"short").is_err());
    let names: Vec<&str> = files(&ClusterConfiguration::default()).into_iter().map(|(name, _)| name).collect();
    assert_eq!(
        names,
        [
            "ca.crt",
            "ca.key",
            "front-proxy-ca.crt",
            "front-proxy-ca.key",
            "sa.pub",
            "sa.key",
            "encryption.yaml",
            "etcd-ca.crt",
            "etcd-ca.key"
        ]
    );
}

#[test]
fn rights_of_joining_nodes() {
    let names: Vec<String> = cluster_info::rights()
        .iter()
        .flat_map(|(_, objects)| objects)
        .map(|o| format!("{} {}", o["kind"].as_str().unwrap(), o["metadata"]["name"].as_str().unwrap()))
        .collect();
    assert_eq!(
        names,
        [
            "ClusterRole kubeadm:get-nodes",
            "ClusterRoleBinding kubeadm:get-nodes",
            "ClusterRoleBinding kubeadm:kubelet-bootstrap",
            "ClusterRoleBinding kubeadm:node-autoapprove-bootstrap",
            "ClusterRoleBinding kubeadm:node-autoapprove-certificate-rotation",
            "ClusterRoleBinding kubeadm:apiserver-kubelet-client",
        ]
    );
}

#[test]
fn tokens_as_secrets() {
    let host = Recorder::new();
    let mut entry = crate::config::BootstrapToken { token: "abcdef.0123456789abcdef".into(), ..Default::default() };
    defaults::complete_token(&mut entry);
    let secret = token::to_secret(&entry, host.now()).unwrap();
    assert_eq!(secret["metadata"]["name"], "bootstrap-token-abcdef");
    assert_eq!(secret["type"], "bootstrap.kubernetes.io/token");
    let back = token::from_secret(&secret).unwrap();
    assert_eq!(back.expires.as_deref(), Some("2026-01-02T00:00:00Z"));
    assert_eq!(back.usages, ["authentication", "signing"]);
    assert_eq!(back.groups, ["system:bootstrappers:kubeadm:default-node-token"]);
    entry.ttl = Some(crate::config::Period::seconds(0));
    assert!(token::to_secret(&entry, host.now()).unwrap()["data"].get("expiration").is_none());
    for bad in ["abcdef", "ABCDEF.0123456789abcdef", "abcdef.0123456789abcde", "abcdef.0123456789abcdefg"] {
        let error = token::Token::parse(bad).err().unwrap().to_string();
        assert_eq!(error, format!("the bootstrap token {bad:?} was not of the form {:?}", token::PATTERN));
    }
}

#[test]
fn marks_of_a_control_plane() {
    let ours =
        Taint { key: "node-role.kubernetes.io/control-plane".into(), effect: "NoSchedule".into(), ..Taint::default() };
    let there = [json!({"key": "x", "effect": "NoExecute"})];
    let patch = mark::patch(&there, std::slice::from_ref(&ours)).unwrap();
    assert_eq!(patch["spec"]["taints"].as_array().unwrap().len(), 2);
    let again = mark::patch(patch["spec"]["taints"].as_array().unwrap(), &[ours]).unwrap();
    assert_eq!(again, patch);
    assert_eq!(patch["metadata"]["labels"]["node-role.kubernetes.io/control-plane"], "");
}

#[test]
fn stored_configurations_carry_a_mark() {
    let generated = ComponentConfig { document: json!({"kind": "X"}), from_user: false };
    let map = upload::component_map("kubelet-config", json!({"kubelet": "foo"}), &generated);
    assert_eq!(
        map["metadata"]["annotations"]["kubeadm.kubernetes.io/component-config.hash"],
        "sha256:2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae"
    );
    let given = ComponentConfig { from_user: true, ..generated };
    let map: Value = upload::component_map("kubelet-config", json!({"kubelet": "foo"}), &given);
    assert!(map["metadata"].get("annotations").is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn health_pages_come_from_the_manifests() {
    let host = Arc::new(Recorder::new());
    let mut init = started(host.clone()).await;
    workflow::run(init::PHASES, Selection::Only(&["control-plane".into(), "all".into()]), &mut init).await.unwrap();
    let urls: Vec<String> =
        wait::checks(&*host, "10.0.0.1").unwrap().into_iter().map(|c| format!("{}{}", c.base, c.page)).collect();
    assert_eq!(
        urls,
        ["https://10.0.0.1:6443/livez", "https://127.0.0.1:10257/healthz", "https://127.0.0.1:10259/livez"]
    );
    assert_eq!(wait::shown(std::time::Duration::from_nanos(501_200_300)), "501.2ms");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_join_command() {
    let host = Arc::new(Recorder::new());
    let mut init = started(host.clone()).await;
    for path in [["certs", "ca"], ["kubeconfig", "admin"]] {
        workflow::run(init::PHASES, Selection::Only(&path.map(ToOwned::to_owned)), &mut init).await.unwrap();
    }
    let file = crate::kubeconfig::Kubeconfig::load(&*host, "/etc/kubernetes/admin.conf".as_ref()).unwrap();
    let pin = &summary::pins(&*host, &file).unwrap()[0];
    assert_eq!(
        summary::join_command(&*host, &file, "T", Some("K")).unwrap(),
        format!(
            "kubeadm join 10.0.0.1:6443 --token T \\\n\t--discovery-token-ca-cert-hash {pin} \\\n\t--control-plane \
             --certificate-key K"
        )
    );
    let info = cluster_info::config_map(&*host, &file).unwrap();
    let text = info["data"]["kubeconfig"].as_str().unwrap();
    assert!(text.ends_with("    server: https://10.0.0.1:6443\n  name: \"\"\ncontexts: null\ncurrent-context: \"\"\nkind: Config\nusers: null\n"), "{text}");
}

#[test]
fn members_of_etcd() {
    let member = |id, name: &str, url: &str| Listed {
        id,
        name: name.into(),
        peer_urls: vec![url.into()],
        client_urls: Vec::new(),
        is_learner: false,
    };
    let members = [member(1, "a", "u1"), member(255, "", "u2"), member(3, "", "u3")];
    let found = initial_cluster(&members, "u3", "node");
    let texts: Vec<String> = found.iter().map(|m| format!("{}={}", m.name, m.peer_url)).collect();
    assert_eq!(texts, ["a=u1", "ff=u2", "node=u3"]);
}

const ETCD: &str = "etcd, --data-dir=/data, --name=a, '--advertise-client-urls=https://a:2379', \
                    '--initial-advertise-peer-urls=https://a:2380', --trusted-ca-file=/etc/kubernetes/pki/etcd/ca.crt";

#[tokio::test(flavor = "multi_thread")]
async fn reset_takes_back() {
    let host = Arc::new(
        Recorder::new()
            .with_file("/etc/kubernetes/admin.conf", "x")
            .with_file("/etc/kubernetes/manifests/etcd.yaml", &format!("spec:\n  containers:\n  - command: [{ETCD}]\n"))
            .with_file("/etc/kubernetes/pki/ca.crt", "x")
            .with_file("/data/member", "x")
            .with_file("/var/lib/kubelet/config.yaml", "x")
            .with_mount("/var/lib/kubelet/pods/x"),
    );
    let config = crate::config::ResetConfiguration {
        force: true,
        certificates_dir: "/etc/kubernetes/pki".into(),
        unmount_flags: vec!["MNT_FORCE".into()],
        ..Default::default()
    };
    let mut reset = reset::Reset {
        host: host.clone(),
        config,
        ignored: Vec::new(),
        kubeconfig: "/etc/kubernetes/admin.conf".into(),
        cluster: None,
        cri_socket: "unix:///nowhere.sock".into(),
    };
    workflow::run(reset::PHASES, Selection::Except(&[]), &mut reset).await.unwrap();
    assert!(host.files().is_empty(), "{:?}", host.files());
    assert_eq!(host.done(), ["unmount /var/lib/kubelet/pods/x [MNT_FORCE]"]);
    assert!(host.said().contains("[reset] Deleted contents of the etcd data directory: /data\n"));
    assert!(host.said().contains(
        "[reset] Deleting contents of directories: [/etc/kubernetes/manifests /var/lib/kubelet /etc/kubernetes/pki]\n"
    ));
    assert!(host.warned().contains("[reset] Failed to remove containers: "));
}

#[test]
fn systemd_gets_units_where_there_are_none() {
    let host = Recorder::new()
        .with_directory("/run/systemd/system")
        .with_program("systemctl", "/usr/bin/systemctl")
        .with_program("kubelet", "/opt/kubernetes/kubelet");
    kubelet::stop(&host).unwrap();
    assert_eq!(host.done(), ["run systemctl cat kubelet"]);
    // The recorded systemctl knows no status: every verb fails, also the first one after the installation.
    let error = kubelet::start(&host, "/opt/kubernetes".as_ref()).unwrap_err().to_string();
    assert!(error.starts_with("systemctl daemon-reload"), "{error}");
    let drop_in = host.text("/etc/systemd/system/kubelet.service.d/10-kubeadm.conf");
    assert!(drop_in.contains("ExecStart=/opt/kubernetes/kubelet $KUBELET_KUBECONFIG_ARGS"), "{drop_in}");
    let installed = host.with_answer("systemctl", "");
    kubelet::start(&installed, "/opt/kubernetes".as_ref()).unwrap();
    let done = installed.done();
    assert_eq!(
        done[done.len() - 2..],
        ["run systemctl daemon-reload ", "run systemctl restart kubelet"].map(|line| line.trim_end().to_owned())
    );
}

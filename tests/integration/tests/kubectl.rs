//! Stock kubectl binaries against the server: what users type must work, with the output they know.
//!
//! Runs every binary that `STOCK_KUBECTL` lists; the test command finds or fetches at least one.

#[path = "kubectl/table.rs"]
mod table;

use harness::{ApiServer, Kubectl, process::binary, server::ADMIN_TOKEN};

const DEPLOYMENT: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, labels: {app: web}}
spec:
  replicas: 3
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - {name: web, image: 'nginx:1.25', ports: [{containerPort: 80}]}
";

async fn each(test: impl Fn(&Kubectl)) {
    let binaries = Kubectl::stock();
    assert!(!binaries.is_empty(), "STOCK_KUBECTL names no kubectl");
    for binary in binaries {
        let server = ApiServer::start().await;
        let kubectl = Kubectl::new(&binary, &server.kubeconfig_file(ADMIN_TOKEN));
        tokio::task::block_in_place(|| test(&kubectl));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn apply_scale_and_delete() {
    each(|kubectl| {
        let apply = kubectl.run_with("apply -f -", DEPLOYMENT);
        assert_eq!(apply.out, "deployment.apps/web created\n", "{}", apply.err);
        let apply = kubectl.run_with("apply -f -", DEPLOYMENT);
        assert_eq!(apply.out, "deployment.apps/web unchanged\n", "{}", apply.err);
        assert_eq!(kubectl.ok("scale deploy web --replicas=5"), "deployment.apps/web scaled\n");
        assert_eq!(kubectl.ok("get deploy web -o jsonpath={.spec.replicas}"), "5");
        assert_eq!(kubectl.ok("set image deploy/web web=nginx:1.26"), "deployment.apps/web image updated\n");
        let table = kubectl.ok("get deploy -o wide");
        let columns: Vec<&str> = table.lines().next().unwrap_or("").split_whitespace().collect();
        assert_eq!(columns, ["NAME", "READY", "UP-TO-DATE", "AVAILABLE", "AGE", "CONTAINERS", "IMAGES", "SELECTOR"]);
        assert!(table.contains("0/5") && table.contains("nginx:1.26") && table.contains("app=web"), "{table}");
        assert_eq!(kubectl.ok("label deploy web tier=front"), "deployment.apps/web labeled\n");
        // kubectl 1.27 says "annotate".
        assert!(kubectl.ok("annotate deploy web note=x").starts_with("deployment.apps/web annotate"));
        assert!(kubectl.ok("delete deploy web").starts_with("deployment.apps \"web\" deleted"));
    })
    .await;
}

/// A number where a quantity belongs becomes a text on every way in; otherwise the next patch would change it.
#[tokio::test(flavor = "multi_thread")]
async fn quantities_are_texts_after_server_side_apply() {
    const POD: &str = "apiVersion: v1\nkind: Pod\nmetadata: {name: sized}\nspec: {containers: [{name: c, image: a, \
                       resources: {limits: {cpu: 2, example.com/gpu: 1}}}]}\n";
    each(|kubectl| {
        kubectl.ok("create serviceaccount default");
        let apply = kubectl.run_with("apply --server-side -f -", POD);
        assert_eq!(apply.out, "pod/sized serverside-applied\n", "{}", apply.err);
        assert!(kubectl.ok("annotate pod sized note=x").starts_with("pod/sized annotate"));
        let limits = kubectl.ok("get pod sized -o jsonpath={.spec.containers[0].resources.limits}");
        assert_eq!(limits, r#"{"cpu":"2","example.com/gpu":"1"}"#);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn generators_explain_and_errors() {
    each(|kubectl| {
        kubectl.ok("create namespace nohi");
        kubectl.ok("create configmap cm -n nohi --from-literal=a=b");
        assert_eq!(kubectl.ok("get cm cm -n nohi -o jsonpath={.data.a}"), "b");
        kubectl.ok("create secret generic s -n nohi --from-literal=x=y");
        kubectl.ok("create serviceaccount bob -n nohi");
        assert_eq!(kubectl.ok("create token bob -n nohi").matches('.').count(), 2);
        kubectl.ok("create role reader -n nohi --verb=get --resource=pods");
        kubectl.ok("create rolebinding reader -n nohi --role=reader --serviceaccount=nohi:bob");
        assert_eq!(kubectl.ok("auth can-i get pods -n nohi --as=system:serviceaccount:nohi:bob"), "yes\n");
        assert_eq!(kubectl.run("auth can-i list pods -n nohi --as=system:serviceaccount:nohi:bob").out, "no\n");
        assert!(kubectl.ok("explain pod.spec.containers").contains("livenessProbe"));
        let missing = kubectl.run("get pod nothing");
        assert_eq!(missing.err, "Error from server (NotFound): pods \"nothing\" not found\n");
        let unknown = kubectl.run_with("create -f -", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x}\nfoo: 1\n");
        assert!(unknown.err.contains("unknown field \"foo\""), "{}", unknown.err);
        let old =
            kubectl.run_with("apply -f -", "apiVersion: extensions/v1beta1\nkind: Ingress\nmetadata: {name: x}\n");
        assert!(old.err.contains("no matches for kind \"Ingress\" in version \"extensions/v1beta1\""), "{}", old.err);
        assert!(kubectl.ok("api-resources").contains("deployments"));
        assert!(kubectl.ok("cluster-info").contains("is running at"));
    })
    .await;
}

/// What differs from run to run: times, ages, names that the server makes, addresses, ports.
fn stable(text: &str) -> String {
    let mut previous = String::new();
    let mut atom = |word: &str| -> String {
        let digits = |t: &str| !t.is_empty() && t.chars().all(|c| c.is_ascii_digit());
        let age = word.len() > 1
            && word.starts_with(|c: char| c.is_ascii_digit())
            && word.chars().all(|c| c.is_ascii_digit() || "smhdy".contains(c))
            && !digits(word);
        let known = if word.len() >= 20 && word.starts_with("20") && word.contains('T') && word.ends_with('Z') {
            "TIME"
        } else if word.len() == 36 && word.matches('-').count() == 4 {
            "UID"
        } else if age {
            "AGE"
        } else if word.starts_with("10.") && word != "10.0.0.1" && word.split('.').all(digits) {
            "ADDRESS"
        } else if digits(word) && (word.len() >= 5 || previous == "resourceVersion") {
            "NUMBER"
        } else {
            word
        };
        previous = word.to_owned();
        known.to_owned()
    };
    let mut out = String::new();
    for line in text.lines() {
        let line = line.split_whitespace().collect::<Vec<_>>().join(" ");
        let mut word = String::new();
        for c in line.chars().chain(['\n']) {
            if c.is_ascii_alphanumeric() || matches!(c, '-' | '.') || (c == ':' && word.contains('T')) {
                word.push(c);
                continue;
            }
            if !word.is_empty() {
                out.push_str(&atom(&word));
                word.clear();
            }
            out.push(c);
        }
    }
    out
}

#[tokio::test(flavor = "multi_thread")]
async fn ours_prints_what_the_stock_one_prints() {
    let (a, b) = (ApiServer::start().await, ApiServer::start().await);
    let ours = Kubectl::new(binary("kubectl"), &a.kubeconfig_file(ADMIN_TOKEN));
    let newest = Kubectl::stock().pop().expect("STOCK_KUBECTL names a kubectl");
    let stock = Kubectl::new(newest, &b.kubeconfig_file(ADMIN_TOKEN));
    let mut different = Vec::new();
    for (invocation, input) in table::INVOCATIONS {
        let (one, other) = (ours.clone(), stock.clone());
        let (x, y) = tokio::join!(
            tokio::task::spawn_blocking(move || one.run_with(invocation, input)),
            tokio::task::spawn_blocking(move || other.run_with(invocation, input)),
        );
        let (x, y) = (x.expect("kubectl runs"), y.expect("kubectl runs"));
        for (what, got, want) in [("out", &x.out, &y.out), ("err", &x.err, &y.err)] {
            if stable(got) != stable(want) {
                different.push(format!("standard {what} of {invocation}:\n{got}\ninstead of:\n{want}"));
            }
        }
        if x.code != y.code {
            different.push(format!("exit code of {invocation}: {} instead of {}", x.code, y.code));
        }
    }
    assert!(different.is_empty(), "{} differences:\n{}", different.len(), different.join("\n\n"));
}

//! Stock kubectl binaries against the server: what users type must work, with the output they know.
//!
//! Runs every binary that `STOCK_KUBECTL` lists; the test command finds or fetches at least one.

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

/// Invocations whose output is compared with the newest stock kubectl, ages aside.
const SAME: [&str; 17] = [
    "get ns --no-headers",
    "get ns -o name",
    "get svc -o wide",
    "get svc,deploy",
    "get deploy -A",
    "get deploy web -o json",
    "get deploy -o json",
    "get deploy --show-labels",
    "get deploy web -o jsonpath={.spec.replicas}",
    "get svc -o jsonpath={.items[?(@.metadata.name==\"kubernetes\")].spec.ports[0].port}",
    "get deploy -o custom-columns=NAME:.metadata.name,IMAGES:.spec.template.spec.containers[*].image,NONE:.spec.nothing",
    "get pods",
    "get pod nothing",
    "get nope",
    "get deploy -l app=none",
    "api-resources",
    "api-versions",
];

/// Blanks and ages (`5s`, `2m`) made one.
fn without_ages(text: &str) -> String {
    let is_age = |word: &str| {
        word.len() > 1 && word.starts_with(|c: char| c.is_ascii_digit()) && word.ends_with(['s', 'm', 'h'])
    };
    let line =
        |line: &str| line.split_whitespace().map(|w| if is_age(w) { "AGE" } else { w }).collect::<Vec<_>>().join(" ");
    text.lines().map(line).collect::<Vec<_>>().join("\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn ours_prints_what_the_stock_one_prints() {
    let server = ApiServer::start().await;
    let kubeconfig = server.kubeconfig_file(ADMIN_TOKEN);
    let stock = Kubectl::new(Kubectl::stock().pop().expect("STOCK_KUBECTL names a kubectl"), &kubeconfig);
    let ours = Kubectl::new(binary("kubectl"), &kubeconfig);
    tokio::task::block_in_place(|| {
        let applied = ours.run_with("apply --server-side -f -", DEPLOYMENT);
        assert_eq!(applied.out, "deployment.apps/web serverside-applied\n", "{}", applied.err);
        for invocation in SAME {
            let (a, b) = (ours.run(invocation), stock.run(invocation));
            assert_eq!(without_ages(&a.out), without_ages(&b.out), "standard output of {invocation}");
            assert_eq!(without_ages(&a.err), without_ages(&b.err), "standard error of {invocation}");
            assert_eq!(a.code, b.code, "exit code of {invocation}");
        }
        assert_eq!(ours.ok("scale deploy/web --replicas=2"), "deployment.apps/web scaled\n");
        assert_eq!(ours.ok("label deploy web tier=front"), "deployment.apps/web labeled\n");
        let again = ours.run("label deploy web tier=back");
        assert_eq!(again.err, "error: 'tier' already has a value (front), and --overwrite is false\n");
        assert_eq!(ours.ok("delete deploy web"), "deployment.apps \"web\" deleted from default namespace\n");
    });
}

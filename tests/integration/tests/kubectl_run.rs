//! What kubectl describes and how it steers things, compared with the stock kubectl: output, errors and exit codes.
//!
//! Real binaries against an apiserver alone, as the texts are the product of both; no node is needed.

#[path = "kubectl_run/applyset.rs"]
mod applyset;
#[path = "kubectl_run/help.rs"]
mod help;

use harness::{ApiServer, Kubectl, kubectl::Output, process::binary, server::ADMIN_TOKEN};

const OBJECTS: &str = include_str!("kubectl_run/objects.yaml");

/// Statuses that no controller writes here.
const STATUSES: [(&str, &str); 11] = [
    ("pod full", include_str!("kubectl_run/pod-status.json")),
    (
        "deploy web",
        r#"{"replicas":3,"updatedReplicas":2,"readyReplicas":2,"availableReplicas":2,"unavailableReplicas":1,"observedGeneration":1,"conditions":[{"type":"Available","status":"True","reason":"MinimumReplicasAvailable"}]}"#,
    ),
    ("rs web-2", r#"{"replicas":2,"conditions":[{"type":"ReplicaFailure","status":"True","reason":"FailedCreate"}]}"#),
    (
        "ds ds",
        r#"{"currentNumberScheduled":1,"desiredNumberScheduled":2,"numberMisscheduled":3,"numberReady":4,"observedGeneration":1,"updatedNumberScheduled":1}"#,
    ),
    ("sts sts", r#"{"replicas":1,"readyReplicas":0,"observedGeneration":1}"#),
    (
        "job j1",
        r#"{"active":1,"ready":0,"succeeded":1,"startTime":"2026-01-02T03:04:05Z","completedIndexes":"0-2","uncountedTerminatedPods":{}}"#,
    ),
    ("svc svc", r#"{"loadBalancer":{"ingress":[{"ip":"1.2.3.4","ipMode":"VIP"},{"hostname":"x.y"}]}}"#),
    ("ing ing", r#"{"loadBalancer":{"ingress":[{"ip":"1.2.3.4"},{"hostname":"x.y"}]}}"#),
    ("pvc c1", r#"{"phase":"Bound","capacity":{"storage":"5Gi"},"accessModes":["ReadWriteOnce"]}"#),
    ("pdb pdb", r#"{"disruptionsAllowed":1,"currentHealthy":3,"desiredHealthy":2,"expectedPods":3}"#),
    (
        "node n1",
        r#"{"capacity":{"cpu":"4","memory":"8Gi","pods":"110"},"allocatable":{"cpu":"3800m","memory":"7Gi","pods":"110","example.com/gpu":"2","hugepages-2Mi":"1Gi"},"addresses":[{"type":"InternalIP","address":"10.0.0.1"}],"conditions":[{"type":"Ready","status":"True","reason":"KubeletReady","lastHeartbeatTime":"2026-01-02T03:04:05Z"}]}"#,
    ),
];

/// Both kubectls are asked about one server.
const READ: &str = "
describe
describe nope
describe pod/full
describe pod/podlevel
describe pod/nope
describe pod prefix
describe pod
describe pod -l app=none
describe pod full --show-events=false
describe deploy
describe deploy/web
describe deploy/one
describe rs
describe rc
describe sts
describe ds
describe job
describe cj
describe svc
describe svc/svc
describe ep
describe endpointslices
describe ing
describe ing/ing
describe netpol
describe pvc
describe pv
describe sc
describe secret
describe cm
describe sa
describe quota
describe ns/d
describe ns/default
describe node/n1
describe node
describe clusterrole/cr
describe role
describe rolebinding
describe clusterrolebinding/crb
describe hpa
describe pdb
describe csr
describe lease
describe csinode
describe csidriver
describe ingressclass
describe servicecidr/sc
describe ipaddress
describe vac
describe podtemplate
describe priorityclass/high
describe runtimeclass
describe deploy,svc
exec
exec full
exec full ls
exec nope -- ls
exec svc/ext -- ls
exec cm/cm -- ls
exec full -c nope -- ls
attach
attach a b c
attach full -c nope
logs
logs nope
logs full two -c web
logs full -c nope
logs full --tail=-2
logs full --since=1h --since-time=2026-01-01T00:00:00Z
logs -l app=nope
logs cm/cm
port-forward
port-forward plain 80
port-forward full nope
port-forward full x:80
port-forward cm/cm 80
port-forward full --address=bogus 80
cp
cp a b
cp a p:
cp p:a q:b
cp /nope full:/x
rollout status
rollout status deploy/web -w=false
rollout status deploy/web --revision=7 -w=false
rollout status ds/ds -w=false
rollout status sts/sts -w=false
rollout status sts/sts2
rollout status cm/cm
rollout status deploy/nope
rollout history deploy/web
rollout history deploy/web --revision=2
rollout history deploy/web --revision=9
rollout history deploy/bare
rollout history ds/ds
rollout history cm/cm
rollout undo deploy/web --dry-run=client
rollout undo deploy/web --dry-run=server
rollout undo deploy/web --to-revision=9
rollout undo deploy/web --to-revision=2
rollout undo deploy/bare
rollout undo ds/ds
rollout undo cm/cm
rollout pause ds/ds
rollout resume deploy/web
rollout restart cm/cm
rollout restart deploy -l app=nope
set image deploy/web nope=x
set image deploy/web web=nginx:1
set image deploy *=x --all --dry-run=server
set image cm/cm c=x
set image deploy/web web=
set env deploy/web A=b --dry-run=server
set env pod/full --list
set env deploy/web -c nope A=b
set env deploy/web NN=x --overwrite=false
set env deploy/web A=b A-
set resources deploy/web
set resources deploy/web --limits=cpu=x
set resources deploy/web --requests=cpu=200m -c web --dry-run=server
set selector svc/svc a=b --dry-run=client -o yaml
set selector deploy/web a=b
set serviceaccount deploy/web sa2 --dry-run=server
set subject rolebinding rb --user=x --dry-run=client -o yaml
set subject rolebinding rb
wait
wait pod/plain --for=condition=Ready --timeout=0
wait pod/full --for=condition=Ready
wait pod/full --for=jsonpath={.status.phase}=Running
wait pod/full --for=jsonpath={.status}=x --timeout=1s
wait pod/full --for=bogus
wait pod/nope --for=delete
wait pod -l app=nope --for=condition=Ready
cordon
cordon nope
cordon n2 --dry-run=client
drain
drain n1 --dry-run=client
drain nope
drain n1 -l a=b
taint
taint nodes n2
taint nodes n2 a=b
taint nodes n2 a=b=c:NoSchedule
taint nodes n2 z:Bogus
taint nodes n2 a:NoSchedule-
taint nodes n2 a:NoSchedule a-
taint pods full a=b:NoSchedule
taint nodes --all q:NoSchedule --dry-run=server
run
run a
run a --image=b --dry-run=client -o yaml
run a --image=b --port=80 --env=A=b --labels=x=z --dry-run=client -o yaml
run a --image=b --restart=Never --dry-run=client -o yaml -- sh -c x
run a --image=b --command --dry-run=client -o json -- sh
run a --image=b --restart=Bogus
run a --image=B!
run a --image=b --rm
run a --image=b -t
run a --image=b --expose
run a --image=b --expose --port=80 --dry-run=client
run a --image=b --env=A --dry-run=client
run a --image=b --overrides={\"spec\":{\"nodeName\":\"x\"}} --dry-run=client -o yaml
expose
expose deploy web --dry-run=client -o yaml
expose deploy/web --port=90 --target-port=8080 --name=nn --type=NodePort --dry-run=client -o yaml
expose deploy bare
expose deploy one
expose pod full --dry-run=client -o yaml
expose pod plain --port=80
expose cm cm --port=1
expose deploy web --type=Bogus
expose deploy one --port=80,90 --dry-run=client -o yaml
autoscale deploy web
autoscale deploy web --max=3 --dry-run=client -o yaml
autoscale deploy/web --max=3 --min=2 --cpu=70% --memory=500Mi --name=h --dry-run=client -o yaml
autoscale deploy/web --max=1 --min=3
autoscale deploy web --max=3 --cpu=x
autoscale cm cm --max=3
certificate approve
certificate approve nope
top node
top pod x -l a=b
";

/// The same for what came later; completion is asked without more flags.
const SHOWN: &str = include_str!("kubectl_run/shown.txt");

/// Each kubectl does these to a server of its own.
const WRITE: &str = "
cordon n2
cordon n2
uncordon n2
uncordon n2
drain n1
drain n1 --force --delete-emptydir-data --ignore-daemonsets --dry-run=client
uncordon n1
taint nodes n2 a=b:NoSchedule
taint nodes n2 a=b:NoSchedule
taint nodes n2 a=c:NoSchedule --overwrite
taint nodes n2 k:NoExecute
taint nodes n2 a- x=y:PreferNoSchedule
taint nodes n2 x- k-
describe node n2
rollout pause deploy/web
rollout pause deploy/web
rollout undo deploy/web
rollout restart deploy/web
rollout resume deploy/web
rollout undo deploy/web
get deploy web -o jsonpath={.spec.template}
set image deploy/web web=nginx:9
set env deploy/web A=b C=d
set env deploy/web A- C=e
set env deploy/web --list
set resources deploy/web --limits=cpu=200m
get deploy web -o jsonpath={.spec.template.spec.containers}
set selector svc svc q=r
get svc svc -o jsonpath={.spec.selector}
set serviceaccount deploy/web sa2
set subject rolebinding rb --group=g2
get rolebinding rb -o jsonpath={.subjects}
certificate approve csr
certificate approve csr
certificate deny csr
run rx --image=b
run rx --image=b
run ry --image=b --port=80 --expose
get pod rx -o jsonpath={.spec.containers[0].name}
expose deploy one --port=80
expose deploy one --port=80
autoscale deploy one --max=3
autoscale deploy one --max=3
wait pod/rx --for=create
debug full --image=busybox -c e1
debug full --image=busybox -c e2 --profile=netadmin --target=web --env=A=b -- sh
get pod full -o jsonpath={.spec.ephemeralContainers}
debug full --copy-to=full2 --image=busybox -c dbg --profile=restricted -- sh -c x
get pod full2 -o jsonpath={.spec.containers[*].name}{.spec.containers[*].securityContext}{.spec.containers[*].command}{.metadata.labels}{.spec.shareProcessNamespace}
debug full --copy-to=full3 --set-image=*=busybox --same-node
get pod full3 -o jsonpath={.spec.containers[*].image}{.spec.nodeName}
debug full --copy-to=full4 --container=web --arguments-only --keep-labels --keep-liveness -- a b
get pod full4 -o jsonpath={.spec.containers[*].args}{.spec.containers[*].securityContext}{.spec.containers[*].livenessProbe}{.metadata.labels}
debug full --copy-to=full4 --image=busybox -c x
";

/// How often what is shown may differ before it counts.
const ATTEMPTS: usize = 20;

fn same(invocation: &str, ours: &Output, stock: &Output) {
    assert_eq!(ours.out, stock.out, "standard output of {invocation}");
    assert_eq!(ours.err, stock.err, "standard error of {invocation}");
    assert_eq!(ours.code, stock.code, "exit code of {invocation}");
}

/// A server with all objects, and both kubectls in the namespace of most of them.
async fn server() -> (ApiServer, Kubectl, Kubectl) {
    let server = ApiServer::start().await;
    let kubeconfig = server.kubeconfig_file(ADMIN_TOKEN);
    let stock = Kubectl::new(Kubectl::stock().pop().expect("STOCK_KUBECTL names a kubectl"), &kubeconfig);
    let ours = Kubectl::new(binary("kubectl"), &kubeconfig);
    tokio::task::block_in_place(|| {
        let (with_owner, first): (Vec<&str>, Vec<&str>) =
            OBJECTS.split("\n---\n").partition(|document| document.contains("UID-OF-"));
        let apply = |documents: String| {
            let applied = ours.run_with("apply --server-side --force-conflicts -f -", &documents);
            assert_eq!(applied.code, 0, "{}", applied.err);
        };
        apply(first.join("\n---\n"));
        let uid = |name: &str| ours.ok(&format!("get deploy {name} -n d -o jsonpath={{.metadata.uid}}"));
        let owned = with_owner.join("\n---\n");
        apply(owned.replace("UID-OF-WEB", &uid("web")).replace("UID-OF-ONE", &uid("one")));
        for (object, status) in STATUSES {
            let patch =
                format!("patch {object} -n d --subresource=status --type=merge -p {{\"status\":{}}}", status.trim());
            ours.ok(&patch);
        }
    });
    (server, ours, stock)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_shown_is_what_the_stock_one_shows() {
    let (_server, ours, stock) = server().await;
    tokio::task::block_in_place(|| {
        for invocation in READ.lines().chain(SHOWN.lines()).filter(|line| !line.is_empty()) {
            let invocation = invocation.replace("\\\"", "\"");
            let flags = if invocation.starts_with("__") { "" } else { "-n d " };
            let line = format!("{flags}{invocation}");
            // A second may pass between the two, and the stock one shows some maps in a random order.
            let alike = (0..ATTEMPTS).any(|_| {
                let (a, b) = (ours.run(&line), stock.run(&line));
                (&a.out, &a.err, a.code) == (&b.out, &b.err, b.code)
            });
            if !alike {
                same(&invocation, &ours.run(&line), &stock.run(&line));
            }
        }
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_done_is_what_the_stock_one_does() {
    let ((_one, ours, _), (_other, _, stock)) = (server().await, server().await);
    tokio::task::block_in_place(|| {
        let without_times = |output: Output| {
            let lines = output.out.lines().filter(|line| !line.starts_with("CreationTimestamp:"));
            Output { out: lines.collect::<Vec<_>>().join("\n"), ..output }
        };
        for invocation in WRITE.lines().filter(|line| !line.is_empty()) {
            let line = format!("-n d {invocation}");
            same(invocation, &without_times(ours.run(&line)), &without_times(stock.run(&line)));
        }
    });
}

/// Flags that differ, with the reason.
const OTHER_FLAGS: [(&str, &str); 1] = [
    // The stock one prints the directory of whoever asks.
    ("options", "--cache-dir"),
];

/// Names, letters, types as they show, and defaults of all flags; names, aliases and usage lines of all commands.
#[test]
fn commands_and_flags_are_those_of_the_stock_one() {
    let (ours, stock) = (binary("kubectl"), Kubectl::stock().pop().expect("a stock kubectl"));
    let mut left: Vec<Vec<String>> = vec![vec!["options".to_owned()], Vec::new()];
    let mut seen = 0;
    while let Some(command) = left.pop() {
        let (mut mine, mut other) = (help::Help::of(&ours, &command), help::Help::of(&stock, &command));
        let title = command.join(" ");
        for (_, flag) in OTHER_FLAGS.iter().filter(|(of, _)| *of == title) {
            mine.flags.remove(*flag);
            other.flags.remove(*flag);
        }
        left.extend(other.commands.iter().map(|below| [command.clone(), vec![below.clone()]].concat()));
        assert_eq!(mine, other, "kubectl {title}");
        seen += 1;
    }
    assert!(seen > 100, "only {seen} commands have a help");
}

/// Kustomizations are built without a server.
#[test]
fn kustomizations_are_built_the_same() {
    let stock = Kubectl::stock().pop().expect("a stock kubectl");
    let fixtures = format!("{}/tests/kubectl_run/kustomize", env!("CARGO_MANIFEST_DIR"));
    let entries = std::fs::read_dir(&fixtures).expect("fixtures");
    let mut directories: Vec<_> = entries.filter_map(Result::ok).map(|entry| entry.path()).collect();
    directories.retain(|path| !path.ends_with("comp"));
    directories.push(format!("{fixtures}/absent").into());
    directories.sort();
    for directory in directories {
        let built = |kubectl: &std::path::Path| {
            let done = std::process::Command::new(kubectl).arg("kustomize").arg(&directory).output().expect("kubectl");
            let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
            (text(done.stdout), text(done.stderr), done.status.code())
        };
        assert_eq!(built(&binary("kubectl")), built(&stock), "{}", directory.display());
    }
}

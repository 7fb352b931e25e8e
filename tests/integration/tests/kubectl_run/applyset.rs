//! `apply --applyset`, which keeps track of what was applied, beside the stock kubectl on a server of its own.

use harness::{Kubectl, kubectl::Output};

use crate::{same, server};

const A: &str = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n";
const B: &str = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: b}\n";
const LABELED: &str =
    "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c, labels: {applyset.kubernetes.io/part-of: q}}\n";
/// The identity of `Secret` "other" in the namespace "d".
const OTHER: &str = "applyset.kubernetes.io/id=applyset-uOTF1nRG_SzrmDj4XFbj-p2v3L3FVA3l-9mnfKKwsFg-v1";

/// Lines, and what of the manifests is applied by those that apply.
const LINES: [(&str, &[&str]); 41] = [
    ("apply -f - --applyset=x", &[A, B]),
    ("apply -f - --prune --applyset=x -l a=b", &[A, B]),
    ("apply -f - --prune --applyset=x --all", &[A, B]),
    ("apply -f - --prune --applyset=x --prune-allowlist=core/v1/ConfigMap", &[A, B]),
    ("apply -f - --prune --applyset=x --force", &[A]),
    ("apply -f - --prune --all --force", &[A]),
    ("apply -f - --prune --applyset=pods/x", &[A]),
    ("apply -f - --prune --applyset=foo/x", &[A]),
    ("apply -f - --prune --applyset=foo.bar/x", &[A]),
    ("apply -f - --prune --applyset=a/b/c", &[A]),
    ("apply -f - --prune --applyset=secrets/", &[A]),
    ("apply -f - --prune --applyset=/x", &[A]),
    ("apply -f - --prune --applyset=secrets.v1./x", &[A]),
    ("apply -f - --prune --applyset=UPPER_", &[A]),
    ("apply -f - --prune --applyset=x --dry-run=server", &[A, B]),
    ("apply -f - --prune --applyset=x", &[A, B]),
    ("get secret x -o yaml --show-managed-fields", &[]),
    ("get configmaps a b -o yaml --show-managed-fields", &[]),
    ("apply -f - --prune --applyset=x --dry-run=client", &[A]),
    ("apply -f - --prune --applyset=x --dry-run=server -o name", &[A]),
    ("get configmap b -o name", &[]),
    ("apply -f - --prune --applyset=x", &[A]),
    ("apply -f - --prune --applyset=x --server-side", &[A, B]),
    ("apply -f - --prune --applyset=configmaps/y --server-side --force-conflicts", &[A]),
    ("apply -f - --prune --applyset=Secret/z -o name", &[A, B]),
    ("apply -f - --prune --applyset=x", &[LABELED]),
    ("create secret generic other", &[]),
    ("apply -f - --prune --applyset=other", &[A]),
    ("annotate secret other applyset.kubernetes.io/tooling=helm/v3", &[]),
    ("apply -f - --prune --applyset=other", &[A]),
    ("annotate secret other --overwrite applyset.kubernetes.io/tooling=kubectl/v1.36.3", &[]),
    ("apply -f - --prune --applyset=other", &[A]),
    ("label secret other applyset.kubernetes.io/id=wrong", &[]),
    ("apply -f - --prune --applyset=other", &[A]),
    ("OTHER", &[]),
    ("apply -f - --prune --applyset=other", &[A]),
    ("annotate secret other applyset.kubernetes.io/contains-group-kinds=Foo.bar,ConfigMap", &[]),
    ("apply -f - --prune --applyset=other", &[A]),
    ("annotate secret other --overwrite applyset.kubernetes.io/contains-group-kinds=ConfigMap", &[]),
    ("get secrets,configmaps -l applyset.kubernetes.io/id -o name", &[]),
    ("get configmaps -l applyset.kubernetes.io/part-of -o name", &[]),
];

/// What differs between two servers and two builds.
fn plain(output: Output) -> Output {
    let is_random = |line: &&str| {
        ["uid:", "resourceVersion:", "time:", "creationTimestamp:"].iter().any(|key| line.trim_start().starts_with(key))
    };
    let lines =
        output.out.lines().filter(|line| !is_random(line)).map(|line| match line.split_once("kubectl/v1.36.") {
            Some((before, _)) => format!("{before}kubectl/v1.36"),
            None => line.to_owned(),
        });
    Output { out: lines.collect::<Vec<_>>().join("\n"), ..output }
}

#[tokio::test(flavor = "multi_thread")]
async fn sets_are_kept_as_the_stock_one_keeps_them() {
    let ((_one, ours, _), (_other, _, stock)) = (server().await, server().await);
    let enabled = |kubectl: Kubectl| kubectl.with("KUBECTL_APPLYSET", "true");
    let (ours, stock) = (enabled(ours), enabled(stock));
    tokio::task::block_in_place(|| {
        for (line, manifests) in LINES {
            let line = match line {
                "OTHER" => format!("-n d label secret other --overwrite {OTHER}"),
                line => format!("-n d {line}"),
            };
            let run = |kubectl: &Kubectl| plain(kubectl.run_with(&line, &manifests.join("---\n")));
            same(&line, &run(&ours), &run(&stock));
        }
        ours.run_with("-n d apply -f - --prune --applyset=x", &[A, B].join("---\n"));
        let pruned = ours.run_with("-n d apply -f - --prune --applyset=x", A);
        assert_eq!(pruned.out, "configmap/a unchanged\nconfigmap/b pruned\n", "{}", pruned.err);
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn parents_are_in_a_namespace_that_is_named() {
    let (_server, ours, stock) = server().await;
    tokio::task::block_in_place(|| {
        for (line, variable) in [
            ("apply -f - --prune --applyset=x", "true"),
            ("apply -f - --prune --applyset=pods/x -l a=b", "true"),
            ("apply -f - --prune --applyset=x", "false"),
        ] {
            let run = |kubectl: &Kubectl| kubectl.clone().with("KUBECTL_APPLYSET", variable).run_with(line, A);
            same(line, &run(&ours), &run(&stock));
        }
    });
}

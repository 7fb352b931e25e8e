//! What the admission plugins refuse, add and warn of, as the stock kubectl tells its user of it.

use harness::{ApiServer, Kubectl, server::ADMIN_TOKEN};

async fn with_kubectl(flags: &[&str], test: impl FnOnce(&Kubectl)) {
    let binary = Kubectl::stock().pop().expect("STOCK_KUBECTL names a kubectl");
    let server = ApiServer::start_with(flags).await;
    let kubectl = Kubectl::new(&binary, &server.kubeconfig_file(ADMIN_TOKEN));
    tokio::task::block_in_place(|| test(&kubectl));
}

fn create(kubectl: &Kubectl, manifest: &str) {
    let output = kubectl.run_with("create -f -", manifest);
    assert_eq!(output.code, 0, "{manifest}: {}", output.err);
}

fn refused(kubectl: &Kubectl, command: &str, manifest: &str) -> String {
    let output = kubectl.run_with(command, manifest);
    assert_ne!(output.code, 0, "{manifest} was accepted");
    output.err
}

fn pod(name: &str, spec: &str) -> String {
    format!(
        "{{apiVersion: v1, kind: Pod, metadata: {{name: {name}}}, spec: {{containers: [{{name: a, image: i}}]{spec}}}}}"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn namespaces_hold_pods_to_their_standard() {
    with_kubectl(&[], |kubectl| {
        kubectl.ok("create namespace apps");
        kubectl.ok("create serviceaccount default -n apps");
        create(kubectl, &pod("before", ", hostNetwork: true").replace("metadata: {", "metadata: {namespace: apps, "));
        let raised = kubectl.run("label namespace apps pod-security.kubernetes.io/enforce=baseline");
        assert_eq!(
            (raised.code, raised.err.as_str()),
            (
                0,
                "Warning: existing pods in namespace \"apps\" violate the new PodSecurity enforce level \
                 \"baseline:latest\"\nWarning: before: host namespaces\n"
            )
        );
        assert_eq!(
            refused(kubectl, "create -n apps -f -", &pod("p", ", hostPID: true")),
            "Error from server (Forbidden): error when creating \"STDIN\": pods \"p\" is forbidden: violates \
             PodSecurity \"baseline:latest\": host namespaces (hostPID=true)\n"
        );
        kubectl.run_with("create -n apps -f -", &pod("fits", ""));
        let debugged = kubectl.run("label pod before -n apps a=b");
        assert_eq!(debugged.code, 0, "what is there may be labelled: {}", debugged.err);
        let deployment = kubectl.run("create deployment d --image=i -n apps --dry-run=server");
        assert_eq!((deployment.code, deployment.err.as_str()), (0, ""));
        kubectl.ok("label namespace apps pod-security.kubernetes.io/warn=restricted");
        let warned = kubectl.run("create deployment d --image=i -n apps --dry-run=server");
        assert!(
            warned.err.starts_with(
                "Warning: would violate PodSecurity \"restricted:latest\": allowPrivilegeEscalation != false (container \
                 \"i\" must set securityContext.allowPrivilegeEscalation=false), unrestricted capabilities"
            ),
            "{}",
            warned.err
        );
        assert_eq!(warned.code, 0);
        let wrong = refused(kubectl, "label namespace default pod-security.kubernetes.io/enforce=strict", "");
        assert_eq!(
            wrong,
            "The Namespace \"default\" is invalid: metadata.labels[pod-security.kubernetes.io/enforce]: Invalid value: \
             \"strict\": must be one of privileged, baseline, restricted\n"
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn storage_objects_are_protected_and_grow_if_their_class_says_so() {
    with_kubectl(&[], |kubectl| {
        for (name, expands) in [("fixed", "false"), ("grows", "true")] {
            create(
                kubectl,
                &format!(
                    "{{apiVersion: storage.k8s.io/v1, kind: StorageClass, metadata: {{name: {name}}}, provisioner: \
                     example.com/p, allowVolumeExpansion: {expands}}}"
                ),
            );
            create(
                kubectl,
                &format!(
                    "{{apiVersion: v1, kind: PersistentVolumeClaim, metadata: {{name: {name}}}, spec: \
                     {{storageClassName: {name}, accessModes: [ReadWriteOnce], resources: {{requests: {{storage: \
                     1Gi}}}}}}}}"
                ),
            );
        }
        let finalizers = kubectl.ok("get pvc fixed -o jsonpath={.metadata.finalizers}");
        assert_eq!(finalizers, "[\"kubernetes.io/pvc-protection\"]");
        let grow = |name: &str| {
            kubectl.run(&format!("patch pvc {name} -p {{\"spec\":{{\"resources\":{{\"requests\":{{\"storage\":\"2Gi\"}}}}}}}}"))
        };
        let bind = |name: &str| {
            kubectl.ok(&format!(
                "patch pvc {name} --subresource=status --type=merge -p \
                 {{\"status\":{{\"phase\":\"Bound\",\"capacity\":{{\"storage\":\"1Gi\"}}}}}}"
            ))
        };
        for name in ["fixed", "grows"] {
            assert!(grow(name).err.contains("is invalid"), "unbound claims keep their size");
            bind(name);
        }
        assert_eq!(
            grow("fixed").err,
            "Error from server (Forbidden): persistentvolumeclaims \"fixed\" is forbidden: only dynamically provisioned \
             pvc can be resized and the storageclass that provisions the pvc must support resize\n"
        );
        assert_eq!(grow("grows").out, "persistentvolumeclaim/grows patched\n");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_take_over_what_their_class_and_their_node_say() {
    with_kubectl(&[], |kubectl| {
        kubectl.ok("create serviceaccount default");
        assert_eq!(
            refused(kubectl, "create -f -", &pod("p", ", runtimeClassName: kata")),
            "Error from server (Forbidden): error when creating \"STDIN\": pods \"p\" is forbidden: pod rejected: \
             RuntimeClass \"kata\" not found\n"
        );
        create(
            kubectl,
            "{apiVersion: node.k8s.io/v1, kind: RuntimeClass, metadata: {name: kata}, handler: kata, overhead: \
             {podFixed: {cpu: 250m}}, scheduling: {nodeSelector: {kata: 'yes'}}}",
        );
        create(kubectl, &pod("p", ", runtimeClassName: kata"));
        let taken = kubectl.ok("get pod p -o jsonpath={.spec.overhead.cpu}/{.spec.nodeSelector.kata}");
        assert_eq!(taken, "250m/yes");
        create(
            kubectl,
            "{apiVersion: v1, kind: Node, metadata: {name: one, labels: {topology.kubernetes.io/zone: z1, other: x}}}",
        );
        let binding = "{\"apiVersion\":\"v1\",\"kind\":\"Binding\",\"metadata\":{\"name\":\"p\"},\"target\":\
                       {\"kind\":\"Node\",\"name\":\"one\"}}";
        let bound = kubectl.run_with("create --raw /api/v1/namespaces/default/pods/p/binding -f -", binding);
        assert_eq!(bound.code, 0, "{}", bound.err);
        let labels = kubectl.ok("get pod p -o jsonpath={.metadata.labels}");
        assert_eq!(labels, "{\"topology.kubernetes.io/zone\":\"z1\"}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn plugins_are_chosen_by_flags() {
    let flags = [
        "--enable-admission-plugins=AlwaysPullImages,DenyServiceExternalIPs,NamespaceAutoProvision",
        "--disable-admission-plugins=ServiceAccount",
    ];
    with_kubectl(&flags, |kubectl| {
        create(kubectl, &pod("p", "").replace("metadata: {", "metadata: {namespace: fresh, "));
        let policy = kubectl.ok("get pod p -n fresh -o jsonpath={.spec.containers[0].imagePullPolicy}");
        assert_eq!(policy, "Always");
        assert_eq!(
            refused(
                kubectl,
                "create -f -",
                "{apiVersion: v1, kind: Service, metadata: {name: s}, spec: {ports: [{port: 80}], externalIPs: [1.2.3.4]}}"
            ),
            "Warning: spec.externalIPs is deprecated and may no longer be implemented in some clusters\nError from server \
             (Forbidden): error when creating \"STDIN\": services \"s\" is forbidden: Use of external \
             IPs is denied by admission control\n"
        );
    })
    .await;
}

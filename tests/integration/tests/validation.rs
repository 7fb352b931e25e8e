//! Refused and doubtful objects, as the stock kubectl tells its user of them.
//!
//! The rules of single kinds are unit tests; here the way of errors and warnings through the server is tested.

use harness::{ApiServer, Kubectl, server::ADMIN_TOKEN};

async fn with_kubectl(test: impl FnOnce(&Kubectl)) {
    let binary = Kubectl::stock().pop().expect("STOCK_KUBECTL names a kubectl");
    let server = ApiServer::start().await;
    let kubectl = Kubectl::new(&binary, &server.kubeconfig_file(ADMIN_TOKEN));
    tokio::task::block_in_place(|| {
        kubectl.ok("create serviceaccount default");
        test(&kubectl);
    });
}

fn pod(name: &str, more: &str) -> String {
    format!(
        "{{apiVersion: v1, kind: Pod, metadata: {{name: {name}}}, spec: {{containers: [{{name: a, image: 'i:1'{more}}}]}}}}"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_name_kind_object_and_field() {
    with_kubectl(|kubectl| {
        let told = |manifest: &str| {
            let output = kubectl.run_with("create -f -", manifest);
            assert_ne!(output.code, 0, "{manifest} was accepted");
            output.err
        };
        assert_eq!(
            told(&pod("p", ", ports: [{containerPort: 0}]")),
            "The Pod \"p\" is invalid: spec.containers[0].ports[0].containerPort: Required value\n"
        );
        assert_eq!(
            told(&pod("p", ", env: [{name: 'A=B'}], volumeMounts: [{name: v, mountPath: /v}]")),
            "The Pod \"p\" is invalid: \n* spec.containers[0].env[0].name: Invalid value: \"A=B\": a valid environment \
             variable name must consist only of printable ASCII characters other than '='\n* \
             spec.containers[0].volumeMounts[0].name: Not found: \"v\"\n"
        );
        assert_eq!(
            told(
                "{apiVersion: networking.k8s.io/v1, kind: Ingress, metadata: {name: i}, spec: {rules: [{http: {paths: \
                 [{path: x, pathType: Exact, backend: {service: {name: s, port: {number: 80}}}}]}}]}}"
            ),
            "The Ingress \"i\" is invalid: spec.rules[0].http.paths[0].path: Invalid value: \"x\": must be an absolute \
             path\n"
        );
        assert_eq!(
            told(
                "{apiVersion: batch/v1, kind: CronJob, metadata: {name: c}, spec: {schedule: every day, jobTemplate: \
                 {spec: {template: {spec: {restartPolicy: Never, containers: [{name: a, image: i}]}}}}}}"
            ),
            "The CronJob \"c\" is invalid: spec.schedule: Invalid value: \"every day\": expected exactly 5 fields, \
             found 2: [every day]\n"
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stored_objects_change_only_as_their_kind_allows() {
    with_kubectl(|kubectl| {
        let created = kubectl.run_with("create -f -", &pod("p", ", resources: {requests: {cpu: 1}}"));
        assert_eq!(created.out, "pod/p created\n", "{}", created.err);
        let patch = |more: &str, patch: &str| {
            let path = tempfile::NamedTempFile::new().expect("a file");
            std::fs::write(path.path(), patch).expect("a patch");
            kubectl.run(&format!("patch pod p {more} --patch-file {}", path.path().display()))
        };
        let named = patch("", r#"{"spec": {"hostname": "h"}}"#).err;
        assert!(named.starts_with("The Pod \"p\" is invalid: spec: Forbidden: pod updates may not change"), "{named}");
        let resized = patch(
            "--subresource resize",
            r#"{"spec": {"containers": [{"name": "a", "resources": {"requests": {"ephemeral-storage": "1Gi"}}}]}}"#,
        );
        assert!(resized.err.contains("only cpu and memory resources are mutable"), "{}", resized.err);
        let resized = patch(
            "--subresource resize",
            r#"{"spec": {"containers": [{"name": "a", "resources": {"requests": {"cpu": "2"}}}]}}"#,
        );
        assert_eq!((resized.out.as_str(), resized.code), ("pod/p patched\n", 0), "{}", resized.err);
        let status = patch("--subresource status", r#"{"status": {"qosClass": "Guaranteed"}}"#);
        assert!(
            status.err.contains("status.qosClass: Invalid value: \"Guaranteed\": field is immutable"),
            "{status:?}"
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn doubtful_objects_are_stored_with_a_warning() {
    with_kubectl(|kubectl| {
        let output = kubectl.run_with("create -f -", &pod("a.b", ", env: [{name: A, value: one}, {name: A, value: two}]"));
        assert_eq!(output.out, "pod/a.b created\n", "{}", output.err);
        assert_eq!(
            output.err,
            "Warning: metadata.name: this is used in the Pod's hostname, which can result in surprising behavior; a DNS \
             label is recommended: [must not contain dots]\nWarning: spec.containers[0].env[1]: hides previous \
             definition of \"A\", which may be dropped when using apply\n"
        );
        let service = "{apiVersion: v1, kind: Service, metadata: {name: s}, spec: {trafficDistribution: PreferClose, \
                       ports: [{port: 80}]}}";
        let output = kubectl.run_with("create -f -", service);
        assert_eq!(
            output.err,
            "Warning: spec.trafficDistribution: \"PreferClose\" is deprecated; use \"PreferSameZone\"\n"
        );
    })
    .await;
}

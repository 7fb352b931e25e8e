//! The web user interface, with the token of a ServiceAccount; logs collected from the nodes.

use super::{User, repository};

pub(crate) fn follow(user: &User) {
    dashboard(user);
    logs(user);
}

fn dashboard(user: &User) {
    let deploy = repository().join("deploy");
    user.says(&format!("kubectl apply -f {}/addons/dashboard.yaml", deploy.display()), &["kubernetes-dashboard"]);
    user.ok(&format!("kubectl apply -f {}/examples/dashboard-admin-user.yaml", deploy.display()));
    user.says(
        "kubectl -n kubernetes-dashboard rollout status deployment kubernetes-dashboard --timeout=90s",
        &["successfully rolled out"],
    );
    let address = user.ok("kubectl -n kubernetes-dashboard get svc kubernetes-dashboard -o jsonpath={.spec.clusterIP}");
    user.sees(&format!("curl -ks -m 5 https://{address}/"), &["Kubernetes dashboard"]);
    let pods = format!("https://{address}/api/v1/namespaces/kube-system/pods");
    user.says(&format!("curl -ks -m 5 {pods}"), &["Unauthorized"]);
    let token = user.ok("kubectl -n kubernetes-dashboard create token admin-user");
    let bearer = format!("-H 'Authorization: Bearer {}'", token.trim());
    user.says(&format!("curl -ks -m 5 {bearer} {pods}"), &["\"kind\":\"PodList\"", "kube-apiserver-k8s-master"]);
    user.says(&format!("curl -ks -m 5 {bearer} {pods}/kube-apiserver-k8s-master/log?tailLines=5"), &["\n"]);
    shell(user, &address, token.trim());
    user.ok("kubectl -n kubernetes-dashboard create serviceaccount guest");
    let token = user.ok("kubectl -n kubernetes-dashboard create token guest");
    let bearer = format!("-H 'Authorization: Bearer {}'", token.trim());
    user.says(
        &format!("curl -ks -m 5 {bearer} {pods}"),
        &["User \\\"system:serviceaccount:kubernetes-dashboard:guest\\\" cannot list resource"],
    );
    user.ok(&format!(
        "kubectl delete -f {0}/examples/dashboard-admin-user.yaml -f {0}/addons/dashboard.yaml",
        deploy.display()
    ));
}

/// Logs that are followed and a shell in a container, the way browsers open them: through the dashboard, by WebSocket.
fn shell(user: &User, address: &str, token: &str) {
    user.ok("kd run shell --image timonel.local/myblog:v1 --command -- sh -c 'echo begun; exec sleep 600'");
    user.ok("kd wait --for=condition=Ready pod/shell --timeout=60s");
    let kubectl = "/opt/timonel/bin/kubectl --kubeconfig=/dev/null --insecure-skip-tls-verify -n nohi";
    let kubectl = format!("{kubectl} -s https://{address} --token={token}");
    user.sees(&format!("timeout 5 {kubectl} logs -f shell || true"), &["begun"]);
    user.says(
        &format!("echo typed | {kubectl} exec -i shell -- sh -c 'cat; cat /www/index.html'"),
        &["typed", "blog v1"],
    );
    user.ok("kd delete pod shell --now");
}

fn logs(user: &User) {
    let manifest = repository().join("deploy/addons/logs.yaml");
    user.says(&format!("kubectl apply -f {}", manifest.display()), &["daemonset.apps/timonel-logs"]);
    user.says(
        "kubectl -n timonel-logs rollout status daemonset timonel-logs --timeout=90s",
        &["successfully rolled out"],
    );
    user.ok("kd run speaker --image timonel.local/myblog:v1 --restart=Never --command -- sh -c 'echo collected words'");
    user.sees(
        "cat /var/log/timonel-logs/nohi/speaker/speaker.log",
        &["\"log\":\"collected words\"", "\"stream\":\"stdout\""],
    );
    user.ok(&format!("kd delete pod speaker --now; kubectl delete -f {}", manifest.display()));
}

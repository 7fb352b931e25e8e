//! Usage of nodes and Pods, and scaling by it.

use super::User;

pub(crate) fn follow(user: &User) {
    user.sees("kubectl get apiservice v1beta1.metrics.k8s.io", &["kube-system/metrics", "True"]);
    user.sees("kubectl top nodes", &["CPU(cores)", "k8s-master"]);
    user.says("kubectl apply -f busy.yaml", &["deployment.apps/busy created"]);
    user.sees("kd get deploy busy", &["1/1"]);
    user.comes("kd top pod -l app=busy --containers --no-headers", "a busy container", |line| {
        line.split_whitespace()
            .nth(2)
            .and_then(|cpu| cpu.strip_suffix('m')?.parse::<u32>().ok())
            .is_some_and(|m| m > 50)
    });
    user.sees("kubectl top pods -A", &["kube-system", "busy-"]);
    user.sees("kd get hpa busy", &["Deployment/busy", "%/50%", "1         3"]);
    user.sees(
        "kd describe hpa busy",
        &["SuccessfulRescale", "New size: 3; reason: cpu resource utilization (percentage of request) above target"],
    );
    user.sees("kd get deploy busy", &["3/3"]);
    user.ok("kubectl delete -f busy.yaml");
}

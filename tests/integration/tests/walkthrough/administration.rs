//! Administration: taints, access, quotas, old manifests.

use super::User;

pub(crate) fn follow(user: &User) {
    nodes(user);
    access(user);
    quota(user);
    old_manifests(user);
}

fn nodes(user: &User) {
    user.says("kubectl get nodes", &["Ready", "control-plane", "v1.36"]);
    user.says("kubectl get node -o wide", &["10.74.0.1", "containerd://"]);
    let statuses = user.ok("kubectl get cs --no-headers");
    assert_eq!(statuses.lines().filter(|line| line.contains(" Healthy ")).count(), 3, "{statuses}");
    user.says("kubectl cluster-info", &["Kubernetes control plane", "https://10.74.0.1:6443"]);
    user.says("kubectl explain Pod.apiVersion", &["apiVersion", "string"]);
    user.says("kubectl api-versions", &["apps/v1"]);
    user.says("kubectl completion bash", &["__start_kubectl"]);
    user.says("kubectl label nodes k8s-master node-role.kubernetes.io/node1=", &["labeled"]);
    user.says("kubectl get nodes", &["control-plane,node1"]);
    user.ok("kubectl label nodes k8s-master node-role.kubernetes.io/node1-");
    user.ok("kubectl taint node k8s-master node-role.kubernetes.io/control-plane=:NoSchedule");
    user.says("kubectl taint node k8s-master node-role.kubernetes.io/control-plane-", &["node/k8s-master untainted"]);
    user.says("kubectl cordon k8s-master", &["node/k8s-master cordoned"]);
    user.says("kubectl get nodes", &["Ready,SchedulingDisabled"]);
    user.says("kubectl uncordon k8s-master", &["node/k8s-master uncordoned"]);
    user.says("ps -e", &["kube-apiserver", "kube-controller", "kube-scheduler", "kubelet", "kube-proxy"]);
}

fn access(user: &User) {
    user.ok("kd create serviceaccount bob");
    user.says(
        "kd create role user --verb=get --resource=pods --resource-name=myblog",
        &["role.rbac.authorization.k8s.io/user created"],
    );
    user.ok("kd create rolebinding user --role=user --serviceaccount=nohi:bob");
    let can = "kd --as=system:serviceaccount:nohi:bob auth can-i";
    user.comes(&format!("{can} get pods/myblog"), "yes", |said| said == "yes\n");
    assert_eq!(user.ok(&format!("{can} delete pods/myblog || true")), "no\n");
    let token = user.ok("kubectl create token bob -n nohi");
    user.fails(
        &format!("KUBECONFIG= kubectl -n nohi -s https://10.74.0.1:6443 --insecure-skip-tls-verify --token={token} get pods", token = token.trim()),
        "pods is forbidden: User \"system:serviceaccount:nohi:bob\" cannot list resource \"pods\" in API group \"\" in the namespace \"nohi\"",
    );
}

fn quota(user: &User) {
    user.ok("kd create quota few --hard=secrets=1");
    user.sees("kd describe quota few", &["secrets     0     1"]);
    user.ok("kd create secret generic one");
    user.fails(
        "kd create secret generic two",
        "exceeded quota: few, requested: secrets=1, used: secrets=1, limited: secrets=1",
    );
    user.ok("kd delete quota few; kd delete secret one");
}

fn old_manifests(user: &User) {
    for (version, kind) in [("networking.k8s.io/v1beta1", "Ingress"), ("extensions/v1beta1", "Deployment")] {
        user.fails(
            &format!("printf 'apiVersion: {version}\\nkind: {kind}\\nmetadata: {{name: x}}\\n' | kubectl create -f -"),
            &format!("no matches for kind \"{kind}\" in version \"{version}\""),
        );
    }
}

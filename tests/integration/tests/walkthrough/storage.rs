//! PersistentVolumes and claims: what a Pod wrote is there for the next one.

use super::User;

pub(crate) fn follow(user: &User) {
    user.ok("mkdir -p /opt/walk-local && kubectl apply -f storage.yaml");
    user.sees("kd get pvc host", &["Bound", "walk-host", "1Gi", "RWO"]);
    user.sees(
        "kd describe pvc local",
        &["WaitForFirstConsumer", "waiting for first consumer to be created before binding"],
    );
    user.says("kd get pvc local", &["Pending", "walk-local"]);
    user.ok("kubectl create -f storage-pod.yaml");
    user.sees("kd get pod keeper", &["1/1"]);
    user.says("kd get pvc local", &["Bound", "walk-local", "2Gi"]);
    user.says("kd get pvc dynamic", &["Bound", "pvc-", "300Mi", "local-path"]);
    user.says("kubectl get pv walk-host walk-local", &["nohi/host", "nohi/local", "Retain"]);
    user.ok("kd delete pod keeper && kubectl create -f storage-pod.yaml");
    user.comes("cat /opt/walk-host/log /opt/walk-local/log", "two starts", |log| log == "kept\nkept\nkept\nkept\n");
    let made = "ls /var/lib/timonel/local-path";
    user.says(&format!("cat /var/lib/timonel/local-path/$({made})/log"), &["kept\nkept\n"]);
    user.ok("kd delete pod keeper; kd delete pvc host local dynamic");
    user.comes(made, "an empty directory", str::is_empty);
    user.sees("kubectl get pv walk-host", &["Released"]);
    user.ok("kubectl delete pv walk-host walk-local; kubectl delete storageclass walk-local; rm -r /opt/walk-host /opt/walk-local");
}

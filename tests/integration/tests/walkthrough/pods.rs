//! Pods: images, probes, restarts, limits, settings, life cycle.

use super::User;

/// The parts wait for different things, so they go side by side.
pub(crate) fn follow(user: &User) {
    let parts: [fn(&User); 7] = [two_containers, node_directory, probes, ends, limits, settings, life_cycle];
    std::thread::scope(|scope| {
        for part in parts {
            scope.spawn(move || part(user));
        }
    });
}

fn two_containers(user: &User) {
    user.says("kubectl create -f myblog.yaml", &["pod/myblog created"]);
    user.sees("kubectl -n nohi get pods -o wide", &["2/2", "Running", "10.244.0.", "k8s-master"]);
    user.says("curl -sf -m 5 $(kd get pod myblog -o jsonpath={.status.podIP}):8002", &["blog v1"]);
    let terminal = "script -qec 'kubectl -n nohi exec -ti myblog -c myblog -- sh -c \"tty; nc 127.0.0.1 3306 </dev/null\"' /dev/null";
    user.says(terminal, &["/dev/pts/", "rows"]);
    user.says(
        "kd describe pod myblog",
        &["Node:             k8s-master/10.74.0.1", "Status:           Running", "MYSQL_ROOT_PASSWORD:  123456"],
    );
    user.says(
        "kd get events --field-selector involvedObject.name=myblog",
        &["Successfully assigned nohi/myblog to k8s-master"],
    );
    user.ok("kd logs --tail=10 myblog -c mysql");
    user.says("kubectl get po myblog -n nohi -o yaml", &["kind: Pod", "phase: Running"]);
    user.says(
        "crictl() { ctr -n k8s.io containers info $1; }; \
         crictl $(kd get pod myblog -o jsonpath='{.status.containerStatuses[0].containerID}' | sed s,containerd://,,)",
        &["\"io.kubernetes.container.name\": \"myblog\"", "\"io.kubernetes.pod.namespace\": \"nohi\""],
    );
    // Another image restarts the containers of the same Pod.
    user.ok("sed s/myblog:v1/myblog:v2/ myblog.yaml | kubectl apply -f -");
    user.sees("curl -s -m 5 $(kd get pod myblog -o jsonpath={.status.podIP}):8002", &["blog v2"]);
    user.sees("kd get pod myblog", &["2/2"]);
    user.says("kubectl delete -f myblog.yaml", &["pod \"myblog\" deleted"]);
    user.ok("sed s/myblog:v1/myblog:none/ myblog.yaml | kubectl create -f -");
    user.sees("kd get pod myblog", &["ImagePullBackOff"]);
    user.says("kd describe pod myblog", &["Failed to pull image \"timonel.local/myblog:none\"", "Error: ErrImagePull"]);
    user.ok("kubectl delete -f myblog.yaml");
}

fn node_directory(user: &User) {
    user.ok("kubectl create -f mysql.yaml");
    user.sees("kd describe pod mysql", &["FailedScheduling", "didn't match Pod's node affinity/selector"]);
    user.says("kd get pod mysql", &["Pending"]);
    user.says("kubectl label node k8s-master component=mysql", &["node/k8s-master labeled"]);
    user.sees("kd get pod mysql", &["1/1", "Running"]);
    user.ok("kd delete pod mysql && kubectl create -f mysql.yaml");
    user.comes("cat /opt/mysql/log", "a second start", |log| log == "started\nstarted\n");
    user.ok("kd delete pod mysql; rm -r /opt/mysql; kubectl label node k8s-master component-");
}

fn probes(user: &User) {
    user.ok("kubectl create -f probes.yaml");
    user.sees("kd get pods good", &["1/1", "Running"]);
    user.comes("kd get pods sick --no-headers", "restarts", |line| {
        line.split_whitespace().nth(3).and_then(|count| count.parse::<u32>().ok()).is_some_and(|count| count > 0)
    });
    user.sees("kd get pods unready", &["0/1", "Running", " 0 "]);
    user.sees(
        "kd get events",
        &["Liveness probe failed", "Readiness probe failed: HTTP probe failed with statuscode: 404"],
    );
    let address = user.ok("kd get pod good -o jsonpath={.status.podIP}");
    let endpoints = "kd get endpoints probed -o jsonpath='{.subsets[*].addresses[*].ip}' 2>/dev/null";
    user.comes(endpoints, "the ready Pod alone", |found| found == address);
    user.ok("kubectl delete -f probes.yaml");
}

fn ends(user: &User) {
    user.ok("kubectl create -f ends.yaml");
    let status = |pod: &str, status: &str| user.sees(&format!("kd get pod {pod}"), &[status]);
    status("onfailure", "Completed");
    status("never", "Error");
    status("absent", "ErrImageNeverPull");
    status("pulled", "ImagePullBackOff");
    status("always", "CrashLoopBackOff");
    status("greedy", "OOMKilled");
    user.ok("kubectl delete --grace-period=1 -f ends.yaml");
}

fn limits(user: &User) {
    user.ok("kubectl create -f limits.yaml");
    user.sees("kd get pod limits -o wide", &["1/1", "10.74.0.1"]);
    let read = "cat /sys/fs/cgroup/cpu/cpu.shares /sys/fs/cgroup/cpu/cpu.cfs_quota_us /sys/fs/cgroup/memory/memory.limit_in_bytes";
    assert_eq!(user.ok(&format!("kd exec limits -- {read}")), "102\n50000\n67108864\n");
    user.ok("kubectl delete -f limits.yaml");
}

fn settings(user: &User) {
    user.ok("printf 'MYSQL_HOST=127.0.0.1\\nMYSQL_PORT=3306\\n' >configmap.txt; mkdir -p files; echo one >files/one");
    user.says("kubectl create configmap myblog --from-env-file=configmap.txt -n nohi", &["configmap/myblog created"]);
    user.says(
        "kd create configmap files --from-file=files --from-file=two=files/one --from-literal=three=3 -o yaml",
        &["one: |\n    one", "two: |\n    one", "three: \"3\""],
    );
    user.ok("printf 'MYSQL_USER=root\\nMYSQL_PASSWD=123456\\n' >secret.txt");
    user.says("kd create secret generic myblog --from-env-file=secret.txt", &["secret/myblog created"]);
    user.ok(
        "kd create secret docker-registry registry --docker-server=r.local --docker-username=u --docker-password=p",
    );
    user.ok("kd create secret tls pair --key /etc/kubernetes/pki/ca.key --cert /etc/kubernetes/pki/ca.crt");
    user.says("kd get secrets", &["Opaque", "kubernetes.io/dockerconfigjson", "kubernetes.io/tls"]);
    user.ok("kubectl create -f settings.yaml");
    user.sees("kd get pod settings", &["1/1"]);
    assert_eq!(
        user.ok("kd exec settings -- sh -c 'echo $HOST $PASSWORD; cat /etc/myblog/MYSQL_PORT'"),
        "127.0.0.1 123456\n3306"
    );
    user.ok(r#"kd patch configmap myblog -p '{"data":{"MYSQL_HOST":"db","MYSQL_PORT":"3307"}}'"#);
    user.comes("kd exec settings -- cat /etc/myblog/MYSQL_PORT", "the new port", |port| port == "3307");
    assert_eq!(user.ok("kd exec settings -- sh -c 'echo $HOST'"), "127.0.0.1\n");
    user.ok("kubectl delete -f settings.yaml; kd delete configmap myblog files; kd delete secret myblog registry pair");
}

fn life_cycle(user: &User) {
    user.ok("kubectl create -f lifecycle.yaml");
    user.sees("cat /opt/loap/timing", &["LIVENESS"]);
    user.says("sysctl() { nsenter -t $(pgrep -f 'trap exit TERM' | head -1) -n sysctl \"$@\"; }; sysctl net.ipv4.ip_default_ttl", &["= 77"]);
    user.says("kd delete pod lifecycle", &["pod \"lifecycle\" deleted"]);
    let log = user.ok("cat /opt/loap/timing");
    let first = |word: &str| log.lines().position(|line| line == word).unwrap_or_else(|| panic!("no {word} in {log}"));
    let order = ["INIT", "READINESS", "LIVENESS", "END"].map(first);
    assert!(order.is_sorted() && first("INIT") < first("START") && first("POST-START") < first("READINESS"), "{log}");
    assert_eq!(log.lines().filter(|line| *line == "END").count(), 1, "{log}");
    user.ok("rm -r /opt/loap");
}

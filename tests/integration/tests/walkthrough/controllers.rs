//! Controllers: Deployments and their updates, and the other kinds.

use super::User;

pub(crate) fn follow(user: &User) {
    deployment(user);
    updates(user);
    others(user);
}

fn deployment(user: &User) {
    user.says("kubectl create -f deployment.yaml", &["deployment.apps/myblog created"]);
    user.sees("kd get deploy", &["READY   UP-TO-DATE   AVAILABLE   AGE", "1/1     1            1"]);
    user.says("kd get rs", &["DESIRED   CURRENT   READY", "1         1         1"]);
    // What ends comes back.
    let pod = user.ok("kd get pods -l app=myblog -o name");
    user.ok(&format!("kd delete {pod}"));
    user.comes("kd get pods -l app=myblog --no-headers", "another Pod", |line| {
        line.contains("1/1") && !line.contains(pod.trim().trim_start_matches("pod/"))
    });
    user.ok(
        "ctr -n k8s.io tasks kill -s SIGKILL \
         $(kd get pods -l app=myblog -o jsonpath='{.items[0].status.containerStatuses[0].containerID}' | sed s,containerd://,,)",
    );
    user.comes("kd get pods -l app=myblog --no-headers", "one restart", |line| {
        line.contains("1/1") && line.split_whitespace().nth(3) == Some("1")
    });
    user.says("kubectl -n nohi scale deploy myblog --replicas=2", &["deployment.apps/myblog scaled"]);
    user.sees("kd get deploy myblog", &["2/2"]);
    user.says(
        "EDITOR='sed -i s/replicas:.2/replicas:\\ 3/' kubectl edit deployments myblog -n nohi",
        &["deployment.apps/myblog edited"],
    );
    user.sees("kd get deploy myblog", &["3/3"]);
    user.says("kubectl run d1 --image timonel.local/myblog:v1 --port 80 -n nohi", &["pod/d1 created"]);
    user.says("kd create deployment d2 --image=timonel.local/myblog:v1", &["deployment.apps/d2 created"]);
    user.sees("kd get deploy d2", &["1/1"]);
    user.ok("kd delete pod d1 --now; kd delete deploy d2");
}

fn updates(user: &User) {
    user.ok("kubectl -n nohi set image deploy myblog myblog=timonel.local/myblog:v2 --record");
    user.says("kd rollout status deploy myblog", &["successfully rolled out"]);
    let history = user.says("kd rollout history deploy myblog", &["REVISION", "CHANGE-CAUSE"]);
    let causes: Vec<&str> = history.lines().filter(|line| line.starts_with(|c: char| c.is_ascii_digit())).collect();
    assert!(
        causes.len() == 2 && causes[0] == "1         <none>" && causes[1].contains("set image deploy myblog"),
        "{history}"
    );
    user.says(
        "kd describe deploy myblog",
        &["Scaled up replica set myblog-", " to 1", "25% max unavailable, 25% max surge"],
    );
    user.says("kd rollout undo deploy myblog --to-revision=1", &["deployment.apps/myblog rolled back"]);
    user.ok("kd rollout status deploy myblog");
    user.says("kd get deploy myblog -o wide", &["timonel.local/myblog:v1"]);
    user.says("kd rollout pause deploy myblog", &["deployment.apps/myblog paused"]);
    user.says("kd rollout resume deploy myblog", &["deployment.apps/myblog resumed"]);
    user.says("kd rollout restart deploy myblog", &["deployment.apps/myblog restarted"]);
    user.ok("kd rollout status deploy myblog");
    user.says("kd get deploy myblog -o jsonpath={.spec.revisionHistoryLimit}", &["10"]);
}

fn others(user: &User) {
    user.ok("kubectl apply -f controllers.yaml");
    user.sees("kd get rc rc", &["2         2         2"]);
    user.sees("kd get ds ds", &["1         1         1       1            1"]);
    user.sees("kd get sts sts", &["2/2"]);
    user.says("kd get pods sts-0 sts-1", &["sts-0", "sts-1"]);
    user.sees("kd get job job", &["2/2"]);
    user.says("kd logs job/job", &["done"]);
    user.says("kd create job once --from=cronjob/cron", &["job.batch/once created"]);
    user.sees("kd get job once", &["1/1"]);
    user.says("kd get cj cron", &["*/5 * * * *"]);
    user.says("kd delete pod -l app=sts", &["deleted"]);
    user.sees("kd get sts sts", &["2/2"]);
    user.says("kubectl delete -f controllers.yaml", &["statefulset.apps \"sts\" deleted"]);
}

//! Ingress: hosts, paths, rewrites and TLS, by a controller on a labelled node.

use super::{User, repository};

pub(crate) fn follow(user: &User) {
    controller(user);
    user.says(
        "kd create deployment myblog --image timonel.local/myblog:v1 && \
         kd create deployment service1 --image timonel.local/myblog:v1 && \
         kd create deployment service2 --image timonel.local/myblog:v2 && \
         kd expose deployment myblog --port 80 --target-port 8002 && \
         kd expose deployment service1 --port 4200 --target-port 8002 && \
         kd expose deployment service2 --port 8080 --target-port 8002",
        &["service/service2 exposed"],
    );
    hosts_and_paths(user);
    rewrite(user);
    tls(user);
    user.ok("kubectl delete -f ingress.yaml; kd delete ingress rewrite; kd delete secret https-secret; \
         kd delete svc myblog service1 service2; kd delete deploy myblog service1 service2");
    user.sees("curl -s -m 5 -H 'Host: a.b.c' http://10.74.0.1/", &["404 Not Found"]);
}

fn controller(user: &User) {
    let manifest = repository().join("deploy/addons/ingress.yaml");
    user.says(&format!("kubectl apply -f {}", manifest.display()), &["daemonset.apps/ingress-nginx-controller"]);
    user.says("kubectl label node k8s-master ingress=true --overwrite", &["node/k8s-master"]);
    user.ok("kubectl taint node k8s-master node-role.kubernetes.io/control-plane=:NoSchedule");
    user.sees("kubectl -n ingress-nginx get pods", &["1/1", "Running"]);
    user.ok("kubectl taint node k8s-master node-role.kubernetes.io/control-plane-");
    user.says("kubectl get ingressclass", &["nginx", "k8s.io/ingress-nginx"]);
    user.sees("curl -s -m 5 -i http://10.74.0.1/", &["HTTP/1.1 404 Not Found"]);
}

fn hosts_and_paths(user: &User) {
    user.says("kubectl create -f ingress.yaml", &["ingress.networking.k8s.io/web created"]);
    user.sees("curl -s -m 5 -H 'Host: a.b.c' http://10.74.0.1/index.html", &["blog v1"]);
    user.sees("curl -s -m 5 -H 'Host: d.e.f' http://10.74.0.1/", &["blog v2"]);
    // The longest path wins; the back ends have no such directories.
    user.sees("curl -s -m 5 -i -H 'Host: a.b.c' http://10.74.0.1/foo", &["404"]);
    user.says("kd get ingress web", &["nginx", "a.b.c,d.e.f", "80"]);
    user.sees("kd get ingress web", &["10.74.0.1"]);
    user.sees("kd describe ingress web", &["/foo", "service1:4200", "Scheduled for sync"]);
    // A change takes effect without a restart of anything.
    user.ok(r#"kd patch ingress web --type json -p '[{"op":"replace","path":"/spec/rules/1/host","value":"g.h.i"}]'"#);
    user.sees("curl -s -m 5 -H 'Host: g.h.i' http://10.74.0.1/", &["blog v2"]);
    user.sees("curl -s -m 5 -i -H 'Host: d.e.f' http://10.74.0.1/", &["404 Not Found"]);
    user.says("kubectl -n ingress-nginx get pods --no-headers", &["1/1", " 0 "]);
}

fn rewrite(user: &User) {
    user.ok("kd create ingress rewrite --class=nginx --rule='r.w/foo/(.*)=myblog:80' \
         --annotation='nginx.ingress.kubernetes.io/rewrite-target=/$1'");
    user.sees("curl -s -m 5 -H 'Host: r.w' http://10.74.0.1/foo/index.html", &["blog v1"]);
}

fn tls(user: &User) {
    user.ok("openssl req -x509 -nodes -newkey rsa:2048 -days 30 -subj /CN=a.b.c -addext subjectAltName=DNS:a.b.c \
         -keyout tls.key -out tls.crt 2>/dev/null");
    user.says("kd create secret tls https-secret --key tls.key --cert tls.crt", &["secret/https-secret created"]);
    user.ok(r#"kd patch ingress web -p '{"spec":{"tls":[{"hosts":["a.b.c"],"secretName":"https-secret"}]}}'"#);
    user.sees("curl -s -m 5 --cacert tls.crt --resolve a.b.c:443:10.74.0.1 https://a.b.c/index.html", &["blog v1"]);
    user.sees(
        "curl -s -m 5 -i -H 'Host: a.b.c' http://10.74.0.1/index.html",
        &["308 Permanent Redirect", "location: https://a.b.c/index.html"],
    );
}

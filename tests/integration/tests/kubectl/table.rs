//! What both kubectls are asked, in this order, each on a server of its own.

const WEB: &str = r#"apiVersion: apps/v1
kind: Deployment
metadata: {name: web, labels: {app: web}}
spec:
  replicas: 3
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - {name: web, image: "nginx:1.25", ports: [{containerPort: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  type: NodePort
  selector: {app: web}
  ports: [{port: 80, targetPort: 80}]
"#;
const CONFIG: &str = r#"apiVersion: v1
kind: ConfigMap
metadata:
  name: cm
data:
  a: "1"
  b: |
    line one
    line two
  long: "word word word word word word word word word word word word word word word word word word word word"
  quoted: "it's: x"
  tab: "a\tb"
"#;
const CONFIG_2: &str = r#"apiVersion: v1
kind: ConfigMap
metadata: {name: cm}
data: {a: "2"}
"#;
const ROLES: &str = r#"apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: recon}
rules: [{apiGroups: [""], resources: [pods], verbs: [get]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: recon}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: recon}
subjects: [{kind: User, name: u, apiGroup: rbac.authorization.k8s.io}]
"#;
const ROLES_2: &str = r#"apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: recon}
rules: [{apiGroups: [""], resources: [pods], verbs: [get,list]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: recon}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: recon}
subjects: [{kind: User, name: v, apiGroup: rbac.authorization.k8s.io}]
"#;
const UNKNOWN_FIELD: &str = r#"apiVersion: v1
kind: ConfigMap
metadata: {name: x}
foo: 1
"#;
const OLD: &str = r#"apiVersion: extensions/v1beta1
kind: Ingress
metadata: {name: x}
"#;
const INVALID: &str = r#"apiVersion: apps/v1
kind: Deployment
metadata: {name: web, labels: {app: web}}
spec:
  replicas: -2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - {name: web, image: ""}
"#;
const GENERATED: &str = r#"apiVersion: v1
kind: ConfigMap
metadata: {generateName: cm-}
"#;

/// Command lines with standard input.
pub(super) const INVOCATIONS: &[(&str, &str)] = &[
    ("create -f -", WEB),
    ("create -f -", CONFIG),
    ("create -f -", CONFIG),
    ("create -f -", UNKNOWN_FIELD),
    ("create -f -", OLD),
    ("create", ""),
    ("get ns -o name", ""),
    ("get svc,deploy", ""),
    ("get all", ""),
    ("get deploy -A", ""),
    ("get deploy web -o yaml", ""),
    ("get deploy -o json", ""),
    ("get cm cm -o yaml", ""),
    ("get deploy --show-labels", ""),
    ("get deploy -L app --show-labels -o wide", ""),
    ("get svc -o jsonpath={.items[*].metadata.name}", ""),
    ("get deploy web -o jsonpath-as-json={.spec}", ""),
    (
        "get deploy web -o custom-columns=NAME:.metadata.name,IMAGES:.spec.template.spec.containers[*].image,NONE:.spec.nothing",
        "",
    ),
    ("get deploy -o custom-columns=NAME", ""),
    ("get pods", ""),
    ("get pod nothing", ""),
    ("get nope", ""),
    ("get deploy -l app=none", ""),
    ("get deploy --field-selector metadata.name=web", ""),
    ("get deploy web -A", ""),
    ("get deploy/web/x", ""),
    ("get deploy web web", ""),
    ("get deploy.v1.apps web", ""),
    ("get deployments.v1.apps/web", ""),
    ("get deploy web --subresource=scale", ""),
    ("get -f -", WEB),
    ("get -f - -o name", WEB),
    ("get", ""),
    ("get pods --ignore-not-found", ""),
    ("get pods -A", ""),
    ("get pods,nodes", ""),
    ("get deploy web -o name --show-labels", ""),
    ("get deploy web --no-headers", ""),
    ("get pods -o yaml", ""),
    ("get cs", ""),
    ("get ev", ""),
    ("get --raw /nope", ""),
    ("get deploy -Z", ""),
    ("get deploy -o", ""),
    ("get deploy --chunk-size=1", ""),
    ("get ns -o name --chunk-size=2", ""),
    ("get ns --chunk-size=2", ""),
    ("api-resources -o wide", ""),
    ("api-resources --namespaced=false", ""),
    ("api-resources --api-group=apps --no-headers", ""),
    ("api-resources --categories=all", ""),
    ("api-versions", ""),
    ("scale", ""),
    ("scale deploy web --replicas=5", ""),
    ("scale deploy/web --replicas=2", ""),
    ("scale deploy web", ""),
    ("scale deploy web --replicas=-1", ""),
    ("scale --replicas=3", ""),
    ("scale deploy nope --replicas=1", ""),
    ("scale cm cm --replicas=1", ""),
    ("label deploy web x=y", ""),
    ("label deploy web x=y", ""),
    ("label deploy web x=z", ""),
    ("label deploy web x=z --overwrite", ""),
    ("label deploy web x- nope-", ""),
    ("label deploy web x=1 app-", ""),
    ("label deploy web", ""),
    ("label deploy web app=web2 --overwrite --dry-run=server", ""),
    ("label deploy web app=web2 --overwrite --dry-run=client -o yaml", ""),
    ("label deploy web --list", ""),
    ("label deploy --all --list", ""),
    ("label deploy --all q=r", ""),
    ("label deploy,svc --all q=r2 --overwrite", ""),
    ("annotate deploy web x=y", ""),
    ("annotate deploy web x=y", ""),
    ("annotate deploy web x=z", ""),
    ("annotate deploy web x=z --overwrite", ""),
    ("annotate deploy web x-", ""),
    ("annotate deploy web", ""),
    ("annotate deploy web --list", ""),
    (r#"patch deploy web -p {"spec":{"replicas":4}}"#, ""),
    (r#"patch deploy web -p {"spec":{"replicas":4}}"#, ""),
    (r#"patch deploy web --type=json -p [{"op":"replace","path":"/spec/replicas","value":6}]"#, ""),
    ("patch deploy web", ""),
    ("patch deploy web -p {", ""),
    ("patch deploy nope -p {}", ""),
    (r#"patch deploy web --subresource=scale --type=merge -p {"spec":{"replicas":2}}"#, ""),
    ("delete", ""),
    ("delete deploy", ""),
    ("delete deploy nope", ""),
    ("delete deploy web nope", ""),
    ("delete -f -", WEB),
    ("delete -f - --ignore-not-found", WEB),
    ("delete cm cm", ""),
    ("delete pods --all", ""),
    ("delete pods -l a=b", ""),
    ("delete pods --all -l a=b", ""),
    ("apply -f -", WEB),
    ("apply -f -", WEB),
    ("apply -f -", WEB),
    ("get deploy web -o yaml", ""),
    ("apply -f -", INVALID),
    ("apply -f -", GENERATED),
    ("apply -f -", UNKNOWN_FIELD),
    ("apply -f -", OLD),
    ("apply", ""),
    ("create -f -", CONFIG),
    ("apply -f -", CONFIG),
    ("apply -f -", CONFIG),
    ("apply view-last-applied cm cm", ""),
    ("apply view-last-applied cm cm -o json", ""),
    ("apply view-last-applied ns default", ""),
    ("apply view-last-applied -f -", CONFIG),
    ("apply -f - --dry-run=client", CONFIG),
    ("apply -f - --dry-run=server", CONFIG),
    ("apply -f - --dry-run=server -o yaml", CONFIG_2),
    ("apply -f - -o json", CONFIG_2),
    ("apply -f - -o name", WEB),
    ("apply -f - -o yaml", WEB),
    ("apply --server-side -f -", CONFIG),
    ("apply --server-side -f - --field-manager=other", CONFIG_2),
    ("apply --server-side -f - --field-manager=other --force-conflicts", CONFIG_2),
    ("apply --server-side -f -", WEB),
    ("apply --force-conflicts -f -", CONFIG),
    ("apply --server-side --dry-run=client -f -", CONFIG),
    ("apply --prune -f -", CONFIG),
    ("apply --prune --all -l a=b -f -", CONFIG),
    ("label cm cm team=x", ""),
    ("apply --prune -l team=x -f -", WEB),
    ("apply -f - --validate=false", UNKNOWN_FIELD),
    ("apply -f - --validate=warn", UNKNOWN_FIELD),
    ("create deployment", ""),
    ("create deployment d", ""),
    ("create deployment d --image=nginx --dry-run=client -o yaml", ""),
    ("create deployment d --image=nginx --dry-run=client -o json", ""),
    ("create deploy d --image=nginx --dry-run=client", ""),
    ("create deploy d --image=nginx", ""),
    ("create deploy d --image=nginx", ""),
    ("create deploy d2 --image=nginx -o json", ""),
    ("create job j --image=nginx --dry-run=client -o yaml -- a b", ""),
    ("create job j", ""),
    ("create job j --from=cronjob/x --image=x", ""),
    ("create job j --from=x", ""),
    ("create job j --from=cm/cm", ""),
    ("create job j1 --from=cronjob/c -o yaml", ""),
    ("create job j1 --from=cronjob/nope", ""),
    ("create cronjob c --image=nginx", ""),
    ("create svc nodeport x --tcp=80 --node-port=7", ""),
    ("create ingress i", ""),
    ("create configmap", ""),
    ("create cm c1 --dry-run=client -o yaml", ""),
    ("create cm c1 --from-literal=a", ""),
    ("create cm c1 --from-literal=a=1 --from-literal=a=2", ""),
    ("create cm c1 --from-file=nope", ""),
    ("create cm c1 --from-file=a=b=c", ""),
    ("create cm c1 --from-literal=a=b", ""),
    ("create cm c1 --from-literal=a=b", ""),
    ("create ns n1 --dry-run=client -o yaml", ""),
    ("create ns n1", ""),
    ("create ns n1", ""),
    ("create sa s1 --dry-run=client -o json", ""),
    ("create sa s1", ""),
    ("create quota q --hard=cpu=x", ""),
    ("create quota q --hard=cpu", ""),
    (
        "create role r --verb=get,list --resource=pods,deployments.apps,pods/log --resource-name=a --dry-run=client -o yaml",
        "",
    ),
    ("create role r --verb=get --resource=nope", ""),
    ("create role r", ""),
    ("create role r --verb=get", ""),
    ("create role r --verb=get --verb=* --resource=rs.extensions", ""),
    ("create role r --verb=* --resource=* --dry-run=client -o yaml", ""),
    ("create role r --verb=get --resource=pods,svc/status --dry-run=client -o json", ""),
    ("create clusterrole r --verb=get --resource=pods,nodes --dry-run=client -o yaml", ""),
    ("create clusterrole r", ""),
    ("create rolebinding b --role=r --user=u --group=g --serviceaccount=ns:sa --dry-run=client -o yaml", ""),
    ("create rolebinding b --clusterrole=r --dry-run=client -o yaml", ""),
    ("create rolebinding b", ""),
    ("create rolebinding b --role=r --serviceaccount=sa", ""),
    ("create clusterrolebinding b", ""),
    (
        "create pc p --value=1000 --global-default --description=d --preemption-policy=Never --dry-run=client -o yaml",
        "",
    ),
    ("create pdb p --selector=app=x --max-unavailable=50% --dry-run=client -o json", ""),
    ("create pdb p", ""),
    ("create pdb p --selector=app=x", ""),
    ("create pdb p --selector=app=x --min-available=1 --max-unavailable=1", ""),
    ("create token nope", ""),
    ("create token", ""),
    ("create sa a b", ""),
    ("delete cm cm --grace-period=0 --dry-run=client", ""),
    ("delete cm cm --force --grace-period=5", ""),
    ("delete cm cm -o json", ""),
    ("delete cm cm -o name --dry-run=server", ""),
    ("delete cm cm --force --dry-run=client", ""),
    ("delete cm cm --now --grace-period=3 --dry-run=client", ""),
    ("delete --raw /api/v1/namespaces/default/configmaps/nope", ""),
    ("delete cm -A --dry-run=client", ""),
    ("delete cm cm nope --ignore-not-found --dry-run=client", ""),
    ("delete -f - -l a=b --dry-run=client", CONFIG),
    ("delete cm cm nope", ""),
    ("delete cm c1 --wait=false", ""),
    ("delete cm c1 --ignore-not-found", ""),
    ("delete -f -", WEB),
    ("delete deploy --all", ""),
    ("delete pods --all", ""),
    ("delete pods -l a=b", ""),
    ("create -f -", WEB),
    ("create -f -", CONFIG),
    ("get deploy web -o go-template={{.a", ""),
    ("create deployment x --image=y --dry-run=client -o go-template={{.metadata.name}}", ""),
    ("get deploy web -o jsonpath={.metadata.labels}", ""),
    ("get deploy web -o jsonpath={.spec.template.spec.containers[5].name}", ""),
    ("get ns -o jsonpath={.items[-1:].metadata.name}", ""),
    ("get ns -o jsonpath={..name}", ""),
    ("get ns -o jsonpath={.items[*]['metadata.name','status.phase']}", ""),
    (r#"get ns -o jsonpath={.items[*].metadata.labels.kubernetes\.io/metadata\.name}"#, ""),
    ("get ns -o jsonpath={@}", ""),
    ("get ns -o jsonpath={.items[?(@.metadata.name)].metadata.name}", ""),
    ("get ns -o jsonpath={.items[a]}", ""),
    ("get ns -o custom-columns=N:metadata.name,P:.status.phase --no-headers", ""),
    ("get ns -o wide --show-labels", ""),
    (r#"patch deploy web -p {"spec":{"replicas":7}} -o yaml"#, ""),
    (r#"patch deploy web --type merge -p {"spec":{"replicas":8}} -o jsonpath={.spec.replicas}"#, ""),
    (r#"patch -f - -p {"metadata":{"labels":{"q":"r"}}}"#, WEB),
    (r#"patch deploy web -p {"spec":{"replicas":-3}}"#, ""),
    ("label -f - a=b", WEB),
    ("label deploy,svc -l q=r z=z", ""),
    ("label ns default x=y --dry-run=server", ""),
    ("label deploy web a=b c", ""),
    ("label deploy web x=y x-", ""),
    ("annotate -f - a=b", WEB),
    ("annotate deploy --all b=c", ""),
    ("annotate deploy web", ""),
    ("delete deploy web --dry-run=client -o name", ""),
    ("--as=bob get pods", ""),
    ("api-resources --no-headers --sort-by=name", ""),
    ("get --raw=/api/v1/namespaces/default/pods", ""),
    ("create -f -", WEB),
    ("get deploy --sort-by=.metadata.name", ""),
    ("get ns --sort-by={.metadata.creationTimestamp}", ""),
    ("get ns --sort-by=.metadata.name -o json", ""),
    ("get ev", ""),
    ("get ns,svc -o json", ""),
    ("get pods -o yaml", ""),
    ("get ns -o yaml --chunk-size=2", ""),
    ("get deploy --output-watch-events", ""),
    ("explain deploy", ""),
    ("explain deploy.spec.strategy", ""),
    ("explain", ""),
    ("explain deploy --api-version=apps/v2", ""),
    ("explain cm.data", ""),
    ("explain pod.spec.containers.resources.limits", ""),
    ("explain svc.spec", ""),
    ("auth can-i get pods", ""),
    ("auth can-i get pods --as=bob", ""),
    ("auth can-i frob pods", ""),
    ("auth can-i list nodes -n x", ""),
    ("auth can-i get /logs", ""),
    ("auth can-i", ""),
    ("auth can-i get", ""),
    ("auth can-i get pods/x", ""),
    ("auth can-i get pods --subresource=log -A", ""),
    ("auth can-i get pods -q --as=bob", ""),
    ("auth can-i --list", ""),
    ("auth can-i --list --as=bob", ""),
    ("auth can-i * *", ""),
    ("auth whoami", ""),
    ("auth whoami -o json", ""),
    ("auth whoami -o yaml", ""),
    ("auth whoami --as=bob --as-group=g1 --as-group=g2 --as-user-extra=a=b", ""),
    ("auth reconcile -f -", ROLES),
    ("auth reconcile -f -", ROLES),
    ("auth reconcile -f -", ROLES_2),
    ("auth reconcile -f - --remove-extra-permissions --remove-extra-subjects --dry-run=client", ROLES),
    ("auth reconcile -f -", CONFIG),
    ("auth reconcile", ""),
    ("cluster-info", ""),
    ("events", ""),
    ("events -A", ""),
    ("events --for=pod/x", ""),
    ("events --types=Foo", ""),
    ("replace", ""),
    ("replace -f -", CONFIG),
    ("replace -f - -o yaml", CONFIG_2),
    ("create -f -", CONFIG),
    ("replace -f -", CONFIG_2),
    ("replace -f - --grace-period=3", CONFIG),
    ("replace -f - --timeout=3s", CONFIG),
    ("scale deploy/web --current-replicas=1 --replicas=2", ""),
    ("scale deploy/web --current-replicas=3 --replicas=2", ""),
    ("scale deploy web dd --replicas=1", ""),
    ("scale -f - --replicas=1", WEB),
    ("scale deploy/web --replicas=2 --dry-run=client", ""),
    ("scale deploy --all --replicas=1", ""),
    ("--context=nope get pods", ""),
    ("--cluster=nope get pods", ""),
    ("--user=nope get pods", ""),
];

// What the page shows. Columns come from the server.

const of = (title, resource, group, version, singular, namespaced = true) =>
  ({ title, resource, group, version, kind: singular, namespaced });

export const SECTIONS = [
  ["Cluster", [
    of("Nodes", "nodes", "", "v1", "Node", false),
    of("Namespaces", "namespaces", "", "v1", "Namespace", false),
    of("Events", "events", "", "v1", "Event"),
  ]],
  ["Workloads", [
    of("Pods", "pods", "", "v1", "Pod"),
    of("Deployments", "deployments", "apps", "v1", "Deployment"),
    of("StatefulSets", "statefulsets", "apps", "v1", "StatefulSet"),
    of("DaemonSets", "daemonsets", "apps", "v1", "DaemonSet"),
    of("ReplicaSets", "replicasets", "apps", "v1", "ReplicaSet"),
    of("Jobs", "jobs", "batch", "v1", "Job"),
    of("CronJobs", "cronjobs", "batch", "v1", "CronJob"),
    of("Autoscalers", "horizontalpodautoscalers", "autoscaling", "v2", "HorizontalPodAutoscaler"),
  ]],
  ["Network", [
    of("Services", "services", "", "v1", "Service"),
    of("Ingresses", "ingresses", "networking.k8s.io", "v1", "Ingress"),
    of("Ingress classes", "ingressclasses", "networking.k8s.io", "v1", "IngressClass", false),
    of("EndpointSlices", "endpointslices", "discovery.k8s.io", "v1", "EndpointSlice"),
    of("Network policies", "networkpolicies", "networking.k8s.io", "v1", "NetworkPolicy"),
  ]],
  ["Configuration", [
    of("ConfigMaps", "configmaps", "", "v1", "ConfigMap"),
    of("Secrets", "secrets", "", "v1", "Secret"),
    of("Quotas", "resourcequotas", "", "v1", "ResourceQuota"),
    of("Limits", "limitranges", "", "v1", "LimitRange"),
  ]],
  ["Storage", [
    of("Claims", "persistentvolumeclaims", "", "v1", "PersistentVolumeClaim"),
    of("Volumes", "persistentvolumes", "", "v1", "PersistentVolume", false),
    of("Storage classes", "storageclasses", "storage.k8s.io", "v1", "StorageClass", false),
  ]],
  ["Access", [
    of("Service accounts", "serviceaccounts", "", "v1", "ServiceAccount"),
    of("Roles", "roles", "rbac.authorization.k8s.io", "v1", "Role"),
    of("Role bindings", "rolebindings", "rbac.authorization.k8s.io", "v1", "RoleBinding"),
    of("Cluster roles", "clusterroles", "rbac.authorization.k8s.io", "v1", "ClusterRole", false),
    of("Cluster role bindings", "clusterrolebindings", "rbac.authorization.k8s.io", "v1", "ClusterRoleBinding", false),
  ]],
];

export const KINDS = new Map(SECTIONS.flatMap(([, kinds]) => kinds).map((kind) => [kind.resource, kind]));

/** The kind of an owner reference, if the page shows it. */
export const kindNamed = (name) => [...KINDS.values()].find((kind) => kind.kind === name);

/** Address of an object's page. */
export function linkTo(kind, namespace, name, tab = "") {
  const place = `#/show/${kind.resource}/${encodeURIComponent(namespace || "-")}/${encodeURIComponent(name)}`;
  return tab ? `${place}/${tab}` : place;
}

//! The group of administrators and the binding that makes them such.

use std::{path::Path, time::Duration};

use client::ApiErrorExt;
use serde_json::{Value, json};

use crate::{
    client::{Cluster, INTERVAL, error_text},
    constants::CLUSTER_ADMINS,
    error::{Context, Result, fail},
    host::{Host, PathKind},
};

/// ClusterRoleBinding `kubeadm:cluster-admins`.
pub fn binding() -> Value {
    json!({
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": CLUSTER_ADMINS},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": CLUSTER_ADMINS}],
    })
}

/// Makes sure that the group of `admin.conf` administrates: what it cannot do itself yet, `super-admin.conf` does.
pub async fn ensure(
    host: &dyn Host,
    admin: &Cluster,
    super_admin: &Path,
    server: &str,
    patience: Duration,
) -> Result<()> {
    let object = binding();
    let end = tokio::time::Instant::now() + patience;
    let missing = loop {
        match admin.create_once(&object).await {
            Ok(_) => break false,
            Err(error) if error.is_already_exists() => break false,
            Err(error) if error.status().is_some_and(|s| s.code == 403) => break true,
            Err(error) if tokio::time::Instant::now() + INTERVAL > end => {
                return fail!("unable to create ClusterRoleBinding: {}", error_text(&error));
            }
            Err(_) => tokio::time::sleep(INTERVAL).await,
        }
    };
    if !missing {
        return Ok(());
    }
    if host.kind(super_admin) != Some(PathKind::File) {
        return fail!(
            "the ClusterRoleBinding for the kubeadm:cluster-admins Group is missing but there is no super-admin.conf to \
             create it"
        );
    }
    let cluster = Cluster::load(host, super_admin, Some(server), patience).await?;
    cluster
        .create_if_absent(host, &object)
        .await
        .context("unable to create the kubeadm:cluster-admins ClusterRoleBinding")
}

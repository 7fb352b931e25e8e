//! `kubeadm kubeconfig`.

use std::path::Path;

use crate::{
    cli::KubeconfigAction,
    config::{
        defaults::{self, Detect, GivenInit},
        documents::Strictness,
    },
    constants::DEFAULT_CRI_SOCKET,
    error::{Context, Result},
    host::Host,
    kubeconfig::{self, Contents, Credentials},
    pki::{
        Key,
        files::{certificate_path, read_authority, read_certificate},
        key::pem,
    },
};

pub(super) async fn run(host: &dyn Host, action: KubeconfigAction) -> Result<()> {
    let KubeconfigAction::User { client_name, config, org, token, validity_period } = action;
    let mut given = match config {
        Some(path) => GivenInit::read(host, &super::read_config(host, &path)?, Strictness::Warn)?,
        None => GivenInit::default(),
    };
    if given.init.node_registration.cri_socket.is_empty() {
        given.init.node_registration.cri_socket = DEFAULT_CRI_SOCKET.into();
    }
    let done = defaults::complete(host, given, Detect::Host).await?;
    let cluster = &done.cluster;
    let directory = Path::new(&cluster.certificates_dir);
    let server = cluster.endpoint(&done.init.local_api_endpoint);
    let ca = read_certificate(host, &certificate_path(directory, "ca"))?;
    let credentials = if token.is_empty() {
        let authority = read_authority(host, directory, "ca").context("couldn't load the CA")?;
        let key = tokio::task::block_in_place(|| Key::generate(cluster.algorithm()))?;
        let end = host.now() + validity_period.0;
        kubeconfig::client_credentials(host, &authority, key, &client_name, &org, end)?
    } else {
        Credentials::Token(token)
    };
    let contents = Contents {
        cluster: &cluster.cluster_name,
        server: &server,
        ca: &pem("CERTIFICATE", &ca),
        user: &client_name,
        credentials,
    };
    host.say(&contents.to_yaml()?);
    Ok(())
}

//! What is told at the end.

use super::init::Init;
use crate::{
    config::{ClusterConfiguration, ImageSource, split_host_port},
    error::{Context, Error, Result},
    host::Host,
    kubeconfig::Kubeconfig,
    pki::issue,
};

const WITHHELD: &str = "<value withheld>";

/// Pin of a certificate authority.
pub fn pin(public_key: &[u8]) -> String {
    use sha2::Digest;
    format!("sha256:{}", hex::encode(sha2::Sha256::digest(public_key)))
}

/// Pins of the authorities of a kubeconfig.
pub fn pins(host: &dyn Host, file: &Kubeconfig) -> Result<Vec<String>> {
    let authorities =
        file.authorities(host).ok_or_else(|| Error::new("the kubeconfig has no certificate authority"))?;
    issue::certificates(&authorities).iter().map(|c| Ok(pin(&issue::facts(c)?.public_key))).collect()
}

/// The command that joins a worker, or with a key a control plane.
pub fn join_command(host: &dyn Host, file: &Kubeconfig, token: &str, certificate_key: Option<&str>) -> Result<String> {
    let server = file.server().ok_or_else(|| Error::new("the kubeconfig has no server"))?;
    let authority = server.strip_prefix("https://").unwrap_or(server);
    let endpoint = match split_host_port(authority) {
        (_, Some(_)) => authority.to_owned(),
        (host, None) => crate::config::join_host_port(host, 443),
    };
    let mut text = format!("kubeadm join {endpoint} --token {token} \\\n\t");
    for pin in pins(host, file).context("cannot compute the pin of the certificate authority")? {
        text.push_str(&format!("--discovery-token-ca-cert-hash {pin} "));
    }
    if let Some(key) = certificate_key {
        text.push_str(&format!("\\\n\t--control-plane --certificate-key {key}"));
    }
    Ok(text)
}

/// The control plane variant without a key of its own: certificates are copied by hand.
fn plain_control_plane(worker: &str) -> String {
    format!("{worker}\\\n\t--control-plane ")
}

/// The words after the token's phase.
fn text(init: &Init, file: &Kubeconfig, token: &str) -> Result<String> {
    let host = &*init.host;
    let admin = init.kubeconfig.display();
    let worker = join_command(host, file, token, None)?;
    let mut text = format!(
        "
Your Kubernetes control-plane has initialized successfully!

To start using your cluster, you need to run the following as a regular user:

  mkdir -p $HOME/.kube
  sudo cp -i {admin} $HOME/.kube/config
  sudo chown $(id -u):$(id -g) $HOME/.kube/config

Alternatively, if you are the root user, you can run:

  export KUBECONFIG=/etc/kubernetes/admin.conf

"
    );
    if needs_network(&init.config.cluster) {
        text.push_str(
            "You should now deploy a pod network to the cluster.
Run \"kubectl apply -f [podnetwork].yaml\" with one of the options listed at:
  https://kubernetes.io/docs/concepts/cluster-administration/addons/

",
        );
    }
    if !init.config.cluster.control_plane_endpoint.is_empty() {
        text.push_str(&control_plane_text(init, file, token, &worker)?);
    }
    text.push_str(&format!(
        "Then you can join any number of worker nodes by running the following on each as root:\n\n{worker}\n"
    ));
    Ok(text)
}

fn control_plane_text(init: &Init, file: &Kubeconfig, token: &str, worker: &str) -> Result<String> {
    let key = init.config.init.certificate_key.as_str();
    if !init.upload_certs {
        return Ok(format!(
            "You can now join any number of control-plane nodes by copying certificate authorities
and service account keys on each node and then running the following as root:

  {}

",
            plain_control_plane(worker)
        ));
    }
    let shown = if init.hide_certificate_key { WITHHELD } else { key };
    Ok(format!(
        "You can now join any number of control-plane nodes running the following command on each as root:

  {}

Please note that the certificate-key gives access to cluster sensitive data, keep it secret!
As a safeguard, uploaded-certs will be deleted in two hours; If necessary, you can use
\"kubeadm init phase upload-certs --upload-certs\" to reload certs afterward.

",
        join_command(&*init.host, file, token, Some(shown))?
    ))
}

/// Whether users must choose a pod network themselves.
fn needs_network(cluster: &ClusterConfiguration) -> bool {
    cluster.image_source() == ImageSource::Registry
}

pub(super) async fn init(init: &mut Init) -> Result<()> {
    let file = Kubeconfig::load(&*init.host, &init.kubeconfig)?;
    for token in &init.config.init.bootstrap_tokens {
        let shown = if init.hide_token { WITHHELD } else { token.token.as_str() };
        init.host.say(&text(init, &file, shown)?);
    }
    Ok(())
}

//! Certificates and the key of ServiceAccount tokens.

use std::path::Path;

use time::OffsetDateTime;

use super::init::Init;
use crate::{
    config::{ApiEndpoint, ClusterConfiguration, split_host_port},
    encryption,
    error::{Context, Error, Result, fail},
    host::Host,
    pki::{
        Key, Lifetime, Names, Subject,
        files::{certificate_path, key_path, read_authority, read_certificate, read_key, write_key, write_pair},
        issue,
        table::{NamesOf, Role, Row},
    },
};

/// Certificates of a run begin a little before it, for clocks that are behind.
const BACKDATE: time::Duration = time::Duration::minutes(5);

/// What certificates are made from.
pub struct Inputs<'a> {
    /// This host.
    pub host: &'a dyn Host,
    /// The cluster.
    pub cluster: &'a ClusterConfiguration,
    /// Where the API server of this host listens.
    pub endpoint: &'a ApiEndpoint,
    /// Name of this node.
    pub node: &'a str,
    /// When this run began.
    pub started: OffsetDateTime,
}

/// When leaves end.
pub fn leaf_end(cluster: &ClusterConfiguration, started: OffsetDateTime) -> OffsetDateTime {
    started + cluster.certificate_validity_period.map_or(time::Duration::days(365).unsigned_abs(), |p| p.0)
}

impl Inputs<'_> {
    fn directory(&self) -> &Path {
        Path::new(&self.cluster.certificates_dir)
    }

    /// Names of a certificate.
    pub fn names(&self, of: NamesOf) -> Result<Names> {
        let mut names = Names::default();
        let advertised = || {
            self.endpoint
                .advertise_address
                .parse()
                .with_context(|| format!("error parsing address {}", self.endpoint.advertise_address))
        };
        let extra = match of {
            NamesOf::None => return Ok(names),
            NamesOf::ApiServer => {
                let domain = &self.cluster.networking.dns_domain;
                names.dns = vec![
                    self.node.to_owned(),
                    "kubernetes".into(),
                    "kubernetes.default".into(),
                    "kubernetes.default.svc".into(),
                    format!("kubernetes.default.svc.{domain}"),
                ];
                names.ips = vec![self.cluster.service_address(1)?, advertised()?];
                let (host, _) = split_host_port(&self.cluster.control_plane_endpoint);
                if !host.is_empty() {
                    names.add(host);
                }
                self.cluster.api_server.cert_sans.clone()
            }
            NamesOf::EtcdServer | NamesOf::EtcdPeer => {
                names.dns = vec![self.node.to_owned(), "localhost".into()];
                names.ips =
                    vec![advertised()?, std::net::Ipv4Addr::LOCALHOST.into(), std::net::Ipv6Addr::LOCALHOST.into()];
                let local = self.cluster.local_etcd();
                if of == NamesOf::EtcdServer { local.server_cert_sans } else { local.peer_cert_sans }
            }
        };
        extra.iter().for_each(|name| names.add(name));
        Ok(names.normalized())
    }

    /// Who a certificate speaks for.
    pub fn subject(&self, row: &Row) -> Subject {
        Subject { common_name: row.common_name.unwrap_or(self.node).to_owned(), organizations: Vec::new() }
    }

    /// Makes a certificate that is not there.
    pub fn ensure(&self, row: &Row) -> Result<()> {
        if row.is_of_etcd() && !self.cluster.has_local_etcd() {
            let base = row.file;
            let what = if row.role == Role::Authority { " authority" } else { "" };
            if self.cluster.etcd.external.is_some() {
                self.host.line(&format!("[certs] External etcd mode: Skipping {base} certificate{what} generation"));
            }
            return Ok(());
        }
        match row.role {
            Role::Authority => self.ensure_authority(row),
            Role::Leaf { authority, usage, names } => {
                let Some(authority) = Row::named(authority) else { return fail!("unknown authority {authority}") };
                self.ensure_leaf(row, authority, usage, names)
            }
        }
    }

    fn ensure_authority(&self, row: &Row) -> Result<()> {
        let certificate = certificate_path(self.directory(), row.file);
        if self.host.exists(&certificate) {
            let found = read_certificate(self.host, &certificate)
                .with_context(|| format!("failure loading {} certificate", row.file))?;
            let facts = issue::facts(&found)?;
            if !facts.is_authority {
                return fail!("certificate {:?} is not a CA", row.file);
            }
            self.check_period(row.file, facts.lifetime);
            if self.host.exists(&key_path(self.directory(), row.file)) {
                let key = read_key(self.host, &key_path(self.directory(), row.file))
                    .with_context(|| format!("failure loading {} certificate", row.file))?;
                if key.public_der() != facts.public_key {
                    return fail!("the private key of {} does not belong to its certificate", row.file);
                }
                self.host.line(&format!("[certs] Using existing {} certificate authority", row.file));
            } else {
                self.host.line(&format!("[certs] Using existing {} keyless certificate authority", row.file));
            }
            return Ok(());
        }
        self.host.line(&format!("[certs] Generating {:?} certificate and key", row.file));
        let key = Key::generate(self.cluster.algorithm())?;
        let name = row.common_name.unwrap_or(row.name);
        let end = self.started
            + self.cluster.ca_certificate_validity_period.map_or(time::Duration::days(3650).unsigned_abs(), |p| p.0);
        let lifetime = Lifetime { not_before: self.started - BACKDATE, not_after: end };
        let pair = issue::authority(self.host, key, name, lifetime)?;
        write_pair(self.host, self.directory(), row.file, &pair)
    }

    fn ensure_leaf(&self, row: &Row, authority: &Row, usage: issue::Usage, names: NamesOf) -> Result<()> {
        let certificate = certificate_path(self.directory(), row.file);
        if self.host.exists(&certificate) && self.host.exists(&key_path(self.directory(), row.file)) {
            return self.check_leaf(row, authority, names);
        }
        let signer = read_authority(self.host, self.directory(), authority.file)
            .with_context(|| format!("couldn't load CA certificate {}", authority.file))?;
        let names = self.names(names)?;
        self.host.line(&format!("[certs] Generating {:?} certificate and key", row.file));
        let key = Key::generate(self.cluster.algorithm())?;
        let lifetime =
            Lifetime { not_before: self.started - BACKDATE, not_after: leaf_end(self.cluster, self.started) };
        let pair = signer.sign(self.host, key, &self.subject(row), usage, &names, lifetime)?;
        write_pair(self.host, self.directory(), row.file, &pair)?;
        if usage != issue::Usage::Client {
            let ips: Vec<String> = names.ips.iter().map(ToString::to_string).collect();
            self.host.line(&format!(
                "[certs] {} serving cert is signed for DNS names [{}] and IPs [{}]",
                row.file,
                names.dns.join(" "),
                ips.join(" ")
            ));
        }
        Ok(())
    }

    /// A leaf that is there must fit.
    fn check_leaf(&self, row: &Row, authority: &Row, names: NamesOf) -> Result<()> {
        let certificate = read_certificate(self.host, &certificate_path(self.directory(), row.file))
            .with_context(|| format!("failure loading {} certificate", row.file))?;
        let key = read_key(self.host, &key_path(self.directory(), row.file))?;
        let facts = issue::facts(&certificate)?;
        if key.public_der() != facts.public_key {
            return fail!("the private key of {} does not belong to its certificate", row.file);
        }
        let signer = read_certificate(self.host, &certificate_path(self.directory(), authority.file))?;
        issue::is_signed_by(&certificate, &signer).map_err(|cause| {
            Error::new(format!(
                "[certs] certificate {} not signed by CA certificate {}: {cause}",
                row.file, authority.file
            ))
        })?;
        self.check_period(row.file, facts.lifetime);
        let wanted = self.names(names)?;
        let missing = wanted
            .dns
            .iter()
            .filter(|n| !facts.names.dns.contains(n))
            .cloned()
            .chain(wanted.ips.iter().filter(|ip| !facts.names.ips.contains(ip)).map(ToString::to_string));
        if let Some(name) = missing.into_iter().next() {
            return fail!("certificate {} is invalid: x509: certificate is not valid for {name}", row.file);
        }
        self.host.line(&format!("[certs] Using existing {} certificate and key on disk", row.file));
        Ok(())
    }

    fn check_period(&self, name: &str, lifetime: Lifetime) {
        let now = self.host.now();
        let problem = if now < lifetime.not_before {
            format!("certificate is not valid before: {}", machinery::time::format(lifetime.not_before))
        } else if now > lifetime.not_after {
            format!("the certificate has expired: NotAfter: {}", machinery::time::format(lifetime.not_after))
        } else {
            return;
        };
        self.host.warn(&format!("WARNING: could not validate bounds for certificate {name}: {problem}\n"));
    }

    /// Makes the key of ServiceAccount tokens.
    pub fn ensure_service_account(&self) -> Result<()> {
        let (private, public) = (key_path(self.directory(), "sa"), self.directory().join("sa.pub"));
        let key = if self.host.exists(&private) {
            let key = read_key(self.host, &private)?;
            if self.host.exists(&public) {
                self.host.line("[certs] Using the existing \"sa\" key");
                return Ok(());
            }
            key
        } else {
            self.host.line("[certs] Generating \"sa\" key and public key");
            let key = Key::generate(self.cluster.algorithm())?;
            write_key(self.host, &private, &key)?;
            key
        };
        self.host
            .put(&public, 0o644, key.public_pem().as_bytes())
            .with_context(|| format!("unable to write public key to file {}", public.display()))
    }
}

/// Whether the cluster's authority is kept elsewhere.
pub fn is_external_ca(host: &dyn Host, directory: &Path, file: &str) -> bool {
    host.exists(&certificate_path(directory, file)) && !host.exists(&key_path(directory, file))
}

/// With an authority that is kept elsewhere, everything it signs must be there.
pub fn check_external_ca(inputs: &Inputs<'_>) -> Result<()> {
    for name in ["apiserver", "apiserver-kubelet-client"] {
        let (Some(row), Some(authority)) = (Row::named(name), Row::named("ca")) else { continue };
        let directory = inputs.directory();
        for path in [certificate_path(directory, row.file), key_path(directory, row.file)] {
            if !inputs.host.exists(&path) {
                return fail!("the {} file does not exists or it is not valid", path.display());
            }
        }
        let names = if name == "apiserver" { NamesOf::ApiServer } else { NamesOf::None };
        inputs.check_leaf(row, authority, names)?;
    }
    Ok(())
}

fn inputs(init: &Init) -> Inputs<'_> {
    Inputs {
        host: &*init.host,
        cluster: &init.config.cluster,
        endpoint: &init.config.init.local_api_endpoint,
        node: init.node(),
        started: init.started,
    }
}

pub(super) async fn announce(init: &mut Init) -> Result<()> {
    init.host.line(&format!("[certs] Using certificateDir folder {:?}", init.config.cluster.certificates_dir));
    // Only the components of the control plane, which run as root, look in here.
    init.host.create_directory(&init.pki(), 0o700).context("cannot make the directory of certificates")?;
    if is_external_ca(&*init.host, &init.pki(), "ca") {
        check_external_ca(&inputs(init))?;
    }
    Ok(())
}

pub(super) async fn one(init: &mut Init, name: &'static str) -> Result<()> {
    let Some(row) = Row::named(name) else { return fail!("unknown certificate {name}") };
    // Keys take long; the other tasks of the process go on.
    tokio::task::block_in_place(|| inputs(init).ensure(row))
}

pub(super) async fn service_account(init: &mut Init) -> Result<()> {
    tokio::task::block_in_place(|| inputs(init).ensure_service_account())?;
    encryption::ensure(&*init.host, &init.pki())
}

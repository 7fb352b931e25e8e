//! The certificate that this server shows to who asks for it by the name of its own client. It is never renewed: when it
//! has expired, liveness says so, and whoever watches over the process starts it anew.

use std::{sync::Arc, time::Duration};

use rcgen::{CertificateParams, DnType, KeyPair};
use runtime::{
    clock::Clock,
    health::{HealthChecks, Scope},
    serving::SecureServing,
    tls::ServingCertificate,
};
use rustls::{
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};

use crate::StartError;

const NAME: &str = "apiserver-loopback-client";
/// Life of the certificate.
const LIFE: Duration = Duration::from_secs(1096 * 24 * 3600);

/// The certificate of its own for the one name, others for others.
#[derive(Debug)]
struct Certificates {
    own: ServingCertificate,
    others: Arc<dyn ResolvesServerCert>,
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        match hello.server_name() {
            Some(NAME) => self.own.resolve(hello),
            _ => self.others.resolve(hello),
        }
    }
}

fn certificate() -> Result<ServingCertificate, StartError> {
    let wrong = |error: rcgen::Error| StartError::Flags(format!("loopback certificate: {error}"));
    let mut params = CertificateParams::new(vec![NAME.to_owned()]).map_err(wrong)?;
    params.distinguished_name.push(DnType::CommonName, NAME);
    let now = time::OffsetDateTime::now_utc();
    params.not_before = now - Duration::from_secs(3600);
    params.not_after = now + LIFE;
    let key = KeyPair::generate().map_err(wrong)?;
    let certificate = params.self_signed(&key).map_err(wrong)?;
    Ok(ServingCertificate::new(certificate.pem().as_bytes(), key.serialize_pem().as_bytes())?)
}

/// Makes the certificate, has it served, and adds the check that fails when it has expired.
pub(crate) fn add(serving: &mut SecureServing, health: &HealthChecks, clock: Arc<dyn Clock>) -> Result<(), StartError> {
    let mut config = rustls::ServerConfig::clone(&serving.tls);
    config.cert_resolver = Arc::new(Certificates { own: certificate()?, others: Arc::clone(&config.cert_resolver) });
    serving.tls = Arc::new(config);
    add_check(health, clock);
    Ok(())
}

fn add_check(health: &HealthChecks, clock: Arc<dyn Clock>) {
    let expires = clock.now() + LIFE;
    health.add_to(Scope::NOT_READY, "loopback-serving-certificate", move || match clock.now() > expires {
        true => Err("loopback serving certificate is expired".into()),
        false => Ok(()),
    });
}

#[cfg(test)]
mod tests {
    use runtime::clock::FakeClock;
    use tower::ServiceExt;

    use super::*;

    #[tokio::test]
    async fn liveness_ends_with_the_certificate() {
        assert!(certificate().is_ok());
        let (health, clock) = (HealthChecks::new(), FakeClock::new(std::time::SystemTime::now()));
        add_check(&health, clock.clone());
        for (passed, path, status) in [
            (Duration::ZERO, "/livez", 200),
            (LIFE + Duration::from_secs(1), "/livez/loopback-serving-certificate", 500),
            (Duration::ZERO, "/livez", 500),
            (Duration::ZERO, "/readyz", 200),
        ] {
            clock.advance(passed);
            let request = http::Request::get(path).body(axum::body::Body::empty()).unwrap();
            assert_eq!(health.router().oneshot(request).await.unwrap().status().as_u16(), status, "{path}");
        }
    }
}

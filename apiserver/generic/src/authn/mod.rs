//! Authentication: the frame, and the authenticators behind it.

pub mod bearer;
pub mod bootstrap;
pub mod front_proxy;
pub mod jwt;
mod keys;
pub mod service_account;
pub mod token_file;
pub mod webhook;
pub mod x509;

use std::{net::SocketAddr, sync::Arc};

use async_trait::async_trait;
use http::request::Parts;
use rustls::pki_types::CertificateDer;

use crate::user::User;

/// Key of the extra attribute that names the credential.
pub const CREDENTIAL_ID: &str = "authentication.kubernetes.io/credential-id";

/// Why credentials were refused. The text goes to the log, never to the client.
#[derive(Debug, thiserror::Error)]
pub enum AuthnError {
    /// The credentials are wrong, expired or revoked.
    #[error("invalid credentials: {0}")]
    Invalid(String),
    /// The authenticator cannot decide now.
    #[error("authenticator unavailable: {0}")]
    Unavailable(String),
}

/// What the connection tells about the peer.
#[derive(Clone, Debug, Default)]
pub struct Peer {
    /// Address of the client.
    pub address: Option<SocketAddr>,
    /// Certificate chain the client presented, leaf first; verified by the authenticators, not by the handshake.
    pub certificates: Arc<[CertificateDer<'static>]>,
}

/// Finds out who makes a request. `Ok(None)` = no credentials of this kind.
#[async_trait]
pub trait Authenticator: Send + Sync {
    /// Looks at headers and peer. May remove credentials it consumed from the headers.
    async fn authenticate(&self, request: &mut Parts, peer: &Peer) -> Result<Option<User>, AuthnError>;
}

/// Resolves one bearer token.
#[async_trait]
pub trait TokenAuthenticator: Send + Sync {
    /// `audiences`: what the token must be for; empty means the API itself. Also returns the audiences that matched.
    async fn authenticate_token(&self, token: &str, audiences: &[String]) -> Result<Option<TokenIdentity>, AuthnError>;
}

/// A user with the audiences its token was accepted for.
#[derive(Clone, Debug, Default)]
pub struct TokenIdentity {
    /// The user.
    pub user: User,
    /// Audiences that matched; empty when the authenticator knows none.
    pub audiences: Vec<String>,
}

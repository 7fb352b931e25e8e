//! `create secret`.

use base64::{Engine, engine::general_purpose::STANDARD};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use serde_json::{Map, Value, json};

use super::{Generated, generator_flags, source};
use crate::{
    command::Command, content_hash, context::Context, error::CommandError, flags::Flag, kubeconfig::files::go_io_text,
};

const FAILURE: &str = "failed to create secret ";

pub(super) fn command() -> Command {
    let hashed = || Flag::switch("append-hash", "Append a hash of the content to the name.");
    Command::new("secret", "Create a secret using a specified subcommand")
        .usage("(docker-registry | generic | tls)")
        .commands(vec![
            Command::new("docker-registry", "Create a secret for use with a Docker registry")
                .usage("NAME --docker-username=user --docker-password=password --docker-email=email [--docker-server=string] [--from-file=[key=]source] [--dry-run=server|client|none]")
                .examples(&["kubectl create secret docker-registry my-secret --docker-server=HOST --docker-username=USER --docker-password=PASSWORD"])
                .flags(generator_flags())
                .flags([
                    hashed(),
                    Flag::text("docker-email", "", "Address of the registry's user."),
                    Flag::text("docker-password", "", "Password of the registry's user."),
                    Flag::text("docker-server", "https://index.docker.io/v1/", "Address of the registry."),
                    Flag::text("docker-username", "", "Name of the registry's user."),
                    Flag::list("from-file", "A .dockercfg or config.json, perhaps as key=file."),
                ])
                .runs(|context| Box::pin(docker(context))),
            Command::new("generic", "Create a secret from a local file, directory, or literal value")
                .usage("NAME [--type=string] [--from-file=[key=]source] [--from-literal=key1=value1] [--dry-run=server|client|none]")
                .examples(&["kubectl create secret generic my-secret --from-literal=key1=supersecret"])
                .flags(generator_flags())
                .flags(source::flags())
                .flags([Flag::text("type", "", "Type of the secret.")])
                .runs(|context| Box::pin(generic(context))),
            Command::new("tls", "Create a TLS secret")
                .usage("NAME --cert=path/to/cert/file --key=path/to/key/file [--dry-run=server|client|none]")
                .examples(&["kubectl create secret tls tls-secret --cert=path/to/tls.crt --key=path/to/tls.key"])
                .flags(generator_flags())
                .flags([
                    hashed(),
                    Flag::text("cert", "", "File of the certificate."),
                    Flag::text("key", "", "File of its key."),
                ])
                .runs(|context| Box::pin(tls(context))),
        ])
}

/// Makes the secret of pairs.
async fn finish(context: &Context, name: &str, kind: &str, pairs: Vec<(String, Vec<u8>)>) -> Result<(), CommandError> {
    let mut data: Map<String, Value> = Map::new();
    for (key, value) in pairs {
        if let Some(problem) = machinery::names::config_key(&key).into_iter().next() {
            return Err(CommandError::plain(format!("{key:?} is not valid key name for a Secret {problem}")));
        }
        if data.contains_key(&key) {
            return Err(CommandError::plain(format!("cannot add key {key}, another key by that name already exists")));
        }
        data.insert(key, json!(STANDARD.encode(value)));
    }
    let mut object = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}});
    if context.flags.bool("append-hash") {
        let content = json!({"kind": "Secret", "type": kind, "name": name, "data": data});
        object["metadata"]["name"] = json!(format!("{name}-{}", content_hash::of(&content)));
    }
    if !data.is_empty() {
        object["data"] = json!(data);
    }
    if !kind.is_empty() {
        object["type"] = json!(kind);
    }
    Generated::new(object, FAILURE).finish(context).await
}

async fn generic(context: &Context) -> Result<(), CommandError> {
    let name = context.one_name()?;
    finish(context, name, context.flags.text("type"), source::pairs(context)?).await
}

async fn tls(context: &Context) -> Result<(), CommandError> {
    let name = context.one_name()?;
    let (certificate, key) = (context.flags.text("cert"), context.flags.text("key"));
    if certificate.is_empty() || key.is_empty() {
        return Err(CommandError::plain("key and cert must be specified"));
    }
    let read = |path: &str| {
        std::fs::read(path)
            .map_err(|e| CommandError::plain(format!("Cannot read file {path}, open {path}: {}", go_io_text(&e))))
    };
    let (certificate, key) = (read(certificate)?, read(key)?);
    check_pair(&certificate, &key)?;
    let pairs = vec![("tls.crt".to_owned(), certificate), ("tls.key".to_owned(), key)];
    finish(context, name, "kubernetes.io/tls", pairs).await
}

/// The key has to be the certificate's.
fn check_pair(certificate: &[u8], key: &[u8]) -> Result<(), CommandError> {
    let fail = |text: &str| CommandError::plain(format!("tls: {text}"));
    let chain: Vec<CertificateDer<'static>> =
        CertificateDer::pem_slice_iter(certificate).filter_map(Result::ok).collect();
    if chain.is_empty() {
        return Err(fail("failed to find any PEM data in certificate input"));
    }
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| fail("failed to find any PEM data in key input"))?;
    let signer =
        rustls::crypto::ring::sign::any_supported_type(&key).map_err(|_| fail("failed to parse private key"))?;
    match rustls::sign::CertifiedKey::new(chain, signer).keys_match() {
        Ok(()) | Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::Unknown)) => Ok(()),
        Err(_) => Err(fail("private key does not match public key")),
    }
}

async fn docker(context: &Context) -> Result<(), CommandError> {
    let name = context.one_name()?;
    let flags = &context.flags;
    let pairs = if flags.list("from-file").is_empty() {
        let (user, password, server) =
            (flags.text("docker-username"), flags.text("docker-password"), flags.text("docker-server"));
        if user.is_empty() || password.is_empty() || server.is_empty() {
            return Err(CommandError::plain(
                "either --from-file or the combination of --docker-username, --docker-password and --docker-server is \
                 required",
            ));
        }
        let auth = STANDARD.encode(format!("{user}:{password}"));
        let email = match flags.text("docker-email") {
            "" => String::new(),
            email => format!(",\"email\":{}", json!(email)),
        };
        let text = format!(
            "{{\"auths\":{{{}:{{\"username\":{},\"password\":{}{email},\"auth\":{}}}}}}}",
            json!(server),
            json!(user),
            json!(password),
            json!(auth)
        );
        vec![(".dockerconfigjson".to_owned(), crate::print::json::escape(&text).into_bytes())]
    } else {
        let mut pairs = Vec::new();
        for file in flags.list("from-file") {
            source::of_file(file, &mut pairs)?;
        }
        if let [(key, _)] = pairs.as_mut_slice()
            && !flags.list("from-file").iter().any(|f| f.contains('='))
        {
            *key = ".dockerconfigjson".to_owned();
        }
        pairs
    };
    finish(context, name, "kubernetes.io/dockerconfigjson", pairs).await
}

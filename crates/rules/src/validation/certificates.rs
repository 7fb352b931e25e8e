//! CertificateSigningRequest.

use std::collections::HashSet;

use base64::{Engine, engine::general_purpose::STANDARD};
use machinery::{
    field::{ErrorList, Path},
    names,
};
use serde_json::{Value, json};
use x509_parser::{
    certification_request::X509CertificationRequest,
    error::X509Error,
    pem::Pem,
    prelude::{FromDer, X509Certificate},
    public_key::PublicKey,
};

use super::{
    checks::IMMUTABLE,
    read::{list, number, present, same, text},
    spec_path,
};

const USAGES: [&str; 23] = [
    "any",
    "cert sign",
    "client auth",
    "code signing",
    "content commitment",
    "crl sign",
    "data encipherment",
    "decipher only",
    "digital signature",
    "email protection",
    "encipher only",
    "ipsec end system",
    "ipsec tunnel",
    "ipsec user",
    "key agreement",
    "key encipherment",
    "microsoft sgc",
    "netscape sgc",
    "ocsp signing",
    "s/mime",
    "server auth",
    "signing",
    "timestamping",
];
const MIN_SECONDS: i64 = 600;
const FORM: &str = "must be a fully qualified domain and path of the form 'example.com/signer-name'";
/// Conditions that only count when they are true, and that stay.
const DECISIONS: [&str; 3] = ["Approved", "Denied", "Failed"];
const MAX_SEGMENT: usize = 63;
const MAX_SIGNER: usize = 571;
/// RSA keys shorter than this are not verified.
const SHORT_RSA: usize = 2048;

/// Checks a CertificateSigningRequest.
pub(super) fn request(object: &Value, errors: &mut ErrorList) {
    let none = Value::Null;
    let spec = object.get("spec").unwrap_or(&none);
    let path = spec_path();
    if let Err(why) = check_request(text(spec, "request")) {
        errors.invalid(&path.child("request"), &json!(text(spec, "request")), &why);
    }
    let usages = list(spec, "usages");
    if usages.is_empty() {
        errors.required(&path.child("usages"), "");
    }
    let mut seen = HashSet::new();
    for (at, usage) in usages.iter().filter_map(Value::as_str).enumerate() {
        let path = path.child("usages").index(at);
        if !USAGES.contains(&usage) {
            errors.not_supported(&path, &json!(usage), &USAGES);
        }
        if !seen.insert(usage) {
            errors.duplicate(&path, &json!(usage));
        }
    }
    let signer = text(spec, "signerName");
    if signer == "kubernetes.io/legacy-unknown" {
        let text = "the legacy signerName is not allowed via this API version";
        errors.invalid(&path.child("signerName"), &json!(signer), text);
    } else {
        signer_name(signer, &path.child("signerName"), errors);
    }
    if let Some(seconds) = number(spec, "expirationSeconds").filter(|seconds| *seconds < MIN_SECONDS) {
        let text = "may not specify a duration less than 600 seconds (10 minutes)";
        errors.invalid(&path.child("expirationSeconds"), &json!(seconds), text);
    }
    conditions(object, errors);
}

/// What is wrong with the request itself: a PEM block, its DER, its signature.
fn check_request(encoded: &str) -> Result<(), String> {
    let bytes = STANDARD.decode(encoded).map_err(|_| "illegal base64 data".to_owned())?;
    let pem = Pem::iter_from_buffer(&bytes).next().and_then(Result::ok);
    let pem = pem.filter(|pem| pem.label == "CERTIFICATE REQUEST");
    let Some(pem) = pem else {
        return Err("PEM block type must be CERTIFICATE REQUEST".to_owned());
    };
    let (_, request) = X509CertificationRequest::from_der(&pem.contents).map_err(|error| error.to_string())?;
    let short = match request.certification_request_info.subject_pki.parsed() {
        Ok(PublicKey::RSA(key)) => key.key_size() < SHORT_RSA,
        _ => false,
    };
    match request.verify_signature() {
        Err(X509Error::SignatureVerificationError) if !short => Err("invalid signature".to_owned()),
        _ => Ok(()),
    }
}

fn signer_name(name: &str, path: &Path, errors: &mut ErrorList) {
    let value = json!(name);
    if name.is_empty() {
        errors.required(path, "");
        return;
    }
    let Some((domain, rest)) = name.split_once('/').filter(|(_, rest)| !rest.contains('/')) else {
        errors.invalid(path, &value, FORM);
        return;
    };
    errors.invalid_all(path, &json!(domain), names::dns1123_subdomain(domain));
    for label in rest.split('.') {
        let problems = names::dns1123_subdomain(label);
        if !problems.is_empty() {
            errors.invalid_all(path, &json!(rest), problems);
            break;
        }
        if label.len() > MAX_SEGMENT {
            errors.too_long(path, MAX_SEGMENT);
        }
    }
    if !domain.contains('.') {
        errors.invalid(path, &value, "should be a domain with at least two segments separated by dots");
    }
    if name.len() > MAX_SIGNER {
        errors.too_long(path, MAX_SIGNER);
    }
}

fn conditions_of(object: &Value) -> &[Value] {
    object.get("status").map_or(&[], |status| list(status, "conditions"))
}

/// Checks the conditions of a request.
pub(super) fn conditions(object: &Value, errors: &mut ErrorList) {
    let path = Path::new("status").child("conditions");
    let conditions = conditions_of(object);
    let mut seen = HashSet::new();
    for (at, condition) in conditions.iter().enumerate() {
        let path = path.index(at);
        let (kind, status) = (text(condition, "type"), text(condition, "status"));
        if kind.is_empty() {
            errors.required(&path.child("type"), "");
        }
        let statuses = ["False", "True", "Unknown"];
        match status {
            "" => errors.required(&path.child("status"), ""),
            "True" => {}
            _ if DECISIONS.contains(&kind) => {
                errors.not_supported(&path.child("status"), &json!(status), &["True"]);
            }
            _ if !statuses.contains(&status) => {
                errors.not_supported(&path.child("status"), &json!(status), &statuses);
            }
            _ => {}
        }
        if !seen.insert(kind) {
            errors.duplicate(&path.child("type"), &json!(kind));
        }
    }
    if let Some(at) = conditions.iter().position(|c| text(c, "type") == "Denied").filter(|_| seen.contains("Approved"))
    {
        let text = "Approved and Denied conditions are mutually exclusive";
        errors.invalid(&path.index(at).child("type"), &json!("Denied"), text);
    }
}

/// Checks what may change of a stored request through one of its subresources.
pub(super) fn update(new: &Value, old: &Value, subresource: &str, errors: &mut ErrorList) {
    let path = Path::new("status").child("conditions");
    let has = |object: &Value, kind: &str| conditions_of(object).iter().any(|c| text(c, "type") == kind);
    for kind in ["Approved", "Denied", "Failed"] {
        if has(old, kind) && !has(new, kind) {
            errors.forbidden(&path, &format!("updates may not remove a condition of type \"{kind}\""));
        }
        let allowed = if kind == "Failed" { "status" } else { "approval" };
        if subresource != allowed && has(new, kind) && !has(old, kind) {
            errors.forbidden(&path, &format!("updates may not add a condition of type \"{kind}\""));
        }
    }
    certificate(new, old, subresource, errors);
    if !same("spec", new.get("spec"), old.get("spec")) {
        errors.invalid(&spec_path(), new.get("spec").unwrap_or(&Value::Null), IMMUTABLE);
    }
}

fn certificate(new: &Value, old: &Value, subresource: &str, errors: &mut ErrorList) {
    fn of(object: &Value) -> Option<&str> {
        object.get("status").and_then(|status| present(status, "certificate")).and_then(Value::as_str)
    }
    let (sent, stored) = (of(new).unwrap_or(""), of(old).unwrap_or(""));
    if sent == stored {
        return;
    }
    let path = Path::new("status").child("certificate");
    if subresource != "status" {
        errors.forbidden(&path, "updates may not set certificate content");
    } else if !stored.is_empty() {
        errors.forbidden(&path, "updates may not modify existing certificate content");
    } else if let Err(why) = check_certificates(sent) {
        errors.invalid(&path, &json!("<certificate data>"), &why);
    }
}

/// What is wrong with an issued certificate: nothing but PEM certificates, at least one.
fn check_certificates(encoded: &str) -> Result<(), String> {
    let bytes = STANDARD.decode(encoded).map_err(|_| "illegal base64 data".to_owned())?;
    let mut found = false;
    for pem in Pem::iter_from_buffer(&bytes) {
        let Ok(pem) = pem else { break };
        if pem.label != "CERTIFICATE" {
            return Err(format!("only CERTIFICATE PEM blocks are allowed, found {:?}", pem.label));
        }
        X509Certificate::from_der(&pem.contents).map_err(|error| error.to_string())?;
        found = true;
    }
    if found { Ok(()) } else { Err("must contain at least one CERTIFICATE PEM block".to_owned()) }
}

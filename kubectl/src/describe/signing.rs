//! CertificateSigningRequests.

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::Value;
use x509_parser::{
    certification_request::X509CertificationRequest,
    extensions::{GeneralName, ParsedExtension},
    oid_registry::{
        OID_X509_COMMON_NAME, OID_X509_COUNTRY_NAME, OID_X509_LOCALITY_NAME, OID_X509_ORGANIZATION_NAME,
        OID_X509_ORGANIZATIONAL_UNIT, OID_X509_POSTAL_CODE, OID_X509_SERIALNUMBER, OID_X509_STATE_OR_PROVINCE_NAME,
        OID_X509_STREET_ADDRESS, Oid,
    },
    pem::parse_x509_pem,
    prelude::FromDer,
    x509::X509Name,
};

use super::{
    Facts, events,
    page::{Page, put},
    read::{list, number, text},
};
use crate::error::CommandError;

/// A CertificateSigningRequest.
pub(crate) fn request(page: &mut Page, object: &Value, facts: &Facts) -> Result<(), CommandError> {
    let spec = &object["spec"];
    let bytes = STANDARD.decode(text(&spec["request"])).unwrap_or_default();
    let failure = |what: &str| CommandError::plain(format!("Error parsing CSR: {what}"));
    let (_, pem) = parse_x509_pem(&bytes).map_err(|_| failure("PEM block type must be CERTIFICATE REQUEST"))?;
    if pem.label != "CERTIFICATE REQUEST" {
        return Err(failure("PEM block type must be CERTIFICATE REQUEST"));
    }
    let (_, parsed) = X509CertificationRequest::from_der(&pem.contents).map_err(|e| failure(&e.to_string()))?;
    put!(page, 0, "Name:\t{}", text(&object["metadata"]["name"]));
    events::metadata(page, object);
    let created = page.clock.time(text(&object["metadata"]["creationTimestamp"]));
    put!(page, 0, "CreationTimestamp:\t{created}");
    put!(page, 0, "Requesting User:\t{}", text(&spec["username"]));
    if !text(&spec["signerName"]).is_empty() {
        put!(page, 0, "Signer:\t{}", text(&spec["signerName"]));
    }
    if !spec["expirationSeconds"].is_null() {
        put!(page, 0, "Requested Duration:\t{}", machinery::duration::human(number(&spec["expirationSeconds"])));
    }
    put!(page, 0, "Status:\t{}", status(object));
    subject(page, &parsed.certification_request_info.subject);
    alternative_names(page, &parsed);
    events::events(page, facts.events());
    Ok(())
}

fn status(object: &Value) -> String {
    let has = |kind: &str| list(&object["status"]["conditions"]).iter().any(|c| text(&c["type"]) == kind);
    let mut status = match (has("Denied"), has("Approved")) {
        (true, _) => "Denied".to_owned(),
        (false, true) => "Approved".to_owned(),
        _ => "Pending".to_owned(),
    };
    if has("Failed") {
        status.push_str(",Failed");
    }
    if !text(&object["status"]["certificate"]).is_empty() {
        status.push_str(",Issued");
    }
    status
}

fn subject(page: &mut Page, name: &X509Name<'_>) {
    let values = |oid: &Oid<'_>| -> Vec<String> {
        let attributes = name.iter_attributes().filter(|attribute| attribute.attr_type() == oid);
        attributes.filter_map(|attribute| attribute.as_str().ok().map(str::to_owned)).collect()
    };
    put!(page, 0, "Subject:");
    put!(page, 1, "Common Name:\t{}", values(&OID_X509_COMMON_NAME).last().map_or("", String::as_str));
    put!(page, 1, "Serial Number:\t{}", values(&OID_X509_SERIALNUMBER).last().map_or("", String::as_str));
    let lists = [
        ("Organization", OID_X509_ORGANIZATION_NAME),
        ("Organizational Unit", OID_X509_ORGANIZATIONAL_UNIT),
        ("Country", OID_X509_COUNTRY_NAME),
        ("Locality", OID_X509_LOCALITY_NAME),
        ("Province", OID_X509_STATE_OR_PROVINCE_NAME),
        ("StreetAddress", OID_X509_STREET_ADDRESS),
        ("PostalCode", OID_X509_POSTAL_CODE),
    ];
    for (title, oid) in lists {
        rows(page, 1, title, &values(&oid));
    }
}

/// The rows of a list, aligned below the first; nothing when there are none.
fn rows(page: &mut Page, level: usize, title: &str, rows: &[String]) {
    if !rows.is_empty() {
        events::lines(page, level, title, rows);
    }
}

fn alternative_names(page: &mut Page, request: &X509CertificationRequest<'_>) {
    let (mut dns, mut mail, mut uris, mut addresses) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for extension in request.requested_extensions().into_iter().flatten() {
        let ParsedExtension::SubjectAlternativeName(names) = extension else { continue };
        for name in &names.general_names {
            match name {
                GeneralName::DNSName(name) => dns.push((*name).to_owned()),
                GeneralName::RFC822Name(name) => mail.push((*name).to_owned()),
                GeneralName::URI(uri) => uris.push((*uri).to_owned()),
                GeneralName::IPAddress(bytes) => addresses.extend(address(bytes)),
                _ => {}
            }
        }
    }
    let lists = [("DNS Names", dns), ("Email Addresses", mail), ("URIs", uris), ("IP Addresses", addresses)];
    if lists.iter().all(|(_, list)| list.is_empty()) {
        return;
    }
    put!(page, 0, "Subject Alternative Names:");
    for (title, list) in lists {
        if let Some((first, rest)) = list.split_first() {
            put!(page, 0, "\t{title}:\t{first}");
            rest.iter().for_each(|row| put!(page, 0, "\t\t{row}"));
        }
    }
}

fn address(bytes: &[u8]) -> Option<String> {
    let four = <[u8; 4]>::try_from(bytes).map(|b| std::net::Ipv4Addr::from(b).to_string());
    let sixteen = <[u8; 16]>::try_from(bytes).map(|b| std::net::Ipv6Addr::from(b).to_string());
    four.or(sixteen).ok()
}

//! Detached signatures of a text with a bootstrap token (RFC 7515, appendix F; HMAC-SHA256).

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use ring::hmac;
use serde_json::json;

/// `header..signature`: the content is known to whoever checks it.
pub(super) fn detached(content: &str, id: &str, secret: &str) -> String {
    let header = URL_SAFE_NO_PAD.encode(json!({"alg": "HS256", "kid": id}).to_string());
    let payload = URL_SAFE_NO_PAD.encode(content);
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    let signature = hmac::sign(&key, format!("{header}.{payload}").as_bytes());
    format!("{header}..{}", URL_SAFE_NO_PAD.encode(signature.as_ref()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signatures_name_their_token_and_depend_on_everything() {
        let signed = detached("content", "abcdef", "0123456789abcdef");
        let (header, rest) = signed.split_once("..").unwrap();
        assert_eq!(URL_SAFE_NO_PAD.decode(header).unwrap(), br#"{"alg":"HS256","kid":"abcdef"}"#);
        assert_eq!(URL_SAFE_NO_PAD.decode(rest).unwrap().len(), 32);
        assert_eq!(signed, detached("content", "abcdef", "0123456789abcdef"));
        assert_ne!(signed, detached("content ", "abcdef", "0123456789abcdef"));
        assert_ne!(signed, detached("content", "abcdef", "1123456789abcdef"));
    }
}

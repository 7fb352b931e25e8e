use std::time::Duration;

use axum::body::Body;
use http::{Request, Response};
use jsonwebtoken::{EncodingKey, Header};
use parking_lot::Mutex;
use runtime::{clock::RealClock, serving, tls};
use serde_json::json;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::{config::KIND, *};
use crate::authn::service_account::VerifyingKey;

/// An issuer that serves its configuration and its keys.
struct Provider {
    url: String,
    authority: String,
    jwks: Arc<Mutex<Value>>,
    _stop: tokio_util::sync::DropGuard,
}

struct Pair {
    public: Value,
    private: EncodingKey,
    id: String,
}

fn pair(id: &str) -> Pair {
    let pair = rcgen::KeyPair::generate().expect("a key");
    let key = VerifyingKey::from_pem(pair.serialize_pem().as_bytes()).expect("a public key").remove(0);
    let mut public = key.jwk().clone();
    public["kid"] = json!(id);
    Pair { public, private: EncodingKey::from_ec_der(pair.serialized_der()), id: id.to_owned() }
}

impl Provider {
    async fn start(keys: &[&Pair]) -> Self {
        let (certificate, key) = tls::self_signed("localhost", &["localhost".into()], &[]).expect("a certificate");
        let served = tls::ServingCertificate::new(certificate.as_bytes(), key.as_bytes()).expect("a pair");
        let config = tls::server_config(Arc::new(served)).expect("TLS");
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
        let url = format!("https://localhost:{}", listener.local_addr().expect("an address").port());
        let jwks = Arc::new(Mutex::new(json!({"keys": keys.iter().map(|key| &key.public).collect::<Vec<_>>()})));
        let (shown, about) = (Arc::clone(&jwks), json!({"issuer": url, "jwks_uri": format!("{url}/keys")}));
        let handler = move |request: Request<Body>| {
            let answer = match request.uri().path() {
                "/keys" => shown.lock().to_string(),
                _ => about.to_string(),
            };
            async move { Response::new(Body::from(answer)) }
        };
        let stop = CancellationToken::new();
        tokio::spawn(serving::serve(listener, Some(config), handler, stop.clone(), Duration::ZERO));
        Self { url, authority: certificate, jwks, _stop: stop.drop_guard() }
    }

    fn config(&self, more: Value) -> AuthenticationConfiguration {
        let mut jwt = json!({
            "issuer": {"url": self.url, "audiences": ["cluster"], "certificateAuthority": self.authority},
            "claimMappings": {
                "username": {"claim": "sub", "prefix": "corp:"},
                "groups": {"claim": "teams", "prefix": "team:"},
            },
        });
        for (key, value) in more.as_object().expect("fields") {
            jwt[key] = value.clone();
        }
        serde_json::from_value(json!({"jwt": [jwt]})).expect("a configuration")
    }

    fn authenticators(&self, more: Value) -> JwtAuthenticators {
        let made = JwtAuthenticators::new(&self.config(more), &[], &[], &["api".into()], &RealClock::shared());
        made.unwrap_or_else(|errors| panic!("{:?}", errors.into_causes()))
    }

    fn token(&self, key: &Pair, more: Value) -> String {
        let now = time::OffsetDateTime::now_utc().unix_timestamp();
        let mut claims = json!({"iss": self.url, "aud": "cluster", "sub": "ann", "exp": now + 600, "jti": "id"});
        for (name, value) in more.as_object().expect("claims") {
            claims[name] = value.clone();
        }
        let header = Header { kid: Some(key.id.clone()), ..Header::new(Algorithm::ES256) };
        jsonwebtoken::encode(&header, &claims, &key.private).expect("a token")
    }
}

#[tokio::test]
async fn tokens_of_an_issuer_name_users() {
    let (key, other) = (pair("one"), pair("two"));
    let provider = Provider::start(&[&key]).await;
    let all = provider.authenticators(json!({}));
    let user = async |token: String| all.authenticate_token(&token, &[]).await;
    let ann = user(provider.token(&key, json!({"teams": ["a", "b"]}))).await.expect("valid").expect("known").user;
    assert_eq!((ann.name.as_str(), ann.groups), ("corp:ann", vec!["team:a".to_owned(), "team:b".to_owned()]));
    assert_eq!(ann.extra["authentication.kubernetes.io/credential-id"], ["JTI=id"]);
    for (what, token) in [
        ("expected audience", provider.token(&key, json!({"aud": ["x", "y"]}))),
        ("ExpiredSignature", provider.token(&key, json!({"exp": 5}))),
        ("nbf", provider.token(&key, json!({"nbf": 99_999_999_999_i64}))),
        ("username claim not present", provider.token(&key, json!({"sub": ""}))),
        ("neither a text nor a list", provider.token(&key, json!({"teams": {"a": 1}}))),
        ("signature", provider.token(&other, json!({}))),
        ("InvalidSignature", provider.token(&Pair { id: "one".into(), ..pair("x") }, json!({}))),
    ] {
        let error = user(token).await.expect_err(what).to_string();
        assert!(error.contains(what), "{what}: {error}");
    }
    let foreign = provider.token(&key, json!({"iss": "https://other"}));
    assert!(user(foreign).await.is_ok_and(|found| found.is_none()), "somebody else may know it");
    assert!(user("no token".into()).await.is_ok_and(|found| found.is_none()));
}

#[tokio::test]
async fn tokens_are_not_signed_by_what_everybody_knows() {
    let key = pair("one");
    let provider = Provider::start(&[&key]).await;
    let all = provider.authenticators(json!({}));
    let claims = json!({"iss": provider.url, "aud": "cluster", "sub": "ann", "exp": 99_999_999_999_i64});
    let secret = EncodingKey::from_secret(key.public.to_string().as_bytes());
    let shared = jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &secret).expect("a token");
    let error = all.authenticate_token(&shared, &[]).await.expect_err("refused").to_string();
    assert!(error.contains("unsupported algorithm"), "{error}");
    let part = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let unsigned = format!("{}.{}.", part(json!({"alg": "none"})), part(claims));
    all.authenticate_token(&unsigned, &[]).await.expect_err("refused");
}

#[tokio::test]
async fn new_keys_are_found_and_issuers_replaced() {
    let (key, next) = (pair("one"), pair("two"));
    let provider = Provider::start(&[&key]).await;
    let clock = runtime::clock::FakeClock::new(std::time::SystemTime::UNIX_EPOCH);
    let dynamic: Arc<dyn Clock> = Arc::clone(&clock) as Arc<dyn Clock>;
    let config = provider.config(json!({}));
    let all = JwtAuthenticators::new(&config, &[], &[], &[], &dynamic).map_err(ErrorList::into_causes).expect("made");
    all.authenticate_token(&provider.token(&key, json!({})), &[]).await.expect("valid");
    *provider.jwks.lock() = json!({"keys": [next.public]});
    all.authenticate_token(&provider.token(&next, json!({})), &[]).await.expect_err("keys are not read too often");
    clock.advance(Duration::from_secs(6));
    all.authenticate_token(&provider.token(&next, json!({})), &[]).await.expect("valid");
    let none = AuthenticationConfiguration::default();
    all.replace(&none, &[], &[], &dynamic).map_err(ErrorList::into_causes).expect("replaced");
    assert!(all.authenticate_token(&provider.token(&next, json!({})), &[]).await.is_ok_and(|found| found.is_none()));
}

#[tokio::test]
async fn expressions_map_and_check() {
    let key = pair("one");
    let provider = Provider::start(&[&key]).await;
    let all = provider.authenticators(json!({
        "claimMappings": {
            "username": {"expression": "claims.email_verified ? claims.email : 'unverified'"},
            "groups": {"expression": "claims.roles.split(',')"},
            "uid": {"expression": "claims.sub"},
            "extra": [{"key": "example.com/tenant", "valueExpression": "claims.tenant"}],
        },
        "claimValidationRules": [
            {"claim": "hd", "requiredValue": "example.com"},
            {"expression": "claims.exp - claims.iat <= 86400", "message": "too long a life"},
        ],
        "userValidationRules": [{"expression": "!user.username.startsWith('system:')", "message": "reserved"}],
    }));
    let now = time::OffsetDateTime::now_utc().unix_timestamp();
    let good = json!({"email": "a@example.com", "email_verified": true, "roles": "x,y", "tenant": "t", "iat": now,
        "hd": "example.com"});
    let with = |name: &str, value: Value| {
        let mut claims = good.clone();
        claims[name] = value;
        provider.token(&key, claims)
    };
    let user = all.authenticate_token(&with("tenant", json!("t")), &[]).await.expect("valid").expect("known").user;
    assert_eq!((user.name.as_str(), user.uid.as_str()), ("a@example.com", "ann"));
    assert_eq!((user.groups, &user.extra["example.com/tenant"]), (vec!["x".into(), "y".into()], &vec!["t".to_owned()]));
    for (what, token) in [
        ("Got = other, want = example.com", with("hd", json!("other"))),
        ("too long a life", with("iat", json!(1))),
        ("failed: reserved", with("email", json!("system:admin"))),
        ("resulted in error", with("iat", json!("text"))),
    ] {
        let error = all.authenticate_token(&token, &[]).await.expect_err(what).to_string();
        assert!(error.contains(what), "{what}: {error}");
    }
}

#[test]
fn what_is_wrong_with_a_file_is_told() {
    assert_eq!(KIND, "AuthenticationConfiguration");
    let told = |issuer: Value, mappings: Value| -> Vec<String> {
        let config: AuthenticationConfiguration = serde_json::from_value(json!({"jwt": [
            {"issuer": issuer, "claimMappings": mappings}]}))
        .expect("a configuration");
        let clock = RealClock::shared();
        let made = JwtAuthenticators::new(&config, &["https://own".into()], &[], &[], &clock);
        let errors = made.err().map(ErrorList::into_causes).unwrap_or_default();
        errors.into_iter().map(|error| format!("{}: {}", error.field, error.message)).collect()
    };
    let issuer = json!({"url": "https://i", "audiences": ["a"]});
    let mappings = json!({"username": {"claim": "sub", "prefix": ""}});
    assert!(told(issuer.clone(), mappings.clone()).is_empty());
    for (issuer, wanted) in [
        (
            json!({"url": "http://i", "audiences": ["a"]}),
            "jwt[0].issuer.url: Invalid value: \"http://i\": URL scheme must be https",
        ),
        (
            json!({"url": "https://own", "audiences": ["a"]}),
            "URL must not overlap with disallowed issuers: [https://own]",
        ),
        (json!({"url": "https://i"}), "at least one jwt[0].issuer.audiences is required"),
        (
            json!({"url": "https://i", "audiences": ["a", "b"]}),
            "audienceMatchPolicy must be MatchAny for multiple audiences",
        ),
        (
            json!({"url": "https://i", "audiences": ["a"], "discoveryURL": "https://i/"}),
            "discoveryURL must be different from URL",
        ),
        (json!({"url": "https://i", "audiences": ["a"], "certificateAuthority": "x"}), "Invalid value: \"<snipped>\""),
    ] {
        let all = told(issuer, mappings.clone());
        assert!(all.iter().any(|text| text.contains(wanted)), "{wanted}: {all:?}");
    }
    for (mappings, wanted) in [
        (json!({}), "jwt[0].claimMappings.username: Required value: claim or expression is required"),
        (json!({"username": {"claim": "sub"}}), "prefix is required when claim is set"),
        (json!({"username": {"expression": "claims.x + "}}), "compilation failed"),
        (json!({"username": {"expression": "1"}}), "must evaluate to string"),
        (json!({"username": {"expression": "claims.email"}}), "claims.email_verified must be used"),
        (
            json!({"username": {"claim": "s", "prefix": ""}, "extra": [{"key": "x.k8s.io/y", "valueExpression": "'a'"}]}),
            "reserved for Kubernetes use",
        ),
    ] {
        let all = told(issuer.clone(), mappings);
        assert!(all.iter().any(|text| text.contains(wanted)), "{wanted}: {all:?}");
    }
}

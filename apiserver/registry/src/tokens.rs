//! `serviceaccounts/token`: TokenRequest.

use std::sync::Arc;

use async_trait::async_trait;
use axum::body::Body;
use generic::{
    authn::service_account::{Claims, Private, Ref, TokenSigner},
    endpoint::{Call, Handler},
    negotiate::Target,
    options::WriteOptions,
    resource::{Resource, decode_cached},
    verbs::{body, context::Moment},
};
use http::{Method, Response, StatusCode};
use machinery::{
    ApiError, ApiResult, GroupResource, GroupVersionKind,
    field::{ErrorList, Path},
    meta,
};
use serde_json::{Value, json};
use storage::cache::Freshness;

/// Lifetimes, seconds.
const DEFAULT_SECONDS: i64 = 3600;
const MIN_SECONDS: i64 = 600;
const MAX_SECONDS: i64 = 1 << 32;
/// The lifetime that projected volumes ask for; such tokens really live a year, so that old clients which never
/// reread the file keep working.
const EXTENDED_FROM: i64 = 3607;
const EXTENDED_SECONDS: i64 = 365 * 24 * 3600;

/// Handler of TokenRequests.
pub struct TokenRequests {
    /// Signs.
    pub key: Arc<dyn TokenSigner>,
    /// Issuer of the tokens.
    pub issuer: String,
    /// Audiences of the API, used when the request names none.
    pub audiences: Vec<String>,
    /// Whether tokens for projected volumes live longer than they say.
    pub extend: bool,
    /// The longest life of a token, seconds.
    pub longest: Option<i64>,
    /// ServiceAccounts.
    pub service_accounts: Arc<Resource>,
    /// Pods.
    pub pods: Arc<Resource>,
    /// Secrets.
    pub secrets: Arc<Resource>,
    /// Nodes.
    pub nodes: Arc<Resource>,
}

#[async_trait]
impl Handler for TokenRequests {
    async fn handle(&self, call: &Call) -> ApiResult<Response<Body>> {
        if call.method != Method::POST {
            return Err(ApiError::method_not_allowed());
        }
        let options = WriteOptions::parse("CreateOptions", &call.query, &call.headers, false)?;
        let kind = GroupVersionKind::new("authentication.k8s.io", "v1", "TokenRequest");
        let mut request = body::decode_object(call, &kind, options.field_validation)?;
        let (namespace, name) = (&call.info.namespace, &call.info.name);
        let account = self.service_accounts.get(namespace, name, Freshness::Latest).await?;
        let uid = account.index.uid();
        let wanted = meta::uid(&request);
        if !wanted.is_empty() && wanted != uid {
            let text = format!(
                "the UID in the token request ({wanted}) does not match the UID of the service account ({uid})"
            );
            return Err(ApiError::conflict(&GroupResource::new("", "serviceaccounts"), name, &text));
        }
        let mut seconds = lifetime(&kind, name, &request)?;
        if let Some(longest) = self.longest.filter(|longest| *longest < seconds) {
            call.warnings.add(format!("requested expiration of {seconds} seconds shortened to {longest} seconds"));
            seconds = longest;
        }
        let mut private = Private {
            namespace: namespace.clone(),
            serviceaccount: Ref { name: name.clone(), uid: uid.to_owned() },
            ..Private::default()
        };
        self.bind(call, &request, &mut private).await?;
        let admission = call.admission(generic::admission::Operation::Create, name, options.dry_run);
        call.server.plugins.admit(&admission, Some(&mut request), None).await?;
        call.server.plugins.validate(&admission, Some(&request), None).await?;
        let audiences = self.audiences(&request);
        let now = Moment::now();
        let token = self.sign(private, &audiences, seconds, &now).await?;
        request["metadata"] = json!({"name": name, "namespace": namespace, "creationTimestamp": now.text});
        request["spec"]["audiences"] = json!(audiences);
        request["spec"]["expirationSeconds"] = json!(seconds);
        request["status"] = json!({"token": token, "expirationTimestamp": now.plus(seconds).text});
        call.writer(Target::Plain)?.object(StatusCode::CREATED, request)
    }
}

fn lifetime(kind: &GroupVersionKind, name: &str, request: &Value) -> ApiResult<i64> {
    let seconds = request.pointer("/spec/expirationSeconds").and_then(Value::as_i64).unwrap_or(DEFAULT_SECONDS);
    let mut errors = ErrorList::default();
    let path = Path::new("spec").child("expirationSeconds");
    if seconds < MIN_SECONDS {
        errors.invalid(&path, &json!(seconds), "may not specify a duration less than 10 minutes");
    }
    if seconds > MAX_SECONDS {
        errors.invalid(&path, &json!(seconds), "may not specify a duration larger than 2^32 seconds");
    }
    generic::verbs::validate::fail(kind, name, errors)?;
    Ok(seconds)
}

impl TokenRequests {
    fn audiences(&self, request: &Value) -> Vec<String> {
        let named = request.pointer("/spec/audiences").and_then(Value::as_array).into_iter().flatten();
        let named: Vec<String> = named.filter_map(|a| a.as_str().map(str::to_owned)).collect();
        if named.is_empty() { self.audiences.clone() } else { named }
    }

    /// Fills the claims of the object that the token shall be bound to.
    async fn bind(&self, call: &Call, request: &Value, private: &mut Private) -> ApiResult<()> {
        let Some(bound) = request.pointer("/spec/boundObjectRef").filter(|b| !b.is_null()) else { return Ok(()) };
        let text = |key: &str| bound.get(key).and_then(Value::as_str).unwrap_or("");
        let namespace = &call.info.namespace;
        let (resource, namespace) = match text("kind") {
            "Pod" => (&self.pods, namespace.as_str()),
            "Secret" => (&self.secrets, namespace.as_str()),
            "Node" => (&self.nodes, ""),
            other => {
                return Err(ApiError::bad_request(format!(
                    "cannot bind token for serviceaccount {:?} to object kind {other:?}",
                    call.info.name
                )));
            }
        };
        let found = resource.get(namespace, text("name"), Freshness::Latest).await?;
        let uid = found.index.uid();
        if !text("uid").is_empty() && text("uid") != uid {
            let cause = format!(
                "the UID in the bound object reference ({}) does not match the UID in record ({uid}). The object might have been deleted and then recreated",
                text("uid")
            );
            return Err(ApiError::conflict(&resource.group_resource, text("name"), &cause));
        }
        let reference = Ref { name: text("name").to_owned(), uid: uid.to_owned() };
        match text("kind") {
            "Secret" => private.secret = Some(reference),
            "Node" => private.node = Some(reference),
            _ => {
                let pod = decode_cached(&found)?.object;
                self.bind_pod(call, &pod, reference, private).await?;
            }
        }
        Ok(())
    }

    async fn bind_pod(&self, call: &Call, pod: &Value, reference: Ref, private: &mut Private) -> ApiResult<()> {
        let text = |path: &str| pod.pointer(path).and_then(Value::as_str).unwrap_or("");
        let account = text("/spec/serviceAccountName");
        if account != call.info.name {
            return Err(ApiError::bad_request(format!(
                "cannot bind token for serviceaccount {:?} to pod running with different serviceaccount name.",
                call.info.name
            )));
        }
        let node = text("/spec/nodeName");
        if !node.is_empty()
            && let Ok(found) = self.nodes.get("", node, Freshness::Any).await
        {
            private.node = Some(Ref { name: node.to_owned(), uid: found.index.uid().to_owned() });
        }
        private.pod = Some(reference);
        Ok(())
    }

    async fn sign(&self, mut private: Private, audiences: &[String], seconds: i64, now: &Moment) -> ApiResult<String> {
        let issued = now.at.unix_timestamp();
        let for_api = audiences.iter().all(|a| self.audiences.contains(a));
        let mut lives = seconds;
        if self.extend && seconds == EXTENDED_FROM && private.pod.is_some() && for_api {
            lives = self.longest.map_or(EXTENDED_SECONDS, |longest| longest.min(EXTENDED_SECONDS));
            private.warnafter = Some(issued + seconds);
        }
        let claims = Claims {
            aud: audiences.to_vec(),
            exp: Some(issued + lives),
            iat: Some(issued),
            iss: self.issuer.clone(),
            jti: uuid::Uuid::new_v4().to_string(),
            sub: format!("system:serviceaccount:{}:{}", private.namespace, private.serviceaccount.name),
            nbf: Some(issued),
            private: Some(private),
            ..Claims::default()
        };
        self.key.sign(&claims).await.map_err(|error| ApiError::internal(format!("failed to generate token: {error}")))
    }
}

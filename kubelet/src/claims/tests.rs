//! A driver behind a real socket.

use async_trait::async_trait;
use proto::dra::dra_plugin_server::{DraPlugin, DraPluginServer};
use serde_json::json;
use tokio_stream::wrappers::UnixListenerStream;
use tokio_util::sync::CancellationToken;
use tonic::Request;

use super::*;
use crate::objects::NoObjects;
use crate::plugins::{Handler, Plugin};

#[derive(Default)]
struct FakeDriver {
    calls: Arc<Mutex<Vec<String>>>,
}

#[async_trait]
impl DraPlugin for FakeDriver {
    async fn node_prepare_resources(
        &self,
        request: Request<v1::NodePrepareResourcesRequest>,
    ) -> Result<Response<v1::NodePrepareResourcesResponse>, Status> {
        let one = |claim: v1::Claim| {
            self.calls.lock().push(format!("prepare {}", claim.name));
            let error = if claim.name == "bad" { "no".to_owned() } else { String::new() };
            let device = v1::Device {
                request_names: vec!["r/big".into()],
                pool_name: "p".into(),
                device_name: "d".into(),
                cdi_device_ids: vec![format!("x/y={}", claim.name)],
            };
            (claim.uid, v1::NodePrepareResourceResponse { devices: vec![device], error })
        };
        let claims = request.into_inner().claims.into_iter().map(one).collect();
        Ok(Response::new(v1::NodePrepareResourcesResponse { claims }))
    }

    async fn node_unprepare_resources(
        &self,
        request: Request<v1::NodeUnprepareResourcesRequest>,
    ) -> Result<Response<v1::NodeUnprepareResourcesResponse>, Status> {
        let one = |claim: v1::Claim| {
            self.calls.lock().push(format!("unprepare {}", claim.name));
            (claim.uid, v1::NodeUnprepareResourceResponse::default())
        };
        let claims = request.into_inner().claims.into_iter().map(one).collect();
        Ok(Response::new(v1::NodeUnprepareResourcesResponse { claims }))
    }
}

fn claim(name: &str, users: &[&str]) -> ResourceClaim {
    let users: Vec<_> = users.iter().map(|uid| json!({ "resource": "pods", "name": uid, "uid": uid })).collect();
    let results = json!([{ "driver": "d.x", "pool": "p", "device": "d", "request": "r" }]);
    let status = json!({ "reservedFor": users, "allocation": { "devices": { "results": results } } });
    let metadata = json!({ "name": name, "namespace": "ns", "uid": format!("uid-{name}") });
    serde_json::from_value(json!({ "metadata": metadata, "spec": {}, "status": status })).unwrap()
}

fn pod(uid: &str, claim: &str) -> Pod {
    serde_json::from_value(json!({
        "metadata": { "name": uid, "namespace": "ns", "uid": uid },
        "spec": {
            "resourceClaims": [{ "name": "own", "resourceClaimName": claim }],
            "containers": [{ "name": "c", "resources": { "claims": [{ "name": "own", "request": "r" }] } }],
        },
    }))
    .unwrap()
}

#[tokio::test]
async fn claims_are_prepared_once_and_taken_back_by_the_last() {
    let dir = tempfile::tempdir().unwrap();
    let open = || Claims::open(dir.path().join("state"), Arc::new(NoObjects));
    let claims = open();
    let calls = Arc::<Mutex<Vec<String>>>::default();
    let socket = dir.path().join("d.sock");
    let listener = tokio::net::UnixListener::bind(&socket).unwrap();
    let server = DraPluginServer::new(FakeDriver { calls: Arc::clone(&calls) });
    let server = tonic::transport::Server::builder().add_service(server);
    tokio::spawn(server.serve_with_incoming(UnixListenerStream::new(listener)));
    let plugin = Plugin { name: "d.x".into(), endpoint: socket, versions: vec!["v1.DRAPlugin".into()] };
    let old = Plugin { versions: vec!["v1beta1.DRAPlugin".into()], ..plugin.clone() };
    let drivers = |claims: &Arc<Claims>| ClaimDrivers::new(Arc::clone(claims), None, "n", CancellationToken::new());
    assert!(drivers(&claims).register(&old).await.is_err());
    drivers(&claims).register(&plugin).await.unwrap();

    let (one, two) = (pod("u1", "c1"), pod("u2", "c1"));
    let object = claim("c1", &["u1", "u2"]);
    let asked = vec![v1::Claim { namespace: "ns".into(), uid: "uid-c1".into(), name: "c1".into() }];
    let names = check(&one, &object, false).unwrap();
    assert_eq!(names, ["d.x"]);
    assert!(claims.note(&one, &object, &names));
    claims.ask("d.x", asked).await.unwrap();
    claims.state.lock().get_mut("uid-c1").unwrap().prepared = true;
    assert!(!claims.note(&two, &object, &names), "prepared once");
    assert_eq!(claims.cdi(&one, &pods::containers(&one)[0]), ["x/y=c1"]);
    claims.save().unwrap();
    let later = open();
    drivers(&later).register(&plugin).await.unwrap();
    assert_eq!(later.cdi(&two, &pods::containers(&two)[0]), ["x/y=c1"]);
    later.unprepare("u1").await.unwrap();
    assert_eq!(*calls.lock(), ["prepare c1"]);
    later.unprepare("u2").await.unwrap();
    assert_eq!(*calls.lock(), ["prepare c1", "unprepare c1"]);
    assert!(open().users().is_empty());
    let bad = vec![v1::Claim { namespace: "ns".into(), uid: "u".into(), name: "bad".into() }];
    let error = later.ask("d.x", bad).await.unwrap_err();
    assert_eq!(error, "NodePrepareResources failed for ResourceClaim ns/bad: no");
}

#[test]
fn claims_must_be_reserved_and_allocated() {
    let own = pod("u", "c");
    let foreign = check(&own, &claim("c", &["other"]), false).unwrap_err();
    assert_eq!(foreign, "pod u (u) is not allowed to use ResourceClaim c (uid-c)");
    let error = check(&own, &claim("c", &["u"]), true).unwrap_err();
    assert_eq!(error, "ResourceClaim ns/c was not created for pod ns/u (pod is not owner)");
    let mut open = claim("c", &["u"]);
    open.status.as_mut().unwrap().allocation = None;
    assert_eq!(check(&own, &open, false), Err("ResourceClaim c is not allocated".to_owned()));
}

#[test]
fn devices_may_stand_for_extended_resources() {
    let mut own = pod("u", "c");
    own.status = serde_json::from_value(json!({ "extendedResourceClaimStatus": {
        "resourceClaimName": "made",
        "requestMappings": [
            { "containerName": "c", "resourceName": "x.io/y", "requestName": "container-0-request-0" },
            { "containerName": "other", "resourceName": "x.io/y", "requestName": "container-1-request-0" },
        ],
    } }))
    .unwrap();
    assert_eq!(claims_of(&own).unwrap(), [("c".to_owned(), false), ("made".to_owned(), true)]);
    let used = uses(&own, &pods::containers(&own)[0]);
    let expected = [("c", "r"), ("made", "container-0-request-0")];
    assert_eq!(used, expected.map(|(claim, request)| (claim.to_owned(), Some(request.to_owned()))));
}

#[test]
fn requests_choose_devices() {
    let device = |requests: &[&str]| ClaimDevice {
        requests: requests.iter().map(|r| (*r).to_owned()).collect(),
        ..Default::default()
    };
    assert!(is_for(&device(&["a"]), None) && is_for(&device(&[]), Some("b")));
    assert!(is_for(&device(&["b/small"]), Some("b")) && !is_for(&device(&["a"]), Some("b")));
}

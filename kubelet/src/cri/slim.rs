//! Lists of everything, read every second: only what tells whether something changed is decoded.
//!
//! Field numbers are those of the runtime interface; what is not named here is skipped.

use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::Channel;
use tonic::{Request, Response, Status};

use super::v1;

/// A sandbox.
#[derive(Clone, PartialEq, prost::Message)]
pub struct SlimSandbox {
    /// Runtime id.
    #[prost(string, tag = "1")]
    pub id: String,
    /// Whose it is.
    #[prost(message, optional, tag = "2")]
    pub metadata: Option<v1::PodSandboxMetadata>,
    /// `PodSandboxState`
    #[prost(int32, tag = "3")]
    pub state: i32,
}

/// A container.
#[derive(Clone, PartialEq, prost::Message)]
pub struct SlimContainer {
    /// Runtime id.
    #[prost(string, tag = "1")]
    pub id: String,
    /// Its sandbox.
    #[prost(string, tag = "2")]
    pub sandbox: String,
    /// `ContainerState`
    #[prost(int32, tag = "6")]
    pub state: i32,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Sandboxes {
    #[prost(message, repeated, tag = "1")]
    pub(super) items: Vec<SlimSandbox>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Containers {
    #[prost(message, repeated, tag = "1")]
    pub(super) items: Vec<SlimContainer>,
}

/// Calls a method of the runtime service with types of our own.
async fn call<Q, A>(channel: Channel, request: Q, path: &'static str, limit: usize) -> Result<Response<A>, Status>
where
    Q: prost::Message + Send + Sync + 'static,
    A: prost::Message + Default + Send + Sync + 'static,
{
    let mut client = tonic::client::Grpc::new(channel).max_decoding_message_size(limit);
    client.ready().await.map_err(|error| Status::unknown(format!("service was not ready: {error}")))?;
    let codec = tonic_prost::ProstCodec::<Q, A>::default();
    client.unary(Request::new(request), PathAndQuery::from_static(path), codec).await
}

pub(super) async fn sandboxes(channel: Channel, limit: usize) -> Result<Response<Sandboxes>, Status> {
    let request = v1::ListPodSandboxRequest { filter: None };
    call(channel, request, "/runtime.v1.RuntimeService/ListPodSandbox", limit).await
}

pub(super) async fn containers(channel: Channel, limit: usize) -> Result<Response<Containers>, Status> {
    let request = v1::ListContainersRequest { filter: None };
    call(channel, request, "/runtime.v1.RuntimeService/ListContainers", limit).await
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;

    #[test]
    fn what_is_decoded_is_what_was_sent() {
        let labels = [("a".to_owned(), "b".to_owned())].into();
        let sandbox = v1::PodSandbox {
            id: "s".into(),
            metadata: Some(v1::PodSandboxMetadata { uid: "u".into(), ..Default::default() }),
            state: 1,
            created_at: 5,
            labels,
            ..Default::default()
        };
        let bytes = v1::ListPodSandboxResponse { items: vec![sandbox.clone()] }.encode_to_vec();
        let read = Sandboxes::decode(bytes.as_slice()).unwrap();
        assert_eq!(read.items, [SlimSandbox { id: "s".into(), metadata: sandbox.metadata, state: 1 }]);
        let container =
            v1::Container { id: "c".into(), pod_sandbox_id: "s".into(), state: 2, created_at: 7, ..Default::default() };
        let bytes = v1::ListContainersResponse { containers: vec![container] }.encode_to_vec();
        let read = Containers::decode(bytes.as_slice()).unwrap();
        assert_eq!(read.items, [SlimContainer { id: "c".into(), sandbox: "s".into(), state: 2 }]);
    }
}

//! The gRPC health protocol as a probe.

use std::net::SocketAddr;
use std::time::Duration;

use proto::health::HealthCheckRequest;
use proto::health::health_check_response::ServingStatus;
use proto::health::health_client::HealthClient;
use tonic::Code;
use tonic::transport::Endpoint;

use super::runner::Report;

/// Success is `SERVING`.
pub(super) async fn probe(address: SocketAddr, service: &str, timeout: Duration) -> Report {
    let seconds = timeout.as_secs();
    let fail = Report::Failure;
    let endpoint = Endpoint::from_shared(format!("http://{address}")).and_then(|e| e.user_agent("kube-probe/1.36"));
    let endpoint = match endpoint {
        Ok(endpoint) => endpoint.connect_timeout(timeout),
        Err(error) => return fail(format!("error: failed to connect service at {:?}: {error}", address.to_string())),
    };
    let shown = format!("{:?}", address.to_string());
    let channel = match tokio::time::timeout(timeout, endpoint.connect()).await {
        Ok(Ok(channel)) => channel,
        Ok(Err(error)) => return fail(format!("error: failed to connect service at {shown}: {}", chain(&error))),
        Err(_) => {
            return fail(format!(
                "timeout: failed to connect service {shown} within {seconds}s: context deadline exceeded"
            ));
        }
    };
    let request = HealthCheckRequest { service: service.to_owned() };
    let mut client = HealthClient::new(channel);
    match tokio::time::timeout(timeout, client.check(request)).await {
        Ok(Ok(answer)) => match ServingStatus::try_from(answer.into_inner().status) {
            Ok(ServingStatus::Serving) => Report::Success,
            Ok(other) => fail(format!("service unhealthy (responded with {:?})", other.as_str_name())),
            Err(_) => fail("service unhealthy (responded with \"UNKNOWN\")".to_owned()),
        },
        Ok(Err(status)) if status.code() == Code::Unimplemented => fail(format!(
            "error: this server does not implement the grpc health protocol (grpc.health.v1.Health): {}",
            status.message()
        )),
        Ok(Err(status)) if status.code() == Code::DeadlineExceeded => {
            fail(format!("timeout: health rpc did not complete within {seconds}s"))
        }
        Ok(Err(status)) => fail(format!("error: health rpc failed: {}", status.message())),
        Err(_) => fail(format!("timeout: health rpc did not complete within {seconds}s")),
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        text = format!("{text}: {inner}");
        source = inner.source();
    }
    text
}

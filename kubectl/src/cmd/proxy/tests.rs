use http::Uri;

use super::forward::Forwarder;

async fn forwarder(prefix: &str, server: &str) -> Forwarder {
    let client = crate::cluster::client(kube::Config::new(Uri::from_static("http://127.0.0.1:1"))).expect("a client");
    Forwarder::new(client, prefix, server.to_owned(), "kubectl".to_owned())
}

#[tokio::test]
async fn prefixes_are_taken_off_and_paths_of_servers_put_before() {
    for (prefix, server, asked, expected) in [
        ("/", "", "/api/v1?watch=1", Some("/api/v1?watch=1")),
        ("/custom", "", "/custom/api", Some("/api")),
        ("/custom/", "", "/api", None),
        ("/", "https://h:1/k8s/clusters/c/", "/api", Some("/k8s/clusters/c/api")),
    ] {
        let target = forwarder(prefix, server).await.target(&asked.parse().expect("a path"));
        assert_eq!(target.as_deref(), expected, "{prefix} {server} {asked}");
    }
    assert!(forwarder("/custom", "").await.is_prefix("/custom"));
}

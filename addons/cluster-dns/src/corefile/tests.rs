use super::*;

const USUAL: &str = include_str!("../../../../deploy/addons/cluster-dns.yaml");

/// The Corefile of the manifest.
fn usual() -> String {
    let after = USUAL.split("Corefile: |\n").nth(1).expect("a Corefile");
    after.split("\n---").next().expect("its end").replace("${DNS_DOMAIN}", "cluster.local")
}

#[test]
fn the_manifest_s_file_is_understood() {
    let config = parse(&usual()).expect("a configuration");
    assert_eq!((config.port, config.lameduck), (53, Duration::from_secs(5)));
    assert_eq!(config.health.map(|a| a.port()), Some(8080));
    assert_eq!(config.ready.map(|a| a.port()), Some(8181));
    assert_eq!(config.prometheus.map(|a| a.port()), Some(9153));
    assert_eq!(config.reload, Some(Duration::from_secs(30)));
    let [block] = config.blocks.as_slice() else { panic!("one block: {config:?}") };
    let kubernetes = block.kubernetes.as_ref().expect("kubernetes");
    assert_eq!(kubernetes.origin.to_ascii(), "cluster.local.");
    assert_eq!((kubernetes.ttl, kubernetes.reverse, kubernetes.pods), (30, true, PodRecords::Insecure));
    let forward = block.forwards.first().expect("forward");
    assert_eq!(forward.to, [Upstream::File("/etc/resolv.conf".into())]);
    assert_eq!((forward.max_concurrent, forward.from.is_root()), (1000, true));
    let cache = block.cache.as_ref().expect("cache");
    assert_eq!((cache.success, cache.no_denial.len()), (Duration::from_secs(30), 1));
    assert!(block.loadbalance && block.detect_loops && !block.log);
}

#[test]
fn blocks_on_one_line_and_stub_domains() {
    let text =
        "corp.example:1053 { forward . 10.0.0.1 10.0.0.2:5353 { policy sequential } }\n.:1053 {\n bind 127.0.0.1\n}";
    let config = parse(text).expect("a configuration");
    assert_eq!(config.port, 1053);
    let forward = config.blocks.first().and_then(|b| b.forwards.first()).expect("forward");
    assert_eq!(forward.policy, Policy::Sequential);
    let ports: Vec<_> = forward.to.iter().map(|u| matches!(u, Upstream::Address(a) if a.port() == 5353)).collect();
    assert_eq!(ports, [false, true]);
}

#[test]
fn what_is_wrong_is_told_with_its_line() {
    for (text, wanted) in [
        ("", "line 1: there is no server block"),
        ("kubernetes", "line 1: a server block was expected"),
        (".:53 {\n errors", "line 1: the block is not closed"),
        (".:53 {\n erratic q\n}", "line 2: unknown plugin \"erratic\""),
        (".:53 {\n cache 30 {\n prefetch 1\n }\n}", "line 3: unknown option \"prefetch 1\""),
        (".:53 {\n forward .\n}", "line 2: forward needs servers"),
        (".:53 {\n forward . nowhere\n}", "line 2: \"nowhere\" is neither an address nor a file"),
        (".:53 {\n}\na.b:54 {\n}", "line 3: all blocks must have the same port"),
        (".:53 {\n kubernetes a b\n}", "line 2: kubernetes takes one domain besides reverse zones"),
        (".:53 {\n kubernetes a {\n ttl 9999\n }\n}", "line 3: ttl must be in range [0, 3600]"),
        (".:x {\n}", "line 1: \"x\" is not a number in range"),
    ] {
        assert_eq!(parse(text).expect_err(text).to_string(), wanted);
    }
}

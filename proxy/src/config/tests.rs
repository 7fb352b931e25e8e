use clap::Parser;

use super::{
    flags::Options,
    settings::{Detection, Mode, NodePortAddresses},
    *,
};

#[derive(Parser)]
struct Flags {
    #[command(flatten)]
    options: Options,
}

fn options(arguments: &[&str]) -> Options {
    Flags::parse_from([&["test"], arguments].concat()).options
}

fn read(text: &str) -> Configuration {
    let whole = format!("apiVersion: {API_VERSION}\nkind: {KIND}\n{text}");
    let config: Configuration = runtime::config_file::decode(&whole, &[API_VERSION], KIND).unwrap();
    config.complete()
}

#[test]
fn a_file_with_every_field_is_read() {
    let config = read(
        "bindAddress: 0.0.0.0\nbindAddressHardFail: false\nclientConnection: {acceptContentTypes: '', burst: 0, \
         contentType: '', kubeconfig: /k, qps: 0}\nclusterCIDR: 10.244.0.0/16\nconfigSyncPeriod: 0s\n\
         conntrack: {maxPerCore: null, min: null, tcpBeLiberal: false, tcpCloseWaitTimeout: null, \
         tcpEstablishedTimeout: null, udpStreamTimeout: 0s, udpTimeout: 0s}\n\
         detectLocal: {bridgeInterface: '', interfaceNamePrefix: ''}\ndetectLocalMode: ''\nenableProfiling: false\n\
         featureGates: null\nhealthzBindAddress: ''\nhostnameOverride: ''\n\
         iptables: {localhostNodePorts: null, masqueradeAll: false, masqueradeBit: null, minSyncPeriod: 0s, syncPeriod: 0s}\n\
         ipvs: {excludeCIDRs: null, minSyncPeriod: 0s, scheduler: '', strictARP: false, syncPeriod: 0s, \
         tcpFinTimeout: 0s, tcpTimeout: 0s, udpTimeout: 0s}\n\
         logging: {flushFrequency: 0, options: {json: {infoBufferSize: '0'}}, verbosity: 0}\nmetricsBindAddress: ''\n\
         mode: ''\nnftables: {masqueradeAll: false, masqueradeBit: null, minSyncPeriod: 0s, syncPeriod: 0s}\n\
         nodePortAddresses: null\noomScoreAdj: null\nportRange: ''\nshowHiddenMetricsForVersion: ''\n\
         winkernel: {enableDSR: false}\n",
    );
    assert_eq!(config.problems(), Vec::<String>::new());
    let settings = settings::Settings::of(&config).unwrap();
    assert_eq!(settings.detection, Detection::Ranges(vec!["10.244.0.0/16".parse().unwrap()]));
    assert_eq!((settings.mode, settings.mark, settings.ipvs.scheduler.as_str()), (Mode::Iptables, 0x4000, "rr"));
    assert_eq!((settings.sync_period, settings.min_sync_period), (PERIOD, LEAST_PERIOD));
    let document = config.document();
    assert_eq!((&document["conntrack"]["tcpEstablishedTimeout"], &document["kind"]), (&json!("24h0m0s"), &json!(KIND)));
}

#[test]
fn what_is_wrong_is_told() {
    let cases = [
        "mode: userspace",
        "detectLocalMode: Guess",
        "detectLocalMode: BridgeInterface",
        "detectLocalMode: InterfaceNamePrefix\ndetectLocal: {interfaceNamePrefix: 'a b'}",
        "nodePortAddresses: [primary, 10.0.0.0/8]",
        "nodePortAddresses: [10.0.0.0]",
        "clusterCIDR: 10.0.0.0/8,10.1.0.0/16",
        "iptables: {syncPeriod: 1s, minSyncPeriod: 2s}",
        "iptables: {masqueradeBit: 32}",
        "oomScoreAdj: 2000",
        "conntrack: {min: -1}",
        "bindAddress: here",
        "healthzBindAddress: here",
        "ipvs: {scheduler: 'a b'}",
        "ipvs: {excludeCIDRs: [a]}",
        "showHiddenMetricsForVersion: '1.30'",
        "windowsRunAsService: true",
    ];
    for case in cases {
        assert_eq!(read(case).problems().len(), 1, "{case}");
    }
}

#[test]
fn flags_alone() {
    let (config, settings, _) = options(&["--cluster-cidr", "fd00::/64,10.0.0.0/8"]).configuration().unwrap();
    assert_eq!(settings.healthz.unwrap().to_string(), "0.0.0.0:10256");
    assert_eq!(config.client_connection.qps, 5.0);
    assert!(matches!(settings.detection, Detection::Ranges(ranges) if ranges.len() == 2));
    let (_, settings, _) = options(&["--metrics-bind-address="]).configuration().unwrap();
    assert!(settings.metrics.is_none() && settings.healthz.is_some());
    assert!(options(&["--proxy-mode", "userspace"]).configuration().is_err());
    assert!(options(&["--feature-gates", "Nothing=true"]).configuration().is_err());
    let (_, settings, _) =
        options(&["--bind-address=::", "--metrics-port=99", "--oom-score-adj=-5"]).configuration().unwrap();
    assert_eq!(
        (settings.healthz.unwrap().to_string(), settings.metrics.unwrap().to_string()),
        ("[::]:10256".into(), "127.0.0.1:99".into())
    );
}

#[test]
fn the_file_wins_but_for_the_name() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let text = format!(
        "apiVersion: {API_VERSION}\nkind: {KIND}\nclusterCIDR: 10.1.0.0/16\nhostnameOverride: x\n\
         metricsBindAddress: 0.0.0.0\nmode: nftables\nclientConnection: {{kubeconfig: /k}}\n"
    );
    std::fs::write(file.path(), text).unwrap();
    let path = file.path().to_str().unwrap();
    let options = options(&["--config", path, "--cluster-cidr", "10.9.0.0/16", "--hostname-override", "n"]);
    let (config, settings, _) = options.configuration().unwrap();
    assert_eq!((config.cluster_cidr.as_str(), config.hostname_override.as_str()), ("10.1.0.0/16", "n"));
    assert_eq!(settings.metrics.unwrap().to_string(), "0.0.0.0:10249");
    assert_eq!(settings.node_port_addresses, NodePortAddresses::Primary, "the default of nftables mode");
}

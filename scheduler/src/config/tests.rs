use std::io::Write;

use clap::Parser;

use super::*;

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    client: ClientArgs,
    #[command(flatten)]
    election: LeaderElectionArgs,
}

fn load(text: &str, given: &[&str]) -> Result<Settings, String> {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    write!(file, "apiVersion: {API_VERSION}\nkind: {KIND}\n{text}").unwrap();
    let mut line = vec!["x".to_owned()];
    line.extend(given.iter().map(|f| (*f).to_owned()));
    let line = Line::parse_from(line);
    let flags = FromFlags {
        client: &line.client,
        election: &line.election,
        given: &|flag| given.iter().any(|g| g.starts_with(&format!("--{flag}="))),
        profiling: true,
        contention_profiling: false,
    };
    Settings::load(Some(file.path()), &flags).map_err(|e| e.to_string())
}

#[test]
fn defaults_are_filled_in() {
    let document = load("", &[]).unwrap().document();
    assert_eq!(document["parallelism"], 16);
    assert_eq!(document["leaderElection"]["leaseDuration"], "15s");
    assert_eq!(document["leaderElection"]["resourceName"], "kube-scheduler");
    assert_eq!(document["clientConnection"]["qps"], 50.0);
    assert_eq!(document["profiles"][0]["schedulerName"], "default-scheduler");
    assert_eq!(document["podMaxBackoffSeconds"], 10);
    let enabled = &document["profiles"][0]["plugins"]["multiPoint"]["enabled"];
    assert_eq!((&enabled[0]["name"], &enabled[4]["weight"]), (&"SchedulingGates".into(), &3.into()));
}

#[test]
fn the_file_wins_except_over_leader_election_flags() {
    let text = "leaderElection: {leaseDuration: 30s, renewDeadline: 20s, leaderElect: false}\n";
    let settings = load(text, &[]).unwrap();
    assert!(!settings.leader_election().leader_elect);
    assert_eq!(settings.leader_election().leader_elect_lease_duration, Duration::from_secs(30));
    let settings = load(text, &["--leader-elect-lease-duration=60s"]).unwrap();
    assert_eq!(settings.leader_election().leader_elect_lease_duration, Duration::from_secs(60));
}

#[test]
fn mistakes_are_fatal() {
    let problem = |text: &str| load(text, &[]).unwrap_err();
    assert_eq!(problem("parallelis: 3\n"), "strict decoding error: unknown field \"parallelis\"");
    assert!(problem("parallelism: 0\n").contains("should be an integer value greater than zero"));
    assert!(problem("profiles: [{}, {schedulerName: a}]\n").contains("profiles[0].schedulerName: Required value"));
    let twice = "profiles: [{schedulerName: a}, {schedulerName: a}]\n";
    assert_eq!(problem(twice), "profiles[1].schedulerName: Duplicate value: \"a\"");
    assert!(problem("extenders: [{urlPrefix: x}]\n").contains("must be a URL"));
    let weightless = "extenders: [{urlPrefix: 'http://x', prioritizeVerb: p}]\n";
    assert!(problem(weightless).contains("extenders[0].weight: Invalid value: 0: must have a positive weight"));
    let binders = "extenders: [{urlPrefix: 'http://x', bindVerb: b}, {urlPrefix: 'http://y', bindVerb: b}]\n";
    assert!(problem(binders).contains("found 2 extenders implementing bind"));
    let managed = "extenders: [{urlPrefix: 'http://x', managedResources: [{name: cpu}]}]\n";
    assert!(problem(managed).contains("name is an invalid extended resource name"));
    let args = "profiles: [{pluginConfig: [{name: NodeResourcesFit, args: {scoringStrategy: {type: Most}}}]}]\n";
    assert!(problem(args).contains("scoringStrategy.type: Unsupported value: \"Most\""));
    let unknown = "profiles: [{pluginConfig: [{name: InterPodAffinity, args: {x: 1}}]}]\n";
    assert!(problem(unknown).contains("strict decoding error"));
    let range = "profiles: [{pluginConfig: [{name: InterPodAffinity, args: {hardPodAffinityWeight: 101}}]}]\n";
    assert!(problem(range).contains("not in valid range [0-100]"));
}

#[test]
fn profiles_differ() {
    let text = "percentageOfNodesToScore: 30\n\
                profiles:\n\
                - schedulerName: default-scheduler\n\
                - schedulerName: packing\n  \
                  percentageOfNodesToScore: 100\n  \
                  plugins: {preScore: {disabled: [{name: '*'}]}, score: {disabled: [{name: '*'}], enabled: [{name: ImageLocality, weight: 4}]}}\n  \
                  pluginConfig: [{name: DefaultPreemption, args: {minCandidateNodesAbsolute: 7}}]\n";
    let selector: DefaultSelector = Arc::new(|_| machinery::selector::LabelSelector::default());
    let sources = Sources { selector, storage: Storage::empty(), devices: crate::devices::Devices::empty() };
    let profiles = load(text, &[]).unwrap().profiles(&sources).unwrap();
    assert_eq!((profiles[0].percentage, profiles[1].percentage), (30, 100));
    let scores: Vec<_> = profiles[1].scores().map(|(id, weight, _)| (id, weight)).collect();
    assert_eq!(scores, [(PluginId::ImageLocality, 4)]);
    assert_eq!(profiles[1].preemption.map(|p| p.min_absolute), Some(7));
    assert!(profiles[0].filters().any(|(id, _)| id == PluginId::NodeResourcesFit));
}

//! Servers and stores, and what they suffer.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use harness::{
    ApiServer,
    process::{Process, free_port},
    server::ADMIN_TOKEN,
};
use kube::Client;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tempfile::TempDir;

use super::{
    proxy::{Proxy, Weather},
    random::Random,
};

/// A member of an etcd cluster.
struct Member {
    process: Option<Process>,
    arguments: Vec<String>,
    directory: TempDir,
}

impl Member {
    fn start(&mut self) {
        self.process = None;
        let log = self.directory.path().join("log");
        self.process = Some(Process::start(Path::new("/usr/bin/etcd"), &self.arguments, log));
    }
}

/// Servers, and the etcd members that they reach through a proxy for each pair.
pub(super) struct Cluster {
    servers: Vec<ApiServer>,
    members: Vec<Member>,
    /// Those of a server together.
    proxies: Vec<Vec<Proxy>>,
}

fn members(count: usize, ports: &[[u16; 2]]) -> Vec<Member> {
    let url = |port: u16| format!("http://127.0.0.1:{port}");
    let all: Vec<String> = ports.iter().enumerate().map(|(n, [_, peer])| format!("m{n}={}", url(*peer))).collect();
    let member = |(number, [client, peer]): (usize, &[u16; 2])| {
        let directory = TempDir::new().expect("a directory");
        let arguments = vec![
            format!("--name=m{number}"),
            format!("--data-dir={}", directory.path().join("data").display()),
            format!("--listen-client-urls={}", url(*client)),
            format!("--advertise-client-urls={}", url(*client)),
            format!("--listen-peer-urls={}", url(*peer)),
            format!("--initial-advertise-peer-urls={}", url(*peer)),
            format!("--initial-cluster={}", all.join(",")),
        ];
        let mut member = Member { process: None, arguments, directory };
        member.start();
        member
    };
    ports.iter().take(count).enumerate().map(member).collect()
}

impl Cluster {
    /// One server on its own store.
    pub(super) async fn embedded() -> Self {
        Self { servers: vec![ApiServer::start().await], members: Vec::new(), proxies: Vec::new() }
    }

    /// Servers on etcd.
    pub(super) async fn on_etcd(count: usize, servers: usize) -> Self {
        let ports: Vec<[u16; 2]> = (0..count).map(|_| [free_port(), free_port()]).collect();
        let members = members(count, &ports);
        let mut cluster = Self { servers: Vec::new(), members, proxies: Vec::new() };
        for _ in 0..servers {
            let mut proxies = Vec::new();
            for [client, _] in &ports {
                proxies.push(Proxy::to(*client).await);
            }
            let urls: Vec<String> = proxies.iter().map(|p| format!("http://127.0.0.1:{}", p.port())).collect();
            cluster.servers.push(ApiServer::start_with(&[&format!("--etcd-servers={}", urls.join(","))]).await);
            cluster.proxies.push(proxies);
        }
        cluster
    }

    /// A client of each server. None of them tries anything twice by itself.
    pub(super) async fn clients(&self) -> Vec<Client> {
        let mut clients = Vec::new();
        for server in &self.servers {
            clients.push(server.plain_client(ADMIN_TOKEN).await);
        }
        clients
    }

    /// Lets one fault follow the other until the end, and tells which there were.
    pub(super) async fn suffer(&mut self, random: Random, ends: Instant) -> Vec<&'static str> {
        let mut faults = Vec::new();
        let kinds: &[&'static str] = if self.members.is_empty() {
            &["server killed", "server stopped"]
        } else {
            &["server killed", "server stopped", "member killed", "member stopped", "slow", "frozen", "cut", "cut off"]
        };
        while Instant::now() < ends {
            pause(200 + random.below(800)).await;
            let fault = *random.pick(kinds);
            self.one(fault, &random).await;
            faults.push(fault);
        }
        faults
    }

    async fn one(&mut self, fault: &str, random: &Random) {
        let lasting = 100 + random.below(1400);
        let server = random.below(self.servers.len() as u64) as usize;
        match fault {
            "server killed" => {
                self.servers[server].kill();
                pause(random.below(500)).await;
                self.servers[server].restart().await;
            }
            "server stopped" => stopped(self.servers[server].id(), lasting).await,
            "member killed" => {
                let member = random.below(self.members.len() as u64) as usize;
                self.members[member].process = None;
                pause(lasting).await;
                self.members[member].start();
            }
            "member stopped" => {
                let member = random.pick(&self.members);
                stopped(member.process.as_ref().map_or(0, Process::id), lasting).await;
            }
            "slow" => {
                let delay = Duration::from_millis(5 + random.below(100));
                self.weather(&self.proxies[server], Weather::Slow(delay), lasting).await;
            }
            "frozen" => self.weather(&self.proxies[server], Weather::Frozen, lasting).await,
            "cut" => self.weather(&self.proxies[server], Weather::Cut, 0).await,
            "cut off" => self.weather(&self.proxies[server], Weather::Cut, lasting).await,
            other => panic!("no fault {other}"),
        }
    }

    /// The weather between a server and its store.
    pub(super) fn set_weather(&self, server: usize, weather: Weather) {
        self.proxies[server].iter().for_each(|proxy| proxy.set(weather));
    }

    async fn weather(&self, proxies: &[Proxy], weather: Weather, lasting: u64) {
        proxies.iter().for_each(|proxy| proxy.set(weather));
        pause(lasting).await;
        proxies.iter().for_each(|proxy| proxy.set(Weather::Fair));
    }

    /// Starts again what does not run.
    pub(super) async fn heal(&mut self) {
        for member in &mut self.members {
            if member.process.as_mut().is_none_or(|process| process.ended().is_some()) {
                member.start();
            }
        }
    }
}

/// The length of a fault.
async fn pause(milliseconds: u64) {
    tokio::time::sleep(Duration::from_millis(milliseconds)).await;
}

/// A process stands still for a while.
async fn stopped(id: u32, lasting: u64) {
    let id = Pid::from_raw(i32::try_from(id).expect("a process id"));
    if id.as_raw() > 0 && kill(id, Signal::SIGSTOP).is_ok() {
        pause(lasting).await;
        kill(id, Signal::SIGCONT).expect("it is there");
    }
}

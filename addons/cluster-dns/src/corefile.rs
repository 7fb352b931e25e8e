//! The configuration: a Corefile with the plugins that a cluster's DNS uses.
//!
//! ```text
//! .:53 {                       zones and port of a block; the block with the longest zone answers
//!     kubernetes cluster.local in-addr.arpa ip6.arpa { pods insecure }
//!     forward . /etc/resolv.conf
//! }
//! ```
//! A plugin or option that is not known is an error: nothing is ignored.

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use hickory_proto::rr::Name;

use crate::{
    name::parse as parse_name,
    zone::{PodRecords, ZoneSettings},
};

/// A Corefile that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {text}")]
pub struct CorefileError {
    line: usize,
    text: String,
}

/// Where questions are forwarded to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Upstream {
    /// A server.
    Address(SocketAddr),
    /// The servers of a resolv.conf.
    File(PathBuf),
}

/// Order in which upstream servers are asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// Any order.
    Random,
    /// In turn.
    RoundRobin,
    /// As they are given.
    Sequential,
}

/// `forward`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forward {
    /// Names this is for.
    pub from: Name,
    /// Names below `from` this is not for.
    pub except: Vec<Name>,
    /// Servers.
    pub to: Vec<Upstream>,
    /// Their order.
    pub policy: Policy,
    /// Questions at once.
    pub max_concurrent: usize,
    /// Ask over TCP always.
    pub force_tcp: bool,
}

/// `cache`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheSettings {
    /// Longest time of positive answers.
    pub success: Duration,
    /// Longest time of negative answers.
    pub denial: Duration,
    /// Answers of each sort.
    pub capacity: usize,
    /// Zones whose positive answers are not kept.
    pub no_success: Vec<Name>,
    /// Zones whose negative answers are not kept.
    pub no_denial: Vec<Name>,
}

/// Settings of some zones.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// The zones.
    pub zones: Vec<Name>,
    /// The cluster's zone.
    pub kubernetes: Option<ZoneSettings>,
    /// Upstreams.
    pub forwards: Vec<Forward>,
    /// Keeping of answers.
    pub cache: Option<CacheSettings>,
    /// Whether addresses of an answer are shuffled.
    pub loadbalance: bool,
    /// Whether questions are logged.
    pub log: bool,
    /// Whether upstreams are tested for leading back here.
    pub detect_loops: bool,
}

/// The whole configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Settings by zone.
    pub blocks: Vec<Block>,
    /// Port of DNS.
    pub port: u16,
    /// Addresses DNS listens on; empty for all.
    pub bind: Vec<IpAddr>,
    /// Address of `/health`.
    pub health: Option<SocketAddr>,
    /// Time to go on answering after the order to stop.
    pub lameduck: Duration,
    /// Address of `/ready`.
    pub ready: Option<SocketAddr>,
    /// Address of `/metrics`.
    pub prometheus: Option<SocketAddr>,
    /// Time between looks at the file.
    pub reload: Option<Duration>,
}

impl Config {
    /// Whether names of Pods need the Pods.
    pub fn needs_pods(&self) -> bool {
        self.blocks.iter().filter_map(|b| b.kubernetes.as_ref()).any(|k| k.pods == PodRecords::Verified)
    }
}

/// Questions at once where no limit is given.
const MAX_CONCURRENT: usize = 4096;
const CAPACITY: usize = 9984;
const TTL: u32 = 5;

/// A line: its number and words. Braces are words.
struct Line {
    number: usize,
    words: Vec<String>,
}

impl Line {
    fn fail<T>(&self, text: impl Into<String>) -> Result<T, CorefileError> {
        Err(CorefileError { line: self.number, text: text.into() })
    }

    fn name(&self, word: &str) -> Result<Name, CorefileError> {
        let text = if word == "." { "" } else { word };
        match parse_name(text) {
            Some(name) => Ok(name),
            None => self.fail(format!("{word:?} is not a name")),
        }
    }

    fn names(&self, words: &[String]) -> Result<Vec<Name>, CorefileError> {
        words.iter().map(|w| self.name(w)).collect()
    }

    fn number<T: std::str::FromStr>(&self, word: &str) -> Result<T, CorefileError> {
        word.parse().or_else(|_| self.fail(format!("{word:?} is not a number in range")))
    }

    fn duration(&self, word: &str) -> Result<Duration, CorefileError> {
        runtime::flags::duration(word).or_else(|_| self.fail(format!("{word:?} is not a duration")))
    }

    /// An address such as `:8080`.
    fn listen(&self, word: Option<&String>, default: &str) -> Result<SocketAddr, CorefileError> {
        let word = word.map_or(default, String::as_str);
        let full = if word.starts_with(':') { format!("[::]{word}") } else { word.replace("localhost", "127.0.0.1") };
        full.parse().or_else(|_| self.fail(format!("{word:?} is not an address with a port")))
    }

    fn none(&self, rest: &[String]) -> Result<(), CorefileError> {
        if rest.is_empty() { Ok(()) } else { self.fail(format!("unexpected {:?}", rest.join(" "))) }
    }

    fn unknown<T>(&self) -> Result<T, CorefileError> {
        self.fail(format!("unknown option {:?}", self.words.join(" ")))
    }
}

/// A plugin with its options.
struct Plugin {
    line: Line,
    options: Vec<Line>,
}

impl Plugin {
    fn arguments(&self) -> &[String] {
        self.line.words.get(1..).unwrap_or_default()
    }

    fn without_options(&self) -> Result<(), CorefileError> {
        self.options.first().map_or(Ok(()), Line::unknown)
    }
}

/// Reads a Corefile.
pub fn parse(text: &str) -> Result<Config, CorefileError> {
    let mut config = Config {
        blocks: Vec::new(),
        port: 53,
        bind: Vec::new(),
        health: None,
        lameduck: Duration::ZERO,
        ready: None,
        prometheus: None,
        reload: None,
    };
    let mut port = None;
    for (head, plugins) in blocks(lines(text))? {
        let mut block = Block {
            zones: Vec::new(),
            kubernetes: None,
            forwards: Vec::new(),
            cache: None,
            loadbalance: false,
            log: false,
            detect_loops: false,
        };
        for word in &head.words {
            let word = word.trim_end_matches(',').trim_start_matches("dns://");
            let (zone, given) = word.rsplit_once(':').unwrap_or((word, "53"));
            let given: u16 = head.number(given)?;
            if *port.get_or_insert(given) != given {
                return head.fail("all blocks must have the same port");
            }
            block.zones.push(head.name(if zone.is_empty() { "." } else { zone })?);
        }
        for plugin in &plugins {
            apply(plugin, &mut block, &mut config)?;
        }
        config.blocks.push(block);
    }
    config.port = port.unwrap_or(53);
    if config.blocks.is_empty() {
        return Err(CorefileError { line: 1, text: "there is no server block".into() });
    }
    Ok(config)
}

fn lines(text: &str) -> Vec<Line> {
    let mut all = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.split('#').next().unwrap_or("");
        // `name { option }` on one line is the same as on three.
        let mut words: Vec<String> = Vec::new();
        for word in line.split_whitespace() {
            let is_brace = word == "{" || word == "}";
            if word == "}" && !words.is_empty() {
                all.push(Line { number: number + 1, words: std::mem::take(&mut words) });
            }
            words.push(word.trim_matches('"').to_owned());
            if is_brace {
                all.push(Line { number: number + 1, words: std::mem::take(&mut words) });
            }
        }
        if !words.is_empty() {
            all.push(Line { number: number + 1, words });
        }
    }
    all
}

fn blocks(lines: Vec<Line>) -> Result<Vec<(Line, Vec<Plugin>)>, CorefileError> {
    let mut done = Vec::new();
    let mut block: Option<(Line, Vec<Plugin>)> = None;
    let mut in_plugin = false;
    for mut line in lines {
        let opens = line.words.last().is_some_and(|w| w == "{");
        let closes = line.words.first().is_some_and(|w| w == "}");
        if opens {
            line.words.pop();
        }
        match block.as_mut() {
            None if opens && !line.words.is_empty() => block = Some((line, Vec::new())),
            None => return line.fail("a server block was expected"),
            Some(_) if closes && in_plugin => in_plugin = false,
            Some(_) if closes => done.extend(block.take()),
            Some((_, plugins)) if in_plugin => match plugins.last_mut() {
                Some(plugin) if !opens => plugin.options.push(line),
                _ => return line.fail("unexpected {"),
            },
            Some(_) if line.words.is_empty() => return line.fail("unexpected {"),
            Some((_, plugins)) => {
                plugins.push(Plugin { line, options: Vec::new() });
                in_plugin = opens;
            }
        }
    }
    match block {
        Some((head, _)) => head.fail("the block is not closed"),
        None => Ok(done),
    }
}

fn apply(plugin: &Plugin, block: &mut Block, config: &mut Config) -> Result<(), CorefileError> {
    let line = &plugin.line;
    let arguments = plugin.arguments();
    let name = line.words.first().map_or("", String::as_str);
    if !matches!(name, "kubernetes" | "forward" | "cache" | "health") {
        plugin.without_options()?;
    }
    match name {
        // Errors are logged always.
        "errors" => line.none(arguments),
        "log" => {
            block.log = true;
            line.none(arguments)
        }
        "loop" => {
            block.detect_loops = true;
            line.none(arguments)
        }
        "loadbalance" => {
            block.loadbalance = true;
            if arguments.iter().all(|a| a == "round_robin") { Ok(()) } else { line.unknown() }
        }
        "reload" => {
            // The second duration is a jitter; one file is read by few, and no jitter is needed.
            let every = arguments.first().map_or(Ok(Duration::from_secs(30)), |w| line.duration(w))?;
            config.reload = Some(every.max(Duration::from_secs(2)));
            arguments.get(1).map_or(Ok(()), |w| line.duration(w).map(drop))
        }
        "bind" => {
            for word in arguments {
                let Ok(address) = word.parse() else { return line.fail(format!("{word:?} is not an address")) };
                config.bind.push(address);
            }
            Ok(())
        }
        "ready" => {
            config.ready = Some(line.listen(arguments.first(), ":8181")?);
            Ok(())
        }
        "prometheus" => {
            config.prometheus = Some(line.listen(arguments.first(), "127.0.0.1:9153")?);
            Ok(())
        }
        "health" => {
            config.health = Some(line.listen(arguments.first(), ":8080")?);
            for option in &plugin.options {
                match option.words.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
                    ["lameduck", time] => config.lameduck = option.duration(time)?,
                    _ => return option.unknown(),
                }
            }
            Ok(())
        }
        "kubernetes" => {
            block.kubernetes = Some(kubernetes(plugin, block)?);
            Ok(())
        }
        "forward" => {
            block.forwards.push(forward(plugin)?);
            Ok(())
        }
        "cache" => {
            block.cache = Some(cache(plugin)?);
            Ok(())
        }
        other => line.fail(format!("unknown plugin {other:?}")),
    }
}

fn kubernetes(plugin: &Plugin, block: &Block) -> Result<ZoneSettings, CorefileError> {
    let line = &plugin.line;
    let mut zones = line.names(plugin.arguments())?;
    if zones.is_empty() {
        zones.clone_from(&block.zones);
    }
    let is_reverse = |n: &Name| n.to_lowercase().to_ascii().ends_with(".arpa.");
    let reverse = zones.iter().any(is_reverse);
    zones.retain(|n| !is_reverse(n));
    let [origin] = zones.as_slice() else { return line.fail("kubernetes takes one domain besides reverse zones") };
    let mut settings = ZoneSettings {
        origin: origin.to_lowercase(),
        reverse,
        pods: PodRecords::Disabled,
        ttl: TTL,
        endpoint_pod_names: false,
    };
    for option in &plugin.options {
        match option.words.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
            ["pods", "disabled"] => settings.pods = PodRecords::Disabled,
            ["pods", "insecure"] => settings.pods = PodRecords::Insecure,
            ["pods", "verified"] => settings.pods = PodRecords::Verified,
            ["endpoint_pod_names"] => settings.endpoint_pod_names = true,
            ["ttl", ttl] => {
                settings.ttl = option.number(ttl)?;
                if settings.ttl > 3600 {
                    return option.fail("ttl must be in range [0, 3600]");
                }
            }
            // Foreign addresses of the reverse zones are forwarded always.
            ["fallthrough", zones @ ..] if zones.iter().all(|z| z.ends_with(".arpa")) && !zones.is_empty() => {}
            _ => return option.unknown(),
        }
    }
    Ok(settings)
}

fn forward(plugin: &Plugin) -> Result<Forward, CorefileError> {
    let line = &plugin.line;
    let [from, to @ ..] = plugin.arguments() else { return line.fail("forward needs a name and servers") };
    let mut settings = Forward {
        from: line.name(from)?,
        except: Vec::new(),
        to: Vec::new(),
        policy: Policy::Random,
        max_concurrent: MAX_CONCURRENT,
        force_tcp: false,
    };
    for word in to {
        let plain = word.trim_start_matches("dns://");
        let upstream = if plain.starts_with('/') {
            Upstream::File(plain.into())
        } else if let Ok(address) = plain.parse::<IpAddr>() {
            Upstream::Address((address, 53).into())
        } else if let Ok(address) = plain.parse() {
            Upstream::Address(address)
        } else {
            return line.fail(format!("{word:?} is neither an address nor a file"));
        };
        settings.to.push(upstream);
    }
    if settings.to.is_empty() {
        return line.fail("forward needs servers");
    }
    for option in &plugin.options {
        match option.words.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
            ["max_concurrent", number] => {
                let number: usize = option.number(number)?;
                settings.max_concurrent = if number == 0 { MAX_CONCURRENT } else { number.min(1 << 16) };
            }
            ["except", ..] => settings.except = option.names(option.words.get(1..).unwrap_or_default())?,
            ["policy", "random"] => settings.policy = Policy::Random,
            ["policy", "round_robin"] => settings.policy = Policy::RoundRobin,
            ["policy", "sequential"] => settings.policy = Policy::Sequential,
            ["force_tcp"] => settings.force_tcp = true,
            // Over UDP is how servers are asked unless `force_tcp` says otherwise.
            ["prefer_udp"] => {}
            _ => return option.unknown(),
        }
    }
    Ok(settings)
}

fn cache(plugin: &Plugin) -> Result<CacheSettings, CorefileError> {
    let line = &plugin.line;
    let ttl = match plugin.arguments() {
        [] => None,
        [ttl] => Some(Duration::from_secs(line.number::<u32>(ttl)?.into())),
        _ => return line.fail("cache with zones is not supported, use a server block"),
    };
    let mut settings = CacheSettings {
        success: ttl.unwrap_or(Duration::from_secs(3600)),
        denial: ttl.unwrap_or(Duration::from_secs(1800)),
        capacity: CAPACITY,
        no_success: Vec::new(),
        no_denial: Vec::new(),
    };
    for option in &plugin.options {
        let words: Vec<&str> = option.words.iter().map(String::as_str).collect();
        match words.as_slice() {
            ["success" | "denial", capacity, rest @ ..] if rest.len() <= 1 => {
                settings.capacity = option.number::<usize>(capacity)?.clamp(1, 1 << 16);
                let ttl = rest.first().map(|t| option.number::<u32>(t)).transpose()?;
                if let Some(ttl) = ttl.map(|t| Duration::from_secs(t.into())) {
                    *(if words.first() == Some(&"success") { &mut settings.success } else { &mut settings.denial }) =
                        ttl;
                }
            }
            ["disable", sort @ ("success" | "denial"), ..] => {
                let mut zones = option.names(option.words.get(2..).unwrap_or_default())?;
                if zones.is_empty() {
                    zones.push(Name::root());
                }
                *(if *sort == "success" { &mut settings.no_success } else { &mut settings.no_denial }) = zones;
            }
            _ => return option.unknown(),
        }
    }
    Ok(settings)
}

#[cfg(test)]
mod tests;

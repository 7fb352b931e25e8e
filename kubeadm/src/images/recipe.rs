//! What goes into an image made from installed programs.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use super::Purpose;
use crate::{
    constants::PROGRAMS_OF_CONTAINERS,
    error::{Context, Error, Result, fail},
    host::{Host, PathKind, Program},
};

/// Places of the certificates that clients trust.
const CERTIFICATES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];
/// Where Go and OpenSSL look first.
const CERTIFICATES_IN_IMAGE: &str = "/etc/ssl/certs/ca-certificates.crt";
/// Names under which iptables' program answers.
const IPTABLES: [&str; 6] =
    ["iptables", "iptables-save", "iptables-restore", "ip6tables", "ip6tables-save", "ip6tables-restore"];
/// Directories that hold directories of iptables' extensions.
const LIBRARY_ROOTS: [&str; 4] = ["/usr/lib", "/usr/lib64", "/lib", "/lib64"];

/// One entry of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// A copy of a file of this host.
    Copy(PathBuf),
    /// A text.
    Text(&'static str),
    /// A symbolic link.
    Link(String),
    /// An empty directory anyone may write to.
    Scratch,
}

/// The content of an image.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recipe {
    /// Entries by path.
    pub entries: BTreeMap<PathBuf, Entry>,
    /// What is started.
    pub entrypoint: Vec<String>,
}

/// Name of the program of an image.
pub(super) fn program_of(purpose: Purpose) -> &'static str {
    match purpose {
        Purpose::Component(name) | Purpose::Addon(name) => name,
        Purpose::Dns => "cluster-dns",
        Purpose::Network => "pod-network",
        Purpose::Storage => "local-path",
        Purpose::Pause => "pause",
        Purpose::Etcd => "etcd",
    }
}

/// The program of a purpose: in `programs`, the directory of the installed programs, or where packages put it.
pub fn installed(host: &dyn Host, purpose: Purpose, programs: &Path) -> Option<PathBuf> {
    let name = program_of(purpose);
    if purpose == Purpose::Etcd {
        return host.find_program(name);
    }
    let places = [programs, Path::new(PROGRAMS_OF_CONTAINERS)].map(|place| place.join(name));
    places.into_iter().find(|path| host.kind(path) == Some(PathKind::File))
}

/// Finds out what an image is made of. `programs` is the directory of the installed programs.
pub fn recipe(host: &dyn Host, purpose: Purpose, programs: &Path) -> Result<Recipe> {
    let name = program_of(purpose);
    let Some(source) = installed(host, purpose, programs) else {
        return fail!("program {name:?} is not installed in {}", programs.display());
    };
    let mut recipe = Recipe::default();
    let inside = match purpose {
        Purpose::Pause => PathBuf::from("/pause"),
        _ => PathBuf::from("/usr/local/bin").join(name),
    };
    recipe.entrypoint = vec![inside.to_string_lossy().into_owned()];
    recipe.entries.insert(inside, Entry::Copy(source.clone()));
    let mut linked = vec![source];
    if purpose == Purpose::Etcd {
        linked.extend(extra_program(host, &mut recipe, "etcdctl"));
    }
    if matches!(purpose, Purpose::Component("kube-proxy") | Purpose::Network) {
        linked.extend(network_tools(host, &mut recipe)?);
    }
    if purpose == Purpose::Network {
        cni_plugins(host, &mut recipe, &mut linked);
    }
    for library in libraries(host, &linked)? {
        recipe.entries.insert(library.clone(), Entry::Copy(library));
    }
    if purpose != Purpose::Pause {
        surroundings(host, &mut recipe);
    }
    Ok(recipe)
}

/// iptables with its extensions, and what else changes a network, as far as it is installed.
fn network_tools(host: &dyn Host, recipe: &mut Recipe) -> Result<Vec<PathBuf>> {
    let mut linked = Vec::new();
    let Some(iptables) = host.find_program("iptables") else {
        return fail!("iptables is not installed");
    };
    let program = host.real_path(&iptables).with_context(|| format!("cannot follow {}", iptables.display()))?;
    let file = program.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    recipe.entries.insert(Path::new("/usr/sbin").join(&file), Entry::Copy(program.clone()));
    for name in IPTABLES {
        recipe.entries.insert(Path::new("/usr/sbin").join(name), Entry::Link(file.clone()));
    }
    linked.push(program);
    for extension in extensions(host) {
        linked.push(extension.clone());
        recipe.entries.insert(extension.clone(), Entry::Copy(extension));
    }
    for name in ["ip", "bridge", "nft", "conntrack", "ipset", "sysctl", "modprobe"] {
        linked.extend(extra_program(host, recipe, name));
    }
    Ok(linked)
}

fn extra_program(host: &dyn Host, recipe: &mut Recipe, name: &str) -> Option<PathBuf> {
    let program = host.real_path(&host.find_program(name)?).ok()?;
    recipe.entries.insert(Path::new("/usr/sbin").join(name), Entry::Copy(program.clone()));
    Some(program)
}

/// iptables' extensions: `xtables` directories below the directories of libraries.
fn extensions(host: &dyn Host) -> Vec<PathBuf> {
    let mut found = BTreeSet::new();
    for root in LIBRARY_ROOTS.map(Path::new) {
        // /lib may be a link to /usr/lib; the real one is enough.
        if host.real_path(root).is_ok_and(|real| real != root) {
            continue;
        }
        let below = host.list(root).unwrap_or_default();
        let candidates = below.iter().map(|d| d.join("xtables")).chain([root.join("xtables")]);
        for directory in candidates.filter(|d| host.kind(d) == Some(PathKind::Directory)) {
            let libraries = host.list(&directory).unwrap_or_default();
            found.extend(libraries.into_iter().filter(|f| f.extension().is_some_and(|e| e == "so")));
        }
    }
    found.into_iter().collect()
}

/// The standard CNI plugins of this host, for hosts that have none.
fn cni_plugins(host: &dyn Host, recipe: &mut Recipe, linked: &mut Vec<PathBuf>) {
    let directories = ["/opt/cni/bin", "/usr/lib/cni", "/usr/libexec/cni"].map(Path::new);
    for name in ["bridge", "host-local", "loopback", "portmap", "bandwidth", "firewall"] {
        let plugin = directories.iter().map(|d| d.join(name)).find(|p| host.kind(p) == Some(PathKind::File));
        if let Some(plugin) = plugin {
            recipe.entries.insert(Path::new("/opt/cni/bin").join(name), Entry::Copy(plugin.clone()));
            linked.push(plugin);
        }
    }
}

/// Files that programs expect around them.
fn surroundings(host: &dyn Host, recipe: &mut Recipe) {
    let texts = [
        (
            "/etc/passwd",
            "root:x:0:0:root:/root:/sbin/nologin\nnobody:x:65534:65534:nobody:/nonexistent:/sbin/nologin\n",
        ),
        ("/etc/group", "root:x:0:\nnogroup:x:65534:\n"),
        ("/etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files dns\n"),
    ];
    for (path, text) in texts {
        recipe.entries.insert(path.into(), Entry::Text(text));
    }
    recipe.entries.insert("/tmp".into(), Entry::Scratch);
    if let Some(bundle) = CERTIFICATES.map(Path::new).into_iter().find(|p| host.kind(p) == Some(PathKind::File)) {
        recipe.entries.insert(CERTIFICATES_IN_IMAGE.into(), Entry::Copy(bundle.to_owned()));
    }
}

/// The shared libraries and the loader that programs need, as `ldd` finds them.
fn libraries(host: &dyn Host, programs: &[PathBuf]) -> Result<BTreeSet<PathBuf>> {
    let args = programs.iter().map(|p| p.to_string_lossy().into_owned());
    let answer = host.run(&Program::new("ldd", args)).context("cannot find shared libraries with ldd")?;
    let mut found = parse_ldd(&answer.stdout)?;
    // Older C libraries load the resolver's parts by name.
    let near: Vec<PathBuf> = found.iter().filter_map(|l| l.parent().map(Path::to_owned)).collect();
    for directory in near {
        for name in ["libnss_files.so.2", "libnss_dns.so.2", "libresolv.so.2"] {
            let library = directory.join(name);
            if host.kind(&library) == Some(PathKind::File) {
                found.insert(library);
            }
        }
    }
    Ok(found)
}

/// Paths in the output of `ldd`: `name => /path (0x…)` and `/path (0x…)`.
pub(super) fn parse_ldd(text: &str) -> Result<BTreeSet<PathBuf>> {
    let mut found = BTreeSet::new();
    for line in text.lines().map(str::trim) {
        if line.contains("=> not found") {
            return Err(Error::new(format!("missing shared library: {line}")));
        }
        let place = line.split_once(" => ").map_or(line, |(_, place)| place);
        if let Some((path, _)) = place.split_once(" (0x")
            && path.starts_with('/')
        {
            found.insert(PathBuf::from(path));
        }
    }
    Ok(found)
}

//! `kubectl cluster-info`.

use std::{
    io::Write,
    path::{Path, PathBuf},
    sync::Arc,
};

use machinery::meta;
use parking_lot::Mutex;
use serde_json::Value;

use crate::{
    cluster::Call,
    command::Command,
    context::Context,
    error::CommandError,
    flags::Flag,
    kubeconfig::files::go_io_text,
    print::{self, Printer},
    streams::Output,
};

/// The command.
pub(crate) fn command() -> Command {
    Command::new("cluster-info", "Display cluster information")
        .usage("[flags]")
        .commands(vec![
            Command::new("dump", "Dump relevant information for debugging and diagnosis")
                .usage("[flags]")
                .flags(print::flags().into_iter().map(|f| if f.name == "output" { f.preset("json") } else { f }))
                .flags([
                    Flag::duration("pod-running-timeout", "20s", "Time for the log of a container to begin."),
                    Flag::switch("all-namespaces", "Dump all namespaces.").short('A'),
                    Flag::list("namespaces", "Namespaces to dump."),
                    Flag::text("output-directory", "", "Directory of the files; '-' for standard output."),
                ])
                .runs(|context| Box::pin(dump(context))),
        ])
        .runs(|context| Box::pin(run(context)))
}

async fn run(context: &Context) -> Result<(), CommandError> {
    let cluster = context.cluster().await?;
    let mut out = context.streams.out.clone();
    let namespace = if cluster.enforced { cluster.namespace.as_str() } else { "kube-system" };
    let call = Call::get(&format!("/api/v1/namespaces/{namespace}/services"))
        .query("labelSelector", "kubernetes.io/cluster-service=true");
    let services = cluster.json(&call).await?;
    line(&mut out, "Kubernetes control plane", &cluster.server)?;
    for service in services["items"].as_array().into_iter().flatten() {
        let name = service["metadata"]["labels"]["kubernetes.io/name"].as_str().unwrap_or(meta::name(service));
        line(&mut out, name, &link(&cluster.server, service))?;
    }
    writeln!(out, "\nTo further debug and diagnose cluster problems, use 'kubectl cluster-info dump'.")?;
    Ok(())
}

fn line(out: &mut crate::streams::Output, name: &str, link: &str) -> Result<(), CommandError> {
    match out.is_terminal() {
        true => writeln!(out, "\u{1b}[0;32m{name}\u{1b}[0m is running at \u{1b}[0;33m{link}\u{1b}[0m")?,
        false => writeln!(out, "{name} is running at {link}")?,
    }
    Ok(())
}

/// Where a Service is reached: its load balancer, or through the server.
fn link(server: &str, service: &Value) -> String {
    let ports = service["spec"]["ports"].as_array().map_or(&[] as &[Value], Vec::as_slice);
    let ingress = service["status"]["loadBalancer"]["ingress"].as_array().and_then(|i| i.first());
    if let Some(ingress) = ingress {
        let address = ingress["ip"].as_str().or(ingress["hostname"].as_str()).unwrap_or("");
        let links: Vec<String> = ports.iter().map(|p| format!("http://{address}:{}", p["port"])).collect();
        return links.join(" ");
    }
    let mut name = meta::name(service).to_owned();
    if let Some(port) = ports.first() {
        let secure = port["port"] == 443 || port["name"] == "https";
        let scheme = if secure { "https:" } else { "" };
        name = format!("{scheme}{name}:{}", port["name"].as_str().unwrap_or(""));
    }
    format!("{server}/api/v1/namespaces/{}/services/{name}/proxy", meta::namespace(service))
}

/// What a printer wrote.
#[derive(Clone, Default)]
struct Captured(Arc<Mutex<Vec<u8>>>);

impl Write for Captured {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Where a dump goes.
struct Dump<'a> {
    context: &'a Context,
    directory: Option<PathBuf>,
    extension: &'static str,
    printer: Mutex<Printer>,
}

impl Dump<'_> {
    fn write(&self, file: &str, text: &[u8]) -> Result<(), CommandError> {
        let Some(directory) = &self.directory else {
            self.context.streams.out.clone().write_all(text)?;
            return Ok(());
        };
        let path = directory.join(file);
        let fail = |e: std::io::Error| CommandError::plain(format!("open {}: {}", path.display(), go_io_text(&e)));
        std::fs::create_dir_all(path.parent().unwrap_or(Path::new("."))).map_err(fail)?;
        std::fs::write(&path, text).map_err(fail)
    }

    /// GETs a list and writes it.
    async fn list(&self, path: &str, file: &str) -> Result<Value, CommandError> {
        let list = self.context.cluster().await?.get(path).await?;
        let text = Captured::default();
        let outcome = self.printer.lock().print_declared(&list, &mut Output::new(text.clone(), true));
        outcome?;
        self.write(&format!("{file}.{}", self.extension), &text.0.lock())?;
        Ok(list)
    }
}

async fn dump(context: &Context) -> Result<(), CommandError> {
    let flags = &context.flags;
    let printer = Printer::of(flags, &[])?.ok_or_else(|| CommandError::plain("an output format is required"))?;
    let cluster = context.cluster().await?;
    let directory = flags.non_empty("output-directory").filter(|d| *d != "-").map(PathBuf::from);
    let extension = match flags.text("output") {
        "json" => "json",
        "yaml" => "yaml",
        _ => "txt",
    };
    let dump = Dump { context, directory, extension, printer: Mutex::new(printer) };
    dump.list("/api/v1/nodes", "nodes").await?;
    let namespaces: Vec<String> = if flags.bool("all-namespaces") {
        let list = cluster.get("/api/v1/namespaces").await?;
        list["items"].as_array().into_iter().flatten().map(|n| meta::name(n).to_owned()).collect()
    } else if flags.list("namespaces").is_empty() {
        vec!["kube-system".to_owned(), cluster.namespace.clone()]
    } else {
        flags.list("namespaces").to_vec()
    };
    for namespace in &namespaces {
        dump_namespace(&dump, namespace).await?;
    }
    if let Some(directory) = &dump.directory {
        writeln!(context.streams.out.clone(), "Cluster info dumped to {}", directory.display())?;
    }
    Ok(())
}

async fn dump_namespace(dump: &Dump<'_>, namespace: &str) -> Result<(), CommandError> {
    for (group, plural, file) in [
        ("/api/v1", "events", "events"),
        ("/api/v1", "replicationcontrollers", "replication-controllers"),
        ("/api/v1", "services", "services"),
        ("/apis/apps/v1", "daemonsets", "daemonsets"),
        ("/apis/apps/v1", "deployments", "deployments"),
        ("/apis/apps/v1", "replicasets", "replicasets"),
    ] {
        dump.list(&format!("{group}/namespaces/{namespace}/{plural}"), &format!("{namespace}/{file}")).await?;
    }
    let pods = dump.list(&format!("/api/v1/namespaces/{namespace}/pods"), &format!("{namespace}/pods")).await?;
    let cluster = dump.context.cluster().await?;
    for pod in pods["items"].as_array().into_iter().flatten() {
        let name = meta::name(pod);
        let mut text: Vec<u8> = Vec::new();
        for list in ["initContainers", "containers"] {
            for container in pod["spec"][list].as_array().into_iter().flatten() {
                let container = container["name"].as_str().unwrap_or("");
                let place = format!("container {container} of pod {namespace}/{name}");
                text.extend(format!("==== START logs for {place} ====\n").bytes());
                let call =
                    Call::get(&format!("/api/v1/namespaces/{namespace}/pods/{name}/log")).query("container", container);
                let limit = dump.context.flags.duration("pod-running-timeout");
                match cluster.bytes(&call.within(limit)).await {
                    Ok(bytes) => text.extend(bytes),
                    Err(error) => text.extend(format!("Request log error: {error}\n").bytes()),
                }
                text.extend(format!("==== END logs for {place} ====\n").bytes());
            }
        }
        dump.write(&format!("{namespace}/{name}/logs.txt"), &text)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn service(ports: Value) -> Value {
        json!({"metadata": {"name": "s", "namespace": "n"}, "spec": {"ports": ports}})
    }

    #[test]
    fn services_are_reached_through_the_server() {
        let plain = service(json!([{"name": "dns", "port": 53}]));
        assert_eq!(link("https://h", &plain), "https://h/api/v1/namespaces/n/services/s:dns/proxy");
        let secure = service(json!([{"port": 443}]));
        assert_eq!(link("https://h", &secure), "https://h/api/v1/namespaces/n/services/https:s:/proxy");
    }
}

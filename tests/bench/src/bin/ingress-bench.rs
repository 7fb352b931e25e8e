//! The Ingress controller beside nginx: requests over kept connections, to one Service of some endpoints.
//!
//! Run `cargo run --release -p timonel-bench --bin ingress-bench` as root after building kube-apiserver and
//! timonel-ingress with `--release`. nginx is measured too if it is installed. Everything runs in a network namespace of
//! its own. Client and back ends take their share of the machine: CPU per request is the figure that compares.

use std::{
    os::unix::process::CommandExt,
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use bench::{Usage, figure, rate, send};
use clap::Parser;
use harness::{
    ApiServer,
    process::{Process, binary},
    server::ADMIN_TOKEN,
    wait_until,
};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

/// Settings of a run.
#[derive(Debug, Parser)]
struct Options {
    /// Connections.
    #[arg(long, default_value_t = 64)]
    connections: usize,
    /// Requests of each.
    #[arg(long, default_value_t = 2000)]
    requests: usize,
    /// Bytes of an answer's body.
    #[arg(long, default_value_t = 1024)]
    body: usize,
    /// Ingresses besides the one that is asked for.
    #[arg(long, default_value_t = 1000)]
    ingresses: usize,
    /// Set by the program itself once it is in its own network namespace.
    #[arg(long, hide = true)]
    isolated: bool,
}

const ADDRESS: &str = "10.62.0.1";
/// Ports of the back ends.
const BACKENDS: [u16; 3] = [9001, 9002, 9003];
const HTTP: u16 = 8080;
const NGINX: u16 = 8081;

fn main() {
    let options = Options::parse();
    if !options.isolated {
        let own = std::env::current_exe().expect("a path");
        let script =
            format!("ip link set lo up && ip address add {ADDRESS}/32 dev lo && exec \"$0\" \"$@\" --isolated");
        let arguments = std::env::args_os().skip(1);
        let error = Command::new("unshare").args(["--net", "sh", "-c", &script]).arg(own).args(arguments).exec();
        panic!("unshare: {error}");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(run(&options));
}

async fn run(options: &Options) {
    for port in BACKENDS {
        tokio::spawn(backend(port, options.body));
    }
    let server = ApiServer::start().await;
    let client = server.admin().await;
    objects(&client, options.ingresses).await;
    let arguments = [
        format!("--kubeconfig={}", server.kubeconfig_file(ADMIN_TOKEN).display()),
        format!("--http-port={HTTP}"),
        "--https-port=8443".to_owned(),
        "--update-status=false".to_owned(),
    ];
    let start = Instant::now();
    let controller = Process::start(&binary("timonel-ingress"), &arguments, server.path().join("ingress.log"));
    wait_until("the route", || async { answers(HTTP).await }).await;
    figure("Ingress controller: start to first answer", start.elapsed().as_secs_f64(), "s");
    figure("Ingress controller: memory before load", Usage::of(controller.id()).memory, "MB");
    measure("Ingress controller: a request", HTTP, &[controller.id()], options).await;
    figure("Ingress controller: memory after load", Usage::of(controller.id()).memory, "MB");

    let Some(mut nginx) = start_nginx(server.path()) else { return };
    wait_until("nginx", || async { answers(NGINX).await }).await;
    let workers = children(nginx.id());
    measure("nginx: a request", NGINX, &workers, options).await;
    figure("nginx: memory after load", workers.iter().map(|worker| Usage::of(*worker).memory).sum(), "MB");
    // It ends its workers only when it is asked to.
    let asked = Command::new("kill").arg(nginx.id().to_string()).status().expect("kill");
    assert!(asked.success(), "nginx is gone");
    while nginx.ended().is_none() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn objects(client: &kube::Client, ingresses: usize) {
    let class = json!({"metadata": {"name": "nginx"}, "spec": {"controller": "k8s.io/ingress-nginx"}});
    send(client, "POST", "/apis/networking.k8s.io/v1/ingressclasses", &class).await;
    let service = json!({"metadata": {"name": "web"}, "spec": {"ports": [{"name": "http", "port": 80}]}});
    send(client, "POST", "/api/v1/namespaces/default/services", &service).await;
    for port in BACKENDS {
        let slice = json!({"addressType": "IPv4", "ports": [{"name": "http", "port": port, "protocol": "TCP"}],
            "endpoints": [{"addresses": [ADDRESS], "conditions": {"ready": true}}],
            "metadata": {"name": format!("web-{port}"), "labels": {"kubernetes.io/service-name": "web"}}});
        send(client, "POST", "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices", &slice).await;
    }
    for number in 0..=ingresses {
        let host = if number == ingresses { "a.b.c".to_owned() } else { format!("h{number}.example") };
        let path = json!({"path": "/", "pathType": "Prefix",
            "backend": {"service": {"name": "web", "port": {"number": 80}}}});
        let ingress = json!({"metadata": {"name": format!("i{number}")},
            "spec": {"ingressClassName": "nginx", "rules": [{"host": host, "http": {"paths": [path]}}]}});
        send(client, "POST", "/apis/networking.k8s.io/v1/namespaces/default/ingresses", &ingress).await;
    }
}

/// A back end that answers everything with the same body.
async fn backend(port: u16, body: usize) {
    let listener = TcpListener::bind((ADDRESS, port)).await.expect("the port is free");
    let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {body}\r\n\r\n{}", "x".repeat(body));
    loop {
        let (mut stream, _) = listener.accept().await.expect("a connection");
        let answer = answer.clone();
        tokio::spawn(async move {
            let mut buffer = vec![0; 16 * 1024];
            let mut seen = Vec::new();
            while let Ok(count @ 1..) = stream.read(&mut buffer).await {
                seen.extend_from_slice(&buffer[..count]);
                if seen.ends_with(b"\r\n\r\n") {
                    seen.clear();
                    if stream.write_all(answer.as_bytes()).await.is_err() {
                        return;
                    }
                }
            }
        });
    }
}

/// One request and its answer.
async fn ask(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Result<(), String> {
    let failed = |error: std::io::Error| error.to_string();
    stream.write_all(b"GET /some/path HTTP/1.1\r\nHost: a.b.c\r\nUser-Agent: bench\r\n\r\n").await.map_err(failed)?;
    buffer.clear();
    loop {
        if stream.read_buf(buffer).await.map_err(failed)? == 0 {
            return Err("the connection ended".into());
        }
        let Some(end) = buffer.windows(4).position(|window| window == b"\r\n\r\n") else { continue };
        let head = String::from_utf8_lossy(&buffer[..end]).to_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse::<usize>().ok());
        if buffer.len() >= end + 4 + length.unwrap_or(0) {
            return if head.starts_with("http/1.1 200") { Ok(()) } else { Err(head) };
        }
    }
}

async fn answers(port: u16) -> Result<(), String> {
    let mut stream = TcpStream::connect((ADDRESS, port)).await.map_err(|error| error.to_string())?;
    ask(&mut stream, &mut Vec::new()).await
}

async fn measure(what: &str, port: u16, processes: &[u32], options: &Options) {
    let cpu = || -> f64 { processes.iter().map(|process| Usage::of(*process).cpu).sum() };
    let (start, before) = (Instant::now(), cpu());
    let requests = options.requests;
    let clients: Vec<_> = (0..options.connections)
        .map(|_| {
            tokio::spawn(async move {
                let mut stream = TcpStream::connect((ADDRESS, port)).await.expect("connected");
                stream.set_nodelay(true).expect("an option");
                let mut buffer = Vec::new();
                let mut times = Vec::with_capacity(requests);
                for _ in 0..requests {
                    let start = Instant::now();
                    ask(&mut stream, &mut buffer).await.expect("an answer");
                    times.push(start.elapsed());
                }
                times
            })
        })
        .collect();
    let mut times: Vec<Duration> = Vec::new();
    for client in clients {
        times.extend(client.await.expect("all requests were answered"));
    }
    rate(what, times.len(), cpu() - before, start.elapsed().as_secs_f64());
    times.sort_unstable();
    for (name, part) in [("median", 50), ("99th of 100", 99)] {
        let at = times[(times.len() * part / 100).min(times.len() - 1)];
        figure(&format!("{what}, {name}"), at.as_secs_f64() * 1e3, "ms");
    }
}

/// nginx with the same back ends, if it is installed.
fn start_nginx(directory: &Path) -> Option<Process> {
    let program = Path::new("/usr/sbin/nginx");
    if !program.exists() {
        println!("nginx is not installed");
        return None;
    }
    let servers: String = BACKENDS.iter().map(|port| format!("server {ADDRESS}:{port}; ")).collect();
    let configuration = format!(
        "daemon off; worker_processes 2; pid {0}/nginx.pid; error_log {0}/nginx-error.log; \
         events {{ worker_connections 4096; }} \
         http {{ access_log off; keepalive_requests 1000000; \
         client_body_temp_path {0}/t1; proxy_temp_path {0}/t2; fastcgi_temp_path {0}/t3; uwsgi_temp_path {0}/t4; scgi_temp_path {0}/t5; \
         upstream web {{ {servers} keepalive 320; keepalive_requests 1000000; }} \
         server {{ listen {ADDRESS}:{NGINX}; server_name a.b.c; location / {{ proxy_pass http://web; \
         proxy_http_version 1.1; proxy_set_header Connection \"\"; proxy_set_header Host $host; \
         proxy_set_header X-Real-IP $remote_addr; proxy_set_header X-Forwarded-For $remote_addr; \
         proxy_set_header X-Forwarded-Proto $scheme; proxy_set_header X-Request-ID $request_id; }} }} }}",
        directory.display()
    );
    let file = directory.join("nginx.conf");
    std::fs::write(&file, configuration).expect("written");
    let arguments = ["-c".to_owned(), file.display().to_string()];
    Some(Process::start(program, &arguments, directory.join("nginx.log")))
}

/// Processes that a process has started.
fn children(process: u32) -> Vec<u32> {
    let listed =
        Command::new("pgrep").args(["-P", &process.to_string()]).stderr(Stdio::null()).output().expect("pgrep");
    String::from_utf8_lossy(&listed.stdout).lines().filter_map(|line| line.trim().parse().ok()).collect()
}

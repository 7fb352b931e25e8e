//! Virtual machines on a [`Segment`], which do what they are told over a serial line.
//!
//! The agent on the other side is `tests/integration/tests/machines/agent.sh`.

use std::{
    io::{BufRead, BufReader, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use base64::{Engine, engine::general_purpose::STANDARD};

use crate::{
    guest::{EMULATOR, emulator, processors_and_disk},
    host::Segment,
    kubectl::Output,
    process::Process,
};

/// Time for a machine to boot. Its processors are emulated.
const UP: Duration = Duration::from_secs(900);
/// Time for one line.
const LINE: Duration = Duration::from_secs(1800);

/// A running machine; it ends when dropped.
#[derive(Debug)]
pub struct Machine {
    name: String,
    address: String,
    line: BufReader<UnixStream>,
    emulator: Process,
}

impl Machine {
    /// Boots a machine with address `<network>.<number>` on a segment from a disk of its own. What it keeps beside the disk
    /// is in `directory`.
    pub fn boot(
        segment: &Segment,
        name: &str,
        number: u8,
        memory: u32,
        initramfs: &Path,
        disk: &Path,
        directory: &Path,
    ) -> Self {
        let port = format!("tap{number}");
        segment.tap(&port);
        let address = format!("{}.{number}", segment.network());
        let told = format!("console=ttyS0 quiet panic=-1 machine.name={name} machine.address={address}");
        let socket = directory.join(format!("{name}.sock"));
        let mut arguments: Vec<String> = ["netns", "exec", segment.name(), EMULATOR].map(str::to_owned).into();
        arguments.extend(emulator(memory, initramfs, &told));
        arguments.extend(processors_and_disk(disk));
        arguments.extend(["-netdev".to_owned(), format!("tap,id=net,ifname={port},script=no,downscript=no")]);
        let card = format!("virtio-net-pci,netdev=net,romfile=,mac=52:54:00:00:00:{number:02x}");
        arguments.extend(["-device".to_owned(), card, "-serial".to_owned(), "stdio".to_owned()]);
        arguments.extend(["-serial".to_owned(), format!("unix:{},server=on,wait=off", socket.display())]);
        let emulator = Process::start(Path::new("ip"), &arguments, directory.join(format!("{name}.log")));
        let line = connect(&socket, &emulator);
        let mut machine = Self { name: name.to_owned(), address, line: BufReader::new(line), emulator };
        machine.wait_for_boot();
        machine
    }

    fn wait_for_boot(&mut self) {
        while self.next(UP) != "@ready" {}
    }

    /// What comes next on the line.
    fn next(&mut self, limit: Duration) -> String {
        let mut text = String::new();
        self.line.get_ref().set_read_timeout(Some(limit)).expect("a limit");
        let read = self.line.read_line(&mut text);
        let alive = read.as_ref().is_ok_and(|count| *count > 0);
        assert!(alive, "machine {} is silent ({read:?}): {}", self.name, self.console());
        text.trim_end().to_owned()
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its address.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// What its console has shown.
    pub fn console(&self) -> String {
        self.emulator.output()
    }

    /// Runs lines of shell; both outputs come as one.
    pub fn run(&mut self, line: &str) -> Output {
        let told = format!("{}\n", STANDARD.encode(line));
        self.line.get_mut().write_all(told.as_bytes()).expect("the line takes it");
        let code = loop {
            let next = self.next(LINE);
            if let Some(code) = next.strip_prefix("@begin ") {
                break code.parse().expect("an exit code");
            }
        };
        let mut encoded = String::new();
        loop {
            let next = self.next(LINE);
            if next == "@end" {
                break;
            }
            encoded.push_str(&next);
        }
        let out = STANDARD.decode(encoded).expect("base64");
        Output { out: String::from_utf8_lossy(&out).into_owned(), err: String::new(), code }
    }

    /// Runs lines of shell that must succeed.
    pub fn ok(&mut self, line: &str) -> String {
        let output = self.run(line);
        assert_eq!(output.code, 0, "on {}: {line}:\n{}", self.name, output.out);
        output.out
    }

    /// Repeats a line until it succeeds and its output is as wanted.
    pub fn until(&mut self, limit: Duration, line: &str, wanted: impl Fn(&str) -> bool) -> String {
        let start = Instant::now();
        loop {
            let output = self.run(line);
            if output.code == 0 && wanted(&output.out) {
                return output.out;
            }
            assert!(start.elapsed() < limit, "waited {limit:?} on {} for {line}:\n{}", self.name, output.out);
            std::thread::sleep(Duration::from_secs(2));
        }
    }

    /// Boots again, as an administrator does it.
    pub fn reboot(&mut self) {
        self.ok("sync; systemctl --no-block reboot");
        self.wait_for_boot();
    }

    /// Ends as when its power fails.
    pub fn power_off(mut self) {
        self.emulator.kill();
    }
}

/// The machine's second serial line.
fn connect(socket: &PathBuf, emulator: &Process) -> UnixStream {
    let start = Instant::now();
    loop {
        match UnixStream::connect(socket) {
            Ok(stream) => return stream,
            Err(error) => assert!(start.elapsed() < Duration::from_secs(30), "{error}: {}", emulator.output()),
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

//! What keeps the machine from going down at once: systemd's login daemon.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;

use crate::bus::{Bus, BusError, Call, Value};

const LOGIND: &str = "org.freedesktop.login1";
const LOGIND_PATH: &str = "/org/freedesktop/login1";
const LOGIND_INTERFACE: &str = "org.freedesktop.login1.Manager";
const SYSTEMD: &str = "org.freedesktop.systemd1";
const SYSTEMD_PATH: &str = "/org/freedesktop/systemd1";
const SYSTEMD_INTERFACE: &str = "org.freedesktop.systemd1.Manager";
const SIGNAL: &str = "PrepareForShutdown";

/// What this kubelet asks of it.
#[async_trait]
pub trait Logind: Send {
    /// How long the machine can be held up at most.
    async fn max_delay(&mut self) -> Result<Duration, BusError>;
    /// Asks for more; when it takes effect is left open.
    async fn set_max_delay(&mut self, delay: Duration) -> Result<(), BusError>;
    /// Holds the machine up for as long as the descriptor is open.
    async fn inhibit(&mut self) -> Result<OwnedFd, BusError>;
    /// The next news: whether the machine goes down. May be given up at any time.
    async fn prepares_for_shutdown(&mut self) -> Result<bool, BusError>;
}

/// The daemon of this machine.
pub struct SystemLogind {
    bus: Bus,
    drop_in: PathBuf,
}

impl SystemLogind {
    /// Connects; news are kept from now on. `drop_in` is the file that raises the longest delay.
    pub async fn connect(socket: &Path, drop_in: &Path) -> Result<Self, BusError> {
        let mut bus = Bus::connect(socket).await?;
        let rule = format!(
            "type='signal',sender='{LOGIND}',interface='{LOGIND_INTERFACE}',member='{SIGNAL}',path='{LOGIND_PATH}'"
        );
        bus.subscribe(&rule).await?;
        Ok(Self { bus, drop_in: drop_in.to_owned() })
    }
}

#[async_trait]
impl Logind for SystemLogind {
    async fn max_delay(&mut self) -> Result<Duration, BusError> {
        let answer = self
            .bus
            .call(Call {
                destination: LOGIND,
                path: LOGIND_PATH,
                interface: "org.freedesktop.DBus.Properties",
                member: "Get",
                args: vec![Value::text(LOGIND_INTERFACE), Value::text("InhibitDelayMaxUSec")],
            })
            .await?;
        match answer.values.first() {
            Some(Value::Variant(inner)) => match **inner {
                Value::Long(micros) => Ok(Duration::from_micros(micros)),
                _ => Err(BusError::Unexpected("InhibitDelayMaxUSec")),
            },
            _ => Err(BusError::Unexpected("InhibitDelayMaxUSec")),
        }
    }

    async fn set_max_delay(&mut self, delay: Duration) -> Result<(), BusError> {
        if let Some(dir) = self.drop_in.parent() {
            std::fs::create_dir_all(dir)?;
        }
        let text = format!("# Kubelet logind override\n[Login]\nInhibitDelayMaxSec={}\n", delay.as_secs());
        std::fs::write(&self.drop_in, text)?;
        let args = vec![Value::text("systemd-logind.service"), Value::text("all"), Value::Int(libc::SIGHUP)];
        let call =
            Call { destination: SYSTEMD, path: SYSTEMD_PATH, interface: SYSTEMD_INTERFACE, member: "KillUnit", args };
        self.bus.call(call).await.map(drop)
    }

    async fn inhibit(&mut self) -> Result<OwnedFd, BusError> {
        let args = ["shutdown", "kubelet", "Kubelet needs time to handle node shutdown", "delay"];
        let answer = self
            .bus
            .call(Call {
                destination: LOGIND,
                path: LOGIND_PATH,
                interface: LOGIND_INTERFACE,
                member: "Inhibit",
                args: args.map(Value::text).to_vec(),
            })
            .await?;
        answer.descriptors.into_iter().next().ok_or(BusError::Unexpected("Inhibit"))
    }

    async fn prepares_for_shutdown(&mut self) -> Result<bool, BusError> {
        loop {
            let signal = self.bus.signal().await?;
            // Names are given out by the bus, paths and members are checked here once more.
            if signal.member != SIGNAL || signal.interface != LOGIND_INTERFACE {
                continue;
            }
            if let Some(Value::Bool(begins)) = signal.body.first() {
                return Ok(*begins);
            }
        }
    }
}

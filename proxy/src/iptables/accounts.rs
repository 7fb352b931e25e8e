//! Counters of the kernel that rules add to, shown as metrics. One of each serves both families.

use prometheus::{
    Registry,
    core::{Collector, Desc},
    proto::{Counter, Metric, MetricFamily, MetricType},
};

use crate::netlink::{NetlinkError, Socket, Writer, attribute, flag};

/// Packets that belong to no connection and were dropped.
pub(crate) const INVALID: &str = "ct_state_invalid_dropped_pkts";
/// Packets that were taken by node ports on addresses of loopback.
pub(crate) const LOCALHOST: &str = "localhost_nps_accepted_pkts";

/// Subsystem of accounting, and its messages.
const NEW: u16 = 7 << 8;
const GET: u16 = (7 << 8) | 1;
/// Name of the counter, and its packets.
const NAME: u16 = 1;
const PACKETS: u16 = 2;
/// No family, version 0, no resource.
const HEADER: [u8; 4] = [0; 4];

/// Which counters there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Accounts {
    pub(crate) invalid: bool,
    pub(crate) localhost: bool,
}

fn make(name: &str) -> Result<(), NetlinkError> {
    let mut request = Writer::default();
    request.message(NEW, flag::CREATE | flag::ACK, |w| {
        w.raw(&HEADER);
        w.text(NAME, name);
    });
    match Socket::open(libc::NETLINK_NETFILTER)?.talk(&request, |_| {}) {
        // It is there already.
        Err(error) if matches!(error.errno(), Some(libc::EBUSY | libc::EEXIST)) => Ok(()),
        done => done,
    }
}

fn packets(name: &str) -> Result<u64, NetlinkError> {
    let mut request = Writer::default();
    request.message(GET, flag::ACK, |w| {
        w.raw(&HEADER);
        w.text(NAME, name);
    });
    let mut found = None;
    Socket::open(libc::NETLINK_NETFILTER)?.talk(&request, |payload| {
        let count = payload.get(HEADER.len()..).and_then(|rest| attribute(rest, PACKETS));
        found = count.and_then(|bytes| bytes.try_into().ok()).map(u64::from_be_bytes).or(found);
    })?;
    found.ok_or(NetlinkError::Malformed)
}

impl Accounts {
    /// Makes the counters. Where the kernel has none, rules do without.
    pub(crate) async fn ensure() -> Self {
        let ensure = |name: &'static str| async move {
            match tokio::task::spawn_blocking(move || make(name)).await {
                Ok(Ok(())) => true,
                Ok(Err(error)) => {
                    tracing::info!(counter = name, %error, "no counter; its metric is not shown");
                    false
                }
                Err(_) => false,
            }
        };
        Self { invalid: ensure(INVALID).await, localhost: ensure(LOCALHOST).await }
    }

    /// Shows the counters that there are.
    pub(crate) fn show(self, registry: &Registry) -> Result<(), prometheus::Error> {
        let metrics = [
            (
                self.invalid,
                INVALID,
                "kubeproxy_iptables_ct_state_invalid_dropped_packets_total",
                "[ALPHA] packets dropped by iptables to work around conntrack problems",
            ),
            (
                self.localhost,
                LOCALHOST,
                "kubeproxy_iptables_localhost_nodeports_accepted_packets_total",
                "[ALPHA] Number of packets accepted on nodeports of loopback interface",
            ),
        ];
        for (_, counter, name, help) in metrics.into_iter().filter(|(present, ..)| *present) {
            let description = Desc::new(name.to_owned(), help.to_owned(), Vec::new(), Default::default())?;
            registry.register(Box::new(Account { counter, description }))?;
        }
        Ok(())
    }
}

/// One counter, read when somebody looks.
struct Account {
    counter: &'static str,
    description: Desc,
}

impl Collector for Account {
    fn desc(&self) -> Vec<&Desc> {
        vec![&self.description]
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let count = match packets(self.counter) {
            Ok(count) => count,
            Err(error) => {
                tracing::warn!(counter = self.counter, %error, "a counter of the kernel cannot be read");
                return Vec::new();
            }
        };
        let mut value = Counter::default();
        #[allow(clippy::cast_precision_loss)]
        value.set_value(count as f64);
        let mut metric = Metric::default();
        metric.set_counter(value);
        let mut family = MetricFamily::default();
        family.set_name(self.description.fq_name.clone());
        family.set_help(self.description.help.clone());
        family.set_field_type(MetricType::COUNTER);
        family.set_metric(vec![metric]);
        vec![family]
    }
}

//! Expressions: what a rule does with a packet, one step after the other, through registers.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

use super::wire::{LIST_ELEMENT, Verdict, value};
use crate::{
    family::{Family, octets},
    netlink::Writer,
    view::Protocol,
};

/// Registers of 16 bytes; those of 4 bytes begin at 8 and lie over them.
const VERDICT: u32 = 0;
const FIRST: u32 = 1;
/// The register after an address in the first one.
fn after_address(family: Family) -> u32 {
    match family {
        Family::V4 => 9,
        Family::V6 => 12,
    }
}

const META_MARK: u32 = 3;
const META_INTERFACE: u32 = 6;
const META_PROTOCOL: u32 = 16;
const CT_STATE: u32 = 0;
const CT_STATUS: u32 = 2;
const STATE_NEW: u32 = 8;
const STATUS_DNAT: u32 = 0x20;
const NETWORK: u32 = 1;
const TRANSPORT: u32 = 2;
const FULLY_RANDOM: u32 = 0x10;
const LOCAL: u32 = 2;

/// Whether a comparison is to hold or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Is {
    Equal = 0,
    Other = 1,
}

/// Which address of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Source,
    Destination,
}

/// Source and destination are where the header has them.
fn place(family: Family, side: Side) -> (u32, u32) {
    match (family, side) {
        (Family::V4, Side::Source) => (12, 4),
        (Family::V4, Side::Destination) => (16, 4),
        (Family::V6, Side::Source) => (8, 16),
        (Family::V6, Side::Destination) => (24, 16),
    }
}

/// The expressions of one rule.
pub(crate) struct Expressions<'a>(pub(crate) &'a mut Writer);

impl Expressions<'_> {
    fn add(&mut self, name: &str, fill: impl FnOnce(&mut Writer)) {
        self.0.nest(LIST_ELEMENT, |w| {
            w.text(1, name);
            w.nest(2, fill);
        });
    }

    fn meta(&mut self, key: u32, register: u32) {
        self.add("meta", |w| {
            w.be32(1, register);
            w.be32(2, key);
        });
    }

    fn payload(&mut self, base: u32, (offset, length): (u32, u32), register: u32) {
        self.add("payload", |w| {
            w.be32(1, register);
            w.be32(2, base);
            w.be32(3, offset);
            w.be32(4, length);
        });
    }

    fn compare(&mut self, is: Is, bytes: &[u8]) {
        self.add("cmp", |w| {
            w.be32(1, FIRST);
            w.be32(2, is as u32);
            w.nest(3, |w| value(w, bytes));
        });
    }

    fn bits(&mut self, mask: &[u8], xor: &[u8]) {
        self.add("bitwise", |w| {
            w.be32(1, FIRST);
            w.be32(2, FIRST);
            w.be32(3, u32::try_from(mask.len()).unwrap_or(0));
            w.nest(4, |w| value(w, mask));
            w.nest(5, |w| value(w, xor));
        });
    }

    fn connection(&mut self, key: u32) {
        self.add("ct", |w| {
            w.be32(1, FIRST);
            w.be32(2, key);
        });
    }

    /// Connections that begin.
    pub(crate) fn new_connection(&mut self) {
        self.connection(CT_STATE);
        self.bits(&STATE_NEW.to_ne_bytes(), &[0; 4]);
        self.compare(Is::Other, &[0; 4]);
    }

    /// Connections whose destination was rewritten.
    pub(crate) fn translated(&mut self) {
        self.connection(CT_STATUS);
        self.bits(&STATUS_DNAT.to_ne_bytes(), &[0; 4]);
        self.compare(Is::Other, &[0; 4]);
    }

    /// Packets of a transport protocol.
    pub(crate) fn protocol(&mut self, protocol: Protocol) {
        self.meta(META_PROTOCOL, FIRST);
        self.compare(Is::Equal, &[protocol.number()]);
    }

    /// Packets with an address in a range, or not.
    pub(crate) fn in_range(&mut self, family: Family, side: Side, is: Is, range: &IpNet) {
        self.payload(NETWORK, place(family, side), FIRST);
        let (mask, network) = (octets(&range.netmask()), octets(&range.network()));
        if range.prefix_len() < family.bits() {
            self.bits(&mask, &vec![0; mask.len()]);
        }
        self.compare(is, &network);
    }

    /// Packets that come from an interface, or from one whose name begins so.
    pub(crate) fn interface(&mut self, is: Is, name: &str, whole: bool) {
        self.meta(META_INTERFACE, FIRST);
        let mut bytes = name.as_bytes().to_vec();
        if whole {
            bytes.resize(16, 0);
        }
        self.compare(is, &bytes);
    }

    /// Packets with an address of this machine.
    pub(crate) fn local(&mut self, side: Side) {
        self.add("fib", |w| {
            w.be32(1, FIRST);
            w.be32(2, 3);
            w.be32(3, if side == Side::Source { 1 } else { 2 });
        });
        self.compare(Is::Equal, &LOCAL.to_ne_bytes());
    }

    /// Packets with an address in a set.
    pub(crate) fn in_set(&mut self, family: Family, side: Side, set: &str) {
        self.payload(NETWORK, place(family, side), FIRST);
        self.lookup(set, None, None);
    }

    fn lookup(&mut self, set: &str, id: Option<u32>, into: Option<u32>) {
        self.add("lookup", |w| {
            w.text(1, set);
            w.be32(2, FIRST);
            if let Some(register) = into {
                w.be32(3, register);
            }
            if let Some(id) = id {
                w.be32(4, id);
            }
        });
    }

    /// The verdict that a map has for destination, protocol and port.
    pub(crate) fn verdict_of_address(&mut self, family: Family, map: &str) {
        let next = after_address(family);
        self.payload(NETWORK, place(family, Side::Destination), FIRST);
        self.meta(META_PROTOCOL, next);
        self.payload(TRANSPORT, (2, 2), next + 1);
        self.lookup(map, None, Some(VERDICT));
    }

    /// The verdict that a map has for protocol and port.
    pub(crate) fn verdict_of_port(&mut self, map: &str) {
        self.meta(META_PROTOCOL, FIRST);
        self.payload(TRANSPORT, (2, 2), 9);
        self.lookup(map, None, Some(VERDICT));
    }

    /// Source, destination, protocol and port in a set.
    pub(crate) fn connection_in_set(&mut self, family: Family, set: &str) {
        let words = u32::from(family.bits()) / 32;
        self.payload(NETWORK, place(family, Side::Source), FIRST);
        self.payload(NETWORK, place(family, Side::Destination), 8 + words);
        self.meta(META_PROTOCOL, 8 + 2 * words);
        self.payload(TRANSPORT, (2, 2), 9 + 2 * words);
        self.lookup(set, None, None);
    }

    /// Ends or leaves the chain.
    pub(crate) fn verdict(&mut self, verdict: &Verdict) {
        self.add("immediate", |w| {
            w.be32(1, VERDICT);
            w.nest(2, |w| verdict.write(w));
        });
    }

    /// Marks the packet.
    pub(crate) fn mark(&mut self, mark: u32) {
        self.meta(META_MARK, FIRST);
        self.bits(&(!mark).to_ne_bytes(), &mark.to_ne_bytes());
        self.set_mark();
    }

    /// Packets with the mark, which is taken away.
    pub(crate) fn unmark(&mut self, mark: u32) {
        self.meta(META_MARK, FIRST);
        self.bits(&mark.to_ne_bytes(), &[0; 4]);
        self.compare(Is::Other, &[0; 4]);
        self.meta(META_MARK, FIRST);
        self.bits(&u32::MAX.to_ne_bytes(), &mark.to_ne_bytes());
        self.set_mark();
    }

    fn set_mark(&mut self) {
        self.add("meta", |w| {
            w.be32(2, META_MARK);
            w.be32(3, FIRST);
        });
    }

    /// Gives the packet an address of this machine as source.
    pub(crate) fn masquerade(&mut self) {
        self.add("masq", |w| w.be32(1, FULLY_RANDOM));
    }

    /// Says that the port is closed.
    pub(crate) fn reject(&mut self, family: Family) {
        self.add("reject", |w| {
            w.be32(1, 0);
            w.attribute(2, &[if family == Family::V4 { 3 } else { 4 }]);
        });
    }

    fn random(&mut self, count: usize) {
        self.add("numgen", |w| {
            w.be32(1, FIRST);
            w.be32(2, u32::try_from(count).unwrap_or(u32::MAX));
            w.be32(3, 1);
        });
    }

    /// One of so many packets.
    pub(crate) fn one_of(&mut self, count: usize) {
        self.random(count);
        self.compare(Is::Equal, &[0; 4]);
    }

    /// The verdict that a map without a name has for a random number.
    pub(crate) fn random_verdict(&mut self, count: usize, map: (&str, u32)) {
        self.random(count);
        self.lookup(map.0, Some(map.1), Some(VERDICT));
    }

    /// Sends the packet to the endpoint that a map without a name has for a random number.
    pub(crate) fn random_destination(&mut self, family: Family, count: usize, map: (&str, u32)) {
        self.random(count);
        self.lookup(map.0, Some(map.1), Some(FIRST));
        self.translate(family);
    }

    fn translate(&mut self, family: Family) {
        let number = if family == Family::V4 { libc::AF_INET } else { libc::AF_INET6 };
        self.add("nat", |w| {
            w.be32(1, 1);
            w.attribute(2, &number.to_be_bytes());
            w.be32(3, FIRST);
            w.be32(5, after_address(family));
        });
    }

    fn load(&mut self, register: u32, bytes: &[u8]) {
        self.add("immediate", |w| {
            w.be32(1, register);
            w.nest(2, |w| value(w, bytes));
        });
    }

    /// Sends the packet to an endpoint.
    pub(crate) fn destination(&mut self, to: &SocketAddr) {
        let family = Family::of(&to.ip());
        self.load(FIRST, &octets(&to.ip()));
        self.load(after_address(family), &to.port().to_be_bytes());
        self.translate(family);
    }

    /// Notes the source of the packet in a set.
    pub(crate) fn remember(&mut self, family: Family, set: &str) {
        self.payload(NETWORK, place(family, Side::Source), FIRST);
        self.add("dynset", |w| {
            w.text(1, set);
            w.be32(3, 1);
            w.be32(4, FIRST);
        });
    }
}

/// Bytes of an address in a key.
pub(crate) fn address_key(ip: &IpAddr) -> Vec<u8> {
    octets(ip)
}

/// Bytes of a protocol and a port in a key.
pub(crate) fn port_key(protocol: Protocol, port: u16) -> Vec<u8> {
    let [high, low] = port.to_be_bytes();
    vec![protocol.number(), 0, 0, 0, high, low, 0, 0]
}

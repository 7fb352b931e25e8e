//! The table of flows, through ctnetlink.

use std::net::{IpAddr, SocketAddr};

use crate::{
    family::Family,
    netlink::{NetlinkError, Socket, Writer, attribute, flag},
    view::Protocol,
};

const GET: u16 = 0x0101;
const DELETE: u16 = 0x0102;
const TUPLE_ORIGINAL: u16 = 1;
const TUPLE_REPLY: u16 = 2;
const ID: u16 = 12;
const ZONE: u16 = 18;
const TUPLE_IP: u16 = 1;
const TUPLE_PROTOCOL: u16 = 2;
const PROTOCOL_NUMBER: u16 = 1;
const SOURCE_PORT: u16 = 2;
const DESTINATION_PORT: u16 = 3;

/// A UDP flow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Flow {
    /// What the first packet was sent to.
    pub(crate) destination: SocketAddr,
    /// What answers.
    pub(crate) answers_from: SocketAddr,
    /// The attributes that name it to the kernel.
    pub(crate) identity: Vec<(u16, Vec<u8>)>,
}

/// The header of messages about a family.
fn header(family: Family) -> [u8; 4] {
    let number = match family {
        Family::V4 => libc::AF_INET,
        Family::V6 => libc::AF_INET6,
    };
    [u8::try_from(number).unwrap_or(0), 0, 0, 0]
}

enum Side {
    Source,
    Destination,
}

fn end(tuple: &[u8], side: &Side) -> Option<SocketAddr> {
    let ips = attribute(tuple, TUPLE_IP)?;
    let protocol = attribute(tuple, TUPLE_PROTOCOL)?;
    let (v4, v6, port) = match side {
        Side::Source => (1, 3, SOURCE_PORT),
        Side::Destination => (2, 4, DESTINATION_PORT),
    };
    let ip = match (attribute(ips, v4), attribute(ips, v6)) {
        (Some(octets), _) => IpAddr::from(<[u8; 4]>::try_from(octets).ok()?),
        (None, Some(octets)) => IpAddr::from(<[u8; 16]>::try_from(octets).ok()?),
        (None, None) => return None,
    };
    let port = u16::from_be_bytes(attribute(protocol, port)?.try_into().ok()?);
    Some(SocketAddr::new(ip, port))
}

fn flow(payload: &[u8]) -> Option<Flow> {
    let attributes = payload.get(4..)?;
    let original = attribute(attributes, TUPLE_ORIGINAL)?;
    let number = attribute(attribute(original, TUPLE_PROTOCOL)?, PROTOCOL_NUMBER)?;
    if number != [Protocol::Udp.number()] {
        return None;
    }
    let names = [TUPLE_ORIGINAL, ID, ZONE];
    let identity = names.iter().filter_map(|kind| Some((*kind, attribute(attributes, *kind)?.to_vec())));
    Some(Flow {
        destination: end(original, &Side::Destination)?,
        answers_from: end(attribute(attributes, TUPLE_REPLY)?, &Side::Source)?,
        identity: identity.collect(),
    })
}

/// The UDP flows of a family that `wanted` takes. Blocks.
pub(crate) fn list(family: Family, wanted: &dyn Fn(&Flow) -> bool) -> Result<Vec<Flow>, NetlinkError> {
    let mut request = Writer::default();
    request.message(GET, flag::DUMP, |w| w.raw(&header(family)));
    let mut flows = Vec::new();
    Socket::open(libc::NETLINK_NETFILTER)?
        .talk(&request, |payload| flows.extend(flow(payload).filter(|flow| wanted(flow))))?;
    Ok(flows)
}

/// Deletes flows; one that is gone by itself does not matter. Gives how many it deleted. Blocks.
pub(crate) fn delete(family: Family, flows: &[Flow]) -> Result<u64, NetlinkError> {
    if flows.is_empty() {
        return Ok(0);
    }
    let mut socket = Socket::open(libc::NETLINK_NETFILTER)?;
    let mut deleted = 0;
    for flow in flows {
        let mut request = Writer::default();
        request.message(DELETE, flag::ACK, |w| {
            w.raw(&header(family));
            for (kind, value) in &flow.identity {
                if *kind == TUPLE_ORIGINAL {
                    w.nest(*kind, |w| w.raw(value));
                } else {
                    w.attribute(*kind, value);
                }
            }
        });
        match socket.talk(&request, |_| {}) {
            Ok(()) => deleted += 1,
            Err(error) if error.errno() == Some(libc::ENOENT) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(deleted)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tuple(w: &mut Writer, kind: u16, source: [u8; 4], to: [u8; 4], ports: (u16, u16), protocol: u8) {
        w.nest(kind, |w| {
            w.nest(TUPLE_IP, |w| {
                w.attribute(1, &source);
                w.attribute(2, &to);
            });
            w.nest(TUPLE_PROTOCOL, |w| {
                w.attribute(PROTOCOL_NUMBER, &[protocol]);
                w.attribute(SOURCE_PORT, &ports.0.to_be_bytes());
                w.attribute(DESTINATION_PORT, &ports.1.to_be_bytes());
            });
        });
    }

    fn entry(protocol: u8) -> Vec<u8> {
        let mut w = Writer::default();
        w.raw(&header(Family::V4));
        tuple(&mut w, TUPLE_ORIGINAL, [10, 0, 0, 1], [10, 96, 0, 1], (4000, 53), protocol);
        tuple(&mut w, TUPLE_REPLY, [10, 244, 0, 1], [10, 0, 0, 1], (5353, 4000), protocol);
        w.be32(ID, 7);
        w.bytes().to_vec()
    }

    #[test]
    fn an_entry_is_read() {
        let found = flow(&entry(17)).unwrap();
        assert_eq!(found.destination.to_string(), "10.96.0.1:53");
        assert_eq!(found.answers_from.to_string(), "10.244.0.1:5353");
        assert_eq!(found.identity.len(), 2);
        assert_eq!(flow(&entry(6)), None, "TCP flows are left alone");
        assert_eq!(flow(&entry(17)[..40]), None, "cut off");
    }
}

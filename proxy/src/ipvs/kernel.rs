//! Virtual servers through generic netlink, and the dummy interface through rtnetlink.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
};

use super::plan::{Server, Service};
use crate::{
    family::{Family, octets},
    netlink::{NetlinkError, Socket, Writer, attribute, flag},
    node::IPVS_INTERFACE,
    view::Protocol,
};

const CONTROL: u16 = 16;
const GET_FAMILY: u8 = 3;
const NEW_SERVICE: u8 = 1;
const SET_SERVICE: u8 = 2;
const DELETE_SERVICE: u8 = 3;
const GET_SERVICE: u8 = 4;
const NEW_DESTINATION: u8 = 5;
const SET_DESTINATION: u8 = 6;
const DELETE_DESTINATION: u8 = 7;
const GET_DESTINATION: u8 = 8;
const SET_CONFIG: u8 = 12;
const ATTRIBUTE_SERVICE: u16 = 1;
const ATTRIBUTE_DESTINATION: u16 = 2;
const PERSISTENT: u32 = 1;
/// Hash also the port of the client, with scheduler `mh`.
const HASH_PORT: u32 = 0x10;

const NEW_LINK: u16 = 16;
const DELETE_LINK: u16 = 17;
const NEW_ADDRESS: u16 = 20;
const DELETE_ADDRESS: u16 = 21;

/// A connection to the kernel's virtual servers.
pub(crate) struct Ipvs {
    socket: Socket,
    family: u16,
}

/// A virtual server that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Present {
    pub(crate) server: Server,
    pub(crate) scheduler: String,
    pub(crate) timeout: u32,
    pub(crate) persistent: bool,
}

/// An endpoint of a virtual server that is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Destination {
    pub(crate) address: SocketAddr,
    pub(crate) weight: u32,
    pub(crate) connections: u32,
}

fn number(family: Family) -> u16 {
    u16::try_from(match family {
        Family::V4 => libc::AF_INET,
        Family::V6 => libc::AF_INET6,
    })
    .unwrap_or(0)
}

/// An address in sixteen bytes.
fn padded(ip: &IpAddr) -> Vec<u8> {
    let mut bytes = octets(ip);
    bytes.resize(16, 0);
    bytes
}

fn read_u32(bytes: Option<&[u8]>) -> u32 {
    bytes.and_then(|b| b.try_into().ok()).map_or(0, u32::from_ne_bytes)
}

fn read_u16(bytes: &[u8]) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.try_into().ok()?))
}

fn read_ip(bytes: &[u8], family: u16) -> Option<IpAddr> {
    if family == number(Family::V4) {
        return Some(IpAddr::from(<[u8; 4]>::try_from(bytes.get(..4)?).ok()?));
    }
    Some(IpAddr::from(<[u8; 16]>::try_from(bytes.get(..16)?).ok()?))
}

fn read_port(bytes: &[u8]) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.try_into().ok()?))
}

fn write_server(w: &mut Writer, server: &Server) {
    w.attribute(1, &number(Family::of(&server.address.ip())).to_ne_bytes());
    w.attribute(2, &u16::from(server.protocol.number()).to_ne_bytes());
    w.attribute(3, &padded(&server.address.ip()));
    w.attribute(4, &server.address.port().to_be_bytes());
}

fn write_service(w: &mut Writer, server: &Server, scheduler: &str, timeout: u32) {
    write_server(w, server);
    w.text(6, scheduler);
    let mut flags = if timeout > 0 { PERSISTENT } else { 0 };
    if scheduler == "mh" {
        flags |= HASH_PORT;
    }
    w.attribute(7, &[flags.to_ne_bytes(), u32::MAX.to_ne_bytes()].concat());
    w.attribute(8, &timeout.to_ne_bytes());
    let mask = if server.address.is_ipv4() { u32::MAX } else { 128 };
    w.attribute(9, &mask.to_ne_bytes());
}

fn write_destination(w: &mut Writer, address: &SocketAddr, weight: u32) {
    w.attribute(1, &padded(&address.ip()));
    w.attribute(2, &address.port().to_be_bytes());
    w.attribute(3, &0u32.to_ne_bytes());
    w.attribute(4, &weight.to_ne_bytes());
    w.attribute(5, &0u32.to_ne_bytes());
    w.attribute(6, &0u32.to_ne_bytes());
    w.attribute(11, &number(Family::of(&address.ip())).to_ne_bytes());
}

fn read_service(payload: &[u8]) -> Option<Present> {
    let service = attribute(payload.get(4..)?, ATTRIBUTE_SERVICE)?;
    let family = read_u16(attribute(service, 1)?)?;
    let protocol = match read_u16(attribute(service, 2)?)? {
        6 => Protocol::Tcp,
        17 => Protocol::Udp,
        132 => Protocol::Sctp,
        _ => return None,
    };
    let address = SocketAddr::new(read_ip(attribute(service, 3)?, family)?, read_port(attribute(service, 4)?)?);
    let scheduler = attribute(service, 6).unwrap_or_default();
    let flags = read_u32(attribute(service, 7).and_then(|flags| flags.get(..4)));
    Some(Present {
        server: Server { protocol, address },
        scheduler: String::from_utf8_lossy(scheduler).trim_end_matches('\0').to_owned(),
        timeout: read_u32(attribute(service, 8)),
        persistent: flags & PERSISTENT != 0,
    })
}

fn read_destination(payload: &[u8], family: Family) -> Option<Destination> {
    let destination = attribute(payload.get(4..)?, ATTRIBUTE_DESTINATION)?;
    let ip = read_ip(attribute(destination, 1)?, number(family))?;
    let sum = |kinds: [u16; 2]| kinds.iter().map(|kind| read_u32(attribute(destination, *kind))).sum();
    Some(Destination {
        address: SocketAddr::new(ip, read_port(attribute(destination, 2)?)?),
        weight: read_u32(attribute(destination, 4)),
        connections: sum([7, 8]),
    })
}

impl Ipvs {
    /// Opens a connection. Blocks, as all that follows.
    pub(crate) fn open() -> Result<Self, NetlinkError> {
        let mut socket = Socket::open(libc::NETLINK_GENERIC)?;
        let mut request = Writer::default();
        request.message(CONTROL, flag::ACK, |w| {
            w.raw(&[GET_FAMILY, 1, 0, 0]);
            w.text(2, "IPVS");
        });
        let mut family = None;
        socket.talk(&request, |payload| {
            family = payload.get(4..).and_then(|bytes| attribute(bytes, 1)).and_then(read_u16).or(family);
        })?;
        Ok(Self { socket, family: family.ok_or(NetlinkError::Malformed)? })
    }

    fn request(
        &mut self,
        command: u8,
        flags: u16,
        fill: impl FnOnce(&mut Writer),
        each: impl FnMut(&[u8]),
    ) -> Result<(), NetlinkError> {
        let mut request = Writer::default();
        request.message(self.family, flags, |w| {
            w.raw(&[command, 1, 0, 0]);
            fill(w);
        });
        self.socket.talk(&request, each)
    }

    /// The virtual servers that are there.
    pub(crate) fn servers(&mut self) -> Result<Vec<Present>, NetlinkError> {
        let mut all = Vec::new();
        self.request(GET_SERVICE, flag::DUMP, |_| {}, |payload| all.extend(read_service(payload)))?;
        Ok(all)
    }

    /// The endpoints of a virtual server that is there.
    pub(crate) fn destinations(&mut self, server: &Server) -> Result<Vec<Destination>, NetlinkError> {
        let family = Family::of(&server.address.ip());
        let mut all = Vec::new();
        self.request(
            GET_DESTINATION,
            flag::DUMP,
            |w| w.nest(ATTRIBUTE_SERVICE, |w| write_server(w, server)),
            |payload| all.extend(read_destination(payload, family)),
        )?;
        Ok(all)
    }

    /// Makes a virtual server, or changes it.
    pub(crate) fn put(
        &mut self,
        server: &Server,
        service: &Service,
        scheduler: &str,
        new: bool,
    ) -> Result<(), NetlinkError> {
        let command = if new { NEW_SERVICE } else { SET_SERVICE };
        let fill = |w: &mut Writer| {
            w.nest(ATTRIBUTE_SERVICE, |w| write_service(w, server, scheduler, service.timeout));
        };
        self.request(command, flag::ACK, fill, |_| {})
    }

    /// Deletes a virtual server; one that is not there does not matter.
    pub(crate) fn remove(&mut self, server: &Server) -> Result<(), NetlinkError> {
        let fill = |w: &mut Writer| w.nest(ATTRIBUTE_SERVICE, |w| write_server(w, server));
        let done = self.request(DELETE_SERVICE, flag::ACK, fill, |_| {});
        forgiving(done, libc::ESRCH)
    }

    fn destination(&mut self, command: u8, server: &Server, to: &SocketAddr, weight: u32) -> Result<(), NetlinkError> {
        let fill = |w: &mut Writer| {
            w.nest(ATTRIBUTE_SERVICE, |w| write_server(w, server));
            w.nest(ATTRIBUTE_DESTINATION, |w| write_destination(w, to, weight));
        };
        self.request(command, flag::ACK, fill, |_| {})
    }

    /// Adds an endpoint; one that is there is given its weight again.
    pub(crate) fn add(&mut self, server: &Server, to: &SocketAddr) -> Result<(), NetlinkError> {
        match self.destination(NEW_DESTINATION, server, to, 1) {
            Err(error) if error.errno() == Some(libc::EEXIST) => self.destination(SET_DESTINATION, server, to, 1),
            other => other,
        }
    }

    /// Sends no new connections to an endpoint.
    pub(crate) fn drain(&mut self, server: &Server, to: &SocketAddr) -> Result<(), NetlinkError> {
        forgiving(self.destination(SET_DESTINATION, server, to, 0), libc::ENOENT)
    }

    /// Deletes an endpoint.
    pub(crate) fn delete(&mut self, server: &Server, to: &SocketAddr) -> Result<(), NetlinkError> {
        forgiving(self.destination(DELETE_DESTINATION, server, to, 0), libc::ENOENT)
    }

    /// Sets the timeouts of connections in seconds; 0 leaves one as it is.
    pub(crate) fn timeouts(&mut self, tcp: u32, tcp_fin: u32, udp: u32) -> Result<(), NetlinkError> {
        let fill = |w: &mut Writer| {
            for (kind, seconds) in [(4, tcp), (5, tcp_fin), (6, udp)] {
                w.attribute(kind, &seconds.to_ne_bytes());
            }
        };
        self.request(SET_CONFIG, flag::ACK, fill, |_| {})
    }
}

fn forgiving(done: Result<(), NetlinkError>, errno: i32) -> Result<(), NetlinkError> {
    match done {
        Err(error) if error.errno() == Some(errno) => Ok(()),
        other => other,
    }
}

fn link(kind: u16, flags: u16, more: impl FnOnce(&mut Writer)) -> Result<(), NetlinkError> {
    let mut request = Writer::default();
    request.message(kind, flags | flag::ACK, |w| {
        w.raw(&[0; 16]);
        w.text(3, IPVS_INTERFACE);
        more(w);
    });
    Socket::open(libc::NETLINK_ROUTE)?.talk(&request, |_| {})
}

/// Makes the dummy interface unless it is there.
pub(crate) fn make_interface() -> Result<(), NetlinkError> {
    let made = link(NEW_LINK, flag::CREATE | flag::EXCL, |w| w.nest(18, |w| w.text(1, "dummy")));
    forgiving(made, libc::EEXIST)
}

/// Deletes the dummy interface with all its addresses.
pub(crate) fn delete_interface() -> Result<(), NetlinkError> {
    forgiving(link(DELETE_LINK, 0, |_| {}), libc::ENODEV)
}

/// Addresses of a family that the dummy interface carries.
pub(crate) fn carried(family: Family) -> BTreeSet<IpAddr> {
    let all = nix::ifaddrs::getifaddrs().into_iter().flatten();
    let ours = all.filter(|interface| interface.interface_name == IPVS_INTERFACE).filter_map(|interface| {
        let address = interface.address?;
        let v4 = address.as_sockaddr_in().map(|a| IpAddr::V4(a.ip()));
        v4.or_else(|| address.as_sockaddr_in6().map(|a| IpAddr::V6(a.ip())))
    });
    let link_local = |ip: &IpAddr| matches!(ip, IpAddr::V6(a) if a.segments()[0] & 0xffc0 == 0xfe80);
    ours.filter(|ip| Family::of(ip) == family && !link_local(ip)).collect()
}

/// Gives the dummy interface an address, or takes it.
pub(crate) fn carry(ip: &IpAddr, wanted: bool) -> Result<(), NetlinkError> {
    let index = nix::net::if_::if_nametoindex(IPVS_INTERFACE).map_err(std::io::Error::from)?;
    let family = Family::of(ip);
    let (kind, flags, there) = if wanted {
        (NEW_ADDRESS, flag::CREATE | flag::EXCL, libc::EEXIST)
    } else {
        (DELETE_ADDRESS, 0, libc::EADDRNOTAVAIL)
    };
    let mut request = Writer::default();
    request.message(kind, flags | flag::ACK, |w| {
        let [family_number, _] = number(family).to_le_bytes();
        w.raw(&[family_number, family.bits(), 0, 0]);
        w.raw(&index.to_ne_bytes());
        w.attribute(2, &octets(ip));
        w.attribute(1, &octets(ip));
    });
    forgiving(Socket::open(libc::NETLINK_ROUTE)?.talk(&request, |_| {}), there)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(address: &str) -> Server {
        Server { protocol: Protocol::Tcp, address: address.parse().unwrap() }
    }

    /// What the kernel would answer about what is sent to it.
    fn answered(fill: impl FnOnce(&mut Writer)) -> Vec<u8> {
        let mut w = Writer::default();
        w.raw(&[0; 4]);
        fill(&mut w);
        w.bytes().to_vec()
    }

    #[test]
    fn servers_are_written_as_they_are_read() {
        for (address, timeout) in [("10.96.0.1:443", 0), ("[fd00::1]:53", 10_800)] {
            let payload = answered(|w| {
                w.nest(ATTRIBUTE_SERVICE, |w| write_service(w, &server(address), "rr", timeout));
            });
            let wanted =
                Present { server: server(address), scheduler: "rr".to_owned(), timeout, persistent: timeout > 0 };
            assert_eq!(read_service(&payload), Some(wanted));
            assert_eq!(read_service(&payload[..20]), None, "cut off");
        }
    }

    #[test]
    fn endpoints_are_written_as_they_are_read() {
        let address: SocketAddr = "10.1.0.1:8080".parse().unwrap();
        let payload = answered(|w| {
            w.nest(ATTRIBUTE_DESTINATION, |w| {
                write_destination(w, &address, 1);
                w.attribute(7, &2u32.to_ne_bytes());
                w.attribute(8, &3u32.to_ne_bytes());
            });
        });
        let wanted = Destination { address, weight: 1, connections: 5 };
        assert_eq!(read_destination(&payload, Family::V4), Some(wanted));
    }
}

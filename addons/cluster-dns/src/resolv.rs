//! Servers of a resolv.conf.

use std::net::{IpAddr, SocketAddr};

/// The servers, in order.
pub(crate) fn servers(text: &str) -> Vec<SocketAddr> {
    let lines = text.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        (words.next() == Some("nameserver")).then(|| words.next()).flatten()
    });
    // A zone such as %eth0 of a link-local address cannot be kept in an address.
    let addresses = lines.filter_map(|word| word.parse::<IpAddr>().ok());
    let mut found = Vec::new();
    for address in addresses {
        let server = SocketAddr::from((address, 53));
        if !found.contains(&server) {
            found.push(server);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_servers_count() {
        let text = "# a\nsearch x\nnameserver 10.0.0.2\n nameserver\tfd00::1 \nnameserver 10.0.0.2\nnameserver x\nnameserver\n";
        let found: Vec<String> = servers(text).iter().map(ToString::to_string).collect();
        assert_eq!(found, ["10.0.0.2:53", "[fd00::1]:53"]);
    }
}

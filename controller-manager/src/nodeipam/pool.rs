//! Blocks of one size in one range.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

/// Most bits between range and block: 65,536 blocks.
const MAX_BITS: u8 = 16;

/// A range cut into blocks, some of them in use.
pub(super) struct Pool {
    range: IpNet,
    mask: u8,
    used: Vec<bool>,
    in_use: usize,
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u128::from(u32::from(v4)),
        IpAddr::V6(v6) => u128::from(v6),
    }
}

impl Pool {
    /// Cuts `range` into blocks of `mask` bits.
    pub(super) fn new(range: IpNet, mask: u8) -> Result<Self, String> {
        let range = range.trunc();
        if mask < range.prefix_len() || mask > range.max_prefix_len() {
            return Err(format!("node CIDR mask size {mask} does not fit cluster CIDR {range}"));
        }
        let bits = mask - range.prefix_len();
        if bits > MAX_BITS {
            return Err(format!("new CIDR set failed; the node CIDR size is too big: {range} with mask size {mask}"));
        }
        Ok(Self { range, mask, used: vec![false; 1 << bits], in_use: 0 })
    }

    fn shift(&self) -> u32 {
        u32::from(self.range.max_prefix_len() - self.mask)
    }

    /// Indices of the blocks that overlap a range.
    fn blocks(&self, cidr: IpNet) -> std::ops::Range<usize> {
        let overlaps = self.range.contains(&cidr) || cidr.contains(&self.range);
        if !overlaps {
            return 0..0;
        }
        let start = number(self.range.network());
        let offset =
            |address: u128| usize::try_from((address.max(start) - start) >> self.shift()).unwrap_or(usize::MAX);
        let last = offset(number(cidr.broadcast())).min(self.used.len() - 1);
        offset(number(cidr.network()))..last + 1
    }

    /// The range.
    pub(super) fn range(&self) -> IpNet {
        self.range
    }

    /// Blocks in use, and all blocks.
    pub(super) fn counts(&self) -> (usize, usize) {
        (self.in_use, self.used.len())
    }

    /// How many blocks changed.
    fn mark(&mut self, cidr: IpNet, used: bool) -> usize {
        let mut changed = 0;
        for at in self.blocks(cidr) {
            changed += usize::from(self.used[at] != used);
            self.used[at] = used;
        }
        changed
    }

    /// Marks all blocks that overlap a range as in use; how many were not.
    pub(super) fn occupy(&mut self, cidr: IpNet) -> usize {
        let changed = self.mark(cidr, true);
        self.in_use += changed;
        changed
    }

    /// Gives blocks back; how many were in use.
    pub(super) fn release(&mut self, cidr: IpNet) -> usize {
        let changed = self.mark(cidr, false);
        self.in_use -= changed;
        changed
    }

    /// Blocks that come before the first free one.
    pub(super) fn tries(&self) -> usize {
        self.used.iter().take_while(|used| **used).count()
    }

    /// The first free block.
    pub(super) fn take(&mut self) -> Option<IpNet> {
        let at = self.used.iter().position(|used| !used)?;
        let start = number(self.range.network()) + (u128::try_from(at).ok()? << self.shift());
        let address = match self.range {
            IpNet::V4(_) => IpAddr::V4(Ipv4Addr::from(u32::try_from(start).ok()?)),
            IpNet::V6(_) => IpAddr::V6(Ipv6Addr::from(start)),
        };
        self.used[at] = true;
        self.in_use += 1;
        IpNet::new(address, self.mask).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(pool: &mut Pool) -> String {
        pool.take().map(|cidr| cidr.to_string()).unwrap_or_default()
    }

    #[test]
    fn first_free_block_comes_first() {
        let mut pool = Pool::new("10.244.0.0/16".parse().unwrap(), 24).unwrap();
        pool.occupy("10.244.1.0/24".parse().unwrap());
        pool.occupy("10.244.3.128/25".parse().unwrap());
        pool.occupy("192.168.0.0/24".parse().unwrap());
        assert_eq!(
            [take(&mut pool), take(&mut pool), take(&mut pool)],
            ["10.244.0.0/24", "10.244.2.0/24", "10.244.4.0/24"]
        );
        pool.release("10.244.1.0/24".parse().unwrap());
        assert_eq!(take(&mut pool), "10.244.1.0/24");
    }

    #[test]
    fn ranges_end() {
        let mut pool = Pool::new("10.0.0.0/30".parse().unwrap(), 31).unwrap();
        assert_eq!([take(&mut pool), take(&mut pool), take(&mut pool)], ["10.0.0.0/31", "10.0.0.2/31", ""]);
        assert!(Pool::new("10.0.0.0/8".parse().unwrap(), 28).is_err());
        assert!(Pool::new("10.0.0.0/24".parse().unwrap(), 16).is_err());
        let mut wide = Pool::new("fd00:10::/48".parse().unwrap(), 64).unwrap();
        assert_eq!([take(&mut wide), take(&mut wide)], ["fd00:10::/64", "fd00:10:0:1::/64"]);
    }

    #[test]
    fn a_larger_range_occupies_everything() {
        let mut pool = Pool::new("10.1.0.0/24".parse().unwrap(), 26).unwrap();
        pool.occupy("10.0.0.0/8".parse().unwrap());
        assert_eq!(pool.take(), None);
    }
}

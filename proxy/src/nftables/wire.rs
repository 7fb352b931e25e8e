//! Messages of nf_tables: one batch is one transaction.

use super::expr::Expressions;
use crate::{
    family::Family,
    netlink::{NetlinkError, Socket, Writer, flag},
};

/// The table of the proxy, in each family.
pub(crate) const TABLE: &str = "kube-proxy";
const COMMENT: &str = "rules for kube-proxy";

const SUBSYSTEM: u16 = 10;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const NEW_TABLE: u16 = 0;
const GET_TABLE: u16 = 1;
const DELETE_TABLE: u16 = 2;
const NEW_CHAIN: u16 = 3;
const GET_CHAIN: u16 = 4;
const DELETE_CHAIN: u16 = 5;
const NEW_RULE: u16 = 6;
const DELETE_RULE: u16 = 8;
const NEW_SET: u16 = 9;
const DELETE_SET: u16 = 11;
const NEW_ELEMENT: u16 = 12;
const DELETE_ELEMENT: u16 = 14;

/// Elements of a list.
pub(crate) const LIST_ELEMENT: u16 = 1;
const DATA_VALUE: u16 = 1;
const DATA_VERDICT: u16 = 2;
/// Most clients that an endpoint remembers.
const MOST_CLIENTS: u32 = 65_535;
/// Most elements in one message: its attributes hold less than 64 KiB.
const ELEMENTS: usize = 100;

/// Kinds of data, as `nft` numbers them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Integer,
    Address(Family),
    Protocol,
    Port,
}

impl Kind {
    fn number(self) -> u32 {
        match self {
            Self::Integer => 4,
            Self::Address(Family::V4) => 7,
            Self::Address(Family::V6) => 8,
            Self::Protocol => 12,
            Self::Port => 13,
        }
    }

    /// Bytes in a register: a multiple of four.
    fn size(self) -> u32 {
        match self {
            Self::Address(Family::V6) => 16,
            _ => 4,
        }
    }

    fn concatenated(kinds: &[Self]) -> u32 {
        kinds.iter().fold(0, |all, kind| all << 6 | kind.number())
    }

    fn length(kinds: &[Self]) -> u32 {
        kinds.iter().map(|kind| kind.size()).sum()
    }
}

/// What a map leads to.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Target<'a> {
    /// It is a set.
    None,
    /// Verdicts.
    Verdict,
    /// Data.
    Data(&'a [Kind]),
}

/// A set or a map.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SetSpec<'a> {
    pub(crate) name: &'a str,
    pub(crate) key: &'a [Kind],
    pub(crate) target: Target<'a>,
    /// Milliseconds after which an element goes, for sets that rules add to.
    pub(crate) timeout: Option<u64>,
    /// Number in the batch of a set without a name, with the number of its elements.
    pub(crate) anonymous: Option<(u32, usize)>,
}

/// What becomes of a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Drop,
    Return,
    Jump(Box<str>),
    Goto(Box<str>),
}

impl Verdict {
    pub(crate) fn write(&self, w: &mut Writer) {
        let (code, chain): (i32, Option<&str>) = match self {
            Self::Drop => (0, None),
            Self::Jump(chain) => (-3, Some(chain)),
            Self::Goto(chain) => (-4, Some(chain)),
            Self::Return => (-5, None),
        };
        w.nest(DATA_VERDICT, |w| {
            w.attribute(1, &code.to_be_bytes());
            if let Some(chain) = chain {
                w.text(2, chain);
            }
        });
    }
}

/// Writes a value of data.
pub(crate) fn value(w: &mut Writer, bytes: &[u8]) {
    w.attribute(DATA_VALUE, bytes);
}

/// What a key of a map leads to.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Data<'a> {
    None,
    Verdict(&'a Verdict),
    Value(&'a [u8]),
}

/// A place where the kernel sees packets.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Hook {
    pub(crate) number: u32,
    pub(crate) priority: i32,
    pub(crate) kind: &'static str,
}

/// A transaction.
pub(crate) struct Batch {
    writer: Writer,
    family: u8,
    sets: u32,
}

fn family_number(family: Family) -> u8 {
    u8::try_from(match family {
        Family::V4 => libc::AF_INET,
        Family::V6 => libc::AF_INET6,
    })
    .unwrap_or(0)
}

impl Batch {
    pub(crate) fn new(family: Family) -> Self {
        let mut writer = Writer::default();
        let [high, low] = SUBSYSTEM.to_be_bytes();
        writer.message(BATCH_BEGIN, 0, |w| w.raw(&[0, 0, high, low]));
        Self { writer, family: family_number(family), sets: 0 }
    }

    fn message(&mut self, kind: u16, flags: u16, fill: impl FnOnce(&mut Writer)) {
        let family = self.family;
        self.writer.message(SUBSYSTEM << 8 | kind, flags, |w| {
            w.raw(&[family, 0, 0, 0]);
            fill(w);
        });
    }

    pub(crate) fn add_table(&mut self) {
        self.message(NEW_TABLE, flag::CREATE, |w| {
            w.text(1, TABLE);
            // A list of type, length and text, as `nft` reads comments.
            let mut data = vec![0, u8::try_from(COMMENT.len() + 1).unwrap_or(0)];
            data.extend_from_slice(COMMENT.as_bytes());
            data.push(0);
            w.attribute(6, &data);
        });
    }

    pub(crate) fn delete_table(&mut self) {
        self.message(DELETE_TABLE, 0, |w| w.text(1, TABLE));
    }

    pub(crate) fn add_chain(&mut self, name: &str, hook: Option<Hook>) {
        self.message(NEW_CHAIN, flag::CREATE, |w| {
            w.text(1, TABLE);
            w.text(3, name);
            if let Some(hook) = hook {
                w.nest(4, |w| {
                    w.be32(1, hook.number);
                    w.attribute(2, &hook.priority.to_be_bytes());
                });
                w.text(7, hook.kind);
            }
        });
    }

    pub(crate) fn delete_chain(&mut self, name: &str) {
        self.message(DELETE_CHAIN, 0, |w| {
            w.text(1, TABLE);
            w.text(3, name);
        });
    }

    /// Removes all rules of a chain.
    pub(crate) fn flush_chain(&mut self, name: &str) {
        self.message(DELETE_RULE, 0, |w| {
            w.text(1, TABLE);
            w.text(2, name);
        });
    }

    pub(crate) fn add_rule(&mut self, chain: &str, fill: impl FnOnce(&mut Expressions<'_>)) {
        self.message(NEW_RULE, flag::CREATE | flag::APPEND, |w| {
            w.text(1, TABLE);
            w.text(2, chain);
            w.nest(4, |w| fill(&mut Expressions(w)));
        });
    }

    pub(crate) fn add_set(&mut self, set: &SetSpec<'_>) {
        let map = !matches!(set.target, Target::None);
        let mut flags = u32::from(map) << 3;
        if set.anonymous.is_some() {
            flags |= 1 | 2;
        }
        if set.timeout.is_some() {
            flags |= 0x10 | 0x20;
        }
        self.sets += 1;
        let id = set.anonymous.map_or(self.sets, |(id, _)| id);
        self.message(NEW_SET, flag::CREATE, |w| {
            w.text(1, TABLE);
            w.text(2, set.name);
            w.be32(3, flags);
            w.be32(4, Kind::concatenated(set.key));
            w.be32(5, Kind::length(set.key));
            match set.target {
                Target::None => {}
                Target::Verdict => w.be32(6, 0xffff_ff00),
                Target::Data(kinds) => {
                    w.be32(6, Kind::concatenated(kinds));
                    w.be32(7, Kind::length(kinds));
                }
            }
            let size = match (set.anonymous, set.timeout) {
                (Some((_, size)), _) => Some(u32::try_from(size).unwrap_or(u32::MAX)),
                (None, Some(_)) => Some(MOST_CLIENTS),
                (None, None) => None,
            };
            if let Some(size) = size {
                w.nest(9, |w| w.be32(1, size));
            }
            w.be32(10, id);
            if let Some(timeout) = set.timeout {
                w.attribute(11, &timeout.to_be_bytes());
            }
            if set.key == [Kind::Integer] {
                // `nft` is told that these numbers are in the order of the host.
                w.attribute(13, &[0, 4, 1, 0, 0, 0]);
            }
        });
    }

    /// A number for a set without a name.
    pub(crate) fn next_set(&self) -> u32 {
        self.sets + 1
    }

    pub(crate) fn delete_set(&mut self, name: &str) {
        self.message(DELETE_SET, 0, |w| {
            w.text(1, TABLE);
            w.text(2, name);
        });
    }

    /// Adds elements to a set; one without a name goes by its number.
    pub(crate) fn add_elements<'a>(
        &mut self,
        set: (&str, Option<u32>),
        elements: impl IntoIterator<Item = (Vec<u8>, Data<'a>)>,
    ) {
        self.elements(NEW_ELEMENT, flag::CREATE, set, elements);
    }

    pub(crate) fn delete_elements(&mut self, set: &str, keys: impl IntoIterator<Item = Vec<u8>>) {
        let elements = keys.into_iter().map(|key| (key, Data::None));
        self.elements(DELETE_ELEMENT, 0, (set, None), elements);
    }

    fn elements<'a>(
        &mut self,
        kind: u16,
        flags: u16,
        set: (&str, Option<u32>),
        elements: impl IntoIterator<Item = (Vec<u8>, Data<'a>)>,
    ) {
        let mut elements = elements.into_iter().peekable();
        while elements.peek().is_some() {
            self.message(kind, flags, |w| {
                w.text(1, TABLE);
                w.text(2, set.0);
                if let Some(id) = set.1 {
                    w.be32(4, id);
                }
                w.nest(3, |w| {
                    for (key, data) in elements.by_ref().take(ELEMENTS) {
                        w.nest(LIST_ELEMENT, |w| {
                            w.nest(1, |w| value(w, &key));
                            match data {
                                Data::None => {}
                                Data::Verdict(verdict) => w.nest(2, |w| verdict.write(w)),
                                Data::Value(bytes) => w.nest(2, |w| value(w, bytes)),
                            }
                        });
                    }
                });
            });
        }
    }

    /// Whether nothing was added.
    pub(crate) fn is_empty(&self) -> bool {
        self.writer.messages() == 1
    }

    /// Applies all of it or nothing. Blocks.
    pub(crate) fn commit(mut self) -> Result<(), NetlinkError> {
        // The kernel confirms this one when all is done.
        self.message(NEW_TABLE, flag::CREATE | flag::ACK, |w| w.text(1, TABLE));
        self.finish()
    }

    /// Like [`Self::commit`], for the removal of the table.
    pub(crate) fn remove_table(family: Family) -> Result<(), NetlinkError> {
        let mut batch = Self::new(family);
        batch.add_table();
        batch.message(DELETE_TABLE, flag::ACK, |w| w.text(1, TABLE));
        batch.finish()
    }

    fn finish(mut self) -> Result<(), NetlinkError> {
        let last = self.writer.messages();
        let [high, low] = SUBSYSTEM.to_be_bytes();
        self.writer.message(BATCH_END, 0, |w| w.raw(&[0, 0, high, low]));
        Socket::open(libc::NETLINK_NETFILTER)?.batch(&self.writer, last)
    }
}

/// Asks whether the table, or a chain in it, is there. Blocks.
pub(crate) fn exists(family: Family, chain: Option<&str>) -> Result<bool, NetlinkError> {
    let mut request = Writer::default();
    let kind = if chain.is_some() { GET_CHAIN } else { GET_TABLE };
    request.message(SUBSYSTEM << 8 | kind, flag::ACK, |w| {
        w.raw(&[family_number(family), 0, 0, 0]);
        w.text(1, TABLE);
        if let Some(chain) = chain {
            w.text(3, chain);
        }
    });
    match Socket::open(libc::NETLINK_NETFILTER)?.talk(&request, |_| {}) {
        Ok(()) => Ok(true),
        Err(error) if error.errno() == Some(libc::ENOENT) => Ok(false),
        Err(error) => Err(error),
    }
}

//! The records of a log segment.
//!
//! ```text
//! length u32 | crc32 u32 | kind u8 | flags u8 | commit u64 | revision i64 | create_revision i64 | expires u64 | key length u32 | key | value
//! ```
//! All integers little-endian. Length counts what follows the checksum, the checksum covers the same.

use flate2::Crc;

/// Bytes before the key.
pub(super) const HEADER: usize = 8 + FIXED;
const FIXED: usize = 1 + 1 + 8 + 8 + 8 + 8 + 4;
const FLAG_COPY: u8 = 1;

/// What a record says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A key was written.
    Put,
    /// A key was removed.
    Delete,
    /// The store stood at `revision`, compacted up to `create_revision`.
    Mark,
}

/// A record, borrowed from its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Record<'a> {
    pub(super) kind: Kind,
    /// A copy made by the cleaner of an older record: state, not history.
    pub(super) copy: bool,
    /// Number of the group commit that wrote it.
    pub(super) commit: u64,
    pub(super) revision: i64,
    pub(super) create_revision: i64,
    /// Unix milliseconds after which the key goes; 0 for never.
    pub(super) expires: u64,
    pub(super) key: &'a str,
    pub(super) value: &'a [u8],
}

impl Record<'_> {
    /// Bytes the record takes.
    pub(super) fn encoded_len(&self) -> usize {
        HEADER + self.key.len() + self.value.len()
    }

    /// Appends the record.
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        let start = out.len();
        let length = (self.encoded_len() - 8) as u32;
        out.extend_from_slice(&length.to_le_bytes());
        out.extend_from_slice(&[0; 4]);
        out.push(match self.kind {
            Kind::Put => 1,
            Kind::Delete => 2,
            Kind::Mark => 3,
        });
        out.push(if self.copy { FLAG_COPY } else { 0 });
        out.extend_from_slice(&self.commit.to_le_bytes());
        out.extend_from_slice(&self.revision.to_le_bytes());
        out.extend_from_slice(&self.create_revision.to_le_bytes());
        out.extend_from_slice(&self.expires.to_le_bytes());
        out.extend_from_slice(&(self.key.len() as u32).to_le_bytes());
        out.extend_from_slice(self.key.as_bytes());
        out.extend_from_slice(self.value);
        let sum = checksum(&out[start + 8..]);
        out[start + 4..start + 8].copy_from_slice(&sum.to_le_bytes());
    }
}

/// Reads the record at the start of `bytes`, and its length. `None` if there is no whole, undamaged record.
pub(super) fn decode(bytes: &[u8]) -> Option<(Record<'_>, usize)> {
    let length = encoded_len(bytes)?;
    let body = bytes.get(8..length)?;
    if checksum(body) != u32::from_le_bytes(bytes[4..8].try_into().ok()?) {
        return None;
    }
    let number = |at: usize| body.get(at..at + 8)?.try_into().ok().map(u64::from_le_bytes);
    let kind = match body[0] {
        1 => Kind::Put,
        2 => Kind::Delete,
        3 => Kind::Mark,
        _ => return None,
    };
    let key_length = u32::from_le_bytes(body.get(34..38)?.try_into().ok()?) as usize;
    let record = Record {
        kind,
        copy: body[1] & FLAG_COPY != 0,
        commit: number(2)?,
        revision: number(10)? as i64,
        create_revision: number(18)? as i64,
        expires: number(26)?,
        key: std::str::from_utf8(body.get(FIXED..FIXED.checked_add(key_length)?)?).ok()?,
        value: body.get(FIXED + key_length..)?,
    };
    Some((record, length))
}

/// Length of the record at the start of `bytes` as its first field claims, if that is possible at all.
pub(super) fn encoded_len(bytes: &[u8]) -> Option<usize> {
    let length = u32::from_le_bytes(bytes.get(..4)?.try_into().ok()?) as usize;
    (FIXED..=crate::contract::MAX_VALUE_BYTES + crate::contract::MAX_KEY_BYTES + FIXED)
        .contains(&length)
        .then_some(length + 8)
}

fn checksum(bytes: &[u8]) -> u32 {
    let mut crc = Crc::new();
    crc.update(bytes);
    crc.sum()
}

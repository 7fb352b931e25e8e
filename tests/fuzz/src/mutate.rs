//! Makes hostile bytes of harmless ones.

use crate::random::Random;

/// Longest input.
const LONGEST: usize = 64 << 10;
/// Words of all languages that are read here, and values at the edges of types.
const WORDS: &[&str] = &[
    "null",
    "true",
    "false",
    "{}",
    "[]",
    "[",
    "{\"a\":",
    "\"",
    "\\u0000",
    "\\ud800",
    "-0",
    "1e309",
    "-1",
    "0x",
    "9223372036854775807",
    "-9223372036854775808",
    "18446744073709551616",
    "4294967296",
    "2147483648",
    "0.1",
    "1e-9",
    "&a ",
    "*a",
    "<<: ",
    "!!binary ",
    "- ",
    "|\n ",
    ">-\n ",
    "? ",
    "---\n",
    "$patch",
    "$retainKeys",
    "$setElementOrder/containers",
    "$deleteFromPrimitiveList/finalizers",
    "replace",
    "delete",
    "metadata",
    "labels",
    "annotations",
    "spec",
    "status",
    "apiVersion",
    "kind",
    "name",
    "managedFields",
    "f:spec",
    "k:{\"name\":\"c\"}",
    "v:\"a\"",
    "/-",
    "~1",
    "~0",
    "/spec/containers/0",
    " in (",
    " notin (",
    "!",
    "==",
    "!=",
    ",",
    "Ki",
    "Ei",
    "m",
    "n",
    "e9",
    ".all(x, ",
    ".map(x, ",
    ".exists(x, ",
    "self",
    "oldSelf",
    "size(",
    ".matches('",
    "(a+)+$",
    "has(",
    "? ",
    " : ",
    "&&",
    "||",
    "duration('",
    "timestamp('",
    "quantity('",
    "ip('",
    "cidr('",
    ".format([",
    "%s",
    "optional.of(",
    ".?",
    "cel.bind(x, ",
    "type(",
    "2026-01-01T00:00:00Z",
    "9999-12-31T23:59:59.999999999Z",
    "0001-01-01T00:00:00Z",
    "+24:00",
    "1h",
    "-1ns",
    "9223372036854775807ns",
    "{range .items[*]}",
    "{end}",
    "[?(@.a>1)]",
    "[-1:]",
    "..",
    "x-kubernetes-",
    "x-kubernetes-preserve-unknown-fields",
    "x-kubernetes-validations",
    "x-kubernetes-int-or-string",
    "properties",
    "additionalProperties",
    "items",
    "pattern",
    "default",
    "nullable",
    "allOf",
    "not",
    "type",
    "object",
    "array",
    "\u{0}",
    "\u{feff}",
    "\u{202e}",
    "é",
    "𝕊",
    "\r\n",
    "\t",
    "%00",
    "../",
];

/// What mutations draw from.
#[derive(Debug)]
pub struct Mutator<'a> {
    seeds: &'a [Vec<u8>],
    random: Random,
}

impl<'a> Mutator<'a> {
    /// Mutations of these seeds.
    pub fn new(seeds: &'a [Vec<u8>], random: Random) -> Self {
        Self { seeds, random }
    }

    /// The next input.
    pub fn next_input(&mut self) -> Vec<u8> {
        let mut input = self.random.pick(self.seeds).cloned().unwrap_or_default();
        for _ in 0..=self.random.below(6) {
            self.change(&mut input);
        }
        input.truncate(LONGEST);
        input
    }

    fn range(&mut self, length: usize) -> std::ops::Range<usize> {
        let start = self.random.below(length + 1);
        start..start + self.random.below((length - start + 1).min(64))
    }

    fn change(&mut self, input: &mut Vec<u8>) {
        let length = input.len();
        match self.random.below(10) {
            0 => {
                let (at, bit) = (self.random.below(length), self.random.below(8));
                input.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= 1 << bit);
            }
            1 => {
                let (at, new) = (self.random.below(length), self.random.bits().to_le_bytes()[0]);
                input.iter_mut().skip(at).take(1).for_each(|byte| *byte = new);
            }
            2 => {
                let range = self.range(length);
                input.drain(range);
            }
            3 => {
                let range = self.range(length);
                let copied = input.get(range.clone()).unwrap_or_default().to_vec();
                input.splice(range.end..range.end, copied);
            }
            4 | 5 => {
                let word = self.random.pick(WORDS).copied().unwrap_or_default();
                let range = self.range(length);
                let end = if self.random.below(2) == 0 { range.start } else { range.end };
                input.splice(range.start..end, word.bytes());
            }
            6 => {
                let other = self.random.pick(self.seeds).cloned().unwrap_or_default();
                let part = other.get(self.range(other.len())).unwrap_or_default().to_vec();
                let at = self.random.below(length + 1);
                input.splice(at..at, part);
            }
            7 => {
                // Depth and length are attacks of their own.
                let word = self.random.pick(WORDS).copied().unwrap_or_default();
                let at = self.random.below(length + 1);
                let times = 1 << self.random.below(12);
                input.splice(at..at, word.repeat(times).into_bytes());
            }
            8 => {
                let part = self.range(length);
                let part = input.get(part).unwrap_or_default().to_vec();
                let (at, times) = (self.random.below(length + 1), 1 << self.random.below(8));
                input.splice(at..at, part.repeat(times));
            }
            _ => input.truncate(self.random.below(length + 1)),
        }
        input.truncate(LONGEST);
    }
}

//! Texts of node labels, resources and images as small integers. Counted: what no node uses any more is forgotten.

use std::{collections::HashMap, sync::Arc};

/// A text by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Symbol(u32);

#[derive(Debug)]
struct Entry {
    text: Arc<str>,
    uses: u32,
}

/// All texts in use.
#[derive(Debug, Default)]
pub(crate) struct Symbols {
    by_text: HashMap<Arc<str>, Symbol>,
    entries: Vec<Entry>,
    free: Vec<Symbol>,
}

impl Symbols {
    /// The number of a text, used once more.
    pub(crate) fn acquire(&mut self, text: &str) -> Symbol {
        if let Some(symbol) = self.by_text.get(text).copied() {
            if let Some(entry) = self.entries.get_mut(index(symbol)) {
                entry.uses += 1;
            }
            return symbol;
        }
        let text: Arc<str> = text.into();
        let entry = Entry { text: Arc::clone(&text), uses: 1 };
        let symbol = match self.free.pop() {
            Some(symbol) => {
                if let Some(slot) = self.entries.get_mut(index(symbol)) {
                    *slot = entry;
                }
                symbol
            }
            None => {
                let symbol = Symbol(u32::try_from(self.entries.len()).unwrap_or(u32::MAX));
                self.entries.push(entry);
                symbol
            }
        };
        self.by_text.insert(text, symbol);
        symbol
    }

    /// Ends one use.
    pub(crate) fn release(&mut self, symbol: Symbol) {
        let Some(entry) = self.entries.get_mut(index(symbol)) else { return };
        entry.uses = entry.uses.saturating_sub(1);
        if entry.uses == 0 {
            let text = std::mem::replace(&mut entry.text, Arc::from(""));
            self.by_text.remove(&text);
            self.free.push(symbol);
        }
    }

    /// The number of a text that is in use.
    pub(crate) fn find(&self, text: &str) -> Option<Symbol> {
        self.by_text.get(text).copied()
    }

    /// The text of a number.
    pub(crate) fn text(&self, symbol: Symbol) -> &str {
        self.entries.get(index(symbol)).map_or("", |e| &e.text)
    }
}

fn index(symbol: Symbol) -> usize {
    usize::try_from(symbol.0).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_used_again() {
        let mut symbols = Symbols::default();
        let a = symbols.acquire("a");
        assert_eq!(symbols.acquire("a"), a);
        symbols.release(a);
        assert_eq!(symbols.find("a"), Some(a));
        symbols.release(a);
        assert_eq!(symbols.find("a"), None);
        let b = symbols.acquire("b");
        assert_eq!((b, symbols.text(b)), (a, "b"));
    }
}

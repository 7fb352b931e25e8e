//! The terminal that a person sits at.

use std::{io, time::Duration};

use rustix::termios::{self, OptionalActions, Termios};

use crate::streams::Streams;

/// Time between two looks at the size.
pub(crate) const LOOK: Duration = Duration::from_millis(250);

/// Columns and rows of standard output.
pub(crate) fn size() -> Option<(u16, u16)> {
    let size = termios::tcgetwinsize(io::stdout()).ok()?;
    (size.ws_col > 0 && size.ws_row > 0).then_some((size.ws_col, size.ws_row))
}

/// A terminal that passes on what is typed as it is typed, until this is dropped.
pub(crate) struct Raw {
    before: Termios,
}

impl Raw {
    /// Enters the raw mode, if standard input is a terminal.
    pub(crate) fn enter(streams: &Streams) -> Option<Self> {
        if !streams.stdin.is_terminal() {
            return None;
        }
        let before = termios::tcgetattr(io::stdin()).ok()?;
        let mut raw = before.clone();
        raw.make_raw();
        termios::tcsetattr(io::stdin(), OptionalActions::Now, &raw).ok()?;
        Some(Self { before })
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // A terminal that is gone needs no restoring.
        let _gone = termios::tcsetattr(io::stdin(), OptionalActions::Now, &self.before).is_err();
    }
}

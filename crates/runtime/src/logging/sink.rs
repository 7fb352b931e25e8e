//! The streams that log lines are written to.

use std::{io::Write, sync::Arc, time::Duration};

use parking_lot::Mutex;
use tracing::Level;

/// Where lines go.
pub(super) trait Sink: Send + Sync {
    /// Takes one line.
    fn write(&self, level: Level, line: &[u8]);
    /// Writes what was kept back.
    fn flush(&self) {}
}

/// Standard error for everything, or for errors only, with standard output for the rest.
pub(super) struct Streams(Option<Arc<Buffer>>);

impl Streams {
    /// Everything to standard error, at once.
    pub(super) fn one() -> Self {
        Self(None)
    }

    /// What is no error to standard output, once `size` bytes are together or `every` has passed.
    pub(super) fn split(size: usize, every: Duration) -> Self {
        let buffer = Arc::new(Buffer { size, kept: Mutex::default() });
        if size > 0 && !every.is_zero() {
            let weak = Arc::downgrade(&buffer);
            // Without the thread the buffer is written when it is full and at the end.
            let _late = std::thread::Builder::new()
                .name("log flush".into())
                .spawn(move || {
                    while let Some(buffer) = weak.upgrade() {
                        buffer.flush();
                        drop(buffer);
                        std::thread::sleep(every);
                    }
                })
                .is_err();
        }
        Self(Some(buffer))
    }
}

impl Sink for Streams {
    fn write(&self, level: Level, line: &[u8]) {
        match &self.0 {
            Some(buffer) if level != Level::ERROR => buffer.take(line),
            // There is nowhere to report that the log cannot be written.
            _ => drop(std::io::stderr().lock().write_all(line)),
        }
    }

    fn flush(&self) {
        if let Some(buffer) = &self.0 {
            buffer.flush();
        }
    }
}

struct Buffer {
    size: usize,
    kept: Mutex<Vec<u8>>,
}

impl Buffer {
    fn take(&self, line: &[u8]) {
        let mut kept = self.kept.lock();
        kept.extend_from_slice(line);
        if kept.len() >= self.size {
            put_out(&mut kept);
        }
    }

    fn flush(&self) {
        put_out(&mut self.kept.lock());
    }
}

fn put_out(kept: &mut Vec<u8>) {
    let mut out = std::io::stdout().lock();
    // There is nowhere to report that the log cannot be written.
    let _lost = out.write_all(kept).and_then(|()| out.flush()).is_err();
    kept.clear();
}

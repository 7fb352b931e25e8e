//! Hostile bytes for everything that reads what others wrote. A target is a function of bytes that may not panic, may not
//! take unbounded memory, and checks what has to hold of its answers.
//!
//! `cargo test -p timonel-fuzz` gives each target a bounded number of inputs. `cargo run -p timonel-fuzz -- <target>
//! [seconds] [seed]` goes on for longer. Whatever fails is told with the seed and the input.

pub mod mutate;
pub mod random;
pub mod seeds;
pub mod targets;
#[cfg(test)]
mod tests;

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    time::Instant,
};

use nix::sys::resource::{Resource, setrlimit};

use self::{mutate::Mutator, random::Random};

/// Memory of the whole process beyond which it is ended.
const MEMORY: u64 = 6 << 30;
/// A machine's stack for one thread of a server.
const STACK: usize = 2 << 20;

/// Something that reads bytes.
#[derive(Clone, Copy)]
pub struct Target {
    /// Name.
    pub name: &'static str,
    /// Inputs that make sense.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// Reads an input; panics if something does not hold.
    pub read: fn(&[u8]),
}

/// How long a run goes on.
#[derive(Clone, Copy, Debug)]
pub enum Until {
    /// So many inputs.
    Inputs(u64),
    /// Some time.
    Time(Instant),
}

impl Until {
    fn is_over(self, inputs: u64) -> bool {
        match self {
            Self::Inputs(most) => inputs >= most,
            Self::Time(end) => Instant::now() >= end,
        }
    }
}

/// An input that something does not hold for.
#[derive(Debug)]
pub struct Finding {
    /// The input.
    pub input: Vec<u8>,
    /// How many inputs were fine.
    pub after: u64,
}

/// Bounds the memory of this process: what takes too much ends it.
pub fn bound_memory() {
    if let Err(error) = setrlimit(Resource::RLIMIT_AS, MEMORY, MEMORY) {
        eprintln!("memory is not bounded: {error}");
    }
}

/// Gives a target inputs until the end, on a stack as servers have it. Answers how many, or the first that fails.
pub fn run(target: Target, seed: u64, until: Until) -> Result<u64, Finding> {
    let thread = std::thread::Builder::new().stack_size(STACK).spawn(move || feed(target, seed, until));
    match thread.map(std::thread::JoinHandle::join) {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(panic)) => std::panic::resume_unwind(panic),
        Err(error) => panic!("no thread: {error}"),
    }
}

fn feed(target: Target, seed: u64, until: Until) -> Result<u64, Finding> {
    let seeds = (target.seeds)();
    for (after, input) in (0..).zip(&seeds) {
        read(target, input, after)?;
    }
    let mut mutator = Mutator::new(&seeds, Random::new(seed));
    let mut inputs = 0;
    while !until.is_over(inputs) {
        read(target, &mutator.next_input(), inputs)?;
        inputs += 1;
    }
    Ok(inputs)
}

fn read(target: Target, input: &[u8], after: u64) -> Result<(), Finding> {
    catch_unwind(AssertUnwindSafe(|| (target.read)(input))).map_err(|_| Finding { input: input.to_vec(), after })
}

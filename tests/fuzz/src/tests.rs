use super::{Until, bound_memory, run, targets::TARGETS};

/// Inputs of each target.
const INPUTS: u64 = 1500;

#[test]
fn nothing_breaks() {
    bound_memory();
    let seed = match std::env::var("TIMONEL_SEED") {
        Ok(text) => text.parse().expect("a number"),
        Err(_) => std::time::UNIX_EPOCH.elapsed().map_or(1, |since| since.as_secs()),
    };
    println!("TIMONEL_SEED={seed}");
    let failed: Vec<String> = TARGETS
        .iter()
        .filter_map(|target| {
            let found = run(*target, seed, Until::Inputs(INPUTS)).err()?;
            Some(format!("{} after {}: {}", target.name, found.after, found.input.escape_ascii()))
        })
        .collect();
    assert!(failed.is_empty(), "TIMONEL_SEED={seed}\n{}", failed.join("\n"));
}

//! `timonel-fuzz <target>|all [seconds] [seed]`

use std::{
    process::ExitCode,
    time::{Duration, Instant},
};

use timonel_fuzz::{Until, bound_memory, run, targets::TARGETS};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |at: usize, default: u64| arguments.get(at).map_or(Ok(default), |text| text.parse());
    let now = std::time::UNIX_EPOCH.elapsed().map_or(1, |since| since.as_secs());
    let (Some(name), Ok(seconds), Ok(seed)) = (arguments.first(), number(1, 60), number(2, now)) else {
        let names: Vec<&str> = TARGETS.iter().map(|target| target.name).collect();
        eprintln!("usage: timonel-fuzz <target>|all [seconds] [seed]\ntargets: {}", names.join(", "));
        return ExitCode::from(2);
    };
    bound_memory();
    let mut code = ExitCode::SUCCESS;
    for target in TARGETS.iter().filter(|target| name == "all" || name == target.name) {
        println!("{} seed={seed}", target.name);
        match run(*target, seed, Until::Time(Instant::now() + Duration::from_secs(seconds))) {
            Ok(inputs) => println!("{}: {inputs} inputs", target.name),
            Err(found) => {
                println!("{} seed={seed} fails after {}: {}", target.name, found.after, found.input.escape_ascii());
                code = ExitCode::FAILURE;
            }
        }
    }
    code
}

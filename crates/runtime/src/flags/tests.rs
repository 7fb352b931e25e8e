use std::time::Duration;

use super::*;

#[derive(Args, Debug)]
struct Sample {
    #[arg(long, default_value_t = true)]
    profiling: bool,
    #[arg(long)]
    quiet: bool,
    #[arg(long, value_delimiter = ',', default_value = "*")]
    controllers: Vec<String>,
    #[arg(long)]
    key_file: Vec<String>,
    #[arg(long, value_parser = duration, default_value = "1m")]
    period: Duration,
    #[arg(long, default_value = "")]
    labels: StringMap,
    #[arg(long, default_value_t = -1)]
    limit: i64,
    #[arg(short = 'v', long = "v", default_value_t = 0)]
    verbosity: i32,
}

fn parse(argv: &[&str]) -> Result<Parsed<Sample>, String> {
    CommandLine::new::<Sample>("sample", "", &[("limit", "use something else.")])
        .parse(argv.iter().map(|s| (*s).to_owned()))
        .map_err(|e| e.to_string())
}

#[test]
fn defaults_hold() {
    let parsed = parse(&[]).unwrap();
    let args = &parsed.args;
    assert!(args.profiling && !args.quiet);
    assert_eq!(args.controllers, ["*"]);
    assert_eq!((args.period, args.limit, args.labels.0.len()), (Duration::from_secs(60), -1, 0));
    assert!(!parsed.given("profiling"));
}

#[test]
fn lists_replace_then_append() {
    let args =
        parse(&["--controllers=a,b", "--controllers", "\"c,d\"", "--key_file=x,y", "--key-file=z"]).unwrap().args;
    assert_eq!(args.controllers, ["a", "b", "c,d"]);
    assert_eq!(args.key_file, ["x,y", "z"]);
    assert_eq!(parse(&["--controllers="]).unwrap().args.controllers, Vec::<String>::new());
}

#[test]
fn switches_need_an_equals_sign() {
    assert!(!parse(&["--profiling=false"]).unwrap().args.profiling);
    assert!(parse(&["--quiet"]).unwrap().args.quiet);
    assert!(parse(&["--quiet=T"]).unwrap().args.quiet);
    let refused = parse(&["--quiet", "false"]).unwrap_err();
    assert_eq!(refused, "\"sample\" does not take any arguments, got [\"false\"]");
}

#[test]
fn last_value_wins_and_maps_add_up() {
    let args =
        parse(&["--period=1s", "--period", "1h30m", "--labels=a=1", "--labels=b=2,c=3", "-v=4", "--limit", "-7"]);
    let args = args.unwrap().args;
    assert_eq!(args.period, Duration::from_secs(5400));
    assert_eq!(args.labels.to_string(), "a=1,b=2,c=3");
    assert_eq!((args.verbosity, args.limit), (4, -7));
    assert_eq!(parse(&["-v4"]).unwrap().args.verbosity, 4);
}

#[test]
fn errors_read_like_pflags() {
    assert_eq!(parse(&["--nope"]).unwrap_err(), "unknown flag: --nope");
    assert_eq!(parse(&["-x"]).unwrap_err(), "unknown shorthand flag: 'x' in -x");
    assert_eq!(parse(&["--period"]).unwrap_err(), "flag needs an argument: --period");
    assert_eq!(
        parse(&["--period=abc"]).unwrap_err(),
        "invalid argument \"abc\" for \"--period\" flag: time: invalid duration \"abc\""
    );
    let warned = parse(&["--limit=3"]).unwrap();
    assert_eq!(warned.warnings, ["Flag --limit has been deprecated, use something else."]);
    assert!(warned.given("limit"));
}

#[test]
fn empty_paths_are_no_paths() {
    let line = CommandLine::new::<super::SecureServingArgs>("x", "", &[]);
    let parsed = line.parse::<super::SecureServingArgs>(["--tls-cert-file=".to_owned()]).unwrap().args;
    assert_eq!((parsed.cert_dir.as_os_str().len(), parsed.tls_cert_file), (0, Some("".into())));
}

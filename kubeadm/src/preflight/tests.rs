use super::{Findings, cgroups, ignored, kernel, name_of, report};
use crate::host::recorder::Recorder;

#[test]
fn errors_are_told_together() {
    let host = Recorder::new();
    let found = [
        Findings::of("NumCPU").error("the number of available CPUs 1 is less than the required 2"),
        Findings::of("Swap").warning("swap is on"),
        Findings::of(name_of("FileAvailable", "/etc/kubernetes/kubelet.conf"))
            .error("/etc/kubernetes/kubelet.conf already exists"),
    ];
    let error = report(&host, &found, &["numcpu".into()]).unwrap_err().to_string();
    assert_eq!(error, "preflight checks failed");
    assert_eq!(
        host.warned(),
        "\t[WARNING NumCPU]: the number of available CPUs 1 is less than the required 2\n\t[WARNING Swap]: swap is on\n\
         [preflight] Some fatal errors occurred:\n\t[ERROR FileAvailable--etc-kubernetes-kubelet.conf]: \
         /etc/kubernetes/kubelet.conf already exists\n[preflight] If you know what you are doing, you can make a check \
         non-fatal with `--ignore-preflight-errors=...`\n"
    );
    report(&host, &found, &["all".into()]).unwrap();
}

#[test]
fn names_to_ignore() {
    assert_eq!(ignored(&["Swap,NumCPU".into(), "swap".into()]).unwrap(), ["numcpu", "swap"]);
    assert_eq!(ignored(&["ALL".into()]).unwrap(), ["all"]);
    let both = ignored(&["all".into(), "Swap".into()]).unwrap_err().to_string();
    assert_eq!(both, "don't specify individual checks if 'all' is used");
}

#[test]
fn kernels() {
    for (release, good) in [
        ("5.4.0-1", true),
        ("5.10.3", true),
        ("5.15.0-generic", true),
        ("5.11.0", false),
        ("4.19.1", false),
        ("6.1.0", true),
        ("10.0", true),
        ("x", false),
    ] {
        assert_eq!(kernel::is_supported(release), good, "{release}");
    }
    assert_eq!(kernel::kubelet_version("Kubernetes v1.36.0\n").unwrap().to_string(), "v1.36.0");
}

#[test]
fn control_groups() {
    let unified = Recorder::new().with_file("/sys/fs/cgroup/cgroup.controllers", "cpuset cpu io memory pids\n");
    assert_eq!(cgroups::check(&unified, Findings::of("x")), Findings::of("x"));
    let poor = Recorder::new().with_file("/sys/fs/cgroup/cgroup.controllers", "cpu pids\n");
    assert_eq!(cgroups::check(&poor, Findings::of("x")).errors, ["missing required cgroups: cpuset memory"]);
    let old = Recorder::new().with_file(
        "/proc/cgroups",
        "#subsys_name\thierarchy\tnum_cgroups\tenabled\ncpu\t1\t1\t1\ncpuacct\t1\t1\t1\ncpuset\t1\t1\t1\ndevices\t1\t1\t1\nfreezer\t1\t1\t1\nmemory\t1\t1\t0\n",
    );
    let errors = cgroups::check(&old, Findings::of("x")).errors;
    assert_eq!(errors[0], "missing required cgroups: memory");
    assert!(errors[1].starts_with("cgroups v1 support is deprecated and will be removed in a future release."));
}

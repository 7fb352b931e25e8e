//! The Debian packages (`deploy/packages.sh`).

use std::{path::Path, process::Command};

use tempfile::TempDir;

use super::{programs, repository};

fn ok(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).env("COMPRESSION", "none").output().expect(program);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {errors}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a path in UTF-8")
}

#[test]
fn packages_install_programs_and_units() {
    let directory = TempDir::new().expect("a directory");
    let (packages, root) = (directory.path().join("packages"), directory.path().join("root"));
    let script = repository().join("deploy/packages.sh");
    let made = ok("bash", &[text(&script), text(&programs()), text(&packages)]);
    let names: Vec<&str> = made.lines().filter_map(|line| line.rsplit('/').next()?.split('_').next()).collect();
    let expected = [
        "kube-apiserver",
        "kube-controller-manager",
        "kube-scheduler",
        "kube-proxy",
        "kubectl",
        "kubelet",
        "timonel-addons",
        "kubeadm",
    ];
    assert_eq!(names, expected);

    std::fs::create_dir_all(root.join("var/lib/dpkg")).expect("a directory");
    std::fs::write(root.join("var/lib/dpkg/status"), "").expect("an empty list of packages");
    // What they depend on is not in there; all other checks stand.
    let mut install = vec!["--root", text(&root), "--force-depends", "--force-script-chrootless", "-i"];
    install.extend(made.lines());
    ok("dpkg", &install);
    let version = ok(text(&root.join("usr/bin/kubectl")), &["version", "--client"]);
    assert!(version.starts_with("Client Version: v1.36."), "{version}");
    let unit = root.join("usr/lib/systemd/system/kubelet.service.d/10-kubeadm.conf");
    assert!(
        std::fs::read_to_string(unit)
            .expect("the unit")
            .contains("ExecStart=/usr/bin/kubelet $KUBELET_KUBECONFIG_ARGS")
    );
    for file in [
        "usr/lib/systemd/system/kubelet.service",
        "usr/lib/systemd/system/kube-apiserver.service",
        "etc/default/kube-scheduler",
        "usr/libexec/timonel/pause",
        "usr/share/bash-completion/completions/kubectl",
    ] {
        assert!(root.join(file).is_file(), "{file} is missing");
    }
    // Removal takes all but what users may have changed.
    let mut remove = vec!["--root", text(&root), "--force-script-chrootless", "--purge"];
    remove.extend(expected);
    ok("dpkg", &remove);
    assert!(!root.join("usr/bin/kubelet").exists() && !root.join("etc/default/kube-scheduler").exists());
}

use serde_json::json;

use super::*;
use crate::events::LogSink;
use crate::objects::NoObjects;
use crate::platform::Recorder;

fn volumes(root: &Path) -> (Volumes, Arc<Recorder>) {
    let paths = Paths::new(root, root.join("logs"), root.join("links"));
    let platform = Arc::new(Recorder::default());
    let objects: Arc<dyn Objects> = Arc::new(NoObjects);
    let events = Events::new(Arc::new(LogSink), "node");
    let csi = Csi::new(&paths, Arc::clone(&platform) as _, Arc::clone(&objects), events.clone(), "node", true);
    (Volumes::new(paths, Arc::clone(&platform) as _, objects, csi, events), platform)
}

fn pod(volume: serde_json::Value) -> Pod {
    let mount = json!({ "name": "v", "mountPath": "/v" });
    let value = json!({
        "metadata": { "name": "p", "namespace": "ns", "uid": "u" },
        "spec": { "containers": [{ "name": "c", "volumeMounts": [mount] }], "volumes": [volume] },
    });
    serde_json::from_value(value).unwrap()
}

/// CVE-2024-10220, CVE-2025-1767: whoever wrote a Pod had the node run hooks of a repository, or read others on it.
#[tokio::test]
async fn repositories_are_nobodys_volumes() {
    let root = tempfile::tempdir().unwrap();
    let (volumes, platform) = volumes(root.path());
    for source in [
        json!({ "repository": "https://example.test/a.git", "directory": "a/.git", "revision": "main" }),
        json!({ "repository": "/var/lib/kubelet/pods/other/volumes/kubernetes.io~git-repo/v", "directory": "." }),
        json!({ "repository": "--upload-pack=touch /tmp/owned", "directory": "../../.." }),
    ] {
        let pod = pod(json!({ "name": "v", "gitRepo": source }));
        let errors = volumes.set_up(&pod, &NodeFacts::default()).await.unwrap_err();
        let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
        let text = "MountVolume.SetUp failed for volume \"v\" : git-repo volume plugin has been disabled";
        assert_eq!(texts, [text], "{source}");
    }
    assert_eq!(platform.calls(), []);
    assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0, "nothing was made");
}

#[tokio::test]
async fn what_is_made_is_taken_down() {
    let root = tempfile::tempdir().unwrap();
    let (volumes, platform) = volumes(root.path());
    let pod = pod(json!({ "name": "v", "emptyDir": { "medium": "Memory" } }));
    let mounted = volumes.set_up(&pod, &NodeFacts::default()).await.unwrap();
    let Ready::Path { path, .. } = &mounted["v"] else { panic!("{mounted:?}") };
    assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o777);
    assert!(!volumes.is_clean("u"));
    volumes.tear_down("u").await.unwrap();
    assert!(volumes.is_clean("u"));
    assert_eq!(platform.calls().len(), 2, "{:?}", platform.calls());
}

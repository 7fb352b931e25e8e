use std::os::fd::AsFd;
use std::time::Duration;

use serde_json::json;
use tokio::net::UnixListener;

use super::groups::position;
use super::*;
use crate::bus::Value;
use crate::bus::tests::Service;
use crate::config::KubeletConfiguration;

fn config(fields: serde_json::Value) -> KubeletConfiguration {
    serde_json::from_value(fields).unwrap()
}

#[test]
fn pods_are_in_the_group_below_them() {
    let none = groups(&KubeletConfiguration::default());
    assert!(none.is_empty());
    let two = groups(&config(json!({ "shutdownGracePeriod": "30s", "shutdownGracePeriodCriticalPods": "10s" })));
    let seconds = Duration::from_secs;
    assert_eq!(two, [Group { priority: 0, time: seconds(20) }, Group { priority: 2_000_000_000, time: seconds(10) }]);
    let many = groups(&config(json!({ "shutdownGracePeriodByPodPriority": [
        { "priority": 1000, "shutdownGracePeriodSeconds": 5 },
        { "priority": 10, "shutdownGracePeriodSeconds": 7 },
    ] })));
    for (groups, priority, expected) in [
        (&two, None, 0),
        (&two, Some(-5), 0),
        (&two, Some(1_999_999_999), 0),
        (&two, Some(2_000_000_000), 1),
        (&two, Some(2_000_001_000), 1),
        (&many, Some(0), 0),
        (&many, Some(10), 0),
        (&many, Some(999), 0),
        (&many, Some(1000), 1),
        (&many, Some(i32::MAX), 1),
    ] {
        let pod = serde_json::from_value(json!({ "spec": { "priority": priority, "containers": [] } })).unwrap();
        assert_eq!(position(groups, &pod), expected, "{priority:?}");
    }
}

#[test]
fn the_last_shutdown_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state");
    assert_eq!(LastShutdown::read(&path), LastShutdown::default());
    let last = LastShutdown { start_time: Some(Timestamp::from_second(5).unwrap()), end_time: None };
    last.write(&path).unwrap();
    assert_eq!(LastShutdown::read(&path), last);
}

#[tokio::test]
async fn the_login_daemon_is_asked_and_heard() {
    let dir = tempfile::tempdir().unwrap();
    let (socket, drop_in) = (dir.path().join("bus"), dir.path().join("conf.d/99-kubelet.conf"));
    let listener = UnixListener::bind(&socket).unwrap();
    let serve = async {
        let mut service = Service::accept(&listener).await;
        let rule = service.next().await.unwrap();
        assert!(matches!(&rule.body[0], Value::Text(rule) if rule.contains("PrepareForShutdown")), "{rule:?}");
        service.answer(&rule, Vec::new()).await;
        let get = service.next().await.unwrap();
        assert_eq!(get.body[1], Value::text("InhibitDelayMaxUSec"));
        service.answer(&get, vec![Value::Variant(Box::new(Value::Long(5_000_000)))]).await;
        let kill = service.next().await.unwrap();
        assert_eq!(kill.body, [Value::text("systemd-logind.service"), Value::text("all"), Value::Int(1)]);
        service.answer(&kill, Vec::new()).await;
        let inhibit = service.next().await.unwrap();
        let expected = ["shutdown", "kubelet", "Kubelet needs time to handle node shutdown", "delay"];
        assert_eq!(inhibit.body, expected.map(Value::text));
        service.lend(&inhibit).await;
        service.signal("org.freedesktop.login1.Manager", "Other", vec![Value::Bool(false)]).await;
        service.signal("org.freedesktop.login1.Manager", "PrepareForShutdown", vec![Value::Bool(true)]).await;
    };
    let ask = async {
        let mut logind = SystemLogind::connect(&socket, &drop_in).await.unwrap();
        assert_eq!(logind.max_delay().await.unwrap(), Duration::from_secs(5));
        logind.set_max_delay(Duration::from_secs(30)).await.unwrap();
        let text = std::fs::read_to_string(&drop_in).unwrap();
        assert_eq!(text, "# Kubelet logind override\n[Login]\nInhibitDelayMaxSec=30\n");
        let lock = logind.inhibit().await.unwrap();
        assert!(nix::fcntl::fcntl(lock.as_fd(), nix::fcntl::FcntlArg::F_GETFD).is_ok());
        assert!(logind.prepares_for_shutdown().await.unwrap());
    };
    tokio::join!(serve, ask);
}

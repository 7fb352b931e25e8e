//! Refusing new Pods while the node is under pressure.

use k8s_openapi::api::core::v1::{Pod, Toleration};

use crate::admission::Refusal;
use crate::node::status::Pressure;
use crate::pods;
use crate::pods::resources::{Qos, qos};

const MEMORY_TAINT: &str = "node.kubernetes.io/memory-pressure";

/// Whether a Pod may be taken under the present pressure.
pub fn admit(pod: &Pod, pressure: Pressure) -> Result<(), Refusal> {
    if pressure == Pressure::default() || pods::is_critical(pod) {
        return Ok(());
    }
    let only_memory = pressure == Pressure { memory: true, ..Pressure::default() };
    if only_memory && (qos(pod) != Qos::BestEffort || tolerates_memory_pressure(pod)) {
        return Ok(());
    }
    let conditions =
        [(pressure.disk, "DiskPressure"), (pressure.memory, "MemoryPressure"), (pressure.pid, "PIDPressure")];
    let names: Vec<&str> = conditions.into_iter().filter(|(there, _)| *there).map(|(_, name)| name).collect();
    let message = format!("The node had condition: [{}]. ", names.join(" "));
    Err(Refusal::new("Evicted", message))
}

fn tolerates_memory_pressure(pod: &Pod) -> bool {
    let tolerates = |toleration: &Toleration| {
        let key = toleration.key.as_deref().unwrap_or_default();
        let exists = toleration.operator.as_deref() == Some("Exists");
        let effect = toleration.effect.as_deref().unwrap_or_default();
        (effect.is_empty() || effect == "NoSchedule")
            && (key == MEMORY_TAINT || (key.is_empty() && exists))
            && (exists || toleration.value.as_deref().unwrap_or_default().is_empty())
    };
    pods::spec(pod).tolerations.iter().flatten().any(tolerates)
}

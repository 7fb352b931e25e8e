//! The status of an autoscaler while it is worked out.

use k8s_openapi::{
    api::autoscaling::v2::{
        HorizontalPodAutoscaler, HorizontalPodAutoscalerCondition, HorizontalPodAutoscalerStatus, MetricStatus,
    },
    apimachinery::pkg::apis::meta::v1::Time,
};

/// Types of conditions.
pub(super) const ABLE: &str = "AbleToScale";
pub(super) const ACTIVE: &str = "ScalingActive";
pub(super) const LIMITED: &str = "ScalingLimited";

/// A status that starts from the written one: conditions of others stay.
#[derive(Clone, Debug)]
pub(super) struct Draft {
    status: HorizontalPodAutoscalerStatus,
    now: Time,
}

impl Draft {
    pub(super) fn of(autoscaler: &HorizontalPodAutoscaler, now: Time) -> Self {
        let mut status = autoscaler.status.clone().unwrap_or_default();
        status.observed_generation = autoscaler.metadata.generation;
        Self { status, now }
    }

    /// Sets a condition; the time of its last transition changes with its status only.
    pub(super) fn condition(&mut self, kind: &str, holds: bool, reason: &str, message: impl Into<String>) {
        let status = if holds { "True" } else { "False" };
        let conditions = self.status.conditions.get_or_insert_default();
        let at = conditions.iter().position(|condition| condition.type_ == kind).unwrap_or_else(|| {
            conditions.push(HorizontalPodAutoscalerCondition { type_: kind.to_owned(), ..Default::default() });
            conditions.len() - 1
        });
        let condition = &mut conditions[at];
        if condition.status != status {
            condition.last_transition_time = Some(self.now.clone());
        }
        condition.status = status.to_owned();
        condition.reason = Some(reason.to_owned());
        condition.message = Some(message.into());
    }

    /// What is, after an attempt that changed nothing.
    pub(super) fn observed(&mut self, current: i32, metrics: Vec<MetricStatus>) {
        self.status.current_replicas = Some(current);
        self.status.current_metrics = (!metrics.is_empty()).then_some(metrics);
    }

    /// What is and what is wanted.
    pub(super) fn outcome(&mut self, current: i32, desired: i32, metrics: Vec<MetricStatus>, rescaled: bool) {
        self.observed(current, metrics);
        self.status.desired_replicas = desired;
        if rescaled {
            self.status.last_scale_time = Some(self.now.clone());
        }
    }

    pub(super) fn into_status(self) -> HorizontalPodAutoscalerStatus {
        self.status
    }
}

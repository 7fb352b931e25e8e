//! Jobs and CronJobs.

use serde_json::Value;

use super::{
    Facts, events,
    page::{Page, put},
    pod::template,
    read::{controller, flag, list, number, selector, text, title_bool},
};

/// Completed indexes are cut at the first comma behind this.
const INDEXES: usize = 50;

/// A number behind a title if it is there.
fn optional(page: &mut Page, title: &str, value: &Value, unit: &str) {
    if !value.is_null() {
        put!(page, 0, "{title}:\t{}{unit}", number(value));
    }
}

/// A number behind a title, `<unset>` if it is not there.
fn or_unset(page: &mut Page, title: &str, value: &Value, unit: &str) {
    match value.as_i64() {
        Some(number) => put!(page, 0, "{title}:\t{number}{unit}"),
        None => put!(page, 0, "{title}:\t<unset>"),
    }
}

/// A Job.
pub(crate) fn job(page: &mut Page, object: &Value, facts: &Facts) {
    let (spec, status) = (&object["spec"], &object["status"]);
    put!(page, 0, "Name:\t{}", text(&object["metadata"]["name"]));
    put!(page, 0, "Namespace:\t{}", text(&object["metadata"]["namespace"]));
    if !spec["selector"].is_null() {
        put!(page, 0, "Selector:\t{}", selector(&spec["selector"]));
    }
    events::metadata(page, object);
    if let Some(owner) = controller(object) {
        put!(page, 0, "Controlled By:\t{owner}");
    }
    optional(page, "Parallelism", &spec["parallelism"], "");
    or_unset(page, "Completions", &spec["completions"], "");
    if !spec["completionMode"].is_null() {
        put!(page, 0, "Completion Mode:\t{}", text(&spec["completionMode"]));
    }
    if !spec["suspend"].is_null() {
        put!(page, 0, "Suspend:\t{}", flag(&spec["suspend"]));
    }
    optional(page, "Backoff Limit", &spec["backoffLimit"], "");
    optional(page, "TTL Seconds After Finished", &spec["ttlSecondsAfterFinished"], "");
    let times = [("Start Time", "startTime"), ("Completed At", "completionTime")];
    for (title, field) in times {
        if !status[field].is_null() {
            let at = page.clock.time(text(&status[field]));
            put!(page, 0, "{title}:\t{at}");
        }
    }
    if let Some(seconds) = duration(status) {
        put!(page, 0, "Duration:\t{}", machinery::duration::human(seconds));
    }
    optional(page, "Active Deadline Seconds", &spec["activeDeadlineSeconds"], "s");
    let ready = match status["ready"].as_i64() {
        Some(ready) => format!(" ({ready} Ready)"),
        None => String::new(),
    };
    put!(
        page,
        0,
        "Pods Statuses:\t{} Active{ready} / {} Succeeded / {} Failed",
        number(&status["active"]),
        number(&status["succeeded"]),
        number(&status["failed"]),
    );
    if text(&spec["completionMode"]) == "Indexed" {
        put!(page, 0, "Completed Indexes:\t{}", indexes(text(&status["completedIndexes"])));
    }
    template(page, &spec["template"]);
    events::events(page, facts.events());
}

fn duration(status: &Value) -> Option<i64> {
    let at = |field: &str| text(&status[field]).parse::<jiff::Timestamp>().ok();
    Some(at("completionTime")?.as_second() - at("startTime")?.as_second())
}

fn indexes(all: &str) -> String {
    if all.is_empty() {
        return "<none>".into();
    }
    let cut = all.char_indices().filter(|(at, c)| *at >= INDEXES && *c == ',').map(|(at, _)| at).next();
    cut.map_or(all.to_owned(), |at| format!("{},...", &all[..at]))
}

/// A CronJob.
pub(crate) fn cron_job(page: &mut Page, object: &Value, facts: &Facts) {
    let (spec, status) = (&object["spec"], &object["status"]);
    put!(page, 0, "Name:\t{}", text(&object["metadata"]["name"]));
    put!(page, 0, "Namespace:\t{}", text(&object["metadata"]["namespace"]));
    events::metadata(page, object);
    put!(page, 0, "Schedule:\t{}", text(&spec["schedule"]));
    put!(page, 0, "Concurrency Policy:\t{}", text(&spec["concurrencyPolicy"]));
    put!(page, 0, "Suspend:\t{}", spec["suspend"].as_bool().map_or("<unset>", title_bool));
    put!(page, 0, "Time Zone:\t{}", spec["timeZone"].as_str().unwrap_or("<unset>"));
    or_unset(page, "Successful Job History Limit", &spec["successfulJobsHistoryLimit"], "");
    or_unset(page, "Failed Job History Limit", &spec["failedJobsHistoryLimit"], "");
    or_unset(page, "Starting Deadline Seconds", &spec["startingDeadlineSeconds"], "s");
    let job = &spec["jobTemplate"]["spec"];
    match job["selector"].is_null() {
        true => put!(page, 0, "Selector:\t<unset>"),
        false => put!(page, 0, "Selector:\t{}", selector(&job["selector"])),
    }
    or_unset(page, "Parallelism", &job["parallelism"], "");
    or_unset(page, "Completions", &job["completions"], "");
    optional(page, "Active Deadline Seconds", &job["activeDeadlineSeconds"], "s");
    template(page, &job["template"]);
    let last = text(&status["lastScheduleTime"]);
    let last = if last.is_empty() { "<unset>".into() } else { page.clock.time(last) };
    put!(page, 0, "Last Schedule Time:\t{last}");
    let active: Vec<&str> = list(&status["active"]).iter().map(|job| text(&job["name"])).collect();
    put!(page, 0, "Active Jobs:\t{}", if active.is_empty() { "<none>".into() } else { active.join(", ") });
    events::events(page, facts.events());
}

#[cfg(test)]
mod tests {
    use super::indexes;

    #[test]
    fn long_lists_of_indexes_are_cut() {
        assert_eq!(indexes(""), "<none>");
        assert_eq!(indexes("0-2,5"), "0-2,5");
        let long = format!("{},7,8", "1".repeat(50));
        assert_eq!(indexes(&long), format!("{},...", "1".repeat(50)));
    }
}

//! How long ago something was.

/// Seconds as people read them: `119s`, `5m23s`, `3h`, `2d`, `8y`.
pub fn human(seconds: i64) -> String {
    if seconds < -1 {
        return "<invalid>".to_owned();
    }
    let seconds = seconds.max(0);
    let (minutes, hours) = (seconds / 60, seconds / 3600);
    let two = |whole: i64, unit: char, part: i64, small: char| match part {
        0 => format!("{whole}{unit}"),
        part => format!("{whole}{unit}{part}{small}"),
    };
    match hours {
        _ if seconds < 120 => format!("{seconds}s"),
        _ if minutes < 10 => two(minutes, 'm', seconds % 60, 's'),
        _ if minutes < 180 => format!("{minutes}m"),
        0..8 => two(hours, 'h', minutes % 60, 'm'),
        8..48 => format!("{hours}h"),
        48..192 => two(hours / 24, 'd', hours % 24, 'h'),
        192..17_520 => format!("{}d", hours / 24),
        17_520..70_080 => two(hours / 8760, 'y', (hours / 24) % 365, 'd'),
        _ => format!("{}y", hours / 8760),
    }
}

#[cfg(test)]
mod tests {
    use super::human;

    #[test]
    fn ages() {
        for (seconds, want) in [
            (-2, "<invalid>"),
            (-1, "0s"),
            (119, "119s"),
            (120, "2m"),
            (323, "5m23s"),
            (179 * 60, "179m"),
            (3 * 3600, "3h"),
            (8 * 3600 - 60, "7h59m"),
            (47 * 3600, "47h"),
            (48 * 3600, "2d"),
            (8 * 86_400 - 3600, "7d23h"),
            (8 * 86_400, "8d"),
            (729 * 86_400, "729d"),
            (730 * 86_400, "2y"),
            (8 * 365 * 86_400 - 86_400, "7y364d"),
            (8 * 365 * 86_400, "8y"),
        ] {
            assert_eq!(human(seconds), want, "{seconds}");
        }
    }
}

//! Process runtime of every component: flags, configuration, logs, metrics, health, TLS, tasks, signals.

//! Informers, indexed stores, work queues, controller driver, expectations, events, leases.

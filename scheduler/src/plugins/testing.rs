//! A small cluster for tests of plugins.

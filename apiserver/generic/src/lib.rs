//! Handler chain, verbs, admission frame, authentication, authorization, discovery.

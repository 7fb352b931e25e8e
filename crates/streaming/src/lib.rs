//! WebSocket and SPDY channels for exec, attach, port-forward and log follow.

//! Pod network addon: vxlan and direct routes, CNI configuration, masquerade.

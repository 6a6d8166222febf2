//! The only door to the Linux kernel: netlink, namespaces, sysctls.

"""Reads the kernel into a KernelState and applies plans: netlink, nftables, namespaces, sysctls."""

//! A seeded simulation of a whole cluster: the real nameserver, and dataservers, clients and faults as messages.

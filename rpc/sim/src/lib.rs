//! A seeded simulation of a whole cluster: the real nameserver, and dataservers, clients, networks, disks and clocks as
//! messages and values, with everything that goes wrong. Development only: nothing that ships knows it.
//!
//! Of the nameserver all runs that ships, below its Cap'n Proto service: state, journal and replay, placement, health,
//! repair, reports, leases, readers, and its tasks, on a runtime whose time is the simulation's. Tickets, proofs,
//! digests and checksums of files are real everywhere. Dataservers (`server`, `volume`) and clients (`client`) mirror
//! the steps of their crates, which live on sockets and disks; where one of those changes its rules, so must its mirror.
//!
//! A seed gives the cluster's shape, its faults and the fate of each message, so it replays exactly.

pub mod client;
pub mod cluster;
pub mod faults;
pub mod messages;
pub mod model;
pub mod nameserver;
pub mod run;
pub mod server;
pub mod volume;
pub mod workload;
pub mod world;

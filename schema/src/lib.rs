//! The Cap'n Proto schemas of Blockyard (`schema/*.capnp`) and the Rust generated from them.
//!
//! The generated files are committed, so that building needs no `capnp` binary. After a change of a
//! schema run `BLOCKYARD_REGENERATE=1 cargo test -p blockyard-schema`, which needs one.

/// What both planes speak of: ids, tickets, hops, replicas, kinds of problems.
pub mod types_capnp {
    include!("generated/types_capnp.rs");
}

/// Headers of frames: the hello of every connection and the data plane.
pub mod frame_capnp {
    include!("generated/frame_capnp.rs");
}

/// The control interface of a dataserver.
pub mod dataserver_capnp {
    include!("generated/dataserver_capnp.rs");
}

/// The nameserver's gate, sessions and registrations.
pub mod nameserver_capnp {
    include!("generated/nameserver_capnp.rs");
}

//! No guest, upload or client hurts the host or its neighbours, and each is told what it ran into.
//!
//! Every attack is a value: what is done, and the exact answer. The [`arena`] does it to a real host
//! beside which neighbours start runs all the while, and holds the host to this: the answer is that
//! one, every neighbour's run completes, the host is ready, it has no child left, and its memory
//! comes back. What was measured is printed as a table.
//!
//! `make hostile` does it to a release build, more often, and holds the neighbours' latency to twice
//! the quiet one as well. In a test of everyday nothing depends on time.
//!
//! Rebinding a name between check and use needs a resolver of the test's own: it is tried in the
//! sandbox's tests. What needs no neighbours is in `api::uploads` and in the sandbox's tests too.

mod arena;
mod attack;
mod clients;
mod component;
mod crowds;
mod egress;
mod files;
mod guests;
mod output;
mod uploads;

use self::arena::Arena;
use crate::harness::*;

/// Everything that an upload can be.
#[tokio::test(flavor = "multi_thread")]
async fn no_upload_hurts_the_host() {
    // Three times what an honest guest takes of a debug build's compiler.
    let setup = Server::with("compile-cpu-max-s", 6).with("compile-memory-max-bytes", 1_u64 << 30);
    let mut arena = Arena::open_with("uploads", setup).await;
    arena.withstand(uploads::attacks()).await;
    arena.close().await;
}

/// Everything that code can do once it runs, in the handler and in a step.
#[tokio::test(flavor = "multi_thread")]
async fn no_guest_hurts_the_host() {
    let mut arena = Arena::open("guests").await;
    arena.withstand(guests::attacks()).await;
    arena.close().await;
}

/// Everything that whoever speaks HTTP can send.
#[tokio::test(flavor = "multi_thread")]
async fn no_client_hurts_the_host() {
    let mut arena = Arena::open("clients").await;
    arena.withstand(clients::attacks()).await;
    arena.close().await;
}

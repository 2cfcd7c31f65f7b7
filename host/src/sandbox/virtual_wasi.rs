//! The world as a guest sees it through WASI.
//!
//! | | handler, `describe` | step |
//! |---|---|---|
//! | clocks | one virtual time: the last answer's | real |
//! | randomness | a generator seeded by the run id | real |
//! | waiting for time to pass | refused | real |
//! | stdout, stderr | lines for the log | lines for the log |
//! | environment | empty | what is granted; of secrets, placeholders |
//! | arguments, stdin | empty | empty |
//! | HTTP requests | can be written, not sent | as granted |
//! | files | no folder is open | no folder is open |
//! | sockets, name lookup | every use is denied | every use is denied |
//!
//! Files and sockets are there to link against, since toolchains import them whether or not a
//! guest uses them; what they say is "not permitted".

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering::Relaxed},
    },
    time::Duration,
};

use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;
use sha2::{Digest as _, Sha256};
use stepbox_domain::{RunId, Timestamp, capability::EnvName};
use wasmtime::component::{HasData, Linker, Resource};
use wasmtime_wasi::{
    WasiCtx, WasiCtxBuilder,
    clocks::{HostMonotonicClock, HostWallClock},
    p2::{DynPollable, bindings::clocks::monotonic_clock},
};

use super::{
    GuestLimits,
    ending::Stop,
    output::{Lines, Output, Stream},
    state::State,
};

/// The handler's one time line: the wall clock and the monotonic clock both show it. It stands
/// still while the handler computes, and moves with each answer of the host.
#[derive(Clone, Debug)]
pub(super) struct VirtualTime(Arc<AtomicI64>);

impl VirtualTime {
    pub(super) fn starting_at(start: Timestamp) -> Self {
        VirtualTime(Arc::new(AtomicI64::new(start.as_ms())))
    }

    /// Moves on to `now`; never backwards.
    pub(super) fn advance_to(&self, now: Timestamp) {
        self.0.fetch_max(now.as_ms(), Relaxed);
    }

    /// Milliseconds since 1970; times before that are shown as 1970.
    fn now_ms(&self) -> u64 {
        u64::try_from(self.0.load(Relaxed)).unwrap_or(0)
    }
}

impl HostWallClock for VirtualTime {
    fn resolution(&self) -> Duration {
        Duration::from_millis(1)
    }

    fn now(&self) -> Duration {
        Duration::from_millis(self.now_ms())
    }
}

impl HostMonotonicClock for VirtualTime {
    fn resolution(&self) -> u64 {
        1_000_000
    }

    /// Nanoseconds since 1970, which fit until the year 2554.
    fn now(&self) -> u64 {
        self.now_ms().saturating_mul(1_000_000)
    }
}

/// What the handler instance of `run` sees.
pub(super) fn for_handler(
    run: &RunId,
    time: &VirtualTime,
    output: &Arc<Output>,
    limits: &GuestLimits,
) -> WasiCtx {
    let seed = |purpose| seed(run, purpose);
    let mut insecure_seed = [0; 16];
    insecure_seed.copy_from_slice(&seed("insecure-seed")[..16]);
    common(output, limits)
        .wall_clock(time.clone())
        .monotonic_clock(time.clone())
        .secure_random(ChaCha20Rng::from_seed(seed("secure")))
        .insecure_random(ChaCha20Rng::from_seed(seed("insecure")))
        .insecure_random_seed(u128::from_le_bytes(insecure_seed))
        .build()
}

/// What a step instance sees, with these variables in its environment.
pub(super) fn for_steps(
    output: &Arc<Output>,
    limits: &GuestLimits,
    env: &BTreeMap<EnvName, String>,
) -> WasiCtx {
    let mut builder = common(output, limits);
    for (name, value) in env {
        builder.env(name.as_str(), value);
    }
    builder.build()
}

fn common(output: &Arc<Output>, limits: &GuestLimits) -> WasiCtxBuilder {
    let mut builder = WasiCtx::builder();
    builder
        .stdout(Lines { output: output.clone(), stream: Stream::Stdout })
        .stderr(Lines { output: output.clone(), stream: Stream::Stderr })
        .max_random_size(limits.random_max_bytes)
        // The defaults, said aloud: nothing of the network.
        .allow_tcp(false)
        .allow_udp(false)
        .allow_ip_name_lookup(false);
    builder
}

/// Differs by run and by purpose, and is the same whenever the run is taken up again.
fn seed(run: &RunId, purpose: &str) -> [u8; 32] {
    Sha256::digest(format!("stepbox random\n{purpose}\n{run}")).into()
}

/// Puts the handler's monotonic clock into a linker that has all of WASI: the same clock, but
/// one that nobody can wait for.
pub(super) fn shadow_clock(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    linker.allow_shadowing(true);
    monotonic_clock::add_to_linker::<State, HandlerClock>(linker, |state| HandlerClockView(state))?;
    linker.allow_shadowing(false);
    Ok(())
}

struct HandlerClock;

impl HasData for HandlerClock {
    type Data<'a> = HandlerClockView<'a>;
}

struct HandlerClockView<'a>(&'a mut State);

impl monotonic_clock::Host for HandlerClockView<'_> {
    fn now(&mut self) -> wasmtime::Result<u64> {
        Ok(HostMonotonicClock::now(&self.0.time))
    }

    fn resolution(&mut self) -> wasmtime::Result<u64> {
        Ok(HostMonotonicClock::resolution(&self.0.time))
    }

    fn subscribe_instant(&mut self, _: u64) -> wasmtime::Result<Resource<DynPollable>> {
        Err(self.refuse_to_wait())
    }

    fn subscribe_duration(&mut self, _: u64) -> wasmtime::Result<Resource<DynPollable>> {
        Err(self.refuse_to_wait())
    }
}

impl HandlerClockView<'_> {
    fn refuse_to_wait(&self) -> wasmtime::Error {
        Stop::misuse(
            "the handler waits for time to pass (a sleep of its language, or a timeout); its clock stands \
             still between two calls: use Stepbox's `sleep`, or wait inside of a step",
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_moves_only_forward() {
        let time = VirtualTime::starting_at(Timestamp::from_ms(1_000));
        time.advance_to(Timestamp::from_ms(1_500));
        time.advance_to(Timestamp::from_ms(1_200));
        assert_eq!(HostWallClock::now(&time), Duration::from_millis(1_500));
        assert_eq!(HostMonotonicClock::now(&time), 1_500_000_000);
    }

    #[test]
    fn no_time_is_too_early_or_too_late() {
        let time = VirtualTime::starting_at(Timestamp::from_ms(-5));
        assert_eq!(HostWallClock::now(&time), Duration::ZERO);
        time.advance_to(Timestamp::MAX);
        assert_eq!(HostMonotonicClock::now(&time), u64::MAX);
    }
}

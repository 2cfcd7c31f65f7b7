//! Engine and store in a world of dice: simulated time, one thread, faults and crashes, all drawn
//! from one seed. The same seed gives the same history, so a failure can be looked at again:
//!
//! `STEPBOX_SIM_SEED=<seed> cargo test -p stepbox --lib simulation`
//!
//! `STEPBOX_SIM_SEEDS` says how many seeds are tried from there on (or from a random one).
//!
//! | here | in the real host |
//! |---|---|
//! | tokio's paused clock, which jumps to the next thing that is due | time |
//! | one thread, so that tasks take turns in a fixed order | a pool of threads |
//! | the store's reference model behind [`faults::Faulty`] | SQLite, and a disk with its moods |
//! | [`guest::Player`], whose programs are data | components |
//! | dropping the runtime | `kill -9` |
//!
//! What was acknowledged and what steps did outside is noted in the [`world::World`], which
//! outlives every crash; [`check`] compares it with what the store has in the end.

mod check;
mod clients;
mod faults;
mod guest;
mod world;

use std::{
    cell::Cell,
    sync::Once,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use self::world::World;

/// Tries of which CI has time for within half a minute or so.
const SEEDS: u64 = 1_000;

#[test]
fn nothing_is_lost_or_repeated_whatever_the_dice_say() {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().expect(name));
    let first = number("STEPBOX_SIM_SEED").unwrap_or_else(|| {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        u64::try_from(since.as_nanos() % 1_000_000_000_000).unwrap()
    });
    let seeds = number("STEPBOX_SIM_SEEDS").unwrap_or(match std::env::var("STEPBOX_SIM_SEED") {
        Ok(_) => 1,
        Err(_) => SEEDS,
    });
    let mut counts = world::Counts::default();
    for seed in first..first + seeds {
        let lived = std::panic::catch_unwind(|| simulate(seed));
        match lived {
            Ok(lived) => counts.add(&lived),
            Err(_) => panic!("seed {seed} failed; see it again with STEPBOX_SIM_SEED={seed}"),
        }
    }
    eprintln!("simulation: {seeds} seeds from {first}: {counts:?}");
    counts.assert_everything_happened(seeds);
}

#[test]
fn the_same_seed_gives_the_same_history() {
    for seed in 1..150 {
        let history = || {
            let world = live(seed);
            world.history()
        };
        assert_eq!(history(), history(), "seed {seed}");
    }
}

fn simulate(seed: u64) -> world::Counts {
    let before = panics();
    let world = live(seed);
    assert_eq!(panics(), before, "a task panicked");
    check::check(&world);
    world.counts()
}

/// How often something panicked on this thread, which runs all that there is of a world: the
/// runtime keeps the panics of tasks to itself.
fn panics() -> u64 {
    thread_local!(static PANICS: Cell<u64> = const { Cell::new(0) });
    static COUNTING: Once = Once::new();
    COUNTING.call_once(|| {
        let tell = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            PANICS.with(|panics| panics.set(panics.get() + 1));
            tell(panic);
        }));
    });
    PANICS.get()
}

/// Lives through several crashes, then in peace until everything is over.
fn live(seed: u64) -> World {
    let world = World::new(seed);
    let lives = world.roll(4);
    for _ in 0..lives {
        let life = Duration::from_millis(world.roll(3_000));
        in_a_host(&world, async |host| {
            clients::trouble(&host);
            tokio::time::sleep(life).await;
        });
        world.crashed();
    }
    world.at_peace();
    in_a_host(&world, async |host| clients::finish(&host).await);
    world
}

/// Runs `work` in a host of its own, which ends with it as if it were killed. One that cannot
/// come up, since its store does not answer, is dead at once.
fn in_a_host(world: &World, work: impl AsyncFnOnce(clients::Host)) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let runtime = runtime.expect("a runtime can be built");
    runtime.block_on(async {
        if let Some(host) = clients::Host::begin(world).await {
            work(host).await;
        }
        world.note_time();
    });
}

//! Looks at everything that WASI offers, and tells what it saw.
//!
//! What the handler saw becomes the input of a step, so that the journal has it: a handler that
//! sees something else when it is called again has diverged. What the last call of the handler saw
//! is in the result, beside what the first had recorded.

#![cfg(target_family = "wasm")]

use std::{
    collections::{HashMap, hash_map::RandomState},
    hash::{BuildHasher, Hasher},
    hint::black_box,
    io::Read,
    net::{TcpListener, TcpStream, ToSocketAddrs, UdpSocket},
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};
use stepbox_guest::{StepError, TaskError, step, task, wait_event_forever};
use wasip2::{
    cli, clocks, filesystem,
    io::poll,
    random,
    sockets::{
        instance_network::instance_network, ip_name_lookup, network::IpAddressFamily, tcp_create_socket,
        udp_create_socket,
    },
};

#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct Look {
    /// At what, by name.
    things: Vec<String>,
    /// So often it waits for the event `go`, and looks again after it.
    rounds: u32,
}

/// The input is what is told.
#[step]
fn told(_thing: String, seen: Value) -> Result<Value, StepError> {
    Ok(seen)
}

/// What a step sees of it.
#[step]
fn look(thing: String) -> Result<Value, StepError> {
    see(&thing).ok_or_else(|| StepError::fatal(format!("there is no thing {thing}")))
}

/// Looks at each thing, in the handler and twice in a step.
#[task]
fn observer(task: Look) -> Result<Vec<Value>, TaskError> {
    let mut results = Vec::new();
    for round in 0..=task.rounds {
        if round > 0 {
            wait_event_forever::<Value>("go")?;
        }
        for thing in &task.things {
            let seen = see(thing).ok_or_else(|| TaskError::new(format!("there is no thing {thing}")))?;
            let recorded = told::call(thing.clone(), seen.clone()).named(format!("told {thing}")).result()?;
            let in_steps = match round {
                0 => json!([look(thing.clone())?, look(thing.clone())?]),
                _ => Value::Null,
            };
            results.push(json!({ "thing": thing, "seen": seen, "recorded": recorded, "inSteps": in_steps }));
        }
    }
    Ok(results)
}

fn see(thing: &str) -> Option<Value> {
    Some(match thing {
        "wall clock" => {
            let now = clocks::wall_clock::now();
            json!([now.seconds, now.nanoseconds, since_1970_ms()])
        }
        "wall clock resolution" => {
            let resolution = clocks::wall_clock::resolution();
            json!([resolution.seconds, resolution.nanoseconds])
        }
        "monotonic clock" => json!([clocks::monotonic_clock::now(), format!("{:?}", Instant::now())]),
        "monotonic clock resolution" => json!(clocks::monotonic_clock::resolution()),
        "random bytes" => json!(random::random::get_random_bytes(32)),
        "random number" => json!(random::random::get_random_u64()),
        "insecure random" => {
            json!([
                random::insecure::get_insecure_random_u64(),
                random::insecure::get_insecure_random_bytes(16)
            ])
        }
        "insecure seed" => json!(random::insecure_seed::insecure_seed()),
        "hash keys" => json!(RandomState::new().build_hasher().finish()),
        "hash map order" => {
            let map: HashMap<u32, ()> = (0..100).map(|key| (key, ())).collect();
            json!(map.into_keys().collect::<Vec<_>>())
        }
        "environment" => json!([cli::environment::get_environment(), std::env::vars().collect::<Vec<_>>()]),
        "arguments" => json!([cli::environment::get_arguments(), std::env::args().collect::<Vec<_>>()]),
        "working directory" => json!([cli::environment::initial_cwd(), text(std::env::current_dir())]),
        "standard input" => {
            let mut all = Vec::new();
            json!([text(std::io::stdin().read_to_end(&mut all)), all])
        }
        "terminals" => json!([
            cli::terminal_stdin::get_terminal_stdin().is_some(),
            cli::terminal_stdout::get_terminal_stdout().is_some(),
            cli::terminal_stderr::get_terminal_stderr().is_some(),
        ]),
        "preopened directories" => json!(filesystem::preopens::get_directories().len()),
        "files" => json!([
            text(std::fs::read("/etc/passwd")),
            text(std::fs::write("/tmp/left-behind", "mine")),
            text(std::fs::read_dir("/").map(Iterator::count)),
            text(std::fs::metadata(".").map(|of| of.len())),
            text(std::fs::read("../../../../etc/passwd")),
            text(std::fs::read("/proc/self/environ")),
        ]),
        "TCP" => json!([
            text(TcpStream::connect("127.0.0.1:1")),
            text(TcpListener::bind("127.0.0.1:0")),
            tcp_create_socket::create_tcp_socket(IpAddressFamily::Ipv4)
                .map_or_else(|error| error.to_string(), |_| "a socket".to_owned()),
        ]),
        "UDP" => json!([
            text(UdpSocket::bind("127.0.0.1:0")),
            udp_create_socket::create_udp_socket(IpAddressFamily::Ipv6)
                .map_or_else(|error| error.to_string(), |_| "a socket".to_owned()),
        ]),
        "name lookup" => {
            json!([text("localhost:80".to_socket_addrs().map(Iterator::count)), looked_up("localhost")])
        }
        "poll order" => {
            let (out, err, input) =
                (cli::stdout::get_stdout(), cli::stderr::get_stderr(), cli::stdin::get_stdin());
            let all = [out.subscribe(), err.subscribe(), input.subscribe(), out.subscribe()];
            let listed: Vec<&poll::Pollable> = all.iter().rev().collect();
            json!([poll::poll(&listed), all.iter().map(poll::Pollable::ready).collect::<Vec<_>>()])
        }
        "threads" => json!([
            text(std::thread::Builder::new().spawn(|| ()).map(|_| "a thread")),
            text(std::thread::available_parallelism()),
        ]),
        "processes" => json!(text(std::process::Command::new("true").spawn().map(|_| "a process"))),
        "bits of NaN" => json!(bits_of_nan()),
        "floating point" => json!(floats()),
        "addresses" => {
            let (here, there) = (0_u8, Box::new(0_u8));
            json!([&raw const here as usize, &raw const *there as usize, see as *const () as usize])
        }
        "memory" => json!([core::arch::wasm32::memory_size(0), hash_of_memory()]),
        "fresh memory" => {
            let page = core::arch::wasm32::memory_grow(0, 1) << 16;
            // SAFETY: the page is there, and nobody else has it.
            json!((0..1 << 16).all(|at| unsafe { *((page + at) as *const u8) } == 0))
        }
        _ => return None,
    })
}

/// The way of `wasi:sockets`.
fn looked_up(name: &str) -> String {
    match ip_name_lookup::resolve_addresses(&instance_network(), name) {
        Err(error) => error.to_string(),
        Ok(answers) => {
            answers.subscribe().block();
            answers
                .resolve_next_address()
                .map_or_else(|error| error.to_string(), |found| format!("{found:?}"))
        }
    }
}

fn since_1970_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

/// The value or the error, as words.
fn text<T: std::fmt::Debug>(result: std::io::Result<T>) -> String {
    match result {
        Ok(value) => format!("{value:?}"),
        Err(error) => error.to_string(),
    }
}

/// Sums up every byte that it has (FNV).
fn hash_of_memory() -> u64 {
    let bytes = core::arch::wasm32::memory_size(0) << 16;
    (1..bytes).fold(0xcbf2_9ce4_8422_2325, |hash, at| {
        // SAFETY: all of it is there; address 0 is left out, which no pointer may have.
        let byte = unsafe { std::ptr::read_volatile(at as *const u8) };
        (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
    })
}

fn bits_of_nan() -> Vec<u64> {
    let (zero, inf) = (black_box(0.0_f64), black_box(f64::INFINITY));
    let (zero32, inf32) = (black_box(0.0_f32), black_box(f32::INFINITY));
    // A NaN that says something, and one that is not quiet.
    let odd = black_box(f64::from_bits(0x7ff0_dead_beef_0001));
    let odd32 = black_box(f32::from_bits(0xff80_beef));
    let wide = [
        zero / zero,
        -(zero / zero),
        inf - inf,
        inf * zero,
        (-1.0 - zero).sqrt(),
        odd + 1.0,
        odd * zero,
        odd.min(odd),
        odd.max(1.0),
        odd.floor(),
        f64::from(odd32 + 1.0),
    ];
    let narrow = [
        zero32 / zero32,
        inf32 - inf32,
        (-1.0 - zero32).sqrt(),
        odd32 * 2.0,
        odd32.max(odd32),
        odd as f32 + 1.0,
    ];
    let wide = wide.map(|number| black_box(number).to_bits());
    wide.into_iter().chain(narrow.map(|number| u64::from(black_box(number).to_bits()))).collect()
}

fn floats() -> Vec<u64> {
    let third = black_box(1.0_f64) / 3.0;
    let numbers = [
        third.sqrt(),
        third.sin(),
        third.exp(),
        third.powf(7.3),
        third.mul_add(3.0, -1.0),
        third as f32 as f64,
    ];
    let casts = [black_box(f64::NAN) as i64 as u64, black_box(1e300) as u64, black_box(-1e300) as i64 as u64];
    numbers.map(f64::to_bits).into_iter().chain(casts).collect()
}

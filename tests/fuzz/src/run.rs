//! One run of a target: how many inputs, what came of them, what was found.

use std::{
    any::Any,
    collections::BTreeMap,
    fs,
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
    sync::Mutex,
    time::{Duration, Instant},
};

use super::{Options, Target, dice::Dice};

pub struct Run {
    target: Target,
    seed: u64,
    next: u64,
    last: u64,
    end: Option<Instant>,
    begun: Instant,
    /// What came of the inputs, and how often.
    outcomes: BTreeMap<String, u64>,
    found: u64,
    out: PathBuf,
}

/// Panics of threads that nobody waits for.
static PANICS: Mutex<Vec<String>> = Mutex::new(Vec::new());

impl Run {
    pub fn new(target: Target, options: &Options) -> Run {
        std::panic::set_hook(Box::new(|panic| {
            let mut panics = PANICS.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
            // Also where it ends this program, and nobody comes to look.
            eprintln!("{panic}");
            panics.push(panic.to_string());
        }));
        let begun = Instant::now();
        let (next, last) = match options.only {
            Some(only) => (only, only.saturating_add(1)),
            None => (0, options.iterations),
        };
        Run {
            target,
            seed: options.seed,
            next,
            last,
            end: options.only.is_none().then(|| begun + Duration::from_secs(options.seconds)),
            begun,
            outcomes: BTreeMap::new(),
            found: 0,
            out: options.out.clone(),
        }
    }

    /// The next input's number and its chance; none when there were enough.
    pub fn next(&mut self) -> Option<(u64, Dice)> {
        let is_over = self.next >= self.last || self.end.is_some_and(|end| Instant::now() > end);
        if is_over {
            return None;
        }
        let number = self.next;
        self.next += 1;
        Some((number, Dice::new(self.seed, number)))
    }

    pub fn count(&mut self, outcome: impl Into<String>) {
        *self.outcomes.entry(outcome.into()).or_default() += 1;
    }

    /// Something does not hold: says so, and keeps the input.
    pub fn found(&mut self, number: u64, what: &str, input: &[u8]) {
        self.found += 1;
        let target = format!("{:?}", self.target).to_lowercase();
        let file = self.out.join(format!("{target}-{}-{number}.input", self.seed));
        let kept = fs::create_dir_all(&self.out).and_then(|()| fs::write(&file, input));
        let place = kept.map_or_else(|error| error.to_string(), |()| file.display().to_string());
        let shown = String::from_utf8_lossy(&input[..input.len().min(1_000)]).escape_debug().to_string();
        eprintln!(
            "FOUND in {target}, input {number} (fuzz {target} --seed {} --only {number}): {what}\n  kept: {place}\n  begins: {shown}",
            self.seed
        );
    }

    /// Does `check` with an input; what it says does not hold, and a panic, is found.
    pub fn check(&mut self, number: u64, input: &[u8], check: impl FnOnce() -> Result<String, String>) {
        match catch_unwind(AssertUnwindSafe(check)) {
            Ok(Ok(outcome)) => self.count(outcome),
            Ok(Err(broken)) => self.found(number, &broken, input),
            Err(panic) => self.found(number, &format!("it panicked: {}", words_of(panic.as_ref())), input),
        }
    }

    /// What panicked since this was asked last, on any thread.
    pub fn panics() -> Vec<String> {
        std::mem::take(&mut *PANICS.lock().unwrap_or_else(|poisoned| poisoned.into_inner()))
    }

    /// Prints the counts; how much was found.
    pub fn finish(self) -> u64 {
        let took = self.begun.elapsed().as_secs_f64();
        let target = format!("{:?}", self.target).to_lowercase();
        let count: u64 = self.outcomes.values().sum();
        println!("fuzz {target}: seed {}, {count} inputs in {took:.1} s, {} found", self.seed, self.found);
        for (outcome, count) in self.outcomes {
            println!("  {count:>9}  {outcome}");
        }
        self.found
    }
}

fn words_of(panic: &(dyn Any + Send)) -> String {
    let said = panic.downcast_ref::<String>().cloned();
    said.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default()
}

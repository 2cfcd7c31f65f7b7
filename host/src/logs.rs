//! What is logged, and guests' output beside it: to stderr, through `tracing`.
//!
//! Nobody waits for who reads it. A pipe or a terminal can stand still for ever, so what goes there
//! is queued for a thread of its own, bounded, and what does not fit is counted and said. A regular
//! file takes what it is given, and is written at once: so a line is in it before what it tells of
//! goes on.

use std::{
    io::{self, Write},
    sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError},
    time::{Duration, Instant},
};

use anyhow::Context as _;
use rustix::fs::FileType;
use tracing::Metadata;
use tracing_subscriber::{EnvFilter, fmt::MakeWriter};

use crate::{
    config::{LogConfig, LogFormat},
    sandbox::{LogLevel, LogLine},
};

/// Of the host's own lines, and as much again of guests', so that these do not take the room of those.
const QUEUE_BYTES_MAX: usize = 4 << 20;

/// How long the end of the process waits for the last lines to be taken.
const LAST_LINES: Duration = Duration::from_millis(500);

/// Begins to log; once in a process.
pub fn init(config: &LogConfig) -> anyhow::Result<()> {
    let filter = EnvFilter::builder()
        .parse(&config.filter)
        .with_context(|| format!("the log filter {:?} makes no sense", config.filter))?;
    let writer = match is_file() {
        true => Stderr::File,
        false => Stderr::Queued(queue_to(io::stderr())?),
    };
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        // They would be written to stderr, and panic when it is gone.
        .log_internal_errors(false)
        .with_writer(writer);
    let done = match config.format {
        LogFormat::Text => lines.try_init(),
        LogFormat::Json => lines.json().try_init(),
    };
    done.map_err(|error| anyhow::anyhow!("the log cannot be set up: {error}"))
}

/// To be called before the process ends by itself: gives the last lines a moment to be taken.
pub fn finish() {
    if let Some(queue) = QUEUE.get() {
        queue.finish(LAST_LINES);
    }
}

/// A line of a guest, under the target `guest`. The sandbox bounds them and makes them harmless.
pub fn print(line: LogLine<'_>) {
    let LogLine { run, step: attempt, level, target, message } = line;
    let step = attempt.map(|(step, _)| tracing::field::display(step));
    let attempt = attempt.map(|(_, attempt)| attempt);
    // A level is part of what tracing knows of a place in the code, so there is one for each.
    match level {
        LogLevel::Trace => tracing::trace!(target: GUEST, %run, step, attempt, from = target, "{message}"),
        LogLevel::Debug => tracing::debug!(target: GUEST, %run, step, attempt, from = target, "{message}"),
        LogLevel::Info => tracing::info!(target: GUEST, %run, step, attempt, from = target, "{message}"),
        LogLevel::Warn => tracing::warn!(target: GUEST, %run, step, attempt, from = target, "{message}"),
        LogLevel::Error => tracing::error!(target: GUEST, %run, step, attempt, from = target, "{message}"),
    }
}

const GUEST: &str = "guest";

fn is_file() -> bool {
    rustix::fs::fstat(io::stderr()).is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode).is_file())
}

/// Where lines go.
#[derive(Clone)]
enum Stderr {
    File,
    Queued(Arc<Queue>),
}

/// One line on its way.
enum Line {
    File(io::Stderr),
    Queued { queue: Arc<Queue>, kind: Kind, text: Vec<u8> },
}

#[derive(Clone, Copy)]
enum Kind {
    Own,
    Guest,
}

impl<'a> MakeWriter<'a> for Stderr {
    type Writer = Line;

    fn make_writer(&'a self) -> Line {
        self.line(Kind::Own)
    }

    fn make_writer_for(&'a self, metadata: &Metadata<'_>) -> Line {
        self.line(if metadata.target() == GUEST { Kind::Guest } else { Kind::Own })
    }
}

impl Stderr {
    fn line(&self, kind: Kind) -> Line {
        match self {
            Stderr::File => Line::File(io::stderr()),
            Stderr::Queued(queue) => Line::Queued { queue: queue.clone(), kind, text: Vec::new() },
        }
    }
}

impl Write for Line {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Line::File(stderr) => stderr.write(bytes),
            Line::Queued { text, .. } => text.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        if let Line::Queued { queue, kind, text } = self {
            queue.push(*kind, std::mem::take(text));
        }
    }
}

static QUEUE: OnceLock<Arc<Queue>> = OnceLock::new();

fn queue_to(out: impl Write + Send + 'static) -> anyhow::Result<Arc<Queue>> {
    let queue = Arc::new(Queue::default());
    let writing = queue.clone();
    std::thread::Builder::new().name("stderr".to_owned()).spawn(move || writing.write_to(out))?;
    Ok(QUEUE.get_or_init(|| queue).clone())
}

/// Lines that wait for the thread that writes them.
#[derive(Default)]
struct Queue {
    waiting: Mutex<Waiting>,
    changed: Condvar,
}

#[derive(Default)]
struct Waiting {
    text: Vec<u8>,
    /// How much of it is whose, by [`Kind`].
    bytes: [usize; 2],
    lost: u64,
    /// The thread has taken some that it has not written yet.
    writing: bool,
}

impl Queue {
    fn push(&self, kind: Kind, line: Vec<u8>) {
        let mut waiting = self.waiting();
        let bytes = &mut waiting.bytes[kind as usize];
        if *bytes + line.len() > QUEUE_BYTES_MAX {
            waiting.lost += 1;
            return;
        }
        *bytes += line.len();
        waiting.text.extend_from_slice(&line);
        drop(waiting);
        self.changed.notify_all();
    }

    /// Works for ever.
    fn write_to(&self, mut out: impl Write) {
        loop {
            let mut waiting = self.waiting();
            waiting.writing = false;
            self.changed.notify_all();
            while waiting.text.is_empty() {
                waiting = self.changed.wait(waiting).unwrap_or_else(PoisonError::into_inner);
            }
            let taken = std::mem::replace(&mut *waiting, Waiting { writing: true, ..Waiting::default() });
            drop(waiting);
            // Nobody has to read it.
            let _ = out.write_all(&taken.text);
            if taken.lost > 0 {
                let _ = writeln!(out, "{} lines of the log could not be written and are lost", taken.lost);
            }
        }
    }

    fn finish(&self, patience: Duration) {
        let end = Instant::now() + patience;
        let mut waiting = self.waiting();
        while waiting.writing || !waiting.text.is_empty() {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            waiting = self.changed.wait_timeout(waiting, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// A pipe that nobody reads until it is told to.
    struct Stuck(mpsc::Receiver<()>, Arc<Mutex<Vec<u8>>>);

    impl Write for Stuck {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.0.recv();
            self.1.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn nobody_waits_for_who_does_not_read_and_what_is_lost_is_said() {
        let queue = Arc::new(Queue::default());
        let (read, reads) = mpsc::channel();
        let written = Arc::new(Mutex::default());
        let (writing, out) = (queue.clone(), Stuck(reads, written.clone()));
        std::thread::spawn(move || writing.write_to(out));

        let line = vec![b'g'; QUEUE_BYTES_MAX / 4];
        // Returns at all: that is the claim. What the thread has taken by then is its own affair.
        (0..20).for_each(|_| queue.push(Kind::Guest, line.clone()));
        queue.push(Kind::Own, b"the host has room left\n".to_vec());
        queue.finish(Duration::from_millis(10));
        drop(read);
        queue.finish(Duration::from_secs(60));
        let written = String::from_utf8(written.lock().unwrap().clone()).unwrap();
        assert!(written.len() < line.len() * 10, "{}", written.len());
        assert!(written.contains("the host has room left\n"), "the host's own lines were pushed out");
        assert!(written.contains(" lines of the log could not be written and are lost\n"));
    }
}

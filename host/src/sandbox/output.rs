//! What a guest writes, line by line: bounded, and with nothing in it that could forge another.

use std::{
    collections::VecDeque,
    fmt::Write as _,
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;
use stepbox_domain::{Limit, RunId};
use tokio::io::AsyncWrite;
use wasmtime_wasi::{
    cli::{IsTerminal, StdoutStream},
    p2::{OutputStream, Pollable, StreamResult},
};

use super::{Gate, LogLevel, LogLine, LogSink, bounds::Bounds};

/// The output of one instance: stdout, stderr and the lines of `log`.
pub(super) struct Output {
    run: RunId,
    sink: Arc<dyn LogSink>,
    /// What is written waits here, before it comes to us.
    gate: Arc<Gate>,
    line_max_bytes: usize,
    output_max_bytes: usize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    /// Bytes that went to the sink so far.
    bytes: usize,
    dropped: bool,
    /// The last lines of stderr, whether or not the sink had room for them: a Rust panic says
    /// there what happened.
    last_words: VecDeque<String>,
}

/// Enough for a panic's message; more is noise in a failure.
const LAST_WORDS_MAX_LINES: usize = 8;

/// The target of what the host has to say about a guest's output.
const HOST: &str = "stepbox";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stream {
    Stdout,
    Stderr,
}

impl Output {
    pub(super) fn new(run: RunId, sink: Arc<dyn LogSink>, gate: Arc<Gate>, bounds: &Bounds) -> Arc<Self> {
        Arc::new(Output {
            run,
            sink,
            gate,
            line_max_bytes: bounds.host.line_max_bytes,
            output_max_bytes: bounds.size(Limit::OutputMaxBytes),
            state: Mutex::default(),
        })
    }

    /// A line that the guest gave to `log`.
    pub(super) async fn log(&self, level: LogLevel, target: &str, message: &str) {
        self.gate.passed().await;
        let mut state = self.state();
        let target = printable(cut(target, 200));
        // Under that name only the host speaks.
        let target = if target.trim() == HOST { format!("guest {HOST}") } else { target };
        let message = printable(cut(message, self.line_max_bytes));
        self.send(&mut state, level, &target, &message);
    }

    /// Lets go of the line that has no end yet. What was captured counts anew from here.
    pub(super) fn end(&self) {
        let mut state = self.state();
        for stream in [Stream::Stdout, Stream::Stderr] {
            self.end_line(&mut state, stream);
        }
        *state = State::default();
    }

    /// The last lines of stderr, the unfinished one among them.
    pub(super) fn last_words(&self) -> Vec<String> {
        let state = self.state();
        let unfinished = Some(text(&state.stderr)).filter(|line| !line.is_empty());
        state.last_words.iter().cloned().chain(unfinished).collect()
    }

    fn write(&self, stream: Stream, mut bytes: &[u8]) {
        let mut state = self.state();
        while !bytes.is_empty() {
            let (part, rest, ends) = match bytes.iter().position(|byte| *byte == b'\n') {
                Some(end) => (&bytes[..end], &bytes[end + 1..], true),
                None => (bytes, &bytes[bytes.len()..], false),
            };
            let line = state.line(stream);
            let room = self.line_max_bytes.saturating_sub(line.len());
            line.extend_from_slice(&part[..part.len().min(room)]);
            if ends {
                self.end_line(&mut state, stream);
            }
            bytes = rest;
        }
    }

    fn end_line(&self, state: &mut State, stream: Stream) {
        let line = std::mem::take(state.line(stream));
        if line.is_empty() {
            return;
        }
        let line = text(&line);
        let (level, target) = match stream {
            Stream::Stdout => (LogLevel::Info, "stdout"),
            Stream::Stderr => (LogLevel::Warn, "stderr"),
        };
        self.send(state, level, target, &line);
        if stream == Stream::Stderr {
            if state.last_words.len() == LAST_WORDS_MAX_LINES {
                state.last_words.pop_front();
            }
            state.last_words.push_back(line);
        }
    }

    fn send(&self, state: &mut State, level: LogLevel, target: &str, message: &str) {
        if state.dropped {
            return;
        }
        // What a line costs beside its text, so that empty ones are not free.
        let bytes = message.len() + target.len() + 32;
        if state.bytes + bytes <= self.output_max_bytes {
            state.bytes += bytes;
            self.sink.line(LogLine { run: &self.run, step: None, level, target, message });
        } else {
            state.dropped = true;
            let message = format!("more than {} bytes of output: the rest is dropped", self.output_max_bytes);
            self.sink.line(LogLine {
                run: &self.run,
                step: None,
                level: LogLevel::Warn,
                target: HOST,
                message: &message,
            });
        }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        self.end();
    }
}

impl State {
    fn line(&mut self, stream: Stream) -> &mut Vec<u8> {
        match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        }
    }
}

fn text(bytes: &[u8]) -> String {
    printable(String::from_utf8_lossy(bytes).trim_end_matches('\r'))
}

/// Whether `c` could end the line, move the cursor, or turn the direction of the text.
pub(crate) fn forges(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{206f}' | '\u{feff}'
                | '\u{fff9}'..='\u{fffb}'
        )
}

/// `text` in one line, with everything escaped that [`forges`].
pub(super) fn printable(text: &str) -> String {
    escaped(text, forges)
}

/// The same, for what is shown as a text of its own: lines and tabs are left to it. Done again, it
/// changes nothing.
pub(super) fn printable_lines(text: &str) -> String {
    escaped(text, |c| forges(c) && !matches!(c, '\n' | '\t'))
}

fn escaped(text: &str, is_escaped: impl Fn(char) -> bool) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut out, c| {
        match c {
            c if !is_escaped(c) => out.push(c),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            // Writing to a String cannot fail.
            c => drop(write!(out, "\\u{{{:x}}}", u32::from(c))),
        }
        out
    })
}

/// The first `max_bytes` bytes of `text`, or a little less where a character would be cut.
pub(super) fn cut(text: &str, max_bytes: usize) -> &str {
    &text[..text.floor_char_boundary(max_bytes)]
}

/// One of the guest's streams, as WASI sees it: never full, and in the way only while the gate is shut.
#[derive(Clone)]
pub(super) struct Lines {
    pub output: Arc<Output>,
    pub stream: Stream,
}

impl IsTerminal for Lines {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for Lines {
    /// Of WASI 0.3, which is not offered. It would be a way past the gate.
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(tokio::io::sink())
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }
}

#[async_trait::async_trait]
impl Pollable for Lines {
    async fn ready(&mut self) {
        self.output.gate.passed().await;
    }
}

impl OutputStream for Lines {
    /// Taken also from a guest that has not asked whether it may: what it gains is a line too early.
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.output.write(self.stream, &bytes);
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(if self.output.gate.is_open() { 64 << 10 } else { 0 })
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use proptest::prelude::*;

    use stepbox_domain::Limits;

    use super::*;
    use crate::sandbox::{GuestLimits, testing::Captured};

    fn output(line_max_bytes: usize, output_max_bytes: u64) -> (Arc<Output>, Arc<Captured>) {
        output_through(Arc::default(), line_max_bytes, output_max_bytes)
    }

    fn output_through(
        gate: Arc<Gate>,
        line_max_bytes: usize,
        output_max_bytes: u64,
    ) -> (Arc<Output>, Arc<Captured>) {
        let sink = Arc::new(Captured::default());
        let settings = [(Limit::OutputMaxBytes, output_max_bytes)].into_iter().collect();
        let bounds = Bounds {
            task: Arc::new(Limits::default().with(&settings)),
            host: Arc::new(GuestLimits { line_max_bytes, ..GuestLimits::default() }),
        };
        (Output::new(RunId::parse("e:run:0").unwrap(), sink.clone(), gate, &bounds), sink)
    }

    #[test]
    fn lines_are_put_together_and_nothing_in_them_forges_another() {
        let (output, sink) = output(100, 10_000);
        output.write(Stream::Stdout, b"hal");
        output.write(Stream::Stderr, b"oh\r\n\n");
        output.write(Stream::Stdout, b"lo\nthere \x1b[31m\xff\xe2\x80\xae");
        output.log(LogLevel::Debug, "a\nb", "one\ntwo").now_or_never().unwrap();
        output.log(LogLevel::Warn, "stepbox ", "the host says").now_or_never().unwrap();
        drop(output);
        assert_eq!(
            sink.lines(),
            [
                "Warn stderr: oh",
                "Info stdout: hallo",
                "Debug a\\nb: one\\ntwo",
                "Warn guest stepbox: the host says",
                "Info stdout: there \\u{1b}[31m\u{fffd}\\u{202e}",
            ]
        );
    }

    #[test]
    fn nothing_is_printed_while_the_gate_is_shut() {
        let gate: Arc<Gate> = Arc::default();
        let (output, sink) = output_through(gate.clone(), 100, 10_000);
        let mut lines = Lines { output: output.clone(), stream: Stream::Stdout };
        gate.shut();
        assert_eq!(lines.check_write().unwrap(), 0);
        assert_eq!(lines.ready().now_or_never(), None);
        let mut said = Box::pin(output.log(LogLevel::Info, "guest", "said"));
        assert_eq!((&mut said).now_or_never(), None);
        assert!(sink.lines().is_empty());
        gate.open();
        assert_eq!((lines.ready().now_or_never(), said.now_or_never()), (Some(()), Some(())));
        assert!(lines.check_write().unwrap() > 0);
        assert_eq!(sink.lines(), ["Info guest: said"]);
    }

    #[test]
    fn a_flood_is_cut_and_that_is_said_once() {
        let (output, sink) = output(10, 200);
        for _ in 0..100 {
            output.write(Stream::Stdout, b"0123456789abcdef\n");
        }
        let lines = sink.lines();
        assert_eq!(lines.len(), 5, "{lines:?}");
        assert_eq!(lines[0], "Info stdout: 0123456789");
        assert_eq!(lines[4], "Warn stepbox: more than 200 bytes of output: the rest is dropped");

        output.end();
        output.write(Stream::Stdout, b"the next attempt\n");
        assert_eq!(sink.lines().len(), 6);
    }

    #[test]
    fn the_last_words_are_kept_beyond_the_flood() {
        let (output, _) = output(100, 50);
        for n in 0..100 {
            output.write(Stream::Stderr, format!("line {n}\n").as_bytes());
        }
        output.write(Stream::Stderr, b"unfinished");
        let words = output.last_words();
        assert_eq!((words.len(), words[0].as_str(), words[8].as_str()), (9, "line 92", "unfinished"));
    }

    #[test]
    fn a_text_keeps_its_lines_and_loses_what_speaks_to_terminals() {
        let text = "one\n\ttwo\r\u{1b}[2J\u{7f}\u{9b}31m\u{202e}gnp\u{2066}\u{0}é";
        let shown = printable_lines(text);
        assert_eq!(shown, "one\n\ttwo\\r\\u{1b}[2J\\u{7f}\\u{9b}31m\\u{202e}gnp\\u{2066}\\u{0}é");
        assert_eq!(printable_lines(&shown), shown);
    }

    proptest! {
        /// Whatever a guest writes, and however it cuts it up, lines are lines.
        #[test]
        fn nothing_forges_a_line(writes in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..20)) {
            let (output, sink) = output(64, 100_000);
            for bytes in &writes {
                output.write(Stream::Stdout, bytes);
            }
            drop(output);
            let ends = writes.iter().flatten().filter(|byte| **byte == b'\n').count();
            prop_assert!(sink.lines().len() <= ends + 1);
            for line in sink.lines() {
                prop_assert!(!line.chars().any(forges), "{line:?}");
            }
        }
    }
}

//! The subscriber of the `tracing` crate: one line per event, `outer{id=7}: inner: message a=1`.
//!
//! It keeps what the open spans were called and given, and nothing else. A guest has one thread.

use std::collections::BTreeMap;
use std::fmt::{Debug, Write};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tracing_core::field::{Field, Visit};
use tracing_core::span::{Attributes, Current, Id, Record};
use tracing_core::{Dispatch, Event, Level, LevelFilter, Metadata, Subscriber, dispatcher};

use super::LogLevel;

pub(super) fn install() {
    // Fails when the author has installed a subscriber, which is then the one to use.
    let _ = dispatcher::set_global_default(Dispatch::new(ToHost::default()));
}

#[derive(Default)]
struct ToHost(Mutex<Spans>);

#[derive(Default)]
struct Spans {
    last_id: u64,
    open: BTreeMap<u64, Span>,
    /// Entered and not left, the innermost last.
    entered: Vec<u64>,
}

struct Span {
    metadata: &'static Metadata<'static>,
    fields: String,
    handles: usize,
}

impl ToHost {
    fn spans(&self) -> MutexGuard<'_, Spans> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Subscriber for ToHost {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= Level::INFO
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(LevelFilter::INFO)
    }

    fn new_span(&self, attributes: &Attributes<'_>) -> Id {
        let mut fields = Line::default();
        attributes.record(&mut fields);
        let mut spans = self.spans();
        spans.last_id += 1;
        let id = spans.last_id;
        spans.open.insert(id, Span { metadata: attributes.metadata(), fields: fields.text, handles: 1 });
        Id::from_u64(id)
    }

    fn record(&self, id: &Id, values: &Record<'_>) {
        if let Some(span) = self.spans().open.get_mut(&id.into_u64()) {
            let mut fields = Line { text: std::mem::take(&mut span.fields) };
            values.record(&mut fields);
            span.fields = fields.text;
        }
    }

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut fields = Line::default();
        event.record(&mut fields);
        let message = format!("{}{}", self.spans().path(), fields.text);
        let level = match *event.metadata().level() {
            Level::TRACE => LogLevel::Trace,
            Level::DEBUG => LogLevel::Debug,
            Level::INFO => LogLevel::Info,
            Level::WARN => LogLevel::Warn,
            Level::ERROR => LogLevel::Error,
        };
        super::log(level, event.metadata().target(), &message);
    }

    fn enter(&self, id: &Id) {
        self.spans().entered.push(id.into_u64());
    }

    fn exit(&self, id: &Id) {
        let mut spans = self.spans();
        if let Some(position) = spans.entered.iter().rposition(|entered| *entered == id.into_u64()) {
            spans.entered.remove(position);
        }
    }

    fn clone_span(&self, id: &Id) -> Id {
        if let Some(span) = self.spans().open.get_mut(&id.into_u64()) {
            span.handles += 1;
        }
        id.clone()
    }

    fn try_close(&self, id: Id) -> bool {
        let mut spans = self.spans();
        let Some(span) = spans.open.get_mut(&id.into_u64()) else { return false };
        span.handles -= 1;
        let closed = span.handles == 0;
        if closed {
            spans.open.remove(&id.into_u64());
        }
        closed
    }

    fn current_span(&self) -> Current {
        let spans = self.spans();
        match spans.entered.last().and_then(|id| Some((*id, spans.open.get(id)?))) {
            Some((id, span)) => Current::new(Id::from_u64(id), span.metadata),
            None => Current::none(),
        }
    }
}

impl Spans {
    /// `outer{id=7}: inner: `
    fn path(&self) -> String {
        let mut path = String::new();
        for span in self.entered.iter().filter_map(|id| self.open.get(id)) {
            path.push_str(span.metadata.name());
            if !span.fields.is_empty() {
                // Writing to a String cannot fail.
                let _ = write!(path, "{{{}}}", span.fields);
            }
            path.push_str(": ");
        }
        path
    }
}

/// `message a=1 b="two"`
#[derive(Default)]
struct Line {
    text: String,
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let space = if self.text.is_empty() { "" } else { " " };
        // Writing to a String cannot fail.
        let _ = match field.name() {
            "message" => write!(self.text, "{space}{value:?}"),
            name => write!(self.text, "{space}{name}={value:?}"),
        };
    }
}

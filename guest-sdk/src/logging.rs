//! What a guest logs goes to the log of its run, with its level and target.
//!
//! A component needs nothing for it: the backends of the features that are on are installed
//! before the handler or a step is called. Levels up to `info` are passed on; `log::set_max_level`
//! changes that for the `log` crate. Natively nothing is installed: a test has its own.

#[cfg(feature = "log")]
mod with_log;
#[cfg(feature = "tracing")]
mod with_tracing;

/// Makes the host the receiver of what is logged. Calling it again does nothing.
pub(crate) fn install() {
    #[cfg(feature = "log")]
    with_log::install();
    #[cfg(feature = "tracing")]
    with_tracing::install();
}

/// As in `wit/task.wit`.
#[cfg(any(feature = "log", feature = "tracing"))]
pub(crate) use crate::bindings::stepbox::task::{durable::log, types::LogLevel};

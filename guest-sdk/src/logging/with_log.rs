//! The backend of the `log` crate.

use log::{Level, LevelFilter, Log, Metadata, Record};

use super::LogLevel;

struct ToHost;

pub(super) fn install() {
    // Fails when the author has installed a logger, which is then the one to use.
    if log::set_logger(&ToHost).is_ok() {
        log::set_max_level(LevelFilter::Info);
    }
}

impl Log for ToHost {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        let level = match record.level() {
            Level::Trace => LogLevel::Trace,
            Level::Debug => LogLevel::Debug,
            Level::Info => LogLevel::Info,
            Level::Warn => LogLevel::Warn,
            Level::Error => LogLevel::Error,
        };
        super::log(level, record.target(), &record.args().to_string());
    }

    fn flush(&self) {}
}

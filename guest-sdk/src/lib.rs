#![doc = include_str!("../README.md")]

extern crate self as stepbox_guest;

mod capture;
mod context;
pub mod data;
mod error;
mod failure;
mod fan_out;
pub mod http;
mod options;
mod outcome;
mod step;
mod task;
mod time;
mod wait;
mod wants;

mod manifest;
mod module;

mod host;

#[cfg(target_family = "wasm")]
mod bindings;
#[cfg(target_family = "wasm")]
mod exports;
#[cfg(target_family = "wasm")]
mod logging;

#[cfg(not(target_family = "wasm"))]
pub mod testing;

#[doc(hidden)]
#[path = "macro_support.rs"]
pub mod __macro;

pub use stepbox_guest_macros::{step, task, wants};

pub use capture::capture;
pub use context::{TaskContext, attempt, context};
pub use error::{StepError, TaskError};
pub use failure::{Failure, FailureKind};
pub use fan_out::{Scheduled, wait_all, wait_all_settled, wait_any};
pub use options::{Retry, StepOptions, TimeoutScope};
pub use outcome::Outcome;
pub use step::{Call, Step};
pub use task::Task;
pub use time::{days, hours, minutes, now, seconds};
pub use wait::{sleep, sleep_until, wait_event, wait_event_forever};

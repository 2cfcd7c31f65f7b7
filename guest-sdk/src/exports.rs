//! The component's exports. They are linked into every module that uses this crate, which is why
//! an author has nothing to export.

use crate::bindings::{Failure, Guest, StepError, export};
use crate::{logging, module};

struct Module;

impl Guest for Module {
    fn describe() -> String {
        module::describe().to_string()
    }

    fn run(payload: String) -> Result<String, Failure> {
        logging::install();
        Ok(module::run(&payload)?)
    }

    fn run_step(function: String, input: String, attempt: u32) -> Result<String, StepError> {
        logging::install();
        Ok(module::run_step(&function, &input, attempt)?)
    }

    fn on_failure(_payload: String, _failure: Failure) -> Result<String, Failure> {
        // The manifest says `onFailure: false`, so nobody waits for more.
        Ok("null".to_owned())
    }
}

export!(Module with_types_in crate::bindings);

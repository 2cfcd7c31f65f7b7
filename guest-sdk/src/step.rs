//! Steps: how one is known, called and run.
//!
//! `#[step] fn charge(order: Order) -> Result<Receipt, ChargeError>` becomes a function of the
//! same name that asks the host for the step's outcome, and a type of the same name that
//! implements [`Step`] and has the other forms of the call.

use std::borrow::Cow;
use std::marker::PhantomData;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::data::{Arguments, Data};
use crate::time::millis;
use crate::{Failure, Outcome, Retry, Scheduled, StepError, StepOptions, TimeoutScope, host};

/// A function marked with `#[step]`. The attribute implements it.
pub trait Step {
    /// The function's name; `run-step` dispatches on it.
    const FUNCTION: &'static str;
    const DESCRIPTION: &'static str;
    const OPTIONS: StepOptions;
    const ARGUMENTS: &'static [&'static str];
    type Input: Arguments;
    type Output: Data;
    type Error;

    /// Runs the body once, here and now.
    fn run(input: Self::Input) -> Result<Self::Output, Self::Error>;

    /// What the host is told of an error of the body, and whether another attempt may go better.
    fn tell(error: &Self::Error) -> StepError;
}

/// A call of a step that is still being put together: `charge::call(order)`.
///
/// ```
/// # use stepbox_guest::{Failure, Retry, seconds, step};
/// #[step]
/// fn charge(cents: u64) -> Result<u64, String> {
///     Ok(cents)
/// }
///
/// # fn handler() -> Result<(), Failure> {
/// let receipt = charge::call(1_000)
///     .named("charge the deposit")
///     .retry(Retry::fixed(10, seconds(60)))
///     .timeout(seconds(900))
///     .result()?;
/// # Ok(()) }
/// ```
#[must_use = "a call does nothing until it ends in `result`, `outcome` or `schedule`"]
pub struct Call<S: Step> {
    name: Cow<'static, str>,
    input: Result<String, Failure>,
    options: StepOptions,
    step: PhantomData<S>,
}

impl<S: Step> Call<S> {
    #[doc(hidden)]
    pub fn new(name: impl Into<Cow<'static, str>>, input: S::Input) -> Call<S> {
        let input = input.to_json(S::ARGUMENTS).map_err(|error| {
            Failure::misuse(format!("the input of step `{}` cannot be written as JSON: {error}", S::FUNCTION))
        });
        Call { name: name.into(), input, options: S::OPTIONS, step: PhantomData }
    }

    /// Calls the step `name` in the journal: 1 to 200 characters, no control characters. For a
    /// loop, whose turns should not read `audit`, `audit#2`, `audit#3`.
    pub fn named(mut self, name: impl Into<String>) -> Call<S> {
        self.name = Cow::Owned(name.into());
        self
    }

    /// Another retry policy than the step's own.
    pub fn retry(mut self, retry: Retry) -> Call<S> {
        self.options.retry = Some(retry);
        self
    }

    /// One attempt, whatever the step's own policy says.
    pub fn no_retry(mut self) -> Call<S> {
        self.options.retry = None;
        self
    }

    /// Another timeout than the step's own, over all attempts and the delays between them.
    pub fn timeout(mut self, timeout: Duration) -> Call<S> {
        self.options.timeout_ms = Some(millis(timeout));
        self.options.timeout_scope = TimeoutScope::AllAttempts;
        self
    }

    /// Another timeout than the step's own, for each attempt.
    pub fn timeout_per_attempt(mut self, timeout: Duration) -> Call<S> {
        self.options.timeout_ms = Some(millis(timeout));
        self.options.timeout_scope = TimeoutScope::PerAttempt;
        self
    }

    /// The step's value, or what befell it; the same as calling the function.
    ///
    /// Fails with [`Diverged`](crate::FailureKind::Diverged) when the journal has another call in
    /// this place, or a value that no longer fits the step's type.
    pub fn result(self) -> Result<S::Output, Failure> {
        let json = host::step(&self.name, &StepDef::of::<S>(), &self.input?, self.options)?;
        recorded(&self.name, &json)
    }

    /// The step's value, its own error or what else befell it.
    pub fn outcome(self) -> Outcome<S::Output, S::Error>
    where
        S::Error: DeserializeOwned,
    {
        self.result().into()
    }

    /// Has the step run while the handler goes on; see [`wait_all`](crate::wait_all).
    pub fn schedule(self) -> Scheduled<S::Output> {
        let step = StepDef::of::<S>();
        let key = self.input.and_then(|input| host::schedule(&self.name, &step, &input, self.options));
        Scheduled::new(key)
    }
}

/// Reads what the journal has for the step `name`.
pub(crate) fn recorded<T: Data>(name: &str, json: &str) -> Result<T, Failure> {
    T::read(json).map_err(|error| Failure {
        step: Some(name.to_owned()),
        ..Failure::no_longer_fits::<T>(&format!("the recorded result of step `{name}`"), &error)
    })
}

/// A step without its types, so that all of them fit in one list.
#[doc(hidden)]
pub struct StepDef {
    pub(crate) function: &'static str,
    pub(crate) description: &'static str,
    pub(crate) options: StepOptions,
    pub(crate) input_schema: fn() -> Value,
    pub(crate) output_schema: fn() -> Value,
    pub(crate) run: fn(&str) -> Result<String, StepError>,
}

inventory::collect!(StepDef);

impl StepDef {
    pub const fn of<S: Step>() -> StepDef {
        StepDef {
            function: S::FUNCTION,
            description: S::DESCRIPTION,
            options: S::OPTIONS,
            input_schema: || S::Input::schema(S::ARGUMENTS),
            output_schema: S::Output::schema,
            run: attempt::<S>,
        }
    }
}

fn attempt<S: Step>(input: &str) -> Result<String, StepError> {
    let input = S::Input::from_json(S::ARGUMENTS, input)
        .map_err(|error| StepError::fatal(format!("step `{}` cannot run: {error}", S::FUNCTION)))?;
    written::<S>(S::run(input))
}

/// What the body gave, as it crosses to the host.
pub(crate) fn written<S: Step>(result: Result<S::Output, S::Error>) -> Result<String, StepError> {
    let output = result.map_err(|error| S::tell(&error))?;
    output.write().map(|json| json.get().to_owned()).map_err(|error| {
        StepError::fatal(format!("the result of step `{}` cannot be written as JSON: {error}", S::FUNCTION))
    })
}

//! What an author can write as a step and as a task, and how it is called.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use stepbox_guest::testing::{Finished, TestRun};
use stepbox_guest::{
    Failure, FailureKind, Outcome, Retry, StepError, Task, TaskError, attempt, context, minutes, seconds,
    step, task, wait_all,
};

fn run<T: Task>() -> Finished<T> {
    TestRun::of::<T>().run()
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Package {
    name: String,
    version: (u32, u32),
}

mod shapes {
    use super::*;

    /// By another name, as `std::io::Result` is.
    type ShopResult<T> = Result<T, StepError>;

    #[step]
    fn nothing() -> Result<(), StepError> {
        Ok(())
    }

    #[step]
    fn aliased(mut words: Vec<String>) -> ShopResult<usize> {
        words.push("more".into());
        Ok(words.len())
    }

    #[step]
    fn two(r#type: String, package: Package) -> Result<String, StepError> {
        Ok(format!("{type} {}", package.name))
    }

    #[step]
    fn text_error(fails: bool) -> Result<u8, String> {
        if fails { Err("as asked".into()) } else { Ok(1) }
    }

    #[step]
    fn io_error() -> std::io::Result<u8> {
        Err(std::io::Error::other("disk is gone"))
    }

    #[task]
    fn shapes() -> Result<(usize, String, u8), TaskError> {
        nothing()?;
        let failed = io_error().unwrap_err();
        assert_eq!(failed.message, "disk is gone");
        let package = Package { name: "serde".into(), version: (1, 0) };
        Ok((aliased(vec!["one".into()])?, two("lib".into(), package)?, text_error(false)?))
    }

    #[test]
    fn steps_take_and_give_what_serde_can_write() {
        let run = run::<shapes>();

        assert_eq!(run.result().unwrap(), &(2, "lib serde".to_owned(), 1));
        assert_eq!(run.calls(), ["nothing", "io_error", "aliased", "two", "text_error"]);
        run.assert_replays();
    }

    #[test]
    fn a_task_without_a_payload_passes_over_what_was_sent() {
        let sent = TestRun::of::<shapes>().payload(json!({ "anything": [1, 2] })).run();

        assert!(sent.result().is_ok());
    }

    #[test]
    fn a_step_can_be_declared_inside_of_a_function() {
        #[step]
        fn inner(n: u8) -> Result<u8, StepError> {
            Ok(n + 1)
        }
        #[task]
        fn outer(n: u8) -> Result<u8, TaskError> {
            Ok(inner(n)?)
        }

        assert_eq!(TestRun::of::<outer>().payload(1).run().result(), Ok(&2));
    }
}

mod names {
    use super::*;

    #[step(name = "audit {package.name} {package.version.0}.{package.version.1:02} {{as is}}")]
    fn audit(package: Package) -> Result<(), StepError> {
        let _ = package;
        Ok(())
    }

    #[step(name = "a fixed {{name}}")]
    fn fixed() -> Result<(), StepError> {
        Ok(())
    }

    #[task]
    fn names() -> Result<(), TaskError> {
        audit(Package { name: "serde".into(), version: (1, 3) })?;
        fixed()?;
        fixed()?;
        for turn in 1..=2 {
            fixed::call().named(format!("turn {turn}")).result()?;
        }
        Ok(())
    }

    #[test]
    fn a_call_is_named_by_its_step_its_arguments_or_itself() {
        let run = run::<names>();

        assert_eq!(
            run.calls(),
            ["audit serde 1.03 {as is}", "a fixed {name}", "a fixed {name}#2", "turn 1", "turn 2"]
        );
    }

    #[test]
    fn a_name_that_makes_no_sense_is_refused() {
        #[task]
        fn unnamed() -> Result<(), TaskError> {
            fixed::call().named("").result()?;
            Ok(())
        }

        let run = TestRun::of::<unnamed>().run();

        assert_eq!(run.failure().message, "a step name must have 1 to 200 characters, this one has 0");
    }
}

mod errors {
    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    enum ChargeError {
        Declined { reason: String },
        OutOfReach,
    }

    impl ChargeError {
        fn may_pass(&self) -> bool {
            *self == ChargeError::OutOfReach
        }
    }

    impl fmt::Display for ChargeError {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "{self:?}")
        }
    }

    #[step(retry = fixed(3, "1s"), retryable = ChargeError::may_pass)]
    fn charge(card: u8) -> Result<u8, ChargeError> {
        match card {
            0 => Err(ChargeError::Declined { reason: "empty".into() }),
            1 => Err(ChargeError::OutOfReach),
            2 => panic!("a card that nobody thought of"),
            card => Ok(card),
        }
    }

    #[task]
    fn pay(card: u8) -> Result<String, TaskError> {
        Ok(match charge::outcome(card) {
            Outcome::Value(card) => format!("charged {card}"),
            Outcome::Error(error, failure) => {
                format!("{error:?} after {}, {:?}", failure.attempt.unwrap_or(0), failure.kind)
            }
            Outcome::Failure(failure) => format!("{:?} {failure}", failure.kind),
        })
    }

    #[test]
    fn an_outcome_is_a_value_the_steps_own_error_or_what_else_befell_it() {
        let paid = |card: u8| TestRun::of::<pay>().payload(card).run().result().cloned().unwrap();

        assert_eq!(paid(7), "charged 7");
        assert_eq!(paid(0), r#"Declined { reason: "empty" } after 1, Error"#);
        assert_eq!(paid(1), "OutOfReach after 3, Exhausted");
        assert_eq!(
            paid(2),
            "Exhausted step `charge`, attempt 3: \
             the step panicked: a card that nobody thought of (the last of 3 attempts)"
        );
    }

    #[step]
    fn with_context() -> Result<u8, StepError> {
        Ok("twelve".parse::<u8>()?)
    }

    #[step(retry = fixed(2, "1s"))]
    fn later(n: u8) -> Result<u8, StepError> {
        if attempt() == 2 { Ok(n) } else { Err(StepError::new("not yet").retry_after(minutes(10))) }
    }

    #[test]
    fn the_ready_made_error_takes_any_other_and_can_say_when_to_come_back() {
        #[task]
        fn ready_made() -> Result<u8, TaskError> {
            assert_eq!(with_context().unwrap_err().message, "invalid digit found in string");
            Ok(later(3)?)
        }

        let run = run::<ready_made>();

        assert_eq!(run.result(), Ok(&3));
        assert_eq!(run.step("later").took, minutes(10));
    }

    /// An error of a task with details.
    #[derive(Debug, Serialize)]
    struct OutOfStock {
        sku: &'static str,
    }

    impl fmt::Display for OutOfStock {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "no {} left", self.sku)
        }
    }

    mod passes_on {
        use super::*;

        #[task]
        pub fn passes_on() -> Result<(), Failure> {
            charge(1)?;
            Ok(())
        }
    }

    #[test]
    fn a_task_fails_with_any_error_that_can_be_displayed() {
        #[task]
        fn own_error() -> Result<(), OutOfStock> {
            Err(OutOfStock { sku: "tea" })
        }

        let failure = run::<own_error>().failure();
        assert_eq!(failure.message, "no tea left");
        assert_eq!(failure.details, Some(json!({ "sku": "tea" })));

        let failure = run::<passes_on::passes_on>().failure();
        assert_eq!((failure.kind, failure.attempt), (FailureKind::Exhausted, Some(3)));
    }
}

mod options {
    use super::*;

    #[step(retry = fixed(2, "1s"), timeout = "10s")]
    fn slow(takes_seconds: u64) -> Result<(), StepError> {
        stepbox_guest::testing::take(seconds(takes_seconds));
        Err("in vain".into())
    }

    #[task]
    fn calls() -> Result<(), TaskError> {
        let _ = slow(0);
        let _ = slow::call(0).named("patient").retry(Retry::fixed(5, seconds(2))).result();
        let _ = slow::call(0).named("once").no_retry().result();
        let _ = slow::call(60).named("too slow").result();
        let _ = slow::call(60).named("long enough").timeout(minutes(10)).result();
        let _ = slow::call(60).named("each").timeout_per_attempt(seconds(90)).result();
        Ok(())
    }

    #[test]
    fn a_call_may_have_other_options_than_its_step() {
        let run = run::<calls>();
        let tried = |key| {
            let step = run.step(key);
            (step.attempts, step.outcome.unwrap_err().kind, step.took.as_secs())
        };

        assert_eq!(tried("slow"), (2, FailureKind::Exhausted, 1));
        assert_eq!(tried("patient"), (5, FailureKind::Exhausted, 8));
        assert_eq!(tried("once"), (1, FailureKind::Error, 0));
        assert_eq!(tried("too slow"), (1, FailureKind::TimedOut, 60));
        assert_eq!(tried("long enough"), (2, FailureKind::Exhausted, 121));
        assert_eq!(tried("each"), (2, FailureKind::Exhausted, 121));
    }
}

mod versions {
    use super::*;

    /// A type that changed, or that never agreed with itself: it does not read what it writes.
    #[step]
    fn rate() -> Result<f64, StepError> {
        Ok(f64::NAN)
    }

    #[task]
    fn uses() -> Result<f64, TaskError> {
        Ok(rate()?)
    }

    #[test]
    fn a_recorded_value_that_does_not_fit_is_told() {
        let run = TestRun::of::<uses>().run();

        let failure = run.failure();
        assert!(
            failure.message.starts_with("the recorded result of step `rate` does not fit `f64`"),
            "{failure}"
        );
    }

    #[test]
    fn a_payload_that_does_not_fit_fails_the_run() {
        #[task]
        fn takes(cents: u64) -> Result<u64, TaskError> {
            Ok(cents)
        }

        let failure = TestRun::of::<takes>().payload("nine").run().failure();
        assert!(failure.message.starts_with("the payload does not fit `u64`"), "{failure}");
    }
}

mod fan_out {
    use super::*;

    #[step]
    fn quote(carrier: String) -> Result<usize, StepError> {
        Ok(carrier.len())
    }

    #[task]
    fn quotes() -> Result<Vec<usize>, TaskError> {
        let carriers = ["Red Van", "Blue Bike"].map(str::to_owned);
        Ok(wait_all(carriers.into_iter().map(quote::schedule))?)
    }

    #[test]
    fn a_host_without_fan_out_says_so_where_the_handler_waits() {
        assert_eq!(run::<quotes>().failure().kind, FailureKind::Error);
        assert!(run::<quotes>().failure().message.contains("one step after the other"));
    }
}

mod context_of_a_run {
    use super::*;

    #[step]
    fn who() -> Result<(String, u32), StepError> {
        Ok((context().execution_id, attempt()))
    }

    #[task]
    fn asks() -> Result<(), TaskError> {
        assert_eq!(who()?, ("test".into(), 1));
        assert_eq!((context().task_name.as_str(), context().run_id.as_str()), ("asks", "test:run:0"));
        assert_eq!(attempt(), 0);
        Ok(())
    }

    #[test]
    fn the_handler_and_its_steps_know_whose_they_are() {
        assert_eq!(run::<asks>().result(), Ok(&()));
        assert_eq!(who::body(), Ok(("test".into(), 0)));
    }

    #[step]
    fn step_in_step() -> Result<(), StepError> {
        who()?;
        Ok(())
    }

    mod nested {
        use super::*;

        #[task]
        pub fn nests() -> Result<(), TaskError> {
            Ok(step_in_step()?)
        }
    }

    #[test]
    fn a_durable_call_inside_of_a_step_ends_the_attempt() {
        let failure = run::<nested::nests>().failure();

        assert_eq!(failure.kind, FailureKind::Misuse);
        assert_eq!(failure.step.as_deref(), Some("step_in_step"));
    }

    #[test]
    fn a_durable_call_without_a_host_is_refused() {
        assert_eq!(who().unwrap_err().kind, FailureKind::Misuse);
    }
}

//! The attributes of `stepbox-guest`. Use that crate; it documents them.

mod duration;
mod name;
mod options;
mod signature;
mod step;
mod task;
mod wants;

use proc_macro::TokenStream;
use proc_macro2::TokenStream as TokenStream2;

/// Makes a function a step: work that touches the world, is recorded when it is done, and is
/// tried again when it fails.
///
/// The function's doc comment is what people read of the step. Its name becomes a function and a
/// type, so it cannot be that of a module or a type in the same scope.
///
/// It takes up to eight arguments that own their data and returns `Result<T, E>`. Its
/// arguments and its value need `Serialize`, `Deserialize` and `JsonSchema`; its error needs
/// `Display`, and is kept whole in the failure's details if it is `Serialize`.
///
/// | option | meaning | without it |
/// |---|---|---|
/// | `retry = exponential(3, "2s")` | three attempts in all; a delay of 2 s that doubles with each retry, up to an hour, with full jitter | one attempt |
/// | `retry = fixed(5, "500ms")` | five attempts in all; the same delay each time, without jitter | |
/// | … `cap = "10m"` | inside of `exponential(..)`: no delay is longer | an hour |
/// | … `multiplier = 1.5` | inside of `exponential(..)`: growth per retry, 1 to 10 | 2 |
/// | … `jitter = false` | inside of either: the nominal delay, or anything from zero to it | `true`, `false` |
/// | `timeout = "30s"` | one deadline for all attempts and the delays between them | the host's, for one attempt |
/// | `timeout_scope = per_attempt` | the timeout is for each attempt; a timeout is not retried in either case | `all_attempts` |
/// | `retryable = path::to::function` | `fn(&E) -> bool`: whether another attempt may go better | every error is retryable |
/// | `name = "audit {package.name}"` | what the journal calls it; `{}` takes arguments and their fields | the function's name |
///
/// Durations are a whole number and a unit: `ms`, `s`, `m`, `h`, `d`.
///
/// For a step `charge`, `charge(order)` asks for its value and fails with a `Failure`;
/// `charge::outcome(order)` tells its value, its own error and what else befell it apart;
/// `charge::schedule(order)` has it run while the handler goes on; `charge::call(order)` takes
/// options for this one call; `charge::body(order)` is the function as written, for a unit test.
#[proc_macro_attribute]
pub fn step(attribute: TokenStream, item: TokenStream) -> TokenStream {
    or_the_function_and_why_not(step::expand, attribute.into(), item.into()).into()
}

/// Makes a function the handler of its module. A module has one.
///
/// The function takes the payload (`Deserialize` and `JsonSchema`), or nothing, and returns
/// `Result<T, E>` with a `T` that is `Serialize` and `JsonSchema` and an `E` that is `Display`;
/// `TaskError` suits most.
///
/// The function's doc comment is what people read of the module. There is nothing to export: a
/// crate with one task is a module.
///
/// `timeout = "30m"` is the deadline of the whole execution, from its start.
#[proc_macro_attribute]
pub fn task(attribute: TokenStream, item: TokenStream) -> TokenStream {
    or_the_function_and_why_not(task::expand, attribute.into(), item.into()).into()
}

/// Says what the module wants to reach. Nothing is granted by that: an admin grants it, and until then
/// the module waits.
///
/// | | |
/// |---|---|
/// | `http "GET,POST https://api.example.com"` | requests with these methods (any, without) to this scheme, host and port; `*.example.com` is every name below that one |
/// | `secret "STRIPE_KEY" for "api.stripe.com"` | a secret, and to whom it is sent; several hosts stand in brackets: `["a.com", "b.com"]` |
/// | `env "REGION"` | a variable in the environment of the steps |
///
/// Stands at the top level of any file of the module, as often as is good for reading; what is said
/// twice counts once.
#[proc_macro]
pub fn wants(input: TokenStream) -> TokenStream {
    wants::expand(input.into()).unwrap_or_else(syn::Error::into_compile_error).into()
}

/// What `expand` makes of a function. Where that fails, the function stays as it is beside the
/// error, so that those who call it are not told that it is missing.
fn or_the_function_and_why_not(
    expand: impl FnOnce(TokenStream2, TokenStream2) -> syn::Result<TokenStream2>,
    attribute: TokenStream2,
    item: TokenStream2,
) -> TokenStream2 {
    expand(attribute, item.clone()).unwrap_or_else(|error| {
        let mut tokens = error.into_compile_error();
        tokens.extend(item);
        tokens
    })
}

//! What stands in the parentheses of `#[step(..)]` and `#[task(..)]`.

use proc_macro2::{Span, TokenStream};
use quote::quote;
use syn::parse::{Parse, ParseStream};
use syn::{Ident, LitBool, LitFloat, LitInt, LitStr, Path, Token, parenthesized};

use crate::duration::DurationMs;

#[derive(Default)]
pub struct StepAttribute {
    pub retry: Option<Retry>,
    pub timeout: Option<DurationMs>,
    pub timeout_scope: Option<TimeoutScope>,
    pub retryable: Option<Path>,
    pub name: Option<LitStr>,
}

#[derive(Default)]
pub struct TaskAttribute {
    pub timeout: Option<DurationMs>,
}

pub struct Retry {
    attempts_max: u32,
    delay_first: DurationMs,
    growth_percent: u32,
    delay_max: DurationMs,
    jitter: bool,
}

#[derive(Clone, Copy)]
pub enum TimeoutScope {
    AllAttempts,
    PerAttempt,
}

impl Parse for StepAttribute {
    fn parse(input: ParseStream<'_>) -> syn::Result<Self> {
        let mut attribute = StepAttribute::default();
        for_each_option(input, |option, input| match option.to_string().as_str() {
            "retry" => set(option, &mut attribute.retry, input),
            "timeout" => set(option, &mut attribute.timeout, input),
            "timeout_scope" => set(option, &mut attribute.timeout_scope, input),
            "retryable" => set(option, &mut attribute.retryable, input),
            "name" => set(option, &mut attribute.name, input),
            _ => Err(unknown(
                option,
                "a step knows `retry`, `timeout`, `timeout_scope`, `retryable` and `name`",
            )),
        })?;
        if attribute.timeout.is_none() && attribute.timeout_scope.is_some() {
            return Err(syn::Error::new(
                Span::call_site(),
                "`timeout_scope` says nothing without a `timeout`",
            ));
        }
        Ok(attribute)
    }
}

impl Parse for TaskAttribute {
    fn parse(input: ParseStream<'_>) -> syn::Result<Self> {
        let mut attribute = TaskAttribute::default();
        for_each_option(input, |option, input| match option.to_string().as_str() {
            "timeout" => set(option, &mut attribute.timeout, input),
            "retry" => Err(unknown(
                option,
                "a task is not retried; its steps are, and a failed run can be started again",
            )),
            _ => Err(unknown(option, "a task knows `timeout`")),
        })?;
        Ok(attribute)
    }
}

impl Parse for TimeoutScope {
    fn parse(input: ParseStream<'_>) -> syn::Result<Self> {
        let scope: Ident = input.parse()?;
        match scope.to_string().as_str() {
            "all_attempts" => Ok(TimeoutScope::AllAttempts),
            "per_attempt" => Ok(TimeoutScope::PerAttempt),
            _ => Err(syn::Error::new(scope.span(), "`timeout_scope` is `all_attempts` or `per_attempt`")),
        }
    }
}

impl Parse for Retry {
    fn parse(input: ParseStream<'_>) -> syn::Result<Self> {
        let shape = "write `exponential(3, \"2s\")` or `fixed(5, \"500ms\")`: the attempts in all and the first delay";
        let kind: Ident = input.parse().map_err(|error| syn::Error::new(error.span(), shape))?;
        let exponential = match kind.to_string().as_str() {
            "exponential" => true,
            "fixed" => false,
            _ => return Err(syn::Error::new(kind.span(), shape)),
        };
        let arguments;
        parenthesized!(arguments in input);

        let attempts: LitInt = arguments.parse().map_err(|error| syn::Error::new(error.span(), shape))?;
        let attempts_max = attempts.base10_parse()?;
        if attempts_max == 0 {
            return Err(syn::Error::new(
                attempts.span(),
                "the first attempt is counted, so there is at least 1; leave `retry` out for one attempt",
            ));
        }
        arguments.parse::<Token![,]>().map_err(|error| syn::Error::new(error.span(), shape))?;
        let delay_first: DurationMs = arguments.parse()?;

        let (mut cap, mut multiplier, mut jitter) = (None, None, None);
        if arguments.parse::<Option<Token![,]>>()?.is_some() {
            for_each_option(&arguments, |option, input| match (option.to_string().as_str(), exponential) {
                ("cap", true) => set(option, &mut cap, input),
                ("multiplier", true) => set(option, &mut multiplier, input),
                ("jitter", _) => set::<LitBool>(option, &mut jitter, input),
                (_, true) => Err(unknown(option, "`exponential` knows `cap`, `multiplier` and `jitter`")),
                (_, false) => Err(unknown(option, "`fixed` knows `jitter`")),
            })?;
        }
        // The defaults are documented at the attribute and at `stepbox_guest::Retry`.
        Ok(Retry {
            attempts_max,
            delay_first,
            growth_percent: multiplier
                .map_or(if exponential { 200 } else { 100 }, |Multiplier { percent }| percent),
            delay_max: cap.unwrap_or(if exponential { DurationMs(3_600_000) } else { delay_first }),
            jitter: jitter.map_or(exponential, |jitter| jitter.value),
        })
    }
}

/// Growth per retry: a whole number or one with decimals, from 1 to 10.
struct Multiplier {
    percent: u32,
}

impl Parse for Multiplier {
    fn parse(input: ParseStream<'_>) -> syn::Result<Self> {
        let (span, factor) = if input.peek(LitInt) {
            let number: LitInt = input.parse()?;
            (number.span(), number.base10_parse::<u32>().map(f64::from)?)
        } else {
            let number: LitFloat = input.parse()?;
            (number.span(), number.base10_parse::<f64>()?)
        };
        if !(1.0..=10.0).contains(&factor) {
            return Err(syn::Error::new(span, "a multiplier is between 1 and 10"));
        }
        Ok(Multiplier { percent: (factor * 100.0).round() as u32 })
    }
}

/// Reads `key = value, key = value`; `read` takes the value.
fn for_each_option(
    input: ParseStream<'_>,
    mut read: impl FnMut(&Ident, ParseStream<'_>) -> syn::Result<()>,
) -> syn::Result<()> {
    while !input.is_empty() {
        let option: Ident = input.parse()?;
        if input.parse::<Option<Token![=]>>()?.is_none() {
            return Err(syn::Error::new(option.span(), format!("options are written `{option} = ..`")));
        }
        read(&option, input)?;
        if !input.is_empty() {
            input.parse::<Token![,]>()?;
        }
    }
    Ok(())
}

fn set<T: Parse>(option: &Ident, slot: &mut Option<T>, input: ParseStream<'_>) -> syn::Result<()> {
    if slot.is_some() {
        return Err(syn::Error::new(option.span(), format!("`{option}` is given twice")));
    }
    *slot = Some(input.parse()?);
    Ok(())
}

fn unknown(option: &Ident, known: &str) -> syn::Error {
    syn::Error::new(option.span(), format!("unknown option `{option}`: {known}"))
}

impl StepAttribute {
    /// The `StepOptions` of the step, as a constant.
    pub fn options(&self) -> TokenStream {
        let retry = match &self.retry {
            Some(Retry { attempts_max, delay_first, growth_percent, delay_max, jitter }) => {
                let (delay_first_ms, delay_max_ms) = (delay_first.0, delay_max.0);
                quote!(::core::option::Option::Some(::stepbox_guest::Retry {
                    attempts_max: #attempts_max,
                    delay_first_ms: #delay_first_ms,
                    growth_percent: #growth_percent,
                    delay_max_ms: #delay_max_ms,
                    jitter: #jitter,
                }))
            }
            None => quote!(::core::option::Option::None),
        };
        let timeout_ms = optional(self.timeout);
        let scope = match self.timeout_scope {
            Some(TimeoutScope::PerAttempt) => quote!(PerAttempt),
            _ => quote!(AllAttempts),
        };
        quote!(::stepbox_guest::StepOptions {
            retry: #retry,
            timeout_ms: #timeout_ms,
            timeout_scope: ::stepbox_guest::TimeoutScope::#scope,
        })
    }
}

impl TaskAttribute {
    pub fn timeout_ms(&self) -> TokenStream {
        optional(self.timeout)
    }
}

fn optional(duration: Option<DurationMs>) -> TokenStream {
    match duration {
        Some(DurationMs(ms)) => quote!(::core::option::Option::Some(#ms)),
        None => quote!(::core::option::Option::None),
    }
}

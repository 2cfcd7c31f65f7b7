//! `#[step]`: a function that asks for the step's outcome, and a type with the rest.

use proc_macro2::TokenStream;
use quote::{quote, quote_spanned};
use syn::ext::IdentExt;
use syn::spanned::Spanned;
use syn::{Attribute, ItemFn, Type, parse2};

use crate::options::StepAttribute;
use crate::signature::{self, Argument, Signature};

/// As many as `stepbox_guest::Arguments` is implemented for.
const ARGUMENTS_MAX: usize = 8;

pub fn expand(attribute: TokenStream, item: TokenStream) -> syn::Result<TokenStream> {
    let function: ItemFn = parse2(item)?;
    let options: StepAttribute = parse2(attribute)?;
    let signature = signature::read("step", &function)?;
    if let Some(argument) = signature.arguments.get(ARGUMENTS_MAX) {
        let why = format!("a step takes up to {ARGUMENTS_MAX} arguments: put them in a struct");
        return Err(syn::Error::new_spanned(&argument.name, why));
    }

    let Signature { arguments, returns, value, error, description } = &signature;
    let ItemFn { attrs, vis, sig, block } = &function;
    let step = &sig.ident;
    let name = step.unraw().to_string();
    let call_name = match &options.name {
        Some(template) => crate::name::expand(template, arguments)?,
        None => quote!(#name),
    };
    let step_options = options.options();
    let tell = tell(&options, returns, error);

    let (docs, others): (Vec<&Attribute>, Vec<&Attribute>) =
        attrs.iter().partition(|a| a.path().is_ident("doc"));
    let names: Vec<_> = arguments.iter().map(|Argument { name, .. }| name).collect();
    let types: Vec<_> = arguments.iter().map(|Argument { ty, .. }| ty).collect();
    let keys: Vec<String> = names.iter().map(|name| name.unraw().to_string()).collect();
    let written = &sig.inputs;
    // With the span of the parentheses of the function, so that an error about an argument's type
    // points there.
    let mut input = TokenStream::new();
    sig.paren_token.surround(&mut input, |input| input.extend(quote!(#(#types,)*)));
    let type_doc = format!("The step `{name}` and the other forms of its call.");

    Ok(quote! {
        #(#docs)*
        #[allow(clippy::too_many_arguments)]
        #vis fn #step(#(#names: #types),*) -> ::core::result::Result<#value, ::stepbox_guest::Failure> {
            #step::call(#(#names),*).result()
        }

        #[doc = #type_doc]
        #[allow(non_camel_case_types)]
        #vis struct #step {}

        #[allow(dead_code, clippy::too_many_arguments)]
        impl #step {
            /// A call with other options than the step's own; it ends in `result`, `outcome` or `schedule`.
            #vis fn call(#(#names: #types),*) -> ::stepbox_guest::Call<#step> {
                ::stepbox_guest::Call::new(#call_name, (#(#names,)*))
            }

            /// The step's value, its own error or what else befell it.
            #vis fn outcome(#(#names: #types),*) -> ::stepbox_guest::Outcome<#value, #error>
            where
                for<'__de> #error: ::stepbox_guest::__macro::serde::Deserialize<'__de>,
            {
                Self::call(#(#names),*).outcome()
            }

            /// Has the step run while the handler goes on.
            #vis fn schedule(#(#names: #types),*) -> ::stepbox_guest::Scheduled<#value> {
                Self::call(#(#names),*).schedule()
            }

            /// The function as written: runs it once, here and now.
            #(#others)*
            #vis fn body(#written) -> #returns #block
        }

        impl ::stepbox_guest::Step for #step {
            const FUNCTION: &'static str = #name;
            const DESCRIPTION: &'static str = #description;
            const OPTIONS: ::stepbox_guest::StepOptions = #step_options;
            const ARGUMENTS: &'static [&'static str] = &[#(#keys),*];
            type Input = #input;
            type Output = #value;
            type Error = #error;

            fn run((#(#names,)*): Self::Input) -> ::core::result::Result<Self::Output, Self::Error> {
                Self::body(#(#names),*)
            }

            fn tell(__error: &Self::Error) -> ::stepbox_guest::StepError {
                #tell
            }
        }

        ::stepbox_guest::__macro::inventory::submit! {
            ::stepbox_guest::__macro::StepDef::of::<#step>()
        }
    })
}

/// What the host is told of `__error`.
fn tell(options: &StepAttribute, returns: &Type, error: &TokenStream) -> TokenStream {
    let assert_error = quote_spanned!(returns.span()=> ::stepbox_guest::__macro::assert_error::<#error>(););
    let judged = options.retryable.as_ref().map(|path| {
        quote_spanned! {path.span()=>
            let __retryable: fn(&#error) -> bool = #path;
            let __told = if __retryable(__error) { __told } else { __told.no_retry() };
        }
    });
    quote! {
        #assert_error
        let __told: ::stepbox_guest::StepError = ::stepbox_guest::__tell!(__error);
        #judged
        __told
    }
}

//! `#[task]`: the function stays as it is and becomes the handler of its module.

use proc_macro2::TokenStream;
use quote::{ToTokens, quote, quote_spanned};
use syn::ext::IdentExt;
use syn::spanned::Spanned;
use syn::{ItemFn, parse2};

use crate::options::TaskAttribute;
use crate::signature::{self, Signature};

pub fn expand(attribute: TokenStream, item: TokenStream) -> syn::Result<TokenStream> {
    let function: ItemFn = parse2(item)?;
    let options: TaskAttribute = parse2(attribute)?;
    let signature = signature::read("task", &function)?;
    if let Some(second) = signature.arguments.get(1) {
        let why = "a task takes one argument, its payload, or none: put what it needs in one struct";
        return Err(syn::Error::new_spanned(&second.name, why));
    }

    let Signature { arguments, returns, value, error, description } = &signature;
    let (vis, task) = (&function.vis, &function.sig.ident);
    let name = task.unraw().to_string();
    let type_doc = format!("The task `{name}`, for `stepbox_guest::testing`.");
    let timeout_ms = options.timeout_ms();
    let assert_error = quote_spanned!(returns.span()=> ::stepbox_guest::__macro::assert_error::<#error>(););
    let (payload, call) = match arguments.first() {
        Some(payload) => (payload.ty.to_token_stream(), quote!(#task(__payload))),
        None => (quote!(::stepbox_guest::__macro::NoPayload), quote!(#task())),
    };

    Ok(quote! {
        #function

        #[doc = #type_doc]
        #[allow(non_camel_case_types, dead_code)]
        #vis struct #task {}

        // A second task in the same Rust module meets the first one here, at compile time; one in
        // another is told when the component is asked to describe itself, at upload.
        #[doc(hidden)]
        #[allow(dead_code, non_upper_case_globals)]
        const a_module_has_one_task: () = ();

        impl ::stepbox_guest::Task for #task {
            const NAME: &'static str = #name;
            const DESCRIPTION: &'static str = #description;
            const TIMEOUT_MS: ::core::option::Option<u64> = #timeout_ms;
            type Payload = #payload;
            type Output = #value;

            #[allow(unused_variables)]
            fn run(__payload: Self::Payload) -> ::core::result::Result<Self::Output, ::stepbox_guest::Failure> {
                #assert_error
                #call.map_err(|__error| ::stepbox_guest::__tell!(&__error))
            }
        }

        ::stepbox_guest::__macro::inventory::submit! {
            ::stepbox_guest::__macro::TaskDef::of::<#task>()
        }
    })
}

//! The function behind an attribute: what is asked of its shape, and its parts.

use proc_macro2::{TokenStream, TokenTree};
use quote::{ToTokens, quote};
use syn::spanned::Spanned;
use syn::{
    Attribute, Expr, ExprLit, FnArg, GenericArgument, Ident, ItemFn, Lit, Meta, Pat, PathArguments,
    ReturnType, Type,
};

pub struct Signature {
    pub arguments: Vec<Argument>,
    /// The whole return type, as written.
    pub returns: Type,
    /// The types that it is made of.
    pub value: TokenStream,
    pub error: TokenStream,
    pub description: String,
}

pub struct Argument {
    pub name: Ident,
    pub ty: Type,
}

/// `what` is "step" or "task".
pub fn read(what: &str, function: &ItemFn) -> syn::Result<Signature> {
    let signature = &function.sig;
    let refuse =
        |tokens: &dyn ToTokens, why: String| Err(syn::Error::new_spanned(tokens.to_token_stream(), why));

    if let Some(keyword) = &signature.asyncness {
        return refuse(
            keyword,
            format!("a {what} is plain, blocking code: leave out `async`; waiting costs no thread"),
        );
    }
    if let Some(keyword) = &signature.unsafety {
        return refuse(keyword, format!("a {what} is called by the host, so it cannot be `unsafe`"));
    }
    if let Some(abi) = &signature.abi {
        return refuse(abi, format!("a {what} is an ordinary Rust function"));
    }
    if !signature.generics.params.is_empty() {
        let why = format!("a {what} is called by name, with JSON, so it cannot be generic");
        return refuse(&signature.generics, why);
    }
    let arguments = signature.inputs.iter().map(|input| argument(what, input)).collect::<syn::Result<_>>()?;
    let returns = match &signature.output {
        ReturnType::Type(_, returns) => (**returns).clone(),
        ReturnType::Default => return refuse(&signature.ident, returns_result(what)),
    };
    let (value, error) = value_and_error(what, &returns)?;
    Ok(Signature { arguments, returns, value, error, description: description(&function.attrs) })
}

fn argument(what: &str, input: &FnArg) -> syn::Result<Argument> {
    let typed = match input {
        FnArg::Typed(typed) => typed,
        FnArg::Receiver(receiver) => {
            let why = format!("a {what} is a free function: it takes no `self`, only what can be recorded");
            return Err(syn::Error::new_spanned(receiver, why));
        }
    };
    let name = match &*typed.pat {
        Pat::Ident(pattern) if pattern.by_ref.is_none() && pattern.subpat.is_none() => pattern.ident.clone(),
        pattern => {
            let why = format!(
                "arguments of a {what} are recorded by name: give this one a name, and take it apart in the body"
            );
            return Err(syn::Error::new_spanned(pattern, why));
        }
    };
    if let Type::ImplTrait(ty) = &*typed.ty {
        let why = format!("a {what} is called by name, with JSON, so it cannot be generic");
        return Err(syn::Error::new_spanned(ty, why));
    }
    if borrows(typed.ty.to_token_stream()) {
        let why = format!(
            "`{name}` borrows, but arguments of a {what} are recorded and must own their data: take a `String` for a `&str`, a `Vec<T>` for a `&[T]`"
        );
        return Err(syn::Error::new_spanned(&typed.ty, why));
    }
    Ok(Argument { name, ty: (*typed.ty).clone() })
}

/// Whether there is a `&` or a lifetime anywhere in a type.
fn borrows(ty: TokenStream) -> bool {
    ty.into_iter().any(|token| match token {
        TokenTree::Punct(punct) => matches!(punct.as_char(), '&' | '\''),
        TokenTree::Group(group) => borrows(group.stream()),
        _ => false,
    })
}

/// The two types of a `Result`; where it goes by another name (`io::Result<T>`), what the
/// compiler makes of it.
fn value_and_error(what: &str, returns: &Type) -> syn::Result<(TokenStream, TokenStream)> {
    let refuse = || Err(syn::Error::new(returns.span(), returns_result(what)));
    let Type::Path(path) = returns else { return refuse() };
    let Some(last) = path.path.segments.last() else { return refuse() };
    if !last.ident.to_string().ends_with("Result") {
        return refuse();
    }
    if let PathArguments::AngleBracketed(types) = &last.arguments
        && let [GenericArgument::Type(value), GenericArgument::Type(error)] =
            types.args.iter().collect::<Vec<_>>()[..]
    {
        return Ok((value.to_token_stream(), error.to_token_stream()));
    }
    let is_result = quote!(<#returns as ::stepbox_guest::__macro::IsResult>);
    Ok((quote!(#is_result::Value), quote!(#is_result::Error)))
}

fn returns_result(what: &str) -> String {
    format!(
        "a {what} can fail, so it returns `Result<T, E>`; for `E`, `stepbox_guest::{}Error` will do",
        match what {
            "step" => "Step",
            _ => "Task",
        }
    )
}

/// The text of the doc comments, for people.
fn description(attributes: &[Attribute]) -> String {
    let lines: Vec<String> = attributes.iter().filter_map(doc_line).collect();
    lines.join("\n").trim().to_owned()
}

fn doc_line(attribute: &Attribute) -> Option<String> {
    let Meta::NameValue(doc) = &attribute.meta else { return None };
    match &doc.value {
        Expr::Lit(ExprLit { lit: Lit::Str(text), .. }) if doc.path.is_ident("doc") => {
            let text = text.value();
            Some(text.strip_prefix(' ').unwrap_or(&text).trim_end().to_owned())
        }
        _ => None,
    }
}

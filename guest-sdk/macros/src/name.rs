//! Names with arguments: `name = "audit {package.name}"`.

use proc_macro2::{Span, TokenStream};
use quote::{ToTokens, quote};
use syn::{Expr, Ident, LitStr, Member};

use crate::signature::Argument;

/// An expression that gives the name of a call as a `Cow<'static, str>` or what becomes one.
pub fn expand(name: &LitStr, arguments: &[Argument]) -> syn::Result<TokenStream> {
    let template = Template::parse(&name.value(), name.span(), arguments)?;
    if template.values.is_empty() {
        let text = template.plain;
        check_plain(&text, name.span())?;
        return Ok(quote!(#text));
    }
    let Template { format, values, .. } = template;
    let format = LitStr::new(&format, name.span());
    Ok(quote!(::std::format!(#format, #(#values),*)))
}

/// The host's rule for names, checked early where the whole name is known.
fn check_plain(name: &str, span: Span) -> syn::Result<()> {
    if name.is_empty() || name.chars().count() > 200 || name.chars().any(char::is_control) {
        return Err(syn::Error::new(span, "a name has 1 to 200 characters and no control characters"));
    }
    Ok(())
}

struct Template {
    /// The same text for `format!`, with `{}` for each value.
    format: String,
    /// The text without its braces doubled, for a name without values.
    plain: String,
    values: Vec<TokenStream>,
}

impl Template {
    fn parse(text: &str, span: Span, arguments: &[Argument]) -> syn::Result<Template> {
        let mut template = Template { format: String::new(), plain: String::new(), values: Vec::new() };
        let mut rest = text;
        while let Some(at) = rest.find(['{', '}']) {
            let (before, from) = rest.split_at(at);
            template.push(before);
            if let Some(after) = from.strip_prefix("{{").or_else(|| from.strip_prefix("}}")) {
                template.format.push_str(&from[..2]);
                template.plain.push_str(&from[..1]);
                rest = after;
                continue;
            }
            let Some((inside, after)) = from.strip_prefix('{').and_then(|from| from.split_once('}')) else {
                return Err(syn::Error::new(
                    span,
                    "a `{` or `}` has no partner; write `{{` or `}}` for the character",
                ));
            };
            let (value, format) = inside.split_once(':').unwrap_or((inside, ""));
            template.values.push(argument_path(value.trim(), span, arguments)?);
            template.format.push_str(&if format.is_empty() {
                "{}".to_owned()
            } else {
                format!("{{:{format}}}")
            });
            rest = after;
        }
        template.push(rest);
        Ok(template)
    }

    fn push(&mut self, text: &str) {
        self.format.push_str(text);
        self.plain.push_str(text);
    }
}

/// `package` or `package.source.kind`, where `package` is an argument.
fn argument_path(text: &str, span: Span, arguments: &[Argument]) -> syn::Result<TokenStream> {
    let shape = || {
        syn::Error::new(
            span,
            format!("`{{{text}}}` is neither an argument nor a field of one, such as `{{package.name}}`"),
        )
    };
    let mut expression: Expr = syn::parse_str(text).map_err(|_| shape())?;
    let mut fields: Vec<Member> = Vec::new();
    let root: Ident = loop {
        match expression {
            Expr::Field(field) => {
                fields.push(field.member);
                expression = *field.base;
            }
            Expr::Path(path) => break path.path.get_ident().cloned().ok_or_else(shape)?,
            _ => return Err(shape()),
        }
    };
    let argument = arguments.iter().find(|argument| argument.name == root).ok_or_else(|| {
        let known: Vec<String> = arguments.iter().map(|argument| format!("`{}`", argument.name)).collect();
        syn::Error::new(span, format!("`{root}` is no argument of this step; it has {}", known.join(", ")))
    })?;
    let mut path = argument.name.to_token_stream();
    for mut field in fields.into_iter().rev() {
        match &mut field {
            Member::Named(name) => name.set_span(span),
            Member::Unnamed(index) => index.span = span,
        }
        path = quote!(#path.#field);
    }
    Ok(path)
}

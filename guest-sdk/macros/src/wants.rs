//! `wants!`: what the module wants to reach.

use std::net::IpAddr;

use proc_macro2::{Span, TokenStream};
use quote::quote;
use syn::parse::{Parse, ParseStream};
use syn::{Ident, LitStr, Token, bracketed, parse2, token};

/// The host's own bounds (`docs/manifest.md`), so that they are met before an upload.
const NAME_MAX: usize = 128;
const METHOD_MAX: usize = 20;

#[derive(Default)]
struct Wants {
    http: Vec<Http>,
    secrets: Vec<Secret>,
    env: Vec<String>,
}

#[derive(Debug, PartialEq)]
struct Http {
    scheme: &'static str,
    host: String,
    port: Option<u16>,
    methods: Vec<String>,
}

struct Secret {
    name: String,
    hosts: Vec<String>,
}

pub fn expand(input: TokenStream) -> syn::Result<TokenStream> {
    let Wants { http, secrets, env } = parse2(input)?;
    let http = http.iter().map(|Http { scheme, host, port, methods }| {
        let port = match port {
            Some(port) => quote!(::core::option::Option::Some(#port)),
            None => quote!(::core::option::Option::None),
        };
        quote!(::stepbox_guest::__macro::HttpWant {
            scheme: #scheme,
            host: #host,
            port: #port,
            methods: &[#(#methods),*],
        })
    });
    let secrets = secrets.iter().map(|Secret { name, hosts }| quote!((#name, &[#(#hosts),*])));
    Ok(quote! {
        ::stepbox_guest::__macro::inventory::submit! {
            ::stepbox_guest::__macro::WantsDef {
                http: &[#(#http),*],
                secrets: &[#(#secrets),*],
                env: &[#(#env),*],
            }
        }
    })
}

const SHAPE: &str = "write `http \"GET,POST https://api.example.com\"`, `secret \"KEY\" for \"api.example.com\"` or \
                     `env \"REGION\"`";

impl Parse for Wants {
    fn parse(input: ParseStream<'_>) -> syn::Result<Self> {
        let mut wants = Wants::default();
        if input.is_empty() {
            return Err(syn::Error::new(Span::call_site(), format!("nothing is wanted: {SHAPE}")));
        }
        while !input.is_empty() {
            let kind: Ident = input.parse().map_err(|error| syn::Error::new(error.span(), SHAPE))?;
            match kind.to_string().as_str() {
                "http" => wants.http.push(text(input, http)?),
                "secret" => {
                    let name = text(input, secret_name)?;
                    input.parse::<Token![for]>().map_err(|error| {
                        syn::Error::new(
                            error.span(),
                            "say to which hosts: `secret \"KEY\" for \"api.example.com\"`",
                        )
                    })?;
                    wants.secrets.push(Secret { name, hosts: hosts(input)? });
                }
                "env" => wants.env.push(text(input, env_name)?),
                _ => return Err(syn::Error::new(kind.span(), SHAPE)),
            }
            if !input.is_empty() {
                input.parse::<Token![,]>()?;
            }
        }
        Ok(wants)
    }
}

/// One host, or some in brackets.
fn hosts(input: ParseStream<'_>) -> syn::Result<Vec<String>> {
    if !input.peek(token::Bracket) {
        return Ok(vec![text(input, host)?]);
    }
    let listed;
    let bracket = bracketed!(listed in input);
    let mut hosts = Vec::new();
    while !listed.is_empty() {
        hosts.push(text(&listed, host)?);
        if !listed.is_empty() {
            listed.parse::<Token![,]>()?;
        }
    }
    match hosts.is_empty() {
        true => Err(syn::Error::new(bracket.span.join(), "a secret is wanted for at least one host")),
        false => Ok(hosts),
    }
}

/// What `read` makes of a text.
fn text<T>(input: ParseStream<'_>, read: fn(&str) -> Result<T, String>) -> syn::Result<T> {
    let text: LitStr = input.parse().map_err(|error| syn::Error::new(error.span(), SHAPE))?;
    read(&text.value()).map_err(|why| syn::Error::new(text.span(), why))
}

/// `GET,POST https://api.example.com:8443`; any method without the first part.
fn http(text: &str) -> Result<Http, String> {
    let (methods, url) = match text.split_once(' ') {
        Some((methods, url)) => (methods.split(',').map(method).collect::<Result<_, _>>()?, url),
        None => (Vec::new(), text),
    };
    let (scheme, rest) = match url.split_once("://") {
        Some(("https", rest)) => ("https", rest),
        Some(("http", rest)) => ("http", rest),
        _ => return Err(format!("`{url}` begins neither with `https://` nor with `http://`")),
    };
    if let Some(at) = rest.find(['/', '?', '#', '@']) {
        return Err(format!(
            "`{}`: a rule is about scheme, host and port, not about what follows",
            &rest[at..]
        ));
    }
    // The colons of an address of version 6 stand in brackets.
    let (name, port) = match rest.rsplit_once(':') {
        Some((name, port)) if !port.ends_with(']') => (name, Some(port)),
        _ => (rest, None),
    };
    let port = port.map(|text| match text.parse::<u16>() {
        Ok(port) if port > 0 => Ok(port),
        _ => Err(format!("`{text}` is no port: it is from 1 to 65535")),
    });
    Ok(Http { scheme, host: host(name)?, port: port.transpose()?, methods })
}

fn method(text: &str) -> Result<String, String> {
    match (1..=METHOD_MAX).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_uppercase()) {
        true => Ok(text.to_owned()),
        false => {
            Err(format!("`{text}` is no method of HTTP: write `GET https://..` or `GET,POST https://..`"))
        }
    }
}

fn host(text: &str) -> Result<String, String> {
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    let name = bare.strip_prefix("*.").unwrap_or(bare);
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    };
    let is_name = name.len() <= 253 && name.split('.').all(is_label);
    match bare == "*" || is_name || bare.parse::<IpAddr>().is_ok() {
        true => Ok(bare.to_owned()),
        false => Err(format!(
            "`{text}` is no host: it is a name (`api.example.com`), an address, `*.` and a name, or `*`"
        )),
    }
}

fn secret_name(text: &str) -> Result<String, String> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    match (1..=NAME_MAX).contains(&text.len()) && text.bytes().all(allowed) {
        true => Ok(text.to_owned()),
        false => Err(format!("`{text}` is no name of a secret: it has 1 to 128 of A-Z a-z 0-9 . _ -")),
    }
}

fn env_name(text: &str) -> Result<String, String> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let begins_well = !text.starts_with(|first: char| first.is_ascii_digit());
    match (1..=NAME_MAX).contains(&text.len()) && begins_well && text.bytes().all(allowed) {
        true => Ok(text.to_owned()),
        false => Err(format!(
            "`{text}` is no name of a variable: it has 1 to 128 of A-Z a-z 0-9 _ and begins with no digit"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_is_methods_and_the_beginning_of_a_url() {
        let rule = |scheme, host: &str, port, methods: &[&str]| {
            let methods = methods.iter().map(|method| (*method).to_owned()).collect();
            Ok(Http { scheme, host: host.to_owned(), port, methods })
        };
        assert_eq!(http("https://api.example.com"), rule("https", "api.example.com", None, &[]));
        assert_eq!(http("GET,PUT http://*.a.com:8080"), rule("http", "*.a.com", Some(8080), &["GET", "PUT"]));
        assert_eq!(http("https://[fd00::1]:8443"), rule("https", "fd00::1", Some(8443), &[]));
        assert_eq!(http("https://[fd00::1]"), rule("https", "fd00::1", None, &[]));
        assert_eq!(http("https://*"), rule("https", "*", None, &[]));
        for wrong in [
            "",
            "api.example.com",
            "ftp://a.com",
            "https://",
            "https://a.com/",
            "https://a.com/v1",
            "https://u@a.com",
            "https://a.com:0",
            "https://a.com:65536",
            "https://a..com",
            "https://*a.com",
            "get https://a.com",
            "GET, PUT https://a.com",
            "GET  https://a.com",
            "GET,,PUT https://a.com",
            "https://a.com ",
        ] {
            assert!(http(wrong).is_err(), "{wrong:?}");
        }
    }
}

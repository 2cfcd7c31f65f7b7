//! Patterns, ranges, grants: what an admin writes, and what a module wants.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde_json::{Value, json};
use stepbox_domain::capability::{
    AddressRange, EnvName, Grants, HostPattern, HttpRule, Method, Scheme, SecretName, SecretWant, Wants,
};

use super::{dice::Dice, json as any_json, run::Run};

pub fn fuzz(run: &mut Run) {
    while let Some((number, mut dice)) = run.next() {
        let kind = dice.below(5);
        let texts = [pattern(&mut dice), pattern(&mut dice), host(&mut dice)];
        let value = grants(&mut dice);
        let input = format!("{kind} {texts:?} {value}");
        run.check(number, input.as_bytes(), || match kind {
            0 => names(&texts),
            1 => patterns(&texts),
            2 => ranges(&mut dice),
            3 => whole_grants(&value),
            _ => wanted(&mut dice, &value),
        });
    }
}

/// What is accepted is written as it is read.
fn names(texts: &[String]) -> Result<String, String> {
    let mut accepted = 0;
    for text in texts {
        let parsed = [
            HostPattern::parse(text)
                .map(|p| (p.to_string(), HostPattern::parse(p.as_str()).is_ok_and(|q| q == p))),
            SecretName::parse(text)
                .map(|p| (p.to_string(), SecretName::parse(p.as_str()).is_ok_and(|q| q == p))),
            EnvName::parse(text).map(|p| (p.to_string(), EnvName::parse(p.as_str()).is_ok_and(|q| q == p))),
            Method::parse(text).map(|p| (p.to_string(), Method::parse(p.as_str()).is_ok_and(|q| q == p))),
        ];
        for one in parsed {
            match one {
                Ok((_, true)) => accepted += 1,
                Ok((written, false)) => {
                    return Err(format!("{text:?} is written {written:?}, which is read as another"));
                }
                Err(error) if error.to_string().len() < 20 => return Err(format!("{text:?}: {error}")),
                Err(_) => {}
            }
        }
    }
    Ok(if accepted > 0 { "names: some accepted" } else { "names: refused" }.to_owned())
}

/// What covers another means every host that the other means.
fn patterns(texts: &[String; 3]) -> Result<String, String> {
    let [one, other, host] = texts;
    let (Ok(one), Ok(other)) = (HostPattern::parse(one), HostPattern::parse(other)) else {
        return Ok("patterns: refused".to_owned());
    };
    if !one.covers(&one) {
        return Err(format!("{one} does not cover itself"));
    }
    if one.covers(&other) && other.matches(host) && !one.matches(host) {
        return Err(format!("{one} covers {other}, which matches {host:?}, and does not match it"));
    }
    if !one.as_str().starts_with('*') && !one.matches(one.as_str()) {
        return Err(format!("{one} does not match itself"));
    }
    if one.covers(&other) && other.covers(&one) && one != other {
        return Err(format!("{one} and {other} cover each other"));
    }
    Ok("patterns: held".to_owned())
}

fn ranges(dice: &mut Dice) -> Result<String, String> {
    let address = address(dice);
    let text = match dice.below(4) {
        0 => address.to_string(),
        1 => format!("{address}/{}", dice.below(140)),
        2 => format!("{address}/{}", dice.text()),
        _ => dice.text(),
    };
    let Ok(range) = AddressRange::parse(&text) else { return Ok("ranges: refused".to_owned()) };
    if AddressRange::parse(&range.to_string()) != Ok(range) {
        return Err(format!("{text:?} is written {range}, which is read as another"));
    }
    let begins = text.split('/').next().unwrap_or_default();
    if begins == address.to_string() && !range.contains(address) {
        return Err(format!("{range} does not have {address}"));
    }
    Ok("ranges: held".to_owned())
}

fn whole_grants(value: &Value) -> Result<String, String> {
    let Ok(grants) = serde_json::from_value::<Grants>(value.clone()) else {
        return Ok("grants: refused".to_owned());
    };
    let written =
        serde_json::to_value(&grants).map_err(|error| format!("they cannot be written: {error}"))?;
    match serde_json::from_value::<Grants>(written) {
        Ok(read) if read == grants => Ok("grants: held".to_owned()),
        other => Err(format!("{grants:?} are read back as {other:?}")),
    }
}

/// Nothing is missing of what was granted as wanted, but for values that only an admin has.
fn wanted(dice: &mut Dice, value: &Value) -> Result<String, String> {
    let grants = serde_json::from_value::<Grants>(value.clone()).unwrap_or_default();
    let mut wants = Wants::default();
    for _ in 0..dice.below(4) {
        if let Ok(host) = HostPattern::parse(&pattern(dice)) {
            let methods =
                ["GET", "POST"].iter().filter(|_| dice.one_in(2)).flat_map(|text| Method::parse(text));
            let methods = methods.collect();
            let scheme = if dice.one_in(2) { Scheme::Http } else { Scheme::Https };
            let port = dice.one_in(2).then(|| dice.number() as u16);
            wants.http.push(HttpRule { scheme, host: host.clone(), port, methods });
            if let Ok(name) = SecretName::parse("KEY") {
                wants.secrets.push(SecretWant { name, hosts: vec![host] });
            }
        }
    }
    let missing = grants.missing(&wants);
    let words = missing.to_string();
    if missing.is_nothing() != words.is_empty() {
        return Err(format!("missing says {words:?}"));
    }
    let granted = grants.and_wanted(&wants);
    if !granted.missing(&wants).is_nothing() {
        return Err(format!("{granted:?} still lack {} of {wants:?}", granted.missing(&wants)));
    }
    for rule in &wants.http {
        let host = rule.host.as_str();
        let method = rule.methods.first().map_or("GET", Method::as_str);
        if !host.starts_with('*') && !granted.allow_request(rule.scheme, host, rule.port(), method) {
            return Err(format!("granted {rule} and refused"));
        }
    }
    Ok("wants: held".to_owned())
}

fn address(dice: &mut Dice) -> IpAddr {
    match dice.one_in(2) {
        true => IpAddr::V4(Ipv4Addr::from_bits(dice.number() as u32)),
        false => IpAddr::V6(Ipv6Addr::from_bits(u128::from(dice.number()) << 64 | u128::from(dice.number()))),
    }
}

fn host(dice: &mut Dice) -> String {
    let labels = ["a", "b", "example", "com", "EXAMPLE", "xn--bcher-kva", "1", "127", ""];
    let mut host = (0..=dice.below(4)).map(|_| dice.pick(&labels)).collect::<Vec<_>>().join(".");
    if dice.one_in(5) {
        host.push('.');
    }
    host
}

fn pattern(dice: &mut Dice) -> String {
    match dice.below(8) {
        0 => "*".to_owned(),
        1 | 2 => format!("*.{}", host(dice)),
        3 => format!("[{}]", address(dice)),
        4 => address(dice).to_string(),
        5 => dice.text(),
        _ => host(dice),
    }
}

fn grants(dice: &mut Dice) -> Value {
    let mut value = json!({
        "http": [{ "scheme": dice.pick(&["http", "https"]), "host": pattern(dice), "port": dice.below(70_000), "methods": ["GET"] }],
        "addresses": [address(dice).to_string(), format!("{}/{}", address(dice), dice.below(129))],
        "secrets": { "KEY": [pattern(dice)] },
        "env": { "LEVEL": dice.text() },
    });
    if dice.one_in(3) {
        any_json::mutate(dice, &mut value);
    }
    value
}

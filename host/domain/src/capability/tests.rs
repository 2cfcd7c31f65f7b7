use proptest::prelude::*;

use super::*;

fn host(text: &str) -> HostPattern {
    HostPattern::parse(text).unwrap()
}

fn rule(text: &str) -> HttpRule {
    serde_json::from_str(text).unwrap()
}

#[test]
fn a_host_pattern_means_a_name_those_below_it_or_any() {
    for (pattern, means, means_not) in [
        ("API.example.com", "api.EXAMPLE.com.", "b.api.example.com"),
        ("*.example.com", "a.b.example.com", "example.com"),
        ("*.example.com", "x.example.com", "badexample.com"),
        ("*", "anything.at.all", ""),
        ("127.0.0.1", "127.0.0.1", "127.0.0.2"),
        ("[::1]", "[::1]", "::2"),
    ] {
        assert!(host(pattern).matches(means), "{pattern} {means}");
        assert!(!host(pattern).matches(means_not), "{pattern} {means_not}");
    }
    for bad in ["", "https://a", "a:443", "a/b", "a..b", "*a.com", "a.*", "é.com", "a b"] {
        assert!(HostPattern::parse(bad).is_err(), "{bad:?}");
    }
}

#[test]
fn a_range_means_the_addresses_with_its_first_bits() {
    let is_in =
        |range: &str, address: &str| AddressRange::parse(range).unwrap().contains(address.parse().unwrap());
    assert!(is_in("10.0.0.0/8", "10.255.0.1") && !is_in("10.0.0.0/8", "11.0.0.0"));
    assert!(is_in("127.0.0.1", "127.0.0.1") && !is_in("127.0.0.1", "127.0.0.2"));
    assert!(is_in("0.0.0.0/0", "8.8.8.8") && !is_in("0.0.0.0/0", "::1"));
    assert!(is_in("fd00::/8", "fd12::1") && !is_in("fd00::/8", "fe80::1"));
    for bad in ["10.0.0.0/33", "10.0.0/8", "", "a", "::/129", "10.0.0.1/-1"] {
        assert!(AddressRange::parse(bad).is_err(), "{bad:?}");
    }
}

#[test]
fn what_is_wanted_and_not_granted_is_missing_to_the_method() {
    let wants = Wants {
        http: vec![
            rule(r#"{"host":"api.example.com","methods":["GET","POST"]}"#),
            rule(r#"{"host":"*.b.com"}"#),
            rule(r#"{"scheme":"http","host":"c.com","port":8080}"#),
        ],
        secrets: vec![SecretWant {
            name: SecretName::parse("key").unwrap(),
            hosts: vec![host("api.example.com"), host("d.com")],
        }],
        env: vec![EnvName::parse("REGION").unwrap()],
    };
    let grants = Grants {
        http: vec![
            rule(r#"{"host":"*.example.com","methods":["GET"]}"#),
            rule(r#"{"host":"x.b.com"}"#),
            rule(r#"{"host":"c.com","port":8080}"#),
        ],
        secrets: BTreeMap::from([(SecretName::parse("key").unwrap(), vec![host("d.com")])]),
        ..Grants::default()
    };
    assert_eq!(
        grants.missing(&wants).to_string(),
        "http POST https://api.example.com; http https://*.b.com; http http://c.com:8080; \
         secret key for api.example.com; env REGION"
    );
    let all = grants.and_wanted(&wants);
    assert_eq!(all.missing(&wants).to_string(), "env REGION");
    assert!(all.allow_request(Scheme::Https, "api.example.com", 443, "POST"));
    assert!(!all.allow_request(Scheme::Https, "api.example.com", 443, "DELETE"));
    assert!(!all.allow_request(Scheme::Http, "api.example.com", 80, "GET"));
}

#[test]
fn grants_are_read_strictly() {
    let grants = r#"{"http":[{"scheme":"https","host":"a.com","methods":["GET"]}],"addresses":["10.0.0.0/8"],"secrets":{"k":["a.com"]},"env":{"A":"1"}}"#;
    let parsed: Grants = serde_json::from_str(grants).unwrap();
    assert_eq!(serde_json::to_string(&parsed).unwrap(), grants);
    for bad in [r#"{"htpp":[]}"#, r#"{"http":[{"host":"a:1"}]}"#, r#"{"env":{"1A":""}}"#] {
        assert!(serde_json::from_str::<Grants>(bad).is_err(), "{bad}");
    }
}

#[test]
fn grants_are_kept_within_bounds_and_in_one_way() {
    let read = |text: &str| serde_json::from_str::<Grants>(text).unwrap().checked();
    let refused = |text: &str| read(text).unwrap_err().to_string();
    let same = read(r#"{"http":[{"host":"a.com","port":443},{"scheme":"http","host":"a.com","port":443}]}"#)
        .unwrap();
    assert_eq!((same.http[0].port, same.http[1].port), (None, Some(443)));
    assert_eq!(
        refused(r#"{"http":[{"host":"a.com"},{"host":"a.com","port":0}]}"#),
        "`/http/1/port`: it must be from 1 to 65535"
    );
    assert_eq!(
        refused(r#"{"env":{"A":"x\u0000"}}"#),
        "`/env/A`: the character NUL ends a variable and cannot be in it"
    );
    let long = |length: usize| format!(r#"{{"env":{{"A":"{}"}}}}"#, "x".repeat(length));
    assert!(read(&long(4_096)).is_ok());
    assert_eq!(refused(&long(4_097)), "`/env/A`: 4097 bytes are too many; at most 4096 are allowed");
    let hosts = vec![host("a.com"); 101];
    let secrets = BTreeMap::from([(SecretName::parse("k").unwrap(), hosts)]);
    let error = Grants { secrets, ..Grants::default() }.checked().unwrap_err();
    assert_eq!(error.to_string(), "`/secrets/k`: 101 entries are too many; at most 100 are allowed");
    let http = vec![rule(r#"{"host":"a.com"}"#); 101];
    assert_eq!(Grants { http, ..Grants::default() }.checked().unwrap_err().field, "/http");
}

const HOSTS: [&str; 8] = ["*", "*.com", "*.a.com", "*.b.a.com", "a.com", "x.a.com", "x.b.a.com", "10.0.0.1"];
const METHODS: [&str; 3] = ["GET", "POST", "PUT"];

fn any_rule() -> impl Strategy<Value = HttpRule> {
    let methods = prop::sample::subsequence(METHODS.to_vec(), 0..=3);
    let port = prop::sample::select(vec![None, Some(443), Some(80), Some(8080)]);
    (any::<bool>(), prop::sample::select(HOSTS.to_vec()), port, methods).prop_map(
        |(https, pattern, port, methods)| HttpRule {
            scheme: if https { Scheme::Https } else { Scheme::Http },
            host: host(pattern),
            port,
            methods: methods.into_iter().map(|method| Method::parse(method).unwrap()).collect(),
        },
    )
}

fn any_secrets() -> impl Strategy<Value = Vec<(SecretName, Vec<HostPattern>)>> {
    let hosts = prop::sample::subsequence(HOSTS.to_vec(), 1..=3);
    let secret = hosts.prop_map(|hosts| hosts.into_iter().map(host).collect());
    prop::collection::btree_map(prop::sample::select(vec!["k", "l"]), secret, 0..=2).prop_map(|secrets| {
        secrets.into_iter().map(|(name, hosts)| (SecretName::parse(name).unwrap(), hosts)).collect()
    })
}

fn any_env() -> impl Strategy<Value = Vec<EnvName>> {
    prop::sample::subsequence(vec!["A", "B", "C"], 0..=3)
        .prop_map(|names| names.into_iter().map(|name| EnvName::parse(name).unwrap()).collect())
}

prop_compose! {
    fn any_wants()(http in prop::collection::vec(any_rule(), 0..4), secrets in any_secrets(), env in any_env()) -> Wants {
        let secrets = secrets.into_iter().map(|(name, hosts)| SecretWant { name, hosts }).collect();
        Wants { http, secrets, env }
    }
}

prop_compose! {
    fn any_grants()(http in prop::collection::vec(any_rule(), 0..5), secrets in any_secrets(), env in any_env()) -> Grants {
        let env = env.into_iter().map(|name| (name, "value".to_owned())).collect();
        Grants { http, addresses: Vec::new(), secrets: secrets.into_iter().collect(), env }
    }
}

/// Hosts of each kind, and with each pattern one that it means and no narrower one does.
const ASKED: [&str; 8] =
    ["fresh.net", "fresh.com", "fresh.a.com", "fresh.b.a.com", "a.com", "x.a.com", "x.b.a.com", "10.0.0.1"];

/// What is asked for that `wants` is about and `grants` do not let pass.
fn denied(wants: &Wants, grants: &Grants) -> usize {
    let mut denied = wants.env.iter().filter(|name| !grants.env.contains_key(name)).count();
    for asked in ASKED {
        for scheme in [Scheme::Https, Scheme::Http] {
            for port in [443, 80, 8080] {
                // One that nobody names stands for all that are not named.
                for method in METHODS.into_iter().chain(["OTHER"]) {
                    let wanted = wants.http.iter().any(|rule| rule.allows(scheme, asked, port, method));
                    denied += usize::from(wanted && !grants.allow_request(scheme, asked, port, method));
                }
            }
        }
        for want in &wants.secrets {
            let wanted = want.hosts.iter().any(|pattern| pattern.matches(asked));
            denied += usize::from(wanted && !grants.allow_secret(&want.name, asked));
        }
    }
    denied
}

proptest! {
    /// And so a version that is activated is denied nothing that it said it wants, and one that
    /// waits would be denied something.
    #[test]
    fn nothing_is_missing_exactly_when_all_that_is_wanted_is_let_pass(wants in any_wants(), grants in any_grants()) {
        let missing = grants.missing(&wants);
        prop_assert_eq!(missing.is_nothing(), denied(&wants, &grants) == 0, "{}", missing);
    }

    #[test]
    fn granting_what_is_wanted_leaves_only_variables_and_takes_nothing_away(wants in any_wants(), grants in any_grants()) {
        let granted = grants.clone().and_wanted(&wants);
        let left = granted.missing(&wants);
        prop_assert!(left.http.is_empty() && left.secrets.is_empty());
        prop_assert_eq!(left.env, grants.missing(&wants).env);
        let before = Wants {
            http: grants.http.clone(),
            secrets: grants.secrets.iter().map(|(name, hosts)| SecretWant { name: name.clone(), hosts: hosts.clone() }).collect(),
            env: grants.env.keys().cloned().collect(),
        };
        prop_assert!(granted.missing(&before).is_nothing());
    }
}

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

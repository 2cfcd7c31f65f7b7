//! Which addresses may be connected to.

use proptest::prelude::*;

use super::*;
use crate::sandbox::egress::address::{check, special};

fn grants(addresses: &[&str]) -> Grants {
    serde_json::from_value(json!({ "addresses": addresses })).unwrap()
}

fn refused(address: &str, granted: &[&str]) -> Option<String> {
    check(address.parse().unwrap(), &grants(granted)).err()
}

#[test]
fn public_addresses_are_let_through() {
    for address in [
        "1.1.1.1",
        "8.8.8.8",
        "9.255.255.255",
        "11.0.0.0",
        "100.63.255.255",
        "100.128.0.0",
        "126.255.255.255",
        "128.0.0.1",
        "169.253.255.255",
        "169.255.0.0",
        "172.15.255.255",
        "172.32.0.0",
        "192.167.255.255",
        "192.169.0.0",
        "198.17.255.255",
        "198.20.0.0",
        "223.255.255.255",
        "2606:4700::1111",
        "2a00:1450::200e",
        "2400::1",
        "2001:4860:4860::8888",
        "2003::1",
    ] {
        assert_eq!(refused(address, &[]), None, "{address}");
    }
}

#[test]
fn every_other_address_is_refused_by_its_kind() {
    for (address, kind) in [
        ("0.0.0.0", "unspecified"),
        ("0.1.2.3", "unspecified"),
        ("10.0.0.1", "private"),
        ("10.255.255.255", "private"),
        ("100.64.0.1", "private"),
        ("100.100.100.200", "private"),
        ("127.0.0.1", "loopback"),
        ("127.255.255.254", "loopback"),
        ("168.63.129.16", "cloud metadata"),
        ("169.254.169.254", "cloud metadata"),
        ("172.16.0.1", "private"),
        ("172.31.255.255", "private"),
        ("192.0.0.192", "reserved"),
        ("192.0.2.1", "documentation"),
        ("192.88.99.1", "reserved"),
        ("192.168.1.1", "private"),
        ("198.18.0.1", "benchmarks"),
        ("198.19.255.255", "benchmarks"),
        ("198.51.100.7", "documentation"),
        ("203.0.113.7", "documentation"),
        ("224.0.0.1", "multicast"),
        ("239.255.255.250", "multicast"),
        ("240.0.0.1", "reserved"),
        ("255.255.255.255", "broadcast"),
        ("::", "unspecified"),
        ("::1", "loopback"),
        ("::127.0.0.1", "compatible"),
        ("::8.8.8.8", "compatible"),
        ("::ffff:127.0.0.1", "mapped"),
        ("::ffff:8.8.8.8", "mapped"),
        ("::ffff:0:127.0.0.1", "translated"),
        ("64:ff9b::10.0.0.1", "NAT64"),
        ("64:ff9b:1::7f00:1", "NAT64"),
        ("100::1", "discard"),
        ("2001::1", "Teredo"),
        ("2001:2::1", "benchmarks"),
        ("2001:10::1", "reserved"),
        ("2001:db8::1", "documentation"),
        ("2002:7f00:1::", "6to4"),
        ("3fff::1", "documentation"),
        ("4000::1", "reserved"),
        ("fc00::1", "private"),
        ("fd00:ec2::254", "private"),
        ("fe80::1", "link-local"),
        ("fec0::1", "private"),
        ("ff02::1", "multicast"),
    ] {
        let what = refused(address, &[]).unwrap_or_else(|| panic!("{address} is let through"));
        assert!(what.contains(kind), "{address}: {what}");
    }
}

#[test]
fn a_granted_address_is_let_through_but_not_to_where_none_is_granted() {
    assert_eq!(refused("10.1.2.3", &["10.0.0.0/8"]), None);
    assert_eq!(refused("127.0.0.1", &["127.0.0.1"]), None);
    assert!(refused("127.0.0.2", &["127.0.0.1"]).is_some());
    // The other way of writing it is another address.
    assert!(refused("::ffff:127.0.0.1", &["127.0.0.1"]).is_some());

    for (outer, range, inner) in [
        ("::ffff:127.0.0.1", "::ffff:0:0/96", "127.0.0.1"),
        ("::10.0.0.1", "::/96", "10.0.0.1"),
        ("64:ff9b::169.254.169.254", "64:ff9b::/96", "169.254.169.254"),
        ("64:ff9b:1::10.0.0.1", "64:ff9b:1::/48", "10.0.0.1"),
        // RFC 6052, 2.2: with a prefix of 48 and of 64 bits.
        ("64:ff9b:1:a00:0:100::", "64:ff9b:1::/48", "10.0.0.1"),
        ("64:ff9b:1:0:a:0:100:0", "64:ff9b:1::/48", "10.0.0.1"),
        ("2002:a00:1::1", "2002::/16", "10.0.0.1"),
        // Teredo: its client's address with all bits turned over.
        ("2001:0:808:808::f5ff:fffe", "2001::/32", "10.0.0.1"),
        ("2001:0:a00:1::f7f7:f7f7", "2001::/32", "10.0.0.1"),
    ] {
        let what = refused(outer, &[range]).unwrap_or_else(|| panic!("{outer} is let through"));
        assert!(what.contains(&format!("leads to {inner}")), "{outer}: {what}");
        assert_eq!(refused(outer, &[range, inner]), None, "{outer}");
    }
    assert_eq!(refused("64:ff9b::8.8.8.8", &["64:ff9b::/96"]), None);
    assert_eq!(refused("64:ff9b:1::8.8.8.8", &["64:ff9b:1::/48"]), None);
    // ISATAP, below a public prefix.
    assert!(refused("2606:4700::5efe:10.0.0.1", &[]).is_some());
}

proptest! {
    #[test]
    fn no_ipv6_address_is_public_that_leads_to_an_ipv4_address_which_is_not(v4: u32, low: u64, high: u32) {
        let v4 = std::net::Ipv4Addr::from(v4);
        let bits = u128::from(u32::from(v4));
        for outer in [
            bits,
            (0xffff << 32) | bits,
            (0xffff << 48) | bits,
            (0x64_ff9b << 96) | bits,
            (0x64_ff9b_0001 << 80) | bits,
            (0x2002 << 112) | (bits << 80) | u128::from(low),
            (0x2001_0000 << 96) | (u128::from(high) << 64) | (!bits & 0xffff_ffff),
        ] {
            let outer = IpAddr::V6(std::net::Ipv6Addr::from(outer));
            prop_assert!(check(outer, &Grants::default()).is_err(), "{} in {}", v4, outer);
        }
    }

    #[test]
    fn what_is_public_agrees_with_the_standard_library_where_it_knows(v4: u32) {
        let address = std::net::Ipv4Addr::from(v4);
        let not_public = address.is_private() || address.is_loopback() || address.is_link_local()
            || address.is_broadcast() || address.is_documentation() || address.is_multicast()
            || address.is_unspecified();
        prop_assert!(!not_public || special(address.into()).is_some(), "{}", address);
    }

    #[test]
    fn only_global_unicast_is_public(v6: u128) {
        let address = std::net::Ipv6Addr::from(v6);
        let global = v6 >> 125 == 1;
        prop_assert!(global || special(address.into()).is_some(), "{}", address);
    }
}

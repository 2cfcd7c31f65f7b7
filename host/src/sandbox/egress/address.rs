//! Which addresses are of the public internet, and so may be reached without being granted.
//!
//! Pure. The tables follow IANA's registries of special-purpose addresses (RFC 6890 and what came
//! after), read strictly: what is neither plainly public nor known is refused.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use stepbox_domain::capability::Grants;

/// The first bits, how many of them count, and what lies there.
const SPECIAL_V4: [([u8; 4], u32, &str); 17] = [
    ([0, 0, 0, 0], 8, "unspecified (this network)"),
    ([10, 0, 0, 0], 8, "private"),
    ([100, 64, 0, 0], 10, "shared by a carrier (private)"),
    ([127, 0, 0, 0], 8, "loopback"),
    // 169.254.169.254 is where clouds tell a machine its credentials.
    ([169, 254, 0, 0], 16, "link-local (cloud metadata)"),
    ([172, 16, 0, 0], 12, "private"),
    ([192, 0, 0, 0], 24, "reserved"),
    ([192, 0, 2, 0], 24, "for documentation"),
    ([192, 88, 99, 0], 24, "reserved (6to4 relay)"),
    ([192, 168, 0, 0], 16, "private"),
    // Azure's metadata and DNS for machines in it, although it looks public.
    ([168, 63, 129, 16], 32, "of a cloud's platform (cloud metadata)"),
    ([198, 18, 0, 0], 15, "for benchmarks"),
    ([198, 51, 100, 0], 24, "for documentation"),
    ([203, 0, 113, 0], 24, "for documentation"),
    ([224, 0, 0, 0], 4, "multicast"),
    ([255, 255, 255, 255], 32, "broadcast"),
    ([240, 0, 0, 0], 4, "reserved"),
];

/// The same for IPv6. Whatever is not in 2000::/3 is refused by being outside of it; what has a
/// name here is told by it.
const SPECIAL_V6: [([u16; 8], u32, &str); 19] = [
    ([0, 0, 0, 0, 0, 0, 0, 0], 128, "unspecified"),
    ([0, 0, 0, 0, 0, 0, 0, 1], 128, "loopback"),
    ([0, 0, 0, 0, 0, 0, 0, 0], 96, "an IPv4 address in IPv6 (compatible)"),
    ([0, 0, 0, 0, 0, 0xffff, 0, 0], 96, "an IPv4 address in IPv6 (mapped)"),
    ([0, 0, 0, 0, 0xffff, 0, 0, 0], 96, "an IPv4 address in IPv6 (translated)"),
    ([0x64, 0xff9b, 0, 0, 0, 0, 0, 0], 96, "an IPv4 address in IPv6 (NAT64)"),
    ([0x64, 0xff9b, 1, 0, 0, 0, 0, 0], 48, "an IPv4 address in IPv6 (local NAT64)"),
    ([0x100, 0, 0, 0, 0, 0, 0, 0], 64, "thrown away (discard)"),
    ([0x2001, 0, 0, 0, 0, 0, 0, 0], 32, "an IPv4 address in IPv6 (Teredo)"),
    ([0x2001, 2, 0, 0, 0, 0, 0, 0], 48, "for benchmarks"),
    ([0x2001, 0, 0, 0, 0, 0, 0, 0], 23, "reserved"),
    ([0x2001, 0xdb8, 0, 0, 0, 0, 0, 0], 32, "for documentation"),
    ([0x2002, 0, 0, 0, 0, 0, 0, 0], 16, "an IPv4 address in IPv6 (6to4)"),
    ([0x3fff, 0, 0, 0, 0, 0, 0, 0], 20, "for documentation"),
    ([0x5f00, 0, 0, 0, 0, 0, 0, 0], 16, "reserved (segment routing)"),
    ([0xfc00, 0, 0, 0, 0, 0, 0, 0], 7, "unique-local (private)"),
    ([0xfe80, 0, 0, 0, 0, 0, 0, 0], 10, "link-local"),
    ([0xfec0, 0, 0, 0, 0, 0, 0, 0], 10, "site-local (private)"),
    ([0xff00, 0, 0, 0, 0, 0, 0, 0], 8, "multicast"),
];

/// What kind of address it is, if not one of the public internet.
pub(super) fn special(address: IpAddr) -> Option<&'static str> {
    match address {
        IpAddr::V4(v4) => {
            let number = u32::from(v4);
            let table =
                SPECIAL_V4.iter().map(|(first, bits, what)| (u32::from(Ipv4Addr::from(*first)), bits, what));
            table
                .into_iter()
                .find(|(first, bits, _)| (first ^ number) >> (32 - *bits) == 0)
                .map(|found| *found.2)
        }
        IpAddr::V6(v6) => {
            let number = u128::from(v6);
            let table =
                SPECIAL_V6.iter().map(|(first, bits, what)| (u128::from(Ipv6Addr::from(*first)), bits, what));
            let named = table.into_iter().find(|(first, bits, _)| (first ^ number) >> (128 - *bits) == 0);
            let is_global_unicast = number >> 125 == 0b001;
            named.map(|found| *found.2).or((!is_global_unicast).then_some("reserved"))
        }
    }
}

/// The IPv4 addresses that may be meant by an IPv6 one: where a gateway, a tunnel or the kernel
/// would send what is sent to it.
fn embedded(address: Ipv6Addr) -> Vec<Ipv4Addr> {
    let number = u128::from(address);
    // 32 bits, of which the lowest is so far from the end.
    let at = |shift: u32| Ipv4Addr::from((number >> shift) as u32);
    match address.segments() {
        [0, 0, 0, 0, 0, 0 | 0xffff, ..] | [0, 0, 0, 0, 0xffff, 0, ..] => vec![at(0)],
        [0x64, 0xff9b, 0, 0, 0, 0, ..] => vec![at(0)],
        // With a prefix of any length from 48 to 96 (RFC 6052): around bits 64 to 71, which are 0.
        [0x64, 0xff9b, 1, third, fourth, fifth, ..] => {
            let [high, low] = third.to_be_bytes();
            let [_, after] = fourth.to_be_bytes();
            let [next, more] = fifth.to_be_bytes();
            let readings =
                [Ipv4Addr::new(high, low, after, next), Ipv4Addr::new(low, after, next, more), at(24), at(0)];
            // One that begins with 0 is padding, read with the wrong prefix, unless all do.
            let mut meant = readings.to_vec();
            meant.retain(|reading| reading.octets()[0] != 0);
            if meant.is_empty() { vec![at(0)] } else { meant }
        }
        [0x2002, ..] => vec![at(80)],
        // The server's, and the client's with its bits turned over.
        [0x2001, 0, ..] => vec![at(64), Ipv4Addr::from(!(number as u32))],
        // ISATAP, below any prefix.
        [_, _, _, _, 0 | 0x200, 0x5efe, ..] => vec![at(0)],
        _ => Vec::new(),
    }
}

/// Whether a connection may be made to `address`. The error says what is wrong with it.
///
/// An address that stands for another is no better than that: granting NAT64's range does not let
/// anybody through it to 127.0.0.1.
pub(super) fn check(address: IpAddr, grants: &Grants) -> Result<(), String> {
    let refused = |address: IpAddr| match special(address) {
        Some(what) if !grants.allow_address(address) => Some(what),
        _ => None,
    };
    if let Some(what) = refused(address) {
        return Err(format!("{address}, which is {what}"));
    }
    let IpAddr::V6(v6) = address else { return Ok(()) };
    for inner in embedded(v6) {
        if let Some(what) = refused(inner.into()) {
            return Err(format!("{address}, which leads to {inner}, which is {what}"));
        }
    }
    Ok(())
}

//! Durations as text: `"30s"`.

use syn::LitStr;
use syn::parse::{Parse, ParseStream};

/// A duration above zero, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DurationMs(pub u64);

impl Parse for DurationMs {
    fn parse(input: ParseStream<'_>) -> syn::Result<Self> {
        if !input.peek(LitStr) {
            return Err(
                input.error("a duration is text such as \"500ms\", \"30s\", \"5m\", \"2h\" or \"7d\"")
            );
        }
        let text: LitStr = input.parse()?;
        match parse(&text.value()) {
            Ok(ms) => Ok(DurationMs(ms)),
            Err(message) => Err(syn::Error::new(text.span(), message)),
        }
    }
}

fn parse(text: &str) -> Result<u64, String> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let unit_ms = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => 0,
    };
    if number.is_empty() || unit_ms == 0 {
        return Err(format!(
            "`{text}` is not a duration: write a whole number and a unit (ms, s, m, h, d), such as \"30s\""
        ));
    }
    match number.parse::<u64>().ok().and_then(|number| number.checked_mul(unit_ms)) {
        Some(0) => Err("a duration of zero makes no sense here".to_owned()),
        Some(ms) => Ok(ms),
        None => Err(format!("`{text}` is too long")),
    }
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn a_duration_is_a_whole_number_and_a_unit() {
        assert_eq!(parse("500ms"), Ok(500));
        assert_eq!(parse("30s"), Ok(30_000));
        assert_eq!(parse("5m"), Ok(300_000));
        assert_eq!(parse("2h"), Ok(7_200_000));
        assert_eq!(parse("7d"), Ok(604_800_000));
        for wrong in ["", "s", "30", "30 s", "1.5s", "-1s", "30sec", "٣s"] {
            assert!(parse(wrong).unwrap_err().contains("is not a duration"), "{wrong}");
        }
        assert_eq!(parse("0s"), Err("a duration of zero makes no sense here".into()));
        assert_eq!(parse("99999999999999999d"), Err("`99999999999999999d` is too long".into()));
    }
}

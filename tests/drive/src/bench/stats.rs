//! Medians and the like.

use std::time::Instant;

pub fn median(figures: &mut [f64]) -> f64 {
    figures.sort_by(f64::total_cmp);
    percentile(figures, 50)
}

/// The given share of `figures`, which are sorted, is not larger.
pub fn percentile(figures: &[f64], percent: usize) -> f64 {
    figures
        .get((figures.len() * percent / 100).min(figures.len().saturating_sub(1)))
        .copied()
        .unwrap_or(f64::NAN)
}

pub fn ms_since(begin: Instant) -> f64 {
    begin.elapsed().as_secs_f64() * 1_000.0
}

pub fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

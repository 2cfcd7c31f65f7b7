//! How figures are told: a line each as text, all of them as JSON.

use std::path::Path;

use anyhow::Context as _;
use serde_json::{Value, json};

use super::Figure;

/// One line of the table.
pub struct Row {
    what: String,
    value: Option<f64>,
    unit: &'static str,
    beside: String,
    target: Option<(String, bool)>,
}

impl Row {
    /// `what` came to `value`.
    pub fn new(what: impl Into<String>, value: f64, unit: &'static str) -> Self {
        Row { what: what.into(), value: Some(value), unit, beside: String::new(), target: None }
    }

    pub(super) fn failed(why: String) -> Self {
        Row { what: "could not be taken".to_owned(), value: None, unit: "", beside: why, target: None }
    }

    /// What stands next to it: the floor, or whatever else helps to judge.
    pub fn beside(mut self, beside: impl Into<String>) -> Self {
        self.beside = beside.into();
        self
    }

    /// What it should come to, and whether it does.
    pub fn target(mut self, target: impl Into<String>, met: bool) -> Self {
        self.target = Some((target.into(), met));
        self
    }

    fn text(&self) -> String {
        let value = self.value.map_or_else(|| "-".to_owned(), |value| shown(value, self.unit));
        let mut line = format!("{:<54} {value:>16}   {}", self.what, self.beside);
        if let Some((target, met)) = &self.target {
            let separator = if self.beside.is_empty() { "" } else { "; " };
            let verdict = if *met { "met" } else { "NOT MET" };
            line.push_str(&format!("{separator}target {target}: {verdict}"));
        }
        line
    }

    fn json(&self, figure: &Figure) -> Value {
        json!({
            "figure": figure.name,
            "how": figure.how,
            "floor": figure.floor,
            "what": self.what,
            "value": self.value,
            "unit": self.unit,
            "beside": self.beside,
            "target": self.target.as_ref().map(|(target, _)| target),
            "met": self.target.as_ref().map(|(_, met)| met),
        })
    }
}

/// Three digits that count.
fn shown(value: f64, unit: &str) -> String {
    let decimals = match value.abs() {
        0.0 => 0,
        value if value < 10.0 => 2,
        value if value < 100.0 => 1,
        _ => 0,
    };
    format!("{value:.decimals$} {unit}")
}

/// The table as it grows.
#[derive(Default)]
pub struct Report {
    rows: Vec<Value>,
}

impl Report {
    /// Says how the figures that follow are measured.
    pub(super) fn begin(&self, figure: &Figure) {
        println!("\n{}: {}; beside: {}", figure.name, figure.how, figure.floor);
    }

    pub(super) fn row(&mut self, figure: &Figure, row: Row) {
        println!("  {}", row.text());
        self.rows.push(row.json(figure));
    }

    /// All rows so far, as a JSON array.
    pub fn write_json(&self, file: &Path) -> anyhow::Result<()> {
        let text = serde_json::to_string_pretty(&self.rows)?;
        std::fs::write(file, text).with_context(|| format!("writing {}", file.display()))
    }
}

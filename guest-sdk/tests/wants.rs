//! What a module wants stands in its manifest, as the host reads it.

use serde_json::json;
use stepbox_domain::Manifest;
use stepbox_guest::{TaskError, task, testing, wants};

wants! {
    http "GET,POST https://api.stripe.com",
    secret "STRIPE_KEY" for "api.stripe.com",
    env "REGION",
}

/// Another module of the crate wants more, and some of it again.
mod shipping {
    stepbox_guest::wants!(http "http://*.ship.example:8080", http "https://[fd00::1]:8443", env "REGION");
    stepbox_guest::wants!(secret "STRIPE_KEY" for ["files.stripe.com", "api.stripe.com"], env "FLEET");
}

#[task]
fn order() -> Result<(), TaskError> {
    Ok(())
}

#[test]
fn what_is_wanted_is_gathered_and_understood_by_the_host() {
    let manifest = testing::manifest();
    let expected = json!({
        "http": [
            { "scheme": "http", "host": "*.ship.example", "port": 8080 },
            { "scheme": "https", "host": "api.stripe.com", "methods": ["GET", "POST"] },
            { "scheme": "https", "host": "fd00::1", "port": 8443 },
        ],
        "secrets": [{ "name": "STRIPE_KEY", "hosts": ["api.stripe.com", "files.stripe.com"] }],
        "env": ["FLEET", "REGION"],
    });
    assert_eq!(manifest["capabilities"], expected);
    let wants = Manifest::parse(&manifest.to_string()).unwrap().wants;
    assert_eq!((wants.http.len(), wants.secrets.len(), wants.env.len()), (3, 1, 2));
    assert_eq!(wants.http[0].to_string(), "http://*.ship.example:8080");
}

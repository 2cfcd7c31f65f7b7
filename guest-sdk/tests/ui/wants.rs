use stepbox_guest::wants;

mod nothing {
    stepbox_guest::wants!();
}

wants!(https "https://api.example.com");

wants!(http = "https://api.example.com");

wants!(http "api.example.com");

wants!(http "get https://api.example.com");

wants!(http "https://api.example.com/v1/charges");

wants!(http "https://api.example.com:https");

wants!(http "https://*api.example.com");

wants!(secret "STRIPE_KEY");

wants!(secret "STRIPE KEY" for "api.stripe.com");

wants!(secret "STRIPE_KEY" for []);

wants!(secret "STRIPE_KEY" for ["https://api.stripe.com"]);

wants!(env "1ST");

wants!(env "REGION" env "FLEET");

fn main() {}

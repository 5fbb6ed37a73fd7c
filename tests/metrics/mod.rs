//! `/metrics`: who may read it and in which format, and that every count is exact.

mod exact;
mod load;
mod parts;
mod questions;
mod reload;
mod route;
mod scrape;

use testkit::larder::LarderOptions;
use testkit::upstream::{Behaviour, FakeUpstream, Response};

/// An origin where `/bad` fails, `/none` is absent, and everything else exists.
fn origin() -> FakeUpstream {
    FakeUpstream::start(Behaviour::answer(|request| {
        let path = request.path.as_str();
        if path.ends_with("/bad") {
            Response::text(500, "oh no")
        } else if path.ends_with("/none") {
            Response::text(404, "nothing here")
        } else {
            Response::json(200, &serde_json::json!({ "at": path }))
        }
    }))
}

/// Quotes of one upstream with a quota, and a person who is composed of two parts.
fn config(origin: &FakeUpstream) -> String {
    let at = origin.address();
    format!(
        "[resource.quote]
path = \"/quotes/{{symbol}}\"
params.symbol = {{ type = \"string\" }}
params.page = {{ type = \"integer\", default = 1 }}
source = {{ http = \"http://{at}/quote/{{symbol}}\", upstream = \"quotes\" }}
ttl = {{ memory = \"1h\", redis = \"1h\", absent = \"1h\" }}
tags = [\"quote:{{symbol}}\"]
[upstream.quotes]
quota = [\"1000/1h\", \"5000/1d\"]
[resource.name]
params.id = {{ type = \"string\", required = true }}
source = {{ http = \"http://{at}/name/{{id}}\", upstream = \"people\" }}
ttl = {{ memory = \"1h\", redis = \"1h\" }}
[resource.status]
path = \"/status/{{id}}\"
params.id = {{ type = \"string\", required = true }}
source = {{ http = \"http://{at}/status/{{id}}\", upstream = \"people\" }}
ttl = {{ memory = \"1h\", redis = \"1h\" }}
[resource.person]
path = \"/people/{{id}}\"
params.id = {{ type = \"string\", required = true }}
source = {{ parts = [\"name\", \"status\"] }}
"
    )
}

fn options(origin: &FakeUpstream) -> LarderOptions {
    LarderOptions::new(&config(origin))
}

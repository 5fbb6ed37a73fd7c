//! Serves a larder for `scripts/openapi`, on each database that the command line names, until
//! standard input ends. Prints a line for each: the database, its URL and an admin key without a
//! limit. Then prints `ready`.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::print_stdout,
    unreachable_pub
)]

// The tests use more of it.
#[allow(dead_code)]
#[path = "shop.rs"]
mod shop;

use std::io::Read;

use shop::Shop;
use testkit::larder::ADMIN_KEY;

fn main() {
    let start = |database: String| {
        let shop = match database.as_str() {
            "postgres" => Shop::on_postgres(),
            _ => Shop::on_sqlite(),
        };
        println!("{database} http://{} {ADMIN_KEY}", shop.larder.address());
        shop
    };
    let shops: Vec<Shop> = std::env::args().skip(1).map(start).collect();
    println!("ready");
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
    drop(shops);
}

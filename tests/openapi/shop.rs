//! A larder with a resource of each kind, on SQLite or Postgres. Used by the tests and by
//! `servers.rs`, the program behind `scripts/openapi`.

use std::sync::Arc;

use serde_json::json;
use tempfile::TempDir;

use testkit::larder::{Larder, LarderOptions};
use testkit::postgres::PostgresServer;
use testkit::redis::RedisServer;
use testkit::upstream::{Behaviour, FakeUpstream, Response};

pub const CONFIG: &str = include_str!("config.toml");
/// A secret of an upstream, which nobody may see.
pub const QUOTE_KEY: &str = "canary-quote-key-0123456789";

const ALL: &str = "id, code, name, kind, price, sold, note";

pub struct Shop {
    pub larder: Larder,
    pub options: LarderOptions,
    _postgres: Option<PostgresServer>,
    _redis: RedisServer,
    _origin: FakeUpstream,
}

impl Shop {
    pub fn on_sqlite() -> Shop {
        let folder = Arc::new(tempfile::tempdir().unwrap());
        let file = folder.path().join("larder.db");
        let connection = rusqlite::Connection::open(&file).unwrap();
        connection
            .execute_batch(include_str!("sqlite.sql"))
            .unwrap();
        let url = format!("sqlite://{}", file.display());
        Shop::start(&folder, &url, None)
    }

    pub fn on_postgres() -> Shop {
        let folder = Arc::new(tempfile::tempdir().unwrap());
        let postgres = PostgresServer::start();
        let url = postgres.new_database();
        let mut sql = postgres.connect(&url);
        sql.batch_execute(include_str!("postgres.sql")).unwrap();
        Shop::start(&folder, &url, Some(postgres))
    }

    fn start(folder: &Arc<TempDir>, url: &str, postgres: Option<PostgresServer>) -> Shop {
        let redis = RedisServer::start();
        let origin = FakeUpstream::start(Behaviour::answer(|request| {
            if request.path.ends_with("/NONE") || request.param("words").as_deref() == Some("NONE")
            {
                return Response::text(404, "none");
            }
            Response::json(200, &json!({"price": 1.5, "of": request.path}))
        }));
        let options = statements(LarderOptions::new(CONFIG))
            .in_folder(folder)
            .env("DATABASE_URL", url)
            .env("REDIS_URL", &redis.url())
            .env("ORIGIN", &origin.base_url())
            .env("QUOTE_KEY", QUOTE_KEY);
        Shop {
            larder: Larder::start(&options),
            options,
            _postgres: postgres,
            _redis: redis,
            _origin: origin,
        }
    }
}

fn statements(options: LarderOptions) -> LarderOptions {
    let product =
        format!("SELECT {ALL}, 'canary-in-the-sql' AS canary FROM products WHERE id = :id");
    let products = |kind: &str, sold: &str, code: &str| {
        format!(
            "SELECT {ALL} FROM products WHERE ({kind} IS NULL OR kind = {kind}) AND price >= :least
             AND ({sold} IS NULL OR sold = {sold}) AND ({code} IS NULL OR code = {code}) ORDER BY id LIMIT 50"
        )
    };
    let insert = format!(
        "INSERT INTO products (code, name, kind, price, sold)
         VALUES (:code, :name, :kind, :price, coalesce(:sold, FALSE)) RETURNING {ALL}"
    );
    let replace = format!(
        "UPDATE products SET code = :code, name = :name, kind = :kind, price = :price, sold = coalesce(:sold, sold)
         WHERE id = :id RETURNING {ALL}"
    );
    let change = format!(
        "UPDATE products SET name = coalesce(:name, name), note = :note WHERE id = :id RETURNING {ALL}"
    );
    options
        .statement("product", &product)
        .statement("products.sqlite", &products(":kind", ":sold", ":code"))
        .statement(
            "products.postgres",
            &products(":kind::kind", ":sold::bool", ":code::text"),
        )
        .statement("product_insert", &insert)
        .statement("product_replace", &replace)
        .statement("product_change", &change)
        .statement("product_delete", "DELETE FROM products WHERE id = :id")
        .statement("specimen", "SELECT * FROM specimens WHERE id = :id")
        .statement(
            "specimen_change.postgres",
            "UPDATE specimens SET more = :more, raw = :raw WHERE id = :id::uuid",
        )
        .statement(
            "specimen_change.sqlite",
            "UPDATE specimens SET a = :more, word = :raw WHERE id = :id",
        )
        .statement("specimens", "SELECT * FROM specimens")
        .statement("stock", "SELECT id, pieces FROM stock WHERE id = :id")
        .statement(
            "stock_set",
            "UPDATE stock SET pieces = :pieces WHERE id = :id",
        )
        .statement("visit", "INSERT INTO visits (page) VALUES (:page)")
}

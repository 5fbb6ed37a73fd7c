//! The database where only the whole crate shows what it does: between threads that may block and workers that may not.

use std::time::Duration;

use larder::database::{Database, DatabaseSettings};
use larder::secret::Secret;

use crate::support::postgres::PostgresServer;

#[test]
fn the_last_owner_may_be_an_async_worker() {
    let server = PostgresServer::start();
    // A pool of one: while a thread of the pool opened one more, that thread would be the last owner.
    let database = Database::open(&DatabaseSettings {
        url: Some(Secret::new(server.new_database())),
        pool: 1,
        archive: Duration::from_secs(60),
    })
    .unwrap();
    database.migrate().unwrap();
    database.ping().unwrap();
    actix_web::rt::System::new().block_on(async move { drop(database) });
}

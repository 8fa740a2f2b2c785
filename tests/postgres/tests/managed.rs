//! What an operator promises of a database: it is there again, with its data.

use pg_test::Managed;
use sqlx::{Connection as _, PgConnection, Row as _};
use std::{fs, net::TcpListener, os::unix::fs::PermissionsExt as _};

/// Such as a temporary directory of root's, which nobody else may enter.
#[tokio::test]
async fn its_data_outlives_it_and_a_closed_directory_does_not_stop_it() {
    if !pg_test::is_available() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o700)).unwrap();
    let (home, log) = (folder.path().join("postgres"), folder.path().join("postgres.log"));
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for run in 0..2_i64 {
        let server = Managed::start(&home, address, &log).unwrap();
        let mut connection = PgConnection::connect(&server.url()).await.unwrap();
        sqlx::raw_sql("CREATE TABLE IF NOT EXISTS kept (run BIGINT)")
            .execute(&mut connection)
            .await
            .unwrap();
        let kept = sqlx::query("SELECT COUNT(*) FROM kept").fetch_one(&mut connection).await;
        assert_eq!(kept.unwrap().get::<i64, _>(0), run);
        sqlx::query("INSERT INTO kept VALUES (1)").execute(&mut connection).await.unwrap();
        let wrong = server.url().replace("fly-user:", "fly-user:not-");
        assert!(PgConnection::connect(&wrong).await.is_err(), "the password counts");
    }
    assert!(TcpListener::bind(address).is_ok(), "it has let go of its address");
    let mode = fs::metadata(home.join("password")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

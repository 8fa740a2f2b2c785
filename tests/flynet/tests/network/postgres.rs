//! The external Postgres: whom it is attached to, and how long it lives.

use super::{ask, machine, spec, temporary, up};
use flynet::Postgres;
use std::net::{SocketAddr, TcpStream};

#[tokio::test]
async fn attached_apps_reach_a_postgres_that_lives_and_ends_with_the_network() {
    if !pg_test::is_available() {
        return;
    }
    let root = temporary();
    let mut spec = spec(root.path());
    let attached = vec!["router".to_owned()];
    spec.postgres = Some(Postgres { region: "iad".to_owned(), attached });
    let net = up(spec).await;
    let url = async |app: &str| {
        let env = ask(&machine(&net, app), "/env").await;
        env.split('\0').find_map(|line| line.strip_prefix("DATABASE_URL=").map(str::to_owned))
    };
    assert_eq!(url("echo-gateway").await, None);
    let url = url("echo-router").await.unwrap();
    assert!(url.starts_with("postgres://fly-user:") && url.ends_with("/fly-db"), "{url}");
    let address = url.split(['@', '/']).nth(3).unwrap().parse::<SocketAddr>().unwrap();
    assert!(TcpStream::connect(address).is_ok());
    drop(net);
    assert!(TcpStream::connect(address).is_err(), "it has ended with the network");
}

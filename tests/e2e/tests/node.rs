//! Node's clients, unchanged, against the whole mesh: gRPC and gRPC-Web with
//! generated stubs, and OpenAI's SDK.

use e2e::{Mesh, node};

#[tokio::test(flavor = "multi_thread")]
async fn nodes_grpc_grpc_web_and_openai_clients_work_unchanged() {
    let mesh = Mesh::start().await;
    tokio::task::spawn_blocking(move || node::run(&mesh, "clients.js")).await.unwrap();
}

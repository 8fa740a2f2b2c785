//! The DNS server of a network: hickory's wire, our answers.
//!
//! Invariants:
//! - Every query sees the machines as they are at that moment.
//! - Addresses come in a new order each time: Fly promises none.
//! - An answer too long for UDP is marked truncated and whole over TCP.

use crate::dns::{self, Answer, Snapshot, TTL, Type};
use hickory_server::{
    Server,
    net::runtime::Time,
    proto::{
        op::{Edns, Header, HeaderCounts, Metadata, ResponseCode},
        rr::{RData, Record, RecordType, rdata},
    },
    server::{Request, RequestHandler, ResponseHandler, ResponseInfo},
    zone_handler::MessageResponseBuilder,
};
use std::{
    future::Future,
    io,
    net::{IpAddr, TcpListener, UdpSocket},
    pin::Pin,
    sync::Arc,
    time::Duration,
};

const IDLE: Duration = Duration::from_secs(10);
const BUFFERED: usize = 16;

pub(crate) type Look = Arc<dyn Fn() -> Snapshot + Send + Sync>;

/// Serves until the returned value is dropped.
pub(crate) fn serve(
    tcp: TcpListener,
    udp: UdpSocket,
    region: String,
    look: Look,
) -> io::Result<Server<impl RequestHandler>> {
    tcp.set_nonblocking(true)?;
    udp.set_nonblocking(true)?;
    let mut server = Server::new(Private { look, region });
    server.register_socket(tokio::net::UdpSocket::from_std(udp)?);
    server.register_listener(tokio::net::TcpListener::from_std(tcp)?, IDLE, BUFFERED);
    Ok(server)
}

struct Private {
    look: Look,
    /// Where a question comes from when its address is no machine's.
    region: String,
}

impl Private {
    fn records(&self, request: &Request) -> (ResponseCode, Vec<Record>) {
        let Ok(info) = request.request_info() else { return (ResponseCode::FormErr, vec![]) };
        let snapshot = (self.look)();
        let asker = snapshot.machines.iter().find(|entry| mapped(info.src.ip()) == entry.address);
        let region = asker.map_or(self.region.as_str(), |entry| entry.region.as_str());
        let kind = match info.query.query_type() {
            RecordType::AAAA => Type::Aaaa,
            RecordType::TXT => Type::Txt,
            _ => Type::Other,
        };
        let name = info.query.name();
        let record = |data| Record::from_rdata(name.into(), TTL, data);
        match dns::answer(&snapshot, &name.to_string(), kind, region) {
            Answer::NxDomain => (ResponseCode::NXDomain, vec![]),
            Answer::NoData => (ResponseCode::NoError, vec![]),
            Answer::Text(strings) => {
                (ResponseCode::NoError, vec![record(RData::TXT(rdata::TXT::new(strings)))])
            }
            Answer::Addresses(mut addresses) => {
                fastrand::shuffle(&mut addresses);
                let records = addresses.into_iter().map(|a| record(RData::AAAA(rdata::AAAA(a))));
                (ResponseCode::NoError, records.collect())
            }
        }
    }
}

fn mapped(address: IpAddr) -> std::net::Ipv6Addr {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => address,
    }
}

impl RequestHandler for Private {
    // spelled as async-trait expands it, which is how hickory declares it
    fn handle_request<'me, 'request, 'all, R, T>(
        &'me self,
        request: &'request Request,
        mut response: R,
    ) -> Pin<Box<dyn Future<Output = ResponseInfo> + Send + 'all>>
    where
        R: ResponseHandler + 'all,
        T: Time + 'all,
        'me: 'all,
        'request: 'all,
        Self: 'all,
    {
        Box::pin(async move {
            let (code, records) = self.records(request);
            let mut metadata = Metadata::response_from_request(&request.metadata);
            metadata.response_code = code;
            metadata.authoritative = true;
            metadata.recursion_available = true;
            let mut edns = Edns::new();
            let mut builder = MessageResponseBuilder::from_message_request(request);
            if let Some(asked) = &request.edns {
                edns.set_max_payload(asked.max_payload().max(512));
                builder.edns(&edns);
            }
            let message = builder.build(metadata, records.iter(), [], [], []);
            match response.send_response(message).await {
                Ok(info) => info,
                Err(error) => {
                    tracing::debug!(%error, "answer a DNS query");
                    metadata.response_code = ResponseCode::ServFail;
                    ResponseInfo::from(Header { metadata, counts: HeaderCounts::default() })
                }
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dns::Entry;
    use hickory_resolver::{
        TokioResolver,
        config::{ConnectionConfig, NameServerConfig, ResolverConfig},
        net::runtime::TokioRuntimeProvider,
    };

    #[tokio::test]
    async fn a_long_answer_is_truncated_over_udp_and_whole_over_tcp() {
        let entry = |n: u16| Entry {
            app: "a-router".to_owned(),
            id: format!("{n:014x}"),
            region: "iad".to_owned(),
            group: "app".to_owned(),
            address: std::net::Ipv6Addr::new(0xfdaa, 0, 0, 0, 0, 0, 0, n),
            started: true,
            metadata: vec![],
        };
        let snapshot =
            Snapshot { apps: vec!["a-router".to_owned()], machines: (0..200).map(entry).collect() };
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = tcp.local_addr().unwrap();
        let udp = UdpSocket::bind(address).unwrap();
        let look = Arc::new(move || snapshot.clone());
        let _server = serve(tcp, udp, "iad".to_owned(), look).unwrap();

        let ask = async |connections: Vec<ConnectionConfig>| {
            let connections = connections.into_iter().map(|mut connection| {
                connection.port = address.port();
                connection
            });
            let server = NameServerConfig::new(address.ip(), true, connections.collect());
            let config = ResolverConfig::from_parts(None, vec![], vec![server]);
            let provider = TokioRuntimeProvider::default();
            let resolver = TokioResolver::builder_with_config(config, provider).build().unwrap();
            let hosts = resolver.ipv6_lookup("a-router.internal.").await.unwrap();
            let text = resolver.txt_lookup("vms.a-router.internal.").await.unwrap();
            (hosts.answers().len(), text.answers().len())
        };
        assert_eq!(ask(vec![ConnectionConfig::udp(), ConnectionConfig::tcp()]).await, (200, 1));
    }
}

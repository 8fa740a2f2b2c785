//! The DNS server of a region: hickory's wire, our answers.
//!
//! Invariants:
//! - Every query sees the machines as they are when it is answered.
//! - Addresses come in a new order each time: Fly promises none.
//! - An answer too long for UDP is marked truncated and whole over TCP.

use crate::{
    dns::{self, Answer, TTL, Type},
    fabric::Fabric,
    faults::Effect,
    view::View,
};
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
    net::{TcpListener, UdpSocket},
    pin::Pin,
    sync::Arc,
    time::Duration,
};

const IDLE: Duration = Duration::from_secs(10);
const BUFFERED: usize = 16;

/// Until dropped.
pub(crate) async fn serve(tcp: TcpListener, udp: UdpSocket, region: String, fabric: Arc<Fabric>) {
    let mut server = Server::new(Private { region, fabric });
    let registered = || {
        tcp.set_nonblocking(true)?;
        udp.set_nonblocking(true)?;
        server.register_socket(tokio::net::UdpSocket::from_std(udp)?);
        server.register_listener(tokio::net::TcpListener::from_std(tcp)?, IDLE, BUFFERED);
        io::Result::Ok(())
    };
    match registered() {
        Ok(()) => std::future::pending().await,
        Err(error) => tracing::error!(%error, "serve DNS"),
    }
}

struct Private {
    /// Whose machines ask here.
    region: String,
    fabric: Arc<Fabric>,
}

/// A question, in our words.
struct Question {
    name: String,
    kind: Type,
    region: String,
}

impl Private {
    fn question(&self, request: &Request) -> Option<Question> {
        let info = request.request_info().ok()?;
        let kind = match info.query.query_type() {
            RecordType::AAAA => Type::Aaaa,
            RecordType::TXT => Type::Txt,
            _ => Type::Other,
        };
        let machines = self.fabric.fleet.all();
        let asker = machines.iter().find(|machine| machine.address == info.src.ip());
        let region = asker.map_or(&self.region, |machine| &machine.region).clone();
        Some(Question { name: dns::normal(&info.query.name().to_string()), kind, region })
    }

    /// `None`: nothing is answered.
    fn answer(&self, question: &Question, effect: Option<Effect>) -> Option<Answered> {
        let snapshot = match effect {
            Some(Effect::Dropped) => return None,
            Some(Effect::ServFail) => return Some(Answered::ServFail),
            Some(Effect::Empty) => {
                return Some(Answered::Answer(match question.kind {
                    Type::Txt => Answer::Text(vec![String::new()]),
                    Type::Aaaa | Type::Other => Answer::NoData,
                }));
            }
            Some(Effect::Stale(then)) => then,
            None => Arc::new(self.fabric.snapshot()),
        };
        let from = View { region: &question.region, fabric: &self.fabric };
        Some(Answered::Answer(dns::answer(&snapshot, &question.name, question.kind, &from)))
    }
}

enum Answered {
    ServFail,
    Answer(Answer),
}

fn records(request: &Request, answered: Answered) -> (ResponseCode, Vec<Record>) {
    let Ok(info) = request.request_info() else { return (ResponseCode::FormErr, vec![]) };
    let record = |data| Record::from_rdata(info.query.name().into(), TTL, data);
    match answered {
        Answered::ServFail => (ResponseCode::ServFail, vec![]),
        Answered::Answer(Answer::NxDomain) => (ResponseCode::NXDomain, vec![]),
        Answered::Answer(Answer::NoData) => (ResponseCode::NoError, vec![]),
        Answered::Answer(Answer::Text(strings)) => {
            (ResponseCode::NoError, vec![record(RData::TXT(rdata::TXT::new(strings)))])
        }
        Answered::Answer(Answer::Addresses(mut addresses)) => {
            fastrand::shuffle(&mut addresses);
            let records = addresses.into_iter().map(|a| record(RData::AAAA(rdata::AAAA(a))));
            (ResponseCode::NoError, records.collect())
        }
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
            let mut metadata = Metadata::response_from_request(&request.metadata);
            let silence = |mut metadata: Metadata| {
                metadata.response_code = ResponseCode::ServFail;
                ResponseInfo::from(Header { metadata, counts: HeaderCounts::default() })
            };
            let (code, records) = match self.question(request) {
                None => (ResponseCode::FormErr, vec![]),
                Some(question) => {
                    let verdict =
                        self.fabric.faults.verdict(&dns::subject(&question.name), &question.region);
                    tokio::time::sleep(verdict.delay).await;
                    match self.answer(&question, verdict.effect) {
                        Some(answered) => records(request, answered),
                        None => return silence(metadata),
                    }
                }
            };
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
                    silence(metadata)
                }
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{fabric::Parts, subnet::Subnet};
    use hickory_resolver::{
        TokioResolver,
        config::{ConnectionConfig, NameServerConfig, ResolverConfig},
        net::runtime::TokioRuntimeProvider,
    };
    use std::net::SocketAddr;

    #[tokio::test]
    async fn a_long_answer_is_truncated_over_udp_and_whole_over_tcp() {
        let peers = (0..200).map(|n| format!("peer-{n:03}")).collect();
        let subnet = Subnet::claim(&[]).unwrap();
        let address: SocketAddr = subnet.block.dns().parse().unwrap();
        let fabric = Fabric::new(Parts { peers, ..Parts::default() }, subnet).unwrap();
        fabric.run(&tokio::runtime::Handle::current());

        let ask = async |connections: Vec<ConnectionConfig>| {
            let connections = connections.into_iter().map(|mut connection| {
                connection.port = address.port();
                connection
            });
            let server = NameServerConfig::new(address.ip(), true, connections.collect());
            let config = ResolverConfig::from_parts(None, vec![], vec![server]);
            let provider = TokioRuntimeProvider::default();
            let resolver = TokioResolver::builder_with_config(config, provider).build().unwrap();
            let text = resolver.txt_lookup("_peer.internal.").await.unwrap();
            match &text.answers()[0].data {
                RData::TXT(text) => text.txt_data.concat(),
                other => panic!("{other}"),
            }
        };
        let text = ask(vec![ConnectionConfig::udp(), ConnectionConfig::tcp()]).await;
        assert_eq!(text.split(|byte| *byte == b',').count(), 200);
    }
}

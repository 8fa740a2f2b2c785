//! `PeerService`: what a machine says about itself.
//!
//! `Hello` is the first call on every new connection. The callee signs the
//! caller's nonce together with its own identity, so that a 6PN address that
//! moved to somebody else never receives a prompt.

use crate::{
    call::Call,
    channel::Channel,
    config::Setting,
    error::{self, Kind},
    identity::Identity,
    keys::Keys,
    load::Load,
    machines::{Machines, Started},
    ready::Readiness,
};
use skein_proto::mesh::v1::{
    self, HelloRequest, HelloResponse, MachineStatus, StatusRequest, StatusResponse, WakeRequest,
    WakeResponse, peer_service_client::PeerServiceClient, peer_service_server::PeerService,
};
use std::{sync::Arc, time::Duration};
use tokio::time::Instant;
use tonic::{Request, Response, Status};

/// How long one peer may take to describe itself.
const ASK: Duration = Duration::from_secs(2);

/// What the callee signs: the nonce and who it claims to be.
pub fn hello_text(nonce: &[u8], callee: &v1::Identity) -> Vec<u8> {
    let v1::Identity { app, role, machine, region, release } = callee;
    let mut text = format!("skein hello\n{app}\n{role}\n{machine}\n{region}\n{release}\n");
    text.push_str(&hex::encode(nonce));
    text.into_bytes()
}

/// Fills in what only a service knows of itself.
pub type About = Arc<dyn Fn(&mut MachineStatus) + Send + Sync>;

/// This machine, as others may ask about it.
#[derive(Clone)]
pub struct Peer {
    pub identity: Identity,
    pub keys: Arc<Keys>,
    pub readiness: Readiness,
    pub settings: Arc<[Setting]>,
    pub load: Load,
    pub machines: Option<Machines>,
    pub since: Instant,
    /// The channels this process calls through.
    pub channels: Arc<dyn Fn() -> Vec<Channel> + Send + Sync>,
    pub about: Option<About>,
}

impl Peer {
    /// This machine; if `peers`, those it calls and those that they call.
    pub async fn mesh_status(&self, call: &Call, request: StatusRequest) -> Vec<MachineStatus> {
        self.gather(call, request, request.peers).await
    }

    /// `further`: whether the peers ask theirs. Apps call each other in both
    /// directions, so an answer over the wire never goes further than one step.
    async fn gather(
        &self,
        call: &Call,
        request: StatusRequest,
        further: bool,
    ) -> Vec<MachineStatus> {
        let mut machines = vec![self.own(request.settings)];
        if request.peers {
            for channel in (self.channels)() {
                let request = StatusRequest { peers: further, ..request };
                machines.extend(ask(&channel, call, request).await);
            }
        }
        let mut seen = std::collections::HashSet::new();
        machines.retain(|machine| {
            let id = machine.identity.clone().unwrap_or_default();
            seen.insert((id.app, id.machine, machine.error.clone()))
        });
        machines
    }

    /// What the health page says: whether this machine is ready, and why not.
    pub fn readyz(&self) -> (bool, serde_json::Value) {
        let (state, limits) = (self.readiness.state(), self.load.limits());
        let body = serde_json::json!({
            "ready": state.is_ready(), "waiting_for": state.waiting,
            "degraded": state.degraded, "draining": state.draining,
            "in_flight": self.load.in_flight(),
            "soft_limit": limits.soft, "hard_limit": limits.hard,
        });
        (state.is_ready(), body)
    }

    fn own(&self, settings: bool) -> MachineStatus {
        let state = self.readiness.state();
        let setting = |setting: &Setting| v1::Setting {
            name: setting.name.clone(),
            value: setting.value.clone(),
            origin: setting.origin.clone(),
        };
        let limits = self.load.limits();
        let uptime = self.since.elapsed().as_millis();
        let mut status = MachineStatus {
            identity: Some(self.identity.to_wire()),
            ready: state.is_ready(),
            not_ready: state.waiting,
            degraded: state.degraded,
            in_flight: self.load.in_flight(),
            soft_limit: limits.soft,
            hard_limit: limits.hard,
            uptime_ms: u64::try_from(uptime).unwrap_or(u64::MAX),
            settings: if settings {
                self.settings.iter().map(setting).collect()
            } else {
                Vec::new()
            },
            ..MachineStatus::default()
        };
        if let Some(about) = &self.about {
            about(&mut status);
        }
        status
    }
}

/// Every machine behind `channel`, each asked on its own connection.
async fn ask(channel: &Channel, call: &Call, request: StatusRequest) -> Vec<MachineStatus> {
    let machines = channel.machines_everywhere().await;
    if machines.is_empty() {
        let identity = v1::Identity { app: channel.app().to_owned(), ..v1::Identity::default() };
        let error = "no ready machine".to_owned();
        return vec![MachineStatus { identity: Some(identity), error, ..MachineStatus::default() }];
    }
    let mut all = Vec::new();
    for machine in machines {
        let (identity, rtt) = (machine.identity().clone(), machine.rtt());
        let mut client = PeerServiceClient::new(machine);
        match client.status(call.with_timeout(ASK).request(request)).await {
            Ok(answer) => {
                let mut machines = answer.into_inner().machines;
                if let Some(first) = machines.first_mut() {
                    first.rtt_us = u64::try_from(rtt.as_micros()).unwrap_or(u64::MAX);
                }
                all.append(&mut machines);
            }
            Err(status) => all.push(MachineStatus {
                identity: Some(identity),
                error: status.message().to_owned(),
                ..MachineStatus::default()
            }),
        }
    }
    all
}

#[tonic::async_trait]
impl PeerService for Peer {
    async fn hello(
        &self,
        request: Request<HelloRequest>,
    ) -> Result<Response<HelloResponse>, Status> {
        let nonce = request.into_inner().nonce;
        if !(16..=64).contains(&nonce.len()) {
            return Err(error::invalid("nonce", "must be 16 to 64 random bytes"));
        }
        let callee = self.identity.to_wire();
        let signature = self.keys.sign(&hello_text(&nonce, &callee)).to_vec();
        let callee = Some(callee);
        Ok(Response::new(HelloResponse { callee, signature: signature.into(), runtimes: 1 }))
    }

    /// One machine at most: who asks again gets the next one.
    async fn wake(&self, request: Request<WakeRequest>) -> Result<Response<WakeResponse>, Status> {
        let region = request.into_inner().region;
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if !(1..=32).contains(&region.len()) || !region.chars().all(plain) {
            return Err(error::invalid("region", "must be a region code, such as iad"));
        }
        let cannot = |message: String| {
            error::status(Kind::Unavailable, Some("NO_MACHINES_API"), None, message)
        };
        let Some(machines) = &self.machines else {
            return Err(cannot("this process is on no platform that could start a machine".into()));
        };
        match machines.start_one(&region).await {
            Ok(Started::One) => Ok(Response::new(WakeResponse { started: 1 })),
            Ok(Started::None | Started::TooSoon) => Ok(Response::new(WakeResponse { started: 0 })),
            Err(error) => Err(cannot(error.to_string())),
        }
    }

    async fn status(
        &self,
        request: Request<StatusRequest>,
    ) -> Result<Response<StatusResponse>, Status> {
        let call = Call::of(&request)?;
        let machines = self.gather(&call, request.into_inner(), false).await;
        Ok(Response::new(StatusResponse { machines }))
    }
}

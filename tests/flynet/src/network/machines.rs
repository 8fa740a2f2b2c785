//! What a test or a terminal does to machines, and sees of what happened to them.

use super::Flynet;
use crate::{
    control::Verb,
    deploy::Deploy,
    error::Error,
    events::{Event, Timeline, What},
    fleet,
};
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use tokio::time::Instant;

impl Flynet {
    /// Starts what is stopped; `target`: a machine id, an app, or a role.
    pub async fn start_machines(&self, target: &str) -> Result<Vec<String>, Error> {
        self.verb(target, Verb::Start).await
    }

    /// As Fly stops a machine: the kill signal, then SIGKILL after the kill timeout.
    pub async fn stop_machines(&self, target: &str) -> Result<Vec<String>, Error> {
        self.verb(target, Verb::Stop).await
    }

    /// SIGKILL at once; stays stopped.
    pub async fn kill_machines(&self, target: &str) -> Result<Vec<String>, Error> {
        self.verb(target, Verb::Kill).await
    }

    /// SIGSTOP: sockets stay open and nobody answers; Fly does not notice.
    pub async fn freeze(&self, target: &str) -> Result<Vec<String>, Error> {
        self.verb(target, Verb::Freeze).await
    }

    /// SIGCONT after [`Flynet::freeze`].
    pub async fn thaw(&self, target: &str) -> Result<Vec<String>, Error> {
        self.verb(target, Verb::Thaw).await
    }

    /// Out of DNS and held with its memory; a start resumes it.
    pub async fn suspend(&self, target: &str) -> Result<Vec<String>, Error> {
        self.verb(target, Verb::Suspend).await
    }

    /// As `fly deploy`, in place; `target`: an app, a role, or one machine.
    pub async fn deploy(&self, target: &str, change: Deploy) -> Result<Vec<String>, Error> {
        let (shared, target) = (Arc::clone(&self.shared), target.to_owned());
        self.on_thread(async move { shared.deploy(&target, change).await }).await
    }

    /// As `fly secrets set`: a deploy of new secrets.
    pub async fn set_secrets(
        &self,
        target: &str,
        secrets: BTreeMap<String, String>,
    ) -> Result<Vec<String>, Error> {
        self.deploy(target, Deploy { secrets, ..Deploy::default() }).await
    }

    /// What has happened to the machines so far.
    pub fn events(&self) -> Vec<Event> {
        self.shared.events.all()
    }

    /// Waits until something has happened to a machine, an app or a role, not before
    /// `since`.
    pub async fn happened(
        &self,
        target: &str,
        since: Instant,
        patience: Duration,
        of: impl Fn(&What) -> bool + Send + Sync + 'static,
    ) -> Result<Event, Error> {
        let (events, target) = (Arc::clone(&self.shared.events), target.to_owned());
        self.on_thread(async move {
            let meant = |e: &Event| e.machine == target || fleet::is_app(&e.app, &target);
            let until = events.until(|event| event.at >= since && meant(event) && of(&event.what));
            let seconds = patience.as_secs_f32();
            let found = tokio::time::timeout(patience, until).await;
            found.map_err(|_| Error::NotHappened { target: target.clone(), seconds })
        })
        .await
    }

    /// As `POST …/metadata/KEY` of the Machines API; `None` deletes it.
    pub fn set_metadata(&self, id: &str, key: &str, value: Option<&str>) -> Result<(), Error> {
        for machine in self.shared.fleet.find(id)? {
            machine.metadata.send_modify(|all| match value {
                Some(value) => drop(all.insert(key.to_owned(), value.to_owned())),
                None => drop(all.remove(key)),
            });
        }
        Ok(())
    }

    /// How many machines ran, and when that changed; prints as a table.
    pub fn machines_over_time(&self) -> Timeline {
        Timeline::of(&self.shared.events.timed())
    }

    /// As `fly scale count`: makes or destroys machines of an app in a region until
    /// there are `count`; the ids of those made or destroyed.
    pub async fn scale(
        &self,
        target: &str,
        region: &str,
        count: usize,
    ) -> Result<Vec<String>, Error> {
        let shared = Arc::clone(&self.shared);
        let (target, region) = (target.to_owned(), region.to_owned());
        self.on_thread(async move { shared.scale(&target, &region, count).await }).await
    }

    async fn verb(&self, target: &str, verb: Verb) -> Result<Vec<String>, Error> {
        let shared = Arc::clone(&self.shared);
        let target = target.to_owned();
        self.on_thread(async move { shared.act(verb, &target).await }).await
    }
}

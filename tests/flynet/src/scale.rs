//! `fly scale count`: more or fewer machines of an app in a region.
//!
//! Invariants:
//! - New machines run what was last deployed; their ids are new.
//! - More than the network has addresses for is refused before any is made.
//! - The last made go first. A destroyed machine leaves every list before it is
//!   told to go; its volume is kept and belongs to nobody.

use crate::{
    api,
    error::Error,
    events::What,
    lifecycle,
    machine::{Machine, Order},
    network::Shared,
    subnet::Block,
};
use std::{fs, sync::Arc};

impl Shared {
    /// The ids of the machines made or destroyed.
    pub(crate) async fn scale(
        self: &Arc<Self>,
        target: &str,
        region: &str,
        count: usize,
    ) -> Result<Vec<String>, Error> {
        let name = self.maker().app(target)?.name.clone();
        let _one = self.one_change(&name)?.lock().await;
        let app = self.maker().app(&name)?.clone();
        let mut there = self.fleet.of(&app.name);
        there.retain(|machine| machine.region == region);
        there.sort_by_key(|machine| machine.number);
        self.room_for(count.saturating_sub(there.len()))?;
        let surplus = there.split_off(count.min(there.len()));
        let mut changed: Vec<_> = surplus.iter().map(|machine| machine.id.clone()).collect();
        let gone = surplus.iter().map(|machine| self.destroy(machine));
        futures_util::future::try_join_all(gone).await?;
        for _ in there.len()..count {
            let machine = {
                let mut maker = self.maker();
                let machine = maker.machine(&app, region, &self.fleet.all())?;
                maker.layout.save()?;
                Arc::new(machine)
            };
            api::serve(&machine, Arc::downgrade(self))?;
            self.fleet.add(Arc::clone(&machine));
            lifecycle::start(&machine).await;
            changed.push(machine.id.clone());
        }
        Ok(changed)
    }

    /// All of them, or none is made.
    fn room_for(&self, more: usize) -> Result<(), Error> {
        let wanted = self.fleet.all().len().saturating_add(more);
        if wanted > Block::MACHINES { Err(Error::TooMany(wanted)) } else { Ok(()) }
    }

    async fn destroy(&self, machine: &Arc<Machine>) -> Result<(), Error> {
        self.fleet.remove(&machine.id);
        lifecycle::stop(machine, Order::Stop).await;
        machine.note(What::Destroyed);
        machine.gone.cancel();
        let mut maker = self.maker();
        maker.layout.forget(&machine.app, &machine.region, machine.number);
        maker.layout.save()?;
        fs::remove_dir_all(&machine.directory).or_else(|error| match error.kind() {
            std::io::ErrorKind::NotFound => Ok(()), // it has never been started
            _ => Err(Error::io("remove", &machine.directory)(error)),
        })
    }
}

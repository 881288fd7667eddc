//! A dataserver that has joined: its heartbeats, and what it finds damaged by itself.

use std::rc::Rc;

use blockyard_schema::nameserver_capnp::registration;
use blockyard_wire::ticket::now_unix_ms;
use blockyard_wire::types::{VolumeId, VolumeReport};
use blockyard_wire::{Problem, Result, convert};

use crate::core::Core;
use crate::reports;

/// Replicas of one report.
const REPORT_MAX: usize = 16_384;

/// A dataserver's registration; dropped with its connection.
pub struct Registration {
    core: Rc<Core>,
    address: String,
    number: u64,
}

impl Registration {
    /// The registration of the server at `address`, on the connection `number`.
    pub fn new(core: Rc<Core>, address: String, number: u64) -> Self {
        Self {
            core,
            address,
            number,
        }
    }

    fn beat(&self, volumes: Vec<VolumeReport>) -> Result<()> {
        let core = &self.core;
        let indexed: Vec<_> = {
            let state = core.state.borrow();
            volumes
                .into_iter()
                .filter_map(|v| Some((state.blocks().index_of(v.id)?, v)))
                .collect()
        };
        let damaged = reports::news_of_damage(&core.state.borrow(), &indexed);
        if !core
            .health
            .borrow_mut()
            .heartbeat(self.number, indexed, core.now_ms())
        {
            return Err(Problem::retry(format!(
                "{} has joined anew on another connection",
                self.address
            )));
        }
        for (volume, replicas) in damaged {
            reports::judge(core.clone(), volume, replicas);
        }
        Ok(())
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.core.health.borrow_mut().gone(self.number);
        let mut controls = self.core.controls.borrow_mut();
        if controls
            .get(&self.address)
            .is_some_and(|control| control.registration == self.number)
        {
            controls.remove(&self.address);
            tracing::info!(server = self.address, "a dataserver's connection has ended");
        }
    }
}

impl registration::Server for Registration {
    async fn heartbeat(
        self: Rc<Self>,
        params: registration::HeartbeatParams,
        mut results: registration::HeartbeatResults,
    ) -> capnp::Result<()> {
        let volumes = convert::read_list(params.get()?.get_volumes()?, convert::read_volume_report)?;
        let host = convert::read_host_report(params.get()?.get_host()?);
        self.beat(volumes)?;
        self.core.health.borrow_mut().machine(self.number, host);
        results.get().set_now_unix_ms(now_unix_ms());
        Ok(())
    }

    async fn report_bad(
        self: Rc<Self>,
        params: registration::ReportBadParams,
        _: registration::ReportBadResults,
    ) -> capnp::Result<()> {
        let params = params.get()?;
        let volume = VolumeId(convert::read_id(params.get_volume()?));
        let replicas = convert::read_list(params.get_blocks()?, convert::read_replica)?;
        if replicas.len() > REPORT_MAX {
            return Err(Problem::invalid(format!("more than {REPORT_MAX} replicas in one report")).into());
        }
        let index = self.core.state.borrow().blocks().known(volume)?;
        let own = self
            .core
            .health
            .borrow()
            .server_of(index)
            .is_some_and(|(address, _)| address == self.address);
        if !own {
            return Err(Problem::invalid(format!("volume {volume} is not one of {}", self.address)).into());
        }
        reports::judge(self.core.clone(), index, replicas);
        Ok(())
    }
}

//! The gate: what a connection can do before it has a session or a registration.

use std::rc::Rc;

use blockyard_schema::nameserver_capnp::gate;
use blockyard_wire::frame::Role;
use blockyard_wire::types::ServerInfo;
use blockyard_wire::{Problem, ProblemKind, Result, convert};

use super::registration::Registration;
use super::session::Session;
use crate::adopt::outranked;
use crate::core::Core;
use crate::dataserver::Control;
use crate::health::Arrival;
use crate::path::{PATH_BYTES_MAX, attribute};
use crate::state::Command;
use crate::state::blocks::VolumeRow;

/// Volumes of one dataserver.
const VOLUMES_MAX: usize = 256;
/// Bytes of an address, a zone, a host name or a version.
const ATTRIBUTE_BYTES_MAX: usize = 255;

/// A connection's gate.
pub struct Gate {
    core: Rc<Core>,
    role: Role,
}

impl Gate {
    /// The gate of a connection that has said hello as `role`.
    pub fn new(core: Rc<Core>, role: Role) -> Self {
        Self { core, role }
    }

    /// Takes a dataserver in: its volumes durably, then its connection.
    async fn join(
        &self,
        info: ServerInfo,
        client: blockyard_schema::dataserver_capnp::dataserver::Client,
    ) -> Result<Registration> {
        let core = &self.core;
        if self.role != Role::Dataserver {
            return Err(Problem::new(
                ProblemKind::Denied,
                "only a dataserver can join; a client logs in",
            ));
        }
        check(&info)?;
        if let Some(problem) = info
            .volumes
            .iter()
            .find_map(|volume| outranked(core.epoch(), volume))
        {
            core.stand_down(problem.clone());
            return Err(problem);
        }
        let rows: Vec<_> = info
            .volumes
            .iter()
            .map(|volume| VolumeRow {
                id: volume.id,
                incarnation: volume.incarnation,
                address: volume.address.clone(),
                directory: volume.directory.clone(),
                server: info.address.clone(),
                zone: info.zone.clone(),
                host: info.host.clone(),
                version: info.version.clone(),
            })
            .collect();
        let (known, news) = {
            let state = core.state.borrow();
            let index = |row: &VolumeRow| state.blocks().index_of(row.id);
            let known: Vec<_> = rows.iter().filter_map(index).collect();
            let is_news = |row: &VolumeRow| {
                index(row)
                    .and_then(|index| state.blocks().volume(index))
                    .is_none_or(|volume| volume.row != *row)
            };
            (
                known,
                rows.iter()
                    .filter(|row| is_news(row))
                    .cloned()
                    .collect::<Vec<_>>(),
            )
        };
        core.health
            .borrow()
            .may_join(&info.address, &known, core.now_ms())?;
        if !news.is_empty() {
            core.propose(Command::Join { volumes: news }).await?;
        }
        let volumes = {
            let state = core.state.borrow();
            let indexed = info
                .volumes
                .into_iter()
                .filter_map(|report| Some((state.blocks().index_of(report.id)?, report)));
            indexed.collect::<Vec<_>>()
        };
        let indices = volumes.iter().map(|(index, _)| *index).collect::<Vec<_>>();
        // Another may have come with these while the journal was written.
        core.health
            .borrow()
            .may_join(&info.address, &indices, core.now_ms())?;
        let number = core.next_registration();
        let control = Control::new(number, indices.iter().copied().collect(), client, core.epoch());
        let control = Rc::new(control);
        core.controls
            .borrow_mut()
            .insert(info.address.clone(), control.clone());
        tracing::info!(
            server = info.address,
            volumes = indices.len(),
            "a dataserver has joined"
        );
        let arrival = Arrival {
            address: info.address.clone(),
            zone: info.zone,
            host: info.host,
            version: info.version,
            volumes,
        };
        core.health.borrow_mut().join(arrival, number, core.now_ms());
        core.repair_wake.notify_one();
        core.delete_wake.notify_one();
        crate::reports::follow(core.clone(), control);
        Ok(Registration::new(core.clone(), info.address, number))
    }
}

fn check(info: &ServerInfo) -> Result<()> {
    let named = [
        ("address", &info.address),
        ("zone", &info.zone),
        ("host name", &info.host),
        ("version", &info.version),
    ];
    for (what, text) in named {
        attribute(what, text, ATTRIBUTE_BYTES_MAX)?;
    }
    if info.address.is_empty() {
        return Err(Problem::invalid(
            "a dataserver needs an address that it can be reached at",
        ));
    }
    if info.volumes.is_empty() || info.volumes.len() > VOLUMES_MAX {
        return Err(Problem::invalid(format!(
            "a dataserver has 1 to {VOLUMES_MAX} volumes, not {}",
            info.volumes.len()
        )));
    }
    for (at, volume) in info.volumes.iter().enumerate() {
        attribute("volume's address", &volume.address, ATTRIBUTE_BYTES_MAX)?;
        attribute("volume's folder", &volume.directory, PATH_BYTES_MAX)?;
        if volume.id.is_zero() {
            return Err(Problem::invalid("a volume without an id"));
        }
        if info.volumes[..at].iter().any(|other| other.id == volume.id) {
            return Err(Problem::new(
                ProblemKind::Exists,
                format!(
                    "volume {} is served twice by {}: a folder was copied",
                    volume.id, info.address
                ),
            ));
        }
    }
    Ok(())
}

impl gate::Server for Gate {
    async fn login(
        self: Rc<Self>,
        _: gate::LoginParams,
        mut results: gate::LoginResults,
    ) -> capnp::Result<()> {
        let mut results = results.get();
        convert::write_cluster_info(&self.core.info(), results.reborrow().init_cluster());
        results.set_session(capnp_rpc::new_client(Session::new(self.core.clone())));
        Ok(())
    }

    async fn join(
        self: Rc<Self>,
        params: gate::JoinParams,
        mut results: gate::JoinResults,
    ) -> capnp::Result<()> {
        let params = params.get()?;
        let info = convert::read_server_info(params.get_server()?)?;
        let registration = Gate::join(&self, info, params.get_control()?).await?;
        let mut results = results.get();
        convert::write_cluster_info(&self.core.info(), results.reborrow().init_cluster());
        results.set_registration(capnp_rpc::new_client(registration));
        Ok(())
    }
}

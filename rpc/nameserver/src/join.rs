//! Dataservers that come, beat, tell of damage, and go: below the service that carries it.

use std::rc::Rc;

use blockyard_wire::types::{Duty, HostReport, Replica, ServerInfo, VolumeId, VolumeReport};
use blockyard_wire::{Problem, ProblemKind, Result};

use crate::adopt::outranked;
use crate::core::Core;
use crate::dataserver::{Control, Remote};
use crate::health::Arrival;
use crate::path::{PATH_BYTES_MAX, attribute};
use crate::reports;
use crate::state::Command;
use crate::state::blocks::{VolumeIndex, VolumeRow};

/// Volumes of one dataserver.
const VOLUMES_MAX: usize = 256;
/// Bytes of an address, a zone, a host name or a version.
const ATTRIBUTE_BYTES_MAX: usize = 255;
/// Replicas of one report.
const REPORT_MAX: usize = 16_384;

/// A dataserver that has joined; dropped when its connection ends.
pub struct Registered {
    core: Rc<Core>,
    address: String,
    number: u64,
}

impl Core {
    /// Takes a dataserver in: its volumes durably, then its connection.
    ///
    /// # Errors
    /// `Invalid` for what can't be; `Exists` when another server that is alive has one of its volumes; those of
    /// the journal.
    pub async fn join(self: &Rc<Self>, mut info: ServerInfo, remote: Rc<dyn Remote>) -> Result<Registered> {
        let core = self;
        check(&info)?;
        if let Some(problem) = info
            .volumes
            .iter()
            .find_map(|volume| outranked(core.epoch(), volume))
        {
            core.stand_down(problem.clone());
            return Err(problem);
        }
        self.leave_removed_out(&mut info)?;
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
        for (index, report) in &volumes {
            self.notice_opening(*index, report).await?;
        }
        let indices = volumes.iter().map(|(index, _)| *index).collect::<Vec<_>>();
        // Another may have come with these while the journal was written.
        core.health
            .borrow()
            .may_join(&info.address, &indices, core.now_ms())?;
        let number = core.next_registration();
        let control = Control::new(number, indices.iter().copied().collect(), remote, core.epoch());
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
        core.comparing.borrow_mut().extend(&indices);
        core.health.borrow_mut().join(arrival, number, core.now_ms());
        // Before anything is written there: a volume that nobody has looked at counts for nothing.
        let change = core.survey();
        let follower = core.clone();
        tokio::task::spawn_local(async move { follower.follow(change).await });
        core.repair_wake.notify_one();
        core.delete_wake.notify_one();
        crate::reports::follow(core.clone(), control);
        Ok(Registered {
            core: core.clone(),
            address: info.address,
            number,
        })
    }
}

impl Core {
    /// Volumes that the operator has removed stay out, whoever has them.
    fn leave_removed_out(&self, info: &mut ServerInfo) -> Result<()> {
        let state = self.state.borrow();
        let is_removed = |report: &VolumeReport| {
            let index = state.blocks().index_of(report.id);
            let volume = index.and_then(|index| state.blocks().volume(index));
            volume.is_some_and(|volume| volume.duty == Duty::Removed)
        };
        let removed: Vec<_> = info
            .volumes
            .iter()
            .filter(|r| is_removed(r))
            .map(|r| r.id)
            .collect();
        for id in &removed {
            tracing::warn!(volume = %id, server = info.address, "a volume that was removed is left out");
        }
        info.volumes.retain(|report| !removed.contains(&report.id));
        match removed.first() {
            Some(id) if info.volumes.is_empty() => Err(Problem::invalid(format!(
                "volume {id} of {} was removed from this cluster: format its folder anew, or take it back with \
                 'blockyard volume resume {id}'",
                info.address
            ))),
            _ => Ok(()),
        }
    }

    /// A volume counts its openings: one that has counted fewer than are known is an old image of itself, or its folder
    /// was cloned. What it holds is no worse for that, blocks being immutable; but what is missing there, and that its
    /// other self may come back, is for the operator to know.
    async fn notice_opening(&self, index: VolumeIndex, report: &VolumeReport) -> Result<()> {
        let core = self;
        let known = core
            .state
            .borrow()
            .blocks()
            .volume(index)
            .map_or(0, |volume| volume.generation);
        if report.generation < known {
            let why = format!(
                "it was opened {} times, but {known} times are known: its folder was cloned, or restored from an old \
                 image",
                report.generation
            );
            tracing::warn!(volume = %report.id, why, "a volume is not what it was");
            core.suspicions.borrow_mut().insert(index, why);
            return Ok(());
        }
        if report.generation > known {
            core.suspicions.borrow_mut().remove(&index);
            core.propose(Command::Opened {
                volume: index,
                generation: report.generation,
            })
            .await?;
        }
        Ok(())
    }
}

impl Registered {
    /// A heartbeat; the nameserver's clock, milliseconds since 1970.
    ///
    /// # Errors
    /// `Retry` when the server has joined anew on another connection.
    pub fn beat(&self, volumes: Vec<VolumeReport>, host: HostReport) -> Result<u64> {
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
        core.health.borrow_mut().machine(self.number, host);
        Ok(core.now_unix_ms())
    }

    /// What a volume of the server can't vouch for.
    ///
    /// # Errors
    /// `Invalid` for too many, or another server's volume; `NotFound` for one that has never joined.
    pub fn report_bad(&self, volume: VolumeId, replicas: Vec<Replica>) -> Result<()> {
        if replicas.len() > REPORT_MAX {
            return Err(Problem::invalid(format!(
                "more than {REPORT_MAX} replicas in one report"
            )));
        }
        let index = self.core.state.borrow().blocks().known(volume)?;
        let own = self
            .core
            .health
            .borrow()
            .server_of(index)
            .is_some_and(|(address, _)| address == self.address);
        if !own {
            return Err(Problem::invalid(format!(
                "volume {volume} is not one of {}",
                self.address
            )));
        }
        reports::judge(self.core.clone(), index, replicas);
        Ok(())
    }
}

impl Drop for Registered {
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

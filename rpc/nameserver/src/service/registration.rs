//! A dataserver that has joined, as Cap'n Proto reaches it: heartbeats, and what it finds damaged by itself.

use std::rc::Rc;

use blockyard_schema::nameserver_capnp::registration;
use blockyard_wire::convert;
use blockyard_wire::types::VolumeId;

use crate::join::Registered;

/// A dataserver's registration; dropped with its connection.
pub struct Registration(pub Registered);

impl registration::Server for Registration {
    async fn heartbeat(
        self: Rc<Self>,
        params: registration::HeartbeatParams,
        mut results: registration::HeartbeatResults,
    ) -> capnp::Result<()> {
        let volumes = convert::read_list(params.get()?.get_volumes()?, convert::read_volume_report)?;
        let host = convert::read_host_report(params.get()?.get_host()?);
        results.get().set_now_unix_ms(self.0.beat(volumes, host)?);
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
        Ok(self.0.report_bad(volume, replicas)?)
    }
}

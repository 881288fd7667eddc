//! The gate: what a connection can do before it has a session or a registration.

use std::rc::Rc;

use blockyard_schema::nameserver_capnp::gate;
use blockyard_wire::frame::Role;
use blockyard_wire::types::ServerInfo;
use blockyard_wire::{Problem, ProblemKind, Result, convert};

use super::registration::Registration;
use super::session::Session;
use crate::core::Core;
use crate::dataserver::Wired;

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

    async fn join(
        &self,
        info: ServerInfo,
        client: blockyard_schema::dataserver_capnp::dataserver::Client,
    ) -> Result<Registration> {
        if self.role != Role::Dataserver {
            return Err(Problem::new(
                ProblemKind::Denied,
                "only a dataserver can join; a client logs in",
            ));
        }
        let registered = self.core.join(info, Rc::new(Wired(client))).await?;
        Ok(Registration(registered))
    }
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

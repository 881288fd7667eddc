//! The channels of a client, by address: opened when first needed, opened anew when lost.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;

use blockyard_wire::frame::Role;
use blockyard_wire::secret::ClusterSecret;
use blockyard_wire::types::ClusterId;
use blockyard_wire::{Problem, ProblemKind, control};
use tokio::time::{Instant, timeout};

use super::connection::Channel;
use super::{Cause, Trouble};
use crate::options::Options;

/// Addresses that are remembered; past that, those without a connection are forgotten.
const PLACES_MAX: usize = 1024;

/// All data connections.
pub struct Channels {
    secret: ClusterSecret,
    cluster: ClusterId,
    connect_timeout: Duration,
    /// As many as there are volumes in use: the nameserver names them.
    places: RefCell<HashMap<String, Rc<Place>>>,
}

/// Where a channel to one address is or will be.
#[derive(Default)]
struct Place {
    channel: RefCell<Option<Rc<Channel>>>,
    connecting: tokio::sync::Mutex<()>,
    /// The last failure to connect, and when: those that waited for that attempt need none of their own.
    failed: RefCell<Option<(Instant, Trouble)>>,
}

/// A channel for one stream.
pub struct Opened {
    pub channel: Rc<Channel>,
    /// It was there already: if it turns out to be lost, that says nothing of the volume now.
    pub reused: bool,
}

impl Channels {
    pub fn new(options: &Options, cluster: ClusterId) -> Self {
        Self {
            secret: options.secret.clone(),
            cluster,
            // There may be another volume; there is no other nameserver to turn to as quickly.
            connect_timeout: options.connect_timeout.min(options.silence),
            places: RefCell::default(),
        }
    }

    /// The channel to the volume that listens at `address`.
    ///
    /// # Errors
    /// `Lost` when it can't be reached, `Refused` when it won't have us.
    pub async fn get(&self, address: &str) -> Result<Opened, Trouble> {
        let (place, asked) = (self.place(address), Instant::now());
        if let Some(channel) = place.usable() {
            return Ok(Opened {
                channel,
                reused: true,
            });
        }
        let _only_one_connects = place.connecting.lock().await;
        if let Some(channel) = place.usable() {
            return Ok(Opened {
                channel,
                reused: false,
            });
        }
        if let Some((at, trouble)) = &*place.failed.borrow()
            && *at > asked
        {
            return Err(trouble.clone());
        }
        match self.connect(address).await {
            Ok(channel) => {
                place.channel.replace(Some(channel.clone()));
                Ok(Opened {
                    channel,
                    reused: false,
                })
            }
            Err(trouble) => {
                place.failed.replace(Some((Instant::now(), trouble.clone())));
                Err(trouble)
            }
        }
    }

    async fn connect(&self, address: &str) -> Result<Rc<Channel>, Trouble> {
        let opening = control::open_data(address, &self.secret, Role::Client, self.cluster);
        match timeout(self.connect_timeout, opening).await {
            Ok(Ok(connection)) => Ok(Channel::start(address, connection)),
            Ok(Err(problem)) => {
                let cause = match problem.kind {
                    ProblemKind::Retry => Cause::Lost,
                    _ => Cause::Refused,
                };
                Err(Trouble::of(cause, problem))
            }
            Err(_) => Err(Trouble::lost(Problem::retry(format!(
                "{address} did not answer within {:?}",
                self.connect_timeout
            )))),
        }
    }
}

impl Channels {
    /// Streams that are open to the volume at `address`.
    pub fn load(&self, address: &str) -> usize {
        let places = self.places.borrow();
        let channel = places.get(address).and_then(|place| place.usable());
        channel.map_or(0, |channel| channel.load())
    }

    fn place(&self, address: &str) -> Rc<Place> {
        let mut places = self.places.borrow_mut();
        if let Some(place) = places.get(address) {
            return place.clone();
        }
        if places.len() >= PLACES_MAX {
            // Volumes come back under other ports; whoever is connecting holds on to the place.
            places.retain(|_, place| Rc::strong_count(place) > 1 || place.usable().is_some());
        }
        places.entry(address.to_owned()).or_default().clone()
    }
}

impl Place {
    fn usable(&self) -> Option<Rc<Channel>> {
        self.channel.borrow().clone().filter(|channel| channel.is_open())
    }
}

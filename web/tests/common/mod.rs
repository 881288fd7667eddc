//! A page to ask: served on a cluster in memory, asked over real connections.
#![allow(dead_code, unused_imports, reason = "each test file uses its own part")]

mod cluster;
mod fake;
mod http;

use std::ops::Deref;
use std::rc::Rc;

use blockyard_web::{PageConfig, serve_backend};

pub use cluster::{Cluster, MIB, data};
pub use fake::{BLOCK_BYTES, Fake, volume};
pub use http::{Http, Reply, read_reply};

/// A page on a fake, served on a thread of its own until dropped.
pub struct Served {
    http: Http,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Served {
    /// Serves a fake that `fill` has filled.
    pub fn start(fill: impl FnOnce(&Fake) + Send + 'static) -> Self {
        Self::configured(|_| {}, fill)
    }

    /// The same, with a changed configuration.
    pub fn configured(
        change: impl FnOnce(&mut PageConfig),
        fill: impl FnOnce(&Fake) + Send + 'static,
    ) -> Self {
        let mut config = PageConfig::bind("127.0.0.1:0".parse().unwrap(), false).unwrap();
        change(&mut config);
        let address = config.address();
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            let local = tokio::task::LocalSet::new();
            local.block_on(&runtime, async move {
                let fake = Fake::default();
                fill(&fake);
                tokio::select! {
                    () = serve_backend(config, Rc::new(fake)) => {}
                    _ = stopped => {}
                }
            });
        });
        Self {
            http: Http { address },
            stop: Some(stop),
            thread: Some(thread),
        }
    }
}

impl Deref for Served {
    type Target = Http;

    fn deref(&self) -> &Http {
        &self.http
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

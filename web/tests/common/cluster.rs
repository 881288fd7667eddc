//! A real cluster in this process: a nameserver with its page and dataservers, all in a folder of their own.

use std::time::Duration;

use blockyard_web::PageConfig;
use tempfile::TempDir;

use super::Http;

pub const MIB: usize = 1 << 20;

/// A whole cluster. Fields stop in their order: the page's nameserver last.
pub struct Cluster {
    pub page: Http,
    pub dataservers: Vec<blockyard_dataserver::Handle>,
    nameserver: Option<blockyard_nameserver::Handle>,
    folder: TempDir,
}

impl Cluster {
    /// Starts one with so many dataservers, each with a volume and a zone of its own.
    pub fn start(servers: usize) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = blockyard_nameserver::Config {
            dir: folder.path().join("nameserver"),
            listen: "127.0.0.1:0".parse().unwrap(),
            // Its own secret: the page has to find it by itself.
            secret: None,
            secret_for_user: false,
            heartbeat_ms: 100,
            journal_file_bytes: 3 << 20,
            ..blockyard_nameserver::Config::default()
        };
        let page = PageConfig::bind("127.0.0.1:0".parse().unwrap(), false).unwrap();
        let http = Http {
            address: page.address(),
        };
        let serve = |view| -> blockyard_nameserver::Page { Box::pin(blockyard_web::serve(page, view)) };
        let nameserver = blockyard_nameserver::start(config, serve).unwrap();
        let dataservers = (0..servers).map(|at| {
            let volume = folder.path().join(format!("volume{at}"));
            std::fs::create_dir_all(&volume).unwrap();
            let mut config = blockyard_dataserver::Config::new(
                vec![volume],
                "127.0.0.1:0".parse().unwrap(),
                vec![nameserver.address().to_string()],
                nameserver.secret().clone(),
            );
            config.capacity_bytes = Some(256 * MIB as u64);
            config.zone = format!("zone{at}");
            blockyard_dataserver::start(config).unwrap()
        });
        let cluster = Self {
            page: http,
            dataservers: dataservers.collect(),
            nameserver: Some(nameserver),
            folder,
        };
        cluster.wait(|status| {
            let volumes = status["volumes"].as_object().unwrap();
            volumes
                .values()
                .filter(|volume| volume["state"] == "serving")
                .count()
                == servers
        });
        cluster
    }

    /// Waits until the status is as wanted.
    pub fn wait(&self, wanted: impl Fn(&serde_json::Value) -> bool) -> serde_json::Value {
        loop {
            let status = self.page.get("/api/v1/status").json();
            if wanted(&status) {
                return status;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// Bytes that repeat nowhere.
pub fn data(length: usize) -> Vec<u8> {
    (0..length as u64)
        .map(|at| (at.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8)
        .collect()
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for dataserver in self.dataservers.drain(..) {
            dataserver.stop();
        }
        // A clean stop with the page being served is part of what is tested.
        self.nameserver.take().unwrap().stop().unwrap();
        assert!(self.folder.path().join("nameserver").exists());
    }
}

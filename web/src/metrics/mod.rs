//! `/metrics`: the table in the OpenMetrics text format, for Prometheus and whoever reads it.

pub(crate) mod boards;
pub(crate) mod table;

use std::borrow::Cow;
use std::fmt;

use blockyard_wire::types::{ClusterStatus, VolumeReport};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::{Registry, Unit};

use table::{Kind, METRICS, Metric, Source};

/// The MIME type of the text.
pub(crate) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Whose metrics they are.
#[derive(Clone, Debug)]
enum Seen {
    Nameserver(Box<ClusterStatus>),
    Dataserver(Vec<VolumeReport>),
}

impl Seen {
    fn role(&self) -> &'static str {
        match self {
            Self::Nameserver(_) => "nameserver",
            Self::Dataserver(_) => "dataserver",
        }
    }
}

/// What a nameserver knows.
pub(crate) fn of_nameserver(status: ClusterStatus) -> String {
    told(Seen::Nameserver(Box::new(status)))
}

/// What a dataserver knows of its own volumes.
pub(crate) fn of_dataserver(volumes: Vec<VolumeReport>) -> String {
    told(Seen::Dataserver(volumes))
}

fn told(seen: Seen) -> String {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(seen));
    let mut told = String::new();
    text::encode(&mut told, &registry).expect("a string takes all that is written to it");
    told
}

/// A label and its value.
type Label<'a> = (&'static str, Cow<'a, str>);

impl Seen {
    /// The values of a metric with their labels; none where nothing is known.
    fn values<'a>(&'a self, metric: &Metric) -> Vec<(Vec<Label<'a>>, f64)> {
        let mut values = Vec::new();
        let mut take = |of: &[Label<'a>], own: &'static str, value: f64| {
            let own = (!metric.label.is_empty()).then_some((metric.label, Cow::Borrowed(own)));
            values.push((of.iter().cloned().chain(own).collect(), value));
        };
        match (self, metric.source) {
            (Self::Nameserver(status), Source::Cluster(read)) => {
                read(status, &mut |own, value| take(&[], own, value))
            }
            (Self::Nameserver(status), Source::Server(read)) => {
                for server in &status.servers {
                    let of = [
                        ("server", server.address.as_str().into()),
                        ("zone", server.zone.as_str().into()),
                    ];
                    read(server, &mut |own, value| take(&of, own, value));
                }
            }
            (Self::Nameserver(status), Source::Volume(read)) => {
                for server in &status.servers {
                    for volume in &server.volumes {
                        let of = [
                            ("server", server.address.as_str().into()),
                            ("volume", volume.report.id.to_string().into()),
                        ];
                        read(&volume.report, &mut |own, value| take(&of, own, value));
                    }
                }
            }
            (Self::Dataserver(volumes), Source::Volume(read)) => {
                for volume in volumes {
                    let of = [("volume", volume.id.to_string().into())];
                    read(volume, &mut |own, value| take(&of, own, value));
                }
            }
            (Self::Dataserver(_), Source::Cluster(_) | Source::Server(_)) => {}
        }
        values
    }
}

impl Metric {
    /// As queries name it.
    pub(crate) fn name(&self, role: &str) -> String {
        let mut name = format!("blockyard_{role}_{}", self.thing);
        let total = (self.kind == Kind::Counter).then_some("total");
        for part in self.unit.word().into_iter().chain(total) {
            name += "_";
            name += part;
        }
        name
    }

    fn put(&self, family: &mut MetricEncoder<'_>, labels: &[Label<'_>], value: f64) -> fmt::Result {
        if labels.is_empty() {
            return self.put_value(family, value);
        }
        let mut family = family.encode_family(&labels)?;
        self.put_value(&mut family, value)
    }

    fn put_value(&self, encoder: &mut MetricEncoder<'_>, value: f64) -> fmt::Result {
        match self.kind {
            Kind::Gauge => encoder.encode_gauge(&value),
            Kind::Counter => encoder.encode_counter::<NoLabelSet, f64, f64>(&value, None),
        }
    }
}

impl Collector for Seen {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        for metric in METRICS {
            let unit = metric.unit.word().map(|word| Unit::Other(word.to_owned()));
            let kind = match metric.kind {
                Kind::Gauge => MetricType::Gauge,
                Kind::Counter => MetricType::Counter,
            };
            let values = self.values(metric);
            if values.is_empty() {
                continue;
            }
            let name = format!("blockyard_{}_{}", self.role(), metric.thing);
            let mut family = encoder.encode_descriptor(&name, metric.help, unit.as_ref(), kind)?;
            for (labels, value) in &values {
                metric.put(&mut family, labels, *value)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use blockyard_wire::types::{HostReport, LatencyReport, ServerStatus, VolumeStatus};

    use super::*;

    fn status() -> ClusterStatus {
        let report = VolumeReport {
            write_bytes: 7,
            read: LatencyReport {
                count: 3,
                p50_us: 250,
                p99_us: 1_000,
            },
            ..VolumeReport::default()
        };
        ClusterStatus {
            files: 3,
            servers: vec![ServerStatus {
                address: "10.0.0.1:9001".into(),
                zone: "a\"\n".into(),
                host_report: HostReport {
                    cores: Some(2),
                    ..HostReport::default()
                },
                volumes: vec![VolumeStatus {
                    report,
                    ..VolumeStatus::default()
                }],
                ..ServerStatus::default()
            }],
            ..ClusterStatus::default()
        }
    }

    #[test]
    fn names_follow_one_form_and_none_comes_twice() {
        let mut names = BTreeSet::new();
        for metric in METRICS {
            for role in ["nameserver", "dataserver"] {
                let name = metric.name(role);
                let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
                assert!(
                    name.starts_with("blockyard_") && name.chars().all(plain),
                    "{name}"
                );
                assert_eq!(name.ends_with("_total"), metric.kind == Kind::Counter, "{name}");
                assert!(
                    metric.help.ends_with('.') && !metric.help.contains('\n'),
                    "{name}"
                );
                assert!(names.insert(name), "{} comes twice", metric.thing);
            }
        }
    }

    #[test]
    fn values_stand_beside_their_labels() {
        let told = of_nameserver(status());
        for line in [
            "# TYPE blockyard_nameserver_files gauge",
            "blockyard_nameserver_files 3.0",
            "blockyard_nameserver_dataservers{state=\"alive\"} 1.0",
            "# UNIT blockyard_nameserver_volume_written_bytes bytes",
            "blockyard_nameserver_volume_written_bytes_total{server=\"10.0.0.1:9001\",volume=\"00000000000000000000000000000000\"} 7.0",
            "blockyard_nameserver_server_silence_seconds{server=\"10.0.0.1:9001\",zone=\"a\\\"\\n\"} 0.0",
        ] {
            assert!(told.lines().any(|told| told == line), "{line} is not in\n{told}");
        }
        assert!(told.contains("quantile=\"0.99\"} 0.001"), "{told}");
        assert!(told.ends_with("# EOF\n"), "{told}");
        assert!(!told.contains("cpu_busy"), "what is not measured is not told");
        let told = of_dataserver(vec![VolumeReport::default()]);
        assert!(
            told.contains("blockyard_dataserver_volume_replicas{volume=") && !told.contains("nameserver"),
            "{told}"
        );
    }
}

//! What is made of the table: a Grafana dashboard, and alert rules for Prometheus.
//!
//! `$thing` in a query stands for a metric of the nameserver; a test finds those that there are not.

use serde_json::{Value, json};

use super::table::METRICS;

/// What one panel draws: queries, and how their lines are called.
struct Panel {
    title: &'static str,
    /// Grafana's name for the unit.
    unit: &'static str,
    lines: &'static [(&'static str, &'static str)],
}

struct Alert {
    name: &'static str,
    when: &'static str,
    lasting: &'static str,
    severity: &'static str,
    /// What is wrong, and what to do.
    summary: &'static str,
}

const PANELS: &[Panel] = &[
    Panel {
        title: "Blocks in need",
        unit: "short",
        lines: &[
            ("$missing_blocks", "missing"),
            ("$under_replicated_blocks", "under-replicated"),
            ("$corrupt_replicas", "damaged replicas"),
        ],
    },
    Panel {
        title: "Repair waits for",
        unit: "bytes",
        lines: &[("$repair_waiting", "{{class}}")],
    },
    Panel {
        title: "Repair and balance",
        unit: "Bps",
        lines: &[
            ("rate($repair_copied[1m])", "copied"),
            ("rate($balanced[1m])", "moved for balance"),
        ],
    },
    Panel {
        title: "Dataservers",
        unit: "short",
        lines: &[("$dataservers", "{{state}}")],
    },
    Panel {
        title: "Written",
        unit: "Bps",
        lines: &[("rate($volume_written[1m])", "{{server}} {{volume}}")],
    },
    Panel {
        title: "Read",
        unit: "Bps",
        lines: &[("rate($volume_read[1m])", "{{server}} {{volume}}")],
    },
    Panel {
        title: "Requests of clients",
        unit: "reqps",
        lines: &[("rate($volume_client_requests[1m])", "{{server}} {{volume}}")],
    },
    Panel {
        title: "Flushes",
        unit: "iops",
        lines: &[("rate($volume_flushes[1m])", "{{server}} {{volume}}")],
    },
    Panel {
        title: "Slowest of a hundred flushes",
        unit: "s",
        lines: &[("$volume_flush{quantile=\"0.99\"}", "{{server}} {{volume}}")],
    },
    Panel {
        title: "Slowest of a hundred reads",
        unit: "s",
        lines: &[("$volume_read_time{quantile=\"0.99\"}", "{{server}} {{volume}}")],
    },
    Panel {
        title: "How full volumes are",
        unit: "percentunit",
        lines: &[("$volume_used / $volume_capacity", "{{server}} {{volume}}")],
    },
    Panel {
        title: "Processors of the servers",
        unit: "percentunit",
        lines: &[("$server_cpu_busy", "{{server}}")],
    },
    Panel {
        title: "Scrub: found damaged",
        unit: "short",
        lines: &[("$volume_scrub_damaged", "{{server}} {{volume}}")],
    },
    Panel {
        title: "Files",
        unit: "short",
        lines: &[("$files", "files"), ("$trash_files", "in the trash")],
    },
];

const ALERTS: &[Alert] = &[
    Alert {
        name: "BlockyardAbsent",
        when: "absent($uptime)",
        lasting: "1m",
        severity: "critical",
        summary: "No nameserver tells its metrics: look whether it runs, and whether Prometheus reaches its page.",
    },
    Alert {
        name: "BlockyardMissingBlocks",
        when: "$missing_blocks > 0",
        lasting: "1m",
        severity: "critical",
        summary: "{{ $value }} blocks have no replica that can be read: bring their servers back ('blockyard fsck' names the files).",
    },
    Alert {
        name: "BlockyardReadOnly",
        when: "$read_only == 1",
        lasting: "0m",
        severity: "critical",
        summary: "Nothing can be changed, because the nameserver's journal can't be written: 'blockyard status' says why.",
    },
    Alert {
        name: "BlockyardVolumeFailed",
        when: "$volume_state{state=\"failed\"} == 1",
        lasting: "1m",
        severity: "warning",
        summary: "A volume of {{ $labels.server }} has failed: look at its disk, and replace it ('blockyard volume replace').",
    },
    Alert {
        name: "BlockyardDataserverDead",
        when: "$dataservers{state=\"dead\"} > 0",
        lasting: "5m",
        severity: "warning",
        summary: "{{ $value }} dataservers are given up: start them again, or remove them ('blockyard node remove').",
    },
    Alert {
        name: "BlockyardUnderReplicated",
        when: "$under_replicated_blocks > 0",
        lasting: "30m",
        severity: "warning",
        summary: "{{ $value }} blocks have had too few replicas for half an hour: 'blockyard repair status' says what holds them up.",
    },
    Alert {
        name: "BlockyardRepairHeld",
        when: "$repair_held == 1",
        lasting: "10m",
        severity: "warning",
        summary: "Repair is held back although there is work: 'blockyard repair status' says why.",
    },
    Alert {
        name: "BlockyardCorruptReplicas",
        when: "$corrupt_replicas > 0",
        lasting: "1h",
        severity: "warning",
        summary: "{{ $value }} damaged replicas have not been healed for an hour.",
    },
    Alert {
        name: "BlockyardSpaceShort",
        when: "sum($volume_free) / sum($volume_capacity) < 0.1",
        lasting: "10m",
        severity: "warning",
        summary: "Less than a tenth of the space is left: add volumes, or empty the trash.",
    },
    Alert {
        name: "BlockyardSlowFlushes",
        when: "$volume_flush{quantile=\"0.99\"} > 1",
        lasting: "15m",
        severity: "warning",
        summary: "Flushes take more than a second on a volume of {{ $labels.server }}: its disk may be dying.",
    },
    Alert {
        name: "BlockyardScrubLate",
        when: "(time() - $volume_scrub_last_pass_time > 30 * 86400) and $volume_scrub_last_pass_time > 0",
        lasting: "1h",
        severity: "warning",
        summary: "A volume of {{ $labels.server }} has not been verified as a whole for a month: 'blockyard scrub status'.",
    },
];

/// Puts the names of metrics in; `$value` and `$labels` are Prometheus's own and stay.
fn resolved(query: &str) -> String {
    let mut parts = query.split('$');
    let mut whole = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let end = part
            .find(|c: char| !c.is_ascii_alphanumeric() && c != '_')
            .unwrap_or(part.len());
        let (thing, rest) = part.split_at(end);
        let metric = METRICS.iter().find(|metric| metric.thing == thing);
        whole += &metric.map_or_else(|| format!("${thing}"), |metric| metric.name("nameserver"));
        whole += rest;
    }
    whole
}

/// A dashboard to import into Grafana; it asks for the data source.
pub(crate) fn grafana() -> Value {
    let source = json!({ "type": "prometheus", "uid": "${source}" });
    let panels: Vec<Value> = PANELS
        .iter()
        .zip(0..)
        .map(|(panel, at)| {
            let targets: Vec<Value> = panel
                .lines
                .iter()
                .zip('A'..)
                .map(|((query, legend), id)| {
                    json!({ "expr": resolved(query), "legendFormat": legend, "refId": id.to_string(), "datasource": source })
                })
                .collect();
            json!({
                "id": at + 1,
                "type": "timeseries",
                "title": panel.title,
                "datasource": source,
                "gridPos": { "h": 8, "w": 12, "x": 12 * (at % 2), "y": 8 * (at / 2) },
                "fieldConfig": { "defaults": { "unit": panel.unit, "min": 0 }, "overrides": [] },
                "targets": targets,
            })
        })
        .collect();
    json!({
        "title": "Blockyard",
        "uid": "blockyard",
        "tags": ["blockyard"],
        "timezone": "browser",
        "refresh": "10s",
        "time": { "from": "now-1h", "to": "now" },
        "schemaVersion": 39,
        "templating": { "list": [
            { "name": "source", "label": "Data source", "type": "datasource", "query": "prometheus" }
        ] },
        "panels": panels,
    })
}

/// Rules for Prometheus's `rule_files`, which are YAML: JSON is that too.
pub(crate) fn alerts() -> Value {
    let rules: Vec<Value> = ALERTS
        .iter()
        .map(|alert| {
            json!({
                "alert": alert.name,
                "expr": resolved(alert.when),
                "for": alert.lasting,
                "labels": { "severity": alert.severity },
                "annotations": { "summary": alert.summary },
            })
        })
        .collect();
    json!({ "groups": [{ "name": "blockyard", "rules": rules }] })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Words of all queries that look like names.
    fn words(queries: impl IntoIterator<Item = String>) -> BTreeSet<String> {
        let mut words = BTreeSet::new();
        for query in queries {
            assert!(!query.contains('$'), "a metric that is none in {query}");
            let parts = query.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
            words.extend(
                parts
                    .filter(|word| word.starts_with("blockyard_"))
                    .map(str::to_owned),
            );
        }
        words
    }

    #[test]
    fn every_name_that_is_used_is_in_the_table() {
        let drawn = PANELS
            .iter()
            .flat_map(|panel| panel.lines)
            .map(|(query, _)| resolved(query));
        let watched = ALERTS.iter().map(|alert| resolved(alert.when));
        let names: BTreeSet<String> = METRICS.iter().map(|metric| metric.name("nameserver")).collect();
        let used = words(drawn.chain(watched));
        assert!(
            used.len() > 15 && used.is_subset(&names),
            "{:?}",
            used.difference(&names)
        );
    }

    #[test]
    fn both_have_the_form_that_their_readers_want() {
        let board = grafana();
        assert_eq!(board["panels"].as_array().unwrap().len(), PANELS.len());
        assert_eq!(
            board["panels"][0]["targets"][0]["expr"],
            "blockyard_nameserver_missing_blocks"
        );
        let alerts = alerts();
        for rule in alerts["groups"][0]["rules"].as_array().unwrap() {
            assert!(
                rule["expr"].as_str().unwrap().contains("blockyard_nameserver_"),
                "{rule}"
            );
            assert!(
                rule["annotations"]["summary"].as_str().unwrap().len() > 20,
                "{rule}"
            );
        }
    }
}

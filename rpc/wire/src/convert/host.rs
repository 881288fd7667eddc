//! Figures of a dataserver's machine, disks, scrubs and chains; of the machine the highest value stands for what is not known.

use blockyard_schema::dataserver_capnp as data;

use super::{id, scrub_state_from, scrub_state_to, text, write_id};
use crate::Result;
use crate::types::{Flow, HostReport, LatencyReport, ScrubReport, VolumeId};

pub(super) fn read_latency(from: data::latency_report::Reader<'_>) -> LatencyReport {
    LatencyReport {
        count: from.get_count(),
        p50_us: from.get_p50_us(),
        p99_us: from.get_p99_us(),
    }
}

pub(super) fn write_latency(from: LatencyReport, mut to: data::latency_report::Builder<'_>) {
    to.set_count(from.count);
    to.set_p50_us(from.p50_us);
    to.set_p99_us(from.p99_us);
}

pub(super) fn read_scrub(from: data::scrub_report::Reader<'_>) -> ScrubReport {
    ScrubReport {
        state: scrub_state_from(from.get_state()),
        passes: from.get_passes(),
        last_pass_unix_ms: from.get_last_pass_unix_ms(),
        pass_bytes: from.get_pass_bytes(),
        damaged: from.get_damaged(),
        bytes_per_s: from.get_bytes_per_s(),
    }
}

pub(super) fn write_scrub(from: ScrubReport, mut to: data::scrub_report::Builder<'_>) {
    to.set_state(scrub_state_to(from.state));
    to.set_passes(from.passes);
    to.set_last_pass_unix_ms(from.last_pass_unix_ms);
    to.set_pass_bytes(from.pass_bytes);
    to.set_damaged(from.damaged);
    to.set_bytes_per_s(from.bytes_per_s);
}

pub(super) fn read_flow(from: data::flow::Reader<'_>) -> Result<Flow> {
    Ok(Flow {
        from: text(from.get_from())?,
        head: from.get_head(),
        next: VolumeId(id(from.get_next())?),
        in_flight: from.get_in_flight(),
        blocks: from.get_blocks(),
        bytes: from.get_bytes(),
        lag_us: from.get_lag_us(),
    })
}

pub(super) fn write_flow(from: &Flow, mut to: data::flow::Builder<'_>) {
    to.set_from(&from.from);
    to.set_head(from.head);
    write_id(&from.next.0, to.reborrow().init_next());
    to.set_in_flight(from.in_flight);
    to.set_blocks(from.blocks);
    to.set_bytes(from.bytes);
    to.set_lag_us(from.lag_us);
}

/// Reads what a machine is doing.
pub fn read_host_report(from: data::host_report::Reader<'_>) -> HostReport {
    let word = |value: u32| (value != u32::MAX).then_some(value);
    let long = |value: u64| (value != u64::MAX).then_some(value);
    HostReport {
        cpu_busy_permille: Some(from.get_cpu_busy_permille()).filter(|value| *value != u16::MAX),
        load1_permille: word(from.get_load1_permille()),
        cores: word(from.get_cores()),
        memory_bytes: long(from.get_memory_bytes()),
        memory_available_bytes: long(from.get_memory_available_bytes()),
        net_in_bytes_per_s: long(from.get_net_in_bytes_per_s()),
        net_out_bytes_per_s: long(from.get_net_out_bytes_per_s()),
    }
}

/// Writes what a machine is doing.
pub fn write_host_report(from: &HostReport, mut to: data::host_report::Builder<'_>) {
    to.set_cpu_busy_permille(from.cpu_busy_permille.unwrap_or(u16::MAX));
    to.set_load1_permille(from.load1_permille.unwrap_or(u32::MAX));
    to.set_cores(from.cores.unwrap_or(u32::MAX));
    to.set_memory_bytes(from.memory_bytes.unwrap_or(u64::MAX));
    to.set_memory_available_bytes(from.memory_available_bytes.unwrap_or(u64::MAX));
    to.set_net_in_bytes_per_s(from.net_in_bytes_per_s.unwrap_or(u64::MAX));
    to.set_net_out_bytes_per_s(from.net_out_bytes_per_s.unwrap_or(u64::MAX));
}

//! What a sample of a program's stack says about the purpose of its work.

/// Purposes, the most telling first. A symbol belongs to the first of them that has a pattern of it: `^` stands for the
/// symbol's beginning.
///
/// Symbols that serve many purposes (locks, `handle_softirqs`, slabs) are in none: their callers tell. So is the way out
/// of a virtual machine, which a doorbell or waking a core costs, and which shows where interrupts are next allowed.
const PURPOSES: [(&str, &str); 17] = [
    ("checksums", "crc_fast:: crc32c::"),
    (
        "copy into sockets",
        "^_copy_from_iter ^skb_copy_to_page ^skb_do_copy_data ^skb_splice_from_iter",
    ),
    (
        "copy out of sockets",
        "^__skb_datagram_iter ^simple_copy_to_iter ^skb_copy_datagram",
    ),
    ("HMAC", "sha2:: hmac:: ^sha256_"),
    ("capnp", "capnp:: capnp_rpc:: capnp_futures::"),
    (
        "allocation",
        "^malloc ^_int_malloc ^_int_free ^cfree ^__libc_free ^free@ ^realloc ^_int_realloc \
         ^calloc ^__libc_calloc ^unlink_chunk ^sysmalloc ^tcache_ ^posix_memalign ^_int_memalign \
         ^__rust_alloc ^__rdl_ ^_mi_ ^mi_",
    ),
    (
        "page faults and memory",
        "^clear_page ^clear_huge_page ^folio_zero_user page_fault ^handle_mm_fault \
         ^__handle_mm_fault ^do_anonymous_page ^do_fault ^alloc_pages ^__alloc_frozen_pages \
         ^__alloc_pages ^get_page_from_freelist ^free_unref ^__free_frozen_pages \
         ^free_frozen_pages ^rmqueue ^__rmqueue ^do_madvise ^__x64_sys_madvise ^__x64_sys_munmap \
         ^__x64_sys_mmap ^__x64_sys_brk ^do_mmap ^do_vmi_ ^vms_ ^zap_ ^unmap_ ^tlb_ ^flush_tlb \
         ^charge_memcg ^__mem_cgroup ^mem_cgroup ^try_charge ^__mod_memcg ^mas_ ^vma_ ^khugepaged \
         ^compact_zone ^shrink_ ^pin_user_pages ^__get_user_pages ^gup_fast",
    ),
    (
        "copies in memory",
        "^__memmove ^__memcpy ^memcpy ^memmove ^__memset ^memset",
    ),
    (
        "scheduling and wakeups",
        "^finish_task_switch ^__schedule ^schedule ^try_to_wake_up ^ttwu_ ^__wake_up ^wake_up_ \
         ^sock_def_readable ^sk_stream_write_space ^autoremove_wake ^ep_ ^do_epoll \
         ^__x64_sys_epoll ^do_futex ^futex_ ^__x64_sys_futex ^eventfd_ ^io_eventfd_signal \
         ^hrtimer_ ^__hrtimer ^enqueue_task ^dequeue_task ^enqueue_entity ^dequeue_entit ^pick_ \
         ^select_task_rq ^update_curr ^update_load_avg ^queue_work_on ^__queue_work \
         ^mod_delayed_work ^queue_delayed_work ^worker_thread ^smpboot_ ^rcu_ ^note_gp_changes \
         ^tick_ ^sched_ ^__flush_smp_call ^flush_smp_call ^do_idle ^call_cpuidle \
         ^cpu_startup_entry ^native_write_msr ^mutex_spin_on_owner ^__mutex_lock ^complete \
         ^do_nanosleep ^timer_ ^__mod_timer ^mod_timer",
    ),
    (
        "TCP/IP",
        "^tcp_ ^__tcp_ ^ip_ ^__ip_ ^inet ^__inet ^net_rx_action ^process_backlog ^__napi ^napi_ \
         ^netif_ ^__netif ^enqueue_to_backlog ^loopback_xmit ^dev_ ^__dev_ ^validate_xmit ^sock_ \
         ^__sock ^sk_ ^__sk_ ^skb_ ^__skb ^__alloc_skb ^alloc_skb ^kfree_skb ^__kfree_skb ^sch_ \
         ^qdisc ^raw_local_deliver ^ipv4_ ^fib_ ^nf_ ^bpf_ ^bbr_ ^cubictcp_ ^__sys_sendto \
         ^__sys_recvfrom ^__sys_sendmsg ^__sys_recvmsg ^___sys ^____sys ^io_send ^io_recv \
         ^security_sock ^__copy_skb ^consume_skb ^eth_type_trans ^lock_sock ^release_sock \
         ^__release_sock ^__lock_sock ^import_iovec",
    ),
    (
        "filesystem and journal",
        "^ext4_ ^__ext4 ^jbd2_ ^__jbd2 ^start_this_handle ^add_transaction ^xfs_ ^btrfs_ ^fuse_ \
         ^file_write_and_wait ^filemap_ ^__filemap ^folio_ ^__folio ^writeback_ ^do_writepages \
         ^write_cache_pages ^__sync_dirty_buffer ^mark_buffer_dirty ^__mark_inode ^vfs_fsync \
         ^generic_ ^xas_ ^copy_folio_from_iter ^iomap_iter ^iomap_write ^file_update_time \
         ^file_modified ^touch_atime ^atime_needs_update ^rw_verify_area ^__bread \
         ^__find_get_block ^submit_bh ^end_buffer ^wb_ ^__writeback ^invalidate_ ^path_ \
         ^do_filp_open ^vfs_ ^ksys_",
    ),
    (
        "disk submission and completion",
        "^virtio_queue_rq ^virtio_ ^vp_ ^virtqueue_ ^virtblk ^vring_ ^iowrite ^blk_ ^__blk ^bio_ \
         ^__bio ^submit_bio ^__submit_bio ^blkdev_ ^dd_ ^__dd_ ^bfq_ ^kyber_ ^nvme_ ^scsi_ \
         ^iomap_dio ^__iomap_dio ^iomap_finish ^elv_ ^sbitmap_ ^__sbitmap ^mempool_ ^dma_ ^wbt_ \
         ^rq_qos ^__rq_qos ^block_ ^bvec_ ^part_ ^mq_flush ^flush_end_io",
    ),
    (
        "io_uring",
        "^io_ ^__io_ io_uring:: ^__do_sys_io_uring ^__x64_sys_io_uring ^tctx_task_work ^task_work",
    ),
    (
        "runtimes",
        "tokio monoio flume futures_ ^mio:: core::future core::task std::thread::local alloc::task \
         clock_gettime hyper tracing parking_lot blockyard_engine::tasks alloc::sync::Arc \
         alloc::rc::Rc blockyard_engine::uring",
    ),
    ("own code", "blockyard_ core:: alloc:: std:: hashbrown ^__memcmp"),
    (
        "entering and leaving the kernel",
        "^do_syscall_64 ^entry_SYSCALL ^syscall ^irqentry_ ^exit_to_user ^asm_ ^sysvec_ \
         ^common_interrupt ^__irq_exit ^srso_ ^its_return ^__x64_sys ^__send ^__recv ^__GI___ ^epoll_wait \
         ^arch_exit_to_user",
    ),
    // Last: what nothing speaks for.
    (OTHER, ""),
];

/// The purpose of samples that nothing is known of.
pub(crate) const OTHER: &str = "other";

/// All purposes, in their order.
pub(crate) fn purposes() -> impl Iterator<Item = &'static str> {
    PURPOSES.iter().map(|(name, _)| *name)
}

/// The purpose of a stack, innermost symbol first: that of the first symbol that has one.
pub(crate) fn purpose_of<'a>(stack: impl IntoIterator<Item = &'a str>) -> &'static str {
    stack.into_iter().find_map(purpose_of_symbol).unwrap_or(OTHER)
}

fn purpose_of_symbol(symbol: &str) -> Option<&'static str> {
    let matches = |pattern: &str| match pattern.strip_prefix('^') {
        Some(beginning) => symbol.starts_with(beginning),
        None => symbol.contains(pattern),
    };
    let known = PURPOSES
        .iter()
        .find(|(_, patterns)| patterns.split_whitespace().any(matches));
    known.map(|(name, _)| *name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_innermost_symbol_with_a_purpose_decides() {
        for (stack, purpose) in [
            (
                "_copy_from_iter tcp_sendmsg_locked tcp_sendmsg",
                "copy into sockets",
            ),
            (
                "_copy_to_iter __skb_datagram_iter tcp_recvmsg_locked",
                "copy out of sockets",
            ),
            ("_copy_to_iter filemap_read vfs_read", "filesystem and journal"),
            ("kmem_cache_free tcp_ack tcp_rcv_established", "TCP/IP"),
            (
                "clear_page_erms get_page_from_freelist exc_page_fault",
                "page faults and memory",
            ),
            (
                "blockyard_schema::nameserver_capnp::session::Reader::get",
                "capnp",
            ),
            (
                "<blockyard_engine::volume::Volume as core::fmt::Debug>::fmt",
                "own code",
            ),
            ("some::other::crate_code", OTHER),
            ("", OTHER),
        ] {
            assert_eq!(purpose_of(stack.split(' ')), purpose, "{stack}");
        }
    }

    #[test]
    fn a_way_out_of_the_machine_is_told_by_its_callers() {
        let lock = "_raw_spin_unlock_irqrestore";
        let stack = |callers: &'static str| [lock].into_iter().chain(callers.split(' '));
        assert_eq!(
            purpose_of(stack("virtio_queue_rq blk_mq_dispatch_rq_list")),
            "disk submission and completion"
        );
        assert_eq!(
            purpose_of(stack("try_to_wake_up io_wq_enqueue io_submit_sqes")),
            "scheduling and wakeups"
        );
        assert_eq!(
            purpose_of(stack("sock_def_readable tcp_data_queue tcp_v4_rcv")),
            "scheduling and wakeups"
        );
        assert_eq!(
            purpose_of(["handle_softirqs", "do_softirq", "__dev_queue_xmit"]),
            "TCP/IP"
        );
    }

    #[test]
    fn every_purpose_has_a_name_of_its_own() {
        let mut names: Vec<_> = purposes().collect();
        assert_eq!(names.last(), Some(&OTHER));
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), PURPOSES.len());
    }
}

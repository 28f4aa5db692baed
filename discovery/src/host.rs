//! Which machine this is.

/// The boot id of this machine: two processes that read the same text can
/// reach each other's unix sockets (containers that share a kernel but no
/// folder find out when they connect). Empty where the kernel does not tell.
pub fn host_id() -> String {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id");
    text.unwrap_or_default().trim().to_owned()
}

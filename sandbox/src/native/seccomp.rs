//! The system calls that sandboxed programs are refused.
//!
//! Everything that could change mounts, namespaces, keys, other processes or the kernel is denied;
//! what tests of ordinary programs use is allowed. Namespaces and missing capabilities stop most of
//! it anyway: the filter takes away the kernel code behind it.

use std::{collections::BTreeMap, io};

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen::Dword, SeccompCmpOp, SeccompCondition,
    SeccompFilter, SeccompRule, TargetArch, sock_filter,
};

/// Since Linux 6.15; the same number everywhere.
const OPEN_TREE_ATTR: i64 = 467;

/// Denied whatever their arguments.
const DENIED: &[i64] = &[
    // mounts
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    OPEN_TREE_ATTR,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    libc::SYS_quotactl,
    libc::SYS_quotactl_fd,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_fanotify_init,
    // namespaces
    libc::SYS_unshare,
    libc::SYS_setns,
    // handles of files that no path leads to
    libc::SYS_open_by_handle_at,
    libc::SYS_name_to_handle_at,
    // keys
    libc::SYS_keyctl,
    libc::SYS_add_key,
    libc::SYS_request_key,
    // other processes
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_process_madvise,
    libc::SYS_pidfd_getfd,
    libc::SYS_kcmp,
    // large attack surfaces of the kernel
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_userfaultfd,
    libc::SYS_memfd_secret,
    // the machine
    libc::SYS_kexec_load,
    libc::SYS_kexec_file_load,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_reboot,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_acct,
    libc::SYS_syslog,
    libc::SYS_vhangup,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_iopl,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_ioperm,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_modify_ldt,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_uselib,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_sysfs,
];

/// Flags of `clone` that are denied: namespaces, and children of others. Its lowest byte is a signal.
const CLONE_FLAGS: &[i32] = &[
    libc::CLONE_PARENT,
    libc::CLONE_NEWNS,
    libc::CLONE_NEWCGROUP,
    libc::CLONE_NEWUTS,
    libc::CLONE_NEWIPC,
    libc::CLONE_NEWUSER,
    libc::CLONE_NEWPID,
    libc::CLONE_NEWNET,
];

/// Address families that `socket` makes: no raw packets, no host's virtual machine sockets, no
/// kernel crypto.
const FAMILIES: &[i32] = &[libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK];

/// Those of [`DENIED`] by which pid 1 mounts a work tree.
const MOUNTING: [i64; 2] = [libc::SYS_mount, libc::SYS_move_mount];

/// Compiles the filter.
pub(crate) fn compile() -> io::Result<BpfProgram> {
    denying(DENIED)
}

/// The filter, and the same in two parts: to load it takes the kernel a tenth of a short run, and what
/// has yet to mount something can load most of it beforehand.
pub(crate) struct Filters {
    pub(crate) whole: BpfProgram,
    pub(crate) most: BpfProgram,
    /// Denies what that one lets through.
    pub(crate) rest: BpfProgram,
}

impl Filters {
    /// Compiles them.
    pub(crate) fn compile() -> io::Result<Self> {
        let mut rest = vec![op(LOAD, 0, 0, 0)];
        rest.extend(denial(&MOUNTING)?);
        rest.push(op(RETURN, libc::SECCOMP_RET_ALLOW, 0, 0));
        Ok(Self { whole: compile()?, most: denying(&all_but_mounting())?, rest })
    }
}

fn all_but_mounting() -> Vec<i64> {
    DENIED.iter().copied().filter(|call| !MOUNTING.contains(call)).collect()
}

/// Compiles a filter that denies these calls whatever their arguments, and others for theirs.
fn denying(denied: &[i64]) -> io::Result<BpfProgram> {
    let broken = |e: seccompiler::BackendError| io::Error::other(e.to_string());
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = BTreeMap::new();

    let any_flag = CLONE_FLAGS
        .iter()
        .map(|flag| {
            let flag = u64::from(*flag as u32);
            rule(&[(0, SeccompCmpOp::MaskedEq(flag), flag)])
        })
        .collect::<Result<_, _>>()
        .map_err(broken)?;
    rules.insert(libc::SYS_clone, any_flag);

    let other_family: Vec<_> =
        FAMILIES.iter().map(|family| (0, SeccompCmpOp::Ne, *family as u64)).collect();
    let raw_internet = |family: i32| {
        // The low bits of the type; the high ones are flags.
        [
            (0, SeccompCmpOp::Eq, family as u64),
            (1, SeccompCmpOp::MaskedEq(0xf), libc::SOCK_RAW as u64),
        ]
    };
    let sockets = [
        rule(&other_family),
        rule(&raw_internet(libc::AF_INET)),
        rule(&raw_internet(libc::AF_INET6)),
    ];
    rules.insert(libc::SYS_socket, sockets.into_iter().collect::<Result<_, _>>().map_err(broken)?);

    const TIOCLINUX: u64 = 0x541C;
    let terminal =
        [libc::TIOCSTI, TIOCLINUX].map(|request| rule(&[(1, SeccompCmpOp::Eq, request)]));
    rules.insert(libc::SYS_ioctl, terminal.into_iter().collect::<Result<_, _>>().map_err(broken)?);

    // Asking for the personality (all ones) and setting the usual one are harmless.
    let unusual = rule(&[(0, SeccompCmpOp::Ne, 0xffff_ffff), (0, SeccompCmpOp::Ne, 0)]);
    rules.insert(libc::SYS_personality, vec![unusual.map_err(broken)?]);

    // One's own resource limits are one's own; those of pid 1, which is of the same user, are ours.
    let others = rule(&[(0, SeccompCmpOp::Ne, 0)]).map_err(broken)?;
    rules.insert(libc::SYS_prlimit64, vec![others]);

    // A lease on a file makes others wait who open it; a note on a folder tells of them.
    const F_NOTIFY: u64 = 1026;
    let fcntl =
        [libc::F_SETLEASE as u64, F_NOTIFY].map(|command| rule(&[(1, SeccompCmpOp::Eq, command)]));
    rules.insert(libc::SYS_fcntl, fcntl.into_iter().collect::<Result<_, _>>().map_err(broken)?);

    // Pid 1 is of the same user, and would be late to bury the dead if it had to wait behind them.
    let first = rule(&[(0, SeccompCmpOp::Eq, 1)]).map_err(broken)?;
    for call in [
        libc::SYS_sched_setscheduler,
        libc::SYS_sched_setparam,
        libc::SYS_sched_setattr,
        libc::SYS_sched_setaffinity,
    ] {
        rules.insert(call, vec![first.clone()]);
    }
    let groups = rule(&[(0, SeccompCmpOp::Ne, libc::PRIO_PROCESS.into())]);
    let pid_1 = rule(&[(1, SeccompCmpOp::Eq, 1)]);
    let priorities = [groups, pid_1].into_iter().collect::<Result<_, _>>().map_err(broken)?;
    rules.insert(libc::SYS_setpriority, priorities);

    let filter = SeccompFilter::new(
        rules,
        SeccompAction::Allow,
        SeccompAction::Errno(libc::EPERM as u32),
        TargetArch::try_from(std::env::consts::ARCH).map_err(broken)?,
    )
    .map_err(broken)?;
    let program: BpfProgram = filter.try_into().map_err(broken)?;
    Ok(prologue(denied)?.into_iter().chain(program).collect())
}

fn rule(conditions: &[(u8, SeccompCmpOp, u64)]) -> Result<SeccompRule, seccompiler::BackendError> {
    SeccompRule::new(
        conditions
            .iter()
            .map(|(argument, op, value)| {
                SeccompCondition::new(*argument, Dword, op.clone(), *value)
            })
            .collect::<Result<_, _>>()?,
    )
}

const LOAD: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS
const JUMP_EQ: u16 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
const JUMP_GE: u16 = 0x35; // BPF_JMP | BPF_JGE | BPF_K
const RETURN: u16 = 0x06; // BPF_RET | BPF_K

/// What seccompiler can't say, or not fast.
///
/// It kills x32 calls, which carry the same architecture, and answers `clone3` with ENOSYS, since a
/// filter can't see its flags and libc then uses `clone`. It finds the calls denied whatever their
/// arguments by bisection: the kernel tries a new filter on every number there is, so a chain of
/// comparisons as long as the list would cost each sandbox 0.2 ms.
fn prologue(denied: &[i64]) -> io::Result<Vec<sock_filter>> {
    const X32_BIT: u32 = 0x4000_0000;
    let mut program = vec![
        op(LOAD, 0, 0, 0), // the call's number
        op(JUMP_GE, X32_BIT, 0, 1),
        op(RETURN, libc::SECCOMP_RET_KILL_PROCESS, 0, 0),
        op(JUMP_EQ, libc::SYS_clone3 as u32, 0, 1),
        op(RETURN, libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32, 0, 0),
    ];
    program.extend(denial(denied)?);
    Ok(program)
}

fn op(code: u16, k: u32, jt: u8, jf: u8) -> sock_filter {
    sock_filter { code, jt, jf, k }
}

/// Denies these calls, whose number is loaded; others go on behind it.
fn denial(calls: &[i64]) -> io::Result<Vec<sock_filter>> {
    let mut program = Vec::new();
    let mut denied: Vec<u32> = calls.iter().map(|call| *call as u32).collect();
    denied.sort_unstable();
    denied.dedup();
    let tree = bisect(&denied);
    // Behind the tree: the denial, then whatever comes next.
    let (deny, go_on) = (tree.len(), tree.len() + 1);
    for (at, node) in tree.into_iter().enumerate() {
        let jump = |target: Target| {
            let target = match target {
                Target::Node(node) => node,
                Target::Deny => deny,
                Target::GoOn => go_on,
            };
            u8::try_from(target - at - 1).map_err(|_| io::Error::other("filter too long"))
        };
        program.push(op(node.code, node.number, jump(node.yes)?, jump(node.no)?));
    }
    program.push(op(RETURN, libc::SECCOMP_RET_ERRNO | libc::EPERM as u32, 0, 0));
    Ok(program)
}

#[derive(Clone, Copy)]
enum Target {
    Node(usize),
    Deny,
    GoOn,
}

/// A comparison with `number`.
struct Node {
    code: u16,
    number: u32,
    yes: Target,
    no: Target,
}

/// Builds the comparisons that find whether a number is in `sorted`; the first is the root.
fn bisect(sorted: &[u32]) -> Vec<Node> {
    fn build(sorted: &[u32], nodes: &mut Vec<Node>) -> Target {
        let at = nodes.len();
        match sorted {
            [] => return Target::GoOn,
            [number] => {
                let (yes, no) = (Target::Deny, Target::GoOn);
                nodes.push(Node { code: JUMP_EQ, number: *number, yes, no });
            }
            _ => {
                let (low, high) = sorted.split_at(sorted.len() / 2);
                let (yes, no) = (Target::GoOn, Target::GoOn);
                nodes.push(Node { code: JUMP_GE, number: high[0], yes, no });
                nodes[at].no = build(low, nodes);
                nodes[at].yes = build(high, nodes);
            }
        }
        Target::Node(at)
    }
    let mut nodes = Vec::new();
    build(sorted, &mut nodes);
    nodes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_filter_compiles_and_fits_the_kernel() {
        let program = compile().expect("a filter");
        assert!(program.len() > 100 && program.len() <= 4096, "{} instructions", program.len());
    }

    #[test]
    fn the_parts_deny_together_what_the_filter_denies() {
        let filters = Filters::compile().expect("filters");
        let most = prologue(&all_but_mounting()).expect("a filter");
        for number in 0..1000u32 {
            let rest = verdict(&filters.rest, number);
            let both = verdict(&most, number).or(rest.filter(|k| *k != libc::SECCOMP_RET_ALLOW));
            let whole = verdict(&prologue(DENIED).expect("a filter"), number);
            assert_eq!(both, whole, "call {number}");
        }
        assert!(filters.most.len() < filters.whole.len() && filters.rest.len() < 10);
    }

    /// Runs the part of the filter that looks at the call's number alone.
    fn verdict(program: &[sock_filter], number: u32) -> Option<u32> {
        let mut at = 0;
        loop {
            let op = &program.get(at)?;
            let holds = match op.code {
                LOAD => true,
                RETURN => return Some(op.k),
                JUMP_EQ => number == op.k,
                JUMP_GE => number >= op.k,
                code => panic!("instruction {code:#x}"),
            };
            at += 1 + usize::from(if holds { op.jt } else { op.jf });
        }
    }

    #[test]
    fn denies_exactly_the_list() {
        let program = prologue(DENIED).expect("a filter");
        for number in 0..1000u32 {
            let expected = if number == libc::SYS_clone3 as u32 {
                Some(libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32)
            } else if DENIED.contains(&number.into()) {
                Some(libc::SECCOMP_RET_ERRNO | libc::EPERM as u32)
            } else {
                None
            };
            assert_eq!(verdict(&program, number), expected, "call {number}");
        }
        assert_eq!(verdict(&program, 0x4000_0001), Some(libc::SECCOMP_RET_KILL_PROCESS));
    }
}

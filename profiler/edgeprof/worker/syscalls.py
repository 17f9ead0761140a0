"""The system calls that ``--sandbox`` refuses, by number: data for the filter that ``sandbox`` builds.

Sources: linux/audit.h, arch/x86/entry/syscalls/syscall_64.tbl, include/uapi/asm-generic/unistd.h (aarch64), fcntl.h,
asm-generic/ioctls.h, linux/fs.h. Python 3.6 grammar.
"""

from typing import Dict, NamedTuple, Optional, Tuple

_O_TRUNC, _O_ACCMODE = 0o1000, 0o3
_CLONE_NEWTIME, _CLONE_NEWNS, _CLONE_NEWCGROUP, _CLONE_NEWUTS = 0x80, 0x20000, 0x2000000, 0x4000000
_CLONE_NEWIPC, _CLONE_NEWUSER, _CLONE_NEWPID, _CLONE_NEWNET = 0x8000000, 0x10000000, 0x20000000, 0x40000000

#: Numbers of a call on x86_64 and on aarch64; None: that machine has no such call.
Numbers = Tuple[Optional[int], Optional[int]]

#: Machine → its number in linux/audit.h.
MACHINES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
#: Refused whatever their arguments are.
REFUSED: Dict[str, Numbers] = {
    # sockets, and other ways to reach processes outside
    "socket": (41, 198),
    "connect": (42, 203),
    "bind": (49, 200),
    "tkill": (200, 130),
    "rt_sigqueueinfo": (129, 138),
    "rt_tgsigqueueinfo": (297, 240),
    "pidfd_send_signal": (424, 424),
    "pidfd_getfd": (438, 438),
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "shmget": (29, 194),
    "shmat": (30, 196),
    "shmctl": (31, 195),
    "semget": (64, 190),
    "semop": (65, 193),
    "semtimedop": (220, 192),
    "semctl": (66, 191),
    "msgget": (68, 186),
    "msgsnd": (69, 189),
    "msgrcv": (70, 188),
    "msgctl": (71, 187),
    "mq_open": (240, 180),
    "mq_unlink": (241, 181),
    # leaving the process group, which is killed as a whole
    "setsid": (112, 157),
    "setpgid": (109, 154),
    # what the filter could not see, and parts of the kernel that no model needs
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "keyctl": (250, 219),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "open_by_handle_at": (304, 265),
    # file systems and namespaces
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "unshare": (272, 97),
    "setns": (308, 268),
    "open_tree": (428, 428),
    "open_tree_attr": (467, 467),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsmount": (432, 432),
    "mount_setattr": (442, 442),
    "swapon": (167, 224),
    "swapoff": (168, 225),
    "acct": (163, 89),
    "quotactl": (179, 60),
    # modes, owners, times and attributes of files, and their length by name
    "chmod": (90, None),
    "fchmod": (91, 52),
    "fchmodat": (268, 53),
    "fchmodat2": (452, 452),
    "chown": (92, None),
    "fchown": (93, 55),
    "lchown": (94, None),
    "fchownat": (260, 54),
    "setxattr": (188, 5),
    "lsetxattr": (189, 6),
    "fsetxattr": (190, 7),
    "setxattrat": (463, 463),
    "removexattr": (197, 14),
    "lremovexattr": (198, 15),
    "fremovexattr": (199, 16),
    "removexattrat": (466, 466),
    "file_setattr": (469, 469),
    "utime": (132, None),
    "utimes": (235, None),
    "utimensat": (280, 88),
    "futimesat": (261, None),
    "truncate": (76, 45),
    # the machine
    "settimeofday": (164, 170),
    "clock_settime": (227, 112),
    "adjtimex": (159, 171),
    "sethostname": (170, 161),
    "kexec_load": (246, 104),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "reboot": (169, 142),
}
#: Their flags lie in memory, where a filter cannot see them. They fail as on a kernel without them, and the C
#: library uses the older ones.
UNKNOWN: Dict[str, Numbers] = {"openat2": (437, 437), "clone3": (435, 435)}


class ArgumentRule(NamedTuple):
    """A call that an argument decides about.

    Attributes:
        name: Of the call.
        numbers: Its numbers.
        argument: Which one, from 0; its lower 32 bits count.
        mask: Bits of it that count.
        values: What they are compared with.
        allowed: Whether these values are the only ones that are allowed, or those that are refused.
    """

    name: str
    numbers: Numbers
    argument: int
    mask: int
    values: Tuple[int, ...]
    allowed: bool


#: A value that stands for this process's number.
OWN_PID = -1
_ALL = 0xFFFFFFFF
_NAMESPACES = (
    _CLONE_NEWTIME
    | _CLONE_NEWNS
    | _CLONE_NEWCGROUP
    | _CLONE_NEWUTS
    | _CLONE_NEWIPC
    | _CLONE_NEWUSER
    | _CLONE_NEWPID
    | _CLONE_NEWNET
)
_F_SETOWN, _F_SETOWN_EX = 8, 15
#: TIOCSTI and TIOCLINUX type for the user; FIOSETOWN and SIOCSPGRP let the kernel signal others; FS_IOC_FSSETXATTR and
#: FS_IOC_SETVERSION (of 64 and 32 bits) change attributes of files; those of Btrfs make, change and remove subvolumes
#: (SNAP_CREATE, SNAP_CREATE_V2, SUBVOL_CREATE, SUBVOL_CREATE_V2, SNAP_DESTROY, SNAP_DESTROY_V2, SUBVOL_SETFLAGS,
#: SET_RECEIVED_SUBVOL, and that of 32 bits).
_IOCTLS = (
    0x5412, 0x541C, 0x8901, 0x8902, 0x401C5820, 0x40087602, 0x40047602,
    0x50009401, 0x50009417, 0x5000940E, 0x50009418, 0x5000940F, 0x5000943F, 0x4008941A, 0xC0C89425, 0xC0C09425,
)  # fmt: skip
#: The kinds of all requests about flags, encryption and verity of files, and of F2FS's: they need a file only open for
#: reading, and Landlock does not know them. FS_IOC_ENABLE_VERITY makes a file unchangeable for good.
_IOCTL_KINDS = (ord("f") << 8, 0xF5 << 8)
_AF_UNIX, _SOCK_STREAM, _SOCK_SEQPACKET, _SOCK_TYPE = 1, 1, 5, 0xF

BY_ARGUMENT = (
    ArgumentRule("ioctl", (16, 29), 1, _ALL, _IOCTLS, allowed=False),
    ArgumentRule("ioctl", (16, 29), 1, 0xFF00, _IOCTL_KINDS, allowed=False),
    # Opening for reading empties a file too, and before Landlock 3 nothing else forbids that.
    ArgumentRule("open", (2, None), 1, _O_TRUNC | _O_ACCMODE, (_O_TRUNC, _O_TRUNC | _O_ACCMODE), allowed=False),
    ArgumentRule("openat", (257, 56), 2, _O_TRUNC | _O_ACCMODE, (_O_TRUNC, _O_TRUNC | _O_ACCMODE), allowed=False),
    # A pair of datagram sockets can send to any path; a pair of any other family is a network.
    ArgumentRule("socketpair", (53, 199), 0, _ALL, (_AF_UNIX,), allowed=True),
    ArgumentRule("socketpair", (53, 199), 1, _SOCK_TYPE, (_SOCK_STREAM, _SOCK_SEQPACKET), allowed=True),
    ArgumentRule("clone", (56, 220), 0, _NAMESPACES, (0,), allowed=True),
    ArgumentRule("fcntl", (72, 25), 1, _ALL, (_F_SETOWN, _F_SETOWN_EX), allowed=False),
    ArgumentRule("prlimit64", (302, 261), 0, _ALL, (0, OWN_PID), allowed=True),
)
#: Where Landlock does not keep signals from other processes.
SIGNALS_BY_ARGUMENT = (
    ArgumentRule("kill", (62, 129), 0, _ALL, (OWN_PID,), allowed=True),
    ArgumentRule("tgkill", (234, 131), 0, _ALL, (OWN_PID,), allowed=True),
)

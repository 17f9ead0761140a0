"""Take rights away from this process for good, before a model is loaded: ``--sandbox``.

A confined process reaches no network, writes only beneath one folder (and to the devices that runtimes need), gains no
privileges, and neither signals nor inspects other processes. It may still read files and use time and memory, and may
copy into that folder whatever it can read.

Landlock (Linux 5.13) confines writing; where a kernel has none, a user namespace and a mount namespace in which every
file system is read-only do the same. Seccomp closes sockets and the ways around both. Each of them is a system call
with a structure, which this module makes by ctypes, because it must run in the worker under a Python 3.6 that may have
no other library.

Sources: Documentation/userspace-api/landlock.rst, linux/landlock.h, seccomp(2), linux/audit.h, user_namespaces(7).
Python 3.6 grammar.
"""

import contextlib
import ctypes
import errno
import glob
import os
import platform
import struct
from typing import Any, Dict, Iterator, List, Optional, Sequence, Tuple

#: Devices that may be written: standard ones, and those by which GPUs and accelerators are driven.
DEVICES = (
    "/dev/null",
    "/dev/zero",
    "/dev/full",
    "/dev/random",
    "/dev/urandom",
    "/dev/tty",
    "/dev/nvidia*",
    "/dev/nvhost*",
    "/dev/nvmap",
    "/dev/nvgpu/*",
    "/dev/dri/*",
    "/dev/kfd",
    "/dev/mali*",
    "/dev/apex_*",
    "/dev/accel/*",
    "/dev/hailo*",
    "/dev/rknpu*",
)

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_WRITE_FILE, _REFER, _TRUNCATE = 1 << 1, 1 << 13, 1 << 14
#: Writing, removing and making files of every kind: access rights 1 and 4 to 12.
_WRITES = _WRITE_FILE | sum(1 << bit for bit in range(4, 13))
_TCP = 0b11  # bind, connect
_SCOPED = 0b11  # abstract UNIX sockets, signals

_CLONE_NEWNS, _CLONE_NEWIPC, _CLONE_NEWUSER, _CLONE_NEWNET = 0x20000, 0x8000000, 0x10000000, 0x40000000
_MS_RDONLY, _MS_REMOUNT, _MS_BIND, _MS_REC, _MS_PRIVATE = 1, 32, 4096, 16384, 1 << 18
_MOUNT_FLAGS = {"nosuid": 2, "nodev": 4, "noexec": 8, "noatime": 1024, "nodiratime": 2048, "relatime": 1 << 21}

_PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS = 22, 38
_O_TRUNC, _O_ACCMODE = 0o1000, 0o3

#: System calls that have the same number on every machine, and are always refused.
_SHARED = {
    "io_uring_setup": 425,
    "io_uring_enter": 426,
    "io_uring_register": 427,
    "open_tree": 428,
    "move_mount": 429,
    "fsopen": 430,
    "fsmount": 432,
    "openat2": 437,
    "pidfd_send_signal": 424,
    "pidfd_getfd": 438,
    "mount_setattr": 442,
    "fchmodat2": 452,
    "setxattrat": 463,
}
#: Machine → (its number in linux/audit.h, system call → number). All are refused but those of ``_BY_ARGUMENT``.
_MACHINES: Dict[str, Tuple[int, Dict[str, int]]] = {
    "x86_64": (
        0xC000003E,
        {
            "socket": 41,
            "ptrace": 101,
            "mount": 165,
            "umount2": 166,
            "pivot_root": 155,
            "chroot": 161,
            "unshare": 272,
            "setns": 308,
            "bpf": 321,
            "perf_event_open": 298,
            "keyctl": 250,
            "add_key": 248,
            "request_key": 249,
            "process_vm_readv": 310,
            "process_vm_writev": 311,
            "kexec_load": 246,
            "init_module": 175,
            "finit_module": 313,
            "delete_module": 176,
            "open_by_handle_at": 304,
            "userfaultfd": 323,
            "chmod": 90,
            "fchmod": 91,
            "fchmodat": 268,
            "chown": 92,
            "fchown": 93,
            "lchown": 94,
            "fchownat": 260,
            "setxattr": 188,
            "lsetxattr": 189,
            "fsetxattr": 190,
            "removexattr": 197,
            "lremovexattr": 198,
            "fremovexattr": 199,
            "utime": 132,
            "utimes": 235,
            "utimensat": 280,
            "futimesat": 261,
            "truncate": 76,
            "settimeofday": 164,
            "clock_settime": 227,
            "adjtimex": 159,
            "sethostname": 170,
            "swapon": 167,
            "swapoff": 168,
            "reboot": 169,
            "acct": 163,
            "quotactl": 179,
            "rt_sigqueueinfo": 129,
            "rt_tgsigqueueinfo": 297,
            "tkill": 200,
            "kill": 62,
            "tgkill": 234,
            "open": 2,
            "openat": 257,
        },
    ),
    "aarch64": (
        0xC00000B7,
        {
            "socket": 198,
            "ptrace": 117,
            "mount": 40,
            "umount2": 39,
            "pivot_root": 41,
            "chroot": 51,
            "unshare": 97,
            "setns": 268,
            "bpf": 280,
            "perf_event_open": 241,
            "keyctl": 219,
            "add_key": 217,
            "request_key": 218,
            "process_vm_readv": 270,
            "process_vm_writev": 271,
            "kexec_load": 104,
            "init_module": 105,
            "finit_module": 273,
            "delete_module": 106,
            "open_by_handle_at": 265,
            "userfaultfd": 282,
            "fchmod": 52,
            "fchmodat": 53,
            "fchown": 55,
            "fchownat": 54,
            "setxattr": 5,
            "lsetxattr": 6,
            "fsetxattr": 7,
            "removexattr": 14,
            "lremovexattr": 15,
            "fremovexattr": 16,
            "utimensat": 88,
            "truncate": 45,
            "settimeofday": 170,
            "clock_settime": 112,
            "adjtimex": 171,
            "sethostname": 161,
            "swapon": 224,
            "swapoff": 225,
            "reboot": 142,
            "acct": 89,
            "quotactl": 60,
            "rt_sigqueueinfo": 138,
            "rt_tgsigqueueinfo": 240,
            "tkill": 130,
            "kill": 129,
            "tgkill": 131,
            "openat": 56,
        },
    ),
}
#: Calls whose arguments decide: which process is signalled, and whether a file that is opened for reading is emptied.
_BY_ARGUMENT = ("kill", "tgkill", "open", "openat")


#: Whether workers and compressors of this process shall be confined, and by what means this process itself is.
_STATE: Dict[str, Any] = {"asked": False, "entered": ""}


@contextlib.contextmanager
def asked_for(asked: bool = True) -> Iterator[None]:
    """A context in which every process that opens a model is confined, as ``--sandbox`` asks for."""
    before = _STATE["asked"]
    _STATE["asked"] = asked
    try:
        yield
    finally:
        _STATE["asked"] = before


def is_asked_for() -> bool:
    """Whether ``--sandbox`` was given."""
    return bool(_STATE["asked"])


def confined_by() -> str:
    """By what means this process is confined, such as ``Landlock 6, seccomp``; empty if it is not."""
    return str(_STATE["entered"])


class SandboxError(Exception):
    """Raised where the kernel cannot take these rights away; its text is one clause that says why."""


def landlock_version() -> int:
    """The version of Landlock in this kernel; 0 if it has none."""
    version = int(_load_libc().syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint32(1)))
    return max(0, version)


def why_not() -> Optional[str]:
    """Try in a child process whether a process can be confined here, and return why not; None if it can."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            enter([])
            os.write(writing, b"+")
        except BaseException as error:  # noqa: BLE001 - the child ends here, whatever happens
            os.write(writing, str(error).encode("utf-8", "replace"))
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        answer = pipe.read().decode("utf-8", "replace")
    os.waitpid(child, 0)
    return None if answer == "+" else answer or "the child that tried it died"


def enter(writable: Sequence[str]) -> str:
    """Confine this process and all processes that it will start; this cannot be undone.

    Call it while the process has one thread: the kernel confines threads one by one.

    Args:
        writable: The folders beneath which files may be written.

    Returns:
        The means, such as ``Landlock 6, seccomp``.

    Raises:
        SandboxError: the kernel cannot confine a process.
    """
    machine = platform.machine()
    if machine not in _MACHINES or struct.calcsize("P") != 8:
        raise SandboxError("it is made for 64-bit x86 and ARM, not for {}".format(machine))
    version = landlock_version()
    if not version:
        _enter_namespaces(writable)
    _check_call(_load_libc().prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs")
    if version:
        _restrict_files(version, writable)
    _filter_calls(machine, signals_scoped=version >= 6)
    _STATE["entered"] = "{}, seccomp".format("Landlock {}".format(version) if version else "user namespaces")
    return confined_by()


def _restrict_files(version: int, writable: Sequence[str]) -> None:
    handled = _WRITES | (_REFER if version >= 2 else 0) | (_TRUNCATE if version >= 3 else 0)
    attribute = struct.pack("<QQQ", handled, _TCP if version >= 4 else 0, _SCOPED if version >= 6 else 0)
    size = 24 if version >= 6 else 16 if version >= 4 else 8
    libc = _load_libc()
    ruleset = _check_call(
        libc.syscall(_CREATE_RULESET, attribute, ctypes.c_size_t(size), ctypes.c_uint32(0)), "Landlock"
    )
    try:
        for folder in writable:
            _allow_path(ruleset, folder, handled)
        for device in DEVICES:
            for path in glob.glob(device):
                if not os.path.isdir(path):
                    _allow_path(ruleset, path, handled & (_WRITE_FILE | _TRUNCATE))
        _check_call(libc.syscall(_RESTRICT_SELF, ruleset, ctypes.c_uint32(0)), "Landlock")
    finally:
        os.close(ruleset)


def _allow_path(ruleset: int, path: str, access: int) -> None:
    try:
        where = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENXIO, errno.EACCES):
            return
        raise
    try:
        rule = struct.pack("<Qi", access, where)
        _check_call(_load_libc().syscall(_ADD_RULE, ruleset, 1, rule, ctypes.c_uint32(0)), "Landlock, for " + path)
    finally:
        os.close(where)


def _enter_namespaces(writable: Sequence[str]) -> None:
    """Make every file system read-only in a new mount namespace, and enter an empty network namespace."""
    user, group = os.getuid(), os.getgid()
    libc = _load_libc()
    flags = _CLONE_NEWUSER | _CLONE_NEWNS | _CLONE_NEWNET | _CLONE_NEWIPC
    if libc.unshare(flags) != 0:
        reason = os.strerror(ctypes.get_errno())
        raise SandboxError(
            "this kernel ({}) has no Landlock (Linux 5.13 and later, if it was built with it), and user namespaces are "
            "refused: {}".format(platform.release(), reason)
        )
    for name, text in (
        ("setgroups", "deny"),
        ("uid_map", "{0} {0} 1".format(user)),
        ("gid_map", "{0} {0} 1".format(group)),
    ):
        with open("/proc/self/" + name, "w") as file:
            file.write(text)
    _check_call(libc.mount(b"none", b"/", None, _MS_REC | _MS_PRIVATE, None), "a mount namespace")
    folders = [os.path.realpath(folder) for folder in writable]
    for folder in folders:
        path = os.fsencode(folder)
        _check_call(libc.mount(path, path, None, _MS_BIND, None), "a mount of " + folder)
    for target, options in _read_mounts():
        if target in folders:
            continue
        kept_flags = sum(bit for name, bit in _MOUNT_FLAGS.items() if name in options)
        outcome = libc.mount(b"none", os.fsencode(target), None, _MS_REMOUNT | _MS_BIND | _MS_RDONLY | kept_flags, None)
        if outcome != 0 and os.access(target, os.W_OK):
            raise SandboxError("{} cannot be made read-only: {}".format(target, os.strerror(ctypes.get_errno())))


def _read_mounts() -> List[Tuple[str, List[str]]]:
    mounts = []
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        for line in file:
            fields = line.split(" ")
            target = fields[4].replace("\\040", " ").replace("\\011", "\t").replace("\\134", "\\")
            mounts.append((target, fields[5].split(",")))
    return mounts


def _filter_calls(machine: str, signals_scoped: bool) -> None:
    """Install a seccomp filter that refuses the system calls of ``_SHARED`` and ``_MACHINES``.

    The program is classic BPF over struct seccomp_data: the system call's number at offset 0, the architecture at 4,
    the arguments from 16 on, 8 bytes each. Source: seccomp(2), linux/seccomp.h, linux/bpf_common.h.

    Args:
        machine: A key of ``_MACHINES``.
        signals_scoped: Whether Landlock keeps signals from other processes; if not, the filter allows signals to this
            process only.
    """
    audit, calls = _MACHINES[machine]
    # Instructions of classic BPF: load a word, jump if equal, jump if at least, and with a mask, return.
    load, equal, at_least, mask, give = 0x20, 0x15, 0x35, 0x54, 0x06
    refuse, allow = (give, 0, 0, 0x00050000 | errno.EPERM), (give, 0, 0, 0x7FFF0000)
    program: List[Tuple[int, int, int, int]] = [(load, 0, 0, 4), (equal, 1, 0, audit), refuse, (load, 0, 0, 0)]
    if machine == "x86_64":
        program += [(at_least, 0, 1, 0x40000000), refuse]  # the calls of the x32 ABI have numbers of their own
    # openat2 has its flags in memory, where a filter cannot see them: as on a kernel that has no such call.
    program += [(equal, 0, 1, _SHARED["openat2"]), (give, 0, 0, 0x00050000 | errno.ENOSYS)]
    for name, flags in (("open", 24), ("openat", 32)):
        if name in calls:
            program += [(equal, 0, 5, calls[name]), (load, 0, 0, flags), (mask, 0, 0, _O_TRUNC | _O_ACCMODE)]
            program += [(equal, 0, 1, _O_TRUNC), refuse, allow]
    for name in ("kill", "tgkill"):
        if not signals_scoped:
            program += [(equal, 0, 4, calls[name]), (load, 0, 0, 16), (equal, 0, 1, os.getpid()), allow, refuse]
    refused = [number for name, number in calls.items() if name not in _BY_ARGUMENT]
    refused += [number for name, number in _SHARED.items() if name != "openat2"]
    for number in refused:
        program += [(equal, 0, 1, number), refuse]
    program.append(allow)
    code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *instruction) for instruction in program))
    header = struct.pack("HxxxxxxP", len(program), ctypes.addressof(code))
    _check_call(_load_libc().prctl(_PR_SET_SECCOMP, 2, ctypes.c_char_p(header), 0, 0), "seccomp filters")


def _load_libc() -> Any:
    return ctypes.CDLL(None, use_errno=True)


def _check_call(outcome: int, what: str) -> int:
    if outcome < 0:
        raise SandboxError("this kernel refuses {}: {}".format(what, os.strerror(ctypes.get_errno())))
    return outcome

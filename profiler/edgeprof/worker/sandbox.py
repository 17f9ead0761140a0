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

from edgeprof.worker import syscalls

#: Devices that may be written: standard ones, and those by which GPUs and accelerators are driven.
DEVICES = (
    "/dev/null",
    "/dev/zero",
    "/dev/full",
    "/dev/random",
    "/dev/urandom",
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
_WRITE_FILE, _REFER, _TRUNCATE, _IOCTL_DEVICE = 1 << 1, 1 << 13, 1 << 14, 1 << 15
#: Writing, removing and making files of every kind: access rights 1 and 4 to 12.
_WRITES = _WRITE_FILE | sum(1 << bit for bit in range(4, 13))
_TCP = 0b11  # bind, connect
_SCOPED = 0b11  # abstract UNIX sockets, signals

_CLONE_NEWNS, _CLONE_NEWIPC, _CLONE_NEWUSER, _CLONE_NEWNET = 0x20000, 0x8000000, 0x10000000, 0x40000000
_MS_RDONLY, _MS_REMOUNT, _MS_BIND, _MS_REC, _MS_PRIVATE = 1, 32, 4096, 16384, 1 << 18
_MOUNT_FLAGS = {"nosuid": 2, "nodev": 4, "noexec": 8, "noatime": 1024, "nodiratime": 2048, "relatime": 1 << 21}

_PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS = 22, 38
#: linux/capability.h: version 3 of the structures, and the right to read files of others, which root keeps.
_CAPABILITY_VERSION, _CAP_DAC_READ_SEARCH = 0x20080522, 2

#: An instruction of a filter (linux/filter.h): code, jump if true, jump if false, operand.
_Instruction = Tuple[int, int, int, int]
_LOAD, _EQUAL, _AT_LEAST, _MASK, _RETURN = 0x20, 0x15, 0x35, 0x54, 0x06
_LOAD_NUMBER = (_LOAD, 0, 0, 0)
_ALLOW = (_RETURN, 0, 0, 0x7FFF0000)
_REFUSE = (_RETURN, 0, 0, 0x00050000 | errno.EPERM)
_UNKNOWN = (_RETURN, 0, 0, 0x00050000 | errno.ENOSYS)

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
    if machine not in syscalls.MACHINES or struct.calcsize("P") != 8:
        raise SandboxError("it is made for 64-bit x86 and ARM, not for {}".format(machine))
    version = landlock_version()
    if not version:
        _enter_namespaces(writable)
    _check_call(_load_libc().prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs")
    if version:
        _restrict_files(version, writable)
    _drop_capabilities()
    _filter_calls(machine, signals_scoped=version >= 6)
    _STATE["entered"] = "{}, seccomp".format("Landlock {}".format(version) if version else "user namespaces")
    return confined_by()


def _restrict_files(version: int, writable: Sequence[str]) -> None:
    handled = _WRITES
    for since, access in ((2, _REFER), (3, _TRUNCATE), (5, _IOCTL_DEVICE)):
        handled |= access if version >= since else 0
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
                    _allow_path(ruleset, path, handled & (_WRITE_FILE | _TRUNCATE | _IOCTL_DEVICE))
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


def _drop_capabilities() -> None:
    """Give up what root may do beyond its own files: another user's number, priorities, devices, kernel settings.

    Files may still be read: a model that belongs to another user runs as it does without a sandbox.
    """
    libc = _load_libc()
    header = ctypes.create_string_buffer(struct.pack("=Ii", _CAPABILITY_VERSION, 0), 8)
    content = ctypes.create_string_buffer(24)
    _check_call(libc.capget(header, content), "capget")
    permitted = struct.unpack("=6I", content.raw)[1] & 1 << _CAP_DAC_READ_SEARCH
    content.raw = struct.pack("=6I", permitted, permitted, 0, 0, 0, 0)
    _check_call(libc.capset(header, content), "giving up capabilities")


def _filter_calls(machine: str, signals_scoped: bool) -> None:
    """Install a seccomp filter that refuses the system calls of ``syscalls``.

    The program is classic BPF over struct seccomp_data: the system call's number at offset 0, the architecture at 4,
    the arguments from 16 on, 8 bytes each. Source: seccomp(2), linux/seccomp.h, linux/bpf_common.h.

    Args:
        machine: A key of ``syscalls.MACHINES``.
        signals_scoped: Whether Landlock keeps signals from other processes; if not, the filter allows signals to this
            process only.
    """
    which = list(syscalls.MACHINES).index(machine)
    program: List[_Instruction] = [(_LOAD, 0, 0, 4), (_EQUAL, 1, 0, syscalls.MACHINES[machine]), _REFUSE]
    program.append(_LOAD_NUMBER)
    if machine == "x86_64":
        program += [(_AT_LEAST, 0, 1, 0x40000000), _REFUSE]  # the calls of the x32 ABI have numbers of their own
    rules = syscalls.BY_ARGUMENT + (() if signals_scoped else syscalls.SIGNALS_BY_ARGUMENT)
    for at, rule in enumerate(rules):
        is_last = rule.numbers not in [later.numbers for later in rules[at + 1 :]]
        program += _test_argument(rule, rule.numbers[which], _ALLOW if is_last else _LOAD_NUMBER)
    for calls, answer in ((syscalls.UNKNOWN, _UNKNOWN), (syscalls.REFUSED, _REFUSE)):
        for numbers in calls.values():
            number = numbers[which]
            if number is not None:
                program += [(_EQUAL, 0, 1, number), answer]
    program.append(_ALLOW)
    code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *instruction) for instruction in program))
    header = struct.pack("HxxxxxxP", len(program), ctypes.addressof(code))
    _check_call(_load_libc().prctl(_PR_SET_SECCOMP, 2, ctypes.c_char_p(header), 0, 0), "seccomp filters")


def _test_argument(rule: syscalls.ArgumentRule, number: Optional[int], passed: _Instruction) -> List[_Instruction]:
    """What refuses a call for its argument, and does ``passed`` where the argument is none that is refused."""
    if number is None:
        return []
    values = [os.getpid() if value == syscalls.OWN_PID else value for value in rule.values]
    left = range(len(values) - 1, -1, -1)  # comparisons that follow; after them come the refusal and what passes
    if rule.allowed:
        tests = [(_EQUAL, following + 1, 0, value) for following, value in zip(left, values)]
    else:
        tests = [(_EQUAL, following, 0 if following else 1, value) for following, value in zip(left, values)]
    body = [(_LOAD, 0, 0, 16 + 8 * rule.argument), (_MASK, 0, 0, rule.mask), *tests, _REFUSE, passed]
    return [(_EQUAL, 0, len(body), number), *body]


def _load_libc() -> Any:
    return ctypes.CDLL(None, use_errno=True)


def _check_call(outcome: int, what: str) -> int:
    if outcome < 0:
        raise SandboxError("this kernel refuses {}: {}".format(what, os.strerror(ctypes.get_errno())))
    return outcome

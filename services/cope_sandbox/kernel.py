"""What the kernel is asked for: Landlock for files, seccomp for system calls. Standard library only, no helper.

Numbers are the kernel's interface: `linux/landlock.h`, `linux/seccomp.h`, `linux/filter.h`. System call numbers differ
by architecture, so an unknown one is refused instead of guessed.
"""

import ctypes
import os
import platform
import struct
from collections.abc import Sequence

_libc = ctypes.CDLL(None, use_errno=True)

_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_SECCOMP, _PR_SET_CHILD_SUBREAPER, _PR_SET_NO_NEW_PRIVS = 1, 4, 22, 36, 38

# ---- Landlock --------------------------------------------------------------------------------------------------------

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446  # alike on every architecture
_READ_FILE, _READ_DIR = 1 << 2, 1 << 3
# How many file rights each version of the interface knows: a right that is not handled is not restricted.
_FS_RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15}
_FS_RIGHTS_NEWEST = 16
_NET_TCP = 0b11
_SCOPES = 0b11  # abstract unix sockets, signals


class NotSound(Exception):
    """The kernel lacks, or refuses, something without which no foreign code may run here."""


def _syscall(number: int, *arguments: object) -> int:
    result = int(_libc.syscall(ctypes.c_long(number), *arguments))
    if result < 0:
        error = ctypes.get_errno()
        raise NotSound(f"system call {number}: {os.strerror(error)}")
    return result


def landlock_version() -> int:
    """The kernel's Landlock interface, 0 where there is none (Linux before 5.13, or switched off at boot)."""
    try:
        return _syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint32(1))
    except NotSound:
        return 0


def allow_reading_only(paths: Sequence[str]) -> None:
    """From here on this process reads beneath `paths` and touches no other file: no writing, no making, no executing.

    TCP and, where the kernel knows how, abstract sockets and signals to processes outside are refused too.
    """
    version = landlock_version()
    if version < 1:
        raise NotSound("the kernel has no Landlock (Linux 5.13 or newer with `landlock` among its security modules)")
    rights = (1 << _FS_RIGHTS.get(version, _FS_RIGHTS_NEWEST)) - 1
    attributes = struct.pack("=Q", rights)
    if version >= 4:
        attributes += struct.pack("=Q", _NET_TCP)
    if version >= 6:
        attributes += struct.pack("=Q", _SCOPES)
    ruleset = _syscall(_CREATE_RULESET, attributes, ctypes.c_size_t(len(attributes)), ctypes.c_uint32(0))
    for path in paths:
        place = os.open(path, os.O_PATH | os.O_CLOEXEC)
        beneath = struct.pack("=Qi", _READ_FILE | _READ_DIR, place)
        _syscall(_ADD_RULE, ctypes.c_int(ruleset), ctypes.c_int(1), beneath, ctypes.c_uint32(0))
        os.close(place)
    _syscall(_RESTRICT_SELF, ctypes.c_int(ruleset), ctypes.c_uint32(0))
    os.close(ruleset)


# ---- seccomp ---------------------------------------------------------------------------------------------------------

_AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}

# What an interpreter that is already running needs to compute, import and write to pipes it holds. Absent on purpose:
# everything that makes a process or thread, a socket, a name in the file system, a mapping of another process, a timer
# or a limit.
_ALLOWED = {
    "x86_64": {
        "read": 0, "write": 1, "open": 2, "close": 3, "stat": 4, "fstat": 5, "lstat": 6, "poll": 7, "lseek": 8,
        "mmap": 9, "mprotect": 10, "munmap": 11, "brk": 12, "rt_sigaction": 13, "rt_sigprocmask": 14,
        "rt_sigreturn": 15, "pread64": 17, "readv": 19, "writev": 20, "access": 21, "select": 23, "sched_yield": 24,
        "mremap": 25, "madvise": 28, "dup": 32, "nanosleep": 35, "getpid": 39, "exit": 60, "uname": 63, "fcntl": 72,
        "getcwd": 79, "readlink": 89, "gettimeofday": 96, "getrlimit": 97, "getrusage": 98, "times": 100,
        "getuid": 102, "getgid": 104, "geteuid": 107, "getegid": 108, "sigaltstack": 131, "gettid": 186, "time": 201,
        "futex": 202, "sched_getaffinity": 204, "getdents64": 217, "restart_syscall": 219, "clock_gettime": 228,
        "clock_getres": 229, "clock_nanosleep": 230, "exit_group": 231, "openat": 257, "newfstatat": 262,
        "readlinkat": 267, "faccessat": 269, "pselect6": 270, "ppoll": 271, "getrandom": 318, "statx": 332,
        "faccessat2": 439,
    },
    "aarch64": {
        "getcwd": 17, "dup": 23, "fcntl": 25, "faccessat": 48, "openat": 56, "close": 57, "getdents64": 61,
        "lseek": 62, "read": 63, "write": 64, "readv": 65, "writev": 66, "pread64": 67, "pselect6": 72, "ppoll": 73,
        "readlinkat": 78, "newfstatat": 79, "fstat": 80, "exit": 93, "exit_group": 94, "futex": 98, "nanosleep": 101,
        "clock_gettime": 113, "clock_getres": 114, "clock_nanosleep": 115, "sched_getaffinity": 123,
        "sched_yield": 124, "restart_syscall": 128, "sigaltstack": 132, "rt_sigaction": 134, "rt_sigprocmask": 135,
        "rt_sigreturn": 139, "times": 153, "uname": 160, "getrlimit": 163, "getrusage": 165, "gettimeofday": 169,
        "getpid": 172, "getuid": 174, "geteuid": 175, "getgid": 176, "getegid": 177, "gettid": 178, "brk": 214,
        "munmap": 215, "mremap": 216, "mmap": 222, "mprotect": 226, "madvise": 233, "getrandom": 278, "statx": 291,
        "faccessat2": 439,
    },
}  # fmt: skip
_IOCTL = {"x86_64": 16, "aarch64": 29}
_TERMINAL_QUESTIONS = (0x5401, 0x5451, 0x5450)  # TCGETS ("is it a terminal?"), FIOCLEX, FIONCLEX

_LOAD, _JUMP_EQUAL, _JUMP_AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06
_KILL, _ERRNO, _ALLOW = 0x80000000, 0x00050000, 0x7FFF0000
_EPERM, _ENOTTY = 1, 25
_X32 = 0x40000000
_NR_AT, _ARCH_AT, _SECOND_ARGUMENT_AT = 0, 4, 24


def _instruction(code: int, value: int, *, then: int = 0, otherwise: int = 0) -> bytes:
    return struct.pack("=HBBI", code, then, otherwise, value)


def compute_only_filter(machine: str) -> bytes:
    """The filter as Berkeley packet filter instructions. Raises `NotSound` for an architecture without a table."""
    if machine not in _ALLOWED:
        raise NotSound(f"no table of system calls for the architecture {machine!r}")
    program = [
        _instruction(_LOAD, _ARCH_AT),
        _instruction(_JUMP_EQUAL, _AUDIT_ARCH[machine], then=1),
        _instruction(_RETURN, _KILL),  # 32-bit calls have other numbers: whoever makes one means no good
        _instruction(_LOAD, _NR_AT),
        _instruction(_JUMP_AT_LEAST, _X32, otherwise=1),
        _instruction(_RETURN, _KILL),
    ]
    for number in _ALLOWED[machine].values():
        program += [_instruction(_JUMP_EQUAL, number, otherwise=1), _instruction(_RETURN, _ALLOW)]
    program += [
        _instruction(_JUMP_EQUAL, _IOCTL[machine], then=1),
        _instruction(_RETURN, _ERRNO | _EPERM),
        _instruction(_LOAD, _SECOND_ARGUMENT_AT),
    ]
    for question in _TERMINAL_QUESTIONS:
        program += [_instruction(_JUMP_EQUAL, question, otherwise=1), _instruction(_RETURN, _ALLOW)]
    return b"".join([*program, _instruction(_RETURN, _ERRNO | _ENOTTY)])


def allow_computing_only(instructions: bytes) -> None:
    """From here on this process makes no system call that `compute_only_filter` does not list."""
    body = ctypes.create_string_buffer(instructions, len(instructions))
    program = ctypes.create_string_buffer(
        struct.pack("@HP", len(instructions) // 8, ctypes.addressof(body)), struct.calcsize("@HP")
    )
    if _libc.prctl(_PR_SET_SECCOMP, 2, program, 0, 0) != 0:
        raise NotSound(f"seccomp: {os.strerror(ctypes.get_errno())}")


# ---- the rest --------------------------------------------------------------------------------------------------------


def _prctl(option: int, value: int) -> None:
    if _libc.prctl(option, ctypes.c_ulong(value), ctypes.c_ulong(0), ctypes.c_ulong(0), ctypes.c_ulong(0)) != 0:
        raise NotSound(f"prctl {option}: {os.strerror(ctypes.get_errno())}")


def gain_no_privileges() -> None:
    """No later program can give this process more rights. Landlock and seccomp ask for it."""
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)


def show_nothing_of_memory() -> None:
    """Other processes of the same user can't look into this one."""
    _prctl(_PR_SET_DUMPABLE, 0)


def die_with_parent(signal_number: int) -> None:
    """The signal this process gets when its parent ends."""
    _prctl(_PR_SET_PDEATHSIG, signal_number)


def adopt_orphans() -> None:
    """Grandchildren that lose their parent become this process's children, so that it can end them."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def machine() -> str:
    """The architecture, as the tables name it."""
    return platform.machine()

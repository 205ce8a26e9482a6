"""A processor with AMX as one that has no more than AVX512-VNNI, for this process and its children.

Linux gives a process AMX's registers when it asks (`arch_prctl(ARCH_REQ_XCOMP_PERM, 18)`), and is told to refuse. The
instructions for bfloat16 that come with AMX on nearly every processor cannot be refused: oneDNN, and so torch and
OpenVINO, is told not to use them.
"""

import ctypes
import os
import platform
import struct
import sys

ONEDNN_LIMIT = ("ONEDNN_MAX_CPU_ISA", "AVX512_CORE_VNNI")

_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _SECCOMP_MODE_FILTER = 38, 22, 2
_ARCH_PRCTL, _REQUEST_PERMISSION = 158, 0x1023
_LOAD_WORD, _JUMP_IF_EQUAL, _RETURN = 0x20, 0x15, 0x06
_NUMBER, _FIRST_ARGUMENT = 0, 16
"""Offsets in the kernel's `seccomp_data`."""
_ALLOW, _FAIL_WITH_EPERM = 0x7FFF0000, 0x00050001
_FILTER = (
    (_LOAD_WORD, 0, 0, _NUMBER),
    (_JUMP_IF_EQUAL, 0, 3, _ARCH_PRCTL),
    (_LOAD_WORD, 0, 0, _FIRST_ARGUMENT),
    (_JUMP_IF_EQUAL, 0, 1, _REQUEST_PERMISSION),
    (_RETURN, 0, 0, _FAIL_WITH_EPERM),
    (_RETURN, 0, 0, _ALLOW),
)


def forbid_tiles() -> None:
    """From now on, for good, and before oneDNN is loaded.

    Raises `OSError` where the system does not take it (Linux on x86-64 does).
    """
    if sys.platform != "linux" or platform.machine() != "x86_64":
        raise OSError("AMX can be forbidden by Linux on x86-64 alone")
    code = b"".join(struct.pack("HBBI", *step) for step in _FILTER)
    held = ctypes.create_string_buffer(code, len(code))
    program = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(_FILTER), ctypes.addressof(held)))
    library = ctypes.CDLL(None, use_errno=True)
    steps = ((_PR_SET_NO_NEW_PRIVS, 1, 0), (_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.addressof(program)))
    for step, how, where in steps:
        if library.prctl(step, ctypes.c_ulong(how), ctypes.c_ulong(where), 0, 0) != 0:
            raise OSError(ctypes.get_errno(), "the system does not take a filter of system calls")
    name, limit = ONEDNN_LIMIT
    os.environ[name] = limit


def limited() -> bool:
    """Whether `forbid_tiles` was called here, or in a process that this one is a child of."""
    name, limit = ONEDNN_LIMIT
    return os.environ.get(name) == limit

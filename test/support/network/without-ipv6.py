"""without-ipv6.py PROGRAM ARGUMENT...: runs a program for which the kernel has no IPv6, by a seccomp filter."""
import ctypes, os, struct, sys

ALLOW, FAIL_WITH = 0x7FFF0000, 0x00050000
EAFNOSUPPORT, AF_INET6 = 97, 10
SOCKET = {"x86_64": 41, "aarch64": 198}[os.uname().machine]
# Offsets in struct seccomp_data: 0 is the number of the system call, 16 its first argument.
LOAD, IF_EQUAL, RETURN = 0x20, 0x15, 0x06
FILTER = [
    (LOAD, 0, 0, 0),
    (IF_EQUAL, 0, 3, SOCKET),
    (LOAD, 0, 0, 16),
    (IF_EQUAL, 0, 1, AF_INET6),
    (RETURN, 0, 0, FAIL_WITH | EAFNOSUPPORT),
    (RETURN, 0, 0, ALLOW),
]


class Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_void_p)]


code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *instruction) for instruction in FILTER))
program = Program(len(FILTER), ctypes.addressof(code))
libc = ctypes.CDLL(None, use_errno=True)
PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 38, 22, 2
for arguments in [(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), (PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(program), 0, 0)]:
    if libc.prctl(*arguments) != 0:
        sys.exit(f"prctl: {os.strerror(ctypes.get_errno())}")
os.execvp(sys.argv[1], sys.argv[1:])

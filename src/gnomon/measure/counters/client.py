"""Requests of a program to the valgrind that runs it: count from here, forget, write down, stop.

A request is a sequence of instructions that changes nothing on a processor and that valgrind's recompiler knows
(valgrind.h, __SPECIAL_INSTRUCTION_PREAMBLE). It is written here as machine code into a page of memory, because a C
compiler is more than a measurement should need.
"""

import ctypes
import mmap
import platform
from typing import Final

_RUNNING_ON_VALGRIND = 0x1001
_CALLGRIND = (ord("C") << 24) | (ord("T") << 16)  # callgrind.h: Vg_CallgrindClientRequest
DUMP, ZERO, START, STOP = (_CALLGRIND + i for i in (0, 1, 4, 5))

_X86_64: Final = bytes.fromhex(
    "4889f8"  # mov rax, rdi: the address of the request and its arguments
    "31d2"  # xor edx, edx: the answer where there is no valgrind
    "48c1c703 48c1c70d 48c1c73d 48c1c733"  # rol rdi by 3, 13, 61, 51: by 128 in all, so by nothing
    "4887db"  # xchg rbx, rbx: here valgrind looks
    "4889d0 c3"  # mov rax, rdx; ret
)


def why_not() -> str | None:
    """The reason why no request can be made on this processor, or None."""
    if platform.machine() != "x86_64":
        return f"requests to valgrind are known for x86-64 only; this is {platform.machine()}"
    return None


class Client:
    """Makes requests. Outside of valgrind each of them answers 0 and does nothing."""

    def __init__(self) -> None:
        self._page = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
        self._page.write(_X86_64)
        address = ctypes.addressof(ctypes.c_char.from_buffer(self._page))
        self._call = ctypes.CFUNCTYPE(ctypes.c_uint64, ctypes.c_void_p)(address)

    def request(self, number: int) -> int:
        """Valgrind's answer, 0 where there is none."""
        arguments = (ctypes.c_uint64 * 6)(number)
        answer: int = self._call(ctypes.addressof(arguments))
        return answer

    @property
    def is_watched(self) -> bool:
        """Does this process run under valgrind?"""
        return self.request(_RUNNING_ON_VALGRIND) > 0

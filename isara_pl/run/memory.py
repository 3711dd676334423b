"""Memory: what the C library does with what was freed, how much is in use, and how a lack of it is known."""

import ctypes
import platform
import sys
from contextlib import suppress
from pathlib import Path

import torch

# of glibc's malloc.h
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_LARGEST_MMAP_THRESHOLD = 32 * 2**20  # the most that glibc admits


def keep_freed_memory(most: int = 2**31 - 1) -> bool:
    """Let this process keep so many bytes of the memory that it frees, instead of giving it back and asking again.

    On a CPU every layer allocates and frees tensors of megabytes; with glibc's own settings the system takes each back
    and clears it anew. A setting of the whole process, so only the command line makes it. Gives whether there was
    something to set: on Linux with glibc.
    """
    if not _is_glibc():
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return bool(mallopt(_M_MMAP_THRESHOLD, _LARGEST_MMAP_THRESHOLD) and mallopt(_M_TRIM_THRESHOLD, most))


def give_back_freed_memory() -> None:
    """Give what was freed so far back to the system, once: what follows may need memory of other sizes."""
    if _is_glibc():
        ctypes.CDLL(None).malloc_trim(0)


def _is_glibc() -> bool:
    return platform.libc_ver()[0] == "glibc"


def is_out_of_memory(error: Exception) -> bool:
    """Whether a computation failed because the device's memory did not suffice."""
    said = str(error)
    return isinstance(error, torch.OutOfMemoryError) or any(
        words in said
        for words in ("can't allocate memory", "not enough memory", "out of memory", "CUBLAS_STATUS_ALLOC_FAILED")
    )


class PeakMemory:
    """The most memory that was in use since `reset`: on the GPU where there is one, else of this process.

    Where the system cannot forget an earlier peak (not Linux), it is the most since the process began.
    """

    def reset(self) -> None:
        """Begin anew from what is in use now."""
        if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]  # torch gives it no types
            torch.cuda.reset_peak_memory_stats()
        else:
            with suppress(OSError):  # proc(5): 5 resets the peak of the resident memory
                Path("/proc/self/clear_refs").write_text("5")

    def read(self) -> int:
        """Give the peak in bytes."""
        if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]  # torch gives it no types
            return torch.cuda.max_memory_allocated()
        with suppress(OSError):
            for line in Path("/proc/self/status").read_text().splitlines():
                if line.startswith("VmHWM:"):
                    return int(line.split()[1]) * 1024
        return _highest_resident()


def _highest_resident() -> int:
    try:
        import resource
    except ImportError:  # Windows has none
        return 0
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit

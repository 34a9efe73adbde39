"""Right convolutions that take memory in every way: kept, leaked, in cycles, from C."""

import ctypes
import functools
import subprocess
import tempfile
from pathlib import Path

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

MIB = 2**20
AT_IMPORT = np.ones(3 * MIB, np.uint8)

kept = {}
leaked = []


def _convolved(x, kernel):
    windows = sliding_window_view(x, kernel.shape[2:], axis=(2, 3))
    return np.einsum("bchwij,fcij->bfhw", windows, kernel)


def takes_memory_at_import(x, kernel):
    return _convolved(x, kernel)


def keeps_a_table(x, kernel):
    """Make a table in the first call, and keep it in the module."""
    if "table" not in kept:
        kept["table"] = np.ones(5 * MIB, np.uint8)
    return _convolved(x, kernel)


def grows_with_layers(x, kernel):
    """Keep a workspace that is as large as the largest layer so far needs it."""
    size = 64 * x.size
    if "workspace" not in kept or len(kept["workspace"]) < size:
        kept["workspace"] = np.ones(size, np.uint8)
    return _convolved(x, kernel)


def leaks(x, kernel):
    leaked.append(np.ones(2 * MIB, np.uint8))
    return _convolved(x, kernel)


def leaves_cycles(x, kernel):
    cycle = [np.ones(2 * MIB, np.uint8)]
    cycle.append(cycle)
    return _convolved(x, kernel)


def _touched(address, size):
    ctypes.memset(address, 1, size)
    return address


def _process():
    """Return the symbols of the process itself, whose malloc no meter replaces."""
    library = ctypes.CDLL(None)
    library.malloc.restype, library.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
    library.free.restype, library.free.argtypes = None, [ctypes.c_void_p]
    return library


def calls_malloc(x, kernel):
    library = _process()
    library.free(_touched(library.malloc(8 * MIB), 8 * MIB))
    return _convolved(x, kernel)


def keeps_what_malloc_gave(x, kernel):
    if "address" not in kept:
        kept["address"] = _touched(_process().malloc(8 * MIB), 8 * MIB)
    return _convolved(x, kernel)


SOURCE = """
#include <stdlib.h>
#include <string.h>

void by_malloc(long n) { void *p = malloc(n); memset(p, 1, n); free(p); }
void by_aligned_alloc(long n) { void *p = aligned_alloc(64, n); memset(p, 1, n); free(p); }
void by_posix_memalign(long n) {
    void *p;
    if (posix_memalign(&p, 64, n)) abort();
    memset(p, 1, n);
    free(p);
}
"""


@functools.cache
def _library():
    with tempfile.TemporaryDirectory() as folder:
        source, library = Path(folder) / "memory.c", Path(folder) / "memory.so"
        source.write_text(SOURCE)
        subprocess.run(["cc", "-O0", "-shared", "-fPIC", source, "-o", library], check=True)
        return ctypes.CDLL(str(library))


def malloc_in_c(x, kernel):
    _library().by_malloc(ctypes.c_long(6 * MIB))
    return _convolved(x, kernel)


def aligned_alloc_in_c(x, kernel):
    _library().by_aligned_alloc(ctypes.c_long(6 * MIB))
    return _convolved(x, kernel)


def posix_memalign_in_c(x, kernel):
    _library().by_posix_memalign(ctypes.c_long(6 * MIB))
    return _convolved(x, kernel)

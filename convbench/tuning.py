"""What implementations choose by: the sizes of one core's caches."""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path("/")
"""Where /proc and /sys are; tests point it at a tree of their own."""

TYPICAL_L1D_BYTES = 32 * 1024
TYPICAL_L2_BYTES = 1024 * 1024

_CACHE_FILES = ("level", "type", "size")
_UNITS = {"": 1, "K": 1024, "M": 1024**2, "G": 1024**3}


@dataclass(frozen=True)
class CacheSizes:
    """Data caches that one core has to itself, in bytes."""

    l1d: int = TYPICAL_L1D_BYTES
    l2: int = TYPICAL_L2_BYTES


def read_caches(root: Path = ROOT) -> dict[str, int]:
    """Caches that CPU 0 sees, in bytes by name (`L1d`, `L1i`, `L2`, `L3`); empty where unknown."""
    caches = {}
    for index in sorted((root / "sys/devices/system/cpu/cpu0/cache").glob("index*")):
        try:
            level, kind, size = ((index / name).read_text().strip() for name in _CACHE_FILES)
        except OSError:
            continue
        match = re.fullmatch(r"(\d+)([KMG]?)", size)
        if match and int(match[1]):
            name = f"L{level}" + {"Data": "d", "Instruction": "i"}.get(kind, "")
            caches[name] = int(match[1]) * _UNITS[match[2]]
    return caches


@functools.cache
def cache_bytes(root: Path = ROOT) -> CacheSizes:
    """L1d and L2 of one core, typical sizes where the system does not tell."""
    caches = read_caches(root)
    return CacheSizes(
        l1d=caches.get("L1d", TYPICAL_L1D_BYTES), l2=caches.get("L2", TYPICAL_L2_BYTES)
    )

"""Figures as files: what was measured, by which command, on which machine, under which load."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np


@dataclass(frozen=True, slots=True)
class Spread:
    """Median, lowest and highest of a few runs, and how many."""

    median: float
    lowest: float
    highest: float
    runs: int

    def text(self, digits: int = 0) -> str:
        """For a table cell."""
        return f"{self.median:,.{digits}f} ({self.lowest:,.{digits}f} to {self.highest:,.{digits}f})"


def spread(values: Sequence[float]) -> Spread:
    """Of at least one value; raises ValueError for none."""
    if not values:
        raise ValueError("a spread needs at least one value")
    return Spread(median(values), min(values), max(values), len(values))


def percentiles(values: Sequence[float], shares: Sequence[float] = (50, 99)) -> dict[str, float]:
    """`{"p50": …}` by linear interpolation between the nearest ranks; raises ValueError for no values."""
    if not len(values):
        raise ValueError("percentiles need at least one value")
    found = np.percentile(np.asarray(values, np.float64), list(shares))
    return {f"p{share:g}": float(value) for share, value in zip(shares, found, strict=True)}


def machine() -> dict[str, Any]:
    """Processor, cores, memory, versions and how busy the machine was in the last minute."""
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30)),
        "system": platform.system(),
        "python": platform.python_version(),
        "load_average_1m": os.getloadavg()[0],
    }


def save(folder: Path, name: str, command: str, figures: Mapping[str, Any]) -> Path:
    """Write `<name>.json`, over an older one; returns the file. Dataclasses among the figures become objects."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{name}.json"
    content = {
        "date": datetime.now(UTC).date().isoformat(),
        "command": command,
        "machine": machine(),
        "figures": figures,
    }
    file.write_text(json.dumps(content, indent=1, default=_as_object) + "\n")
    return file


def _as_object(value: Any) -> Any:
    if hasattr(value, "__dataclass_fields__"):
        return asdict(value)
    raise TypeError(f"{type(value).__name__} cannot be saved")


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor()

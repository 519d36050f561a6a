"""Commands measured as a user runs them: each in a process of its own."""

import os
import subprocess
import sys
import time


def measured(arguments: list[str]) -> dict[str, float]:
    """Run `python ARGUMENTS`: its wall time in seconds and the peak of its memory in GB; RuntimeError if it fails."""
    begun = time.monotonic()
    process = subprocess.Popen([sys.executable, *arguments])
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise RuntimeError(f"python {' '.join(arguments)} failed")
    return {"seconds": time.monotonic() - begun, "peak_gb": usage.ru_maxrss * 1024 / 1e9}

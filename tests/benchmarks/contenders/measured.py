"""Runs a script, as `python SCRIPT ARGUMENTS…` does, and writes down the peak of the process's memory, in bytes.

`getrusage` will not do: its peak is also that of the process before exec, which belongs to whoever started this one.
"""

import runpy
import sys
from pathlib import Path

peak, *sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
kilobytes = Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]
Path(peak).write_text(str(int(kilobytes) * 1024))

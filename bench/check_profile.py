"""How long one profile of pvh check takes: the guest built anew, run to its milestone, and given back.

python -m bench.check_profile [KERNEL] [TIMES]
"""

from __future__ import annotations

import sys
from statistics import median
from time import perf_counter

from pvh import demo_path
from pvh.build.builder import build
from pvh.conformance.boot import Limits, boot
from pvh.conformance.checker import Task, mappable, trial
from pvh.conformance.profiles import applied, profiles
from pvh.engines.select import choose
from pvh.kernel.read import read_kernel
from pvh.plan.options import BootOptions
from pvh.plan.planner import plan


def main(path: str, times: int) -> None:
    """Print the median milliseconds of each profile, of that the build alone, and the median of all."""
    engine = choose("emulator", print)
    task, _ = trial(Task(mappable(read_kernel(path)), BootOptions(), (), Limits()), engine)
    wholes: list[float] = []
    for profile in profiles(task.kernel, task.options):
        options = applied(task.options, profile.deviations)
        built: list[float] = []
        whole: list[float] = []
        for _ in range(times):
            begun = perf_counter()
            build(plan(task.kernel, options)).ram.close()
            then = perf_counter()
            boot(task.kernel, options, engine, task.way, task.limits)
            built.append((then - begun) * 1000)
            whole.append((perf_counter() - then) * 1000)
        wholes.append(median(whole))
        print(f"{profile.name:14} {median(whole):6.1f} ms, of that {median(built):5.1f} to build the guest")
    print(f"median {median(wholes):.1f} ms, longest {max(wholes):.1f} ms, {times} times each")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else demo_path(), int(sys.argv[2]) if len(sys.argv) > 2 else 9)

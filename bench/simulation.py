"""How fast the simulator is, on one core and with all of them.

    python bench/simulation.py [--duration 60] [--seeds 3] [--rate 120]

Simulated seconds per real second for three nodes and ten clients: calm, with every fault, and with a trace recorded;
then a campaign of many seeds with a process on every core.  Clients wait for their answers, so they do fewer operations
than they are asked for; at 120 a second they do 100 while they work (and none while a run is brought to its end, which
counts as well).  The target is 30 on one core.
"""

from __future__ import annotations

import argparse
import os
import time
from dataclasses import replace

from quorate.simulation.campaign import campaign
from quorate.simulation.run import Options, draw_plan, run, run_seed

TARGET = 30.0


def measure(name: str, options: Options, seeds: int, *, record: bool = False) -> float:
    """Print and return simulated seconds per second of this process's processor time."""
    simulated_s = operations = 0.0
    began_s = time.process_time()
    for seed in range(seeds):
        outcome = run_seed(seed, options, record=record)
        assert outcome.violation is None, f"seed {seed}: {outcome.violation}"
        simulated_s += outcome.simulated_s
        operations += outcome.coverage["operations"]
    speed = simulated_s / (time.process_time() - began_s)
    print(f"{name:<28} {speed:8.1f} simulated s/s   {operations / simulated_s:6.1f} operations per simulated s")
    return speed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--duration", type=float, default=60.0, help="simulated seconds of each run")
    parser.add_argument("--seeds", type=int, default=3, help="runs for each figure")
    parser.add_argument("--rate", type=float, default=120.0, help="operations that are asked for per simulated second")
    arguments = parser.parse_args()
    everything = Options(duration_s=arguments.duration, operations_per_s=arguments.rate)
    calm = replace(everything, faults=())
    speed = measure("3 nodes, no faults", calm, arguments.seeds)
    measure("3 nodes, all faults", everything, arguments.seeds)
    measure("3 nodes, all faults, traced", everything, arguments.seeds, record=True)
    measure("5 nodes, all faults", replace(everything, nodes=5), arguments.seeds)
    jobs = os.cpu_count() or 1
    began_s = time.perf_counter()
    plans = [draw_plan(seed, everything) for seed in range(4 * jobs)]
    simulated_s = sum(summary.simulated_s for summary in campaign(plans, run, jobs))
    print(
        f"{f'3 nodes, all faults, {jobs} jobs':<28} {simulated_s / (time.perf_counter() - began_s):8.1f} simulated s/s"
    )
    print(f"target {TARGET:.0f} simulated s/s on one core: {'met' if speed >= TARGET else 'MISSED'}")


if __name__ == "__main__":
    main()

"""How long `hfwarmup plan` and `hfwarmup plot -o x.png` take as whole processes, beside a Python that does nothing.

    python benchmarks/cli.py [--runs 15]

Medians of runs that take turns, so that a busy machine is busy for all of them. Goals: plan 0.3 s, plot 1.5 s.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

CONFIG = Path(__file__).resolve().parents[1] / "configs" / "pretrain_clm" / "stdlib.yaml"


def seconds_of(words: list[str], folder: str) -> float:
    """Wall-clock seconds of one process."""
    begin = time.perf_counter()
    subprocess.run([sys.executable, *words], cwd=folder, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - begin


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=15)
    runs = parser.parse_args().runs
    cli = ["-m", "hfwarmup.cli"]
    commands = {
        "python -c pass": ["-c", "pass"],
        "hfwarmup plan": [*cli, "plan", str(CONFIG)],
        "hfwarmup plan --num_processes 1,8,64": [*cli, "plan", str(CONFIG), "--num_processes", "1,8,64"],
        "hfwarmup plot": [*cli, "plot", str(CONFIG)],
        "hfwarmup plot -o x.png": [*cli, "plot", str(CONFIG), "-o", "x.png"],
    }
    times: dict[str, list[float]] = {name: [] for name in commands}
    with tempfile.TemporaryDirectory() as folder:
        for words in commands.values():
            seconds_of(words, folder)  # compiled and in the page cache
        for _ in range(runs):
            for name, words in commands.items():
                times[name].append(seconds_of(words, folder))
    nothing = statistics.median(times["python -c pass"])
    print(f"{'median of ' + str(runs) + ' processes':<40} {'seconds':>8} {'times python -c pass':>22}")
    for name, each in times.items():
        print(f"{name:<40} {statistics.median(each):>8.3f} {statistics.median(each) / nothing:>22.1f}")


if __name__ == "__main__":
    main()

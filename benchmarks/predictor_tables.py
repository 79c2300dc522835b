"""The tables of docs/predictors.md, from the runs that predictors.py made.

    python benchmarks/predictor_tables.py [--csv docs/predictors.csv]

A cell's price is its final validation loss less the best one of its rig, peak and seed over all warmups. Each
measurement is read at 10% and at 25% of the run and ranked against the prices of the rig's cells (Spearman's rho over
peaks, warmups and seeds together).
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
from pathlib import Path
from typing import Any

import pandas as pd
from predictors import CHECK_SHARES, RESULTS, RIGS, WARMUP_SHARES

from hfwarmup.measuring.spikes import robust_z_scores
from hfwarmup.measuring.verdict import MEASURED, Diagnosis, diagnose

READ_AT = (0.10, 0.25)
WORTH = 0.01  # a gentler ramp must gain 1% of the loss to count


def read_cells() -> pd.DataFrame:
    """A row a cell: its settings, its price (nats) and the log of its training."""
    rows = [json.loads(line) for line in RESULTS.read_text().splitlines()]
    table = pd.DataFrame(rows).drop_duplicates(["rig", "peak", "warmup_share", "seed"], keep="last")
    table["final_loss"] = table["final_loss"].fillna(math.inf)  # diverged: worse than all that did not
    table["price"] = table["final_loss"] - table.groupby(["rig", "peak", "seed"])["final_loss"].transform("min")
    return table


def measurements(log: list[dict[str, Any]], share: float) -> dict[str, float]:
    """What had been measured when `share` of the run was done."""
    steps = max(entry["step"] for entry in log)
    entries = [entry for entry in log if "loss" in entry and entry["step"] <= share * steps]
    measured = [entry for entry in entries if MEASURED + "relative_update" in entry]
    if not measured:  # stopped by a loss that is not finite
        return {}
    last = {name.removeprefix(MEASURED): value for name, value in measured[-1].items() if name.startswith(MEASURED)}
    losses = [entry["loss"] for entry in entries]
    return {
        "effective rank / its start": last["effective_rank_ratio"],
        "lowest effective rank / its start": min(entry[MEASURED + "effective_rank_ratio"] for entry in measured),
        "largest relative update": last["max_relative_update"],
        "relative update": last["relative_update"],
        "angle of the update": last["angle"],
        "change of the representation": last["representation_change"],
        "lowest gradient norm": min(entry["grad_norm"] for entry in entries),
        "share of clipped updates": last.get("clipped_share", math.nan),
        "training loss": sum(losses[-5:]) / len(losses[-5:]),
        "largest loss z-score": max((z for z in robust_z_scores(losses) if not math.isnan(z)), default=math.nan),
    }


def predictor_table(cells_done: pd.DataFrame, against: str) -> str:
    """Spearman's rho of each measurement with a column of the cells, a column a rig and a share of the run."""
    columns = {}
    whole = [name for name, rig in RIGS.items() if rig.warmup_shares == WARMUP_SHARES]
    for rig, share in itertools.product(whole, READ_AT):
        of_rig = cells_done[(cells_done["rig"] == rig) & cells_done["seed"].isin((0, 1)) & _in_grid(cells_done)]
        read = pd.DataFrame([measurements(log, share) for log in of_rig["log"]], index=of_rig.index).dropna(how="all")
        if len(read):
            ranked = read.rank().corrwith(of_rig.loc[read.index, against].rank())
            columns[f"{rig}, {share:.0%} of {len(read)} runs"] = ranked
    table = pd.DataFrame(columns)
    lines = ["| measurement | " + " | ".join(table.columns) + " |", "|---" * (len(table.columns) + 1) + "|"]
    lines += [f"| {name} | " + " | ".join(f"{rho:+.2f}" for rho in row) + " |" for name, row in table.iterrows()]
    return "\n".join(lines)


def loss_table(cells_done: pd.DataFrame) -> str:
    """Final validation losses, the mean over the seeds, a column a warmup."""
    means = cells_done.pivot_table(index=["rig", "peak"], columns="warmup_share", values="final_loss", sort=False)
    lines = ["| rig | peak | " + " | ".join(f"T_w {share:.0%}" for share in means.columns) + " |"]
    lines += ["|---" * (len(means.columns) + 2) + "|"]
    for (rig, peak), row in means.iterrows():
        cells_of_row = ["diverged" if math.isinf(loss) else "" if math.isnan(loss) else f"{loss:.3f}" for loss in row]
        lines.append(f"| {rig} | {peak:g} | " + " | ".join(cells_of_row) + " |")
    return "\n".join(lines)


def verdict_table(cells_done: pd.DataFrame, rig: str) -> str:
    """What `diagnose` says of a rig's checked cells, beside what a gentler ramp did with the same seed."""
    rows = ["| peak | T_w | seed | diagnose | final loss | best of the gentler | right |", "|---" * 7 + "|"]
    checked = cells_done[(cells_done["rig"] == rig) & cells_done["warmup_share"].isin(CHECK_SHARES)]
    for cell in checked.sort_values(["peak", "warmup_share", "seed"]).itertuples():
        said, gentler = judge(cell), _gentler(cells_done, cell)
        right = "" if math.isnan(gentler) else "yes" if _says_steep(said) == _paid(cell, gentler) else "no"
        numbers = f"{cell.final_loss:.3f} | {gentler:.3f}".replace("nan", "")
        rows.append(f"| {cell.peak:g} | {cell.warmup_share:.0%} | {cell.seed} | {said.verdict} | {numbers} | {right} |")
    return "\n".join(rows)


def accuracy_table(cells_done: pd.DataFrame, *, to_the_end: bool = True) -> str:
    """How often `diagnose` was right, a row a rig: it says too steep (or failed), and a gentler ramp gained 1%.

    Not `to_the_end`: as if every warmup were over by a tenth of the run.
    """
    rows = ["| rig | runs | said, true | said, not true | not said, not true | not said, true |", "|---" * 6 + "|"]
    for rig, group in cells_done.groupby("rig", sort=False):
        counts = {(said, paid): 0 for said in (True, False) for paid in (True, False)}
        for cell in group.itertuples():
            gentler = _gentler(cells_done, cell)
            if not math.isnan(gentler):
                counts[_says_steep(judge(cell, to_the_end=to_the_end)), _paid(cell, gentler)] += 1
        order = ((True, True), (True, False), (False, False), (False, True))
        rows.append(f"| {rig} | {sum(counts.values())} | " + " | ".join(str(counts[key]) for key in order) + " |")
    return "\n".join(rows)


def judge(cell: Any, *, to_the_end: bool = True) -> Diagnosis:
    steps = RIGS[cell.rig].steps
    warmup_steps = round(cell.warmup_share * steps) if to_the_end else 0
    return diagnose(cell.log, total_steps=steps, warmup_steps=warmup_steps, peak_lr=cell.peak)


def _says_steep(diagnosis: Diagnosis) -> bool:
    return diagnosis.verdict in ("too steep", "failed")


def _paid(cell: Any, gentler: float) -> bool:
    return bool(gentler < cell.final_loss * (1 - WORTH))


def _gentler(cells_done: pd.DataFrame, cell: Any) -> float:
    """The best final loss of the cells with the same seed, a peak as high or lower and a warmup as long or longer."""
    same = cells_done[(cells_done["rig"] == cell.rig) & (cells_done["seed"] == cell.seed)]
    ramp = same[(same["peak"] <= cell.peak) & (same["warmup_share"] >= cell.warmup_share)]
    others = ramp[(ramp["peak"] < cell.peak) | (ramp["warmup_share"] > cell.warmup_share)]
    return float(others["final_loss"].min())


def _in_grid(cells_done: pd.DataFrame) -> pd.Series:
    return pd.Series([peak in RIGS[rig].peaks for rig, peak in zip(cells_done["rig"], cells_done["peak"], strict=True)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--csv", type=Path, help="where the measurements of every cell go")
    csv = parser.parse_args().csv
    done = read_cells()
    print("## Final validation loss, nats\n", loss_table(done), sep="\n")
    for column in ("price", "final_loss"):
        print(f"\n## Spearman's rho with the {column.replace('_', ' ')}\n", predictor_table(done, column), sep="\n")
    print("\n## What diagnose says\n", accuracy_table(done), sep="\n")
    print("\n### Every run read at a tenth\n", accuracy_table(done, to_the_end=False), sep="\n")
    for name in (name for name, rig in RIGS.items() if rig.check_peaks):
        print(f"\n### {name}\n", verdict_table(done, name), sep="\n")
    if csv is not None:
        settings = done[["rig", "peak", "warmup_share", "seed", "final_loss", "price"]]
        columns = [
            pd.DataFrame([measurements(log, share) for log in done["log"]], index=done.index) for share in READ_AT
        ]
        read = [column.add_suffix(f", {share:.0%}") for column, share in zip(columns, READ_AT, strict=True)]
        pd.concat([settings, *read], axis="columns").to_csv(csv, index=False, float_format="%.4g")


if __name__ == "__main__":
    main()

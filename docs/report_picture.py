"""Make docs/report.png, the report that the README shows:

    python docs/report_picture.py [RUN]

RUN is a run folder; without it the default recipe is trained for 60 updates first, some minutes on a CPU. Needs the
extra `test` and a Chromium.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import sync_playwright

from hfwarmup.reporting.page import write_report
from hfwarmup.run_folder.data import read_run

ROOT = Path(__file__).resolve().parents[1]
CONFIG = "configs/pretrain_clm/stdlib.yaml"
FLAGS = "--max_steps 60 --warmup 12 --logging_steps 1 --eval_steps 20 --torch_compile false --output_dir runs/first-run"


def main() -> None:
    run = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "runs" / "first-run"
    if len(sys.argv) == 1:
        subprocess.run(["./launch.sh", "pretrain_clm", "--config", CONFIG, *FLAGS.split()], cwd=ROOT, check=True)
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        page_file = Path(folder, "report.html")
        write_report(page_file, [read_run(run)])
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1200, "height": 960})
        page.goto(page_file.as_uri())
        page.wait_for_function("document.documentElement.dataset.drawn")
        height = page.locator(".key").bounding_box()["y"]
        clip = {"x": 0, "y": 0, "width": 1200, "height": height}
        page.screenshot(path=ROOT / "docs" / "report.png", full_page=True, clip=clip)
        browser.close()


if __name__ == "__main__":
    main()

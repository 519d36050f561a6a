"""The studio measured and photographed: start, from slider to picture, memory; a screenshot of every tab.

    python -m benchmarks.studio --runs=runs --domain=toons --json=runs/studio.json --screenshots=docs/studio

Needs Chromium, and Playwright, which drives it.  The edit that the page shows first is slid; a runs folder with an
evaluation and a training of the studio fills the other tabs of the screenshots.
"""

import statistics
import tempfile
import time
from pathlib import Path

from absl import flags

from benchmarks.browser import Served, browser, find_browser
from coral_jax import commands
from coral_jax.runtime.files import write_json

_RUNS = flags.DEFINE_string("runs", "runs", "folder of runs that the studio shows")
_PHOTOS = flags.DEFINE_string("photos", "photos", "folder of photos that the studio shows")
_DOMAIN = flags.DEFINE_string("domain", "toons", "domain to measure")
_MOVES = flags.DEFINE_integer("moves", 200, "moves of the slider, over which memory is watched", lower_bound=1)
_COLD = flags.DEFINE_bool("cold", False, "start with an empty cache of compiled programs")
_JSON = flags.DEFINE_string("json", None, "file to write the result to")
_EDIT = flags.DEFINE_string("edit", None, "edit of the screenshots, as the studio names it (default: the first one)")
_SCREENSHOTS = flags.DEFINE_string("screenshots", None, "folder for screenshots at 1280 and 390 px, instead of measuring")

SETTLED = 20  # moves before memory counts
_PATIENCE = 600_000  # milliseconds

# From a move of the slider to the picture that shows it: input event to the image's load.
_MOVE = """async ([value, release]) => {
  const slider = document.querySelector('.alpha input'), image = document.querySelector('#after');
  const begun = performance.now();
  const loaded = new Promise((done) => image.addEventListener('load', done, {once: true}));
  slider.value = value;
  slider.dispatchEvent(new Event('input', {bubbles: true}));
  await loaded;
  const shown = performance.now() - begun;
  if (!release) return [shown, null];
  const full = new Promise((done) => image.addEventListener('load', done, {once: true}));
  slider.dispatchEvent(new Event('change', {bubbles: true}));
  await full;
  return [shown, performance.now() - begun - shown];
}"""


def main() -> None:
    """Measure, or photograph, the studio of --domain."""
    if find_browser() is None:
        raise ValueError("there is no Chromium, or no Playwright; type apt-get install chromium, pip install playwright")
    if _SCREENSHOTS.value:
        photograph(Path(_SCREENSHOTS.value))
        return
    with tempfile.TemporaryDirectory() as cache:
        result = measured(cache if _COLD.value else None)
    if _JSON.value:
        write_json(_JSON.value, result)
    print("  ".join(f"{name} {value:.3g}" if isinstance(value, float) else f"{name} {value}" for name, value in result.items()))


def measured(cache: str | None) -> dict:
    """Seconds from the command to the first picture, medians of the slider, growth of memory."""
    begun = time.monotonic()
    with Served(Path(_RUNS.value), f"--photos={_PHOTOS.value}", cache=cache) as served, browser() as chromium:
        page = chromium.new_page(viewport={"width": 1280, "height": 900})
        page.set_default_timeout(_PATIENCE)
        page.goto(f"{served.url}/#{_DOMAIN.value}")
        page.locator("#stage[data-drawn]").wait_for()
        first = time.monotonic() - begun
        page.locator(".layer").first.wait_for()
        page.locator("#gallery button:last-child img").wait_for()
        page.wait_for_timeout(1000)
        started = served.cpu_seconds
        shown, full, memory = [], [], 0
        for index in range(_MOVES.value):
            if index == SETTLED:
                memory = served.memory
            release = index % 20 == 19
            values = page.evaluate(_MOVE, [(index * 37 % 300) / 100 - 1.5, release])
            shown.append(values[0])
            full += [values[1]] if release else []
            if release:
                page.wait_for_timeout(500)  # the layers are drawn, too
        return {"domain": _DOMAIN.value, "cold": _COLD.value, "seconds_to_first_picture": first, "moves": _MOVES.value,
                "milliseconds_to_preview": statistics.median(shown), "milliseconds_to_full": statistics.median(full or [0.0]),
                # What the clock says depends on what else the machine does.
                "cpu_seconds_to_first_picture": started, "cpu_seconds_a_move": (served.cpu_seconds - started) / _MOVES.value,
                "memory_bytes": served.memory, "memory_growth_bytes": served.memory - memory}  # fmt: skip


def photograph(folder: Path) -> None:
    """Write a screenshot of each tab at each width."""
    folder.mkdir(parents=True, exist_ok=True)
    with Served(Path(_RUNS.value), f"--photos={_PHOTOS.value}") as served, browser() as chromium:
        page = chromium.new_page(viewport={"width": 1280, "height": 860})
        page.set_default_timeout(_PATIENCE)
        page.goto(f"{served.url}/#{_DOMAIN.value}")
        page.locator(".layer").first.wait_for()
        page.locator("#gallery button:last-child img").wait_for()
        page.locator("#gallery button").nth(1).click()
        if _EDIT.value:
            page.click(".remove")
            page.locator("#shelf").select_option(_EDIT.value)
            page.click("#add")
        for tab in ("edit", "learn", "compare"):
            page.click(f"#tab-{tab}")
            if tab == "learn":
                page.fill("#prompt", "happy")
            page.wait_for_timeout(5000)
            for width in (1280, 390):
                page.set_viewport_size({"width": width, "height": 860})
                page.wait_for_timeout(1200)
                page.screenshot(path=folder / f"{tab}_{width}.png", full_page=True)


if __name__ == "__main__":
    commands.run(main)

"""What the Learn tab shows: trainings, each a process of its own in a normal run's folder.

The process (`coral_jax.studio.learner`) reads words from its standard input: it pauses, goes on, and stops with a
checkpoint; when the studio is gone, it stops too.
"""

import contextlib
import json
import statistics
import subprocess
import sys
import threading
from pathlib import Path

from coral_jax.config import folder_name, make, resolve
from coral_jax.domains import Domain
from coral_jax.methods import METHODS, get_method
from coral_jax.runtime.files import free_name, read_json, read_text, write_json
from coral_jax.training.logs import read_metrics
from coral_jax.training.workdir import finished

PLAN, LIVE, LOG = ".studio.json", ".live.png", ".studio.log"  # hidden files in a run's folder
LIVE_FACES = 4
INTERRUPTED = 130  # exit code of a training that was stopped
WAIT = 30.0  # seconds for the checkpoint of a training when the studio ends
CHECKPOINTS = 12  # of a run, and as many live sheets
POINTS = 120  # of a curve
START = 30.0  # seconds that a run takes besides its steps, with nothing compiled: the README's default run takes 46
# Seconds a step on two CPU cores, where no run is there yet to go by: those of docs/results.md over the default steps.
PACE = {
    ("toons", "attention_mapper"): 0.054, ("toons", "attention_global"): 0.05, ("toons", "segment_mapper"): 0.05,
    ("toons", "segment_global"): 0.05, ("toons", "styleclip_optimization"): 0.05, ("toons", "styleclip_mapper"): 0.023,
    ("toons", "stylemc"): 0.031, ("toons", "feat_7"): 0.037, ("toons", "feat_13"): 0.033,
}  # fmt: skip


class Learning:
    """The trainings of a runs folder.  One learns at a time: a second would make both slow."""

    def __init__(self, runs: Path, weights_dir: str | None):
        self._runs, self._weights_dir = runs, weights_dir
        self._name: str | None = None
        self._process: subprocess.Popen | None = None
        self._paused = False
        self._lock = threading.Lock()

    def plan(self, domain: Domain, prompt: str, method: str, steps: int | None) -> dict:
        """What a training would be: its settings, the words that the domain's CLIP never saw, and the seconds it takes.

        ValueError for a prompt, method or number of steps that cannot be.
        """
        if not prompt.strip():
            raise ValueError("no prompt; type what the faces should show, such as happy")
        domain.tokenizer([prompt])  # too long: a line
        config = make(prompt, method=method, domain=domain.name, steps=steps)
        chosen = resolve(config, domain.settings_of(prompt)).settings
        seconds, known = self.expected(domain.name, method, chosen.steps)
        return {"steps": chosen.steps, "unknown": domain.unknown_words(prompt), "seconds": seconds, "from": known}

    def expected(self, domain: str, method: str, steps: int) -> tuple[float | None, str]:
        """Seconds that a training takes, and what they are known from; None where nothing is known."""
        own = [summary for folder in self._holding("summary.json")
               if (summary := _summary(folder)) and (summary["domain"], summary["method"]) == (domain, method)]  # fmt: skip
        if own:
            pace = statistics.median(summary["seconds_per_step"] for summary in own)
            rest = [summary["seconds_total"] - summary["seconds_per_step"] * summary["steps"] for summary in own]
            return max(statistics.median(rest), 0.0) + pace * steps, f"{len(own)} run(s) on this computer"
        pace = PACE.get((domain, method))
        return (None, "no run of it yet") if pace is None else (START + pace * steps, "measured on two CPU cores")

    def start(self, domain: Domain, prompt: str, method: str, steps: int | None, seeds: list[int]) -> str:
        """Begin a training, and return its name: that of its folder among the runs.  ValueError while another one learns."""
        plan = self.plan(domain, prompt, method, steps)
        name = free_name(folder_name(prompt), self._runs)
        every = max(1, plan["steps"] // CHECKPOINTS)
        fields = {"method": method, "domain": domain.name, "steps": steps, "sheet_seeds": ",".join(map(str, seeds)),
                  "checkpoint_every": every, "log_every": max(1, min(10, plan["steps"] // 50)),
                  "weights_dir": self._weights_dir}  # fmt: skip
        self._launch(name, {"prompt": prompt, "steps": plan["steps"], "fields": fields})
        return name

    def go_on(self, name: str) -> None:
        """Continue a training that is paused, or that was stopped; ValueError for another one."""
        if name == self._name and self._learns():
            self._say("go")
            self._paused = False
        else:
            self._launch(name, self._plan_of(name))

    def pause(self, name: str) -> None:
        """Let a training wait after its present step; ValueError where it does not learn."""
        self._check_learns(name)
        self._say("pause")
        self._paused = True

    def stop(self, name: str) -> None:
        """End a training with a checkpoint; `go_on` takes it up again.  ValueError where it does not learn."""
        self._check_learns(name)
        self._say("stop")
        self._paused = False

    def close(self) -> None:
        """The studio ends: a training that learns is told to stop and waited for; one that compiles stops by itself later."""
        if self._process is not None:
            self._process.stdin.close()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(WAIT)

    def trainings(self) -> list[dict]:
        """All trainings of the studio in the runs folder: name, prompt, state, steps, curves."""
        found = []
        for folder in sorted(self._holding(PLAN), key=lambda folder: -(folder / PLAN).stat().st_mtime):
            try:
                found.append(self._state(folder.name))
            except (ValueError, KeyError, OSError):  # a folder that was deleted or changed meanwhile
                continue
        return found

    def live(self, name: str) -> bytes | None:
        """The newest sheet of a training as PNG: the run's own when it is finished; None where there is none yet."""
        folder = self._folder(name)
        sheets = [path for path in (folder / "sheet.png", folder / LIVE) if path.is_file()]
        return sheets[0].read_bytes() if sheets else None

    def _state(self, name: str) -> dict:
        folder = self._folder(name)
        plan = self._plan_of(name)
        rows = read_metrics(folder / "metrics.jsonl")
        step, steps = (rows[-1]["step"] if rows else 0), plan["steps"]
        learns = name == self._name and self._learns()
        done = not learns and finished(folder) is not None
        if learns:
            state = "paused" if self._paused else "learning" if rows else "starting"
        else:
            state = "finished" if done else "stopped"
        left = statistics.median(row["seconds_per_step"] for row in rows[-20:]) * (steps - step) if rows and learns else None
        stride = max(1, len(rows) // POINTS)
        curves = {
            "step": [row["step"] for row in rows[::stride]],
            "loss": [row["loss/total"] for row in rows[::stride]],
            "clip": [row["clip_distance"] for row in rows[::stride]],
        }
        error = self._error(name, folder) if state == "stopped" else None
        return {"name": name, "prompt": plan["prompt"], "method": plan["fields"]["method"], "domain": plan["fields"]["domain"],
                "state": state, "step": step, "steps": steps, "seconds_left": left, "curves": curves, "error": error,
                "sheet": _stamp(folder / LIVE, folder / "sheet.png")}  # fmt: skip

    def _error(self, name: str, folder: Path) -> str | None:
        """What went wrong: the line that the process said, or the last one where it broke off without."""
        log = folder / LOG
        lines = [line for line in read_text(log).splitlines() if line.strip()] if log.is_file() else []
        broke = name == self._name and self._process.returncode not in (0, INTERRUPTED)
        last = lines[-1] if broke and lines else None
        return next((line.removeprefix("error: ") for line in reversed(lines) if line.startswith("error: ")), last)

    def _launch(self, name: str, plan: dict) -> None:
        with self._lock:
            if self._learns():
                raise ValueError(f"{self._name!r} is learning; stop it first, or wait")
            folder = self._runs / name
            write_json(folder / PLAN, plan)
            command = [sys.executable, "-m", "coral_jax.studio.learner", f"--folder={folder}"]
            with open(folder / LOG, "wb") as log:
                self._process = subprocess.Popen(
                    command, stdin=subprocess.PIPE, stdout=log, stderr=log, text=True,
                    start_new_session=True,  # Ctrl+C in the terminal is for the studio, which lets it save a checkpoint
                )  # fmt: skip
            self._name, self._paused = name, False

    def _learns(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def _check_learns(self, name: str) -> None:
        if name != self._name or not self._learns():
            raise ValueError(f"{name!r} is not learning")

    def _say(self, word: str) -> None:
        try:
            self._process.stdin.write(word + "\n")
            self._process.stdin.flush()
        except BrokenPipeError as error:
            raise ValueError(f"{self._name!r} has just ended") from error

    def _folder(self, name: str) -> Path:
        """The folder of a training; ValueError for a name that is none: no path leads anywhere."""
        folders = {folder.name: folder for folder in self._holding(PLAN)}
        if name not in folders:
            raise ValueError(f"there is no training {name!r} in {self._runs}")
        return folders[name]

    def _holding(self, file: str) -> list[Path]:
        """The runs' folders that hold a file of this name; links that lead out of the runs folder are not followed."""
        root = self._runs.resolve()
        return [path.parent for path in self._runs.glob(f"*/{file}") if path.resolve().is_relative_to(root)]

    def _plan_of(self, name: str) -> dict:
        return read_json(self._folder(name) / PLAN, "start the training anew")


def methods_of(domain: Domain) -> list[str]:
    """The methods that a domain can learn by."""
    has_segments = domain.default_segmenter is not None
    return [name for name in METHODS if has_segments or not get_method(name).needs_segments]


def _summary(folder: Path) -> dict | None:
    try:
        summary = finished(folder)
        return summary if summary and {"domain", "method", "seconds_per_step", "steps"} <= summary.keys() else None
    except (ValueError, json.JSONDecodeError, OSError):
        return None


def _stamp(*paths: Path) -> int:
    """A number that changes whenever one of the files does."""
    return sum(path.stat().st_mtime_ns for path in paths if path.is_file()) // 1_000_000

"""What the tables of an evaluation are made of: times, means, cells without intervals, the suites."""

import pytest

from coral_jax.evaluation.judge import training_time
from coral_jax.evaluation.suites import SUITES
from coral_jax.evaluation.tables import means_of, write_tables


def test_time_to_quality_is_when_most_of_the_gain_is_reached():
    losses = [1.0, 0.8, 0.65, 0.52, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5]
    rows = [{"step": 10 * i, "clip_distance": loss, "seconds_per_step": 0.2} for i, loss in enumerate(losses, start=1)]
    found = training_time(rows)
    assert found["seconds"].value == pytest.approx(20)
    assert found["seconds_to_quality"].value == pytest.approx(8)  # 0.52 is 96 % of the way
    assert "seconds_to_quality" not in training_time([row | {"clip_distance": i} for i, row in enumerate(rows)])
    assert training_time([]) == {}


def test_means_are_of_metrics_that_all_prompts_have():
    def cell(value, width):
        return {"value": value, "low": value - width, "high": value + width}

    rows = [{"method": "a", "prompt": "p", "leak": cell(0.2, 0.03), "success": cell(1.0, 0.0)},
            {"method": "a", "prompt": "q", "leak": cell(0.4, 0.04)}]  # fmt: skip
    (mean,) = means_of(rows)
    assert mean["prompt"] == "mean of 2" and "success" not in mean
    assert mean["leak"] == pytest.approx(cell(0.3, 0.025))


def test_tables_of_nothing_but_numbers_without_intervals(tmp_path):
    metrics = {"seconds": {"value": 12.0, "low": None, "high": None}}
    write_tables(tmp_path, [{"method": "a", "prompt": "p", "metrics": metrics}], {"domain": "tiny"})
    assert "| a | p | 12 |" in (tmp_path / "table.md").read_text()
    assert (tmp_path / "table.csv").read_text() == "method,prompt,seconds,seconds_low,seconds_high\na,p,12.0,,\n"


def test_the_suite_has_all_methods_on_the_papers_prompts():
    suite = SUITES["table1"]
    assert {"segment_global", "segment_mapper", "attention_global", "attention_mapper"} <= set(suite.methods)
    assert suite.prompts[:4] == ["happy", "surprised", "blue eyes", "mohawk hairstyle"] and len(suite.prompts) == 6

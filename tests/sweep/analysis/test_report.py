"""The report: what is in it, what it escapes, and that a browser opens it without complaint."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from rich.console import Console
from synthetic import LARGER, noise, study

from sweep.analysis import analyse, correlate, report, terminal_table, usable
from sweep.analysis.report.exports import latex
from sweep.analysis.report.markup import Markup, embedded_json, tag
from sweep.result import show_result
from sweep.store import Store

HOSTILE = "<script>alert(1)</script>"


def write(table: pd.DataFrame, folder: Path, name: str, draws: int = 5) -> Path:
    return report.render(analyse(table, study=name, draws=draws), folder, formats=["svg"])


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    gap = noise(1, LARGER)
    table = study(
        {
            "good": gap + noise(2, LARGER),
            "<b>bold</b>": noise(3, LARGER),
            "infinite": np.where(gap > 1, np.inf, gap),
            "absent": np.nan,
        },
        LARGER,
        gap=gap,
        pgd_train=noise(4, LARGER),
        pgd_test=noise(5, LARGER),
    )
    table["cost/train_seconds"] = 3600.0
    table["provenance/commit"] = "</script><script>alert(2)</script>"
    table.loc[0, "status"] = "diverged"
    table.loc[0, "reason"] = "loss is <nan>"
    table.loc[[5, 6], "masking"] = True
    return table


@pytest.fixture(scope="module")
def page(table: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    return write(table, folder, HOSTILE, draws=20)


class Outline(HTMLParser):
    """Tags, their attributes and the text outside scripts and styles."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._raw = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._raw = tag in ("script", "style")

    def handle_endtag(self, tag: str) -> None:
        self._raw = False

    def handle_data(self, data: str) -> None:
        self.text += "" if self._raw else data


def outline(page: Path) -> Outline:
    parsed = Outline()
    parsed.feed(page.read_text(encoding="utf-8"))
    return parsed


def test_text_is_escaped(page: Path) -> None:
    parsed = outline(page)
    assert [name for name, _ in parsed.tags].count("script") == 3  # data, plotly, ours
    for shown in (HOSTILE, "<b>bold</b>", "loss is <nan>", "</script><script>alert(2)</script>"):
        assert shown in parsed.text
    assert not [tag for tag, _ in parsed.tags if tag == "nan"]


def test_nothing_is_requested(page: Path) -> None:
    for name, attributes in outline(page).tags:
        for key in ("src", "href"):
            link = attributes.get(key)
            assert link is None or link.startswith(("#", "data:")), f"<{name} {key}={link}>"
    style = re.findall(r"<style>(.*?)</style>", page.read_text(encoding="utf-8"), re.DOTALL)[0]
    assert "url(" not in style
    assert "@import" not in style


def test_says_what_was_left_out(page: Path) -> None:
    text = outline(page).text
    assert "not done: 1" in text
    assert "masking: 2" in text
    assert "diverged" in text
    assert "60 min" in text  # costs, the median


def test_embedded_data_is_json_without_nan(page: Path, table: pd.DataFrame) -> None:
    source = page.read_text(encoding="utf-8")
    text = re.findall(r'<script type="application/json" id="data">(.*?)</script>', source)[0]
    data = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert len(data["ids"]) == len(table) - 3
    assert data["measures"]["absent"] == [None] * len(data["ids"])
    assert None in data["measures"]["infinite"]
    method = data["levels"]["method"]
    assert method == ["standard", "at", "trades", "mart"]
    row = table[table["model_id"] == data["ids"][0]].iloc[0]
    assert method[data["axes"]["method"][0]] == row["method"]
    assert data["measures"]["good"][0] == pytest.approx(row["measure/good"], rel=1e-5)


def test_tables_and_figures_are_written(page: Path) -> None:
    tables = {path.name for path in (page.parent / "tables").iterdir()}
    assert {"coefficients_all_models.csv", "controls.csv", "claims.csv", "claims.tex"} <= tables
    rows = list(csv.DictReader((page.parent / "tables/coefficients_all_models.csv").open()))
    assert {row["measure"] for row in rows} == {"good", "<b>bold</b>", "infinite", "absent"}
    figures = {path.name for path in (page.parent / "figures").iterdir()}
    assert figures == {"forest.svg", "heat_map.svg", "scatter.svg"}


def test_figures_are_reproducible(table: pd.DataFrame, tmp_path: Path) -> None:
    pages = [write(table, tmp_path / k, "same") for k in "ab"]
    for name in ("figures/forest.svg", "figures/scatter.svg", "index.html"):
        first, second = ((page.parent / name).read_bytes() for page in pages)
        assert first == second, name


def test_latex_is_escaped() -> None:
    text = latex(["a_b", "τ"], [("50 % & more", "−0.1")], "lr")
    assert r"a\_b & $\tau$ \\" in text
    assert r"50 \% \& more & $-$0.1 \\" in text


def test_markup_escapes_children_and_attributes() -> None:
    assert tag("p", "<i>", Markup("<b>x</b>"), class_='"') == (
        '<p class="&quot;">&lt;i&gt;<b>x</b></p>'
    )
    assert "</script><" not in embedded_json("d", ["</script><script>"])[:-9]


def test_bad_input_is_a_message(table: pd.DataFrame, tmp_path: Path) -> None:
    def rejected(words: str, changed: pd.DataFrame) -> None:
        with pytest.raises(ValueError, match=words):
            analyse(changed, draws=5)

    rejected("no target 'gap'", table.drop(columns="gap"))
    rejected("at least two", table.iloc[[10]])
    nothing = {column: np.nan for column in table if column.startswith("measure/")}
    rejected("every value of every measure is NaN", table.assign(**nothing))
    rejected(r"no usable model among 56 \(not done: 56\)", table.assign(status="failed"))
    with pytest.raises(ValueError, match="not written as 'gif'; choose: png, svg, pdf"):
        report.render(analyse(table, draws=5), tmp_path / "none", formats=["gif"])
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("axes", [["imported"], []])
def test_without_two_axes_the_report_says_why_psi_is_missing(
    table: pd.DataFrame, tmp_path: Path, axes: list[str]
) -> None:
    """The ImageNet models of the zoo differ in nothing but their names."""
    settings = ["architecture", "method", "steps", "optimizer", "batch_size", "augmentation"]
    zoo = table.drop(columns=[*settings, "extra_data", "early_stopping"])
    zoo = zoo.assign(**{axis: [f"imagenet/Linf/M{k}" for k in range(len(zoo))] for axis in axes})
    page = write(zoo, tmp_path, "zoo")
    text = outline(page).text
    reason = "only imported varies" if axes else "no axis varies"
    assert f"There is no Ψ: {reason} in this study" in text
    assert "goes most closely with the robust generalization gap" in text
    assert {path.name for path in (tmp_path / "figures").iterdir()} == {"forest.svg", "scatter.svg"}
    rows = list(csv.DictReader((tmp_path / "tables/coefficients_all_models.csv").open()))
    assert [row["psi"] for row in rows] == [""] * 4
    (good,) = (row for row in rows if row["measure"] == "good")
    assert float(good["tau_low"]) < float(good["tau"])
    data = json.loads(re.findall(r'id="data">(.*?)</script>', page.read_text(encoding="utf-8"))[0])
    (option,) = re.findall(r'id="colour"><option[^>]*>(\w+)<', page.read_text(encoding="utf-8"))
    assert len(data["axes"][option]) == len(data["ids"])


def test_rows_with_masking_are_apart(table: pd.DataFrame) -> None:
    flagged = table.assign(masking=table["architecture"] == "resnet18")
    analysis = analyse(flagged, draws=5)
    assert len(analysis.used) == 28
    assert analysis.masking is not None
    assert analysis.masking.loc["good", "n"] == 27  # one of them diverged


def test_what_masking_takes_from_each_level_is_shown(table: pd.DataFrame, tmp_path: Path) -> None:
    """An uneven loss biases the coefficients: it is seen, and they are given with all."""
    flagged = table.assign(masking=(table["steps"] == 10).to_numpy() & (table["batch_size"] == 64))
    found = analyse(flagged, draws=5)
    lost = found.masking_by_level.set_index(["axis", "level"])["masking"]
    assert lost["steps", "10"] == lost["batch_size", "64"] == found.removed["masking"] == 12
    assert lost["steps", "1"] == lost["steps", "null"] == lost["batch_size", "32"] == 0
    models = found.masking_by_level.groupby("axis")["models"].sum()
    assert set(models) == {len(table) - 1}  # one diverged
    kept = found.results["with masking models"]
    everyone = correlate(usable(table), draws=5)
    pd.testing.assert_series_equal(kept["tau"], everyone["tau"])
    pd.testing.assert_series_equal(kept["psi_steps"], everyone["psi_steps"])
    parsed = outline(report.render(found, tmp_path, formats=()))
    assert "Models set apart as masking" in parsed.text
    assert "With masking models" in parsed.text
    assert (tmp_path / "tables/coefficients_with_masking_models.csv").is_file()
    none = analyse(table.assign(masking=False), draws=5)
    assert none.masking_by_level.empty
    assert set(none.results) == {"all models", "without standard"}


def test_the_terminal_says_where_masking_takes_most(
    table: pd.DataFrame,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    flagged = table.assign(masking=table["method"] == "mart")
    monkeypatch.setattr("sweep.table.collect", lambda store, study: flagged)
    monkeypatch.setattr("sweep.table.correctness", lambda store, study: None)
    assert show_result(Store(tmp_path), "s") is not None
    line = "16 models set apart as masking, most where method=mart (100.0 %)"
    assert line in capsys.readouterr().out


def test_replicates_stay_out(table: pd.DataFrame) -> None:
    again = table.head(6).assign(seed=1, gap=0.0)
    analysis = analyse(pd.concat([table.assign(seed=0), again], ignore_index=True), draws=5)
    assert len(analysis.used) == len(table) - 3
    assert analysis.removed["seed replicates"] == 6
    assert not analysis.seeds.empty


def test_terminal_table(table: pd.DataFrame) -> None:
    result = correlate(usable(table), draws=20)
    console = Console(width=140, file=io.StringIO(), record=True)
    console.print(terminal_table(result))
    names = [line.split()[0] for line in console.export_text().splitlines() if "…" in line]
    strongest = result["tau"].abs().sort_values(ascending=False).dropna()
    assert names[: len(strongest)] == list(strongest.index)


@pytest.mark.browser
@pytest.mark.skipif(shutil.which("chromium") is None, reason="Chromium is not installed")
def test_browser_opens_it_without_an_error(page: Path, tmp_path: Path) -> None:
    command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr"]
    command += [f"--user-data-dir={tmp_path}", "--virtual-time-budget=5000", "--dump-dom"]
    run = subprocess.run(
        [*command, page.as_uri()], capture_output=True, text=True, timeout=60, check=True
    )
    assert "CONSOLE" not in run.stderr, run.stderr
    assert run.stdout.count('class="trace scatter') >= 4  # one per method: the plot was drawn
    assert run.stdout.count("<canvas data-measure=") == 4  # small multiples
    assert '<th scope="col"><button>measure</button></th>' in run.stdout  # tables sort


def test_cost_of_a_training_counts_once(page: Path) -> None:
    """Both checkpoints' rows carry it: 28 trainings of an hour are 28 hours, not 56."""
    assert re.search(r"train_seconds</td><td[^>]*>28.0 h</td>", page.read_text(encoding="utf-8"))


def test_measures_without_a_value_are_listed(page: Path) -> None:
    text = outline(page).text
    assert "Measures without a value" in text
    assert "absentnot measured53" in text


@pytest.mark.parametrize(("width", "parts"), [(60, 3), (80, 2), (200, 1)])
def test_terminal_table_fits(table: pd.DataFrame, width: int, parts: int) -> None:
    """No number is cut off: what does not fit beside tau goes below."""
    result = correlate(usable(table), draws=20)
    console = Console(width=width, file=io.StringIO(), record=True)
    console.print(terminal_table(result))
    text = console.export_text()
    assert max(map(len, text.splitlines())) <= width
    row = result.loc["good"]
    written = [token for line in text.splitlines() if "good" in line for token in line.split()]
    for axis in ("architecture", "method", "steps", "batch_size", "early_stopping"):
        assert f"{row[f'psi_{axis}']:+.2f}".replace("-", "−") in written
    assert text.count("measure ") == parts


def test_mixed_definitions_are_said_at_the_head(table: pd.DataFrame, tmp_path: Path) -> None:
    mixed = table.copy()
    mixed.attrs["warnings"] = ["measure/good: 3 models have what the study asked for last"]
    parsed = outline(write(mixed, tmp_path, "s"))
    assert "In wordsmeasure/good: 3 models have what the study asked for last." in parsed.text

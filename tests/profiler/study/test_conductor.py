"""Studies: the recipe's file, the product's limits, the choice, and a whole run that is killed and continues."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from edgeprof.cli.sweep import command as verb
from edgeprof.diagnosis.checks import Finding
from edgeprof.diagnosis.evidence import blame
from edgeprof.errors import InputError
from edgeprof.results import document, schema
from edgeprof.study.recipe import Search, load
from edgeprof.study.search import chains, search
from edgeprof.verdicts.gate import Limits
from edgeprof.verdicts.recommend import Product, budgets, recommend
from tests.plugins.compressors.nets import convnet, samples
from tests.processes import ended
from tests.profiler.cli.in_process import verb as command_in_process

if TYPE_CHECKING:
    from pathlib import Path

    from tests.profiler.cli.in_process import Verb


def written(folder: Path, text: str) -> Path:
    path = folder / "study.toml"
    path.write_text(text)
    return path


def test_grids_and_ranges_become_chains_each_once(tmp_path: Path) -> None:
    (study,) = load(
        written(
            tmp_path,
            """
model = "net.onnx"
[recipes]
explicit = ["fp16", "prune:amount=0.3+fp16"]
[[recipes.grid]]
with = "prune:amount={amount}+{then}"
amount = [0.3, 0.5]
then = ["fp16", "int8-dynamic:conv=true"]
[[recipes.range]]
with = "cluster:n={n}"
n = { from = 4, to = 64, steps = 3, scale = "log" }
""",
        )
    )
    assert study.chains == [
        "fp16",
        "prune:amount=0.3+fp16",
        "prune:amount=0.3+int8-dynamic:conv=true",
        "prune:amount=0.5+fp16",
        "prune:amount=0.5+int8-dynamic:conv=true",
        "cluster:n=4",
        "cluster:n=16",
        "cluster:n=64",
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "names no base model"),
        ('model = "x"\n', "has no recipes"),
        ('model = "x"\nmodle = 1\n', "no key of study.toml is named 'modle'"),
        ('model = "x"\n[recipes]\nexplicit = ["prune:amount"]\n', "is not key=value"),
        ('model = "x"\n[[recipes.grid]]\nwith = "prune:amount={a}"\n', r"\{a\} of .* has no values"),
        ('model = "x"\n[[recipes.grid]]\nwith = "prune"\na = [1]\n', "does not use a"),
        ('model = "x"\n[recipes]\nexplicit = ["fp16"]\n[budgets]\nmax_latency = 3\n', "no budget in study.toml"),
        ('model = "x"\n[recipes]\nexplicit = ["fp16"]\n[budgets]\nmax_size = "3 apples"\n', "max_size"),
        ('model = "x"\n[recipes]\nexplicit = ["fp16"]\n[budgets]\nmax_size = -1\n', "max_size = -1 is not a budget"),
        ('model = "x"\n[recipes]\nexplicit = ["fp16"]\n[budgets]\nmax_accuracy_drop = nan\n', "nan is not a budget"),
        ('model = "x"\n[recipes]\nexplicit = ["fp16"]\n[protocol]\nspeed = 3\n', "no key of .protocol."),
        ('model = "x"\n[recipes]\nexplicit = ["fp16"]\n[product]\nbattery_wh = 3\n', "battery_wh also needs hours"),
        ("model = ", "is not TOML"),
        ('model = "x"\n[[recipes.grid]]\nwith = "prune:amount={"\n', "is not a pattern"),
        ('model = "x"\n[[recipes.grid]]\nwith = "prune:amount={0}"\n', "is not a pattern"),
        (
            'model = "x"\n[[recipes.range]]\nwith = "prune:amount={a}"\na = { from = "0", to = 1, steps = 3 }\n',
            "range of a",
        ),
        (
            'model = "x"\n[[recipes.range]]\nwith = "prune:amount={a}"\na = { from = 0, to = 1, steps = "3" }\n',
            "steps of a",
        ),
        ('model = "x"\nmodels = ["x"]\n', "has both model and models"),
        ('models = ["x", "x"]\n', "the same model twice"),
        ('model = "x"\nseed = "one"\n[recipes]\nexplicit = ["fp16"]\n', "seed = 'one' is not a whole number"),
        ('model = "x"\n[recipes]\nexplicit = ["fp16"]\n[protocol]\nthreads = "2"\n', "threads = '2' is not a whole"),
        (
            'model = "x"\n[recipes]\nexplicit = ["fp16"]\n[protocol]\ninputs = ["x"]\n',
            "the input 'x' is not NAME=SHAPE",
        ),
    ],
)
def test_a_mistake_in_the_file_is_named(text: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=said):
        load(written(tmp_path, text))


def test_one_file_studies_several_models(tmp_path: Path) -> None:
    (tmp_path / "a.onnx").touch()
    text = 'models = ["a.onnx", "b.py:net"]\nbaseline = "export-onnx"\n[recipes]\nexplicit = ["fp16"]\n'
    first, second = load(written(tmp_path, text))
    assert (first.model, second.model) == (str(tmp_path / "a.onnx"), "b.py:net")
    assert first.chains == second.chains == ["fp16"]
    assert first.baseline == second.baseline == "export-onnx"


def test_requirements_of_a_product_become_limits() -> None:
    """20 Wh for 8 h are 2.5 W; at 10 frames per second this is 250 mJ per frame, and each takes at most 100 ms."""
    product = Product(fps=10, battery_wh=20, hours=8, memory_left_bytes=2**28)
    limits, told = product.limits(Limits(max_p99_s=0.05, max_rss_bytes=2**30))
    assert limits.max_p99_s == 0.05  # the stricter of the two
    assert limits.max_rss_bytes == 2**28
    assert product.joules_per_frame == pytest.approx(0.25)
    assert any("250 mJ a frame" in line for line in told)


def variant(name: str, joules: float, accuracy: float, *, size: int = 100, net: float | None = None) -> schema.Variant:
    figure = schema.EnergyFigure(value=joules, expanded_uncertainty=0.0, ci95=(joules, joules))
    return schema.Variant(
        name=name,
        recipe=[],
        status="ok",
        reasons=[],
        model=schema.Model(path=f"{name}.onnx", format="onnx", sha256=None, size_bytes=size),
        runtime=None,
        accuracy=schema.Accuracy(metric="top1", value=accuracy, ci95=None, samples=10**6, drop=0.9 - accuracy),
        energy_j_per_inference=schema.Energy(
            provenance="measured",
            rail="VDD_IN",
            covers="module",
            gross=figure,
            net=figure,
            marginal=None if net is None else schema.Marginal(e_net_j=net, p_idle_w=2.0, max_rate_hz=100),
        ),
        windows=[schema.Window(start_s=0, end_s=1, inferences=1, order=k, latency_median_s=joules) for k in range(2)],
    )


def result(*variants: schema.Variant) -> Any:
    from tests.profiler.results.samples import study as whole

    made = whole()
    made.variants, made.interrupted = list(variants), False
    made.comparisons = [beside(one, variants[0]) for one in variants[1:]]
    return made


def beside(one: schema.Variant, baseline: schema.Variant) -> schema.Comparison:
    ratio = spent(one) / spent(baseline)
    both = schema.Ratio(value=ratio, ci95=(ratio, ratio))
    return schema.Comparison(
        variant=one.name, baseline=baseline.name, energy_ratio=both, latency_ratio=both, verdict="better"
    )


def spent(one: schema.Variant) -> float:
    assert one.energy_j_per_inference is not None
    value = one.energy_j_per_inference.gross.value
    assert value is not None
    return value


def test_the_cheapest_that_keeps_every_budget_is_recommended() -> None:
    found = result(variant("baseline", 10, 0.9), variant("a", 4, 0.895), variant("b", 2, 0.5))
    checks = budgets(found, Limits(max_accuracy_drop=0.01))
    assert [c.variant for c in checks if not c.passed] == ["b"]
    chosen = recommend(found, checks)
    assert chosen.variant == "a"
    assert "0.40 × the baseline's energy, accuracy -0.5 pt" in chosen.reason


def test_each_variant_is_judged_against_the_baseline_beside_it() -> None:
    """The device slowed down between the two pairs: a has the lower figure, but b has the lower ratio."""
    found = result(variant("baseline", 10, 0.9), variant("a", 6, 0.9), variant("b", 8, 0.9))
    found.comparisons[1].energy_ratio = schema.Ratio(value=0.4, ci95=(0.39, 0.41))  # its own baseline took 20 J
    chosen = recommend(found, [])
    assert chosen.variant == "b"
    assert "of 3 variants that ran; it has the least energy: 0.40 × the baseline's energy" in chosen.reason


def test_a_disappointing_variant_is_told_why_and_only_what_explains_it() -> None:
    findings = [
        Finding("sqnr", "fail", 5.0, "dB", 10.0, "noise", "exclude it", 4.0),
        Finding("sparsity", "fail", 0.5, "ratio", 0.1, "zeros anywhere", "prune-structured", 3.0),
    ]
    found = result(
        variant("baseline", 10, 0.9), variant("slow", 10, 0.9), variant("wrong", 4, 0.5), variant("both", 10, 0.5)
    )
    for one, comparison in zip(found.variants[1:], found.comparisons, strict=True):
        blame(one, comparison, found.variants[0], findings)
    assert [[r.message for r in one.reasons] for one in found.variants] == [
        [], ["zeros anywhere"], ["noise"], ["noise", "zeros anywhere"],
    ]  # fmt: skip


def test_of_those_that_are_tied_the_most_accurate_is_taken() -> None:
    found = result(variant("baseline", 10, 0.9), variant("a", 4.0, 0.89), variant("b", 4.03, 0.9))
    chosen = recommend(found, [])
    assert chosen.variant == "b"
    assert "tied with a, and of these, as accurate as any, the smallest file" in chosen.reason


def test_where_accuracy_was_not_judged_nothing_is_called_accurate() -> None:
    found = result(variant("baseline", 10, 0.9), variant("a", 4.0, 0.9), variant("b", 4.03, 0.9))
    for one in found.variants:
        one.accuracy = None
    chosen = recommend(found, [])
    assert "of these the smallest file" in chosen.reason
    assert chosen.reason.endswith("accuracy was not judged")


def test_where_no_variant_keeps_the_budgets_none_is_recommended_and_the_nearest_named() -> None:
    found = result(variant("baseline", 10, 0.9), variant("a", 4, 0.895))
    chosen = recommend(found, budgets(found, Limits(max_j=1.0, max_size_bytes=10)))
    assert chosen.variant is None
    assert "comes nearest (it breaks: energy, file size)" in chosen.reason


def test_the_battery_counts_idle_power_at_the_rate_that_is_asked_for() -> None:
    """E(10/s) = 0.1 + 2/10 = 0.3 J against 0.25 J, although the gross figure at full speed is far below."""
    product = Product(fps=10, battery_wh=20, hours=8)
    (check,) = budgets(result(variant("a", 0.12, 0.9, net=0.1)), Limits(), product)
    assert check.value == pytest.approx(0.3)
    assert not check.passed


# --- a whole study ----------------------------------------------------------------------------------------------------

STUDY = """
model = "net.onnx"
dataset = "data.npz"
[protocol]
preset = "quick"
windows = 2
window = 0.1
idle = 0
warmup = 0.05
[recipes]
explicit = ["prune:amount=0.5", "export-pt2", "prune-structured:amount=0.5", "int8-dynamic:conv=true"]
[budgets]
max_size = "30 KiB"
"""


def command(path: Path, *words: str) -> list[str]:
    return [sys.executable, "-m", "edgeprof", "sweep", str(path), *words]


@pytest.fixture
def study(tmp_path: Path) -> Path:
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    net = convnet(tmp_path / "net.onnx")
    assert net.stat().st_size > 15_000
    np.savez(tmp_path / "data.npz", x=samples(40), y=np.arange(40) % 4)
    return written(tmp_path, STUDY.replace("30 KiB", f"{net.stat().st_size // 2} B"))


@pytest.fixture
def sweep(capfd: pytest.CaptureFixture[str]) -> Verb:
    return command_in_process(capfd, "sweep")


@pytest.mark.timeout(300)  # two or three studies
@pytest.mark.usefixtures("forked_workers")
def test_a_study_that_was_killed_goes_on_where_it_was(study: Path, sweep: Verb) -> None:
    results = study.with_suffix(".study") / "results"
    with ended(subprocess.Popen(command(study, "-q"), stdout=subprocess.DEVNULL)) as first:
        while not [p for p in results.glob("*.json") if not p.name.startswith("look")]:
            time.sleep(0.05)
            assert first.poll() is None
        first.send_signal(signal.SIGKILL)
    before = {p.name: p.stat().st_mtime_ns for p in results.glob("*.json")}
    done = sweep(study, code=3)  # export-pt2 does not take ONNX
    assert "already measured" in done.stderr
    assert "already made" in done.stderr
    assert all((results / name).stat().st_mtime_ns == stamp for name, stamp in before.items())
    report = json.loads((study.with_suffix(".study") / "study.json").read_text())
    kept = document.load(study.with_suffix(".study") / "result.json")
    statuses = {v.name: v.status for v in kept.variants}
    assert statuses.pop("export-pt2") == "failed"
    assert set(statuses) == {"baseline", "prune(amount=0.5)", "prune-structured(amount=0.5)", "int8-dynamic(conv=true)"}
    too_large = {c["variant"] for c in report["checks"] if not c["passed"] and c["quantity"] == "file size"}
    assert {"baseline", "prune(amount=0.5)"} <= too_large
    assert report["recommendation"]["variant"] not in too_large
    assert f"ship {report['recommendation']['variant']}" in done.stdout
    # A report of the study says what to ship too, and what broke.
    assert kept.reasons[0].message.startswith(f"ship {report['recommendation']['variant']}: ")
    assert sum(reason.code == "budget" for reason in kept.reasons) >= 2
    pruned = sweep(study, "-q", "--prune-hopeless", code=3)
    assert "not measured  prune(amount=0.5): its file has" in pruned.stdout


def planned(path: Path) -> tuple[int, str]:
    from click.testing import CliRunner

    done = CliRunner().invoke(verb, [str(path), "--plan"])
    remedy = getattr(done.exception, "remedy", "")
    return done.exit_code if done.exception is None else -1, f"{done.output}{done.exception} {remedy}"


def test_the_plan_is_shown_without_running(study: Path) -> None:
    study.write_text(study.read_text() + '[search]\nwith = "cluster:n={n}"\nn = { from = 4, to = 64 }\ntrials = 3\n')
    code, text = planned(study)
    assert code == 0, text
    assert text.splitlines()[0] == "prune:amount=0.5"
    assert "search, at most 3 of cluster:n={n}: n from 4 to 64" in text
    assert not study.with_suffix(".study").exists()


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("prune:amount=0.5", "prnue", "Did you mean prune"),
        ("prune:amount=0.5", "prune:amount=5", "out of range"),
        ("net.onnx", "nat.onnx", "nat.onnx does not exist"),
        ("data.npz", "dato.npz", "dato.npz does not exist"),
        (
            "[budgets]",
            '[search]\nwith = "prune:amount={a}"\na = { from = 0.1, to = 2.5 }\n[budgets]',
            "amount=2.5 is out of range",
        ),
        ("[budgets]", '[search]\nwith = "{a}"\na = ["fp16", "fp61"]\n[budgets]', "Did you mean fp16"),
    ],
)
def test_the_plan_tells_what_would_end_the_study(old: str, new: str, said: str, study: Path) -> None:
    study.write_text(study.read_text().replace(old, new))
    code, text = planned(study)
    assert code == -1
    assert said in text


SEARCH = """
model = "net.onnx"
dataset = "data.npz"
[protocol]
preset = "quick"
windows = 2
window = 0.05
idle = 0
warmup = 0.05
[search]
with = "prune-structured:amount={amount}+{then}"
amount = { from = 0.1, to = 0.7 }
then = ["fp16", "int8-weight"]
trials = 2
"""


@pytest.mark.timeout(300)  # two or three studies
@pytest.mark.usefixtures("forked_workers")
def test_a_search_goes_on_where_it_ended(study: Path, sweep: Verb) -> None:
    pytest.importorskip("optuna")
    path = study.with_name("search.toml")
    path.write_text(SEARCH)
    sweep(path, "-q")
    result = path.with_suffix(".study") / "result.json"
    first = [v.name for v in document.load(result).variants]
    path.write_text(SEARCH.replace("trials = 2", "trials = 3"))
    done = sweep(path)
    second = [v.name for v in document.load(result).variants]
    assert second[: len(first)] == first
    assert done.stderr.count("already measured") == len(first) - 1
    assert len(second) <= 4


def test_a_trial_that_was_cut_off_is_asked_again_and_counted_once(tmp_path: Path) -> None:
    pytest.importorskip("optuna")
    space, database = Search("prune:amount={a}", {"a": (0.1, 0.9, False)}, 4), tmp_path / "search.db"
    asked: list[str] = []

    def judge(chain: str) -> tuple[float, float, float, int]:
        asked.append(chain)
        if len(asked) == 2:
            raise KeyboardInterrupt
        return 0.9, 1.0, 10.0, 0

    with pytest.raises(KeyboardInterrupt):
        search(space, database, 0, judge)
    assert list(chains(database)) == asked[:1]
    search(space, database, 0, judge)
    assert asked[2] == asked[1]
    assert list(chains(database)) == [asked[0], *asked[2:]]
    assert len(asked) == 5


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('with = "prune:amount={a}"\n', "must give values for a"),
        ("trials = 3\n", "needs with ="),
        ('with = "prune:amount={a}"\na = [1]\ntrials = 0\n', "trials from 1 to"),
        ('with = "prune:amount={a}"\na = { from = 0.9, to = 0.1 }\n', "range of a does not go"),
    ],
)
def test_a_mistake_in_a_search_is_named(text: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=said):
        load(written(tmp_path, 'model = "x"\n[search]\n' + text))

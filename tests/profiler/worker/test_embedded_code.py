"""A model file is data: code in it is found without a library, the file is refused, and the code never runs."""

from __future__ import annotations

import ast
import contextlib
import io
import pickle
import struct
import zipfile
from pathlib import Path

import pytest

from edgeprof.artifact import recognise
from edgeprof.errors import InputError
from edgeprof.worker import embedded_code, pickles, zips
from tests import hostile_programs
from tests.hostile_programs import Payload, entries_of, pack, saved

torch = pytest.importorskip("torch", reason="programs are written by PyTorch")


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return hostile_programs.exported(tmp_path_factory.mktemp("program") / "model.pt2")


def test_a_program_as_pytorch_writes_it_carries_no_code(program: Path) -> None:
    assert embedded_code.find_code(str(program)) is None
    assert recognise(str(program)).format == "pt2"
    loaded = embedded_code.load_program(torch, str(program))
    assert loaded.module()(torch.randn(3, 3, 8, 8)).shape == (3, 4, 6, 6)


def test_every_way_to_code_is_refused_by_the_entry_that_would_run_it(program: Path, tmp_path: Path) -> None:
    for name, (path, marker, entry) in hostile_programs.attacks(program, tmp_path).items():
        reason = embedded_code.find_code(str(path))
        assert reason is not None, name
        assert entry in reason, name
        with pytest.raises(InputError, match="would run its author's code") as refused:
            recognise(str(path))
        assert "--allow-code" in (refused.value.remedy or "")
        with pytest.raises(embedded_code.LoadError, match="would run its author's code"):
            embedded_code.load_program(torch, str(path))
        assert not marker.exists(), name


@pytest.mark.filterwarnings("ignore")
def test_pytorch_is_held_to_data_even_where_the_look_through_saw_nothing(
    program: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded_code, "find_code", lambda _path: None)
    for name, (path, marker, _) in hostile_programs.attacks(program, tmp_path).items():
        with pytest.raises(Exception, match=r"."):
            embedded_code.load_program(torch, str(path))
        assert not marker.exists(), name
    assert torch.load.__module__ == "torch.serialization"


@pytest.mark.filterwarnings("ignore")
def test_the_attacks_are_real_pytorch_runs_them(program: Path, tmp_path: Path) -> None:
    attacks = hostile_programs.attacks(program, tmp_path)
    real = [name for name in attacks if name not in {"library", "target"}]  # a real library; PyTorch's own verifier
    for name in real:
        with contextlib.suppress(Exception):
            torch.export.load(attacks[name][0]).module()(torch.randn(3, 3, 8, 8))
    assert {name for name in real if attacks[name][1].exists()} == set(real)


def test_code_that_is_allowed_is_loaded(program: Path, tmp_path: Path) -> None:
    path, marker, _ = hostile_programs.attacks(program, tmp_path)["shape"]
    with embedded_code.code_allowed():
        assert recognise(str(path)).format == "pt2"
        embedded_code.load_program(torch, str(path))
    assert marker.exists()
    assert not embedded_code.is_code_allowed()


def test_an_archive_that_two_readers_see_differently_is_refused(program: Path, tmp_path: Path) -> None:
    entries = entries_of(program)
    upper = pack(tmp_path / "upper.pt2", {**entries, "DATA/sample_inputs/model.pt": saved(())})
    twice = tmp_path / "twice.pt2"
    with zipfile.ZipFile(pack(twice, entries), "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("package/models/model.json", entries["models/model.json"])
    shifted = tmp_path / "shifted.pt2"
    shifted.write_bytes(b"PK\x03\x04" + bytes(60) + pack(tmp_path / "whole.pt2", entries).read_bytes())
    renamed = tmp_path / "renamed.pt2"
    whole = (tmp_path / "whole.pt2").read_bytes()
    renamed.write_bytes(whole.replace(b"package/models/model.json", b"package/models/other.json", 1))
    trailing = tmp_path / "trailing.pt2"
    trailing.write_bytes(whole + b"\0" * 40)
    deflated = tmp_path / "deflated.pt2"
    with zipfile.ZipFile(deflated, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries.items():
            archive.writestr(f"package/{name}", content)
    for path in (upper, twice, shifted, renamed, trailing, deflated):
        assert "two readers" in (embedded_code.find_code(str(path)) or ""), path.name


@pytest.mark.parametrize(
    "shape",
    [
        "Symbol('s77', positive=True, integer=True)",
        "Add(Mul(Integer(2), Symbol('s0', integer=True)), Integer(-1))",
        "FloorDiv(s0, 2) + Max(1, s1)*3",
        "Pow(Symbol('u0'), Integer(2))",
        "9223372036854775806",
    ],
)
def test_arithmetic_of_sizes_is_a_shape(shape: str) -> None:
    assert embedded_code.code_in_value("expr_str", shape) is None


@pytest.mark.parametrize(
    "shape",
    [
        "exec('1')",
        "().__class__",
        "Symbol.__class__",
        "eval(chr(49))",
        "[1 for x in s0]",
        "lambda: 1",
        "Symbol(eval('1'))",
        "Max('open(1)', 2)",
        "__import__",
        "f'{s0}'",
        "(x := 1)",
        "1" * 20_000,
        "(" * 9000,
        7,
    ],
)
def test_whatever_else_python_would_evaluate_is_none(shape: object) -> None:
    assert embedded_code.code_in_value("expr_str", shape) is not None


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("target", "torch.hub.load"),
        ("target", "torch.ops.aten.from_file.default"),
        ("target", "torch.ops.aten.relu.default; import os"),
        ("target", "#extension"),
        ("target", "os.system"),
        ("name", "x=print(1)"),
        ("as_name", "x, y=open('f', 'w')"),
        ("parameter_name", 'a"+print(1)+"'),
        ("in_spec", '[1, {"type": "collections.defaultdict", "context": "{}", "children_spec": []}]'),
        ("in_spec", '[1, {"type": "builtins.dict", "context": "{\\"__enum__\\": 1}", "children_spec": []}]'),
        ("guards_code", ["L['x'].size()[0] >= 2", "__import__('os')"]),
        ("guards_code", "().__class__"),
    ],
)
def test_what_a_program_would_have_python_do_is_seen(key: str, value: object) -> None:
    assert embedded_code.code_in_value(key, value) is not None


def test_guards_that_compare_sizes_are_data() -> None:
    guards = ["L['args'][0][0].size()[0] >= 2", "L['x'].size()[1] == 3 and Eq(Mod(L['x'].size()[0], 2), 0)"]
    assert embedded_code.code_in_value("guards_code", guards) is None


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_torchscript_that_touches_files_is_refused(tmp_path: Path) -> None:
    class Saves(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            torch.save(x, "written")
            return x

    class Plain(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + 1

    torch.jit.script(Saves()).save(str(tmp_path / "saves.pt"))
    torch.jit.script(Plain()).save(str(tmp_path / "plain.pt"))
    with pytest.raises(InputError, match=r"code/\S+ calls .*save\(\), which reads or writes files"):
        recognise(str(tmp_path / "saves.pt"))
    assert recognise(str(tmp_path / "plain.pt")).format == "torchscript"


def test_a_pickle_is_followed_through_its_memo_and_no_further(tmp_path: Path) -> None:
    assert pickles.scan(pickle.dumps(Payload(tmp_path), protocol=4)).names == ["builtins.exec"]
    memoized = b"\x80\x04\x8c\x02os\x94\x8c\x06system\x940h\x00h\x01\x93."
    assert pickles.scan(memoized).names == ["os.system"]
    computed = b"\x80\x04\x8c\x02os}\x93."
    assert "computes the name" in pickles.scan(computed).reason
    assert "number" in pickles.scan(b"\x80\x02\x82\x01.").reason


def test_names_that_a_pickle_joins_stay_short() -> None:
    text = b"x" * (4 << 20)
    long = b"\x8d" + struct.pack("<Q", len(text)) + text
    scan = pickles.scan(b"\x80\x04" + long + b"\x94" + long + b"\x94" + b"h\x00h\x01\x93" * 20_000 + b".")
    assert max(map(len, scan.names)) < 1000


def test_an_endless_pickle_is_given_up() -> None:
    assert "operations" in pickles.scan(b"\x80\x02" + b"N0" * 500_000 + b".").reason


#: Calls that run code from a model file → where each is allowed.
DOORS = {
    "torch.export.load": {"embedded_code.py"},
    "pickle.load": set(),
    "pickle.loads": {"cluster.py"},  # no file: what a host of the fleet answers, which has a certificate
    "joblib.load": set(),
    "yaml.load": set(),
    "eval": set(),
    "exec": set(),
}
LAST_NAMES = {name.rpartition(".")[2] for name in ("torch.load", *DOORS)}


def test_nothing_in_the_house_opens_a_file_by_another_door() -> None:
    house = Path(__file__).parents[3]
    for path in (
        file for room in ("profiler", "plugins", "exporters", "dashboards") for file in (house / room).rglob("*.py")
    ):
        for node in ast.walk(ast.parse(path.read_bytes())):
            if not isinstance(node, ast.Call):
                continue
            given = {keyword.arg: keyword.value for keyword in node.keywords}
            assert "allow_pickle" not in given or ast.unparse(given["allow_pickle"]) != "True", path
            last = getattr(node.func, "attr", getattr(node.func, "id", ""))
            if last not in LAST_NAMES:  # the whole name of each call would take seconds
                continue
            called = ast.unparse(node.func)
            assert path.name in DOORS.get(called, {path.name}), f"{path}: {called}"
            assert called != "torch.load" or ast.unparse(given["weights_only"]) == "True", path


def test_a_zip_with_too_many_entries_is_not_opened() -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for number in range(zips.LIMIT_ENTRIES + 1):
            archive.writestr(str(number), b"")
    with pytest.raises(zips.UnreadableError, match="entries"):
        zips.open_zip(buffer)

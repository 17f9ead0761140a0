"""Any Python callable through edgeprof's contract."""

from __future__ import annotations

import textwrap

import numpy as np
import pytest

from edgeprof.testing import check_runtime
from edgeprof.worker.inputs import random_feeds
from edgeprof.worker.runtime import LoadError, LoadOptions
from edgeprof_plugins.runtimes.python import Python

CPU = LoadOptions(device="cpu", threads=None, batch=1, shapes={}, options={})


@pytest.fixture
def app(tmp_path):
    path = tmp_path / "python_app.py"
    path.write_text(
        textwrap.dedent("""
            import numpy as np

            log = []

            def setup():
                log.append("setup")

            def teardown():
                log.append("teardown")

            def frame():
                return np.arange(3) * 2

            def detect(image, threshold=0.5):
                return {"boxes": image[:, :2], "found": 2}

            def history():
                return list(log)

            class Counter:
                def __init__(self):
                    self.calls = 0
                def setup(self):
                    self.calls = 100
                def __call__(self):
                    self.calls += 1
                    return self.calls

            async def later():
                return 1

            def stream():
                yield 1

            class Module:
                def state_dict(self): ...
                def forward(self): ...
                def __call__(self): ...

            constant = 3
        """)
    )
    return path


def test_a_function_conforms(app):
    check_runtime(Python(), f"{app}:frame", expected={"output": np.array([0, 2, 4])})


def test_a_function_that_takes_inputs_is_fed_by_name(app):
    session = Python().load(f"{app}:detect", CPU)
    assert [spec.name for spec in session.inputs] == ["image"]
    feeds = random_feeds(session.inputs, {"image": (4, 4)}, 1, 0, {"image": "uint8"})
    outputs = session.run(feeds)
    assert np.array_equal(outputs["boxes"], feeds["image"][:, :2])
    assert outputs["found"] == 2
    assert session.bind(feeds)()["found"] == 2


def test_setup_and_teardown_run_once_each(app):
    session = Python().load(f"{app}:history", CPU)
    assert session.run({})["output_0"] == "setup"
    assert len(session.run({})) == 1
    log = session.bind({})
    session.close()
    session.close()
    assert log() == ["setup", "teardown"]


def test_a_class_is_constructed_once_and_its_own_setup_is_called(app):
    session = Python().load(f"{app}:Counter", CPU)
    call = session.bind({})
    assert [call(), call()] == [101, 102]


@pytest.mark.parametrize(
    ("attribute", "says"),
    [
        ("later", "is async"),
        ("stream", "is a generator"),
        ("constant", "is int, which cannot be called"),
        ("Module", "is a torch module"),
        ("nothing", "has no 'nothing'"),
    ],
)
def test_what_would_run_nothing_is_refused(app, attribute, says):
    with pytest.raises(LoadError, match=says):
        Python().load(f"{app}:{attribute}", CPU)


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("import sys; sys.exit(3)", "ends the program when it is imported"),
        ("import no_such_library", "ModuleNotFoundError: No module named 'no_such_library'"),
        ("def f(:", "SyntaxError"),
    ],
)
def test_a_program_that_cannot_be_imported_says_why(tmp_path, source, says):
    path = tmp_path / "broken_app.py"
    path.write_text(source)
    with pytest.raises(LoadError, match=says):
        Python().load(f"{path}:f", CPU)


def test_a_module_on_the_path_is_named_with_dots():
    session = Python().load("platform:python_version", CPU)
    assert str(session.run({})["output"]).startswith("3.")


def test_a_device_means_nothing_to_it(app):
    with pytest.raises(LoadError, match="--device cuda says nothing"):
        Python().load(f"{app}:frame", CPU._replace(device="cuda"))


def test_a_file_may_bear_the_name_of_a_library_that_is_loaded(tmp_path):
    """app.py beside numpy.py is unlucky; a file that is itself called numpy.py must not replace the real one."""
    path = tmp_path / "json.py"
    path.write_text("def f():\n    return 1\n")
    assert Python().load(f"{path}:f", CPU).run({})["output"] == 1
    import json

    assert json.loads("1") == 1

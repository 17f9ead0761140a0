"""Conformance tests for plugins: plain functions that raise AssertionError with one sentence of what is wrong.

The first-party runtimes and sensors pass them in edgeprof's own tests; call them from yours::

    from edgeprof.testing import check_runtime, check_sensor

    def test_my_runtime_conforms(tmp_path):
        check_runtime(MyRuntime(), "tests/model.toy", feeds={"x": x}, expected={"y": y})
"""

from edgeprof.testing.compressors import check_compressor
from edgeprof.testing.results import example_result
from edgeprof.testing.runtimes import check_runtime
from edgeprof.testing.sensors import check_sensor

__all__ = ["check_compressor", "check_runtime", "check_sensor", "example_result"]

"""Conformance tests for plugins: functions that raise AssertionError with a sentence on what is wrong.

edgeprof's own runtimes and sensors pass them; call them from your tests::

    from edgeprof.testing import check_runtime, check_sensor

    def test_my_runtime_conforms(tmp_path):
        check_runtime(MyRuntime(), "tests/model.toy", feeds={"x": x}, expected={"y": y})
"""

from edgeprof.testing.compressors import check_compressor
from edgeprof.testing.results import example_result
from edgeprof.testing.runtimes import check_runtime
from edgeprof.testing.sensors import check_sensor

__all__ = ["check_compressor", "check_runtime", "check_sensor", "example_result"]

"""The detectors on OpenVINO and ncnn, which `make test-runtimes` installs."""

from __future__ import annotations

import pytest


@pytest.mark.parametrize(
    ("runtime", "model"), [("openvino", "fastestdet"), ("openvino", "yolox_nano"), ("ncnn", "fastestdet")]
)
def test_a_detector_finds_the_same_on_another_runtime(applications, shared_data, monkeypatch, runtime, model):
    pytest.importorskip(runtime, reason=f"{runtime} is not installed here: make test-runtimes")
    frame = applications.images.read_image(shared_data / "detection/1.jpg")
    found = []
    for name in ("onnxruntime", runtime):
        monkeypatch.setenv("RUNTIME", name)
        detector = applications.detect.load_detector(*applications.detect.DETECTORS[model])
        found.append(detector.boxes(detector.detect(detector.resize(frame))))
    assert "bus" in found[1].labels
    assert found[1].labels == found[0].labels
    assert found[1].scores == pytest.approx(found[0].scores, abs=0.02)
    assert found[1].boxes == pytest.approx(found[0].boxes, abs=2)

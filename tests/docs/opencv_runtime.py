"""The tutorial's runtime of a real library; tools/stranger.py installs the page's text as a plugin of its own."""

# region: opencv
from edgeprof import hookimpl
from edgeprof.worker.runtime import (
    ANY_SHAPE,
    Availability,
    LoadError,
    Runtime,
    Session,
    TensorSpec,
    library_version,
)


class Dnn(Runtime):
    """ONNX models by OpenCV's dnn module."""

    name = "my-opencv"
    formats = ("onnx",)
    libraries = ("cv2",)

    def availability(self):
        version = library_version("cv2", "opencv-python-headless", "opencv-python")
        if version is None:
            return Availability(None, "OpenCV is not installed", "pip install opencv-python-headless")
        return Availability(version, None, None)

    def devices(self):
        return ["cpu"]

    def load(self, path, options):
        import cv2

        if options.device != "cpu":
            raise LoadError(f"my-opencv has no device {options.device}", "Use --device cpu.")
        for option in options.options:
            raise LoadError(f"my-opencv has no option {option}")
        if options.threads:
            cv2.setNumThreads(options.threads)
        try:
            net = cv2.dnn.readNetFromONNX(path)
        except cv2.error as error:
            raise LoadError(f"OpenCV cannot read {path}: {error.err}") from None
        return Network(net)


class Network(Session):
    # OpenCV does not tell the names and shapes of inputs: --input input=1x3x32x32 gives the shape.
    inputs = (TensorSpec("input", ANY_SHAPE, "float32", None),)

    def __init__(self, net):
        self.net = net
        self.names = list(net.getUnconnectedOutLayersNames())
        self.outputs = tuple(TensorSpec(name, ANY_SHAPE, "float32", None) for name in self.names)

    def run(self, feeds):
        self.net.setInput(feeds["input"])
        values = self.net.forward(self.names)
        return {name: value.copy() for name, value in zip(self.names, values)}  # noqa: B905 - Python 3.6 has no strict

    def bind(self, feeds):
        self.net.setInput(feeds["input"])  # once: the windows repeat what an application repeats
        return lambda: self.net.forward(self.names)


@hookimpl
def register_runtimes(register):
    register("my-opencv", Dnn)


# endregion

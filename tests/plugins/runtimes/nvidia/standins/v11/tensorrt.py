"""TensorRT 11, as far as the tests need it."""

from tensorrt_core import offer

offer(globals(), "11")

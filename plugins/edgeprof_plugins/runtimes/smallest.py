"""The smallest model of a format that several runtimes load, for ``edgeprof doctor``."""

import base64

#: y = max(x, 0), float32 [1, 2], as an .onnx file.
ONNX = base64.b64decode(
    "CAc6PgoMCgF4EgF5IgRSZWx1EgR0aW55WhMKAXgSDgoMCAESCAoCCAEKAggCYhMKAXkSDgoMCAESCAoCCAEKAggCQgQKABAN"
)

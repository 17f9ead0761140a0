# The commands of docs/scenarios.md; test_pages.py runs them in a folder that holds examples/demo.
# region: scenarios
edgeprof bench examples/demo/digits.onnx --scenario periodic --rate 15
edgeprof bench examples/demo/digits.onnx --scenario server --rate 100
# endregion

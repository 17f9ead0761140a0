# The commands of docs/two-runs.md; test_pages.py runs them in a folder that holds examples/demo.
# region: twice
edgeprof bench examples/demo/digits.onnx -o first.json
edgeprof bench examples/demo/digits.onnx -o second.json
edgeprof compare first.json second.json
# endregion

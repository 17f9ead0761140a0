# The commands of docs/ci.md; test_pages.py runs them in a folder that holds examples/demo.
# region: gate
edgeprof bench examples/demo/digits.onnx --dataset examples/demo/digits-test.npz -o main.json
edgeprof bench examples/demo/digits.onnx --dataset examples/demo/digits-test.npz -o branch.json
edgeprof gate branch.json --baseline main.json --max-regression 20% --junit gate.xml
# endregion
# region: files
edgeprof report branch.json -o run.github-benchmark.json -o README.card.md -o model.spdx3.json
# endregion

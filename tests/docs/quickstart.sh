# The commands of docs/quickstart.md; test_pages.py runs them in a folder that holds examples/demo.
# region: measure
edgeprof bench examples/demo/digits.onnx examples/demo/digits-int8.onnx \
    --dataset examples/demo/digits-test.npz -o result.json -o report.html
# endregion
# region: compress
edgeprof bench examples/demo/digits.onnx --with prune:amount=0.5 --with fp16 -o variants.json
# endregion
# region: later
edgeprof history                                   # every run on this machine
edgeprof history last --name first-look            # a name instead of an id
edgeprof compare result.json first-look            # ratios with their intervals
edgeprof report first-look -o report.html          # the page again
edgeprof plot result.json -o pareto.svg            # one chart, for a paper
# endregion
# region: virtual
edgeprof simulate jetson-orin-nano --follow command -- edgeprof bench examples/demo/digits.onnx
# endregion

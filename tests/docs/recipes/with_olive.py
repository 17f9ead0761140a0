"""The recipe for olive in docs/recipes.md; test_recipes.py runs it where the library is installed."""

# region: olive
import olive

import edgeprof

made = olive.run(
    {
        "input_model": {"type": "ONNXModel", "model_path": "digits.onnx"},
        "passes": {"int8": {"type": "OnnxDynamicQuantization"}},
        "output_dir": "olive",
    }
)
models = {"digits": "digits.onnx", "olive": made.get_best_candidate().model_path}
result = edgeprof.bench(models, dataset="digits-test.npz", preset="quick")
print(result)
# endregion

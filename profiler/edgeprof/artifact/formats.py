"""The formats that edgeprof recognises, each with a remedy if no installed runtime loads it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Format:
    """A kind of model file.

    Attributes:
        name: The key that runtimes and compressors declare, such as ``onnx``.
        suffixes: Usual suffixes of the file name, lower case with the dot; the content decides, not the suffix.
        describe: A description with its article, for messages, such as ``an ONNX model``.
        remedy: What the user can do with the file if no installed runtime loads it.
    """

    name: str
    suffixes: tuple[str, ...]
    describe: str
    remedy: str


_ONNX_FIRST = "Export the model to ONNX or TFLite and bench that."
_TORCH_EXPORT = (
    "Write a function that builds the network and loads these weights, and bench it: edgeprof bench FILE.py:FUNCTION "
    "--runtime pytorch. Or export the whole model with torch.export.save or torch.onnx.export."
)

FORMATS: dict[str, Format] = {
    f.name: f
    for f in (
        Format("onnx", (".onnx",), "an ONNX model", "pip install 'edgeprof[onnx]'"),
        Format("ort", (".ort",), "an ONNX Runtime model (ORT format)", "pip install 'edgeprof[onnx]'"),
        Format("tflite", (".tflite", ".lite"), "a TensorFlow Lite model", "pip install 'edgeprof[litert]'"),
        Format(
            "edgetpu-tflite",
            ("_edgetpu.tflite",),
            "a TensorFlow Lite model compiled for the Edge TPU",
            "pip install 'edgeprof[litert]', and bench it with --device edgetpu where a Coral is attached.",
        ),
        Format(
            "torchscript",
            (".pt", ".jit", ".torchscript", ".ts"),
            "a TorchScript model",
            "pip install 'edgeprof[torch]'",
        ),
        Format("pt2", (".pt2",), "a torch.export program", "pip install 'edgeprof[torch]'"),
        Format("python", (".py",), "a Python callable", "Name it as FILE.py:FUNCTION or package.module:function."),
        Format(
            "aoti",
            (".pt2",),
            "a package compiled by AOTInductor",
            "Bench a function that loads it: edgeprof bench FILE.py:FUNCTION, with torch._inductor.aoti_load_package.",
        ),
        Format(
            "ptl",
            (".ptl",),
            "a PyTorch Mobile (lite interpreter) model",
            "Save it with torch.jit.save or torch.export.save instead; PyTorch Mobile is no longer maintained.",
        ),
        Format(
            "state_dict",
            (".pth", ".th", ".pt", ".ckpt", ".bin"),
            "PyTorch weights (a state_dict) without the network",
            _TORCH_EXPORT,
        ),
        Format(
            "pickle",
            (".pkl", ".pickle", ".pt", ".pth", ".joblib"),
            "a pickled Python object, which runs its author's code when it is loaded",
            "edgeprof never unpickles a file. If you trust it, load it in a function of your own and bench that "
            "(edgeprof bench FILE.py:FUNCTION); better, export it to ONNX, TFLite or torch.export.",
        ),
        Format("safetensors", (".safetensors",), "weights (safetensors) without the network", _TORCH_EXPORT),
        Format(
            "tensorrt",
            (".engine", ".plan", ".trt"),
            "a TensorRT plan, built for one GPU and one TensorRT version",
            "Bench it where it was built, with TensorRT and its GPU; elsewhere the ONNX model that it was built from.",
        ),
        Format(
            "gguf",
            (".gguf",),
            "a GGUF language model",
            "pip install 'edgeprof[llamacpp]', or serve it (llama-server, Ollama) and bench the server's URL.",
        ),
        Format(
            "transformers",
            (),
            "a language model in Hugging Face's form",
            "pip install 'edgeprof[transformers]'",
        ),
        Format(
            "openvino-genai",
            (),
            "a language model for OpenVINO",
            "pip install 'edgeprof[openvino-genai]'",
        ),
        Format(
            "onnxruntime-genai",
            (),
            "a language model for ONNX Runtime",
            "pip install 'edgeprof[onnxruntime-genai]'",
        ),
        Format(
            "ctranslate2",
            (),
            "a language model for CTranslate2",
            "pip install 'edgeprof[ctranslate2]'",
        ),
        Format(
            "openai-server",
            (),
            "a server that speaks OpenAI's protocol",
            "Give the address of a running server, as http://127.0.0.1:8080.",
        ),
        Format(
            "mcu",
            (),
            "a microcontroller on a serial port",
            "Give its port, as mcu:/dev/ttyACM0.",
        ),
        Format(
            "ggml",
            (".bin", ".ggml"),
            "a language model in an old GGML format",
            "Convert it to GGUF with llama.cpp's scripts; current runtimes refuse it too.",
        ),
        Format(
            "executorch",
            (".pte",),
            "an ExecuTorch program",
            "pip install 'edgeprof[executorch]', or bench the torch.export program (.pt2) that it was lowered from.",
        ),
        Format(
            "openvino",
            (".xml",),
            "an OpenVINO model (IR)",
            "pip install 'edgeprof[openvino]'",
        ),
        Format(
            "savedmodel",
            (".pb",),
            "a TensorFlow SavedModel",
            "pip install 'edgeprof[keras]', or convert it: tf.lite.TFLiteConverter.from_saved_model(DIR).convert()",
        ),
        Format(
            "graphdef",
            (".pb",),
            "a frozen TensorFlow graph (GraphDef)",
            "Convert it: python -m tf2onnx.convert --graphdef FILE --output model.onnx",
        ),
        Format(
            "keras",
            (".keras", ".h5", ".hdf5"),
            "a Keras model",
            "pip install 'edgeprof[keras]', or convert it: "
            "tf.lite.TFLiteConverter.from_keras_model(keras.models.load_model(FILE)).convert()",
        ),
        Format(
            "hdf5",
            (".h5", ".hdf5"),
            "an HDF5 file",
            "If it is a Keras model, save it whole (model.save) and convert it to TFLite.",
        ),
        Format(
            "coreml", (".mlmodel", ".mlpackage"), "a Core ML model", f"It runs on Apple systems only. {_ONNX_FIRST}"
        ),
        Format("rknn", (".rknn",), "a Rockchip RKNN model", _ONNX_FIRST),
        Format("hef", (".hef",), "a Hailo executable (HEF)", _ONNX_FIRST),
        Format("ncnn", (".param",), "an ncnn network", "pip install 'edgeprof[ncnn]'"),
        Format("mnn", (".mnn",), "an MNN model", "pip install 'edgeprof[mnn]'"),
        Format(
            "litertlm",
            (".litertlm",),
            "a LiteRT-LM bundle",
            "Measure a command with edgeprof run -- COMMAND.",
        ),
        Format(
            "mediapipe", (".task",), "a MediaPipe bundle", "Unpack it (unzip FILE) and bench a .tflite model inside."
        ),
    )
}


def suffixes_of(name: str) -> tuple[str, ...]:
    """Return the usual suffixes of a format, lower case with the dot; an empty tuple for a plugin's format."""
    known = FORMATS.get(name)
    return () if known is None else known.suffixes

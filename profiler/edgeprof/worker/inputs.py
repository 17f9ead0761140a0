"""The inputs of a model: random data in its shapes and dtypes, and a check of the data that the user gives.

Python 3.6 grammar: this file runs in the worker too.
"""

import difflib
import re
import zlib
from typing import Any, Dict, Optional, Sequence, Tuple

import numpy as np

from edgeprof.worker.dtypes import carrier_dtype, decode_bytes, given_dtype, integer_limits, is_foreign
from edgeprof.worker.runtime import ANY_DTYPE, ANY_SHAPE, Dim, LoadError, LoadOptions, Session, TensorSpec
from edgeprof.worker.tensors import object_array

#: Names that exporters give to the dimension of samples: "batch", "batch_size", "N", …
_BATCH_NAME = re.compile(r"batch|^(n|b|bs)$", re.IGNORECASE)
#: Names that ONNX Runtime and torch.export make up where the file has none.
_NO_NAME = re.compile(r"^(unk__\d+|s\d+|\?|)$")

#: Exclusive upper ends of random integers. 8-bit types are mostly quantised values or pixels and get their whole range;
#: wider ones hold ids, lengths and indices, of which only 0 and 1 are likely to be valid in every model.
_INTEGERS = {"int16": 256, "uint16": 256, "int32": 2, "uint32": 2, "int64": 2, "uint64": 2}


def is_batch(dim: Dim, position: int) -> bool:
    """Whether a dynamic dimension is the number of samples: its name says so, or it has no name and is the first."""
    if isinstance(dim, int) and dim >= 0:
        return False
    if _is_name(dim):
        return bool(_BATCH_NAME.search(str(dim)))
    return position == 0


def describe_input(spec: TensorSpec) -> str:
    """``input [batch, 3, 224, 224] float32``, for messages."""
    if tuple(spec.shape) == ANY_SHAPE:
        shape = "[of any shape]"
    else:
        shape = "[" + ", ".join("?" if d in (None, -1, "") else str(d) for d in spec.shape) + "]"
    return "{} {}{}".format(spec.name, shape, "" if spec.dtype == ANY_DTYPE else " " + spec.dtype)


#: A mask drawn at random would hide a part of what the model is to work on.
_MASK = re.compile(r"mask", re.IGNORECASE)


def resolve_shapes(
    specs: Sequence[TensorSpec], shapes: Dict[str, Tuple[int, ...]], batch: int
) -> Dict[str, Tuple[int, ...]]:
    """The shape of each input in numbers.

    Args:
        specs: The model's inputs.
        shapes: ``--input NAME=SHAPE``, which wins over everything that is dynamic.
        batch: What the dimension of samples becomes (see ``is_batch``).

    Raises:
        LoadError: a shape does not fit the model, a dynamic dimension is left open, or the model's batch is fixed.
    """
    refuse_unknown(specs, shapes, "--input")
    resolved = {spec.name: _check_given_shape(spec, tuple(shapes[spec.name])) for spec in specs if spec.name in shapes}
    named: Dict[str, int] = {}
    for spec in specs:
        for dim, size in zip(spec.shape, resolved.get(spec.name, ())):
            if _is_name(dim):
                named[str(dim)] = size
    unknown = []
    for spec in specs:
        if spec.name not in resolved:
            shape = _resolve_shape(spec, named, batch)
            if shape is None:
                unknown.append(spec)
            else:
                resolved[spec.name] = shape
    if unknown:
        raise _open_size_error(unknown, batch)
    _require_batch(specs, shapes, resolved, batch)
    return resolved


def random_feeds(
    specs: Sequence[TensorSpec],
    shapes: Dict[str, Tuple[int, ...]],
    batch: int,
    seed: int,
    dtypes: Optional[Dict[str, str]] = None,
) -> Dict[str, Any]:
    """Random inputs of the model's own shapes and dtypes; the same for the same seed, name, shape and dtype.

    Floats are uniform in [0, 1), int8 and uint8 take their whole range, 16-bit integers 0 to 255, wider ones 0 or 1
    (ids that every vocabulary has), bools either, strings one word.

    Args:
        specs: The model's inputs.
        shapes: ``--input NAME=SHAPE``.
        batch: ``--batch``.
        seed: Seeds the random generator.
        dtypes: ``--input NAME=SHAPE:DTYPE``; it may only name types that the model leaves open.

    Raises:
        LoadError: as ``resolve_shapes``; or numpy lacks a dtype, or a dtype is not the model's.
    """
    wanted = dtypes or {}
    for given in (shapes, wanted):
        refuse_unknown(specs, given, "--input")
    for spec in specs:
        if spec.dtype.startswith(("sequence", "map")):
            raise LoadError(
                "there is no random data for the input {!r} of the type {}".format(spec.name, spec.dtype),
                "Give real inputs with --input-data FILE.npz; the tensors of a sequence are {0}.0, {0}.1 …".format(
                    spec.name
                ),
            )
    specs = [spec for spec in specs if not spec.dtype.startswith("optional")]  # the model runs without these
    resolved = resolve_shapes(specs, shapes, batch)
    feeds: Dict[str, Any] = {}
    for spec in specs:
        dtype = wanted.get(spec.name, spec.dtype)
        if spec.dtype not in (ANY_DTYPE, dtype):
            raise LoadError(
                "the input {!r} of the model is {}, not {}".format(spec.name, spec.dtype, dtype),
                "Leave the dtype out: --input {}={}".format(spec.name, _joined_sizes(resolved[spec.name])),
            )
        rng = np.random.RandomState(zlib.crc32(spec.name.encode("utf-8"), seed & 0xFFFFFFFF))
        feeds[spec.name] = _random_array(
            rng, resolved[spec.name], "float32" if dtype == ANY_DTYPE else dtype, spec.name
        )
    return feeds


def keep_fit(fits: Dict[str, Any], name: str, fit: Optional[Sequence[Any]]) -> None:
    """Keep the first hint about the values of an input in ``fits``; of two limits of indices keep the lower.

    Args:
        fits: Input → its hint, as ``fit_values`` takes it; changed in place.
        name: The input.
        fit: Another hint about it; None: nothing is known.
    """
    known = fits.get(name)
    is_lower = fit is not None and known is not None and known[0] == fit[0] == "below" and fit[1] < known[1]
    if fit is not None and (known is None or is_lower):
        fits[name] = fit


def fit_values(array: Any, fit: Sequence[Any], shapes: Dict[str, Tuple[int, ...]], rng: Any) -> Any:
    """Make values for an input whose meaning the graph shows (a size, an index), in the shape and type of ``array``.

    Args:
        array: Random data, which is returned where the hint does not apply.
        fit: The hint, as ``launch.fitting`` writes it.
        shapes: Input → its shape.
        rng: The numpy generator for values that remain random.
    """
    kind, rest = fit[0], list(fit[1:])
    if kind in ("below_size", "size"):
        shape = shapes.get(rest[0], ())
        if not -len(shape) <= rest[1] < len(shape):
            return array
        kind, rest = ("below" if kind == "below_size" else "all"), [shape[rest[1]]]
    if kind == "below" and rest[0] > 0 and array.dtype.kind in "iu":
        return rng.randint(0, min(rest[0], np.iinfo(array.dtype).max), size=array.shape).astype(array.dtype)
    if kind == "all" and array.dtype.kind in "iufb":
        most = np.iinfo(array.dtype).max if array.dtype.kind in "iu" else rest[0]
        return np.full(array.shape, min(rest[0], most), array.dtype)
    if kind == "values" and array.shape == (len(rest[0]),):
        return np.array(rest[0], array.dtype)
    if kind == "inferred" and array.ndim == 1 and array.size:  # one dimension takes all elements, whatever their number
        return np.array([-1] + [1] * (array.size - 1), array.dtype)
    return array


def own_feeds(
    session: Session, options: LoadOptions, seed: int, fits: Optional[Dict[str, Sequence[Any]]] = None
) -> Dict[str, Any]:
    """Make the inputs where the user gives none: the model's own examples, or else random data (``random_feeds``) with
    the values that the graph asks for where it shows what an input means (``fits``), and masks of ones.

    Examples are repeated along the dimension of samples to make up the batch; ``--input`` overrides them.
    """
    if session.examples is None or options.shapes or options.dtypes:
        drawn = random_feeds(session.inputs, options.shapes, options.batch, seed, options.dtypes)
        shapes = {name: array.shape for name, array in drawn.items()}
        rng = np.random.RandomState(seed & 0xFFFFFFFF)
        shown = {name: ("all", 1) for name in drawn if _MASK.search(name)}  # type: Dict[str, Sequence[Any]]
        shown.update(session.fits)
        shown.update(fits or {})
        for name, fit in sorted(shown.items()):
            if name in drawn:
                drawn[name] = fit_values(drawn[name], fit, shapes, rng)
        return drawn
    resolve_shapes(session.inputs, {}, options.batch)  # refuses a batch that the model cannot take
    feeds = {}
    for spec in session.inputs:
        array = np.asarray(session.examples[spec.name])
        axes = [i for i, dim in enumerate(spec.shape) if is_batch(dim, i)]
        feeds[spec.name] = np.repeat(array, options.batch, axis=axes[0]) if axes and options.batch > 1 else array
    return feeds


def check_feeds(specs: Sequence[TensorSpec], feeds: Dict[str, Any]) -> Dict[str, Any]:
    """Check the feeds and return them as C-contiguous arrays under the model's names, ready to run.

    A feed named ``""`` is the model's only input, in datasets that have no name for it.

    Raises:
        LoadError: an input is missing or unknown, or its dtype or shape is not the model's.
    """
    if set(feeds) == {""} and len(specs) == 1:
        feeds = {specs[0].name: feeds[""]}
    refuse_unknown(specs, feeds, "the data")
    missing = [spec for spec in specs if spec.name not in feeds and not spec.dtype.startswith("optional")]
    if missing:
        raise LoadError(
            "the data has nothing for the input{} {}".format(
                "s" if len(missing) > 1 else "", _described_inputs(missing)
            ),
            "The model takes: {}.".format("; ".join(describe_input(spec) for spec in specs)),
        )
    checked: Dict[str, Any] = {}
    sizes: Dict[str, Tuple[int, str]] = {}
    for spec in specs:
        if feeds.get(spec.name) is None:
            continue  # an optional input
        dtype = given_dtype(spec.dtype)
        array = _carry_data(dtype, np.asarray(feeds[spec.name]))
        kind = "object" if array.dtype.kind in "SU" else array.dtype.name
        if dtype != ANY_DTYPE and kind != (carrier_dtype(dtype) or "object"):
            raise LoadError(
                "the input {!r} takes {}, the data is {}".format(spec.name, spec.dtype, array.dtype.name),
                _conversion_remedy(spec, array),
            )
        _check_shape(spec, array.shape, sizes)
        checked[spec.name] = np.ascontiguousarray(array).reshape(array.shape)  # ascontiguousarray makes () into (1,)
    return checked


def _carry_data(dtype: str, array: Any) -> Any:
    """Convert data for an input of a type that numpy lacks to its carrier type, and a sequence to an array of objects.

    Floats of every width stand for bfloat16 and float8; so do a bfloat16's own bits, as .npz files hold them.
    """
    if dtype == "bfloat16" and array.dtype == np.dtype("V2"):
        return decode_bytes(np.ascontiguousarray(array).tobytes(), dtype, array.shape)
    if dtype.startswith("sequence"):
        return array if array.dtype.kind == "O" else object_array(list(array))
    if not is_foreign(dtype):
        return array
    wide = carrier_dtype(dtype)
    if wide == "float32":
        return array.astype(wide) if array.dtype.kind == "f" else array
    low, high = integer_limits(dtype)
    fits = array.dtype.kind in "iu" and (not array.size or (low <= array.min() and array.max() <= high))
    return array.astype(wide) if fits else array


def refuse_unknown(specs: Sequence[TensorSpec], given: Dict[str, Any], source: str) -> None:
    """Raise a LoadError for a name that is no input of the model; its remedy offers the most similar name."""
    names = [spec.name for spec in specs]
    for name in given:
        if name not in names:
            near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
            raise LoadError(
                "{} names {!r}, which is no input of the model".format(source, name),
                ("Did you mean {}? ".format(near[0]) if near else "")
                + "The model takes: {}.".format("; ".join(describe_input(spec) for spec in specs) or "nothing"),
            )


def _is_name(dim: Dim) -> bool:
    return isinstance(dim, str) and dim != ANY_SHAPE[0] and not _NO_NAME.match(dim)


def _resolve_shape(spec: TensorSpec, named: Dict[str, int], batch: int) -> Optional[Tuple[int, ...]]:
    """The shape of an input in numbers; None where a dimension stays open."""
    sizes = []
    for position, dim in enumerate(spec.shape):
        if isinstance(dim, int) and dim >= 0:
            sizes.append(dim)
        elif dim in named:
            sizes.append(named[str(dim)])
        elif tuple(spec.shape) != ANY_SHAPE and is_batch(dim, position):
            sizes.append(batch)
        else:
            return None
    return tuple(sizes)


def _check_given_shape(spec: TensorSpec, shape: Tuple[int, ...]) -> Tuple[int, ...]:
    fits = tuple(spec.shape) == ANY_SHAPE or (
        len(shape) == len(spec.shape)
        and all(not isinstance(dim, int) or dim in (-1, size) for dim, size in zip(spec.shape, shape))
    )
    if not fits:
        raise LoadError(
            "--input {}={} does not fit the model, whose input is {}".format(
                spec.name, _joined_sizes(shape), describe_input(spec)
            ),
            "Numbers in the model's shape are fixed; only names and ? can be chosen.",
        )
    return shape


def _open_size_error(specs: Sequence[TensorSpec], batch: int) -> LoadError:
    flags = []
    for spec in specs:
        if tuple(spec.shape) == ANY_SHAPE:
            flags.append("--input {}=SHAPE[:DTYPE]".format(spec.name))
        else:
            dims = [batch if is_batch(dim, i) else dim for i, dim in enumerate(spec.shape)]
            flags.append(
                "--input {}={}".format(
                    spec.name, ",".join(str(d) if isinstance(d, int) and d >= 0 else _dimension_text(d) for d in dims)
                )
            )
    return LoadError(
        "the model leaves the shape of {} open: {}".format(
            "an input" if len(specs) == 1 else "{} inputs".format(len(specs)),
            "; ".join(describe_input(spec) for spec in specs),
        ),
        "Give {}{}, or real inputs with --input-data FILE.npz.".format(
            " ".join(flags), ", with numbers for the names" if any("SHAPE[" not in flag for flag in flags) else ""
        ),
    )


def _require_batch(
    specs: Sequence[TensorSpec], shapes: Dict[str, Tuple[int, ...]], resolved: Dict[str, Tuple[int, ...]], batch: int
) -> None:
    """Raise a LoadError if no input can take the batch: it would be counted without being run."""
    if batch == 1 or not specs:
        return
    for spec in specs:
        if spec.name in shapes or tuple(spec.shape) == ANY_SHAPE:
            if resolved[spec.name][:1] == (batch,):
                return
        elif any(is_batch(dim, i) for i, dim in enumerate(spec.shape)) or resolved[spec.name][:1] == (batch,):
            return
    raise LoadError(
        "--batch {} cannot be used: the model's batch is fixed in {}".format(batch, _described_inputs(specs)),
        "Leave --batch out, or export the model with a dynamic first dimension.",
    )


def _random_array(rng: Any, shape: Tuple[int, ...], dtype: str, name: str) -> Any:
    if dtype == "object":
        return np.full(shape, "edgeprof", dtype=object)
    if dtype == "bool":
        return rng.randint(0, 2, size=shape).astype(bool)
    if dtype in ("int8", "uint8"):
        low = -128 if dtype == "int8" else 0
        return rng.randint(low, low + 256, size=shape).astype(dtype)
    if dtype in _INTEGERS:
        return np.asarray(rng.randint(0, _INTEGERS[dtype], size=shape)).astype(dtype)
    wide = carrier_dtype(dtype) or "V1"
    if is_foreign(dtype) and wide != "float32":
        low, high = integer_limits(dtype)
        return np.asarray(rng.randint(low, high + 1, size=shape)).astype(wide)
    kind = np.dtype(wide)
    if kind.kind not in "fc":
        raise LoadError(
            "there is no random data of the dtype {!r}, which the input {!r} takes".format(dtype, name),
            "Give real inputs with --input-data FILE.npz.",
        )
    return np.asarray(rng.random_sample(shape)).astype(kind)


def _check_shape(spec: TensorSpec, shape: Tuple[int, ...], sizes: Dict[str, Tuple[int, str]]) -> None:
    if tuple(spec.shape) == ANY_SHAPE:
        return
    fits = len(shape) == len(spec.shape)
    for dim, size in zip(spec.shape, shape):
        if isinstance(dim, int) and dim not in (-1, size):
            fits = False
    if not fits:
        remedy = "Make the data fit: --input-data and --dataset are fed as they are."
        if tuple(shape[1:]) == tuple(spec.shape) or tuple(shape) == tuple(spec.shape[1:]):
            remedy = "It is one dimension apart: add or take away the dimension of samples."
        elif sorted(shape) == sorted(d for d in spec.shape if isinstance(d, int)):
            remedy = "The sizes are the same in another order: transpose the data (NCHW against NHWC?)."
        raise LoadError(
            "the input {} is fed data of shape [{}]".format(describe_input(spec), _joined_sizes(shape, ", ")), remedy
        )
    for dim, size in zip(spec.shape, shape):
        if _is_name(dim):
            known, where = sizes.setdefault(str(dim), (size, spec.name))
            if known != size:
                raise LoadError(
                    "the dimension {!r} is {} in the data for {!r} and {} in that for {!r}".format(
                        dim, known, where, size, spec.name
                    ),
                    "Feed the same number in both.",
                )


def _conversion_remedy(spec: TensorSpec, array: Any) -> str:
    if spec.quantization and array.dtype.kind == "f":
        scale, zero = spec.quantization
        return "Quantise it: round(x / {:g}) + {}, limited to {}'s range.".format(scale, zero, spec.dtype)
    if spec.dtype == "object":
        return "Save it as strings: array.astype(str)."
    dtype = given_dtype(spec.dtype)
    return "Convert it: array.astype({!r}).".format(carrier_dtype(dtype) or dtype)


def _dimension_text(dim: Dim) -> str:
    return str(dim) if _is_name(dim) else "?"


def _joined_sizes(shape: Sequence[int], separator: str = ",") -> str:
    return separator.join(str(size) for size in shape)


def _described_inputs(specs: Sequence[TensorSpec]) -> str:
    return "; ".join(describe_input(spec) for spec in specs)

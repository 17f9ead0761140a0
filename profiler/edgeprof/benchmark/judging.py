"""Judging the answers of the variants in a benchmark: accuracy on a dataset, and the perplexity of a text."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgeprof.errors import EdgeprofError, InputError, VariantError, about
from edgeprof.evaluation import evaluate, perplexity
from edgeprof.reasons import Code
from edgeprof.results import schema

if TYPE_CHECKING:
    from edgeprof.benchmark.progress import Progress
    from edgeprof.benchmark.records import VariantRecord
    from edgeprof.benchmark.request import BenchRequest
    from edgeprof.evaluation.perplexity import Likelihoods
    from edgeprof.launch.loaded import Loaded
    from edgeprof.launch.supervisor import Worker


class Judge:
    """Judges the answers of loaded models as a request demands.

    Args:
        request: The request; without a dataset or a text nothing is judged.
        batch: Samples in one call.
        progress: Receives the steps.
    """

    def __init__(self, request: BenchRequest, batch: int, progress: Progress) -> None:
        self._request, self._batch, self._progress = request, batch, progress
        self._read: dict[tuple[object, ...], Likelihoods] = {}

    def rehearse(self, worker: Worker, loaded: Loaded) -> None:
        """Check, before anything is measured, that the model takes the dataset and that its answers can be judged."""
        dataset = self._request.dataset
        if dataset is None:
            return
        inputs, batch = loaded.judged_inputs, self._batch_of(loaded)
        evaluate.check(inputs, dataset, batch)
        if self._request.metric is not None:
            evaluate.rehearse(worker.infer, inputs, dataset, self._request.metric, batch, outputs=loaded.outputs)

    def _batch_of(self, loaded: Loaded) -> int:
        """Samples in one call; a pipeline takes one frame."""
        return self._batch if loaded.pipeline is None else 1

    def evaluate(self, worker: Worker, record: VariantRecord) -> None:
        """Score the variant on the dataset, if one was given; a failure becomes a note and keeps the windows."""
        if self._request.dataset is None or self._request.metric is None or record.loaded is None:
            return
        self._progress.stage(f"accuracy · {record.name}", 0.0)
        record.dataset = self._request.dataset.name
        record.preprocessing = self._request.dataset.preprocessing
        metric = self._request.metric
        record.metric, record.metric_title, record.higher_is_better = metric.name, metric.title, metric.higher_is_better
        try:
            record.score = evaluate.evaluate(
                worker.infer,
                record.loaded.judged_inputs,
                self._request.dataset,
                self._request.metric,
                self._batch_of(record.loaded),
                outputs=record.loaded.outputs,
            )
            if worker.kept is not None:
                record.notes.append(
                    schema.Reason(
                        code=Code.STATE_KEPT, message=f"the samples were not judged independently: {worker.kept}"
                    )
                )
        except EdgeprofError as error:
            # The windows are measured and stay; but an answer of NaN makes them worthless.
            code = error.code if isinstance(error, VariantError) and error.code == Code.NAN_OUTPUT else "no_accuracy"
            record.notes.append(schema.Reason(code=code, message=error.message, remedy=error.remedy))
            self._progress.note(about(record.name, error.message))

    def score_text(self, worker: Worker, record: VariantRecord) -> None:
        """Score the text with the model, if a text was given; rows of one model at several lengths share the scores."""
        text = self._request.text
        if text is None or record.loaded is None or record.loaded.language is None or record.failure is not None:
            return
        asked = record.loaded.language
        key = (record.artifact.sha256, record.runtime, record.options.device, asked.get("kv_type"))
        record.text = text
        if record.artifact.sha256 is not None and key in self._read:
            record.likelihoods = self._read[key]
            return
        try:
            read = worker.text_tokens(text.content)
            if read is None:
                raise InputError(f"the runtime {record.runtime} does not tell how likely a text is")
            for done, pieces, likelihoods in perplexity.score(read, worker.log_likelihoods, text):
                self._progress.stage(f"perplexity {done}/{pieces} · {record.name}", 0.0)
                record.likelihoods = likelihoods
        except EdgeprofError as error:  # the windows are measured and stay
            record.notes.append(schema.Reason(code=Code.NO_ACCURACY, message=error.message, remedy=error.remedy))
            self._progress.note(about(record.name, error.message))
        if record.likelihoods is not None:
            self._read[key] = record.likelihoods

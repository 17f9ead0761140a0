"""The daemon's log: one line for each event on stderr, as logfmt or JSON, with a limited rate for equal events."""

from __future__ import annotations

import json
import logging
import threading
import time
from typing import Any

#: Equal messages are written this many times at once, then once per ``_REFILL_S`` (s); those left out are counted.
_BURST, _REFILL_S = 5, 60.0

LOG = logging.getLogger("edgeprof.exporter")


def setup(level: str, form: str, stream: Any = None) -> None:
    """Write the log to ``stream`` (stderr by default) from now on."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter() if form == "json" else LogfmtFormatter())
    handler.addFilter(RateLimit())
    LOG.handlers[:] = [handler]
    LOG.propagate = False
    LOG.setLevel(level.upper())
    logging.raiseExceptions = False  # if the log cannot be written, stderr must not fill with tracebacks


def event(level: int, message: str, **fields: Any) -> None:
    """Log a message with additional fields."""
    LOG.log(level, message, extra={"fields": fields})


class RateLimit(logging.Filter):
    """Lets each message pass ``_BURST`` times, then once a minute with the number of messages that were left out."""

    def __init__(self) -> None:
        super().__init__()
        self._lock = threading.Lock()
        self._seen: dict[str, tuple[float, float, int]] = {}  # message → tokens, at, left out

    def filter(self, record: logging.LogRecord) -> bool:
        now = time.monotonic()
        with self._lock:
            if len(self._seen) > 1000:
                self._seen.clear()
            tokens, at, left_out = self._seen.get(str(record.msg), (float(_BURST), now, 0))
            tokens = min(float(_BURST), tokens + (now - at) / _REFILL_S)
            if tokens < 1:
                self._seen[str(record.msg)] = (tokens, now, left_out + 1)
                return False
            self._seen[str(record.msg)] = (tokens - 1, now, 0)
        if left_out:
            record.fields = {**getattr(record, "fields", {}), "suppressed": left_out}
        return True


def _record_fields(record: logging.LogRecord) -> dict[str, Any]:
    moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
    parts: dict[str, Any] = {
        "ts": f"{moment}.{int(record.msecs):03d}Z",
        "level": record.levelname.lower(),
        "msg": record.getMessage(),
        **getattr(record, "fields", {}),
    }
    if record.exc_info and record.exc_info[1] is not None:
        error = record.exc_info[1]
        trace = error.__traceback__
        while trace is not None and trace.tb_next is not None:
            trace = trace.tb_next
        parts["error"] = f"{type(error).__name__}: {error}"
        if trace is not None:
            parts["at"] = f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}"
    return parts


class LogfmtFormatter(logging.Formatter):
    """Formats a record as ``ts=… level=info msg="listening" address=127.0.0.1:28283``."""

    def format(self, record: logging.LogRecord) -> str:
        return " ".join(f"{key}={_logfmt_value(value)}" for key, value in _record_fields(record).items())


class JsonFormatter(logging.Formatter):
    """Formats a record as one JSON object per line."""

    def format(self, record: logging.LogRecord) -> str:
        return json.dumps(_record_fields(record), ensure_ascii=False, default=str)


def _logfmt_value(value: Any) -> str:
    text = str(value)
    if text and text.isascii() and text.isprintable() and not set(text) & set(' "=\\'):
        return text
    return json.dumps(text, ensure_ascii=False)

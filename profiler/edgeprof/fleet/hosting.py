"""The processes of a fleet's cluster: the scheduler, and on each host a worker that offers the devices it reaches.

The scheduler listens to the network, with TLS 1.3 only. A host listens to nothing but its own loopback: it opens the
connection to the scheduler itself. Neither runs on a device.
"""

from __future__ import annotations

import asyncio
import signal
import tempfile
from typing import TYPE_CHECKING, Any

from edgeprof.errors import InputError, UnavailableError
from edgeprof.fleet import tls
from edgeprof.fleet.cluster import COMPRESS, check_version, load_dask
from edgeprof.fleet.task import resource_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from edgeprof.fleet.inventory import Device, Engine


def run_scheduler(host: str, port: int, dashboard_port: int, certificates: Path, ready: Callable[[str], None]) -> None:
    """Run the scheduler until the process is ended.

    Args:
        host: The address on which it listens.
        port: The port.
        dashboard_port: The port of Dask's own pages, on the loopback.
        certificates: The folder with the certificates.
        ready: Called with the scheduler's address when it listens.

    Raises:
        InputError: The certificates or the port cannot be used.
        UnavailableError: Dask is not installed.
    """
    load_dask()
    files = tls.Certificates(certificates)
    files.check()

    async def serve() -> None:
        from distributed import Scheduler  # noqa: PLC0415 - of the extra fleet

        async with Scheduler(
            protocol="tls",
            host=host,
            port=port,
            dashboard=False,
            dashboard_address=f"127.0.0.1:{dashboard_port}",
            security=files.security(),
        ) as scheduler:
            ready(scheduler.address)
            await _until_ended(scheduler)

    try:
        asyncio.run(serve())
    except (OSError, RuntimeError) as error:
        raise InputError(
            f"cannot listen on {host}:{port}: {_cause(error)}",
            remedy="Does another program use the port? Choose one: --listen ADDRESS:PORT.",
        ) from None


def run_host(engine: Engine, name: str, devices: Sequence[Device], variants: int, ready: Callable[[str], None]) -> None:
    """Offer devices to the scheduler until the process is ended.

    Args:
        engine: Where the scheduler is.
        name: The name of this host.
        devices: The devices that it holds.
        variants: How many variants it makes at the same time.
        ready: Called with the scheduler's address when the host is registered.

    Raises:
        InputError: The certificates cannot be used, or the scheduler has another version.
        UnavailableError: The scheduler cannot be reached or is gone, or Dask is not installed.
    """
    load_dask()
    files = tls.Certificates(engine.certificates)
    tls.check_scheduler(engine.scheduler, files)
    resources = {
        **{resource_of(device): 1.0 for device in devices},
        **({COMPRESS: float(variants)} if variants else {}),
    }

    async def serve() -> bool:
        from distributed import Worker  # noqa: PLC0415 - of the extra fleet

        await _check_version(engine.scheduler, files)
        async with Worker(
            engine.scheduler,
            name=name,
            local_directory=scratch,
            # One thread for each device and variant, and one for each question beside them.
            nthreads=2 * len(devices) + variants,
            resources=resources,
            memory_limit=0,
            host="127.0.0.1",
            protocol="tls",
            dashboard=False,
            dashboard_address="127.0.0.1:0",
            security=files.security(),
        ) as worker:
            ready(engine.scheduler)
            return await _until_ended(worker)

    with tempfile.TemporaryDirectory(prefix="edgeprof-host-") as scratch:
        try:
            is_ended_here = asyncio.run(serve())
        except (OSError, RuntimeError) as error:
            words = _cause(error)
            taken = "a host of this name is registered already" if "name taken" in words else words
            raise InputError(
                f"{name} cannot register at {engine.scheduler}: {taken}",
                remedy="Each host needs a name of its own: --name NAME.",
            ) from None
    if not is_ended_here:
        raise UnavailableError(
            f"the scheduler {engine.scheduler} is gone", remedy="Start this host again when it is back."
        )


def _cause(error: BaseException) -> str:
    """Return why a server of Dask failed to start: the cause of its own error."""
    cause = error.__cause__ or error
    return getattr(cause, "strerror", None) or str(cause)


async def _until_ended(server: Any) -> bool:
    """Wait until a signal ends the process, or the server ends itself; return whether it was a signal."""
    loop, ended = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, ended.set)
    waiting = [asyncio.ensure_future(server.finished()), asyncio.ensure_future(ended.wait())]
    await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    for task in waiting:
        task.cancel()
    return ended.is_set()


async def _check_version(address: str, files: tls.Certificates) -> None:
    """
    Raises:
        InputError: The scheduler has another version of Dask.
    """
    from distributed.core import rpc  # noqa: PLC0415 - of the extra fleet

    async with rpc(address, connection_args=files.security().get_connection_args("worker")) as scheduler:
        check_version(address, await scheduler.versions())

"""A node as an operating system process: logging, the event loop, signals, exit codes."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import random
import signal
import ssl
import sys
import time

from quorate.net.grpc.tls import EncryptedKey, server_context
from quorate.node.config import SERVICE_GROUPS, NodeConfig, TlsConfig
from quorate.node.descriptors import fit_connections
from quorate.node.environment import Environment
from quorate.node.node import HostedService, Node
from quorate.node.repair import DAMAGED, can_be_refilled, start_node
from quorate.node.roster import RemovedFromCluster
from quorate.services.interface import Service
from quorate.storage.disk import Disk
from quorate.storage.identity import IdentityMismatch
from quorate.storage.log_errors import LogSyncFailed, UnknownLogFormat
from quorate.storage.real_disk import DataFolderInUse, RealDisk

_log = logging.getLogger(__name__)

EXIT_OK = 0
EXIT_FAILED = 1
EXIT_DAMAGED_DATA = 74
"""The data folder is damaged (EX_IOERR): starting again will not mend it."""
EXIT_WRONG_CONFIGURATION = 78
"""The settings do not fit the data folder or this machine (EX_CONFIG): starting again will not help."""

_MISFIT = (IdentityMismatch, UnknownLogFormat)
_REFUSED_BY_SYSTEM = (LogSyncFailed, OSError)
"""No bug of ours: a full or failing disk, an address in use."""


def run_node(config: NodeConfig) -> int:
    """Run a node until SIGTERM, SIGINT or a failure; returns an exit code.  Blocks."""
    _set_up_logging(config.node)
    config = fit_connections(config)
    # Each full collection of a store of a million nodes would stop the loop for a good part of a second.
    # Nothing on the hot path makes reference cycles, so the young generations are collected and the old one is not.
    gc.set_threshold(50_000, 20, 1_000_000)
    # The interpreter's 5 ms would starve the thread that syncs a slow disk (docs/performance.md, "How to sync").
    sys.setswitchinterval(0.0005)
    try:
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            return runner.run(_run(config))
    except KeyboardInterrupt:
        return EXIT_OK


def _set_up_logging(node: int) -> None:
    logging.basicConfig(
        level=logging.INFO,
        stream=sys.stderr,
        format=f"%(asctime)s.%(msecs)03d %(levelname)-7s node-{node} %(name)s: %(message)s",
        datefmt="%Y-%m-%d %H:%M:%S",
    )


def _loop_factory() -> type[asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:
        _log.info("uvloop is not installed: the standard event loop is slower")
        return None
    loop_type: type[asyncio.AbstractEventLoop] = uvloop.Loop
    return loop_type


async def _run(config: NodeConfig) -> int:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    try:
        disk = RealDisk(config.data)
    except DataFolderInUse as error:
        _log.error("%s", error)
        return EXIT_WRONG_CONFIGURATION
    except OSError as error:
        _log.error("the data folder %s cannot be used: %s", config.data, error)
        return EXIT_WRONG_CONFIGURATION
    try:
        return await run_on(config, disk, stopping)
    finally:
        disk.close()


async def run_on(config: NodeConfig, disk: Disk, stopping: asyncio.Event) -> int:
    """Run a node on the running loop until `stopping` is set or it fails; returns an exit code."""
    environment = Environment(
        disk, lambda: time.time_ns() // 1_000_000, time.monotonic, random.SystemRandom(), os.getpid()
    )
    try:
        services = host_services(config)
    except OSError as error:
        _log.error("cannot start: %s", error)
        return EXIT_WRONG_CONFIGURATION
    try:
        node = await start_node(config, disk, lambda settings: Node(settings, environment, services))
    except (*DAMAGED, *_MISFIT, *_REFUSED_BY_SYSTEM) as error:
        return _explain("cannot start", error)
    gc.collect()
    gc.freeze()
    # Before it belongs to a cluster, it serves its peers and its operators only, and says so itself.
    clients = "".join(f"{name} clients on {address}, " for name, address in config.clients().items())
    clients = clients if node.groups() else ""
    _log.info("serving %speers on %s, admin on %s", clients, config.listen.peer, config.listen.admin)
    node.failed.add_done_callback(lambda _: stopping.set())
    await stopping.wait()
    failure = node.failed.result() if node.failed.done() else None
    if isinstance(failure, RemovedFromCluster):
        _log.warning("this node stops: %s", failure)
        return await _stop(node)
    if failure is None:
        _log.info("stopping")
        return await _stop(node)
    code = _explain("this node stops", failure)
    await _stop(node)
    if code == EXIT_DAMAGED_DATA and can_be_refilled(config, disk):
        _log.error("started again, this node sets the damaged data aside, and the others refill it")
        return EXIT_FAILED
    return code


def host_services(config: NodeConfig) -> list[HostedService]:
    """The services of the settings, each with its group and address.

    Raises OSError where the files of [tls] cannot be used.
    """
    return [
        HostedService(SERVICE_GROUPS[name], _make_service(name, config), address.host, address.port)
        for name, address in config.clients().items()
    ]


def _make_service(name: str, config: NodeConfig) -> Service:
    # Imported where they are served only: etcd's messages take a protobuf library, for example.
    if name == "zookeeper":
        from quorate.services.zookeeper.service import ZOOKEEPER

        return ZOOKEEPER
    assert name == "etcd", name
    from quorate.services.etcd.options import EtcdOptions
    from quorate.services.etcd.service import make_service

    etcd = config.etcd
    return make_service(
        EtcdOptions(
            quota_bytes=etcd.quota_bytes,
            max_txn_ops=etcd.max_txn_ops,
            max_request_bytes=etcd.max_request_bytes,
            watch_progress_interval_ms=etcd.watch_progress_interval_ms,
            tls=_server_tls(config.tls) if config.tls is not None else None,
        )
    )


def _server_tls(tls: TlsConfig) -> ssl.SSLContext:
    """Raises OSError that names the setting."""
    for name, path in (("cert", tls.cert), ("key", tls.key), ("client_ca", tls.client_ca)):
        try:
            if path is not None:
                path.read_bytes()
        except OSError as error:
            raise OSError(f"tls.{name}: {path} cannot be read: {error.strerror}") from error
    try:
        return server_context(tls.cert, tls.key, tls.client_ca)
    except EncryptedKey as error:
        raise OSError(
            f"tls.key: {error}, and nobody is asked for a passphrase: keep the key in the clear where only this "
            f"node's user can read it (openssl pkey -in {tls.key} -out FILE)"
        ) from error
    except ssl.SSLError as error:
        raise OSError(f"[tls]: {error.reason or error}; expected are PEM files, and a key that fits cert") from error


async def _stop(node: Node) -> int:
    try:
        await node.stop()
    except _REFUSED_BY_SYSTEM as error:
        return _explain("what was not acknowledged yet could not be written at the end", error)
    return EXIT_OK


def _explain(what: str, error: BaseException) -> int:
    """Log why a node ends, with a trace only where that is a bug of ours; returns the exit code."""
    if isinstance(error, DAMAGED):
        return _damaged(error)
    if isinstance(error, _MISFIT):
        _log.error("%s: %s", what, error)
        return EXIT_WRONG_CONFIGURATION
    if isinstance(error, _REFUSED_BY_SYSTEM):
        _log.error("%s: %s", what, error)
    else:
        _log.critical("%s: %s", what, error, exc_info=error)
    return EXIT_FAILED


def _damaged(error: BaseException) -> int:
    _log.critical(
        "damaged data: %s; this node neither votes nor serves, so that nothing wrong is spread "
        "(docs/operations.md says what to do)",
        error,
    )
    return EXIT_DAMAGED_DATA

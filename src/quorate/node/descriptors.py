"""Open files: how many this process may have, and how many clients fit among them.

Every connection is an open file, and so is every file of the log.  A node that lets in more
clients than there are descriptors cannot begin the next segment of its log.
"""

from __future__ import annotations

import dataclasses
import logging
import resource

from quorate.node.config import NodeConfig

_log = logging.getLogger(__name__)

RESERVED = 128
"""For all that is no client: files of the log and snapshots, peers, admin requests, connections yet to be refused."""
WANTED_LIMIT = 65_536
"""As far as the limit is raised where fewer would do, so that a crowd at the other doors finds room, too."""


def fit_connections(config: NodeConfig) -> NodeConfig:
    """Raise this process's limit on open files, and lower `limits.max_connections` to what fits, with a warning."""
    wanted, doors = config.limits.max_connections, len(config.services)
    limit = _raise_limit(doors * wanted + RESERVED)
    fitting = max(1, connections_within(limit) // doors)
    if limit == resource.RLIM_INFINITY or wanted <= fitting:
        return config
    _log.warning(
        "limits.max_connections = %d does not fit: this process may have only %d files open, so at most %d clients of "
        "each service are served at a time; allow it %d (ulimit -n, or LimitNOFILE= in its systemd unit)",
        wanted,
        limit,
        fitting,
        doors * wanted + RESERVED,
    )
    return dataclasses.replace(config, limits=dataclasses.replace(config.limits, max_connections=fitting))


def connections_within(limit: int) -> int:
    """Client connections that leave enough of `limit` open files for everything else; half of a very small limit."""
    return max(1, limit - min(RESERVED, limit // 2))


def _raise_limit(needed: int) -> int:
    """Raise the soft limit towards the hard one, never lower it; returns what holds then."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    target = max(needed, WANTED_LIMIT)
    if hard != resource.RLIM_INFINITY:
        target = min(target, hard)
    if soft == resource.RLIM_INFINITY or target <= soft:
        return soft
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (target, hard))
    except (OSError, ValueError) as error:
        # macOS has a limit of its own below an unlimited hard one.
        _log.info("the limit of open files stays at %d: %s", soft, error)
        return soft
    return target

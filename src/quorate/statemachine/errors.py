"""What can come of a command, of a read, and of a node.

CommandError          the command was carried out, and this is what it came to: the same on every node
Refused               certainly not done, and never will be: may be tried again
OutcomeUnknown        may have been done, or may yet be: only the caller can know whether to do it again
InvalidCommand        never submitted: it is no command of the class, or too large
NodeStopped           never submitted: this node does not run
StateMachineFailed    why a node stopped: the class broke its word
CannotStart           the node's settings, folder or addresses are wrong
"""

from __future__ import annotations


class CommandError(Exception):
    """An answer of a command that cannot be done: raised by it, and the same on every node.

    Derive your own from it.  It goes to the caller with its arguments; the command counts as carried out.
    """


class Refused(Exception):
    """The command, or the read, certainly was not carried out and never will be.  It may be tried again."""


class OutcomeUnknown(Exception):
    """The command may have been carried out, or may yet be, at any later time.  It is never sent twice by itself."""


class InvalidCommand(ValueError):
    """What was called is no command of the class, or does not fit it.  Nothing was submitted."""


class NodeStopped(Exception):
    """This node does not run: not yet, not any more, or it failed, with why as `__cause__`.  Nothing was submitted."""


class StateMachineFailed(Exception):
    """The class raised what is no CommandError, or does not fit the log or a snapshot.  It stops the node."""


class CannotStart(Exception):
    """The node cannot start with these settings, this folder or these addresses; the message says what to mend."""

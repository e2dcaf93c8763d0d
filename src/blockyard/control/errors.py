"""What can go wrong before or while serving that a person has to act on.

The message is one line, says what and why, and names the way out. The exit status is the class's, so
that scripts and service managers can tell the cases apart; `blockyard serve --help` lists them.
"""

from __future__ import annotations


class ControlError(Exception):
    """Something failed while serving."""

    exit_status = 1


class UsageError(ControlError):
    """The command line does not make sense."""

    exit_status = 2


class PortalError(ControlError):
    """A portal cannot be listened on."""

    exit_status = 3


class VolumeError(ControlError):
    """A file or device cannot be exported."""

    exit_status = 4


class StateError(ControlError):
    """The state directory cannot be used."""

    exit_status = 5


class ConfigurationError(ControlError):
    """The configuration file cannot be read, or does not make sense."""

    exit_status = 6


class Conflict(ControlError):
    """Somebody else has changed the configuration since it was looked at."""

    exit_status = 8

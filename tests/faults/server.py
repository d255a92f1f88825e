"""Preloaded by the server from which the commands are forked."""

from tests.faults.stages import preload

preload()

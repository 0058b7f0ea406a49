"""The Lua files: each is in the wheel, says what it takes and answers, and is read where it is used."""

import zipfile
from pathlib import Path

import pytest
from hatchling.builders.wheel import WheelBuilder

from app.redis.scripts import read

ROOT = Path(__file__).parents[2]
FILES = sorted(path.relative_to(ROOT) for path in (ROOT / "app").rglob("*.lua"))


def test_the_wheel_has_every_script(tmp_path):
    wheel = next(iter(WheelBuilder(str(ROOT)).build(directory=str(tmp_path), versions=["standard"])))
    with zipfile.ZipFile(wheel) as packed:
        assert [path.as_posix() for path in FILES] == sorted(
            name for name in packed.namelist() if name.endswith(".lua")
        )
        for path in FILES:
            assert packed.read(path.as_posix()) == (ROOT / path).read_bytes()


@pytest.mark.parametrize("path", FILES, ids=str)
def test_a_script_begins_with_what_it_is_for(path):
    package = ".".join(path.parent.parts)
    assert read(package, path.name).startswith("-- ")

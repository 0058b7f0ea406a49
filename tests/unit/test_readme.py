import re
from pathlib import Path

from app.config.settings import specs

README = (Path(__file__).parents[2] / "README.md").read_text()


def test_the_table_of_settings_is_true():
    rows = dict(re.findall(r"^\| `([A-Z_]+)` \| ([^|]*) \|", README, re.MULTILINE))
    expected = {}
    for name, spec in specs().items():
        if spec.default is None:
            expected[name] = "unset" if spec.optional else "required"
        else:
            expected[name] = f"`{spec.default}`" if spec.default else "empty"
    assert rows == expected


def test_the_rooms_of_the_architecture_exist():
    rooms = re.findall(r"(?:^|\s{2,})([a-z_]+(?:\.py|/))\s{2,}\S", README.split("## Architecture")[1])
    assert len(rooms) > 15
    assert [room for room in rooms if not (Path(__file__).parents[2] / "app" / room).exists()] == []

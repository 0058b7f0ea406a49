"""chat-client.d.ts: accepted by the TypeScript compiler, and true to the code beside it and to the service."""

import re
import subprocess
from pathlib import Path

from npm_client import FOLDER, NODE

from app import events
from app.realtime.handlers import HANDLERS

CLIENT = Path(__file__).parents[2] / "app" / "dev" / "page" / "client"
TYPES = (CLIENT / "chat-client.d.ts").read_text()
OPTIONS = ["--noEmit", "--strict", "--exactOptionalPropertyTypes", "--target", "es2022", "--module", "nodenext"]
SPELLED = {value for name, value in vars(events).items() if name.isupper() and isinstance(value, str)}


def block(start):
    """Give the lines of a declaration, up to the brace that ends it."""
    return re.search(rf"^export {start}.*?{{$(.*?)^}}$", TYPES, re.MULTILINE | re.DOTALL)[1]


def members(start):
    return set(re.findall(r"^  (?:readonly )?'?([\w:]+)'?[?(<:]", block(start), re.MULTILINE))


def test_the_compiler_accepts_what_is_right_and_nothing_else(node_modules):
    compiler = node_modules / "typescript" / "bin" / "tsc"
    command = [NODE, compiler, *OPTIONS, "--types", "", "--lib", "es2022,dom", "types.ts"]
    done = subprocess.run(command, cwd=FOLDER, capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, done.returncode) == ("", 0)


def test_the_types_name_exactly_the_events_of_the_service():
    assert members("interface ServerEvents") == SPELLED - HANDLERS.keys()
    assert members("interface ClientEvents") == HANDLERS.keys()


def test_the_types_declare_exactly_what_the_class_has():
    code = f"import {{ ChatClient }} from '{CLIENT / 'chat-client.js'}';"
    code += "console.log(Object.getOwnPropertyNames(ChatClient.prototype).join(' '));"
    done = subprocess.run(
        [NODE, "--input-type=module", "--eval", code], capture_output=True, text=True, timeout=30, check=True
    )
    assert set(done.stdout.split()) == members("class ChatClient")

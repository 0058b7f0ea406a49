"""chat-client.d.ts: accepted by the TypeScript compiler, and true to the code beside it and to the service."""

import re
import subprocess
from pathlib import Path

import pages
import pytest
from npm_client import FOLDER, NODE

from app.contract import events
from app.realtime.socketio.handlers import EVENTS

CLIENT = Path(__file__).parents[2] / "app" / "dev" / "page" / "client"
TYPES = (CLIENT / "chat-client.d.ts").read_text()
OPTIONS = ["--noEmit", "--strict", "--exactOptionalPropertyTypes", "--target", "es2022", "--module", "nodenext"]
OPTIONS += ["--types", "", "--lib", "es2022,dom"]
# What the examples take for granted.
OF_THE_READER = """
declare const fetchToken: () => Promise<string>;
declare const showState: (state: string) => void;
declare const show: (message: object) => void;
declare const showSending: (message: object) => void;
declare const reload: (conversationId: string) => void;
declare const conversation: { id: string; lastSeq: number };
declare const conversationId: string;
declare const messageId: string;
"""
# Those with a dot are webhooks'.
SPELLED = {
    value for name, value in vars(events).items() if name.isupper() and isinstance(value, str) and "." not in value
}


def block(start):
    """Give the lines of a declaration, up to the brace that ends it."""
    return re.search(rf"^export {start}.*?{{$(.*?)^}}$", TYPES, re.MULTILINE | re.DOTALL)[1]


def members(start):
    return set(re.findall(r"^  (?:readonly )?'?([\w:]+)'?[?(<:]", block(start), re.MULTILINE))


def problems(node_modules, file):
    command = [NODE, node_modules / "typescript" / "bin" / "tsc", *OPTIONS, file]
    done = subprocess.run(command, cwd=FOLDER, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == bool(done.stdout)
    return done.stdout


def test_the_compiler_accepts_what_is_right_and_nothing_else(node_modules):
    assert problems(node_modules, "types.ts") == ""


@pytest.mark.parametrize("page", ["README.md", "docs/frontend-chat-client.md"])
def test_the_compiler_accepts_the_example(node_modules, tmp_path, page):
    (example,) = pages.code(page, "javascript")
    example = example.replace("./client/", f"{CLIENT}/")
    (tmp_path / "package.json").write_text('{"type": "module"}')
    (tmp_path / "example.ts").write_text(OF_THE_READER + example)
    assert problems(node_modules, tmp_path / "example.ts") == ""


def test_the_types_name_exactly_the_events_of_the_service():
    assert members("interface ServerEvents") == SPELLED - EVENTS
    assert members("interface ClientEvents") == EVENTS


def test_the_types_declare_exactly_what_the_class_has():
    code = f"import {{ ChatClient }} from '{CLIENT / 'chat-client.js'}';"
    code += "console.log(Object.getOwnPropertyNames(ChatClient.prototype).join(' '));"
    done = subprocess.run(
        [NODE, "--input-type=module", "--eval", code], capture_output=True, text=True, timeout=30, check=True
    )
    assert set(done.stdout.split()) == members("class ChatClient")

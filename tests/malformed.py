"""Malformed messages: one table for both wires, each case with the field that the answer must name."""

LONG = "x" * 8001

CASES: list[tuple[str, bytes, str]] = [
    ("no object", b"[]", "body"),
    ("null", b"null", "body"),
    ("a number", b"5", "body"),
    ("broken JSON", b'{"content":', "body"),
    ("single quotes", b"{'content':'x'}", "body"),
    ("broken UTF-8", b'{"content":"\xff"}', "body"),
    ("an encoded surrogate", b'{"content":"\xed\xa0\x80"}', "content"),
    ("deep nesting", b'{"content":"x","attachments":' + b"[" * 50_000 + b"]" * 50_000 + b"}", "attachments[0]"),
    ("deep nesting of nothing known", b"[" * 50_000, "body"),
    ("no content", b"{}", "content"),
    ("content null", b'{"content":null}', "content"),
    ("content a number", b'{"content":5}', "content"),
    ("content a list", b'{"content":["x"]}', "content"),
    ("content empty", b'{"content":""}', "content"),
    ("content blank", b'{"content":" \\n\\t"}', "content"),
    ("content too long", b'{"content":"' + LONG.encode() + b'"}', "content"),
    ("content with NUL", b'{"content":"a\\u0000b"}', "content"),
    ("content with half a pair", b'{"content":"a\\ud83db"}', "content"),
    ("content with the other half", b'{"content":"\\udc00"}', "content"),
    ("attachments null", b'{"content":"x","attachments":null}', "attachments"),
    ("attachments an object", b'{"content":"x","attachments":{}}', "attachments"),
    ("an attachment that is none", b'{"content":"x","attachments":["file"]}', "attachments[0]"),
    ("an attachment without an id", b'{"content":"x","attachments":[{}]}', "attachments[0].externalFileId"),
    (
        "an attachment with an empty id",
        b'{"content":"x","attachments":[{"externalFileId":""}]}',
        "attachments[0].externalFileId",
    ),
    (
        "an attachment with NUL in its label",
        b'{"content":"x","attachments":[{"externalFileId":"f","label":"\\u0000"}]}',
        "attachments[0].label",
    ),
    (
        "an attachment with a long label",
        b'{"content":"x","attachments":[{"externalFileId":"f","label":"' + b"y" * 201 + b'"}]}',
        "attachments[0].label",
    ),
    (
        "too many attachments",
        b'{"content":"x","attachments":[' + b",".join([b'{"externalFileId":"f"}'] * 11) + b"]}",
        "attachments",
    ),
    ("clientMessageId a number", b'{"content":"x","clientMessageId":1}', "clientMessageId"),
    ("clientMessageId empty", b'{"content":"x","clientMessageId":""}', "clientMessageId"),
    ("clientMessageId long", b'{"content":"x","clientMessageId":"' + b"k" * 129 + b'"}', "clientMessageId"),
    ("a huge number", b'{"content":1' + b"0" * 400 + b"}", "content"),
    ("a number beyond floats", b'{"content":1e999}', "content"),
]

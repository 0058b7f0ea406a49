"""People whom no other test knows, and what they hold in their hands."""

import itertools

PHONE = {"viewport": {"width": 390, "height": 780}, "has_touch": True, "is_mobile": True}

_numbers = itertools.count(1)


def person(name: str) -> str:
    """Make up somebody."""
    return f"{name} {next(_numbers)}"

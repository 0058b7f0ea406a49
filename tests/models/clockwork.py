"""An event loop that a test turns by hand, by a clock that the test moves."""

import asyncio


class Clockwork(asyncio.SelectorEventLoop):
    """Runs what is ready only when it is turned; nothing in it waits for real."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def time(self) -> float:
        return self.now

    def turn(self, times: int = 1) -> None:
        """Go through what is ready, so many times."""
        for _ in range(times):
            self.call_soon(self.stop)
            self.run_forever()

"""The Lua scripts of presence: each decides in one step, so that a change happens once whichever pod sees it.

Their arguments and answers are described at the top of each file.
"""

from app.redis.scripts import read

ASSERT_SOCKETS = read(__name__, "common.lua", "assert_sockets.lua")
HEARTBEAT = read(__name__, "common.lua", "heartbeat.lua")
SETTLE = read(__name__, "common.lua", "settle.lua")
CORRECT = read(__name__, "common.lua", "correct.lua")
ANNOUNCED = read(__name__, "announced.lua")

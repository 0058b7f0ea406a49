-- Rate limits by the generic cell rate algorithm (GCRA), by the clock of Redis.
--
-- KEYS: for each check the counter of a user and an action: the time (ms since 1970) at which the user is back at
--       zero. It expires then.
-- ARGV: for each key the interval between two actions (ms) and the burst.
-- Answer: for each key 0 where the action may go on, else the wait in ms; or an error.
-- Never: an action that is refused counts; a key without an expiry.

local time = redis.call('TIME')
local now = time[1] * 1000 + time[2] / 1000
local function count(key, interval, burst)
    local zero = math.max(now, tonumber(redis.call('GET', key) or 0)) + interval
    local wait = zero - interval * burst - now
    if wait > 0 then return math.ceil(wait) end
    redis.call('SET', key, string.format('%.3f', zero), 'PX', math.ceil(zero - now))
    return 0
end
local waits = {}
for place, key in ipairs(KEYS) do
    waits[place] = guarded(count, key, tonumber(ARGV[2 * place - 1]), tonumber(ARGV[2 * place]))
end
return waits

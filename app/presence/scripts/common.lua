-- Prepended to the presence scripts: the clock and the helpers that they share.
--
-- Times are milliseconds since 1970 by the clock of Redis: the clocks of pods must never be compared.
-- A user is marked in `chat:user:<user>` by a field `p:<pod>` for each pod on which they have sockets; its value is
-- the ids of the sockets, each behind its age. A pod is in `chat:pods` as long as such a field of it exists.

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local function written(number)
    return string.format('%d', number)
end
local function change(key, on, at)
    redis.call('HSET', key, 'on', on, 'at', written(at))
    return at
end
local function must_announce(user, announcing)
    redis.call('ZADD', 'chat:untold', now + announcing, user)
end
local function begin_quiet(quiet)
    redis.call('SET', 'chat:quiet', written(now + quiet))
end
local function is_quiet()
    return now < tonumber(redis.call('GET', 'chat:quiet') or 0)
end
-- Whether a user has no socket on any pod with a lease; fields of other pods are leftovers and do not count.
local function is_alone(key)
    for _, field in ipairs(redis.call('HKEYS', key)) do
        if string.sub(field, 1, 2) == 'p:' and redis.call('ZSCORE', 'chat:pods', string.sub(field, 3)) then
            return false
        end
    end
    return true
end
local function is_in(set, user)
    return redis.call('ZSCORE', set, user)
end
-- Whether Redis has lost steps of a pod up to this number.
local function has_lost(pod, confirmed)
    return tonumber(redis.call('HGET', 'chat:steps', pod) or 0) < confirmed
end

-- Decides who is offline, takes out pods whose lease has ended, and gives changes that nobody has announced in time.
--
-- ARGV: 1 how long an offline user is remembered, 2 how many of each kind at a time, 3 the silence after which an
--       ended lease proves nothing, 4 quiet period, 5 time that a pod has to announce a change (all but 2 in ms);
--       then users whose changes the calling pod is about to announce.
-- Answer: for each change {user, '1' online or '0' offline, number of the change}.
-- Never: anybody taken for offline during the quiet period, or while a pod that holds a lease lists them.

local memory, most, gap, quiet, announcing =
    tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local before = redis.call('GET', 'chat:watched')
redis.call('SET', 'chat:watched', written(now))
-- No pod could reach Redis, or it restarted with old data: give the pods the time to renew their leases.
if before and now - tonumber(before) > gap then begin_quiet(quiet) end
local changes = {}
local function announce(user, on, at)
    must_announce(user, announcing)
    changes[#changes + 1] = {user, on, written(at)}
end

local function take_out(pod)
    -- First, so that a pod that comes back half-way notices the loss.
    redis.call('HDEL', 'chat:steps', pod)
    local users = redis.call('SPOP', 'chat:pod:' .. pod, most)
    for _, user in ipairs(users) do
        local key = 'chat:user:' .. user
        redis.call('HDEL', key, 'p:' .. pod)
        if is_alone(key) then redis.call('ZADD', 'chat:leaving', 'NX', now, user) end
    end
    if #users == 0 then
        redis.call('ZREM', 'chat:pods', pod)
        redis.call('HDEL', 'chat:sockets', pod)
    end
end

local function leave(user)
    local key = 'chat:user:' .. user
    redis.call('ZREM', 'chat:leaving', user)
    local last = redis.call('HMGET', key, 'on', 'at')
    if last[1] == '1' and is_alone(key) then
        local at = change(key, 0, math.max(now, tonumber(last[2]) + 1))
        redis.call('PEXPIRE', key, memory)
        return at
    end
end

if not is_quiet() then
    for _, pod in ipairs(redis.call('ZRANGEBYSCORE', 'chat:pods', 0, now)) do take_out(pod) end
    for _, user in ipairs(redis.call('ZRANGE', 'chat:arriving', 0, most - 1)) do
        redis.call('ZREM', 'chat:arriving', user)
        local last = redis.call('HMGET', 'chat:user:' .. user, 'on', 'at')
        -- A user who came and went meanwhile is not announced.
        if last[1] == '1' and not leave(user) then announce(user, '1', last[2]) end
    end
    for _, user in ipairs(redis.call('ZRANGEBYSCORE', 'chat:leaving', 0, now, 'LIMIT', 0, most)) do
        local at = leave(user)
        if at then announce(user, '0', at) end
    end
end

for place = 6, #ARGV do redis.call('ZADD', 'chat:untold', 'XX', now + announcing, ARGV[place]) end
for _, user in ipairs(redis.call('ZRANGEBYSCORE', 'chat:untold', 0, now, 'LIMIT', 0, most)) do
    local last = redis.call('HMGET', 'chat:user:' .. user, 'on', 'at')
    if last[2] then
        announce(user, last[1], last[2])
    else
        redis.call('ZREM', 'chat:untold', user)
    end
end
return changes

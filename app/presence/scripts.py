"""What Redis runs for `presence`, each script in one step.

Users are marked in `chat:user:<user>` by a field `p:<pod>` for each pod on which they have a socket: the sockets'
ids, each behind its age. A pod is in `chat:pods` as long as there is such a field of it.
"""

_COMMON = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local function written(number)
    return string.format('%d', number)
end
local function change(key, on, at)
    redis.call('HSET', key, 'on', on, 'at', written(at))
    return at
end
local function must_tell(user, telling)
    redis.call('ZADD', 'chat:untold', now + telling, user)
end
local function hush(quiet)
    redis.call('SET', 'chat:quiet', written(now + quiet))
end
local function is_quiet()
    return now < tonumber(redis.call('GET', 'chat:quiet') or 0)
end
-- What is left of a pod that is unknown counts for nothing.
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
-- Whether what a pod has written up to a number is gone.
local function has_lost(pod, confirmed)
    return tonumber(redis.call('HGET', 'chat:steps', pod) or 0) < confirmed
end
"""

# ARGV: pod, the number of this step, the last number that the pod knows to be applied, lease, quiet, grace, how
# long a pod may take to tell a change, how many sockets a user may have; then for each user their id, the number
# of the change by which the pod knows them online or 0, and the sockets that they have on the pod.
#
# Gives `lost` when Redis has not got what it had, and `late` when a later step overtook this one: nothing was
# done. Else `done`, and for each user the number of the change where they came online, that by which they are,
# whether something is still to be decided or told, and which of their sockets are too many.
ASSERT = (
    _COMMON
    + """
local pod = ARGV[1]
local number, confirmed, lease, quiet, grace, telling, most =
    tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6]),
    tonumber(ARGV[7]), tonumber(ARGV[8])
if has_lost(pod, confirmed) then
    hush(quiet)
    return {'lost'}
end
if tonumber(redis.call('HGET', 'chat:steps', pod) or 0) >= number then return {'late'} end
redis.call('HSET', 'chat:steps', pod, number)
redis.call('ZADD', 'chat:pods', now + lease, pod)
local hushed = is_quiet()

local function excess(key)
    local sockets = {}
    local fields = redis.call('HGETALL', key)
    for place = 1, #fields, 2 do
        if string.sub(fields[place], 1, 2) == 'p:' then
            for age, id in string.gmatch(fields[place + 1], '(%d+):(%S+)') do
                sockets[#sockets + 1] = {tonumber(age), id}
            end
        end
    end
    table.sort(sockets, function(one, other)
        return one[1] < other[1] or (one[1] == other[1] and one[2] < other[2])
    end)
    local found = {}
    for place = 1, #sockets - most do found[place] = sockets[place][2] end
    return found
end

local function assert_sockets(user, known, sockets)
    local key = 'chat:user:' .. user
    local last = redis.call('HMGET', key, 'on', 'at')
    local on, at = last[1] == '1', tonumber(last[2] or 0)
    known = tonumber(known)
    if on and known > 0 and known <= at then
        -- Their coming was written while Redis did not know that they were there.
        redis.call('ZREM', 'chat:arriving', user)
    elseif known > at then
        -- Redis has forgotten what the pod knows.
        at, on = change(key, 1, known), true
    end
    if sockets == '' then
        redis.call('SREM', 'chat:pod:' .. pod, user)
        if redis.call('HDEL', key, 'p:' .. pod) == 1 then redis.call('HSET', key, 'seen', written(now)) end
        if not on then
            -- Until that is told the pod must not forget it: Redis may.
            local pending = known > 0 and is_in('chat:untold', user)
            return {0, pending and known or 0, pending and 1 or 0, {}}
        end
        if not is_alone(key) then return {0, at, 0, {}} end
        redis.call('ZADD', 'chat:leaving', 'NX', now + grace, user)
        return {0, is_in('chat:arriving', user) and 0 or at, 1, {}}
    end
    redis.call('HSET', key, 'p:' .. pod, sockets, 'seen', written(now))
    redis.call('SADD', 'chat:pod:' .. pod, user)
    redis.call('ZREM', 'chat:leaving', user)
    redis.call('PERSIST', key)
    local came = 0
    if not on then
        at = change(key, 1, math.max(now, at + 1))
        if hushed and known == 0 then
            redis.call('ZADD', 'chat:arriving', at, user)
        else
            must_tell(user, telling)
            came = at
        end
    elseif known == 0 and is_in('chat:untold', user) then
        -- Whoever is to tell it may not know.
        came = at
    end
    local pending = is_in('chat:arriving', user)
    return {came, pending and 0 or at, pending and 1 or 0, excess(key)}
end

local answers = {'done'}
for place = 9, #ARGV, 3 do
    answers[#answers + 1] = guarded(assert_sockets, ARGV[place], ARGV[place + 1], ARGV[place + 2])
end
return answers
"""
)

# ARGV: pod, the last number that it knows to be applied, lease, quiet, how many sockets it has, and how many users
# or -1 while that may differ. Gives whether Redis has lost something of the pod's.
BEAT = (
    _COMMON
    + """
local pod, confirmed, lease, quiet = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
redis.call('ZADD', 'chat:pods', now + lease, pod)
redis.call('HSET', 'chat:sockets', pod, ARGV[5])
if has_lost(pod, confirmed) then
    hush(quiet)
    return 1
end
local users = tonumber(ARGV[6])
return users >= 0 and redis.call('SCARD', 'chat:pod:' .. pod) ~= users and 1 or 0
"""
)

# ARGV: how long to remember, how many at once, after what silence leases prove nothing, quiet, how long a pod may
# take to tell a change; then the users whose changes the pod that asks is about to tell. Gives users, whether each
# is online, and the number of that change.
SETTLE = (
    _COMMON
    + """
local memory, most, gap, quiet, telling =
    tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local before = redis.call('GET', 'chat:watched')
redis.call('SET', 'chat:watched', written(now))
-- Nobody could reach Redis, or it comes back with what it had long ago: pods must have had the time to renew.
if before and now - tonumber(before) > gap then hush(quiet) end
local changes = {}
local function tell(user, on, at)
    must_tell(user, telling)
    changes[#changes + 1] = {user, on, written(at)}
end

local function take_out(pod)
    -- First, so that a pod that comes back half-way knows of it.
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
        -- Who came and went meanwhile is told to nobody.
        if last[1] == '1' and not leave(user) then tell(user, '1', last[2]) end
    end
    for _, user in ipairs(redis.call('ZRANGEBYSCORE', 'chat:leaving', 0, now, 'LIMIT', 0, most)) do
        local at = leave(user)
        if at then tell(user, '0', at) end
    end
end

for place = 6, #ARGV do redis.call('ZADD', 'chat:untold', 'XX', now + telling, ARGV[place]) end
for _, user in ipairs(redis.call('ZRANGEBYSCORE', 'chat:untold', 0, now, 'LIMIT', 0, most)) do
    local last = redis.call('HMGET', 'chat:user:' .. user, 'on', 'at')
    if last[2] then
        tell(user, last[1], last[2])
    else
        redis.call('ZREM', 'chat:untold', user)
    end
end
return changes
"""
)

# ARGV: how long to remember; then for each user their id, 1 or 0 as they were last said to be online or not, and
# the number of that change. What is not so is a change from now on, to be told by any pod.
CORRECT = (
    _COMMON
    + """
local memory = tonumber(ARGV[1])
for place = 2, #ARGV, 3 do
    local user, said, number = ARGV[place], ARGV[place + 1], tonumber(ARGV[place + 2])
    local key = 'chat:user:' .. user
    local last = redis.call('HMGET', key, 'on', 'at')
    local on, at = last[1] or '0', tonumber(last[2] or 0)
    local is_open = is_in('chat:untold', user) or is_in('chat:arriving', user) or is_in('chat:leaving', user)
    if on ~= said and not is_open then
        change(key, on, math.max(now, at + 1, number + 1))
        if on == '0' then redis.call('PEXPIRE', key, memory) end
        must_tell(user, 0)
    end
end
return redis.status_reply('OK')
"""
)

# ARGV: users and the numbers of their changes that were told. A later change remains to be told.
TOLD = """
for place = 1, #ARGV, 2 do
    local user = ARGV[place]
    if redis.call('HGET', 'chat:user:' .. user, 'at') == ARGV[place + 1] then
        redis.call('ZREM', 'chat:untold', user)
    end
end
return redis.status_reply('OK')
"""

"""What Redis runs for `presence`, each script in one step.

Users are marked in `chat:user:<user>` by a field `p:<pod>` for each pod on which they have a socket.
"""

# How long a pod may take to tell a change before another one does, in milliseconds.
TELLING_MS = 2_000

_NOW = (
    f"local TELLING = {TELLING_MS}"
    """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local function change(key, on)
    local at = math.max(now, tonumber(redis.call('HGET', key, 'at') or 0) + 1)
    redis.call('HSET', key, 'on', on, 'at', string.format('%d', at))
    return at
end
local function must_tell(user)
    redis.call('ZADD', 'chat:untold', now + TELLING, user)
end
local function is_alone(key)
    for _, field in ipairs(redis.call('HKEYS', key)) do
        if string.sub(field, 1, 2) == 'p:' then return false end
    end
    return true
end
"""
)

# Users come to a pod, which knows an epoch or does not; gives the number of each change, 0 where there is none.
_ENTER = """
local function enter(pod, knows_epoch, quiet, users)
    local epoch = redis.call('GET', 'chat:epoch')
    if not epoch then
        epoch = knows_epoch == '1' and now or 0
        redis.call('SET', 'chat:epoch', string.format('%d', epoch))
    end
    local is_quiet = now - tonumber(epoch) < tonumber(quiet)
    local changes = {}
    for place, user in ipairs(users) do
        local key = 'chat:user:' .. user
        redis.call('HSET', key, 'p:' .. pod, 1, 'seen', string.format('%d', now))
        redis.call('SADD', 'chat:pod:' .. pod, user)
        redis.call('ZREM', 'chat:leaving', user)
        local is_new = redis.call('HGET', key, 'on') ~= '1'
        local at = is_new and change(key, 1) or 0
        if is_new and not is_quiet then must_tell(user) end
        changes[place] = is_quiet and 0 or at
        redis.call('PERSIST', key)
    end
    return changes
end
"""

# Users leave a pod.
_LEAVE = """
local function leave(pod, grace, users)
    for _, user in ipairs(users) do
        local key = 'chat:user:' .. user
        redis.call('HDEL', key, 'p:' .. pod)
        redis.call('SREM', 'chat:pod:' .. pod, user)
        redis.call('HSET', key, 'seen', string.format('%d', now))
        if is_alone(key) then redis.call('ZADD', 'chat:leaving', now + tonumber(grace), user) end
    end
end
"""

# ARGV: pod, whether it knows an epoch, for how long a loss keeps all quiet, then users. Gives the number of the
# change for each who came online.
ENTER = _NOW + _ENTER + "return enter(ARGV[1], ARGV[2], ARGV[3], {unpack(ARGV, 4)})"

# ARGV: pod, grace, then users.
LEAVE = (
    _NOW
    + _LEAVE
    + """
leave(ARGV[1], ARGV[2], {unpack(ARGV, 3)})
return redis.status_reply('OK')
"""
)

# Sockets come and go, in this order. ARGV: pod, whether it knows an epoch, for how long a loss keeps all quiet,
# grace, how long to remember; then for each socket `open` or `close`, a user, whether it is their first or last on
# this pod, its id, and for `open` its age and the rank of the oldest that is too many. `open` gives the number of
# the change, 0 where there is none, and the user's sockets that are too many.
SOCKETS = (
    _NOW
    + _ENTER
    + _LEAVE
    + """
local pod, knows_epoch, quiet, grace, memory = unpack(ARGV, 1, 5)
local steps = {}
function steps.open(user, is_first, socket, age, rank)
    local changes = is_first == '1' and enter(pod, knows_epoch, quiet, {user}) or {0}
    local key = 'chat:sockets:' .. user
    redis.call('ZADD', key, age, socket)
    local too_many = redis.call('ZRANGE', key, 0, rank)
    if #too_many > 0 then redis.call('ZREMRANGEBYRANK', key, 0, rank) end
    redis.call('PEXPIRE', key, memory)
    return {changes[1], too_many}
end
function steps.close(user, is_last, socket)
    if is_last == '1' then leave(pod, grace, {user}) end
    redis.call('ZREM', 'chat:sockets:' .. user, socket)
    return redis.status_reply('OK')
end
local answers = {}
for place = 6, #ARGV, 6 do
    answers[#answers + 1] = guarded(steps[ARGV[place]], unpack(ARGV, place + 1, place + 5))
end
return answers
"""
)

# ARGV: how long to remember, how many at once. Gives users, whether each is online, and the number of that change.
SETTLE = (
    _NOW
    + """
for _, pod in ipairs(redis.call('ZRANGEBYSCORE', 'chat:pods', 0, now)) do
    local users = redis.call('SPOP', 'chat:pod:' .. pod, tonumber(ARGV[2]))
    for _, user in ipairs(users) do
        local key = 'chat:user:' .. user
        redis.call('HDEL', key, 'p:' .. pod)
        if is_alone(key) then redis.call('ZADD', 'chat:leaving', now, user) end
    end
    if #users == 0 then
        redis.call('ZREM', 'chat:pods', pod)
        redis.call('HDEL', 'chat:sockets', pod)
    end
end
local changes = {}
for _, user in ipairs(redis.call('ZRANGEBYSCORE', 'chat:leaving', 0, now, 'LIMIT', 0, tonumber(ARGV[2]))) do
    local key = 'chat:user:' .. user
    redis.call('ZREM', 'chat:leaving', user)
    if is_alone(key) and redis.call('HGET', key, 'on') == '1' then
        local at = change(key, 0)
        must_tell(user)
        changes[#changes + 1] = {user, '0', string.format('%d', at)}
        redis.call('PEXPIRE', key, tonumber(ARGV[1]))
    end
end
for _, user in ipairs(redis.call('ZRANGEBYSCORE', 'chat:untold', 0, now, 'LIMIT', 0, tonumber(ARGV[2]))) do
    local last = redis.call('HMGET', 'chat:user:' .. user, 'on', 'at')
    if last[2] then
        must_tell(user)
        changes[#changes + 1] = {user, last[1], last[2]}
    else
        redis.call('ZREM', 'chat:untold', user)
    end
end
return changes
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

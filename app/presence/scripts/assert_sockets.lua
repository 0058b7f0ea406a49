-- Makes Redis hold the sockets that users have on one pod, and decides whether that brings them online.
--
-- ARGV: 1 pod, 2 number of this step, 3 last number that the pod knows to be applied, 4 lease, 5 quiet period,
--       6 grace, 7 time that a pod has to announce a change (all ms), 8 sockets that a user may have;
--       then for each user: id, number of the change by which the pod knows them online or 0, sockets on this pod.
-- Answer: {'lost'} where Redis has lost steps of this pod, {'late'} where a later step overtook this one: nothing
--       was done. Else {'done', ...} and for each user {number of the change that brought them online now or 0,
--       number of the change by which they are online, 1 where something is still to be decided or announced,
--       sockets past the limit (the oldest)}, or an error.
-- Never: a second `online` for one arrival; an `offline` for a user who has a socket on any pod; a step applied twice
--       or after a later one.

local pod = ARGV[1]
local number, confirmed, lease, quiet, grace, announcing, most =
    tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6]),
    tonumber(ARGV[7]), tonumber(ARGV[8])
if has_lost(pod, confirmed) then
    begin_quiet(quiet)
    return {'lost'}
end
if tonumber(redis.call('HGET', 'chat:steps', pod) or 0) >= number then return {'late'} end
redis.call('HSET', 'chat:steps', pod, number)
redis.call('ZADD', 'chat:pods', now + lease, pod)
local was_quiet = is_quiet()

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
        -- Their arrival was noted while Redis did not know that they were online already.
        redis.call('ZREM', 'chat:arriving', user)
    elseif known > at then
        -- Redis has lost a change that the pod knows.
        at, on = change(key, 1, known), true
    end
    if sockets == '' then
        redis.call('SREM', 'chat:pod:' .. pod, user)
        if redis.call('HDEL', key, 'p:' .. pod) == 1 then redis.call('HSET', key, 'seen', written(now)) end
        if not on then
            -- Until that is announced the pod must remember it: Redis may lose it.
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
        if was_quiet and known == 0 then
            redis.call('ZADD', 'chat:arriving', at, user)
        else
            must_announce(user, announcing)
            came = at
        end
    elseif known == 0 and is_in('chat:untold', user) then
        -- The pod that was to announce it may have died.
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

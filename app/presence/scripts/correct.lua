-- Makes a new change of every user whose presence is not what was last announced to the master.
--
-- ARGV: 1 how long an offline user is remembered (ms); then for each user: id, 1 or 0 as last announced, number of
--       that change.
-- Answer: OK. Any pod announces the changes: `settle` gives them.
-- Never: a number that is not larger than the one that was announced; a user whose change is still on its way.

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
        must_announce(user, 0)
    end
end
return redis.status_reply('OK')

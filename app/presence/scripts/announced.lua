-- Notes that changes were announced.
--
-- ARGV: for each change: user, number.
-- Answer: OK.
-- Never: forgetting a later change of the same user, which is still to be announced.

for place = 1, #ARGV, 2 do
    local user = ARGV[place]
    if redis.call('HGET', 'chat:user:' .. user, 'at') == ARGV[place + 1] then
        redis.call('ZREM', 'chat:untold', user)
    end
end
return redis.status_reply('OK')

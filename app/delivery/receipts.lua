-- Whether a read receipt may be sent: one per interval for a reader and a conversation, over all pods.
--
-- KEYS: 1 the reader in the conversation: the last `seq` that was sent, and when.
-- ARGV: 1 seq of this receipt, 2 interval (ms).
-- Answer: 0 to send it now, the wait in ms, or -1 where this seq or a later one was sent.
-- Never: a receipt that goes back; a key without an expiry.

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local last = redis.call('HMGET', KEYS[1], 'seq', 'at')
if last[1] and tonumber(last[1]) >= tonumber(ARGV[1]) then return -1 end
local wait = last[2] and tonumber(last[2]) + tonumber(ARGV[2]) - now or 0
if wait > 0 then return wait end
redis.call('HSET', KEYS[1], 'seq', ARGV[1], 'at', string.format('%d', now))
redis.call('PEXPIRE', KEYS[1], tonumber(ARGV[2]) * 10)
return 0

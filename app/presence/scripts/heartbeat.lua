-- Renews the lease of a pod, and finds out whether Redis still has what the pod asserted.
--
-- ARGV: 1 pod, 2 last number that it knows to be applied, 3 lease, 4 quiet period (ms), 5 its sockets,
--       6 its users, or -1 while their number may differ from what Redis has.
-- Answer: 1 where Redis has lost something of the pod's, else 0.
-- Cost: constant, however many sockets the pod has.

local pod, confirmed, lease, quiet = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
redis.call('ZADD', 'chat:pods', now + lease, pod)
redis.call('HSET', 'chat:sockets', pod, ARGV[5])
if has_lost(pod, confirmed) then
    begin_quiet(quiet)
    return 1
end
local users = tonumber(ARGV[6])
return users >= 0 and redis.call('SCARD', 'chat:pod:' .. pod) ~= users and 1 or 0

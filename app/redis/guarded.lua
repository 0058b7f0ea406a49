-- Prepended to every script: runs a function and turns an error that it raises into an error reply.
--
-- A script that answers several callers runs it once for each, so that the failure of one (a key of another type) is
-- that caller's answer alone. An error must never end a script half-way: what it wrote before stays written.

local function guarded(...)
    local ok, answer = pcall(...)
    return ok and answer or redis.error_reply(answer)
end

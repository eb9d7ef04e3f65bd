-- Marks a topic as one that may hold messages which are due until some time, before they are held. Who moves what is due looks at topics that are
-- marked; a mark is never taken back, and never gets earlier.
--
-- KEYS: description. ARGV: life it must have, time (ms).
-- Answers {'marked'}; {'is', state, life} where it is another or none: then nothing is changed.
local was = redis.call('HMGET', KEYS[1], 'state', 'life', 'held')
if was[1] ~= 'ready' or was[2] ~= ARGV[1] then return {'is', was[1] or '', was[2] or ''} end
if tonumber(was[3] or '0') < tonumber(ARGV[2]) then redis.call('HSET', KEYS[1], 'held', ARGV[2]) end
return {'marked'}

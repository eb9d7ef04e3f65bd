-- Tells everybody that a topic has more partitions. The partitions are made before (partition_make.lua).
--
-- KEYS: description. ARGV: life it must have, partitions.
-- Answers {'grown', partitions}: as many as were asked for, or as it had already. {'is', state, life} where it is another or none.
local was = redis.call('HMGET', KEYS[1], 'state', 'life', 'partitions')
if was[1] ~= 'ready' or was[2] ~= ARGV[1] then return {'is', was[1] or '', was[2] or ''} end
if tonumber(was[3]) >= tonumber(ARGV[2]) then return {'grown', was[3]} end
redis.call('HSET', KEYS[1], 'partitions', ARGV[2])
return {'grown', ARGV[2]}

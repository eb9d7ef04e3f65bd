-- Moves a topic from one state to another, if it is in the one, in that life.
--
-- KEYS: description. ARGV: state it must be in, life it must have, state it comes to, then names and values of fields to set.
-- Answers {'moved'}, or {'is', state, life} with what it is instead ('' where there is none); then nothing is changed.
local was = redis.call('HMGET', KEYS[1], 'state', 'life')
if was[1] ~= ARGV[1] or was[2] ~= ARGV[2] then return {'is', was[1] or '', was[2] or ''} end
redis.call('HSET', KEYS[1], 'state', ARGV[3], unpack(ARGV, 4))
return {'moved'}

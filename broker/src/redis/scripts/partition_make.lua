-- Makes the empty log of a partition, whose ids begin with its life, so that no id of an earlier life comes again.
--
-- KEYS: log, part. ARGV: life (ms).
-- Answers {'made'}, also where this life was made before. {'kind', type} where something else has the name of the log, {'full', length} where
-- there is a log with messages that no description speaks of: both are for people to look at, and nothing is changed.
local life = redis.call('HGET', KEYS[2], 'life')
if life == ARGV[1] then return {'made'} end
local kind = redis.call('TYPE', KEYS[1]).ok
if kind ~= 'none' and kind ~= 'stream' then return {'kind', kind} end
if kind == 'stream' then
  local length = redis.call('XLEN', KEYS[1])
  if length > 0 then return {'full', tostring(length)} end
  redis.call('DEL', KEYS[1])
end
-- Redis makes an empty stream only for a group.
redis.call('XGROUP', 'CREATE', KEYS[1], 'ropeway-made', '$', 'MKSTREAM')
redis.call('XGROUP', 'DESTROY', KEYS[1], 'ropeway-made')
redis.call('XSETID', KEYS[1], ARGV[1] .. '-0')
redis.call('DEL', KEYS[2])
redis.call('HSET', KEYS[2], 'life', ARGV[1])
return {'made'}

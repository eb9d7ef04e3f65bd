-- Stores the position of a group and the map of what is done beyond it, if the epoch still holds, and mirrors them for tools of Redis.
--
-- KEYS: log, part, what the group has of the partition.
-- ARGV: life ('' for a stream of somebody else), group, epoch, position ('' leaves it as it is: a confirmation), entries before it ('' where
-- unknown), map, entries that are done beyond it, last id that is done (what the mirror shows).
-- Answers {'stored'}, also where more is stored already: one that comes late, over a connection that its owner has given up, takes nothing
-- back; {'fenced', epoch} where another owns it; {'life', stored} where the topic is another or gone. Then nothing is changed.
local life = redis.call('HGET', KEYS[2], 'life') or ''
if life ~= ARGV[1] then return {'life', life} end
local epoch = redis.call('HGET', KEYS[3], 'epoch') or ''
if epoch ~= ARGV[3] then return {'fenced', epoch} end
if ARGV[4] == '' then
  redis.call('HSET', KEYS[3], 'at', time())
  return {'stored'}
end
store(KEYS[1], KEYS[3], ARGV[2], unpack(ARGV, 4, 8))
return {'stored'}

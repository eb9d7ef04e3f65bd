#!lua flags=allow-oom
-- Stores the position of a group and the map of what is done beyond it, if the epoch still holds, and mirrors them for tools of Redis.
--
-- KEYS: log, part, what the group has of the partition.
-- ARGV: life ('' for a stream of somebody else), group, epoch, position ('' leaves it as it is: a confirmation), entries before it ('' where
-- unknown), map, entries that are done beyond it, last id that is done (what the mirror shows).
-- Answers {'stored'}; {'fenced', epoch} where another owns it; {'life', stored} where the topic is another or gone. Then nothing is changed.
local life = redis.call('HGET', KEYS[2], 'life') or ''
if life ~= ARGV[1] then return {'life', life} end
local epoch = redis.call('HGET', KEYS[3], 'epoch') or ''
if epoch ~= ARGV[3] then return {'fenced', epoch} end
local clock = redis.call('TIME')
local now = string.format('%.0f', clock[1] * 1000 + math.floor(clock[2] / 1000))
if ARGV[4] == '' then
  redis.call('HSET', KEYS[3], 'at', now)
  return {'stored'}
end
redis.call('HSET', KEYS[3], 'position', ARGV[4], 'read', ARGV[5], 'map', ARGV[6], 'beyond', ARGV[7], 'at', now)
redis.call('HDEL', KEYS[3], 'before')
if ARGV[5] ~= '' then
  redis.pcall('XGROUP', 'SETID', KEYS[1], ARGV[2], ARGV[8], 'ENTRIESREAD', ARGV[5])
end
return {'stored'}

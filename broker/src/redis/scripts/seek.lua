-- Puts a group at a position, and forgets what it did beyond it. The epoch is raised, so that a commit of a former owner does not undo it.
--
-- KEYS: log, part, what the group has of the partition.
-- ARGV: life ('' for a stream of somebody else), group, position (first that is not done), how many entries lie before it ('' where unknown),
-- last id before it.
-- Answers {'sought', epoch}; {'life', stored} or {'none'} where the topic is another or gone, {'epoch', stored} where what is stored is no epoch that
-- can grow: then nothing is changed.
local life = redis.call('HGET', KEYS[2], 'life') or ''
if life ~= ARGV[1] then return {'life', life} end
if redis.call('EXISTS', KEYS[1]) == 0 then return {'none'} end
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local was = redis.call('HGET', KEYS[3], 'epoch')
local epoch = next_epoch(was, now)
if not epoch then return {'epoch', was} end
epoch = string.format('%.0f', epoch)
redis.call('HSET', KEYS[3], 'epoch', epoch, 'owner', '', 'at', string.format('%.0f', now), 'life', life,
  'position', ARGV[3], 'read', ARGV[4], 'map', '', 'beyond', '0')
redis.call('HDEL', KEYS[3], 'before')
local known = false
for _, group in ipairs(redis.call('XINFO', 'GROUPS', KEYS[1])) do
  if group[2] == ARGV[2] then known = true end
end
if not known then redis.call('XGROUP', 'CREATE', KEYS[1], ARGV[2], ARGV[5]) end
if ARGV[4] == '' then
  redis.call('XGROUP', 'SETID', KEYS[1], ARGV[2], ARGV[5])
else
  redis.call('XGROUP', 'SETID', KEYS[1], ARGV[2], ARGV[5], 'ENTRIESREAD', ARGV[4])
end
return {'sought', epoch}

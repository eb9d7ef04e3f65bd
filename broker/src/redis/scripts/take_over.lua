-- Makes a member the owner of a partition: raises the epoch, and answers what the group has there. From then on every commit of the owner
-- before is refused. Where the group has no position, that of ARGV is stored, before anything is delivered. Where its position is of an
-- earlier life of the topic, it begins at the beginning of this one.
--
-- KEYS: log, part, what the group has of the partition.
-- ARGV: life ('' for a stream of somebody else), group, member, position to start at (first that is not done), how many entries lie before that
-- start ('' where unknown).
-- Answers {'taken', epoch, position, entries before it or '', map, 'stored' | 'started' | 'recreated', last id removed or '', last id there is,
-- entries ever added, entries there are, position in the earlier life or ''}; {'life', stored} or {'none'} where the topic is another or gone,
-- {'epoch', stored} where what is stored is no epoch that can grow: then nothing is changed. 'recreated' is answered until something of the new life is committed: until then nobody knows who was told.
local life = redis.call('HGET', KEYS[2], 'life') or ''
if life ~= ARGV[1] then return {'life', life} end
if redis.call('EXISTS', KEYS[1]) == 0 then return {'none'} end
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local was = redis.call('HMGET', KEYS[3], 'epoch', 'position', 'read', 'map', 'life', 'before')
local epoch = next_epoch(was[1], now)
if not epoch then return {'epoch', was[1]} end
epoch = string.format('%.0f', epoch)

local stream, told = {}, redis.call('XINFO', 'STREAM', KEYS[1])
for i = 1, #told, 2 do stream[told[i]] = told[i + 1] end

local how, before, position, read, map = 'stored', '', was[2], was[3] or '', was[4] or ''
if not position then
  how, position, read, map = 'started', ARGV[4], ARGV[5], ''
elseif was[5] ~= life then
  how, before, position, read, map = 'recreated', was[6] or was[2], life .. '-0', '0', ''
  redis.call('HSET', KEYS[3], 'before', before)
elseif was[6] then
  how, before = 'recreated', was[6]
end
-- Of a log that was made again since, as the one before was lost, nobody knows.
if (tonumber(read) or 0) > stream['entries-added'] then read = '' end
redis.call('HSET', KEYS[3], 'epoch', epoch, 'owner', ARGV[3], 'at', string.format('%.0f', now), 'life', life,
  'position', position, 'read', read, 'map', map)
-- The last round of forwards that took effect, which forward.lua writes: from here on it is known that there was none before.
redis.call('HSETNX', KEYS[3], 'forward', epoch .. ' 0')

-- The mirror, which tools of Redis show. An entry is done that lies before the position, so the last one done is just before it.
local ms, seq = string.match(position, '^(%d+)-(%d+)$')
local done = position
if seq ~= '0' then
  done = ms .. '-' .. string.format('%.0f', tonumber(seq) - 1)
elseif ms ~= '0' then
  done = string.format('%.0f', tonumber(ms) - 1) .. '-18446744073709551615'
end
local known = false
for _, group in ipairs(redis.call('XINFO', 'GROUPS', KEYS[1])) do
  if group[2] == ARGV[2] then known = true end
end
if not known then redis.call('XGROUP', 'CREATE', KEYS[1], ARGV[2], done) end
if read ~= '' then redis.call('XGROUP', 'SETID', KEYS[1], ARGV[2], done, 'ENTRIESREAD', read) end

local removed = redis.call('HGET', KEYS[2], 'removed') or ''
return {'taken', epoch, position, read, map, how, removed, stream['last-generated-id'],
  tostring(stream['entries-added']), tostring(stream['length']), before}

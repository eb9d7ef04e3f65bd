-- Makes again what a partition lost alone: its log or its marks, which were evicted, or removed by somebody. What lay in a log that is gone counts as
-- removed, so that all who had not seen it are told, whenever they come.
--
-- KEYS: log, part.
-- ARGV: life it has.
-- Answers {'mended'}; {'well'} where nothing is missing, and {'life', stored} where it is another: then nothing is changed.
local life = redis.call('HGET', KEYS[2], 'life')
if life and life ~= ARGV[1] then return {'life', life} end
local there = redis.call('EXISTS', KEYS[1]) == 1
if life and there then return {'well'} end

local removed
if there then
  -- What was removed before is not known any more: whatever lies before the first entry, where there ever was something.
  local stream, told = {}, redis.call('XINFO', 'STREAM', KEYS[1])
  for i = 1, #told, 2 do stream[told[i]] = told[i + 1] end
  if stream['entries-added'] > stream['length'] then
    removed = stream['last-generated-id']
    if stream['first-entry'] then
      local ms, seq = string.match(stream['first-entry'][1], '^(%d+)-(%d+)$')
      if seq == '0' then
        removed = string.format('%.0f', tonumber(ms) - 1) .. '-18446744073709551615'
      else
        removed = ms .. '-' .. string.format('%.0f', tonumber(seq) - 1)
      end
    end
  end
else
  local clock = redis.call('TIME')
  local now = math.max(clock[1] * 1000 + math.floor(clock[2] / 1000), tonumber(ARGV[1]) + 1)
  local before = string.match(redis.call('HGET', KEYS[2], 'removed') or '', '^%d+')
  if before then now = math.max(now, tonumber(before) + 1) end
  removed = string.format('%.0f', now) .. '-0'
  redis.call('XGROUP', 'CREATE', KEYS[1], 'ropeway-made', '$', 'MKSTREAM')
  redis.call('XGROUP', 'DESTROY', KEYS[1], 'ropeway-made')
  redis.call('XSETID', KEYS[1], removed)
  redis.call('HDEL', KEYS[2], 'counted', 'bytes', 'pieces')
end
redis.call('HSET', KEYS[2], 'life', ARGV[1])
if removed then redis.call('HSET', KEYS[2], 'removed', removed) end
return {'mended'}

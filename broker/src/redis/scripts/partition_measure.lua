-- Tells what of a partition retention may look at. Counts the bytes (names and values) of entries that came since the last time, and keeps
-- where pieces of so many bytes begin: the entry, and how many bytes were counted before it.
--
-- KEYS: log, part. ARGV: life, bytes of a piece ('' counts nothing), how many entries may be counted at once.
-- Answers {'measured', now (ms), first id there is or '', bytes ever counted, pieces ('<id> <bytes before it> ...', from the one with the first
-- entry on), 'more' where not all is counted, else 'all'}; {'life', stored} or {'none'} where the topic is another or gone: then nothing is changed.
local life = redis.call('HGET', KEYS[2], 'life') or ''
if life ~= ARGV[1] then return {'life', life} end
if redis.call('EXISTS', KEYS[1]) == 0 then return {'none'} end
local clock = redis.call('TIME')
local now = string.format('%.0f', clock[1] * 1000 + math.floor(clock[2] / 1000))
local first = redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', 1)
first = #first > 0 and first[1][1] or ''
if ARGV[2] == '' then return {'measured', now, first, '0', '', 'all'} end

local was = redis.call('HMGET', KEYS[2], 'counted', 'bytes', 'pieces')
local counted, bytes, packed = was[1], tonumber(was[2] or '0'), was[3] or ''
local ids, sums = {}, {}
for id, sum in string.gmatch(packed, '(%S+) (%S+)') do
  ids[#ids + 1] = id
  sums[#sums + 1] = tonumber(sum)
end
-- Never more than a megabyte is looked at together, unless one entry is larger.
local piece, left, step, looked, rest = tonumber(ARGV[2]), tonumber(ARGV[3]), 1, 0, 'more'
while left > 0 and looked < 4194304 do
  local some = redis.call('XRANGE', KEYS[1], counted and '(' .. counted or '-', '+', 'COUNT', math.min(step, left))
  if #some == 0 then
    rest = 'all'
    break
  end
  local size = 0
  for _, entry in ipairs(some) do
    if #ids == 0 or bytes - sums[#sums] >= piece then
      ids[#ids + 1] = entry[1]
      sums[#sums + 1] = bytes
    end
    for _, word in ipairs(entry[2]) do
      size = size + #word
      bytes = bytes + #word
    end
    counted = entry[1]
  end
  left, looked = left - #some, looked + size
  step = math.max(1, math.min(100, math.floor(1048576 * #some / math.max(size, 1))))
end

-- Pieces that are gone are forgotten.
local from = 1
if first == '' or (counted and before(counted, first)) then
  from = #ids + 1
else
  while from < #ids and not before(first, ids[from + 1]) do from = from + 1 end
end
local kept = {}
for i = from, #ids do kept[#kept + 1] = ids[i] .. ' ' .. string.format('%.0f', sums[i]) end
local pieces, sum = table.concat(kept, ' '), string.format('%.0f', bytes)
if counted and (counted ~= was[1] or pieces ~= packed) then
  -- A server without memory takes no more than that is removed: then it is counted again the next time.
  redis.pcall('HSET', KEYS[2], 'counted', counted, 'bytes', sum, 'pieces', pieces)
end
return {'measured', now, first, sum, pieces, rest}

-- Removes what lies before an id, keeps the last id that was removed, and sets every group right whose place was removed: Redis shows a
-- wrong lag for those. Nothing that a group has not finished is spared: that is for who asks.
--
-- KEYS: log, part. ARGV: life it must have ('' for a stream of somebody else), id.
-- Answers {'purged', how many}; {'life', stored} where it is of another life; {'none'} where there is no log. Then nothing is changed.
local life = redis.call('HGET', KEYS[2], 'life') or ''
if life ~= ARGV[1] then return {'life', life} end
if redis.call('EXISTS', KEYS[1]) == 0 then return {'none'} end
local last = redis.call('XREVRANGE', KEYS[1], '(' .. ARGV[2], '-', 'COUNT', 1)
if #last == 0 then return {'purged', '0'} end
last = last[1][1]
local count = redis.call('XTRIM', KEYS[1], 'MINID', '=', ARGV[2])
redis.call('HSET', KEYS[2], 'removed', last)

local function before(a, b)
  local function less(x, y) return #x < #y or (#x == #y and x < y) end
  local ams, aseq = string.match(a, '^(%d+)-(%d+)$')
  local bms, bseq = string.match(b, '^(%d+)-(%d+)$')
  if ams ~= bms then return less(ams, bms) end
  return less(aseq, bseq)
end

local function told(list)
  local map = {}
  for i = 1, #list, 2 do map[list[i]] = list[i + 1] end
  return map
end

local stream = told(redis.call('XINFO', 'STREAM', KEYS[1]))
local gone = stream['entries-added'] - stream['length']
for _, group in ipairs(redis.call('XINFO', 'GROUPS', KEYS[1])) do
  group = told(group)
  if before(group['last-delivered-id'], last) then
    redis.call('XGROUP', 'SETID', KEYS[1], group['name'], last, 'ENTRIESREAD', gone)
  end
end
return {'purged', tostring(count)}

-- What scripts about the entries of a partition share; it is put before them.

-- Whether the id `a` is lower than `b`.
local function before(a, b)
  local function less(x, y) return #x < #y or (#x == #y and x < y) end
  local ams, aseq = string.match(a, '^(%d+)-(%d+)$')
  local bms, bseq = string.match(b, '^(%d+)-(%d+)$')
  if ams ~= bms then return less(ams, bms) end
  return less(aseq, bseq)
end

-- A reply of names and values as a table.
local function told(list)
  local map = {}
  for i = 1, #list, 2 do map[list[i]] = list[i + 1] end
  return map
end

-- Removes what lies before an id, keeps the last id that was removed, and sets every group right whose place was removed: Redis shows a wrong
-- lag for those. Answers how many were removed.
local function remove(log, part, upto)
  local last = redis.call('XREVRANGE', log, '(' .. upto, '-', 'COUNT', 1)
  if #last == 0 then return 0 end
  last = last[1][1]
  -- First, since a server without memory lets a script write only what comes behind a removal.
  local count = redis.call('XTRIM', log, 'MINID', '=', upto)
  redis.call('HSET', part, 'removed', last)
  local stream = told(redis.call('XINFO', 'STREAM', log))
  local gone = stream['entries-added'] - stream['length']
  for _, group in ipairs(redis.call('XINFO', 'GROUPS', log)) do
    group = told(group)
    if before(group['last-delivered-id'], last) then
      redis.call('XGROUP', 'SETID', log, group['name'], last, 'ENTRIESREAD', gone)
    end
  end
  return count
end

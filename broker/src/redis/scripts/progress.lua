-- What scripts about the progress of a group share; it is put before them.

-- The server's time in milliseconds, as text.
local function time()
  local clock = redis.call('TIME')
  return string.format('%.0f', clock[1] * 1000 + math.floor(clock[2] / 1000))
end

-- Whether less is done by these than is stored. In one epoch a position only grows, and what is done beyond it as long as it stays. Who has just
-- taken over does not know how many there are beyond before it has read them.
local function is_late(has, position, beyond)
  local function less(a, b) return #a < #b or (#a == #b and a < b) end
  local stored = redis.call('HMGET', has, 'position', 'beyond')
  if stored[1] == position then
    local now, was = tonumber(beyond), tonumber(stored[2] or '')
    return now and was and now < was
  end
  if not stored[1] then return false end
  local ms, seq = string.match(position, '^(%d+)-(%d+)$')
  local was, of = string.match(stored[1], '^(%d+)-(%d+)$')
  return less(ms, was) or (ms == was and less(seq, of))
end

-- Stores a position and what is done beyond it in `has`, unless it comes late, and mirrors them for tools of Redis. `done`: the last id that is done,
-- which the mirror shows.
local function store(log, has, group, position, read, map, beyond, done)
  if is_late(has, position, beyond) then return end
  redis.call('HSET', has, 'position', position, 'read', read, 'map', map, 'beyond', beyond, 'at', time())
  redis.call('HDEL', has, 'before')
  if read ~= '' then redis.pcall('XGROUP', 'SETID', log, group, done, 'ENTRIESREAD', read) end
end

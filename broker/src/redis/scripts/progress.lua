-- What scripts about the progress of a group share; it is put before them.

-- The server's time in milliseconds, as text.
local function time()
  local clock = redis.call('TIME')
  return string.format('%.0f', clock[1] * 1000 + math.floor(clock[2] / 1000))
end

-- Stores a position and what is done beyond it in `has`, and mirrors them for tools of Redis. `done`: the last id that is done, which the mirror shows.
local function store(log, has, group, position, read, map, beyond, done)
  redis.call('HSET', has, 'position', position, 'read', read, 'map', map, 'beyond', beyond, 'at', time())
  redis.call('HDEL', has, 'before')
  if read ~= '' then redis.pcall('XGROUP', 'SETID', log, group, done, 'ENTRIESREAD', read) end
end

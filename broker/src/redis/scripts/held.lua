-- What scripts about messages that are held share; it is put before them. What is held of one are the words of its entry, each behind its length
-- in 4 bytes.

-- These words. What was cut, or is of somebody else, is one field, so that it is told as unreadable where it is read.
local function words(packed)
  local all, at = {}, 1
  while at + 3 <= #packed do
    local length
    length, at = struct.unpack('>I4', packed, at)
    all[#all + 1] = string.sub(packed, at, at + length - 1)
    at = at + length
  end
  if at ~= #packed + 1 or #all == 0 or #all % 2 == 1 then return {'held', packed} end
  return all
end

-- Keeps a message until it is due. The same message again is kept once; another one of the same id is kept beside it.
local function hold(delayed, held, id, due, packed)
  local name, number = id, 0
  while true do
    local stored = redis.call('HGET', held, name)
    if not stored then break end
    if stored == packed then return end
    number = number + 1
    name = id .. '#' .. number
  end
  redis.call('HSET', held, name, packed)
  redis.call('ZADD', delayed, due, name)
end

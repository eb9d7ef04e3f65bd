-- Takes partitions of a group that nobody owns, as far as they are still free. Owning here is what members agree on; what fences is the epoch
-- (take_over.lua), which comes after.
--
-- KEYS: asked, owners, had, news. ARGV: member, token of its membership, then partitions ('<topic>/<partition>').
-- Answers {'claimed', those that are the member's now ...}; {'fenced'} where its membership is over.
local stored = redis.call('HGET', KEYS[1], ARGV[1])
if not stored or string.match(stored, '^%S+') ~= ARGV[2] then return {'fenced'} end
local clock = redis.call('TIME')
local now = string.format('%.0f', clock[1] * 1000 + math.floor(clock[2] / 1000))
local won = {'claimed'}
for i = 3, #ARGV do
  if redis.call('HSETNX', KEYS[2], ARGV[i], ARGV[1]) == 1 then
    won[#won + 1] = ARGV[i]
    -- Since when it is owned under a static name.
    if string.match(ARGV[2], '^s%-') then redis.call('HSET', KEYS[3], '@' .. ARGV[i], now) end
  end
end
if #won > 1 then redis.call('XADD', KEYS[4], 'MAXLEN', 1, '*', 'who', ARGV[1]) end
return won

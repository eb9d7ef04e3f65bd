-- Gives partitions back to the group, or leaves it. What is another's by now stays as it is.
--
-- KEYS: members, asked, owners, news. ARGV: member, token of its membership, 'stay' | 'leave', then partitions ('<topic>/<partition>'); who
-- leaves gives back all it owns.
-- Answers {'released'}, also where the membership is over already.
local stored = redis.call('HGET', KEYS[2], ARGV[1])
if not stored or string.match(stored, '^%S+') ~= ARGV[2] then return {'released'} end
local given = {}
for i = 4, #ARGV do given[#given + 1] = ARGV[i] end
if ARGV[3] == 'leave' then
  given = redis.call('HKEYS', KEYS[3])
  redis.call('ZREM', KEYS[1], ARGV[1])
  redis.call('HDEL', KEYS[2], ARGV[1])
end
for _, partition in ipairs(given) do
  if redis.call('HGET', KEYS[3], partition) == ARGV[1] then redis.call('HDEL', KEYS[3], partition) end
end
redis.call('XADD', KEYS[4], 'MAXLEN', 1, '*', 'who', ARGV[1])
return {'released'}

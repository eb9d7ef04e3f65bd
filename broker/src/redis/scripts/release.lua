-- Gives partitions back to the group, hands them to another member, or leaves the group. What is another's by now stays as it is.
--
-- KEYS: members, asked, owners, news, had. ARGV: member, token of its membership, 'stay' | 'leaving' | 'leave' | 'to', whom ('to': where that is no
-- member any more, it is as 'stay'), then partitions ('<topic>/<partition>'). Who leaves gives back all it owns; who is leaving, or leaves,
-- under a static name ('s-...') is remembered.
-- Answers {'released'}, also where the membership is over already.
local stored = redis.call('HGET', KEYS[2], ARGV[1])
if not stored or string.match(stored, '^%S+') ~= ARGV[2] then return {'released'} end
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local verb, static = ARGV[3], string.match(ARGV[2], '^s%-')
local given = {}
for i = 5, #ARGV do given[#given + 1] = ARGV[i] end
if verb == 'leave' then
  given = redis.call('HKEYS', KEYS[3])
  redis.call('ZREM', KEYS[1], ARGV[1])
  redis.call('HDEL', KEYS[2], ARGV[1])
end

for _, partition in ipairs(given) do
  if redis.call('HGET', KEYS[3], partition) == ARGV[1] then
    if verb == 'to' and redis.call('HEXISTS', KEYS[2], ARGV[4]) == 1 then
      redis.call('HSET', KEYS[3], partition, ARGV[4])
    else
      redis.call('HDEL', KEYS[3], partition)
    end
    if static and (verb == 'leave' or verb == 'leaving') then remember(partition, ARGV[1], now) end
  end
end
redis.call('XADD', KEYS[4], 'MAXLEN', 1, '*', 'who', ARGV[1])
return {'released'}

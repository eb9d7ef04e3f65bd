-- Joins a group, or renews the lease of a member, and tells who is there and who owns what. Who let its lease end is removed on the way, and what
-- it owned is free.
--
-- KEYS: members, asked, owners, news, had.
-- ARGV: member, token of this membership ('s-...' under a static name), lease (ms), 'join' | 'renew' | 'ask', topics joined by ',' (with 'join' and
-- 'ask').
-- 'join' under a name that is taken ends that membership: what it owned stays with the name. 'ask' changes the topics of a membership.
-- Answers {'held', now, names and what they asked for ('<token> <topics>') in one list, partitions and their owners in one list, partitions and the
-- static name that had them last in one list}; {'fenced'} where another has the name now; {'lost'} where the lease was over. Then nothing is changed.
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local me, token, verb = ARGV[1], ARGV[2], ARGV[4]
local stored = redis.call('HGET', KEYS[2], me)
local mine = stored and string.match(stored, '^%S+') == token
if verb ~= 'join' and not mine then
  if stored then return {'fenced'} end
  return {'lost'}
end

local function free(member, static)
  local owners = redis.call('HGETALL', KEYS[3])
  for i = 1, #owners, 2 do
    if owners[i + 1] == member then
      redis.call('HDEL', KEYS[3], owners[i])
      if static then remember(owners[i], member, now) end
    end
  end
end
local changed = verb ~= 'renew'
if changed then redis.call('HSET', KEYS[2], me, token .. ' ' .. ARGV[5]) end
redis.call('ZADD', KEYS[1], string.format('%.0f', now + tonumber(ARGV[3])), me)
-- Retention asks when the group had a member last.
redis.call('HSET', KEYS[5], '@seen', string.format('%.0f', now))
for _, member in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', string.format('%.0f', now))) do
  local static = string.match(redis.call('HGET', KEYS[2], member) or '', '^s%-')
  redis.call('ZREM', KEYS[1], member)
  redis.call('HDEL', KEYS[2], member)
  free(member, static)
  changed = true
end
if changed then redis.call('XADD', KEYS[4], 'MAXLEN', 1, '*', 'who', me) end
return {'held', string.format('%.0f', now), redis.call('HGETALL', KEYS[2]), redis.call('HGETALL', KEYS[3]), redis.call('HGETALL', KEYS[5])}

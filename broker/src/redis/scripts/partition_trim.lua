-- Removes what lies before an id, but nothing that a live group has not finished, keeps the last id that was removed, and sets groups right whose
-- place was removed. A consumer group of Redis that is none of ours counts as live until it held something back for the given time without moving,
-- and no consumer of it asked for anything in that time.
--
-- KEYS: log, part, then what each live group of ours has of the partition. ARGV: life, id, time (ms) after which a consumer group of others is
-- dead, then the names of the live groups in the same order, then those of our other groups on the topic.
-- Answers {'trimmed', how many, id up to which it was allowed, who held the rest back or ''}; {'life', stored} or {'none'} where the topic is
-- another or gone: then nothing is changed.
local life = redis.call('HGET', KEYS[2], 'life') or ''
if life ~= ARGV[1] then return {'life', life} end
if redis.call('EXISTS', KEYS[1]) == 0 then return {'none'} end
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)

local upto, holder, ours = ARGV[2], '', {}
for i = 4, #ARGV do ours[ARGV[i]] = true end
for i = 3, #KEYS do
  local has = redis.call('HMGET', KEYS[i], 'life', 'position')
  if has[1] == life and has[2] and before(has[2], upto) then upto, holder = has[2], ARGV[i + 1] end
end

-- Whether a consumer group of others that stands at `place` holds back what it has not finished.
local function lives(name, place)
  local key = 'stock:' .. name
  local since, stood = string.match(redis.call('HGET', KEYS[2], key) or '', '^(%d+) (.*)$')
  if stood ~= place then
    redis.pcall('HSET', KEYS[2], key, string.format('%.0f', now) .. ' ' .. place)
    return true
  end
  if now - tonumber(since) < tonumber(ARGV[3]) then return true end
  for _, consumer in ipairs(redis.call('XINFO', 'CONSUMERS', KEYS[1], name)) do
    if told(consumer)['idle'] < tonumber(ARGV[3]) then return true end
  end
  return false
end
local groups = redis.call('XINFO', 'GROUPS', KEYS[1])
for _, group in ipairs(groups) do
  group = told(group)
  if not ours[group['name']] then
    local place = group['last-delivered-id']
    if group['pending'] > 0 then
      local oldest = redis.call('XPENDING', KEYS[1], group['name'])[2]
      if oldest and before(oldest, place) then place = oldest end
    end
    if not before(place, ARGV[2]) then
      redis.call('HDEL', KEYS[2], 'stock:' .. group['name'])
    elseif lives(group['name'], place .. ' ' .. group['pending']) and before(place, upto) then
      upto, holder = place, group['name']
    end
  end
end

return {'trimmed', tostring(remove(KEYS[1], KEYS[2], upto)), upto, holder}

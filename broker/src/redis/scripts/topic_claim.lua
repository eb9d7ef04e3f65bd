-- Claims the name of a topic for one who makes it. What is claimed is not seen as a topic until topic_move.lua makes it ready.
--
-- KEYS: description.
-- ARGV: token of who claims, version of the format, partitions, age (ms or ''), bytes (or ''), how long a claim holds (ms).
-- Answers {'claimed', life}: the life is the server's time in milliseconds, always later than the last id of an earlier life.
-- Else nothing is changed: {'exists'}, {'claimed-by', token}, {'deleting'}, {'version', stored}.
local was = redis.call('HMGET', KEYS[1], 'version', 'state', 'token', 'at', 'last')
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
if was[1] and was[1] ~= ARGV[2] then return {'version', was[1]} end
if was[2] == 'ready' then return {'exists'} end
if was[2] == 'deleting' then return {'deleting'} end
if was[2] == 'making' and was[3] ~= ARGV[1] and tonumber(was[4]) + tonumber(ARGV[6]) > now then
  return {'claimed-by', was[3]}
end
local life = now
if was[5] then
  life = math.max(life, tonumber(string.match(was[5], '^%d+')) + 1)
end
life = string.format('%.0f', life)
redis.call('DEL', KEYS[1])
redis.call('HSET', KEYS[1], 'version', ARGV[2], 'state', 'making', 'token', ARGV[1], 'at', string.format('%.0f', now),
  'life', life, 'partitions', ARGV[3], 'age', ARGV[4], 'bytes', ARGV[5])
if was[5] then redis.call('HSET', KEYS[1], 'last', was[5]) end
return {'claimed', life}

-- Moves messages that are due, by the server's clock, to the log, in the order in which they are due. Who runs it does not matter, nor how many do.
--
-- KEYS: log, part, delayed, held. ARGV: life it must have ('' for a stream of somebody else), how many at the most.
-- Answers {'moved', how many, when the next is due (ms) or '', the server's time (ms)}; {'life', stored} or {'none'} where the topic is another or
-- gone: then nothing is moved. No more than about a megabyte is moved together, unless one message is larger: so long a server stands still.
local life = redis.call('HGET', KEYS[2], 'life') or ''
if life ~= ARGV[1] then return {'life', life} end
if redis.call('EXISTS', KEYS[1]) == 0 then return {'none'} end
local clock = redis.call('TIME')
local now = string.format('%.0f', clock[1] * 1000 + math.floor(clock[2] / 1000))
local due = redis.call('ZRANGEBYSCORE', KEYS[3], '-inf', now, 'LIMIT', 0, ARGV[2])
local moved, bytes = 0, 0
for _, name in ipairs(due) do
  if bytes >= 1048576 then break end
  local packed = redis.call('HGET', KEYS[4], name)
  if packed then
    redis.call('XADD', KEYS[1], 'NOMKSTREAM', '*', unpack(words(packed)))
    bytes = bytes + #packed
  end
  moved = moved + 1
  redis.call('ZREM', KEYS[3], name)
  redis.call('HDEL', KEYS[4], name)
end
local next = redis.call('ZRANGE', KEYS[3], 0, 0, 'WITHSCORES')
return {'moved', tostring(moved), next[2] or '', now}

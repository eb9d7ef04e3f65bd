-- Takes back what is held under an id, all of it. What was moved to the log is not held any more.
--
-- KEYS: delayed, held. ARGV: id (16 bytes).
-- Answers {'cancelled', how many}.
local name, number = ARGV[1], 0
while redis.call('HDEL', KEYS[2], name) == 1 do
  redis.call('ZREM', KEYS[1], name)
  number = number + 1
  name = ARGV[1] .. '#' .. number
end
return {'cancelled', tostring(number)}

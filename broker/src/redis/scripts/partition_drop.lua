-- Removes a partition: its messages, delayed ones too. What groups have of it stays, so that they are told when the topic is made again.
--
-- KEYS: log, part, delayed, held. ARGV: life it must have.
-- Answers {'dropped', last id that was ever given, or ''}; {'life', stored} where it is of another life, and nothing is changed.
local life = redis.call('HGET', KEYS[2], 'life')
if life and life ~= ARGV[1] then return {'life', life} end
local last = ''
if redis.call('TYPE', KEYS[1]).ok == 'stream' then
  local told = redis.call('XINFO', 'STREAM', KEYS[1])
  for i = 1, #told, 2 do
    if told[i] == 'last-generated-id' then last = told[i + 1] end
  end
  redis.call('UNLINK', KEYS[1])
end
redis.call('UNLINK', KEYS[2], KEYS[3], KEYS[4])
return {'dropped', last}

-- Keeps a message until it is due. The same message again (one that is sent again because nobody knows what became of it) is kept once; another
-- one of the same id is kept beside it.
--
-- KEYS: log, part, delayed, held.
-- ARGV: life it must have ('' for a stream of somebody else), id (16 bytes), when it is due (ms), the words of its entry, each behind its length in 4 bytes,
-- 'again' where nobody knows whether it was kept before.
-- Answers {'held'}; {'life', stored} or {'none'} where the topic is another or gone, {'far'} where it is sent again and due by now: it may have been
-- moved to the log, and kept again it would come twice. Then nothing is kept.
local life = redis.call('HGET', KEYS[2], 'life') or ''
if life ~= ARGV[1] then return {'life', life} end
if redis.call('EXISTS', KEYS[1]) == 0 then return {'none'} end
if ARGV[5] == 'again' then
  local clock = redis.call('TIME')
  if tonumber(ARGV[3]) <= clock[1] * 1000 + math.floor(clock[2] / 1000) then return {'far'} end
end
hold(KEYS[3], KEYS[4], ARGV[2], ARGV[3], ARGV[4])
return {'held'}

-- Removes what lies before an id, keeps the last id that was removed, and sets every group right whose place was removed: Redis shows a
-- wrong lag for those. Nothing that a group has not finished is spared: that is for who asks.
--
-- KEYS: log, part. ARGV: life it must have ('' for a stream of somebody else), id.
-- Answers {'purged', how many}; {'life', stored} where it is of another life; {'none'} where there is no log. Then nothing is changed.
local life = redis.call('HGET', KEYS[2], 'life') or ''
if life ~= ARGV[1] then return {'life', life} end
if redis.call('EXISTS', KEYS[1]) == 0 then return {'none'} end
return {'purged', tostring(remove(KEYS[1], KEYS[2], ARGV[2]))}

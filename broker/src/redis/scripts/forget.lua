-- Forgets what a group has of a partition, and its mirror.
--
-- KEYS: log, what the group has of the partition. ARGV: group.
-- Answers {'forgotten'}, also where there was nothing.
redis.call('UNLINK', KEYS[2])
if redis.call('TYPE', KEYS[1]).ok == 'stream' then redis.call('XGROUP', 'DESTROY', KEYS[1], ARGV[1]) end
return {'forgotten'}

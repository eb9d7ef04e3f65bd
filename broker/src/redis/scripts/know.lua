-- Adds a name to a set: a group to those of a topic, or to all there are.
--
-- KEYS: the set. ARGV: the name.
-- Answers {'known'}.
redis.call('SADD', KEYS[1], ARGV[1])
return {'known'}

-- Tells what a partition says of itself, without the messages that XINFO STREAM shows beside: of many partitions they would be hundreds of megabytes.
--
-- KEYS: log, part. ARGV: none.
-- Answers {'extent', entries ever added, entries there are, last id there is, first id there is or '', life or '', last id removed or ''}; {'none'} where
-- there is no log.
if redis.call('EXISTS', KEYS[1]) == 0 then return {'none'} end
local stream, told = {}, redis.call('XINFO', 'STREAM', KEYS[1])
for i = 1, #told, 2 do stream[told[i]] = told[i + 1] end
local marks, first = redis.call('HMGET', KEYS[2], 'life', 'removed'), stream['first-entry']
return {'extent', tostring(stream['entries-added']), tostring(stream['length']), stream['last-generated-id'],
  first and first[1] or '', marks[1] or '', marks[2] or ''}

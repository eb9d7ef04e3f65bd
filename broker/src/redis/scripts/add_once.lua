-- Appends a message unless it is there: for one that is sent again because nobody knows what became of it.
--
-- KEYS: log. ARGV: id of the message (16 bytes), id of an entry that was there before it was first sent, how many entries may be looked
-- at, then the fields.
-- Answers {'added', entry}, {'there', entry}, {'none'} where there is no log, {'far'} where it was not found among so many: then nothing is
-- written, and nobody knows.
local there
local all = search(KEYS[1], ARGV[2], tonumber(ARGV[3]), function(entry)
  local fields = entry[2]
  for i = 1, #fields, 2 do
    if fields[i] == 'id' and fields[i + 1] == ARGV[1] then there = entry[1] end
  end
  return there
end)
if there then return {'there', there} end
if not all then return {'far'} end
local added = redis.call('XADD', KEYS[1], 'NOMKSTREAM', '*', unpack(ARGV, 4))
if not added then return {'none'} end
return {'added', added}
